"""
Contracts of the store of received reports, as mixins.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from moxtls.dates import DAY, HOUR
from moxtls.ledger.received import values, writing
from moxtls.received.interfaces import IReceivedReportStore
from moxtls.received.types import (
    MAX_REPORTERS,
    AcceptedReport,
    AddResult,
    Channel,
    DMARCDay,
    DMARCSource,
    Origin,
    ParsedReport,
    ReceivedKind,
    RefusedReport,
    Reporter,
    ReportFilter,
    RowOutcome,
    StoredReport,
    TLSDay,
    TLSFailureGroup,
)
from moxtls.tlsrpt.parse import ReceivedFailure
from tests.ledger.contracts import Contract
from tests.ledger.received.values import (
    FAILED,
    HTTPS,
    MAIL,
    MONDAY,
    NET,
    ORG,
    PASSED,
    Row,
    accepted,
    detail,
    dmarc,
    failure,
    policy,
    refused,
    tls,
)

TUESDAY = MONDAY + 1
WEDNESDAY = MONDAY + 2
#: More than are stored in one step, when rows come one in a block.
MANY = writing.BLOCKS_AT_ONCE * 3 + 1


class ReceivedBase(Contract):
    """
    Helpers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.store: IReceivedReportStore = self.ledger.received

    def add(self, *reports: ParsedReport | AcceptedReport) -> list[AddResult]:
        return [
            self.got(
                self.store.add(
                    each if isinstance(each, AcceptedReport) else accepted(each)
                )
            )
            for each in reports
        ]

    def refuse(self, *reports: RefusedReport) -> None:
        for each in reports:
            self.got(self.store.refuse(each))

    def listed(self, **conditions: Any) -> list[StoredReport]:
        """
        The reports that fulfil some conditions.
        """
        filter = ReportFilter(**conditions)
        return [*self.got(self.store.reports(filter, 100))]

    def ids(self, **conditions: Any) -> list[str]:
        """
        The identifiers of listed reports, the latest first.
        """
        return [each.reportID for each in self.listed(**conditions)]

    def messages(self, domain: str = ORG) -> dict[int, int]:
        """
        Messages by outcome over all days.
        """
        found: Counter[int] = Counter()
        for each in self.got(self.store.dmarcDays(domain, 0, 99_999)):
            found[each.outcome] += each.messages
        return found

    def consistent(self, *domains: str) -> None:
        """
        The sums are those of the rows, for each domain and day.
        """
        for domain in domains:
            rows = self.got(self.store.dmarcRows(ReportFilter(domain=domain), 10_000))
            byDay: Counter[tuple[int, int]] = Counter()
            for row in rows:
                byDay[row.day, row.outcome] += row.messages
            days = self.got(self.store.dmarcDays(domain, 0, 99_999))
            self.assertEqual(
                {(each.day, each.outcome): each.messages for each in days}, byDay
            )
            sources = self.got(self.store.dmarcSources(domain, 0, 99_999, 10_000))
            self.assertEqual(
                sum(each.messages for each in sources), sum(byDay.values())
            )
            policies = self.got(self.store.tlsRows(ReportFilter(domain=domain), 10_000))
            sessions: Counter[tuple[int, str]] = Counter()
            for each in policies:
                count = each.policy.succeeded + each.policy.failed
                sessions[each.day, each.policy.type] += count
            tlsDays = self.got(self.store.tlsDays(domain, 0, 99_999))
            self.assertEqual(
                {(e.day, e.policyType): e.succeeded + e.failed for e in tlsDays},
                sessions,
            )

    def expireAll(self, kind: ReceivedKind | None, before: int, limit: int) -> int:
        """
        Expire in steps; returns the number of steps.
        """
        steps = 0
        while removed := self.got(self.store.expire(kind, before, limit)):
            self.assertLessEqual(removed, limit)
            steps += 1
        return steps


