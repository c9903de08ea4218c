# -*- test-case-name: tests.tlsrpt.test_recorder -*-
"""
Records session outcomes in the store from which TLS reports are made.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from datetime import date
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dates import utcDay
from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeRecorder, ISessionObserver
from moxtls.outages import Backlog
from moxtls.tlsrpt.types import PolicyType, SessionOutcome

#: A unique number, so that equal outcomes are separate entries; day; outcome.
_Entry = tuple[int, date, SessionOutcome]


@implementer(ISessionObserver)
class OutcomeRecorder:
    """
    Records each outcome under the UTC day in which its attempt ended.  While the store
    is unavailable, outcomes wait in a bounded backlog.
    """

    log = Logger()

    def __init__(
        self, clock: IReactorTime, store: IOutcomeRecorder, enabled: bool = True
    ) -> None:
        """
        @param enabled: If false, nothing is recorded.
        """
        self._clock = clock
        self._store = store
        self._enabled = enabled
        self._numbers = count()
        self._backlog = Backlog(clock, "TLS outcomes", self._record)

    def sessionEnded(self, outcome: SessionOutcome) -> Deferred[None]:
        if outcome.isTLSReport:
            # RFC 8460 3: left out of the next report, so not recorded.
            self._log(outcome)
            return succeed(None)
        if not self._enabled:
            return succeed(None)
        if _isAddress(outcome.recipientDomain):
            return succeed(None)
        if outcome.recipient is None and not outcome.hosts:
            # Nothing was observed, such as after a local error.
            return succeed(None)
        day = utcDay(self._clock.seconds())
        entry = (next(self._numbers), day, countedOnce(withoutContradiction(outcome)))
        return self._backlog.record(entry)

    def stop(self) -> Deferred[None]:
        """
        Stop recording.  Fires once the backlog is written or lost.
        """
        return Deferred.fromCoroutine(self._backlog.stop())

    def _record(self, entry: _Entry, times: int) -> Deferred[None]:
        _, day, outcome = entry
        return self._store.record(day, outcome)

    def _log(self, outcome: SessionOutcome) -> None:
        own = (outcome.recipient,) if outcome.recipient is not None else ()
        for tally in (*own, *outcome.hosts):
            self.log.info(
                "TLS report delivered to {domain}: policy {policy} of {of}: "
                "{good} sessions succeeded, {bad} failed: {failures}",
                domain=outcome.recipientDomain,
                policy=tally.policy.type,
                of=tally.policy.domain,
                good=tally.succeeded,
                bad=tally.failed,
                failures=[(str(f.resultType), f.reasonCode) for f in tally.failures],
            )


def withoutContradiction(outcome: SessionOutcome) -> SessionOutcome:
    """
    Drop "no policy" of a recipient domain that is its own mail host with TLSA records:
    the records were applied, and a report must not say both.
    """
    recipient = outcome.recipient
    if recipient is None or recipient.policy.type is not PolicyType.NO_POLICY:
        return outcome
    policies = (host.policy for host in outcome.hosts)
    withTLSA = {each.domain for each in policies if each.type is PolicyType.TLSA}
    if recipient.policy.domain in withTLSA:
        return replace(outcome, recipient=None)
    return outcome


def countedOnce(outcome: SessionOutcome) -> SessionOutcome:
    """
    Count sessions once for a recipient domain that is its own mail host and has no
    policy: as recipient domain and as host it has the same entry in a report.  The
    tally of the recipient domain includes that of the host.
    """
    recipient = outcome.recipient
    if recipient is None:
        return outcome
    hosts = tuple(each for each in outcome.hosts if each.policy != recipient.policy)
    return outcome if hosts == outcome.hosts else replace(outcome, hosts=hosts)


def _isAddress(domain: Domain) -> bool:
    # An IP address can't have a TLSRPT record.
    try:
        ipaddress.ip_address(domain.ascii)
    except ValueError:
        return False
    return True
