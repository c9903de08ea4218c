# -*- test-case-name: tests.received.analysis.test_answers -*-
"""
Answers the questions about a domain and a span from received reports: how many sessions
or messages, what failed, why, since when, who reports it, and what to do.  No I/O.

Commands and pages show the same values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum

from moxtls.received.analysis.explanations import Explanation, explain
from moxtls.received.analysis.sources import SourceGroup, SourceKind, advice
from moxtls.received.types import (
    MAX_REPORTERS,
    DMARCDay,
    Reporter,
    RowOutcome,
    TLSDay,
    TLSFailureGroup,
)

#: From this share of failures on, something is broken: one of ten messages at risk is
#: noticed by users, too.
BROKEN_SHARE = 0.10
#: Fewer failures than this are never called broken: a share of a handful says nothing.
MIN_BROKEN = 5
#: Up to this share, failures are normal: connections break, and few senders have
#: obsolete software.
NORMAL_SHARE = 0.001
#: Days without a failure, although there were reports, after which it is over.  Reports
#: are about whole days and take another one to arrive; some senders skip days without
#: failures.
OVER_AFTER = 3

_EPOCH = date(1970, 1, 1)


class Verdict(StrEnum):
    """
    The state of a domain in one word, worst last.
    """

    NO_DATA = "no data"
    FINE = "fine"
    LOOK = "look at it"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """
    The verdict about a domain and a span.

    @ivar sentence: One sentence, without a full stop.
    @ivar since: The first day of what is wrong; C{None} if nothing is.
    @ivar remedy: What to do; empty if nothing.
    """

    verdict: Verdict
    sentence: str
    since: int | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class DayCount:
    """
    Sessions or messages of one day.

    @ivar refused: Messages that receivers rejected or quarantined.
    """

    day: int
    passed: int = 0
    failed: int = 0
    dkim: int = 0
    spf: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        return self.passed + self.failed


@dataclass(frozen=True, slots=True)
class FailureReason:
    """
    Failed sessions with the same explanation.

    @ivar codes: Failure reason codes, as reported.
    @ivar hosts: Reported MX hosts, or their IP addresses.
    @ivar reporters: Organizations, at most L{MAX_REPORTERS}.
    @ivar reports: Numbers of reports, at most L{MAX_REPORTERS}.
    @ivar events: Sentences about this host's own events of that time.
    """

    explanation: Explanation
    resultType: str
    codes: tuple[str, ...]
    sessions: int
    hosts: tuple[str, ...]
    policyTypes: tuple[str, ...]
    reporters: tuple[str, ...]
    reports: tuple[int, ...]
    firstDay: int
    lastDay: int
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The answer from reports of one kind about a domain and the days C{first} to C{last}.

    @ivar total: Sessions or messages.
    @ivar failed: Those that failed.
    """

    domain: str
    first: int
    last: int
    conclusion: Conclusion
    total: int
    failed: int
    days: tuple[DayCount, ...]
    reporters: tuple[Reporter, ...]


@dataclass(frozen=True, slots=True)
class TLSAnswer(Answer):
    """
    The answer from TLS reports about mail to a domain.

    @ivar reasons: Most sessions first; also failures that failed no session, because no
        policy was enforced.
    """

    reasons: tuple[FailureReason, ...]


@dataclass(frozen=True, slots=True)
class DMARCAnswer(Answer):
    """
    The answer from DMARC reports about mail from a domain.

    @ivar sources: Those with most failures first.
    """

    sources: tuple[SourceGroup, ...]


# --- TLS ------------------------------------------------------------------------------


def answerTLS(
    domain: str,
    first: int,
    last: int,
    days: Iterable[TLSDay],
    reasons: Sequence[FailureReason],
    reporters: Sequence[Reporter],
) -> TLSAnswer:
    """
    Answer from the store's values about C{domain} and the days C{first} to C{last}.

    @param reasons: From L{failureReasons}.
    """
    counts = _tlsDays(days)
    reasons = [
        replace(each, explanation=each.explanation.about(domain, (*each.hosts, "")[0]))
        for each in reasons
    ]
    return TLSAnswer(
        domain,
        first,
        last,
        _concludeTLS(counts, reasons, reporters),
        sum(each.total for each in counts),
        sum(each.failed for each in counts),
        counts,
        tuple(reporters),
        tuple(reasons),
    )