class ReceivedContract(ReceivedBase):
    """
    L{IReceivedReportStore}: adding, listing, paging.
    """

    def test_interface(self) -> None:
        """
        It provides the interface.
        """
        self.assertTrue(verifyObject(IReceivedReportStore, self.store))

    def test_empty(self) -> None:
        """
        Without reports, every answer is empty.
        """
        got, store = self.got, self.store
        everything = ORG, 0, 99_999
        self.assertEqual(self.listed(refused=None), [])
        self.assertEqual(got(store.domains(0, 99_999)), ())
        self.assertIsNone(got(store.get(1)))
        self.assertIsNone(got(store.raw(1)))
        answers: list[Deferred[Any]] = [
            store.tlsDays(*everything),
            store.dmarcDays(*everything),
            store.tlsFailures(*everything, 9),
            store.dmarcSources(*everything, 9),
            store.reporters(ReceivedKind.TLS, *everything, 9),
            store.tlsRows(ReportFilter(), 9),
            store.dmarcRows(ReportFilter(), 9),
        ]
        for answer in answers:
            self.assertEqual(got(answer), ())
        self.assertEqual(got(store.expire(None, 99_999, 9)), 0)

    def test_stored(self) -> None:
        """
        A report is listed with all that is known of it.
        """
        report = dmarc(Row(messages=3), Row("192.0.2.7", FAILED, 2))
        self.assertEqual(self.add(report), [AddResult.STORED])
        (stored,) = self.listed()
        expected = StoredReport(
            stored.number,
            ReceivedKind.DMARC,
            "google.com",
            "noreply@google.com",
            "1",
            report.start,
            report.end,
            (ORG,),
            5,
            2,
            MAIL,
            "",
            False,
            report.format,
            len(report.raw),
            report.published,
        )
        self.assertEqual(stored, expected)
        self.assertEqual(self.got(self.store.get(stored.number)), expected)
        self.assertEqual(self.got(self.store.raw(stored.number)), report.raw)

    def test_duplicate(self) -> None:
        """
        The same report again is not counted, by whatever way it comes.
        """
        for report in (dmarc(), tls(), failure()):
            self.assertEqual(self.add(report), [AddResult.STORED])
            again = accepted(replace(report, raw=b"packed otherwise"), HTTPS)
            self.assertEqual(self.add(again), [AddResult.DUPLICATE])
        self.assertEqual(len(self.listed()), 3)
        self.assertEqual(self.messages(), {PASSED: 1})
        (day,) = self.got(self.store.tlsDays(ORG, 0, 99_999))
        self.assertEqual(day, TLSDay(MONDAY, "sts", 10, 0))

    def test_variant(self) -> None:
        """
        A different report of the same submitter, id and period is kept and marked.
        """
        one, other = dmarc(Row(messages=1)), dmarc(Row(messages=5))
        results = self.add(one, other, one, other)
        self.assertEqual(results, ["stored", "variant", "duplicate", "duplicate"])
        self.assertEqual([each.isVariant for each in self.listed()], [True, False])
        self.assertEqual(self.messages(), {PASSED: 6})

    def test_differentIdentities(self) -> None:
        """
        Reports that differ in submitter, id or period aren't variants.
        """
        one = dmarc()
        for other in (
            replace(one, contact="x@example.net"),
            replace(one, organization="Yahoo"),
            replace(one, reportID="2"),
            replace(one, end=one.end + 1),
            replace(one, start=one.start + 1),
        ):
            self.add(one)
            self.assertEqual(self.add(other), [AddResult.STORED])

    def test_upgrade(self) -> None:
        """
        The origin of a duplicate replaces one without authentication.
        """
        imported = Origin(Channel.IMPORT, "a.mbox", "", 7.0)
        other = replace(MAIL, authentication="DMARC example.net")
        for first, second, kept in (
            (HTTPS, MAIL, MAIL),
            (MAIL, HTTPS, MAIL),
            (HTTPS, imported, HTTPS),
            (MAIL, other, MAIL),
        ):
            report = dmarc(reportID=f"{first} {second}")
            self.add(accepted(report, first), accepted(report, second))
            self.assertEqual(self.listed()[0].origin, kept)

    def test_pages(self) -> None:
        """
        Pages of any size contain the same reports, the latest first.
        """
        for number in range(7):
            self.add(dmarc(reportID=str(number)), tls(reportID=f"t{number}"))
            self.refuse(refused(str(number)))
        for wanted in (True, False, None):
            filter = ReportFilter(refused=wanted)
            self.paged(partial(self.page, filter))
        numbers = [each.number for each in self.listed(refused=None)]
        self.assertEqual(numbers, sorted(numbers, reverse=True))
        self.assertEqual(len(set(numbers)), 21)

    def page(
        self, filter: ReportFilter, last: StoredReport | None, limit: int
    ) -> Deferred[tuple[StoredReport, ...]]:
        """
        A page of reports, after the last one of the previous page.
        """
        return self.store.reports(filter, limit, last.number if last else None)

    def test_filters(self) -> None:
        """
        Each condition, and several, choose the reports that fulfil them.
        """
        self.add(
            dmarc(reportID="a"),
            dmarc(Row(outcome=FAILED), reportID="b", day=TUESDAY, domain=NET),
            dmarc(reportID="c", day=WEDNESDAY, organization="Yahoo! 100%_"),
            tls(reportID="d"),
            tls(policy(failures={"certificate-expired": 1}), reportID="e", day=TUESDAY),
            failure(reportID="f"),
        )
        self.refuse(
            refused(report=dmarc(reportID="g")),
            refused(report=tls(policy(NET), reportID="h")),
        )
        cases: list[tuple[dict[str, Any], str]] = [
            ({}, "fedcba"),
            ({"kind": ReceivedKind.TLS}, "ed"),
            ({"kind": ReceivedKind.FAILURE}, "f"),
            ({"domain": ORG}, "fedca"),
            ({"domain": "org"}, ""),
            ({"organization": "yAHOO"}, "c"),
            ({"organization": "O%"}, ""),
            ({"organization": "100%_"}, "c"),
            ({"organization": "OOG"}, "edba"),
            ({"first": TUESDAY}, "ecb"),
            ({"last": TUESDAY}, "fedba"),
            ({"first": TUESDAY, "last": TUESDAY}, "eb"),
            ({"onlyFailures": True}, "feb"),
            ({"onlyFailures": True, "domain": ORG, "kind": ReceivedKind.TLS}, "e"),
            ({"refused": True}, "hg"),
            ({"refused": True, "domain": NET}, "h"),
            ({"refused": True, "kind": ReceivedKind.DMARC}, "g"),
            ({"refused": None, "domain": NET}, "hb"),
            ({"refused": None}, "hgfedcba"),
        ]
        for conditions, expected in cases:
            self.assertEqual("".join(self.ids(**conditions)), expected, conditions)

    def test_failuresWithoutSessions(self) -> None:
        """
        RFC 8460 4.4: a policy may have failure details although no session failed, as
        none was enforced.  Such reports and policies have failures, too, and no sums
        of failed sessions.
        """
        detail = ReceivedFailure("starttls-not-supported", 3)
        defective = replace(policy(failures=[detail]), failed=0)
        self.add(
            tls(defective, policy(NET), reportID="a"), tls(policy(NET), reportID="b")
        )
        for domain, expected in (("", ["a"]), (ORG, ["a"]), (NET, [])):
            self.assertEqual(
                self.ids(onlyFailures=True, domain=domain), expected, domain
            )
        rows = self.got(self.store.tlsRows(ReportFilter(onlyFailures=True), 10))
        self.assertEqual([each.policy.domain for each in rows], [ORG])
        (report,) = self.listed(onlyFailures=True)
        self.assertEqual(report.failed, 0)

    def test_caseOfOrganization(self) -> None:
        """
        Names are compared without regard to case, also beyond ASCII.
        """
        self.add(dmarc(organization="ÖBB Straße"))
        self.assertEqual(len(self.listed(organization="öbb STRASSE")), 1)

    def test_domains(self) -> None:
        """
        The domains with results in some days, each once, sorted; not those of refused
        reports.
        """
        self.add(
            dmarc(domain="b.example"),
            dmarc(domain="b.example", day=TUESDAY),
            tls(policy("c.example"), policy("a.example"), day=TUESDAY),
            failure("d.example", WEDNESDAY),
        )
        self.refuse(refused(report=dmarc(domain="e.example")))
        for first, last, expected in (
            (MONDAY, WEDNESDAY, "abcd"),
            (MONDAY, MONDAY, "b"),
            (TUESDAY, TUESDAY, "abc"),
            (WEDNESDAY, 99_999, "d"),
            (0, MONDAY - 1, ""),
        ):
            found = self.got(self.store.domains(first, last))
            self.assertEqual(found, tuple(f"{name}.example" for name in expected))

    def test_untrustedText(self) -> None:
        """
        Whatever strangers send is stored, shortened: NUL, lone surrogates, long texts,
        absurd numbers.
        """
        text = "\0\ud800" + "x" * 100_000
        odd = Row(text, FAILED, 2**80, text, "\0")
        fields = ((text, text),) * 1000
        several = ReceivedFailure(text, 2**80, *[text] * 6)
        bad = replace(
            policy(failures=[several] * 2),
            type=text,
            domain=text,
            strings=(text,) * 999,
        )
        origin = Origin(Channel.HTTPS, text, text, 1.0)
        for report in (
            dmarc(odd, odd, Row(messages=-5), domain=text, organization=text),
            tls(bad, reportID=text, organization=text),
            failure(text),
        ):
            report = replace(report, contact=text, reportID=text, published=fields)
            result = self.add(AcceptedReport(report, origin))
            self.assertEqual(result, [AddResult.STORED])
            self.refuse(RefusedReport(origin, text, None, report))
        for stored in self.listed(refused=None):
            self.assertLess(len(repr(stored)), 600_000)
            self.assertTrue(stored.refused.isprintable())
        (row, *_) = self.got(self.store.dmarcRows(ReportFilter(), 9))
        self.assertLess(len(row.source + row.detail), 1000)
        (whole,) = self.got(self.store.tlsRows(ReportFilter(), 9))
        self.assertEqual(whole.policy.failed, values.MAX_MESSAGES)

    def test_withoutDomain(self) -> None:
        """
        What names no policy domain is listed, and not counted.
        """
        many = [Row()] * MANY
        self.add(
            dmarc(domain=""),
            dmarc(*many, domain="", reportID="2", rowsOfBlock=1),
            tls(policy("")),
            failure(""),
        )
        self.refuse(refused(report=tls(policy(""))))
        self.assertEqual([each.domains for each in self.listed()], [()] * 4)
        self.assertEqual([each.total for each in self.listed()], [0] * 4)
        self.assertEqual(self.got(self.store.domains(0, 99_999)), ())
        self.assertEqual(self.got(self.store.dmarcRows(ReportFilter(), 9)), ())
        self.assertEqual(self.got(self.store.tlsRows(ReportFilter(), 9)), ())


