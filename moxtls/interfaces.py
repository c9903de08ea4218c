"""
The interfaces of moxtls, in the order in which a message meets them.

This is the table of contents for programs that embed moxtls.  Each interface has
an implementation in memory and one for production, and a test mixin that both
pass.  From the rest of the package, only the value types of the signatures are
imported here.

Unless a docstring says otherwise, a C{Deferred} fails only if it is cancelled
or if a local resource fails (a disk, a database).  The behaviour of remote hosts
is always reported as a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from moxtls.dmarc.types import (
    Evaluation,
    EvaluationSummary,
    PeriodSummary,
    ReportRow,
    StoredEvaluation,
    VerdictEvent,
)
from moxtls.dns.types import Answer, RRType
from moxtls.domain import Domain
from moxtls.mtasts.policy import CachedPolicy, STSLookup, STSPolicy
from moxtls.queue.types import Batch, Envelope, QueuedMessage, ReportKind, Result
from moxtls.reporting.types import (
    NoReport,
    OutgoingReport,
    ReportDraft,
    ReportKey,
    ReportPeriod,
    ReportState,
    Suppression,
)
from moxtls.tlsrpt.types import FailureDetail, SessionOutcome, StoredResult

# --- DNS and MTA-STS ---------------------------------------------------------


class StoreUnavailable(Exception):
    """
    A store can't be reached, read or written to at present.  Every operation of a
    store may fail with it.

    @ivar uncertain: True if the data may have been written nevertheless: the
        connection broke before the answer.
    """

    uncertain = False


class IResolver(Interface):
    """
    A DNS resolver.
    """

    validating: bool = Attribute(
        """
        True if answers can be authentic at all: the name servers validate
        DNSSEC, and their AD bit is trusted.  DANE is off if it is false.
        """
    )

    def lookup(name: str, kind: RRType) -> Deferred[Answer]:
        """
        Look up the C{kind} records of C{name}, following CNAMEs.

        @param name: A-labels in any case, with or without a final dot.  A name
            that can't exist in the DNS has no records.

        @return: Fires with an L{Answer}, which also represents failures.
            Cancelling it doesn't disturb other callers with the same question.
        """


class IPolicyFetcher(Interface):
    """
    Fetches MTA-STS policies by HTTPS.
    """

    def fetch(domain: Domain) -> Deferred[STSPolicy | FailureDetail]:
        """
        Fetch the policy that C{domain} serves now (RFC 8461 3.3).

        @return: Fires with the policy, or with the L{FailureDetail} to report.
        """


class IPolicyStore(Interface):
    """
    Stores cached MTA-STS policies.
    """

    def load(domain: Domain) -> Deferred[CachedPolicy | None]:
        """
        Fires with the entry of C{domain}, even if it has expired; with C{None} if
        there is none.
        """

    def save(entry: CachedPolicy) -> Deferred[None]:
        """
        Add C{entry}, or replace the entry of its domain.
        """

    def used(domain: Domain, now: float) -> Deferred[None]:
        """
        Set C{lastUse} of the entry of C{domain}, if there is one.
        """

    def drop(domain: Domain) -> Deferred[bool]:
        """
        Remove the entry of C{domain}.  Fires with true if there was one.
        """

    def entries(
        after: CachedPolicy | None = None, limit: int | None = None
    ) -> Deferred[tuple[CachedPolicy, ...]]:
        """
        Fires with entries, the last used first.

        @param after: The last entry of the previous page.
        @param limit: The maximum number; C{None} for all.
        """


class IPolicyCache(Interface):
    """
    Determines the MTA-STS policy that applies to a delivery.
    """

    def get(domain: Domain) -> Deferred[STSLookup]:
        """
        Look up the policy of C{domain}: compare the cached one with its DNS record,
        and fetch a new one if necessary.

        @return: Fires with an L{STSLookup}, which also represents failures.
        """


# --- sending mail -------------------------------------------------------------


class IQueue(Interface):
    """
    A queue that keeps messages until they are delivered or given up.
    """

    def submit(envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        """
        Take responsibility for a message.

        @param body: Chunks of the message: CRLF line ends, no dot-stuffing.

        @return: Fires with the message's id once it would survive a power
            cut; with the id of the earlier message if the envelope's C{key} is
            known.  Fails with L{moxtls.smtp.server.data.InvalidMessage} if our SMTP
            servers would refuse the message from any client (a NUL in it, for
            example), and with another C{ValueError} if the envelope is invalid.
        """

    def messages() -> Deferred[tuple[QueuedMessage, ...]]:
        """
        Fires with all messages in the queue, oldest first.
        """

    def page(after: int, limit: int) -> Deferred[tuple[int, tuple[QueuedMessage, ...]]]:
        """
        One page of the messages in the queue, oldest first.

        @param after: 0, or the number that came with the previous page.
        @param limit: The maximum number of messages.

        @return: Fires with the number for the next page, and messages; with no
            messages at the end.
        """

    def retry(messageID: str) -> Deferred[bool]:
        """
        Attempt a message at once.  Fires with true if it is in the queue.
        """

    def hold(messageID: str, held: bool) -> Deferred[bool]:
        """
        Hold or release a message.  Fires with true if it is in the queue.
        """

    def drop(messageID: str) -> Deferred[bool]:
        """
        Remove a message without a DSN.  Fires with true if it was in the queue.
        """


class IResultRecorder(Interface):
    """
    Records the results of a delivery attempt while it is in progress.
    """

    def record(results: Sequence[Result]) -> Deferred[None]:
        """
        Record final results.  Results that were recorded before, and those of
        other attempts, are ignored.

        @return: Fires once the results survive the death of this process;
            doesn't fail.  Cancelling it ends the waiting, not the recording.
        """


class ICourier(Interface):
    """
    Delivers messages from the queue by one transport.
    """

    def deliver(
        batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        """
        Make one delivery attempt.

        @param recorder: Has recorded each final result before the data of the
            next message on the same connection is sent, so that the death of
            this process repeats at most one transaction per connection.

        @return: Fires with one L{Result} for each recipient of each message of the
            batch, recorded or not.  Cancelling it aborts the attempt: it fires with
            the results known by then, and may describe the progress of the others
            in temporary results; or it fails.  If the queue is stopping, the
            attempt doesn't count for recipients without a final result.
        """


class ISessionObserver(Interface):
    """
    Observes the outcome of TLS negotiation with policy domains.
    """

    def sessionEnded(outcome: SessionOutcome) -> Deferred[None]:
        """
        An attempt to reach a domain has ended.

        @return: Fires once the outcome is recorded.  The caller may or may not
            wait, but must log a failure and go on: mail is never delayed or
            refused because of it.
        """


class IReportObserver(Interface):
    """
    Observes the delivery of outgoing reports.
    """

    def reportEnded(envelope: Envelope, result: Result) -> Deferred[None]:
        """
        A message with C{envelope.report} was delivered to a recipient, or given up
        for it.

        @param result: C{TEMPORARY} only after the last attempt.
        """


# --- receiving mail ------------------------------------------------------------


class IVerdictObserver(Interface):
    """
    Observes the decisions on incoming mail.
    """

    def verdictGiven(event: VerdictEvent) -> Deferred[None]:
        """
        The disposition of a message is decided for one of its recipients.  Called
        before the message is stored and before the SMTP client gets its reply.

        @return: Fires once the event is recorded.  The caller may or may not
            wait, but must log a failure and go on: mail is never delayed or
            refused because of it.
        """


class ISenderHistory(Interface):
    """
    Records the domains with which local accounts have corresponded.

    Histories are kept by the name of the account; the empty name is for mail that
    no account sent.
    """

    def sent(account: str, domain: Domain, now: float) -> Deferred[None]:
        """
        Record that C{account} sent mail to an address in C{domain}, on the UTC day
        of C{now}.
        """

    def received(account: str, domain: Domain, now: float) -> Deferred[None]:
        """
        Record that C{account} received mail from C{domain} that passed DMARC and
        was neither junk nor rejected.
        """

    def isKnown(account: str | None, organizational: Domain) -> Deferred[bool]:
        """
        Fires with true if there is an entry for C{organizational} or a domain
        below it.

        @param account: C{None} for any account.
        """

    def prune(before: float) -> Deferred[int]:
        """
        Remove entries whose last UTC day is before that of the second C{before}.
        Fires with the number of removed entries: there is one for each account,
        domain and direction.
        """


class IMailbox(Interface):
    """
    All mailboxes of one local account.
    """

    def deliver(
        mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        """
        Store a message.

        @param mailbox: Names separated by C{/}, such as C{Postmaster/tlsrpt};
            created if it doesn't exist.
        @param seen: True to mark the message as read.

        @return: Fires once the message would survive a power cut.  Fails with
            L{moxtls.mailbox.names.MailboxFull} if there is no room for it, with
            L{moxtls.mailbox.names.MailboxRefused} after a permanent error, and
            with any other exception after a temporary one.
        """

    def hasRoom(size: int) -> Deferred[bool]:
        """
        Fires with true if a message of C{size} octets would fit, as far as it can
        be known; used to answer RCPT.
        """


# --- results that wait to be reported --------------------------------------------


class IReportBacklog(Interface):
    """
    Stored results of one kind, by period, until they are reported.
    """

    def close(domain: Domain | None, end: int) -> Deferred[int]:
        """
        End the current period of C{domain} early: it is due at once, and later results
        belong to a new period.

        @param domain: C{None} for all domains.
        @param end: The current Unix second.  If a period has ended in it already,
            the next second is used.

        @return: Fires with the number of results in the period; with 0 if there
            were none, so that no period was closed.
        """

    def settle(
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        """
        In one transaction, archive C{reports} and mark the results of C{period} as
        reported, or remove them if no other report needs them.

        A report whose key is in the archive is ignored: it was made before.

        @param destinations: The destinations of the reports; empty if no report was
            made.

        @return: Fires with the number of C{reports} that are new.
        """


class IOutcomeRecorder(Interface):
    """
    Counts TLS session outcomes.
    """

    def record(day: date, outcome: SessionOutcome) -> Deferred[None]:
        """
        Count an outcome.

        @param day: The UTC day on which the attempt ended (RFC 8460 4.1).

        @return: Fires once the count would survive a restart.
        """


class IOutcomeStore(IOutcomeRecorder, IReportBacklog):
    """
    TLS session outcomes, counted per policy domain, recipient domain and UTC day
    until they are reported.  The cost doesn't grow with the traffic of a domain.

    TLS reports are made in two phases: phase 0 reports to recipient domains, phase
    1 to the policy domains of MX hosts (DANE).  To settle a period of phase 0 marks all
    results with that recipient domain, of phase 1 all with that policy domain and
    another recipient domain; the destinations are stored for the second phase.  A
    recipient domain's own result is removed once it is reported, any other once it is
    reported in both phases.  To close a period of a domain closes its period as policy
    domain and that as recipient domain.
    """

    def results(
        day: date | None = None,
        policyDomain: Domain | None = None,
        recipientDomain: Domain | None = None,
        after: StoredResult | None = None,
        limit: int | None = None,
    ) -> Deferred[tuple[StoredResult, ...]]:
        """
        Fires with the stored results that match the given values, ordered by day,
        policy domain and recipient domain.

        @param after: The last result of the previous page.
        @param limit: The maximum number of pairs of domains on a day; C{None} for
            all.
        """

    def remove(domain: Domain, day: date | None = None) -> Deferred[int]:
        """
        Remove the results of the policy domain C{domain}.  Fires with the number
        of removed results.
        """

    def count(phase: int, before: date) -> Deferred[int]:
        """
        Fires with the number of sendable L{ReportPeriod}s (see C{periods}).
        """

    def periods(
        phase: int, before: date, after: ReportPeriod | None, limit: int
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        """
        Fires with the unsettled periods of a phase: days before C{before}, and
        periods that were closed early; ordered by day and domain, those closed
        early first.

        Phase 0: recipient domains.  A period is C{sendable} if it has a result with
        C{sendReport} whose policy domain and recipient domain are both that domain.
        Phase 1: other policy domains.  A period is C{sendable} if it has a result
        with C{sendReport} from another recipient domain.  A period that was closed
        early is C{sendable} if any of its results has C{sendReport}.

        @param after: The last period of the previous page.
        @param limit: The maximum number.
        """

    def lastClosing(domain: Domain, before: int) -> Deferred[int]:
        """
        Fires with the last second before C{before} in which a period of C{domain}
        was closed early; with 0 if there is none.
        """

    def prune(before: date) -> Deferred[int]:
        """
        Remove the results of days before C{before}.  Fires with the number of
        removed results.
        """


class IEvaluationRecorder(Interface):
    """
    Counts DMARC evaluations.
    """

    def record(hour: int, evaluation: Evaluation, count: int = 1) -> Deferred[None]:
        """
        Count an evaluation.

        @param hour: A Unix second in the UTC hour of the evaluation.
        @param count: The number of messages with this evaluation.

        @return: Fires once the count would survive a restart.
        """


class IEvaluationStore(IEvaluationRecorder, IReportBacklog):
    """
    DMARC evaluations, counted per policy domain and UTC hour until they are
    reported.

    Evaluations of an hour that differ in C{addresses} only are counted together,
    and the latest addresses are kept; so a flood of equal messages costs as much as
    one.  The number of different rows per policy domain and hour is limited by
    C{MAX_ROWS} of L{moxtls.ledger.bounds}, the number of different published
    policies by C{MAX_PARTS}.  Messages beyond the first limit are only counted, as
    C{omitted}; those beyond the second aren't counted at all.

    Settling a period removes its evaluations; those of the same hours that are recorded
    later are due by themselves.
    """

    def evaluations(
        domain: Domain | None = None, limit: int = 1000
    ) -> Deferred[tuple[StoredEvaluation, ...]]:
        """
        Fires with stored evaluations, ordered by hour, policy domain, published
        policy and row.

        @param domain: The policy domain; C{None} for all.
        """

    def summaries(
        after: EvaluationSummary | None = None, limit: int = 1000
    ) -> Deferred[tuple[EvaluationSummary, ...]]:
        """
        Fires with one summary for each policy domain, in order.

        @param after: The last summary of the previous page.
        """

    def remove(domain: Domain) -> Deferred[int]:
        """
        Remove the evaluations of a policy domain.  Fires with the number of
        messages in them.
        """

    def count(before: int) -> Deferred[int]:
        """
        Fires with the number of sendable L{ReportPeriod}s (see C{periods}).
        """

    def periods(
        before: int, after: ReportPeriod | None, limit: int, early: bool = False
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        """
        Fires with the periods that are due, ordered by domain and C{part}.

        Evaluations with an interval of C{hours} are due when that interval,
        counted from UTC midnight, is over.  The period's C{end} is the last such
        moment at or before C{before}, and the period has all evaluations of hours
        before C{end}.  Its C{part} is a digest of the published policy and the
        interval.  It is C{sendable} unless all its evaluations are C{optional}.

        A period that was closed early (see C{close}) is due at once; its C{end} is
        the time of closing, and its C{part} a digest of that, too.

        @param before: The Unix second in which an hour begins.
        @param after: The last period of the previous page.
        @param limit: The maximum number.
        @param early: True to get all periods, as if they were closed in the second
            C{before}.
        """

    def summary(period: ReportPeriod) -> Deferred[PeriodSummary | None]:
        """
        Fires with a summary of the evaluations of C{period}; with C{None} if there
        are none.

        @param period: Only C{domain}, C{part} and C{end} matter.
        """

    def rows(
        period: ReportPeriod, after: bytes, limit: int
    ) -> Deferred[tuple[tuple[bytes, ReportRow, int], ...]]:
        """
        The different rows of C{period}, each with the number of messages over all
        hours before C{period.end}.

        @param after: The key of the last row of the previous page; empty at first.
        @param limit: The maximum number.

        @return: Fires with keys, rows and counts, ordered by key.
        """

    def prune(before: int) -> Deferred[int]:
        """
        Remove evaluations of hours that begin before the Unix second C{before}.
        Fires with the number of messages in them.
        """


# --- outgoing reports ------------------------------------------------------------


class IReportArchive(Interface):
    """
    Outgoing reports, from composing until long after delivery.
    """

    def take(
        kind: ReportKind, node: str, most: int
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        """
        Reserve the next reports for C{node} to hand over to its queue.

        The first of these that exist: reports that C{node} reserved before and
        hasn't marked; reports that no node has reserved, which are marked
        C{HANDING} with the name of C{node}, so that no other node gets them; reports
        that C{node} marked C{HANDING} with a detail, since its queue failed, the
        one that was marked longest ago first.

        @param most: The maximum number.

        @return: Fires with reports; with none if there is nothing to do.
        """

    def mark(
        key: ReportKey, state: ReportState, now: float, detail: str = ""
    ) -> Deferred[None]:
        """
        Set the state of a report.  States only advance: marking a report as
        C{QUEUED} that is C{DELIVERED} or C{FAILED} has no effect.
        """

    def reports(
        kind: ReportKind | None = None,
        domain: Domain | None = None,
        state: ReportState | None = None,
        limit: int = 1000,
        after: OutgoingReport | None = None,
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        """
        Fires with the reports that match the given values, latest first.

        @param after: The last report of the previous page.
        """

    def find(key: str) -> Deferred[OutgoingReport | None]:
        """
        Fires with the report whose C{str(ReportKey)} is C{key}; with C{None} if
        there is none.
        """

    def bySender(sender: str) -> Deferred[OutgoingReport | None]:
        """
        Fires with the report that has the envelope sender C{sender}, compared
        case-insensitively; with C{None} if there is none.
        """

    def prune(before: float) -> Deferred[int]:
        """
        Remove reports that were composed before the Unix second C{before}, except
        those in the states C{COMPOSED} and C{HANDING}.  Fires with their number.
        """


class ISuppressions(Interface):
    """
    Destinations to which no reports are sent for a time.
    """

    def active(
        destination: str, kind: ReportKind, now: float
    ) -> Deferred[Suppression | None]:
        """
        Fires with the entry that suppresses reports of C{kind} to C{destination}
        at C{now}; with C{None} if there is none.
        """

    def put(suppression: Suppression) -> Deferred[None]:
        """
        Add an entry, or replace the one for the same destination and kind.
        """

    def remove(destination: str, kind: ReportKind | None) -> Deferred[bool]:
        """
        Remove an entry.  Fires with true if there was one.
        """

    def entries(
        after: Suppression | None = None, limit: int | None = None
    ) -> Deferred[tuple[Suppression, ...]]:
        """
        Fires with entries, latest first, including those that have expired.

        @param after: The last entry of the previous page.
        @param limit: The maximum number; C{None} for all.
        """

    def get(destination: str, kind: ReportKind | None) -> Deferred[Suppression | None]:
        """
        Fires with the entry for exactly that destination and kind, even if it has
        expired; with C{None} if there is none.
        """


class ILeases(Interface):
    """
    Leases by which one of several nodes does a job that is to be done once.
    """

    def acquire(name: str, holder: str, until: float, now: float) -> Deferred[bool]:
        """
        Acquire or prolong a lease.

        @return: Fires with true if C{holder} has it now; with false if the lease of
            another holder has not expired.
        """

    def release(name: str, holder: str) -> Deferred[None]:
        """
        Release a lease, if C{holder} has it.
        """


class IReportSource(Interface):
    """
    One kind of report: which reports are due, and their contents.

    Schedule, spreading, composing of mail, signing, suppression, handover and
    clean-up are done by L{moxtls.reporting.service.ReportService}.
    """

    kind: ReportKind = Attribute("The kind of report.")
    phases: int = Attribute(
        "The number of phases.  All periods of one are done before the next begins."
    )
    backlog: IReportBacklog = Attribute("The store of what is to be reported.")

    def count(phase: int, now: float) -> Deferred[int]:
        """
        Fires with the number of reports that may be due at C{now}; used to spread
        them.
        """

    def periods(
        phase: int,
        now: float,
        after: ReportPeriod | None,
        limit: int,
        early: bool = False,
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        """
        Fires with the periods that may be due at C{now}, in order.

        @param after: The last period of the previous page.
        @param limit: The maximum number.
        @param early: True to include those that would be due if the current
            periods were closed now.
        """

    def refusal(period: ReportPeriod) -> Deferred[str]:
        """
        Fires with the reason why there is no report on C{period}; with an empty
        text if there is one.
        """

    def draft(period: ReportPeriod) -> Deferred[ReportDraft | NoReport]:
        """
        Look up the destinations of a report on C{period} and generate its document.

        @return: Fires with the draft, or with the reason why there is none.
        """

    def prune(now: float) -> Deferred[None]:
        """
        Remove data that is too old to be reported.
        """


class IReportSubmitter(Interface):
    """
    Hands composed reports over for delivery.
    """

    def submit(report: OutgoingReport) -> Deferred[None]:
        """
        Take responsibility for delivering a report.  Submitting a report again with
        the same key has no effect.

        @return: Fires once the report would survive a restart.
        """
