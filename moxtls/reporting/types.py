# -*- test-case-name: tests.reporting.test_types -*-
"""
Value types of outgoing reports, from the due period to delivery, and their identifiers
and file names.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from hashlib import blake2b

from moxtls.dates import Span
from moxtls.domain import Domain
from moxtls.queue.types import ReportKind


@dataclass(frozen=True, slots=True, order=True)
class ReportPeriod:
    """
    A policy domain and a time span for which a report may be due.

    @ivar phase: Of TLS reports: 0 for recipient domains, 1 for MX hosts.
        All periods of a phase are done before the next phase begins.
    @ivar day: The UTC day in which the span ends; for TLS reports, the reported day.
    @ivar sendable: True if its data may cause a report; otherwise the data is only
        removed.
    @ivar part: Distinguishes reports to the same domain about the same span.  For
        DMARC, a digest of the published policy, and of C{end} if the period was
        closed early; for TLS, C{end} if the period was closed early.
    @ivar end: The Unix second in which the span ends, if it isn't the end of the
        day.
    """

    phase: int
    day: date
    domain: Domain
    sendable: bool = True
    part: str = ""
    end: int = 0


@dataclass(frozen=True, slots=True)
class DocumentVariant:
    """
    The document of a report in another format, for some destinations.

    @ivar destinations: A subset of the destinations of the L{ReportDraft}.
    """

    document: bytes
    destinations: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReportDraft:
    """
    The document of a report and its destinations, before it is composed into
    messages.

    @ivar reportID: Unique among our reports (RFC 8460 4.4).
    @ivar submitter: The domain in From and of the DKIM signature, and the name of
        the reporting organization.
    @ivar destinations: The URIs of the C{rua} tag in canonical form, without
        duplicates, limited in number.
    @ivar document: The compressed JSON or XML document.
    @ivar filename: RFC 8460 5.1, RFC 9990 3.5.
    @ivar limits: For each of C{destinations}, the maximum number of octets; 0 for
        no limit.  Empty if no destination has a limit.
    @ivar variants: Replace C{document} for some of C{destinations}.
    """

    kind: ReportKind
    period: ReportPeriod
    span: Span
    reportID: str
    submitter: Domain
    destinations: tuple[str, ...]
    document: bytes
    filename: str
    limits: tuple[int, ...] = ()
    variants: tuple[DocumentVariant, ...] = ()

    def documentFor(self, destination: str) -> bytes:
        """
        The document for one of C{destinations}.
        """
        for variant in self.variants:
            if destination in variant.destinations:
                return variant.document
        return self.document

    def limitOf(self, destination: str) -> int:
        """
        The maximum number of octets for one of C{destinations}; 0 for no limit.
        """
        limits = dict(zip(self.destinations, self.limits, strict=False))
        return limits.get(destination, 0)


class Retention(StrEnum):
    """
    Retention of the data of a period for which no report is made.
    """

    CLEAR = "clear"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class NoReport:
    """
    The reason why a period needs no report, or can't have one now.

    @ivar reason: Text for the log and for C{report preview}.
    @ivar retention: C{KEEP} after a temporary error: the report is tried again until
        the data is stale.
    """

    period: ReportPeriod
    reason: str
    retention: Retention


def reasonAgainst(found: object) -> str:
    """
    The reason for no report; empty if C{found} isn't a L{NoReport}.
    """
    return found.reason if isinstance(found, NoReport) else ""


class ReportState(StrEnum):
    """
    The state of an outgoing report to one destination.

    C{COMPOSED}: archived, not yet in a queue.  C{HANDING}: reserved by a node that
    is submitting it to its queue.  C{QUEUED}: submitted.  C{DELIVERED}, C{FAILED}:
    the final result of the queue.  C{SUPPRESSED}: archived without being sent.
    """

    COMPOSED = "composed"
    HANDING = "handing"
    QUEUED = "queued"
    DELIVERED = "delivered"
    FAILED = "failed"
    SUPPRESSED = "suppressed"


@dataclass(frozen=True, slots=True, order=True)
class ReportKey:
    """
    The identity of a report: there is one report at most for each key.

    @ivar destination: The canonical form of the URI.
    @ivar phase: From the L{ReportPeriod}: a domain that is both a recipient domain
        and the domain of MX hosts gets one report as each.
    @ivar part: From the L{ReportPeriod}.
    """

    kind: ReportKind
    domain: Domain
    start: int
    end: int
    destination: str
    phase: int = 0
    part: str = ""

    def __str__(self) -> str:
        """
        The idempotency key of the report in a queue.
        """
        span = f"{self.start}-{self.end}"
        part = f" {self.part}" if self.part else ""
        what = f"{self.kind} {self.phase} {self.domain}{part} {span}"
        return f"report {what} {self.destination}"


@dataclass(frozen=True, slots=True)
class OutgoingReport:
    """
    A composed report to one destination.

    @ivar sender: The envelope sender, unique to the report (VERP); empty for
        C{https:}.
    @ivar message: A signed message for C{mailto:}, the compressed document for
        C{https:}.
    @ivar composed: Unix seconds.
    @ivar node: The node that reserved it for its queue; empty if no node did.
    @ivar updated: The Unix second of the last change of state.
    @ivar detail: Text about the last change of state, for operators.
    """

    key: ReportKey
    reportID: str
    sender: str
    message: bytes
    contentType: str
    composed: float
    state: ReportState = ReportState.COMPOSED
    node: str = ""
    updated: float = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Suppression:
    """
    Suppression of reports to one destination.

    @ivar destination: The canonical form of the URI.
    @ivar kind: C{None} for every kind.
    @ivar until: Unix seconds.
    @ivar failures: The number of consecutive failures; 0 if an operator made the
        entry.
    """

    destination: str
    kind: ReportKind | None
    until: float
    created: float
    comment: str = ""
    failures: int = 0


#: Octets of the digest in a report's identifier; collisions are negligible.
DIGEST_SIZE = 16
_EXTENSIONS = {ReportKind.TLS: "json.gz", ReportKind.DMARC: "xml.gz"}


def reportID(
    ledger: str, kind: ReportKind, submitter: Domain, period: ReportPeriod, span: Span
) -> str:
    """
    The identifier of a report.  Letters and digits only, since it is also the
    C{unique-id} of the file name (RFC 9990 3.1.4, 3.5.1; RFC 8460 5.1).

    Several hosts of an organization may report to the same policy domain about the same
    period, and consumers discard reports that look like duplicates.  So an identifier
    is a digest of the ledger's identifier and of everything that distinguishes the
    reports of one ledger; nodes that share a ledger compute the same one.

    @param ledger: The identifier of the ledger.
    """
    parts = (
        ledger,
        kind,
        submitter.ascii,
        str(period.phase),
        period.domain.ascii,
        period.part,
        str(span.start),
        str(span.end),
    )
    joined = "\0".join(parts).encode("ascii")
    return blake2b(joined, digest_size=DIGEST_SIZE).hexdigest()


def filename(
    kind: ReportKind, submitter: Domain, domain: Domain, span: Span, uniqueID: str
) -> str:
    """
    The file name of a report (RFC 9990 3.5.2, RFC 8460 5.1).

    @param uniqueID: The identifier of the report.
    """
    period = f"{span.start}!{span.last}"
    return f"{submitter}!{domain}!{period}!{uniqueID}.{_EXTENSIONS[kind]}"
