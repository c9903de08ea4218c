# -*- test-case-name: tests.dns.test_answers -*-
"""
Cache of DNS answers, and the steps of a CNAME chain that are authentic.  No I/O: the
time is always an argument.

A recursive server sets one AD bit for a whole answer.  Where it isn't set, some
steps may be authentic all the same (RFC 7672 2.2.2 depends on which); a query for
each step tells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moxtls.dates import DAY, HOUR
from moxtls.dns.types import TLSA, TXT, Answer, LookupStatus, RRType
from moxtls.dns.wire import Question, failedAnswer

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


def needsSteps(answer: Answer) -> bool:
    """
    True if it takes more queries to know which parts of C{answer} are authentic.
    """
    return bool(answer.chain) and not answer.authentic and not answer.failed


def stepQuestions(answer: Answer) -> tuple[Question, ...]:
    """
    The questions for that: one for each step, and the last for the end of the
    chain.
    """
    aliases = (Question(each.name, RRType.CNAME) for each in answer.chain)
    return (*aliases, Question(answer.canonicalName, answer.kind))


def withStepAuthenticity(whole: Answer, parts: Sequence[Answer]) -> Answer:
    """
    Set C{authentic} for each step.

    @param parts: The answers to C{stepQuestions(whole)}.

    @return: C{whole}, with what is authentic in its place.  It has failed if
        one of C{parts} has: an attacker who suppresses the answer to one
        question must not make that part look unsigned (RFC 7672 2.1.1).
    """
    *aliases, end = parts
    for each in parts:
        if each.failed:
            reason = f"{each.kind} of {each.name}: {each.reason}"
            return failedAnswer(Question(whole.name, whole.kind), reason, each.errors)
    chain = tuple(
        replace(step, authentic=alias.authentic and alias.names == (step.target,))
        for step, alias in zip(whole.chain, aliases, strict=True)
    )
    ttl = min(whole.ttl, *(each.ttl for each in parts))
    if end.chain:
        # The zone has changed meanwhile: an alias where the end was.
        return replace(whole, chain=chain, endAuthentic=False, ttl=ttl)
    return replace(
        whole,
        status=end.status,
        # The records that were validated, not the earlier ones.
        records=end.records,
        chain=chain,
        authentic=end.authentic and all(each.authentic for each in chain),
        endAuthentic=end.authentic,
        ttl=ttl,
    )