def _tlsDays(days: Iterable[TLSDay]) -> tuple[DayCount, ...]:
    found: dict[int, list[int]] = {}
    for each in days:
        count = found.setdefault(each.day, [0, 0])
        count[0] += each.succeeded
        count[1] += each.failed
    return tuple(DayCount(day, *count) for day, count in sorted(found.items()))


def failureReasons(groups: Iterable[TLSFailureGroup]) -> tuple[FailureReason, ...]:
    """
    Merge groups of failed sessions that have the same explanation; most sessions first.
    """
    merged: dict[tuple[str, str], list[TLSFailureGroup]] = {}
    for group in groups:
        title = explain(group.resultType, group.reasonCode).title
        merged.setdefault((group.resultType, title), []).append(group)
    reasons = map(_reason, merged.values())
    return tuple(sorted(reasons, key=lambda each: -each.sessions))


def _reason(groups: Sequence[TLSFailureGroup]) -> FailureReason:
    first = groups[0]
    return FailureReason(
        explain(first.resultType, first.reasonCode),
        first.resultType,
        _distinct(each.reasonCode for each in groups),
        sum(each.sessions for each in groups),
        _distinct(each.mxHost or each.receivingIP for each in groups),
        _distinct(each.policyType for each in groups),
        _distinct(name for each in groups for name in each.reporters)[:MAX_REPORTERS],
        _latest(number for each in groups for number in each.reports),
        min(each.firstDay for each in groups),
        max(each.lastDay for each in groups),
    )


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, texts)))


def _latest(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(numbers), reverse=True)[:MAX_REPORTERS])


def _concludeTLS(
    days: Sequence[DayCount],
    reasons: Sequence[FailureReason],
    reporters: Sequence[Reporter],
) -> Conclusion:
    total = sum(each.total for each in days)
    failed = sum(each.failed for each in days)
    if not days and not reasons:
        return Conclusion(Verdict.NO_DATA, "no TLS report about these days")
    latest = max([each.day for each in days] + [each.lastDay for each in reasons])
    current = [each for each in reasons if latest - each.lastDay < OVER_AFTER]
    recent = [each for each in days if latest - each.day < OVER_AFTER]
    isCurrent = bool(current) or any(each.failed for each in recent)
    what = f"{number(failed)} of {count(total, 'session')} failed"
    if not failed and current:
        # Without an enforced policy, mail is delivered all the same.
        sessions = count(sum(each.sessions for each in current), "session")
        main = current[0]
        return Conclusion(
            Verdict.LOOK,
            f"{sessions} had a defect, though mail was delivered: {_about(main)}",
            main.firstDay,
            main.explanation.remedy,
        )
    if not failed and not total:
        return Conclusion(Verdict.FINE, "reports without sessions")
    if not failed:
        said = count(len(reporters), "reporter")
        return Conclusion(Verdict.FINE, f"{every(total, 'session')} safe ({said})")
    if not isCurrent:
        ended = max((each.day for each in days if each.failed), default=latest)
        return Conclusion(Verdict.FINE, f"{what}, the last on {dayName(ended)}")
    verdict = _grade(failed, total, recent)
    if verdict is Verdict.FINE:
        return Conclusion(verdict, f"{what}, which is normal")
    since = _failingSince(days)
    if not current:
        return Conclusion(verdict, f"{what}, for no stated reason", since)
    main = current[0]
    since = max(main.firstDay, since)
    return Conclusion(
        verdict, f"{what}: {_about(main)}", since, main.explanation.remedy
    )


