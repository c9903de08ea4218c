# -*- test-case-name: tests.ledger.test_bounds -*-
"""
Limits on stored values that peers control, and the state transitions of reports.
No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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

#: Characters of a domain in a greeting or an MX record: RFC 5321 4.5.3.1.2.
MAX_NAME_LENGTH = 255
#: The longest IPv6 address in text has 45 characters; a zone may follow.
MAX_IP_LENGTH = 64
#: Characters of a reason code; those that embedders record may be long.
MAX_REASON = 255
#: Characters of free text, such as the reply that rejected a report.
MAX_DETAIL_LENGTH = 1000
#: Characters of a line of a policy; a policy has at limit 64 kB (RFC 8461 3.3).
MAX_LINE = 65536
#: Different failures stored per result.  A host that uses a new name in every
#: greeting must not make the ledger grow with its traffic, and a report with more
#: lines is of no use.
MAX_FAILURES = 1000
#: The same, including those stored without details of the peer.
MAX_FOLDED = MAX_FAILURES + 200
#: Signatures and reasons per message; the evaluation itself uses fewer.
MAX_SIGNATURES = 50
MAX_REASONS = 20
#: Report addresses per policy; reports are sent to fewer.
MAX_ADDRESSES = 50
#: Values of C{fo}; RFC 9991 4 and RFC 7489 6.3 define four, of one character.
MAX_OPTIONS = 10
#: Rows stored per policy domain and hour.  A forger who uses a new name or address
#: for each message must not fill the disk, and a daily report with a quarter of a
#: million rows is of no use.
MAX_ROWS = 10_000
#: Policies stored per domain and hour: each has its own report (RFC 9990 3.1.1.4),
#: and a domain might answer every query differently.
MAX_PARTS = 20
#: Kinds of entries in the sender history of an account.
SIGN_SENT = "sent"
SIGN_RECEIVED = "received"

_BEFORE = {
    ReportState.COMPOSED: 0,
    ReportState.HANDING: 1,
    ReportState.QUEUED: 2,
    ReportState.DELIVERED: 3,
    # A DSN may arrive after the next host has accepted the report.
    ReportState.FAILED: 4,
}


def clean(text: str, longest: int = MAX_DETAIL_LENGTH) -> str:
    """
    C{text} in a form that all databases accept: no NUL (PostgreSQL), no lone
    surrogates, at limit C{longest} characters.
    """
    text = text[:longest]
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\0", "\ufffd") if "\0" in text else text


def boundedPolicy(policy: TLSPolicy) -> TLSPolicy:
    """
    C{policy} within the limits.
    """
    strings = tuple(clean(line, MAX_LINE) for line in policy.strings)
    mxHosts = tuple(clean(host, MAX_NAME_LENGTH) for host in policy.mxHosts)
    if (strings, mxHosts) == (policy.strings, policy.mxHosts):
        return policy
    return replace(policy, strings=strings, mxHosts=mxHosts)


def bounded(failure: FailureDetail) -> FailureDetail:
    """
    C{failure} within the limits.
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
    C{evaluation} within the limits.
    """
    return Evaluation(
        _boundedPublished(evaluation.published),
        _boundedRow(evaluation.row),
        min(max(evaluation.hours, 1), 24),
        _boundedTexts(evaluation.addresses, MAX_ADDRESSES, MAX_DETAIL_LENGTH),
        bool(evaluation.optional),
        bool(evaluation.wanted),
    )


def _boundedPublished(published: PublishedPolicy) -> PublishedPolicy:
    fo = _boundedTexts(published.fo, MAX_OPTIONS, MAX_IP_LENGTH)
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


def _boundedTexts(texts: tuple[str, ...], limit: int, longest: int) -> tuple[str, ...]:
    return tuple(clean(text, longest) for text in texts[:limit])


def hasRoomForRow(kept: int) -> bool:
    """
    True if another row may be stored for a policy domain and hour.

    @param kept: Number of rows stored.
    """
    return kept < MAX_ROWS


def hasRoomForPart(kept: int) -> bool:
    """
    True if another policy may be stored for a policy domain and hour.

    @param kept: Number of policies stored.
    """
    return kept < MAX_PARTS


def boundedAccount(account: str) -> str:
    """
    The name of an account within the limits.
    """
    return clean(account, MAX_NAME_LENGTH)


def intervalEnd(before: int, hours: int) -> int:
    """
    The end of the last interval of C{hours} hours that ended at or before C{before}.

    Unix days begin at midnight UTC, so that intervals that divide a day are counted
    from midnight.
    """
    return before - before % (hours * 3600)


def foldedFailure(
    failure: FailureDetail, kept: int, isKept: Callable[[FailureDetail], bool]
) -> FailureDetail:
    """
    The failure to count C{failure} as: beyond L{MAX_FAILURES}, details of the peer are
    dropped.

    @param failure: Within the limits: L{bounded}.
    @param kept: Number of different failures stored for the same result.
    @param isKept: True if a failure is among them.
    """
    if kept < MAX_FAILURES or isKept(failure):
        return failure
    folded = replace(failure, mxHELO="", sendingIP="", receivingIP="")
    if kept < MAX_FOLDED or isKept(folded):
        return folded
    # The peer controls nothing of the rest, so that there can't be many.
    return FailureDetail(failure.resultType, failure.reasonCode)


def canFollow(old: ReportState, new: ReportState) -> bool:
    """
    True if a report in the state C{old} may change to C{new}.
    """
    if old is ReportState.SUPPRESSED:
        return new is old
    if new is ReportState.SUPPRESSED:
        return old in (ReportState.COMPOSED, ReportState.HANDING)
    return _BEFORE[new] >= _BEFORE[old]
