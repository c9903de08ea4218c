# -*- test-case-name: tests.dns.test_cache -*-
"""
Cache of DNS answers.  No I/O: the time is always an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from moxtls.dates import DAY, HOUR
from moxtls.dns.types import TLSA, TXT, Answer, LookupStatus
from moxtls.dns.wire import Question

#: Seconds.  RFC 8767 4 suggests a cap of days; a day saves enough lookups, and
#: limits the effect of a mistake in a zone.
MAX_POSITIVE_TTL = DAY
#: RFC 2308 5 recommends one to three hours.
MAX_NEGATIVE_TTL = HOUR
#: Seconds.  RFC 9520 3.2: at least a second, so that a burst makes one query; at
#: most five minutes.  Mail is retried later than this anyway.
FAILURE_TTL = 5
#: A host that sends to very many domains looks up about ten things for each.
MAX_ENTRIES = 20_000
#: Octets of one answer: those needed for mail are smaller.
MAX_SIZE = 8 * 1024
#: Octets of all entries: many times the regular use.  Senders of mail choose what is
#: looked up for it, and the answers.
MAX_TOTAL_OCTETS = 32 * 1024 * 1024
#: Octets of a record without data of variable length.
_RECORD_SIZE = 100


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: Answer
    size: int
    since: float
    until: float


class Cache:
    """
    Answers by question, limited in number, size and lifetime.
    """

    def __init__(self, maxEntries: int = MAX_ENTRIES) -> None:
        self._mostEntries = maxEntries
        self._entries: OrderedDict[Question, _Entry] = OrderedDict()
        self._octets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, asked: Question, now: float) -> Answer | None:
        """
        The cached answer, with its remaining C{ttl}.
        """
        entry = self._entries.get(asked)
        if entry is None:
            return None
        # A clock that was set back would extend the lifetime of entries.
        if not entry.since <= now < entry.until:
            self._remove(asked)
            return None
        self._entries.move_to_end(asked)
        return replace(entry.answer, ttl=int(entry.until - now))

    def put(self, asked: Question, answer: Answer, now: float) -> None:
        """
        Add C{answer}, if its time to live and its size allow it; the least
        recently used entries are removed for it.
        """
        self._remove(asked)
        lifetime, size = _lifetime(answer), _size(answer)
        if lifetime <= 0 or size > MAX_SIZE:
            return
        self._entries[asked] = _Entry(answer, size, now, now + lifetime)
        self._octets += size
        while len(self._entries) > self._mostEntries or self._octets > MAX_TOTAL_OCTETS:
            self._remove(next(iter(self._entries)))

    def clear(self) -> None:
        self._entries.clear()
        self._octets = 0

    def _remove(self, asked: Question) -> None:
        entry = self._entries.pop(asked, None)
        if entry is not None:
            self._octets -= entry.size


def _lifetime(answer: Answer) -> int:
    match answer.status:
        case LookupStatus.FAILED:
            return FAILURE_TTL
        case LookupStatus.RECORDS:
            return min(answer.ttl, MAX_POSITIVE_TTL)
        case _:
            return min(answer.ttl, MAX_NEGATIVE_TTL)


def _size(answer: Answer) -> int:
    texts = sum(len(each.text) for each in answer.records if isinstance(each, TXT))
    data = sum(len(each.data) for each in answer.records if isinstance(each, TLSA))
    return _RECORD_SIZE * len(answer.records) + texts + data
