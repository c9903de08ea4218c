# -*- test-case-name: tests.reporting.test_types -*-
"""
Outgoing reports of any kind, from being owed to having arrived.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from moxtls.dates import Span
from moxtls.domain import Domain
from moxtls.queue.types import ReportKind


@dataclass(frozen=True, slots=True, order=True)
class ReportPeriod:
    """
    One report that may be owed: a policy domain and a day.

    @ivar phase: 0 for recipient domains, 1 for MX hosts (of TLS reports).
        Every period of a phase is done before the next phase begins.
    @ivar day: The UTC day in which the span ends: of TLS reports, the day.
    @ivar sendable: Whether anything in it may cause a report; if not, the
        period is only to be cleared away.
    @ivar part: Tells reports to the same domain about the same span apart: of
        DMARC reports, a digest of the published policy, and of C{end} if the
        period was closed before its time; of TLS reports, C{end} if it was.
    @ivar end: The Unix second in which the span ends, where it isn't the
        day's.
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
    The same report in another format, for those that can't read the first.

    @ivar destinations: Some of those of the L{ReportDraft}.
    """

    document: bytes
    destinations: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReportDraft:
    """
    The contents of a report, and where it is wanted.

    @ivar reportID: Unique among reports of ours (RFC 8460 4.4).
    @ivar submitter: The domain of From, of the DKIM signature, and the name
        of the reporting organization.
    @ivar destinations: The URIs of the C{rua} tag in canonical form,
        deduplicated and capped.
    @ivar document: The report itself, compressed as it is sent.
    @ivar filename: RFC 8460 5.1, RFC 9990 3.5.
    @ivar limits: For each of C{destinations}, the most octets it takes; 0 for
        no limit.  Empty if there are none at all.
    @ivar variants: In place of C{document} for some of C{destinations}.
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
        What one of C{destinations} gets.
        """
        for variant in self.variants:
            if destination in variant.destinations:
                return variant.document
        return self.document

    def limitOf(self, destination: str) -> int:
        """
        The most octets that one of C{destinations} takes; 0 for no limit.
        """
        limits = dict(zip(self.destinations, self.limits, strict=False))
        return limits.get(destination, 0)


class Retention(StrEnum):
    """
    What becomes of the data of a period about which no report is made.
    """

    CLEAR = "clear"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class NoReport:
    """
    Why a period needs no report, or can't have one now.

    @ivar reason: For the log and for C{report preview}.
    @ivar retention: C{KEEP} after a temporary error: it is tried again until it
        is stale.
    """

    period: ReportPeriod
    reason: str
    retention: Retention


class ReportState(StrEnum):
    """
    How far an outgoing report got, for one destination.

    C{COMPOSED}: on disk, and no queue has it.  C{HANDING}: one node is giving
    it to its queue.  C{QUEUED}: it did.  C{DELIVERED}, C{FAILED}: so says the
    queue.  C{SUPPRESSED}: it was not meant to be sent.
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
    What there is only one report for.

    @ivar destination: The canonical form of the URI.
    @ivar phase: That of the L{ReportPeriod}: a domain with mail of its own that
        takes mail for others too is told about one and about the other.
    @ivar part: That of the L{ReportPeriod}.
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
        The idempotency key for a queue.
        """
        span = f"{self.start}-{self.end}"
        part = f" {self.part}" if self.part else ""
        what = f"{self.kind} {self.phase} {self.domain}{part} {span}"
        return f"report {what} {self.destination}"


@dataclass(frozen=True, slots=True)
class OutgoingReport:
    """
    A report for one destination.

    @ivar sender: The envelope sender, which leads back to the destination
        (VERP); empty for https.
    @ivar message: Exactly what is sent: a signed message for C{mailto:}, the
        compressed document for C{https:}.
    @ivar node: Who is giving or gave it to its queue; empty if nobody.
    @ivar detail: What was last heard of it, for people.
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
    A destination that gets no reports for the time being.

    @ivar kind: C{None} for every kind.
    @ivar destination: The canonical form of the URI.
    @ivar until: Unix seconds.
    @ivar failures: How often in a row it failed; 0 if entered by hand.
    """

    destination: str
    kind: ReportKind | None
    until: float
    created: float
    comment: str = ""
    failures: int = 0
