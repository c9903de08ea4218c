"""
Tests for L{moxtls.lab.expectations}.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import dkim
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import rfc3339, spanOfDay
from moxtls.lab.expectations import (
    ArrivedReport,
    Policies,
    arrivedReport,
    differences,
    inOrder,
    isReport,
)
from moxtls.lab.keys import makeKeys
from moxtls.lab.network import Arrival
from moxtls.tlsrpt.parse import ReceivedFailure, ReceivedPolicy
from tests.lab.grove import NOON

DAY = date(2026, 11, 24)
SPAN = spanOfDay(DAY)
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
    Whether reports say what they should.
    """

    def differences(self, *arrived: ArrivedReport) -> list[str]:
        return differences(arrived, EXPECTED, DAY, ["lab"])

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
            ["other.test: a report that nobody asked for"],
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
    Reading what arrived.
    """

    def test_signed(self) -> None:
        """
        What comes by mail has to be signed by all our keys (RFC 8460 3).
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
        self.assertEqual([], differences([arrived], EXPECTED, DAY, ["lab-rsa"]))
        self.assertEqual(
            ["good.test: no valid DKIM signature by lab-ed25519"],
            differences([arrived], EXPECTED, DAY, ["lab-rsa", "lab-ed25519"]),
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
        Reports are told from mail by where they arrive.
        """
        self.assertTrue(isReport(posted(b"")))
        mail = Arrival("bob@good.test", "", "mx.good.test", "", b"")
        self.assertFalse(isReport(mail))
        self.assertTrue(isReport(replace(mail, recipient="hosts@reports.test")))
