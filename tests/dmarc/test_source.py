"""
Tests for L{moxtls.dmarc.source}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dates import HOUR, Span
from moxtls.dmarc.aggregate import ReportFormat
from moxtls.dmarc.discovery import PublicSuffixes
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.source import HISTORY, PAGE
from moxtls.dmarc.types import (
    Disposition,
    DMARCPolicy,
    PeriodSummary,
    PublishedPolicy,
    ReportRow,
)
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.domain import Domain
from moxtls.interfaces import IReportSource
from moxtls.ledger.evaluations import EvaluationStore
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import NoReport, ReportDraft, ReportPeriod, Retention
from tests.dmarc.reports import (
    PUBLISHED,
    ROW,
    SPAN,
    DMARCWorld,
    counts,
    evaluation,
    faults,
    parsed,
    rowsFrom,
    texts,
    unpacked,
)
from tests.reporting.support import DAY, SUBMITTER, A

B = Domain("b.example")
OTHER = "mailto:reports@other.example"


SUBJECT = ReportPeriod(0, DAY, A, part="ab12", end=SPAN.end)


class Counted(ReportRow):
    """
    A row that is counted for as long as it lives.
    """

    __slots__ = ()
    alive = 0

    def __del__(self) -> None:
        Counted.alive -= 1


class Rows(EvaluationStore):
    """
    A store of very many rows that keeps none of them; it has no database.
    """

    def __init__(self, total: int) -> None:
        Counted.alive = 0
        self.total = total
        self.omitted = 0
        self.largestPage = 0
        self.mostAlive = 0

    def summary(self, period: ReportPeriod) -> Deferred[PeriodSummary | None]:
        first = SPAN.start
        found = PeriodSummary(
            PUBLISHED, 24, first, self.total, self.total, 1, self.omitted
        )
        return succeed(found)

    def rows(
        self, period: ReportPeriod, after: bytes, limit: int
    ) -> Deferred[tuple[tuple[bytes, ReportRow, int], ...]]:
        start = int(after) + 1 if after else 0
        numbers = range(start, min(start + limit, self.total))
        page = tuple((b"%d" % number, self._row(number), 1) for number in numbers)
        self.largestPage = max(self.largestPage, limit)
        self.mostAlive = max(self.mostAlive, Counted.alive)
        return succeed(page)

    def _row(self, number: int) -> ReportRow:
        Counted.alive += 1
        return Counted(
            f"2001:db8::{number:x}",
            Disposition.NONE,
            False,
            False,
            (),
            "a.example",
            "a.example",
            "sender.example",
        )


class DMARCReportSourceTests(SynchronousTestCase):
    """
    Tests for L{DMARCReportSource<moxtls.dmarc.source.DMARCReportSource>}.
    """

    def setUp(self) -> None:
        self.world = DMARCWorld()
        self.world.publishRecord(A)

    def periods(self) -> tuple[ReportPeriod, ...]:
        now = self.world.clock.seconds()
        return self.successResultOf(self.world.source().periods(0, now, None, 100))

    def drafted(self) -> ReportDraft | NoReport:
        (period,) = self.periods()
        return self.successResultOf(self.world.source().draft(period))

    def draft(self) -> ReportDraft:
        found = self.drafted()
        assert isinstance(found, ReportDraft), found
        return found

    def none(self) -> NoReport:
        found = self.drafted()
        assert isinstance(found, NoReport)
        return found

    def cleared(self, word: str) -> None:
        """
        No report, now or later, for a reason with that word.
        """
        found = self.none()
        self.assertIs(found.retention, Retention.CLEAR)
        self.assertIn(word, found.reason)

    def kept(self, word: str) -> None:
        """
        No report now.
        """
        found = self.none()
        self.assertIs(found.retention, Retention.KEEP)
        self.assertIn(word, found.reason)

    def errors(self) -> str:
        """
        The errors in a report.
        """
        return "".join(texts(parsed(self.draft().document), "report_metadata/error"))

    # --- what is owed, and when

    def test_interface(self) -> None:
        """
        The source provides its interface, for DMARC reports, with one phase.
        """
        source = self.world.source()
        verifyObject(IReportSource, source)
        self.assertEqual((source.kind, source.phases), (ReportKind.DMARC, 1))

    def test_settling(self) -> None:
        """
        An hour's evaluations are due some minutes after the hour.
        """
        self.world.record(evaluation(hours=1), hour=0)
        source = self.world.source()
        for now, count in [(3600, 0), (3600 + 239, 0), (3600 + 240, 1)]:
            moment = SPAN.end + now
            self.assertEqual(self.successResultOf(source.count(0, moment)), count)
            found = self.successResultOf(source.periods(0, moment, None, 10))
            self.assertEqual(len(found), count)

    def test_intervals(self) -> None:
        """
        Each interval that divides a day is due when it is over, counted from
        midnight UTC.
        """
        for hours in (1, 2, 3, 4, 6, 8, 12, 24):
            domain = Domain(f"h{hours}.example")
            self.world.record(evaluation(domain, hours=hours), hour=0)
        source = self.world.source()
        for hour in range(1, 25):
            now = SPAN.end + hour * HOUR + 300
            found = self.successResultOf(source.periods(0, now, None, 100))
            due = {int(str(each.domain).partition(".")[0][1:]) for each in found}
            expected = {each for each in (1, 2, 3, 4, 6, 8, 12, 24) if each <= hour}
            self.assertEqual(due, expected, hour)

    def test_optionalOnly(self) -> None:
        """
        Optional evaluations cause no report, and are included in one with another
        cause.
        """
        self.world.record(evaluation(optional=True), times=2)
        (period,) = self.periods()
        self.assertFalse(period.sendable)
        self.world.record(evaluation())
        (period,) = self.periods()
        self.assertTrue(period.sendable)
        self.assertEqual(counts(self.draft().document), {"192.0.2.1": 3})

    def test_prune(self) -> None:
        """
        After two days, counted from the tick, it is too late.
        """
        source = self.world.source()
        self.world.record(hour=-48)
        self.world.record(hour=-49)
        self.successResultOf(source.prune(SPAN.end + 240))
        left = self.successResultOf(self.world.ledger.evaluations.evaluations())
        self.assertEqual([each.hour for each in left], [SPAN.end - 48 * HOUR])

    def test_history(self) -> None:
        """
        History older than a year is ignored.
        """
        history = self.world.ledger.history
        source = self.world.source()
        now = SPAN.end + 240
        history.sent("anna", A, now - HISTORY - 2 * 24 * HOUR)
        history.sent("anna", B, now - HISTORY + 2 * 24 * HOUR)
        self.successResultOf(source.prune(now))
        known = [self.successResultOf(history.isKnown("anna", each)) for each in (A, B)]
        self.assertEqual(known, [False, True])

    # --- what is in a report

    def test_draft(self) -> None:
        """
        All of a report: names, span, document, destinations.
        """
        self.world.record(times=3)
        found = self.draft()
        self.assertEqual(found.kind, ReportKind.DMARC)
        self.assertEqual(found.span, SPAN)
        self.assertEqual(found.submitter, SUBMITTER)
        self.assertEqual(found.destinations, ("mailto:dmarc@a.example",))
        self.assertEqual(found.limits, (0,))
        self.assertEqual(found.variants, ())
        self.assertEqual(
            found.filename,
            f"sender.example!a.example!1795478400!1795564799!{found.reportID}.xml.gz",
        )
        self.assertEqual(faults(found.document, ReportFormat.RFC9990), [])
        root = parsed(found.document)
        self.assertEqual(texts(root, "report_metadata/report_id"), [found.reportID])
        self.assertEqual(texts(root, "report_metadata/error"), [])
        self.assertEqual(counts(found.document), {"192.0.2.1": 3})

    def test_merged(self) -> None:
        """
        Equal rows of several hours are merged into one record.
        """
        other = replace(ROW, sourceIP="192.0.2.2")
        self.world.record(evaluation(), hour=-24, times=2)
        self.world.record(evaluation(), hour=-1)
        self.world.record(evaluation(row=other, wanted=False), hour=-3)
        found = counts(self.draft().document)
        self.assertEqual(found, {"192.0.2.1": 3, "192.0.2.2": 1})

    def test_published(self) -> None:
        """
        The published policy in a report is the applied one, not the present one; each
        policy has a report of its own (RFC 9990 3.3).
        """
        for p in (DMARCPolicy.NONE, DMARCPolicy.QUARANTINE):
            published = PublishedPolicy(A, p)
            self.world.record(replace(evaluation(), published=published))
        periods = self.periods()
        drafts = [
            self.successResultOf(self.world.source().draft(each)) for each in periods
        ]
        found = set()
        for each in drafts:
            assert isinstance(each, ReportDraft)
            root = parsed(each.document)
            found.update(texts(root, "policy_published/p"))
        self.assertEqual(found, {"none", "quarantine"})
        names = {each.reportID for each in drafts if isinstance(each, ReportDraft)}
        self.assertEqual(len(names), 2)
        files = {each.filename for each in drafts if isinstance(each, ReportDraft)}
        self.assertEqual(len(files), 2)

    def test_late(self) -> None:
        """
        A report that couldn't be made when it was due is about all intervals
        since.
        """
        for hours, hour, intervals in [
            (1, -1, 1),
            (1, -3, 3),
            (4, -5, 2),
            (24, -30, 2),
        ]:
            world = self.world = DMARCWorld()
            world.publishRecord(A)
            world.record(evaluation(hours=hours), hour=hour)
            start = SPAN.end - intervals * hours * HOUR
            self.assertEqual(self.draft().span, Span(start, SPAN.end))

    def test_tooLarge(self) -> None:
        """
        A report beyond the size limit is truncated, and says so.
        """
        self.world.largest = 50_000
        for row in rowsFrom(2 * PAGE):
            self.world.record(evaluation(row=row))
        found = self.draft()
        self.assertEqual(faults(found.document, ReportFormat.RFC9990), [])
        self.assertEqual(len(counts(found.document)), PAGE)
        self.assertIn("Incomplete", self.errors())

    def test_justLargeEnough(self) -> None:
        """
        A report that reaches the size limit with its last record is complete.
        """
        for row in rowsFrom(PAGE):
            self.world.record(evaluation(row=row))
        self.world.largest = 1000
        self.assertEqual(len(counts(self.draft().document)), PAGE)
        self.assertEqual(self.errors(), "")

    def test_omitted(self) -> None:
        """
        A report also says if a flood was recorded in part only.
        """
        store = Rows(1)
        store.omitted = 77
        (draft,) = [self.successResultOf(self.world.source(store).draft(SUBJECT))]
        assert isinstance(draft, ReportDraft)
        (error,) = texts(parsed(draft.document), "report_metadata/error")
        self.assertIn("77 more messages", error)

    def test_flat(self) -> None:
        """
        Rows are read in pages of limited size.
        """
        store = Rows(20_000)
        found = self.successResultOf(self.world.source(store).draft(SUBJECT))
        assert isinstance(found, ReportDraft)
        self.assertEqual(unpacked(found.document).count(b"<record>"), 20_000)
        self.assertEqual(store.largestPage, PAGE)
        self.assertLessEqual(store.mostAlive, 3 * PAGE)

    # --- where it goes

    def test_afresh(self) -> None:
        """
        Destinations are those of the present record.
        """
        self.world.record()
        self.world.publishRecord(A, "mailto:new@a.example")
        self.assertEqual(self.draft().destinations, ("mailto:new@a.example",))

    def test_gone(self) -> None:
        """
        A domain that has removed its record or destinations gets no report.
        """
        self.world.record()
        self.world.resolver.put("_dmarc.a.example", RRType.TXT, "v=DMARC1; p=none")
        self.cleared("no rua")
        self.world.resolver = MemoryResolver(
            {(str(SUBMITTER), RRType.A): ["192.0.2.1"]}
        )
        self.cleared("no DMARC record")

    def test_parent(self) -> None:
        """
        For a subdomain that has no record of its own any more, that of the
        organizational domain applies (RFC 9989 4.10).
        """
        self.world.record(evaluation(Domain("sub.a.example")))
        self.assertEqual(self.draft().destinations, ("mailto:dmarc@a.example",))

    def test_temporary(self) -> None:
        """
        A record that can't be looked up may be there the next time.
        """
        self.world.record()
        self.world.resolver = MemoryResolver(
            {(str(SUBMITTER), RRType.A): ["192.0.2.1"]},
            failing={("_dmarc.a.example", RRType.TXT): ExtendedError(22)},
        )
        self.kept("_dmarc.a.example")

    def test_limits(self) -> None:
        """
        Destinations have their size limits (RFC 7489 6.2).
        """
        uris = ("mailto:a@a.example!1", "mailto:b@a.example!10m", "mailto:c@a.example")
        self.world.publishRecord(A, *uris)
        self.world.record()
        found = self.draft()
        self.assertEqual(found.limits, (1, 10 * 1024 * 1024, 0))

    def test_otherSchemes(self) -> None:
        """
        Only mail is sent.
        """
        self.world.publishRecord(
            A, "https://a.example/", "mailto:d@a.example", "ftp://a.example"
        )
        self.world.record()
        self.assertEqual(self.draft().destinations, ("mailto:d@a.example",))
        self.world.publishRecord(A, "https://a.example/")
        self.cleared("rua")

    def test_problems(self) -> None:
        """
        Problems of the record are reported to its owner (RFC 9990 3.1.5).
        """
        self.world.record()
        for record, said in (
            ("p=none; rua=mailto:d@a.example", ""),
            ("p=bogus; rua=mailto:d@a.example", "p=bogus is not a policy"),
            ("p=none; rua=d@b.example,mailto:d@a.example", "rua: d@b.example is not"),
            ("p=none; rua=https://b.example,mailto:d@a.example", "rua: https://b"),
            ("p=none; t=\u20ac; rua=mailto:d@a.example", "t=? has no meaning"),
        ):
            self.world.resolver.put(
                "_dmarc.a.example", RRType.TXT, f"v=DMARC1; {record}"
            )
            self.assertTrue(self.errors().startswith(said), self.errors())
            self.assertEqual(bool(self.errors()), bool(said))

    def test_external(self) -> None:
        """
        An external destination has to confirm at the policy domain's name (RFC 9990
        4); a refusal is reported to the others.
        """
        self.world.publishRecord(A, OTHER, "mailto:d@a.example")
        self.world.record()
        self.assertEqual(self.draft().destinations, ("mailto:d@a.example",))
        self.assertIn("other.example", self.errors())
        self.world.publishConfirmation(A, "other.example")
        self.assertEqual(self.draft().destinations, (OTHER, "mailto:d@a.example"))
        self.assertEqual(self.errors(), "")

    def test_externalSubdomain(self) -> None:
        """
        The confirmation is for the policy domain, not its organization.
        """
        sub = Domain("sub.a.example")
        self.world.publishRecord(sub, OTHER)
        self.world.record(evaluation(sub))
        self.world.publishConfirmation(A, "other.example")
        self.cleared("other.example")
        self.world.publishConfirmation(sub, "other.example")
        self.assertEqual(self.draft().destinations, (OTHER,))

    def test_refused(self) -> None:
        """
        Without any other destination, there is no report.
        """
        self.world.publishRecord(A, OTHER)
        self.world.record()
        self.cleared("no usable rua")

    def test_replaced(self) -> None:
        """
        A confirmation may replace the destination by others on the same host, with
        limits of their own, which need no confirmation.
        """
        self.world.publishRecord(A, OTHER)
        self.world.record()
        good = "mailto:good1@other.example, mailto:good2@other.example!10k"
        bad = "mailto:bad@elsewhere.example"
        self.world.publishConfirmation(
            A, "other.example", f"v=DMARC1; rua={good}, {bad}"
        )
        found = self.draft()
        self.assertEqual(
            found.destinations,
            ("mailto:good1@other.example", "mailto:good2@other.example"),
        )
        self.assertEqual(found.limits, (0, 10 * 1024))
        self.assertIn("elsewhere.example", self.errors())

    def test_externalFailed(self) -> None:
        """
        While it isn't known whether a destination wants reports, all wait.
        """
        self.failingExternally(OTHER)
        self.world.record()
        self.kept("other.example")
        self.failingExternally(OTHER, "mailto:d@a.example")
        self.kept("other.example")

    def test_externalNeverAnswers(self) -> None:
        """
        After another interval, the report goes to the confirmed destinations.
        """
        self.failingExternally(OTHER, "mailto:d@a.example")
        self.world.record(hour=-25)
        self.assertEqual(self.draft().destinations, ("mailto:d@a.example",))
        self.assertIn("could not be looked up", self.errors())
        self.failingExternally(OTHER)
        self.kept("other.example")

    def failingExternally(self, *uris: str) -> None:
        name = "a.example._report._dmarc.other.example"
        self.world.resolver = MemoryResolver(
            {(str(SUBMITTER), RRType.A): ["192.0.2.1"]},
            failing={(name, RRType.TXT): ExtendedError(22)},
        )
        self.world.publishRecord(A, *uris)

    def test_formats(self) -> None:
        """
        By the domain of the address, or for all, it is in another format.
        """
        uris = ("mailto:d@a.example", OTHER, "mailto:e@a.example")
        self.world.publishRecord(A, *uris)
        self.world.publishConfirmation(A, "other.example")
        self.world.record()
        new, old = ReportFormat.RFC9990, ReportFormat.RFC7489
        for format, formats, expected in [
            (new, {}, [new, new, new]),
            (old, {}, [old, old, old]),
            (new, {"other.example": old}, [new, old, new]),
            (old, {"other.example": new, "a.example": new}, [new, new, new]),
            (new, {"a.example": old}, [old, new, old]),
        ]:
            mapping = {Domain(name): each for name, each in formats.items()}
            self.world.settings = DMARCReporting(SUBMITTER, format, mapping)
            draft = self.draft()
            self.assertEqual(draft.destinations, uris)
            for uri, each in zip(uris, expected, strict=True):
                self.assertEqual(faults(draft.documentFor(uri), each), [], (uri, each))

    def test_legacy(self) -> None:
        """
        With a list of public suffixes, it determines organizations.
        """
        sub = Domain("sub.a.example")
        self.world.publishRecord(sub, "mailto:d@other.a.example")
        self.world.record(evaluation(sub))
        self.world.settings = DMARCReporting(
            SUBMITTER, suffixes=PublicSuffixes(lambda: lambda name: "a.example")
        )
        self.assertEqual(self.draft().destinations, ("mailto:d@other.a.example",))

    # --- who gets none

    def test_noSubmitter(self) -> None:
        """
        Without a domain that can sign there are no reports.
        """
        self.world.record()
        self.world.settings = DMARCReporting(None)
        self.cleared("sign")

    def test_submitterWithoutMail(self) -> None:
        """
        While the submitter domain can't receive mail, reports wait: many hosts refuse
        mail from such domains.
        """
        self.world.record()
        self.world.resolver.put(str(SUBMITTER), RRType.MX, "0 .")
        self.kept("RFC 7505")

    def test_notTo(self) -> None:
        """
        An excluded domain isn't even looked up.
        """
        self.world.record()
        for settings in (
            DMARCReporting(SUBMITTER, notTo=frozenset({A})),
            DMARCReporting(SUBMITTER, onlyTo=frozenset({B})),
            DMARCReporting(SUBMITTER, minimum=2),
        ):
            self.world.settings = settings
            self.world.resolver = MemoryResolver()
            found = self.none()
            self.assertIs(found.retention, Retention.CLEAR)

    def test_untrustedInput(self) -> None:
        """
        A domain all of whose mail was unwanted gets no report, unless a local account
        has written to it, or has received wanted mail from it; a subdomain counts for
        its organization.
        """
        sub = Domain("sub.a.example")
        self.world.publishRecord(sub)
        self.world.record(evaluation(sub, wanted=False), times=3)
        self.draft()
        self.world.settings = DMARCReporting(SUBMITTER, strangers=False)
        self.cleared("unknown domain")
        self.world.ledger.history.sent("anybody", A, SPAN.end)
        self.draft()

    def test_wanted(self) -> None:
        """
        One wanted message is enough.
        """
        self.world.record(evaluation(wanted=False), times=3)
        self.world.record(evaluation())
        self.assertEqual(counts(self.draft().document), {"192.0.2.1": 4})

    # --- and then

    def test_settle(self) -> None:
        """
        Reported evaluations are removed; later ones stay.
        """
        self.world.record(evaluation(hours=1), hour=-1)
        self.world.record(evaluation(hours=1), hour=0)
        (period,) = self.periods()
        source = self.world.source()
        self.assertEqual(self.successResultOf(source.backlog.settle(period, (), ())), 0)
        left = self.successResultOf(self.world.ledger.evaluations.evaluations())
        self.assertEqual([each.hour for each in left], [SPAN.end])
        found = self.successResultOf(source.draft(period))
        assert isinstance(found, NoReport)
        self.assertIs(found.retention, Retention.CLEAR)

    def test_emptied(self) -> None:
        """
        If all rows are removed meanwhile, there is no report, as one without a record
        would be invalid (RFC 9990 3.1.1.2).
        """
        found = self.successResultOf(self.world.source(Rows(0)).draft(SUBJECT))
        assert isinstance(found, NoReport)
        self.assertIs(found.retention, Retention.CLEAR)
