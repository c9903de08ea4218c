# -*- test-case-name: tests.ledger.test_bounds -*-
"""
Rules that every store keeps, whatever it is made of: how much of strangers'
words is kept, and how reports go from state to state.  No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from moxtls.dmarc.types import (
    Evaluation,
    Override,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.reporting.types import ReportState
from moxtls.tlsrpt.types import FailureDetail, TLSPolicy

T = TypeVar("T")

#: A domain in a greeting or an MX record: RFC 5321 4.5.3.1.2.
MAX_NAME_LENGTH = 255
#: The longest IPv6 address in text has 45 characters; a zone may follow.
MAX_IP_LENGTH = 64
#: Ours are shorter; those that other programs feed in might not be.
MAX_REASON = 255
#: Text for people, such as the reply that a report was refused with.
MAX_DETAIL_LENGTH = 1000
#: A policy has at most 64 kB (RFC 8461 3.3).
MAX_LINE = 65536
#: How many different failures are kept per result.  A host that greets every
#: session by another name must not make the ledger grow with its traffic, and
#: nobody reads more lines of a report than this.
MAX_FAILURES = 1000
#: The same, counting those that were kept without the peer's particulars.
MAX_FOLDED = MAX_FAILURES + 200
#: Of one message.  Whoever evaluates looks at fewer.
MAX_SIGNATURES = 50
MAX_REASONS = 20
#: Reports go to fewer.
MAX_ADDRESSES = 50
#: RFC 9991 4 and RFC 7489 6.3 know four, of one character.
MAX_OPTIONS = 10
#: How many rows of a policy domain are kept for an hour.  A forger who has a
#: new name or address for each message must not fill the disk, and a report
#: of a day with a quarter of a million rows serves nobody.
MAX_ROWS = 10_000
#: How many policies of a domain are kept for an hour: there is a report for
#: each (RFC 9990 3.1.1.4), and a domain might answer every query differently.
MAX_PARTS = 20
#: What shows that somebody knows a domain.
SIGN_SENT = "sent"
SIGN_RECEIVED = "received"

_BEFORE = {
    ReportState.COMPOSED: 0,
    ReportState.HANDING: 1,
    ReportState.QUEUED: 2,
    ReportState.DELIVERED: 3,
    # A DSN may come after the next host has taken the report.
    ReportState.FAILED: 4,
}


def clean(text: str, longest: int = MAX_DETAIL_LENGTH) -> str:
    """
    C{text} as any database takes it: no NUL (PostgreSQL), no lone surrogates
    (neither), not longer than C{longest}.
    """
    text = text[:longest]
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\0", "\ufffd") if "\0" in text else text


def pageOf(
    values: Iterable[T],
    key: Callable[[T], Any],
    after: T | None,
    limit: int | None,
) -> tuple[T, ...]:
    """
    C{values} in the order of C{key}, at most C{limit}, from behind C{after} on.
    """
    last = None if after is None else key(after)
    wanted = (each for each in values if last is None or key(each) > last)
    return tuple(sorted(wanted, key=key)[:limit])


def boundedPolicy(policy: TLSPolicy) -> TLSPolicy:
    """
    C{policy} as it is kept.
    """
    strings = tuple(clean(line, MAX_LINE) for line in policy.strings)
    mxHosts = tuple(clean(host, MAX_NAME_LENGTH) for host in policy.mxHosts)
    if (strings, mxHosts) == (policy.strings, policy.mxHosts):
        return policy
    return replace(policy, strings=strings, mxHosts=mxHosts)


def bounded(failure: FailureDetail) -> FailureDetail:
    """
    C{failure} as it is kept.
    """
    return FailureDetail(
        failure.resultType,
        clean(failure.reasonCode, MAX_REASON),
        clean(failure.sendingIP, MAX_IP_LENGTH),
        clean(failure.mxHostname, MAX_NAME_LENGTH),
        clean(failure.mxHELO, MAX_NAME_LENGTH),
        clean(failure.receivingIP, MAX_IP_LENGTH),
        clean(failure.additional, MAX_DETAIL_LENGTH),
    )


def boundedEvaluation(evaluation: Evaluation) -> Evaluation:
    """
    C{evaluation} as it is kept.
    """
    return Evaluation(
        _boundedPublished(evaluation.published),
        _boundedRow(evaluation.row),
        min(max(evaluation.hours, 1), 24),
        _several(evaluation.addresses, MAX_ADDRESSES, MAX_DETAIL_LENGTH),
        bool(evaluation.optional),
        bool(evaluation.wanted),
    )


def _boundedPublished(published: PublishedPolicy) -> PublishedPolicy:
    fo = _several(published.fo, MAX_OPTIONS, MAX_IP_LENGTH)
    percent = min(max(published.percent, 0), 100)
    if (fo, percent) == (published.fo, published.percent):
        return published
    return replace(published, fo=fo, percent=percent)


def _boundedRow(row: ReportRow) -> ReportRow:
    return ReportRow(
        clean(row.sourceIP, MAX_IP_LENGTH),
        row.disposition,
        row.dkimAligned,
        row.spfAligned,
        tuple(
            Override(each.kind, clean(each.comment, MAX_REASON))
            for each in row.reasons[:MAX_REASONS]
        ),
        clean(row.headerFrom, MAX_NAME_LENGTH),
        clean(row.envelopeFrom, MAX_NAME_LENGTH),
        clean(row.envelopeTo, MAX_NAME_LENGTH),
        tuple(map(_boundedSignature, row.dkim[:MAX_SIGNATURES])),
        None if row.spf is None else _boundedSPF(row.spf),
    )


def _boundedSignature(signature: ReportedSignature) -> ReportedSignature:
    return ReportedSignature(
        clean(signature.domain, MAX_NAME_LENGTH),
        clean(signature.selector, MAX_NAME_LENGTH),
        signature.result,
        clean(signature.problem, MAX_REASON),
    )


def _boundedSPF(spf: ReportedSPF) -> ReportedSPF:
    return ReportedSPF(
        clean(spf.domain, MAX_NAME_LENGTH), clean(spf.scope, MAX_IP_LENGTH), spf.result
    )


def _several(texts: tuple[str, ...], most: int, longest: int) -> tuple[str, ...]:
    return tuple(clean(text, longest) for text in texts[:most])


def hasRoomForRow(kept: int) -> bool:
    """
    Whether there may be another row of evaluations, next to so many of the
    same policy domain and hour.
    """
    return kept < MAX_ROWS


def hasRoomForPart(kept: int) -> bool:
    """
    Whether there may be another policy, next to so many of the same policy
    domain and hour.
    """
    return kept < MAX_PARTS


def boundedAccount(account: str) -> str:
    """
    The name of an account as it is kept.
    """
    return clean(account, MAX_NAME_LENGTH)


def intervalEnd(before: int, hours: int) -> int:
    """
    When the last interval of so many hours ended, at or before C{before}.

    Days of Unix time begin when UTC's do, so that intervals that divide a day
    are counted from midnight.
    """
    return before - before % (hours * 3600)


def foldedFailure(
    failure: FailureDetail, kept: int, isKept: Callable[[FailureDetail], bool]
) -> FailureDetail:
    """
    What to count C{failure} as, next to those that are kept already.

    @param failure: Is L{bounded}.
    @param kept: How many different ones are kept for the same result.
    @param isKept: Whether one is among them.
    """
    if kept < MAX_FAILURES or isKept(failure):
        return failure
    folded = replace(failure, mxHELO="", sendingIP="", receivingIP="")
    if kept < MAX_FOLDED or isKept(folded):
        return folded
    # What is left is in our own words, so that there can't be many.
    return FailureDetail(failure.resultType, failure.reasonCode)


def canFollow(old: ReportState, new: ReportState) -> bool:
    """
    Whether a report that is C{old} may become C{new}.
    """
    if old is ReportState.SUPPRESSED:
        return new is old
    if new is ReportState.SUPPRESSED:
        return old in (ReportState.COMPOSED, ReportState.HANDING)
    return _BEFORE[new] >= _BEFORE[old]
