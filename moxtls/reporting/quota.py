# -*- test-case-name: tests.reporting.test_quota -*-
"""
How many reports may be sent at once, and what they stand for (RFC 9991 8.1).
No I/O.

Whatever comes in, what is remembered is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from moxtls.calendar import DAY, HOUR, MINUTE, Elapsed
from moxtls.domain import Domain

#: Domains of which something is remembered.  Who has that many of his own is
#: still held to what there is for all.
MAX_DOMAINS = 1000
#: Messages that are known to have been dealt with.
MAX_SEEN = 1000
#: Seconds in which the recipients of one message all have theirs.
REMEMBERED_FOR = 10 * MINUTE


@dataclass(slots=True)
class _Account:
    """
    @ivar sent: When there were reports, of the last hour.
    @ivar held: How many messages there was no report on since the last one.
    @ivar latest: When there was the last of those.
    """

    sent: deque[float] = field(default_factory=deque)
    held: int = 0
    latest: float = 0


class Quota:
    """
    So many reports an hour for each domain, and so many a day for all; what is
    beyond that is counted, and told in the next one.
    """

    def __init__(self, perHour: int, perDay: int) -> None:
        self._perHour = perHour
        self._perDay = perDay
        self._sent: deque[float] = deque()
        self._accounts: OrderedDict[Domain, _Account] = OrderedDict()
        self._elapsed = Elapsed()

    def take(self, domain: Domain, now: float) -> int:
        """
        There is something to report to C{domain}.

        @return: For how many messages a report speaks that is sent now; 0 if
            none may be sent.
        """
        now = self._elapsed.at(now)
        account = self._account(domain)
        _forget(account.sent, now - HOUR)
        _forget(self._sent, now - DAY)
        if len(account.sent) >= self._perHour or len(self._sent) >= self._perDay:
            self._hold(domain, 1, now)
            return 0
        account.sent.append(now)
        self._sent.append(now)
        incidents = _recent(account, now) + 1
        account.held = 0
        return incidents

    def hold(self, domain: Domain, incidents: int, now: float) -> None:
        """
        Count messages on which there is no report.
        """
        self._hold(domain, incidents, self._elapsed.at(now))

    def _hold(self, domain: Domain, incidents: int, now: float) -> None:
        account = self._account(domain)
        account.held = _recent(account, now) + incidents
        account.latest = now

    def giveBack(self, domain: Domain, incidents: int, now: float) -> None:
        """
        Nothing came of a report: others may have its place in the day, but
        for this hour, C{domain} has had it.
        """
        if self._sent:
            self._sent.pop()
        self.hold(domain, incidents, now)

    def _account(self, domain: Domain) -> _Account:
        account = self._accounts.setdefault(domain, _Account())
        self._accounts.move_to_end(domain)
        if len(self._accounts) > MAX_DOMAINS:
            self._accounts.popitem(last=False)
        return account


class Deduplicator:
    """
    What was there a moment ago.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def isNew(self, id: bytes, now: float) -> bool:
        """
        @param id: Remembered from now on, for L{REMEMBERED_FOR}.
        """
        known = self._seen.get(id)
        if known is not None and 0 <= now - known < REMEMBERED_FOR:
            return False
        self._seen[id] = now
        self._seen.move_to_end(id)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return True


def _recent(account: _Account, now: float) -> int:
    """
    What was held back; after a quiet day, it is nobody's concern any more.
    """
    return account.held if now - account.latest < DAY else 0


def _forget(times: deque[float], before: float) -> None:
    while times and times[0] <= before:
        times.popleft()