def _failingSince(days: Sequence[DayCount]) -> int:
    """
    The first day of the failures that go on: those before were over by then.

    @param days: By day; at least one has failures.
    """
    lastFailed = since = next(each.day for each in days if each.failed)
    lastPassed = -1
    for each in days:
        if not each.failed:
            lastPassed = each.day
            continue
        if lastPassed - lastFailed >= OVER_AFTER:
            since = each.day
        lastFailed = each.day
    return since


def _about(reason: FailureReason) -> str:
    where = f" at {reason.hosts[0]}" if len(reason.hosts) == 1 else ""
    if len(reason.hosts) > 1:
        where = f" at {len(reason.hosts)} hosts"
    return f"{reason.explanation.title}{where}"


def _grade(failed: int, total: int, recent: Sequence[DayCount]) -> Verdict:
    """
    The verdict for failures that aren't over.

    @param recent: The days with reports of the latest L{OVER_AFTER}.
    """
    recently = sum(each.failed for each in recent)
    ofRecent = sum(each.total for each in recent)
    if recently >= MIN_BROKEN and recently >= BROKEN_SHARE * ofRecent:
        return Verdict.BROKEN
    return Verdict.LOOK if failed > NORMAL_SHARE * total else Verdict.FINE


# --- DMARC ----------------------------------------------------------------------------


def answerDMARC(
    domain: str,
    first: int,
    last: int,
    days: Iterable[DMARCDay],
    sources: Sequence[SourceGroup],
    recent: Sequence[SourceGroup],
    reporters: Sequence[Reporter],
    isEnforced: bool = False,
) -> DMARCAnswer:
    """
    Answer from the store's values about C{domain} and the days C{first} to C{last}.

    @param recent: The groups of the days from L{recentDays}.
    @param isEnforced: True if the domain publishes C{p=quarantine} or C{p=reject}.
    """
    counts = dmarcDays(days)
    return DMARCAnswer(
        domain,
        first,
        last,
        _concludeDMARC(domain, counts, sources, recent, isEnforced),
        sum(each.total for each in counts),
        sum(each.failed for each in counts),
        counts,
        tuple(reporters),
        tuple(sources),
    )


@dataclass(slots=True)
class _DayCounter:
    passed: int = 0
    failed: int = 0
    dkim: int = 0
    spf: int = 0
    refused: int = 0


def dmarcDays(days: Iterable[DMARCDay]) -> tuple[DayCount, ...]:
    """
    Messages by day, from those by day and outcome.
    """
    found: dict[int, _DayCounter] = {}
    for each in days:
        counter = found.setdefault(each.day, _DayCounter())
        outcome = RowOutcome(each.outcome)
        if outcome.passed:
            counter.passed += each.messages
        else:
            counter.failed += each.messages
        counter.dkim += each.messages if outcome & RowOutcome.DKIM else 0
        counter.spf += each.messages if outcome & RowOutcome.SPF else 0
        if outcome.disposition in ("quarantine", "reject"):
            counter.refused += each.messages
    return tuple(
        DayCount(day, each.passed, each.failed, each.dkim, each.spf, each.refused)
        for day, each in sorted(found.items())
    )


def recentDays(days: Sequence[DMARCDay], first: int) -> tuple[int, int]:
    """
    The first and last of the days that decide whether something is over.

    @param days: By day; not empty.
    @param first: The first day of the span.
    """
    return max(first, days[-1].day - OVER_AFTER + 1), days[-1].day


