"""
Tests for L{moxtls.lab.arrivals}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path

import dkim
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR, MINUTE, Span, rfc3339, spanOfDay
from moxtls.dmarc.aggregate import AggregateMetadata, AggregateWriter, ReportFormat
from moxtls.dmarc.parse import ReceivedAggregateReport, ReceivedReason
from moxtls.dmarc.types import Disposition, DMARCPolicy, PublishedPolicy, ReportRow
from moxtls.domain import Domain
from moxtls.lab.arrivals import (
    Arrival,
    Arrivals,
    ArrivedAggregate,
    ArrivedReport,
    aggregateDifferences,
    arrivedAggregate,
    arrivedReport,
    differences,
    isAggregate,
    isReport,
    spanOf,
)
from moxtls.lab.expectations import (
    ExpectedAggregate,
    Policies,
    expectedAggregates,
    inOrder,
)
from moxtls.lab.keys import makeKeys
from moxtls.lab.messages import MESSAGES
from moxtls.tlsrpt.parse import ReceivedFailure, ReceivedPolicy
from tests.lab.grove import NETWORK, NOON

OWED = expectedAggregates(NETWORK, MESSAGES)
MIDNIGHT = NOON - 12 * HOUR


def arrived(owed: ExpectedAggregate, received: float = NOON) -> ArrivedAggregate:
    """
    A report as it should be.
    """
    span = spanOf(owed.hours, received)
    reportID = "1a2b"
    report = ReceivedAggregateReport(
        organization="sender.test",
        email="postmaster@sender.test",
        contact="",
        reportID=reportID,
        start=span.start,
        end=span.last,
        errors=owed.errors,
        generator="moxtls/1",
        domain=owed.domain,
        published=owed.published[::-1],
        records=owed.records[::-1],
    )
    return ArrivedAggregate(
        report,
        owed.recipient,
        {"lab": True},
        span.end + 5 * MINUTE,
        f"Report Domain: {owed.domain} Submitter: sender.test Report-ID: <{reportID}>",
        "sender.test",
        f"sender.test!{owed.domain}!{span.start}!{span.last}!{reportID}.xml.gz",
        True,
    )


class AggregateDifferencesTests(SynchronousTestCase):
    """
    Tests for comparing aggregate reports with the expected ones.
    """

    def differences(self, *reports: ArrivedAggregate) -> list[str]:
        return aggregateDifferences(reports, OWED, NOON, ["lab"])

    def all(self) -> Sequence[ArrivedAggregate]:
        return [arrived(each) for each in OWED.values()]

    def only(self, name: str, **changes: object) -> list[str]:
        """
        The differences if one of them differs in its contents.
        """
        return self.differing(
            name,
            lambda one: replace(one, report=replace(one.report, **changes)),
        )

    def differing(self, name: str, change: object) -> list[str]:
        assert callable(change)
        domain = f"{name}.test"
        return self.differences(
            *(change(one) if one.report.domain == domain else one for one in self.all())
        )

    def test_none(self) -> None:
        """
        Expected reports in any order have no differences.
        """
        self.assertEqual([], self.differences(*self.all()))

    def test_missing(self) -> None:
        """
        Each is wanted once: not twice, and not at all elsewhere.
        """
        first, *others = self.all()
        name = first.report.domain
        to = f"aggregate report to {first.recipient}"
        self.assertEqual([f"{name}: no {to}"], self.differences(*others))
        self.assertEqual(
            [f"{name}: 2 aggregate reports to {first.recipient} instead of one"],
            self.differences(first, *self.all()),
        )
        elsewhere = replace(first, recipient="dmarc@else.test")
        self.assertEqual(
            [f"{name}: an aggregate report to dmarc@else.test, which it is not owed"],
            self.differences(elsewhere, *self.all()),
        )

    def test_heading(self) -> None:
        """
        All metadata of a report counts.
        """
        for changes in (
            {"organization": "else.test"},
            {"email": "a@else.test"},
            {"errors": ("none",)},
            {"generator": "else"},
            {"published": (("p", "none"),)},
        ):
            with self.subTest(changes=changes):
                self.assertEqual(1, len(self.only("deep", **changes)))

    def period(self, name: str, start: float, end: float, written: float) -> list[str]:
        """
        The differences if only the period of a report differs, or its Date.
        """

        def change(one: ArrivedAggregate) -> ArrivedAggregate:
            last = int(end) - 1
            report = replace(one.report, start=int(start), end=last)
            reportID = one.report.reportID
            filename = f"sender.test!{name}.test!{int(start)}!{last}!{reportID}.xml.gz"
            return replace(one, report=report, written=written, filename=filename)

        return self.differing(name, change)

    def test_period(self) -> None:
        """
        RFC 9990 3.1.1.4: a report is about the interval of the mail, or, if it
        couldn't be made at its end, about some that follow too; about a day at most,
        and about no unfinished interval.
        """
        self.assertEqual(Span(NOON, NOON + HOUR), spanOf(1, NOON + 1))
        late = NOON + 3 * DAY
        for hours in (1, 2, 24):
            found = self.period("hourly", NOON, NOON + hours * HOUR, late)
            self.assertEqual([], found)
        self.assertEqual([], self.period("deep", MIDNIGHT, MIDNIGHT + DAY, late))
        for name, start, end, written in (
            ("hourly", NOON - HOUR, NOON + HOUR, late),
            ("hourly", NOON + HOUR, NOON + 2 * HOUR, late),
            ("hourly", NOON, NOON, late),
            ("hourly", NOON, NOON + HOUR + 1, late),
            ("hourly", NOON, NOON + 25 * HOUR, late),
            ("hourly", NOON, NOON + 2 * HOUR, NOON + HOUR + 5 * MINUTE),
            ("deep", MIDNIGHT, MIDNIGHT + HOUR, late),
            ("deep", MIDNIGHT, MIDNIGHT + 2 * DAY, late),
        ):
            with self.subTest(name=name, start=start, end=end):
                self.assertNotEqual([], self.period(name, start, end, written))

    def test_message(self) -> None:
        """
        The message with a report has the required fields (RFC 9990 3.5.2), and is
        signed.
        """
        self.assertEqual(
            ["deep.test: aggregate report: no valid DKIM signature by lab"],
            self.differing("deep", lambda one: replace(one, signatures={"lab": False})),
        )
        for changes in (
            {"subject": "Report"},
            {"author": "else.test"},
            {"filename": "report.xml.gz"},
            {"isEncrypted": False},
        ):
            with self.subTest(changes=changes):
                found = self.differing("deep", lambda one, c=changes: replace(one, **c))
                self.assertEqual(1, len(found))

    def test_records(self) -> None:
        """
        Every field of every record counts.
        """
        (record,) = OWED["deep.test", "dmarc@deep.test"].records
        for changes in (
            {"count": 2},
            {"disposition": "none"},
            {"dkimAligned": "fail"},
            {"spfAligned": "fail"},
            {"reasons": (ReceivedReason("other", ""),)},
            {"envelopeTo": "else.test"},
            {"dkim": ()},
            {"spf": ()},
        ):
            with self.subTest(changes=changes):
                records = (record._replace(**changes),)
                (line,) = self.only("deep", records=records)
                self.assertIn(next(iter(changes)), line)
        self.assertEqual(2, len(self.only("deep", records=())))
        other = record._replace(sourceIP="127.0.0.1")
        self.assertEqual(2, len(self.only("deep", records=(record, other))))


class ArrivedAggregateTests(SynchronousTestCase):
    """
    Tests for parsing received aggregate reports.
    """

    def content(self) -> bytes:
        domain = Domain("deep.test")
        writer = AggregateWriter(
            ReportFormat.RFC9990,
            AggregateMetadata(
                Domain("sender.test"), "1", Span(MIDNIGHT, MIDNIGHT + HOUR)
            ),
            PublishedPolicy(domain, DMARCPolicy.NONE),
        )
        row = ReportRow(
            "192.0.2.1",
            Disposition.NONE,
            True,
            True,
            (),
            "deep.test",
            "deep.test",
            "sender.test",
        )
        writer.add([(row, 3)])
        message = EmailMessage()
        message["From"] = "postmaster@sender.test"
        message["Subject"] = "Report"
        message["Date"] = formatdate(NOON)
        message.set_content("A report.")
        message.add_attachment(
            writer.finish(), "application", "gzip", filename="a!b!0!1.xml.gz"
        )
        return message.as_bytes().replace(b"\n", b"\r\n")

    def arrival(self, content: bytes) -> Arrival:
        return Arrival("dmarc@deep.test", "", "mx.reports.test", "TLSv1.3", content)

    def test_signed(self) -> None:
        """
        The report, its message fields, and whether the message is signed.
        """
        rsa = makeKeys([], NOON).dkim[0]
        content = self.content()
        signature = dkim.sign(content, rsa.selector.encode(), b"sender.test", rsa.pem)
        one = arrivedAggregate(
            self.arrival(signature + content), {rsa.selector: rsa.record}
        )
        assert one is not None
        self.assertEqual(("deep.test", "dmarc@deep.test"), one.key)
        self.assertEqual(3, one.report.messages)
        self.assertEqual({"lab-rsa": True}, one.signatures)
        self.assertEqual("Report", one.subject)
        self.assertEqual(NOON, one.written)
        self.assertEqual("sender.test", one.author)
        self.assertEqual("a!b!0!1.xml.gz", one.filename)
        self.assertTrue(one.isEncrypted)

    def test_unreadable(self) -> None:
        """
        Nonsense isn't a report, and neither is one of another kind.
        """
        self.assertIsNone(arrivedAggregate(self.arrival(b"nonsense"), {}))
        failure = (
            b"Content-Type: multipart/report; report-type=feedback-report;"
            b' boundary="b"\r\n\r\n--b\r\n\r\nA failure.\r\n'
            b"--b\r\nContent-Type: message/feedback-report\r\n\r\n"
            b"Feedback-Type: auth-failure\r\nVersion: 1\r\n--b--\r\n"
        )
        self.assertIsNone(arrivedAggregate(self.arrival(failure), {}))

    def test_isAggregate(self) -> None:
        """
        Aggregate reports are recognized by their recipient.
        """
        self.assertTrue(isAggregate(self.arrival(b"")))
        other = replace(self.arrival(b""), recipient="tlsrpt@reports.test")
        self.assertFalse(isAggregate(other))


REPORT_DAY = date(2026, 11, 24)
SPAN = spanOfDay(REPORT_DAY)
FAILURE = ReceivedFailure("certificate-expired", 1, mxHostname="mx.good.test")
POLICY = ReceivedPolicy(
    "sts", "good.test", ("mode: enforce",), ("mx.good.test",), 1, 2, (FAILURE,)
)
EXPECTED: dict[str, Policies] = {"good.test": inOrder([POLICY])}


def document(**changes: object) -> bytes:
    """
    A report as JSON.
    """
    report: dict[str, object] = {
        "organization-name": "sender.test",
        "date-range": {
            "start-datetime": rfc3339(SPAN.start),
            "end-datetime": rfc3339(SPAN.last),
        },
        "contact-info": "postmaster@sender.test",
        "report-id": "1a2b",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["mode: enforce"],
                    "policy-domain": "good.test",
                    "mx-host": ["mx.good.test"],
                },
                "summary": {
                    "total-successful-session-count": 1,
                    "total-failure-session-count": 2,
                },
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "failed-session-count": 1,
                        "receiving-mx-hostname": "mx.good.test",
                    }
                ],
            }
        ],
    }
    return json.dumps(report | changes).encode()


def posted(content: bytes) -> Arrival:
    return Arrival(
        "https://intake.reports.test/tlsrpt/good.test", "", "intake", "", content
    )


def read(arrival: Arrival, records: dict[str, str] | None = None) -> ArrivedReport:
    report = arrivedReport(arrival, records or {})
    assert report is not None
    return report


class DifferencesTests(SynchronousTestCase):
    """
    Tests for comparing TLS reports with the expected ones.
    """

    def differences(self, *arrived: ArrivedReport) -> list[str]:
        return differences(arrived, EXPECTED, REPORT_DAY, ["lab"])

    def test_none(self) -> None:
        """
        A report that is as it should be.
        """
        self.assertEqual([], self.differences(read(posted(document()))))

    def test_missing(self) -> None:
        """
        Each report is wanted once: not twice, and not at all elsewhere.
        """
        self.assertEqual(["good.test: no report"], self.differences())
        one = read(posted(document()))
        self.assertEqual(
            ["good.test: 2 reports instead of one"], self.differences(one, one)
        )
        other = replace(one, domain="other.test")
        self.assertEqual(
            ["other.test: an unrequested report"],
            self.differences(one, other),
        )

    def test_heading(self) -> None:
        """
        A report is about its own day (RFC 8460 4.1), and from us.
        """
        wrong = read(posted(document(**{"organization-name": "else.test"})))
        self.assertEqual(
            ["good.test: organization-name is else.test, not sender.test"],
            self.differences(wrong),
        )
        late = differences([read(posted(document()))], EXPECTED, date(2026, 11, 25), [])
        self.assertEqual(2, len(late))

    def test_policies(self) -> None:
        """
        Every field of every policy counts.
        """
        right = read(posted(document()))
        for change in (
            {"succeeded": 0},
            {"failed": 0},
            {"strings": ()},
            {"mxHosts": ()},
            {"failures": ()},
            {"failures": (replace(FAILURE, receivingIP="127.0.0.1"),)},
        ):
            with self.subTest(change=change):
                policies = (replace(POLICY, **change),)
                wrong = replace(right, report=replace(right.report, policies=policies))
                (line,) = self.differences(wrong)
                self.assertIn(next(iter(change)), line)
        none = replace(right, report=replace(right.report, policies=()))
        self.assertEqual(["good.test: 0 policies, not 1"], self.differences(none))


class ArrivedReportTests(SynchronousTestCase):
    """
    Tests for parsing received TLS reports.
    """

    def test_signed(self) -> None:
        """
        Reports by mail must be signed with all keys (RFC 8460 3).
        """
        ring = makeKeys([], NOON)
        records = {each.selector: each.record for each in ring.dkim}
        rsa = ring.dkim[0]
        content = (
            b"From: postmaster@sender.test\r\nSubject: Report\r\nMIME-Version: 1.0\r\n"
            b"TLS-Report-Domain: good.test\r\n"
            b"Content-Type: application/tlsrpt+json\r\n\r\n" + document() + b"\r\n"
        )
        signature = dkim.sign(content, rsa.selector.encode(), b"sender.test", rsa.pem)
        arrival = Arrival(
            "tlsrpt@reports.test", "", "mx.reports.test", "", signature + content
        )
        arrived = read(arrival, records)
        self.assertEqual({"lab-rsa": True}, arrived.signatures)
        self.assertEqual([], differences([arrived], EXPECTED, REPORT_DAY, ["lab-rsa"]))
        self.assertEqual(
            ["good.test: no valid DKIM signature by lab-ed25519"],
            differences([arrived], EXPECTED, REPORT_DAY, ["lab-rsa", "lab-ed25519"]),
        )
        forged = replace(arrival, content=arrival.content.replace(b"Report", b"Rep"))
        self.assertEqual({"lab-rsa": False}, read(forged, records).signatures)

    def test_unreadable(self) -> None:
        """
        Nonsense isn't a report.
        """
        self.assertIsNone(arrivedReport(posted(b"nonsense"), {}))

    def test_isReport(self) -> None:
        """
        TLS reports are recognized by their recipient.
        """
        self.assertTrue(isReport(posted(b"")))
        mail = Arrival("bob@good.test", "", "mx.good.test", "", b"")
        self.assertFalse(isReport(mail))
        self.assertTrue(isReport(replace(mail, recipient="hosts@reports.test")))


def arrival(recipient: str, content: bytes = b"text") -> Arrival:
    return Arrival(recipient, "alice@sender.test", "mx.good.test", "", content)


class ArrivalsTests(SynchronousTestCase):
    """
    Tests for L{Arrivals}.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.arrivals = Arrivals(self.directory)

    def test_files(self) -> None:
        """
        Everything is in a file, too.
        """
        self.arrivals.add(arrival("bob@Good.test", b"one"))
        self.arrivals.add(arrival("https://intake.test:8443/tlsrpt"), "json.gz")
        files = sorted(self.directory.rglob("*.*"))
        relative = [
            str(each.relative_to(self.directory)) for each in files if each.is_file()
        ]
        self.assertEqual(
            ["good.test/0001.eml", "intake.test8443/0002.json.gz"], relative
        )
        self.assertEqual(b"one", (self.directory / relative[0]).read_bytes())
        self.assertEqual(1, len(self.arrivals.at("good.test")))

    def test_strangeNames(self) -> None:
        """
        Any recipient name results in files within the directory.
        """
        for recipient in ("a@..", "a@../../etc", "postmaster", "a@", "/x", "a@[::1]"):
            self.arrivals.add(arrival(recipient))
        outside = self.directory.resolve().parent
        kept = [each for each in self.directory.rglob("*.eml")]
        self.assertEqual(6, len(kept))
        self.assertEqual([], list(outside.glob("*.eml")))

    def test_until(self) -> None:
        """
        Waiting for an arrival can be cancelled.
        """
        self.successResultOf(self.arrivals.until(lambda: True))
        one = self.arrivals.until(lambda: len(self.arrivals.all) >= 1)
        two = self.arrivals.until(lambda: len(self.arrivals.all) >= 2)
        self.arrivals.add(arrival("a@b.test"))
        self.successResultOf(one)
        self.assertNoResult(two)
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.arrivals.add(arrival("a@b.test"))
