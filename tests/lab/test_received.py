"""
Tests for L{moxtls.lab.received}.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from email import message_from_bytes
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.mail import SMTPAnswer
from moxtls.lab.received import (
    FAILED,
    REPORTS,
    SUCCEEDED,
    LabReport,
    ReportReception,
    writtenReport,
)
from moxtls.received.types import (
    Channel,
    Origin,
    RawFormat,
    ReceivedKind,
    StoredReport,
)

NOW = 1_767_312_000.0
TLS, DMARC, FORGED, _ = REPORTS


def attachment(report: LabReport) -> tuple[str, bytes]:
    """
    The media type and the content of the report in a message.
    """
    message = message_from_bytes(writtenReport(report, "r.1", NOW))
    (part,) = [each for each in message.walk() if each.get_filename()]
    packed = part.get_payload(decode=True)
    assert isinstance(packed, bytes)
    return part.get_content_type(), gzip.decompress(packed)


class WritingTests(SynchronousTestCase):
    """
    Tests for L{writtenReport}, with the parsers of the standard library.
    """

    def test_tls(self) -> None:
        """
        A TLS report is about the day before (RFC 8460 4.4, 5.3).
        """
        type, content = attachment(TLS)
        report = json.loads(content)
        self.assertEqual(type, "application/tlsrpt+gzip")
        self.assertEqual(report["date-range"]["end-datetime"], "2026-01-01T23:59:59Z")
        (policy,) = report["policies"]
        self.assertEqual(policy["policy"]["policy-domain"], "sender.test")
        self.assertEqual((SUCCEEDED, FAILED), tuple(policy["summary"].values()))

    def test_dmarc(self) -> None:
        """
        An aggregate report has the namespace of RFC 9990 3.1.1.
        """
        type, content = attachment(DMARC)
        self.assertEqual(type, "application/gzip")
        root = ElementTree.fromstring(content)
        names = {"d": "urn:ietf:params:xml:ns:dmarc-2.0"}
        counts = [int(each.text or "") for each in root.iterfind(".//d:count", names)]
        self.assertEqual(counts, [40, 3, 5])


class DifferenceTests(SynchronousTestCase):
    """
    Tests for L{ReportReception}.
    """

    stored = StoredReport(
        1,
        ReceivedKind.TLS,
        "reporter.test",
        "",
        "r.1",
        0,
        0,
        ("sender.test",),
        SUCCEEDED + FAILED,
        FAILED,
        Origin(Channel.MAIL, "reporter.test", "DKIM reporter.test", NOW),
        "",
        False,
        RawFormat.JSON,
        100,
    )

    def differences(
        self, report: LabReport, stored: StoredReport | None, code: int = 250
    ) -> int:
        answer = SMTPAnswer(code, "")
        return len(ReportReception(report, answer, stored).differences)

    def test_accepted(self) -> None:
        """
        An accepted report has no reason for a refusal, and the expected counts.
        """
        self.assertEqual(self.differences(TLS, self.stored), 0)
        self.assertEqual(self.differences(TLS, self.stored, 550), 1)
        self.assertEqual(self.differences(TLS, replace(self.stored, failed=0)), 1)
        self.assertEqual(self.differences(TLS, replace(self.stored, refused="x")), 1)
        self.assertEqual(self.differences(TLS, None), 1)

    def test_refused(self) -> None:
        """
        A forged report is refused for the expected reason.
        """
        refused = replace(self.stored, refused="there is no DKIM signature of a.test")
        self.assertEqual(self.differences(FORGED, refused), 0)
        self.assertEqual(self.differences(FORGED, self.stored), 1)
        other = replace(self.stored, refused="DMARC fails")
        self.assertEqual(self.differences(FORGED, other), 1)