class DMARCContract(ReceivedBase):
    """
    L{IReceivedReportStore}: DMARC reports (RFC 9990).
    """

    def test_days(self) -> None:
        """
        Messages are summed up by day and outcome.
        """
        self.add(
            dmarc(Row(messages=3), Row(messages=4, outcome=FAILED), reportID="1"),
            dmarc(Row(messages=5), reportID="2"),
            dmarc(Row(messages=7), day=TUESDAY),
            dmarc(Row(messages=9), domain=NET),
        )
        reject, passed = RowOutcome.REJECT, RowOutcome.DKIM | RowOutcome.SPF
        expected = (
            DMARCDay(MONDAY, reject, 4),
            DMARCDay(MONDAY, passed, 8),
            DMARCDay(TUESDAY, passed, 7),
        )
        self.assertEqual(self.got(self.store.dmarcDays(ORG, MONDAY, TUESDAY)), expected)
        found = self.got(self.store.dmarcDays(ORG, TUESDAY, WEDNESDAY))
        self.assertEqual(found, expected[2:])
        self.consistent(ORG, NET)

    def test_middle(self) -> None:
        """
        A report belongs to the day of the middle of its period.
        """
        late = replace(
            dmarc(), start=MONDAY * DAY + 20 * HOUR, end=TUESDAY * DAY + 20 * HOUR
        )
        self.add(late)
        (day,) = self.got(self.store.dmarcDays(ORG, 0, 99_999))
        self.assertEqual(day.day, TUESDAY)

    def test_sources(self) -> None:
        """
        Messages are grouped by network, authenticated domain and outcome, most first.
        """
        self.add(
            dmarc(
                Row("192.0.2.1", messages=1),
                Row("192.0.2.9", messages=2),
                Row("192.0.2.9", FAILED, 40, ""),
                Row("198.51.100.1", messages=10, authenticated="esp.example"),
            ),
            dmarc(Row("192.0.2.1", messages=8), day=WEDNESDAY),
        )
        outcome = RowOutcome.DKIM | RowOutcome.SPF
        first, second, third = self.got(self.store.dmarcSources(ORG, 0, 99_999, 9))
        network, days = "192.0.2.0/24", (MONDAY, MONDAY)
        self.assertEqual(
            first,
            DMARCSource(network, "192.0.2.9", "", RowOutcome.REJECT, 40, *days),
        )
        self.assertIn(third.source, ("198.51.100.1",))
        self.assertEqual(
            replace(second, source=""),
            DMARCSource(network, "", ORG, outcome, 11, MONDAY, WEDNESDAY),
        )
        limited = self.got(self.store.dmarcSources(ORG, MONDAY, MONDAY, 2))
        self.assertEqual([each.messages for each in limited], [40, 10])

    def test_reporters(self) -> None:
        """
        Organizations with their reports and messages, most messages first.
        """
        self.add(
            dmarc(Row(messages=3), reportID="1"),
            dmarc(Row(messages=4, outcome=FAILED), reportID="2", day=TUESDAY),
            dmarc(Row(messages=50), organization="Yahoo"),
            dmarc(Row(messages=99), organization="Other", domain=NET),
            tls(),
        )
        kind = ReceivedKind.DMARC
        found = self.got(self.store.reporters(kind, ORG, 0, 99_999, 9))
        expected = (
            Reporter("Yahoo", 1, 50, 0, MONDAY, MONDAY),
            Reporter("google.com", 2, 7, 4, MONDAY, TUESDAY),
        )
        self.assertEqual(found, expected)
        found = self.got(self.store.reporters(kind, ORG, MONDAY, MONDAY, 1))
        self.assertEqual(found, expected[:1])
        self.refuse(refused(report=dmarc(organization="Forger")))
        found = self.got(self.store.reporters(kind, ORG, 0, 99_999, 9))
        self.assertEqual(found, expected)

    def test_rows(self) -> None:
        """
        Rows come by domain, day and report, on pages of any size, with their details,
        also those that are equal.
        """
        self.add(
            dmarc(*[Row(f"192.0.2.{n}") for n in range(5)], day=TUESDAY),
            dmarc(*[Row()] * 3, rowsOfBlock=1, organization="Yahoo"),
            dmarc(Row(outcome=FAILED, messages=7, envelopeFrom="x"), domain=NET),
        )
        self.paged(
            lambda last, limit: self.store.dmarcRows(ReportFilter(), limit, last)
        )
        rows = self.got(self.store.dmarcRows(ReportFilter(), 100))
        self.assertEqual([each.domain for each in rows], [NET] + [ORG] * 8)
        self.assertEqual([e.day for e in rows[1:]], [MONDAY] * 3 + [TUESDAY] * 5)
        one = rows[0]
        self.assertEqual(one.detail, detail("x")[1])
        self.assertEqual((one.outcome, one.messages), (RowOutcome.REJECT, 7))
        self.assertEqual(rows[1].organization, "Yahoo")

    def test_rowFilters(self) -> None:
        """
        Each condition chooses the rows that fulfil it.
        """
        self.add(
            dmarc(Row("192.0.2.1"), Row("192.0.2.2", FAILED)),
            dmarc(Row("192.0.2.3"), organization="Yahoo", day=TUESDAY),
            dmarc(Row("192.0.2.4", FAILED), domain=NET),
            tls(),
        )
        for filter, expected in (
            (ReportFilter(), "4123"),
            (ReportFilter(domain=ORG), "123"),
            (ReportFilter(onlyFailures=True), "42"),
            (ReportFilter(onlyFailures=True, domain=ORG), "2"),
            (ReportFilter(organization="yahoo"), "3"),
            (ReportFilter(first=TUESDAY), "3"),
            (ReportFilter(last=MONDAY), "412"),
            (ReportFilter(refused=True), ""),
            (ReportFilter(refused=None), "4123"),
            (ReportFilter(kind=ReceivedKind.TLS), ""),
            (ReportFilter(kind=ReceivedKind.DMARC), "4123"),
        ):
            rows = self.got(self.store.dmarcRows(filter, 100))
            found = "".join(each.source[-1] for each in rows)
            self.assertEqual(found, expected, filter)

    def test_large(self) -> None:
        """
        A report with many rows, which is stored in steps, is like any other.
        """
        rows = [
            Row(f"192.0.{n % 3}.1", FAILED if n % 5 == 0 else PASSED, n + 1)
            for n in range(MANY)
        ]
        large = dmarc(*rows, rowsOfBlock=1)
        other = replace(large, content=b"other")
        self.add(dmarc(*rows, reportID="small"))
        results = self.add(large, large, accepted(large, HTTPS), other)
        self.assertEqual(results, ["stored", "duplicate", "duplicate", "variant"])
        self.assertEqual(
            [each.isVariant for each in self.listed()], [True, False, False]
        )
        whole = sum(each.messages for each in rows)
        self.assertEqual(sum(self.messages().values()), whole * 3)
        self.consistent(ORG)
        sources = self.got(self.store.dmarcSources(ORG, 0, 99_999, 100))
        # Three networks, two outcomes.
        self.assertEqual(len(sources), 6)
        found = self.got(self.store.dmarcRows(ReportFilter(), 1000))
        self.assertEqual(
            [each.messages for each in found], [e.messages for e in rows] * 3
        )

    def test_upgradeOfLarge(self) -> None:
        """
        A duplicate of a large report upgrades its origin, too.
        """
        large = dmarc(*[Row()] * MANY, rowsOfBlock=1)
        self.add(accepted(large, HTTPS), accepted(large, MAIL))
        self.assertEqual(self.listed()[0].origin, MAIL)

    def test_fullTransaction(self) -> None:
        """
        Reports beyond the size of a transaction are stored by the next ones.
        """
        self.patch(writing, "MAX_ROWS_AT_ONCE", 2)
        self.add(*[dmarc(Row(), Row(), reportID=str(n)) for n in range(5)])
        self.assertEqual(self.messages(), {PASSED: 10})


