"""
The interfaces of received reports: their store, and observers of their reception.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from zope.interface import Interface

from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    CertificateSeen,
    DMARCDay,
    DMARCSource,
    HandshakeFailures,
    ReceivedKind,
    RefusedReport,
    Reporter,
    ReportFilter,
    StoredDMARCRow,
    StoredReport,
    TLSDay,
    TLSFailureGroup,
    TLSRow,
)


class IReceivedReportStore(Interface):
    """
    Stores received reports, and answers questions about them.
    """

    def add(report: AcceptedReport) -> Deferred[AddResult]:
        """
        Store a report and count it, unless it is there already: one with the same
        kind, organization, contact, report ID and period, and the same content.

        The origin of a duplicate replaces the stored one if only the duplicate's has
        an authentication.

        @return: Fires once the report would survive a power cut.
        """

    def refuse(report: RefusedReport) -> Deferred[None]:
        """
        Store that a report wasn't accepted.  Only the latest are kept, within limits
        on their number and size.
        """

    def reports(
        filter: ReportFilter, limit: int, before: int | None = None
    ) -> Deferred[tuple[StoredReport, ...]]:
        """
        Fires with reports that fulfil C{filter}, the latest received first.

        @param before: The number of the last report of the previous page.
        """

    def get(number: int) -> Deferred[StoredReport | None]:
        """
        Fires with a report; with C{None} if there is none with that number.
        """

    def raw(number: int) -> Deferred[bytes | None]:
        """
        Fires with L{ParsedReport.raw <moxtls.received.types.ParsedReport.raw>} of a
        report; with C{None} if it isn't kept.
        """

    def domains(first: int, last: int) -> Deferred[tuple[str, ...]]:
        """
        Fires with the policy domains with results of these days, sorted.
        """

    def tlsDays(domain: str, first: int, last: int) -> Deferred[tuple[TLSDay, ...]]:
        """
        Fires with the sessions of each day and policy type, by day.
        """

    def tlsFailures(
        domain: str, first: int, last: int, limit: int
    ) -> Deferred[tuple[TLSFailureGroup, ...]]:
        """
        Fires with groups of failed sessions, most sessions first.
        """

    def dmarcDays(domain: str, first: int, last: int) -> Deferred[tuple[DMARCDay, ...]]:
        """
        Fires with the messages of each day and outcome, by day.
        """

    def dmarcSources(
        domain: str, first: int, last: int, limit: int
    ) -> Deferred[tuple[DMARCSource, ...]]:
        """
        Fires with groups of messages, most messages first.
        """

    def reporters(
        kind: ReceivedKind, domain: str, first: int, last: int, limit: int
    ) -> Deferred[tuple[Reporter, ...]]:
        """
        Fires with the reporting organizations, most messages or sessions first.
        """

    def tlsRows(
        filter: ReportFilter, limit: int, after: TLSRow | None = None
    ) -> Deferred[tuple[TLSRow, ...]]:
        """
        Fires with the policies in TLS reports, by policy domain, day and report.

        @param after: The last one of the previous page.
        """

    def dmarcRows(
        filter: ReportFilter, limit: int, after: StoredDMARCRow | None = None
    ) -> Deferred[tuple[StoredDMARCRow, ...]]:
        """
        Fires with the rows of DMARC reports, by policy domain, day and report.

        @param after: The last one of the previous page.
        """

    def expire(kind: ReceivedKind | None, before: int, limit: int) -> Deferred[int]:
        """
        Remove reports, with what was counted of them, in one transaction.  A day that
        expires isn't counted any more from the first step on.

        @param kind: C{None} for refused ones.
        @param before: The day; those that belong to earlier days are removed.  Refused
            ones belong to the day in which they were received.
        @param limit: The number of reports and rows that are removed at most.

        @return: Fires with the number removed; with 0 once there are none.
        """


class IReportIntakeObserver(Interface):
    """
    Is told of each accepted report.
    """

    def reportAccepted(report: AcceptedReport) -> Deferred[None]:
        """
        Called once C{report} is stored; not for duplicates.  A failure is logged, and
        changes nothing.
        """


class IListenerHistory(Interface):
    """
    Stores TLS events of this host's own listeners, to compare reports with.
    """

    def addFailures(failures: Iterable[HandshakeFailures]) -> Deferred[None]:
        """
        Add to the counts of failed handshakes.
        """

    def addCertificate(seen: CertificateSeen) -> Deferred[None]:
        """
        Record a certificate, unless it is the latest one of its listener.
        """

    def failures(start: float, end: float) -> Deferred[tuple[HandshakeFailures, ...]]:
        """
        Fires with the counts of the hours from C{start} until C{end}, Unix seconds, by
        hour.
        """

    def certificates(start: float, end: float) -> Deferred[tuple[CertificateSeen, ...]]:
        """
        Fires with certificates that were in use between C{start} and C{end}, by
        C{since}.
        """

    def expireHistory(before: float) -> Deferred[None]:
        """
        Remove failures and replaced certificates older than C{before}, Unix seconds.
        """