def _concludeDMARC(
    domain: str,
    days: Sequence[DayCount],
    sources: Sequence[SourceGroup],
    recent: Sequence[SourceGroup],
    isEnforced: bool,
) -> Conclusion:
    total = sum(each.total for each in days)
    failed = sum(each.failed for each in days)
    if not days:
        return Conclusion(Verdict.NO_DATA, "no DMARC report about these days")
    if not total:
        return Conclusion(Verdict.FINE, "reports without messages")
    if not failed:
        return Conclusion(
            Verdict.FINE,
            f"{every(total, 'message')} from "
            f"{count(len(sources), 'source')} passed DMARC",
        )
    what = f"{number(failed)} of {count(total, 'message')} failed DMARC"
    whole = {(each.kind, each.name): each for each in sources}
    failing = [each for each in recent if each.failed]
    # Whether a service is the domain's own is known from the whole span.
    own = [each for each in recent if isOwn(whole.get((each.kind, each.name), each))]
    ownFailing = [each for each in own if each.failed]
    if ownFailing:
        counts = [DayCount(0, each.passed, each.failed) for each in own]
        ofOwn = sum(each.messages for each in own)
        verdict = _grade(sum(each.failed for each in own), ofOwn, counts)
        if verdict is not Verdict.FINE:
            return _failing(verdict, what, ownFailing, whole, domain)
    # If the policy is enforced, forged mail is kept out; but then so is that of a
    # service which was never set up.
    kinds = {SourceKind.SERVICE} | (set() if isEnforced else {SourceKind.UNKNOWN})
    others = [each for each in failing if each.kind in kinds]
    ofAll = sum(each.messages for each in recent)
    if sum(each.failed for each in others) > NORMAL_SHARE * ofAll:
        return _failing(Verdict.LOOK, what, others, whole, domain)
    if not failing:
        return Conclusion(Verdict.FINE, f"{what}, none of them lately")
    return Conclusion(Verdict.FINE, f"{what}, none of them from your own senders")


def _failing(
    verdict: Verdict,
    what: str,
    groups: Sequence[SourceGroup],
    whole: Mapping[tuple[SourceKind, str], SourceGroup],
    domain: str,
) -> Conclusion:
    """
    @param groups: Those that fail lately.
    @param whole: All groups in the whole span.
    """
    main = groups[0]
    more = f" and {count(len(groups) - 1, 'other')}" if groups[1:] else ""
    earlier = [whole.get((each.kind, each.name), each) for each in groups]
    firsts = [each.firstFailure for each in earlier if each.firstFailure is not None]
    return Conclusion(
        verdict,
        f"{what}: {kindName(main.kind)} {main.name}{more}",
        min(firsts, default=None),
        advice(main, domain),
    )


def isOwn(group: SourceGroup) -> bool:
    """
    True for the domain's own senders: own hosts, and services whose mail has passed.  A
    service whose mail always fails may as well be used by somebody else.
    """
    if group.kind is SourceKind.SERVICE:
        return group.passed > 0
    return group.kind is SourceKind.OURS


_KIND_NAMES = {
    SourceKind.OURS: "own",
    SourceKind.SERVICE: "service",
    SourceKind.FORWARDER: "forwarder",
    SourceKind.UNKNOWN: "unknown",
}


def kindName(kind: SourceKind) -> str:
    """
    The word for a kind of source before its name.
    """
    return _KIND_NAMES[kind]


# --- words ----------------------------------------------------------------------------


def number(value: int) -> str:
    """
    A number with its thousands separated.
    """
    return f"{value:,}"


def count(value: int, noun: str) -> str:
    """
    A number and its noun, which gets an C{s} in the plural.
    """
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def every(value: int, noun: str) -> str:
    """
    The subject of a sentence about all of them.
    """
    return count(value, noun) if value == 1 else f"all {count(value, noun)}"


def percentage(part: int, whole: int) -> str:
    """
    A share such as C{99.9 %}; C{100.0 %} and C{0.0 %} only if it is exactly that.
    """
    if not whole:
        return "-"
    thousandths = part * 1000 // whole
    if part and not thousandths:
        thousandths = 1
    return f"{thousandths // 10}.{thousandths % 10} %"


def dayOfNumber(day: int) -> date:
    """
    The date of a day's number, within what dates can be.
    """
    most = (date.max - _EPOCH).days
    return _EPOCH + timedelta(days=max(0, min(day, most)))


def dayName(day: int) -> str:
    """
    A day as C{28 Nov 2026}.
    """
    return f"{dayOfNumber(day):%-d %b %Y}"