class TLSContract(ReceivedBase):
    """
    L{IReceivedReportStore}: TLS reports (RFC 8460).
    """

    def test_days(self) -> None:
        """
        Sessions are summed up by day and type of the policy (RFC 8460 4.4).
        """
        self.add(
            tls(policy(failures={"certificate-expired": 2}), policy(type="tlsa")),
            tls(policy(succeeded=5), reportID="2"),
            tls(policy(succeeded=7), day=TUESDAY),
        )
        found = self.got(self.store.tlsDays(ORG, MONDAY, TUESDAY))
        expected = (
            TLSDay(MONDAY, "sts", 15, 2),
            TLSDay(MONDAY, "tlsa", 10, 0),
            TLSDay(TUESDAY, "sts", 7, 0),
        )
        self.assertEqual(found, expected)
        self.consistent(ORG)

    def test_severalDomains(self) -> None:
        """
        Each policy is counted once, for its own policy domain; those of unknown domains
        stay in the raw report.
        """
        report = tls(
            policy(ORG, 1, {"certificate-expired": 2}),
            policy(NET, 10),
            policy("unknown.example", 100, {"certificate-expired": 50}),
            policy("", 1000),
            domainHint=NET,
        )
        self.add(accepted(report, domains=frozenset({ORG, NET})))
        (stored,) = self.listed()
        self.assertEqual(stored.domains, (NET, ORG))
        self.assertEqual((stored.total, stored.failed), (1013, 2))
        self.assertEqual(self.got(self.store.domains(0, 99_999)), (NET, ORG))
        for domain, expected in (
            (ORG, [(1, 2)]),
            (NET, [(1010, 0)]),
            ("unknown.example", []),
            ("", []),
        ):
            days = self.got(self.store.tlsDays(domain, 0, 99_999))
            found = [(each.succeeded, each.failed) for each in days]
            self.assertEqual(found, expected, domain)
        rows = self.got(self.store.tlsRows(ReportFilter(), 9))
        self.assertEqual([each.policy.domain for each in rows], [NET, NET, ORG])
        self.assertEqual(self.ids(domain="unknown.example"), [])
        self.assertEqual(self.ids(onlyFailures=True, domain=NET), [])
        (reporter,) = self.got(
            self.store.reporters(ReceivedKind.TLS, ORG, 0, 99_999, 9)
        )
        self.assertEqual(reporter, Reporter("google.com", 1, 3, 2, MONDAY, MONDAY))

    def test_failures(self) -> None:
        """
        Failed sessions are grouped by cause, most first, with reporters and reports.
        """
        expired = ReceivedFailure(
            "certificate-expired", 5, "x", "192.0.2.1", "mx", "helo", "2001:db8::1", "?"
        )
        self.add(
            tls(policy(failures=[expired, replace(expired, sendingIP="192.0.2.2")])),
            tls(policy(failures=[expired]), organization="Yahoo", day=TUESDAY),
            tls(policy(failures={"validation-failure": 99}), reportID="2", day=TUESDAY),
            tls(policy(NET, failures=[expired]), reportID="3"),
        )
        numbers = [each.number for each in reversed(self.listed())]
        first, second = self.got(self.store.tlsFailures(ORG, 0, 99_999, 9))
        self.assertEqual((first.resultType, first.sessions), ("validation-failure", 99))
        self.assertEqual(
            second,
            TLSFailureGroup(
                "sts",
                "certificate-expired",
                "x",
                "mx",
                "2001:db8::1",
                15,
                MONDAY,
                TUESDAY,
                ("google.com", "Yahoo"),
                (numbers[1], numbers[0]),
            ),
        )
        limited = self.got(self.store.tlsFailures(ORG, MONDAY, TUESDAY, 1))
        self.assertEqual(limited, (first,))
        (one,) = self.got(self.store.tlsFailures(ORG, MONDAY, MONDAY, 9))
        self.assertEqual((one.sessions, one.reporters), (10, ("google.com",)))

    def test_reportersOfFailures(self) -> None:
        """
        Of each cause the most important reporters and the latest reports are named.
        """
        for number in range(MAX_REPORTERS + 2):
            one = policy(failures={"certificate-expired": number + 1})
            self.add(tls(one, organization=f"{number}", reportID=f"{number}"))
        numbers = [each.number for each in self.listed()]
        (group,) = self.got(self.store.tlsFailures(ORG, 0, 99_999, 9))
        names = [str(number) for number in range(MAX_REPORTERS + 1, 1, -1)]
        self.assertEqual(list(group.reporters), names)
        self.assertEqual(list(group.reports), numbers[:MAX_REPORTERS])

    def test_manyCauses(self) -> None:
        """
        The causes of a report are bounded; no session is lost.
        """
        self.patch(values, "MAX_FAILURES", 5)
        self.patch(values, "MAX_CAUSES", 7)
        failures = [ReceivedFailure(f"type{n % 4}", 1, str(n)) for n in range(50)]
        self.add(tls(policy(failures=failures)))
        groups = self.got(self.store.tlsFailures(ORG, 0, 99_999, 99))
        self.assertEqual(sum(each.sessions for each in groups), 50)
        self.assertLessEqual(len(groups), 8)

    def test_rows(self) -> None:
        """
        Policies come by domain, day and report, whole, on pages of any size.
        """
        failing = policy(
            NET,
            failures=[
                ReceivedFailure("certificate-expired", 5, "a", "b", "c", "d", "e", "f")
            ],
        )
        self.add(
            tls(policy(), policy(type="tlsa"), policy(), day=TUESDAY),
            tls(policy(), organization="Yahoo"),
            tls(failing),
        )
        self.paged(lambda last, limit: self.store.tlsRows(ReportFilter(), limit, last))
        rows = self.got(self.store.tlsRows(ReportFilter(), 9))
        self.assertEqual(rows[0].policy, failing)
        self.assertEqual([each.day - MONDAY for each in rows], [0, 0, 1, 1, 1])
        for filter, expected in (
            (ReportFilter(domain=ORG), 4),
            (ReportFilter(domain=ORG, first=TUESDAY), 3),
            (ReportFilter(onlyFailures=True), 1),
            (ReportFilter(organization="YAHOO"), 1),
            (ReportFilter(kind=ReceivedKind.DMARC), 0),
            (ReportFilter(refused=True), 0),
        ):
            rows = self.got(self.store.tlsRows(filter, 9))
            self.assertEqual(len(rows), expected, filter)
