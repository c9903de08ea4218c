"""
Contracts of the stores for incoming mail, as mixins like those of
L{tests.ledger.contracts}.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from zope.interface.verify import verifyObject

from moxtls.authentication.results import AuthResult
from moxtls.dates import DAY, HOUR
from moxtls.dmarc.types import (
    Disposition,
    DMARCPolicy,
    Evaluation,
    EvaluationSummary,
    PeriodSummary,
    PublishedPolicy,
    ReportedSignature,
    ReportRow,
    StoredEvaluation,
)
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore, ISenderHistory
from moxtls.ledger import bounds
from moxtls.reporting.types import OutgoingReport, ReportPeriod, ReportState
from tests.ledger.contracts import Contract
from tests.ledger.values import (
    EVALUATION,
    MIDNIGHT,
    MONDAY,
    NET,
    ORG,
    PUBLISHED,
    ROW,
    TUESDAY,
    evaluation,
    report,
)

#: In the middle of Monday, and at its end.
NOON = MIDNIGHT + 12 * HOUR
END = MIDNIGHT + DAY
OF_NET = PublishedPolicy(NET, DMARCPolicy.NONE)


class EvaluationContract(Contract):
    """
    L{IEvaluationStore}.
    """

    def record(self, *evaluations: Evaluation, hour: int = NOON) -> None:
        for each in evaluations:
            self.got(self.ledger.evaluations.record(hour, each))

    def stored(self, domain: Domain | None = None) -> tuple[StoredEvaluation, ...]:
        return self.got(self.ledger.evaluations.evaluations(domain))

    def periods(
        self, before: int = END, after: ReportPeriod | None = None, limit: int = 100
    ) -> tuple[ReportPeriod, ...]:
        return self.got(self.ledger.evaluations.periods(before, after, limit))

    def only(self, before: int = END) -> ReportPeriod:
        (period,) = self.periods(before)
        return period

    def ofDay(self) -> ReportPeriod:
        """
        The period of L{ORG} with an interval of a day.
        """
        (period,) = (
            each
            for each in self.periods()
            if each.domain == ORG
            if (summary := self.summary(each)) is not None and summary.hours == 24
        )
        return period

    def summary(self, period: ReportPeriod) -> PeriodSummary | None:
        return self.got(self.ledger.evaluations.summary(period))

    def rows(
        self, period: ReportPeriod, limit: int = 100
    ) -> list[tuple[bytes, ReportRow, int]]:
        """
        All of them, page by page.
        """
        rows: list[tuple[bytes, ReportRow, int]] = []
        after = b""
        while page := self.got(self.ledger.evaluations.rows(period, after, limit)):
            self.assertLessEqual(len(page), limit)
            rows.extend(page)
            after = page[-1][0]
        return rows

    def settle(self, period: ReportPeriod, *reports: OutgoingReport) -> int:
        return self.got(self.ledger.evaluations.settle(period, (), reports))

    def test_interface(self) -> None:
        """
        The store provides L{IEvaluationStore}.
        """
        verifyObject(IEvaluationStore, self.ledger.evaluations)

    def test_empty(self) -> None:
        """
        An empty store has no evaluations or periods.
        """
        evaluations = self.ledger.evaluations
        nothing = ReportPeriod(0, MONDAY, ORG, part="0", end=END)
        self.assertEqual(self.stored(), ())
        self.assertEqual(self.periods(), ())
        self.assertEqual(self.got(evaluations.count(END)), 0)
        self.assertEqual(self.got(evaluations.summaries()), ())
        self.assertEqual(self.got(evaluations.remove(ORG)), 0)
        self.assertEqual(self.got(evaluations.prune(END)), 0)
        self.assertIsNone(self.summary(nothing))
        self.assertEqual(self.rows(nothing), [])
        self.assertEqual(self.settle(nothing), 0)

    def test_closed(self) -> None:
        """
        Evaluations stored when their period is closed are due at once; those recorded
        later, even in the same hour, are read and settled separately.
        """
        evaluations, now = self.ledger.evaluations, NOON + 1200
        self.assertEqual(self.got(evaluations.close(None, now)), 0)
        self.record(evaluation(), evaluation(), evaluation(2))
        self.record(evaluation(), hour=NOON - HOUR)
        self.record(evaluation(published=OF_NET))
        (early, _) = self.got(evaluations.periods(now, None, 9, early=True))[::-1]
        self.assertEqual((early.domain, early.end), (ORG, now))
        before = self.summary(early)
        self.assertEqual(self.got(evaluations.close(ORG, now)), 1)
        self.assertEqual(self.got(evaluations.close(ORG, now)), 0)
        closed = self.only(NOON)
        self.assertEqual((closed.domain, closed.end, closed.day), (ORG, now, MONDAY))
        self.assertNotEqual(closed.part, early.part)
        self.assertEqual(self.summary(closed), before)
        self.record(evaluation(), evaluation(3))
        counts = [count for _, _, count in self.rows(closed)]
        self.assertEqual(sorted(counts), [1, 3])
        (rest,) = (
            each for each in self.periods() if each.domain == ORG and each != closed
        )
        self.assertEqual((rest.part, rest.end), (early.part, END))
        summary = self.summary(rest)
        assert summary is not None
        self.assertEqual((summary.messages, summary.since), (2, now))
        self.assertEqual([count for _, _, count in self.rows(rest)], [1, 1])
        self.assertEqual(sum(each.count for each in self.stored(ORG)), 6)
        self.settle(closed)
        self.assertIsNone(self.summary(closed))
        self.assertEqual(sum(each.count for each in self.stored(ORG)), 2)
        self.settle(rest)
        self.assertEqual(self.stored(ORG), ())
        self.assertEqual(len(self.stored(NET)), 1)

    def test_closings(self) -> None:
        """
        Closing all domains at once counts for each; no two closings are in the same
        second, and old ones are removed.
        """
        evaluations, now = self.ledger.evaluations, NOON + 1200
        for _ in range(2):
            self.record(evaluation(), evaluation(published=OF_NET))
            self.assertEqual(self.got(evaluations.close(None, now)), 2)
        ends = [each.end for each in self.periods(NOON)]
        self.assertEqual(sorted(ends), [now, now, now + 1, now + 1])
        overviews = [self.summary(each) for each in self.periods(NOON)]
        since = sorted(each.since for each in overviews if each)
        self.assertEqual(since, [0, 0, now, now])
        self.got(evaluations.prune(END))
        self.record(evaluation(), hour=END)
        summary = self.summary(self.only(END + DAY))
        assert summary is not None
        self.assertEqual(summary.since, 0)

    def test_kept(self) -> None:
        """
        A stored evaluation is complete, with all that a report contains of it (RFC
        9990 3.1).
        """
        published = PublishedPolicy(
            ORG,
            DMARCPolicy.NONE,
            DMARCPolicy.REJECT,
            testing=True,
            fo=("1", "d"),
            percent=7,
        )
        bare = replace(ROW, reasons=(), dkim=(), spf=None, dkimAligned=True)
        one = Evaluation(published, bare, 4, ("mailto:a@example.org!10m",), True, True)
        self.record(one)
        self.record(EVALUATION, hour=NOON + HOUR)
        self.assertEqual(
            self.stored(),
            (
                StoredEvaluation(NOON, one, 1),
                StoredEvaluation(NOON + HOUR, EVALUATION, 1),
            ),
        )

    def test_counted(self) -> None:
        """
        Evaluations that differ only in the addresses are one row, with the latest
        addresses.
        """
        later = replace(EVALUATION, addresses=("mailto:new@example.org",))
        self.record(EVALUATION, EVALUATION, later)
        self.assertEqual(self.stored(), (StoredEvaluation(NOON, later, 3),))
        self.got(self.ledger.evaluations.record(NOON, EVALUATION, 4))
        self.assertEqual(self.stored(), (StoredEvaluation(NOON, EVALUATION, 7),))

    def test_apart(self) -> None:
        """
        Evaluations that differ in the hour, the policy, the interval, the flags or the
        reported row are counted apart.
        """
        different = [
            EVALUATION,
            replace(EVALUATION, published=replace(PUBLISHED, testing=True)),
            replace(EVALUATION, hours=12),
            replace(EVALUATION, optional=True),
            replace(EVALUATION, wanted=True),
            replace(EVALUATION, row=replace(ROW, spfAligned=True)),
        ]
        self.record(*different)
        self.record(EVALUATION, hour=NOON - 1)
        stored = self.stored()
        self.assertEqual([each.count for each in stored], [1] * 7)
        self.assertEqual(stored[0], StoredEvaluation(NOON - HOUR, EVALUATION, 1))
        self.assertEqual({each.evaluation for each in stored}, set(different))

    def test_wholeHours(self) -> None:
        """
        Any second of an hour stands for the hour.
        """
        self.record(EVALUATION, hour=NOON)
        self.record(EVALUATION, hour=NOON + HOUR - 1)
        self.assertEqual(self.stored(), (StoredEvaluation(NOON, EVALUATION, 2),))

    def test_oldestFirst(self) -> None:
        """
        Evaluations are shown by hour and domain, of one domain if wanted, and
        not more than wanted.
        """
        net = replace(EVALUATION, published=OF_NET)
        self.record(EVALUATION, net, hour=NOON)
        self.record(EVALUATION, evaluation(2), hour=MIDNIGHT)
        places = [
            (each.hour, each.evaluation.published.domain) for each in self.stored()
        ]
        self.assertEqual(
            places, [(MIDNIGHT, ORG), (MIDNIGHT, ORG), (NOON, NET), (NOON, ORG)]
        )
        self.assertEqual([each.hour for each in self.stored(NET)], [NOON])
        few = self.got(self.ledger.evaluations.evaluations(limit=3))
        self.assertEqual(few, self.stored()[:3])

    def test_summaries(self) -> None:
        """
        Each policy domain, with the dispositions and number of its mail, and whether
        any of it may cause a report.
        """
        passed = replace(ROW, disposition=Disposition.PASS)
        self.record(EVALUATION, EVALUATION, replace(EVALUATION, hours=1))
        self.record(replace(EVALUATION, row=passed), hour=MIDNIGHT)
        self.record(replace(EVALUATION, published=OF_NET, optional=True))
        self.assertEqual(
            self.got(self.ledger.evaluations.summaries()),
            (
                EvaluationSummary(NET, (Disposition.REJECT,), 1, False),
                EvaluationSummary(ORG, (Disposition.PASS, Disposition.REJECT), 4, True),
            ),
        )
        first = self.got(self.ledger.evaluations.summaries(limit=1))
        self.assertEqual([each.domain for each in first], [NET])
        rest = self.got(self.ledger.evaluations.summaries(first[-1], 2))
        self.assertEqual([each.domain for each in rest], [ORG])

    def test_remove(self) -> None:
        """
        All of one policy domain can be forgotten, and begun again.
        """
        net = replace(EVALUATION, published=OF_NET)
        self.record(EVALUATION, EVALUATION, net)
        self.record(replace(EVALUATION, hours=2), hour=MIDNIGHT)
        self.assertEqual(self.got(self.ledger.evaluations.remove(ORG)), 3)
        self.assertEqual(self.stored(), (StoredEvaluation(NOON, net, 1),))
        self.record(EVALUATION)
        self.assertEqual(self.stored(ORG), (StoredEvaluation(NOON, EVALUATION, 1),))

    def test_prune(self) -> None:
        """
        Pruning removes evaluations before a second.
        """
        self.record(EVALUATION, EVALUATION, evaluation(2), hour=MIDNIGHT)
        self.record(EVALUATION, hour=NOON)
        self.assertEqual(self.got(self.ledger.evaluations.prune(MIDNIGHT)), 0)
        self.assertEqual(self.got(self.ledger.evaluations.prune(NOON)), 3)
        self.assertEqual(self.stored(), (StoredEvaluation(NOON, EVALUATION, 1),))

    def test_pruneMany(self) -> None:
        """
        Pruning removes any number of evaluations.
        """
        for number in range(250):
            domain = Domain(f"d{number}.example")
            published = PublishedPolicy(domain, DMARCPolicy.NONE)
            self.record(replace(EVALUATION, published=published))
        self.assertEqual(self.got(self.ledger.evaluations.prune(END)), 250)
        self.assertEqual(self.stored(), ())

    def test_due(self) -> None:
        """
        Evaluations are due once the interval that they are in is over,
        counted from midnight (UTC): of a whole day, at the next one.
        """
        self.record(evaluation(hours=24), evaluation(2, hours=24))
        self.assertEqual(self.periods(END - HOUR), ())
        period = self.only(END)
        expected = ReportPeriod(0, MONDAY, ORG, True, period.part, END)
        self.assertEqual(period, expected)
        self.assertEqual(self.only(END + 5 * HOUR), expected)
        self.assertEqual(
            self.only(END + DAY), replace(expected, day=TUESDAY, end=END + DAY)
        )

    def test_intervals(self) -> None:
        """
        Intervals of some hours end several times a day; nothing of an unfinished one
        is due.
        """
        self.record(evaluation(hours=8), hour=MIDNIGHT + 7 * HOUR)
        self.assertEqual(self.periods(MIDNIGHT + 7 * HOUR), ())
        self.record(evaluation(hours=8), hour=MIDNIGHT + 8 * HOUR)
        period = self.only(MIDNIGHT + 9 * HOUR)
        self.assertEqual(period.end, MIDNIGHT + 8 * HOUR)
        summary = self.summary(period)
        assert summary is not None
        self.assertEqual(summary.messages, 1)
        self.settle(period)
        self.assertEqual(self.periods(MIDNIGHT + 15 * HOUR), ())
        self.assertEqual(self.only(MIDNIGHT + 16 * HOUR).part, period.part)

    def test_hourly(self) -> None:
        """
        An interval of an hour is due when the hour is over.
        """
        self.record(evaluation(hours=1))
        self.assertEqual(self.periods(NOON), ())
        self.assertEqual(self.only(NOON + HOUR).end, NOON + HOUR)

    def test_dayOfEnd(self) -> None:
        """
        A span that ends at midnight ends on the day before.
        """
        self.record(evaluation(hours=12), hour=MIDNIGHT)
        self.assertEqual(self.only(NOON).day, MONDAY)
        self.assertEqual(self.only(END).day, MONDAY)
        self.assertEqual(self.only(END + DAY).day, date(2026, 11, 24))

    def test_parts(self) -> None:
        """
        There is a period for each policy and interval (RFC 9990 3.1.1.4), by
        domain and part, page by page.
        """
        for policy in (PUBLISHED, replace(PUBLISHED, percent=50), OF_NET):
            for hours in (6, 24):
                self.record(evaluation(published=policy, hours=hours))
        periods = self.periods()
        places = [(each.domain, each.part) for each in periods]
        self.assertEqual(len(set(places)), 6)
        self.assertEqual(places, sorted(places))
        paged: list[ReportPeriod] = []
        while page := self.periods(after=paged[-1] if paged else None, limit=4):
            paged.extend(page)
        self.assertEqual(tuple(paged), periods)

    def test_sendable(self) -> None:
        """
        A period of optional evaluations is not sendable, but listed, to be settled.
        """
        self.record(evaluation(optional=True))
        self.assertFalse(self.only().sendable)
        self.assertEqual(self.got(self.ledger.evaluations.count(END)), 0)
        self.record(evaluation(2), hour=MIDNIGHT)
        self.record(evaluation(2, published=OF_NET))
        self.assertTrue(all(each.sendable for each in self.periods()))
        self.assertEqual(self.got(self.ledger.evaluations.count(END)), 2)
        self.assertEqual(self.got(self.ledger.evaluations.count(END - HOUR)), 0)

    def test_sendableLater(self) -> None:
        """
        Evaluations after the end of a period don't make it sendable.
        """
        self.record(evaluation(hours=1, optional=True))
        self.record(evaluation(hours=1), hour=NOON + HOUR)
        self.assertFalse(self.only(NOON + HOUR).sendable)
        self.assertEqual(self.got(self.ledger.evaluations.count(NOON + HOUR)), 0)

    def test_overview(self) -> None:
        """
        The summary of a period: policy, first hour, and numbers of messages, different
        rows and wanted messages.
        """
        self.record(evaluation(1), evaluation(1), evaluation(2, wanted=True))
        self.record(evaluation(1, wanted=True), hour=MIDNIGHT)
        self.record(evaluation(1, optional=True), evaluation(3), hour=MIDNIGHT)
        self.record(evaluation(4), hour=END)
        self.record(evaluation(5, published=OF_NET))
        (_, period) = self.periods()
        self.assertEqual(
            self.summary(period),
            PeriodSummary(PUBLISHED, 24, MIDNIGHT, messages=6, rows=3, wanted=2),
        )

    def test_rows(self) -> None:
        """
        Rows are added up over all hours, and whether they were optional or
        wanted or not; in pages of any size, in one order.
        """
        numbers = range(1, 30)
        for hour in range(5):
            for number in numbers:
                one = evaluation(number, optional=hour == 1, wanted=hour == 2)
                self.record(*[one] * (number % 3), hour=MIDNIGHT + hour * HOUR)
        self.record(*map(evaluation, numbers), hour=END)
        self.record(*(evaluation(n, published=OF_NET) for n in numbers))
        (_, period) = self.periods()
        rows = self.rows(period)
        self.assertEqual(
            {row.sourceIP: count for _, row, count in rows},
            {f"192.0.2.{n}": 5 * (n % 3) for n in numbers if n % 3},
        )
        keys = [key for key, _, _ in rows]
        self.assertEqual(keys, sorted(set(keys)))
        for limit in (1, 2, 7, len(rows)):
            self.assertEqual(self.rows(period, limit), rows)

    def test_settle(self) -> None:
        """
        Reports are filed and their evaluations removed, and no others.
        """
        net = evaluation(published=OF_NET)
        other = evaluation(hours=12)
        self.record(evaluation(), evaluation(2), net, other)
        self.record(evaluation(), hour=END)
        self.record(evaluation(), hour=MIDNIGHT)
        period = self.ofDay()
        self.assertEqual(self.settle(period, report()), 1)
        self.assertIsNone(self.summary(period))
        self.assertEqual(self.rows(period), [])
        self.assertEqual(
            {(each.hour, each.evaluation) for each in self.stored()},
            {(NOON, net), (NOON, other), (END, evaluation())},
        )
        (filed,) = self.got(self.ledger.archive.reports())
        self.assertEqual(filed.state, ReportState.COMPOSED)

    def test_settleAgain(self) -> None:
        """
        A report that was made before isn't made again.
        """
        self.record(evaluation())
        period = self.only()
        self.assertEqual(self.settle(period, report()), 1)
        self.record(evaluation())
        self.assertEqual(self.settle(period, report(), report(NET)), 1)
        self.assertEqual(self.stored(), ())

    def test_settleAllOrNothing(self) -> None:
        """
        If reports can't be filed, their evaluations are kept.
        """
        self.record(evaluation())
        one = report()
        clash = replace(report(NET), sender=one.sender)
        period = self.only()
        failed = self.ledger.evaluations.settle(period, (), (one, clash))
        self.failureResultOf(failed)
        self.assertEqual(len(self.stored()), 1)
        self.assertEqual(self.got(self.ledger.archive.reports()), ())

    def test_late(self) -> None:
        """
        Evaluations recorded after their hour was settled are a period of their own.
        """
        self.record(evaluation(), evaluation(2))
        self.settle(self.only())
        self.record(evaluation(2))
        self.assertEqual(self.stored(), (StoredEvaluation(NOON, evaluation(2), 1),))
        self.assertEqual([count for _, _, count in self.rows(self.only())], [1])

    def test_untrustedText(self) -> None:
        """
        Text from peers is truncated, and made valid for the database.
        """
        long = "\0\ud800" + "x" * 5000
        signature = ReportedSignature(long, long, AuthResult.PASS, long)
        row = replace(
            ROW,
            sourceIP=long,
            headerFrom=long,
            envelopeFrom=long,
            envelopeTo=long,
            dkim=(signature,) * 500,
        )
        self.record(Evaluation(PUBLISHED, row, 24, (long,) * 500))
        (stored,) = self.stored()
        kept = stored.evaluation
        self.assertEqual(kept.row.headerFrom[:3], "\ufffd?x")
        self.assertEqual(len(kept.row.headerFrom), bounds.MAX_NAME_LENGTH)
        self.assertEqual(len(kept.row.sourceIP), bounds.MAX_IP_LENGTH)
        self.assertEqual(len(kept.row.dkim), bounds.MAX_SIGNATURES)
        self.assertEqual(len(kept.row.dkim[0].problem), bounds.MAX_REASON)
        self.assertEqual(len(kept.addresses), bounds.MAX_ADDRESSES)
        self.assertEqual(self.rows(self.only())[0][1], kept.row)

    def test_manyRows(self) -> None:
        """
        The rows of a domain and hour are limited; of others, only messages are
        counted.
        """
        self.patch(bounds, "MAX_ROWS", 5)
        self.record(*map(evaluation, range(9)))
        self.record(evaluation(7), evaluation(2), evaluation(2, hours=12))
        self.record(evaluation(7, published=OF_NET))
        self.record(evaluation(7), hour=MIDNIGHT)
        summary = self.summary(self.ofDay())
        assert summary is not None
        self.assertEqual(summary.messages, 7)
        self.assertEqual(summary.omitted, 5)
        self.assertEqual(len(self.stored(ORG)), 6)
        self.assertEqual(len(self.stored(NET)), 1)

    def test_manyPolicies(self) -> None:
        """
        A domain that publishes another policy for every query doesn't get a
        report for each.
        """
        self.patch(bounds, "MAX_PARTS", 3)
        for percent in range(9):
            published = replace(PUBLISHED, percent=percent)
            self.record(evaluation(published=published))
        self.assertEqual(len(self.periods()), 3)
        self.record(evaluation(published=replace(PUBLISHED, percent=2)))
        self.assertEqual(sum(each.count for each in self.stored()), 4)

    def test_onlyOmitted(self) -> None:
        """
        An hour all of whose rows were omitted for lack of room isn't sendable.
        """
        self.patch(bounds, "MAX_ROWS", 1)
        self.record(evaluation(), evaluation(hours=12))
        self.assertEqual(
            sorted(each.sendable for each in self.periods()), [False, True]
        )
        self.assertEqual(self.got(self.ledger.evaluations.remove(ORG)), 1)


class HistoryContract(Contract):
    """
    L{ISenderHistory}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.history = self.ledger.history

    def sent(self, account: str, domain: str, now: float = NOON) -> None:
        self.got(self.history.sent(account, Domain(domain), now))

    def received(self, account: str, domain: str, now: float = NOON) -> None:
        self.got(self.history.received(account, Domain(domain), now))

    def isKnown(self, account: str | None, domain: str) -> bool:
        return self.got(self.history.isKnown(account, Domain(domain)))

    def test_interface(self) -> None:
        """
        The store provides L{ISenderHistory}.
        """
        verifyObject(ISenderHistory, self.history)

    def test_nobody(self) -> None:
        """
        An empty history knows no domain.
        """
        self.assertFalse(self.isKnown("mjl", "example.org"))
        self.assertFalse(self.isKnown(None, "example.org"))
        self.assertEqual(self.got(self.history.prune(NOON)), 0)

    def test_signs(self) -> None:
        """
        Either sign will do, once or often.
        """
        for _ in range(3):
            self.sent("mjl", "example.org")
            self.received("mjl", "example.net")
        self.assertTrue(self.isKnown("mjl", "example.org"))
        self.assertTrue(self.isKnown("mjl", "example.net"))

    def test_accounts(self) -> None:
        """
        A domain is known to the account that corresponded with it, and to any account.
        """
        self.sent("mjl", "example.org")
        self.sent("", "example.net")
        self.assertFalse(self.isKnown("other", "example.org"))
        self.assertFalse(self.isKnown("mjl", "example.net"))
        self.assertTrue(self.isKnown("", "example.net"))
        self.assertTrue(self.isKnown(None, "example.org"))
        self.assertTrue(self.isKnown(None, "example.net"))

    def test_below(self) -> None:
        """
        Domains below count for the organizational one, and no others.
        """
        for domain in ("a.b.example.org", "example.net", "sub-example.com"):
            self.sent("mjl", domain)
        for whose in ("mjl", None):
            self.assertTrue(self.isKnown(whose, "example.org"))
            self.assertTrue(self.isKnown(whose, "b.example.org"))
            self.assertFalse(self.isKnown(whose, "c.example.org"))
            self.assertFalse(self.isKnown(whose, "ample.org"))
            self.assertFalse(self.isKnown(whose, "a.example.net"))
            self.assertFalse(self.isKnown(whose, "example.com"))
            self.assertFalse(self.isKnown(whose, "example.ne"))

    def test_prune(self) -> None:
        """
        Pruning removes entries before a day.
        """
        self.sent("mjl", "example.org", MIDNIGHT)
        self.sent("mjl", "example.net", MIDNIGHT)
        self.received("mjl", "example.net", MIDNIGHT)
        self.sent("mjl", "example.net", END + 5)
        self.assertEqual(self.got(self.history.prune(END - 1)), 0)
        self.assertEqual(self.got(self.history.prune(END + 6)), 2)
        self.assertFalse(self.isKnown("mjl", "example.org"))
        self.assertFalse(self.isKnown(None, "example.org"))
        self.assertTrue(self.isKnown("mjl", "example.net"))

    def test_again(self) -> None:
        """
        A pruned entry can be recorded again on the same day.
        """
        self.sent("mjl", "example.org", NOON)
        self.assertEqual(self.got(self.history.prune(END)), 1)
        self.sent("mjl", "example.org", NOON)
        self.assertTrue(self.isKnown("mjl", "example.org"))

    def test_neverBack(self) -> None:
        """
        An entry recorded late doesn't replace a later day.
        """
        self.sent("mjl", "example.org", END)
        self.sent("mjl", "example.org", NOON)
        self.assertEqual(self.got(self.history.prune(END)), 0)

    def test_untrustedText(self) -> None:
        """
        Any name of an account will do.
        """
        long = "\0\ud800" + "x" * 5000
        self.sent(long, "example.org")
        self.assertTrue(self.isKnown(long, "example.org"))
