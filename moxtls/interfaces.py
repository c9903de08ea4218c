"""
The seams of moxtls, in the order a message meets them: the table of contents.

Each has an implementation in memory in the package and one for real, and a
test mixin that both pass.  Nothing here imports the rest of the package
except for the values that the signatures name.

Unless a docstring says otherwise, a C{Deferred} fails only when it is
cancelled or when something of ours is broken (a disk, a database); what
strangers do is always a value.
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
    StoredResult,
    Suppression,
)
from moxtls.tlsrpt.types import FailureDetail, SessionOutcome

# --- what others publish ---------------------------------------------------


class StoreUnavailable(Exception):
    """
    A store can't be reached, read or written to now.  Every operation of a store may
    fail with it.

    @ivar uncertain: Whether what was to be written may have been: the connection
        broke before the answer.
    """

    uncertain = False


class IResolver(Interface):
    """
    Looks things up in the DNS.
    """

    validating: bool = Attribute(
        """
        Whether answers can be authentic at all: the servers that are asked
        validate, and their word is trusted.  DANE is off where this is false.
        """
    )

    def lookup(name: str, kind: RRType) -> Deferred[Answer]:
        """
        What is known about C{kind} records at C{name}; CNAMEs are followed.

        @param name: A-labels, any case, with or without a final dot.  A name
            that can't be in the DNS has no records.

        @return: Fires with an L{Answer}, whatever happens.  Cancelling gives
            up on it without disturbing others that asked the same.
        """


class IPolicyFetcher(Interface):
    """
    Fetches MTA-STS policies from where they are published.
    """

    def fetch(domain: Domain) -> Deferred[STSPolicy | FailureDetail]:
        """
        The policy that C{domain} serves now (RFC 8461 3.3).

        @return: Fires with the policy, or with the L{FailureDetail} to be reported.
        """


class IPolicyStore(Interface):
    """
    Remembers MTA-STS policies.
    """

    def load(domain: Domain) -> Deferred[CachedPolicy | None]:
        """
        Fires with what is remembered, also if its time is over; with C{None}
        if nothing is.
        """

    def save(entry: CachedPolicy) -> Deferred[None]:
        """
        Put C{entry} in the place of what is remembered about its domain.
        """

    def used(domain: Domain, now: float) -> Deferred[None]:
        """
        Set C{lastUse}, if anything is remembered.
        """

    def drop(domain: Domain) -> Deferred[bool]:
        """
        Forget about C{domain}.  Fires with whether there was anything.
        """

    def entries(
        after: CachedPolicy | None = None, limit: int | None = None
    ) -> Deferred[tuple[CachedPolicy, ...]]:
        """
        All of it, last used first.

        @param after: Go on behind this one.
        @param limit: The most; all if it is not given.
        """


class IPolicyCache(Interface):
    """
    Says which MTA-STS policy applies to a delivery.
    """

    def get(domain: Domain) -> Deferred[STSLookup]:
        """
        The policy of C{domain}, checked against its DNS record, fetched if
        need be.

        @return: Fires with an L{STSLookup}, whatever happens.
        """


# --- on the way out ---------------------------------------------------------


class IQueue(Interface):
    """
    Keeps messages until they are delivered or given up.
    """

    def submit(envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        """
        Take responsibility for a message.

        @param body: Chunks of the message: CRLF line ends, no dot-stuffing.

        @return: Fires with the message's id once it would survive a power
            cut; with that of the earlier message if the envelope's C{key} is
            known.  Fails with L{moxtls.smtp.server.data.InvalidMessage} if our servers
            would take such a message from nobody, as with a NUL in it, and
            with another C{ValueError} if the envelope makes no sense.
        """

    def messages() -> Deferred[tuple[QueuedMessage, ...]]:
        """
        Fires with what is in the queue, oldest first.
        """

    def page(after: int, limit: int) -> Deferred[tuple[int, tuple[QueuedMessage, ...]]]:
        """
        What is in the queue, oldest first, at most C{limit} messages at a time.

        @param after: 0, or the number that came with the page before.

        @return: Fires with a number, and messages; with none at the end.
        """

    def retry(messageID: str) -> Deferred[bool]:
        """
        Attempt a message at once.  Fires with whether there is one.
        """

    def hold(messageID: str, held: bool) -> Deferred[bool]:
        """
        Hold a message, or release it.  Fires with whether there is one.
        """

    def drop(messageID: str) -> Deferred[bool]:
        """
        Forget a message, without a DSN.  Fires with whether there was one.
        """


class IResultRecorder(Interface):
    """
    Records results of an attempt while it goes on.
    """

    def record(results: Sequence[Result]) -> Deferred[None]:
        """
        Record results that the attempt will not change any more.  Results
        that were recorded before, and those of other attempts, are ignored.

        @return: Fires once the results survive the death of this process;
            does not fail.  Cancelling ends the waiting, not the recording.
        """


class ICourier(Interface):
    """
    One way for mail to leave the queue.
    """

    def deliver(
        batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        """
        Make one attempt.

        @param recorder: Has recorded each final result before the data of the
            next message on the same connection is sent, so that the death of
            this process repeats at most one transaction per connection.

        @return: Fires with one L{Result} for each recipient of each parcel,
            whether or not it was recorded.  Cancelling breaks the attempt
            off: it fires with what was decided until then, and may say in
            temporary results how far it came with the rest; or fails.  If it
            is the queue that stops, it counts as not made for the rest.
        """


class ISessionObserver(Interface):
    """
    Is told how TLS went.
    """

    def sessionEnded(outcome: SessionOutcome) -> Deferred[None]:
        """
        An attempt to reach a domain is over.

        @return: Fires once this is recorded.  Who calls it may wait or not,
            but has to log a failure and go on: mail is never held up by it.
        """


class IReportObserver(Interface):
    """
    Is told by the queue what became of reports.
    """

    def reportEnded(envelope: Envelope, result: Result) -> Deferred[None]:
        """
        A message whose C{envelope.report} is set was delivered to a recipient
        or given up for it; C{result} is never C{TEMPORARY} unless it was the
        last attempt.
        """


# --- on the way in -----------------------------------------------------------


class IVerdictObserver(Interface):
    """
    Is told what was decided on mail from outside.
    """

    def verdictGiven(event: VerdictEvent) -> Deferred[None]:
        """
        It is decided what becomes of a message for one of its recipients;
        called before it is stored, and before the client is answered.

        @return: Fires once this is recorded.  Who calls it may wait or not,
            but has to log a failure and go on: mail is never held up by it.
        """


class ISenderHistory(Interface):
    """
    Remembers which domains somebody has good reason to hear from.

    Whose history it is, is an account's name; the empty name is for mail that
    no account sent.
    """

    def sent(account: str, domain: Domain, now: float) -> Deferred[None]:
        """
        C{account} has sent mail to an address in C{domain}.

        Of the time, the UTC day is kept.
        """

    def received(account: str, domain: Domain, now: float) -> Deferred[None]:
        """
        C{account} got mail that is neither junk nor rejected, and of which
        DMARC says that it is from C{domain}.
        """

    def isKnown(account: str | None, organizational: Domain) -> Deferred[bool]:
        """
        Fires with whether there is either sign about C{organizational} or a
        domain below it.

        @param account: C{None} for anybody's.
        """

    def prune(before: float) -> Deferred[int]:
        """
        Forget what was last seen before the UTC day of that second.  Fires
        with how many entries went: there is one for each account, domain and
        kind of sign.
        """


class IMailbox(Interface):
    """
    Where mail for people on this host goes: all mailboxes of one person.
    """

    def deliver(
        mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        """
        Store a message.

        @param mailbox: Names separated by C{/}, such as C{Postmaster/tlsrpt};
            made if it isn't there.
        @param seen: Whether it is to look read.

        @return: Fires once it would survive a power cut.  Fails with
            L{moxtls.mailbox.names.MailboxFull} if there is no room for it,
            with L{moxtls.mailbox.names.MailboxRefused} if it never will be
            taken, and otherwise if it can't be stored now.
        """

    def hasRoom(size: int) -> Deferred[bool]:
        """
        Fires with whether a message of C{size} octets would fit, as far as
        can be told: for RCPT.
        """


# --- what is kept -------------------------------------------------------------


class IOutcomeStore(Interface):
    """
    How TLS went, per policy domain and UTC day, until reports have taken it.

    Everything recorded is kept per policy domain, recipient domain and day,
    and counted: the cost doesn't grow with a domain's traffic.
    """

    def record(day: date, outcome: SessionOutcome) -> Deferred[None]:
        """
        Count an outcome.

        @param day: The UTC day in which the attempt ended (RFC 8460 4.1).

        @return: Fires once it would survive a restart.
        """

    def results(
        day: date | None = None,
        policyDomain: Domain | None = None,
        recipientDomain: Domain | None = None,
        after: StoredResult | None = None,
        limit: int | None = None,
    ) -> Deferred[tuple[StoredResult, ...]]:
        """
        What is stored, as far as it has the values given; ordered by day,
        policy domain and recipient domain.

        @param after: Go on behind this one, the last of those before.
        @param limit: The most pairs of domains, and these of one day; all if it is
            not given.  So the end is where there are none.
        """

    def remove(domain: Domain, day: date | None = None) -> Deferred[int]:
        """
        Forget what is stored about C{domain} as a policy domain.  Fires with
        how many results went.
        """

    def count(phase: int, before: date) -> Deferred[int]:
        """
        Fires with how many sendable L{ReportPeriod}s there are (see C{periods}).
        """

    def periods(
        phase: int, before: date, after: ReportPeriod | None, limit: int
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        """
        Periods of days before C{before}, and of periods that were closed,
        that aren't settled, by day and domain, closed ones first, at most
        C{limit}, from behind C{after} on.

        Phase 0: recipient domains; C{sendable} if a result whose policy
        domain and recipient domain are both that domain has C{sendReport}.
        Phase 1: other policy domains; C{sendable} if any of their results
        from other recipient domains has.  Of closed periods, in both phases,
        if any of their results has.
        """

    def settle(
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        """
        In one transaction, file C{reports}, and mark as told what they were
        made from: in phase 0 all results with that recipient domain and
        period, in phase 1 all with that policy domain and period and another
        recipient domain.  What nobody needs any more is removed: a recipient domain's
        own result once it is told, any other once both sides are.

        A report whose key is known is passed over: it was made before.

        @param destinations: Where the reports go, to be remembered for who is
            told second; empty if no report was made.

        @return: Fires with how many of C{reports} are new.
        """

    def close(domain: Domain | None, end: int) -> Deferred[int]:
        """
        End the period of what is stored about C{domain}, as policy domain or
        as recipient domain, at the second C{end}, which is now: it is due, and
        what is recorded from now on belongs to another period.  Where that
        second has ended a period already, it is the next one.

        @param domain: C{None} for all.

        @return: Fires with how much was stored; 0 if nothing was, and so
            nothing is closed.
        """

    def lastClosing(domain: Domain, before: int) -> Deferred[int]:
        """
        Fires with the second in which the period of C{domain} was last
        closed, before C{before}; with 0 if it never was.
        """

    def prune(before: date) -> Deferred[int]:
        """
        Remove what is older than the day C{before}.  Fires with how many
        results went.
        """


class IEvaluationStore(Interface):
    """
    What DMARC made of mail, until reports have it.

    Evaluations of an hour that are equal in everything but C{addresses}, of
    which the latest are kept, are counted in one place, so that a flood of
    them costs as much as one.  Of a policy domain and hour, so many different
    ones are kept (L{moxtls.ledger.bounds.MOST_ROWS}), and so many policies
    (C{MOST_PARTS}): what is beyond the first is only counted, as C{omitted},
    what is beyond the second not even that.
    """

    def record(hour: int, evaluation: Evaluation, count: int = 1) -> Deferred[None]:
        """
        Count an evaluation.

        @param hour: A Unix second in the UTC hour in which it was made.
        @param count: How many messages that were evaluated so.

        @return: Fires once it would survive a restart.
        """

    def evaluations(
        domain: Domain | None = None, limit: int = 1000
    ) -> Deferred[tuple[StoredEvaluation, ...]]:
        """
        Fires with what is stored, by hour, the oldest first; then by policy
        domain, part and the key of the row.

        @param domain: The policy domain.
        """

    def summaries() -> Deferred[tuple[EvaluationSummary, ...]]:
        """
        Fires with one summary for each policy domain, in order.
        """

    def remove(domain: Domain) -> Deferred[int]:
        """
        Forget what is stored about a policy domain.  Fires with how many
        messages that were.
        """

    def count(before: int) -> Deferred[int]:
        """
        Fires with how many sendable L{ReportPeriod}s there are (see C{periods}).
        """

    def periods(
        before: int, after: ReportPeriod | None, limit: int, early: bool = False
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        """
        What is due, by domain and part, at most C{limit}, from behind
        C{after} on.

        Evaluations with an interval of C{hours} are due when that interval,
        counted from UTC midnight, is over: the period's C{end} is the last
        such moment at or before C{before}, and what was recorded in hours
        before C{end} belongs to it.  C{part} is a digest of the published
        policy and the interval.  C{sendable} if any of it isn't optional.

        What was closed (see C{close}) is due, and C{end} is when it was; its
        C{part} is a digest of that, too.

        @param before: The Unix second in which an hour begins.
        @param early: Whether everything is due that is stored, as if it were
            closed in the second C{before}.
        """

    def close(domain: Domain | None, end: int) -> Deferred[int]:
        """
        As L{IOutcomeStore.close}, of what is stored about C{domain} as a
        policy domain.
        """

    def summary(period: ReportPeriod) -> Deferred[PeriodSummary | None]:
        """
        Fires with C{None} if nothing is stored for C{period}: its domain and
        part, in hours before C{period.end}; nothing else of it counts.
        """

    def rows(
        period: ReportPeriod, after: bytes, limit: int
    ) -> Deferred[tuple[tuple[bytes, ReportRow, int], ...]]:
        """
        What differs in the evaluations of C{period}, each with the number of
        messages, added up over all hours before C{period.end}.

        @param after: The key of the row to go on behind; empty at first.

        @return: Fires with keys, rows and counts, in the order of the keys.
        """

    def settle(
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        """
        In one transaction, file C{reports}, and remove all that belongs to
        C{period}.  A report whose key is known is passed over: it was made
        before.  What is recorded about these hours later is due by itself.

        @param destinations: For nothing: there is one phase.

        @return: Fires with how many of C{reports} are new.
        """

    def prune(before: int) -> Deferred[int]:
        """
        Remove what was recorded in hours that begin before that second.
        Fires with how many messages that were.
        """


class IReportArchive(Interface):
    """
    Reports of ours, from being composed to long after they have arrived.
    """

    def take(
        kind: ReportKind, node: str, most: int
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        """
        The next reports for C{node} to give to its queue, at most C{most}:
        those it had taken before and not marked, else some that nobody has
        taken, which are marked C{HANDING} in C{node}'s name.  Nobody else is
        given them after that.  If there are none of either, those that
        C{node} has marked C{HANDING} with a detail, since it failed to give
        them to its queue; the one that was marked longest ago first.

        @return: Fires with nothing if there is nothing to do.
        """

    def mark(
        key: ReportKey, state: ReportState, now: float, detail: str = ""
    ) -> Deferred[None]:
        """
        Note how far a report got.  A state is never gone back on: marking as
        C{QUEUED} what is C{DELIVERED} or C{FAILED} has no effect.
        """

    def reports(
        kind: ReportKind | None = None,
        domain: Domain | None = None,
        state: ReportState | None = None,
        limit: int = 1000,
        after: OutgoingReport | None = None,
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        """
        Fires with reports, latest first.

        @param after: Go on behind this one.
        """

    def find(key: str) -> Deferred[OutgoingReport | None]:
        """
        The report with that C{str(ReportKey)}.
        """

    def bySender(sender: str) -> Deferred[OutgoingReport | None]:
        """
        The report that went out with that envelope sender, compared without
        regard to case.
        """

    def prune(before: float) -> Deferred[int]:
        """
        Remove what was composed before that second and is in none of the
        states C{COMPOSED} and C{HANDING}.
        """


class ISuppressions(Interface):
    """
    Destinations that get no reports for the time being.
    """

    def active(
        destination: str, kind: ReportKind, now: float
    ) -> Deferred[Suppression | None]:
        """
        Fires with what keeps reports of C{kind} from C{destination}, if
        anything does.
        """

    def put(suppression: Suppression) -> Deferred[None]:
        """
        Add an entry, in place of one for the same destination and kind.
        """

    def remove(destination: str, kind: ReportKind | None) -> Deferred[bool]:
        """
        Fires with whether there was such an entry.
        """

    def entries(
        after: Suppression | None = None, limit: int | None = None
    ) -> Deferred[tuple[Suppression, ...]]:
        """
        All of them, also those whose time is over, latest first.

        @param after: Go on behind this one.
        @param limit: The most; all if it is not given.
        """

    def get(destination: str, kind: ReportKind | None) -> Deferred[Suppression | None]:
        """
        Fires with the entry for exactly that destination and kind, also if
        its time is over.
        """


class ILeases(Interface):
    """
    Makes sure that of many nodes one does what is to be done once.
    """

    def acquire(name: str, holder: str, until: float, now: float) -> Deferred[bool]:
        """
        Take or prolong a lease.

        @return: Fires with whether C{holder} has it now; it doesn't if
            somebody else's has not run out yet.
        """

    def release(name: str, holder: str) -> Deferred[None]:
        """
        Give it up, if C{holder} has it.
        """


# --- reporting --------------------------------------------------------------------


class IReportSource(Interface):
    """
    One kind of report: what is owed, and what is in it.

    The schedule, spreading, composing of mail, signing, suppression, handing
    over and cleaning up are the service's.
    """

    kind: ReportKind = Attribute("Which kind.")
    phases: int = Attribute("How many rounds there are, one after the other.")

    def count(phase: int, now: float) -> Deferred[int]:
        """
        Fires with how many reports may be owed at C{now}, for spreading.
        """

    def periods(
        phase: int,
        now: float,
        after: ReportPeriod | None,
        limit: int,
        early: bool = False,
    ) -> Deferred[tuple[ReportPeriod, ...]]:
        """
        What may be owed at C{now}, in order, from behind C{after} on.

        @param early: Whether also what would be if C{close} were called now.
        """

    def close(domain: Domain | None, now: float) -> Deferred[int]:
        """
        As L{IOutcomeStore.close}.
        """

    def refusal(period: ReportPeriod) -> Deferred[str]:
        """
        Fires with why there is no report on C{period}, as C{draft} would say;
        with nothing if there is one.
        """

    def draft(period: ReportPeriod) -> Deferred[ReportDraft | NoReport]:
        """
        Look up where a report is wanted, and compose it.
        """

    def settle(
        period: ReportPeriod,
        destinations: Sequence[str],
        reports: Sequence[OutgoingReport],
    ) -> Deferred[int]:
        """
        As L{IOutcomeStore.settle}.
        """

    def prune(now: float) -> Deferred[None]:
        """
        Remove what is too old to be reported.
        """


class IReportSubmitter(Interface):
    """
    Hands composed reports over for delivery.
    """

    def submit(report: OutgoingReport) -> Deferred[None]:
        """
        Fires once the report is in safe hands; doing it again for the same
        key changes nothing.
        """
