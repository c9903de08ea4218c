"""
Tests for L{moxtls.reporting.compose}.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import midnight
from moxtls.domain import Address, Domain
from moxtls.message.mime import MessageStamp, leafParts
from moxtls.queue.types import ReportKind
from moxtls.reporting.compose import composeDMARC, composeTLS, composeTooLarge
from moxtls.reporting.identity import filename
from moxtls.reporting.types import ReportPeriod
from tests.reporting.support import DAY, HOSTNAME, SUBMITTER, draft

STAMP = MessageStamp(HOSTNAME, "token", midnight(DAY) + 86400 + 300)
TO = [Address.parse("tls@a.example"), Address.parse('"o o"@b.example')]
DOCUMENT = gzip.compress(b"{}" * 100, mtime=0)


class ComposeTLSTests(SynchronousTestCase):
    """
    Tests for L{composeTLS}: RFC 8460 5.3.
    """

    def parsed(self, message: bytes) -> EmailMessage:
        found = message_from_bytes(message, policy=SMTP)
        assert isinstance(found, EmailMessage)
        self.assertEqual(found.defects, [])
        return found

    def test_header(self) -> None:
        """
        All fields; the subject has the words of RFC 8460 5.3.
        """
        message = self.parsed(composeTLS(draft(), TO, STAMP))
        expected = {
            "From": "postmaster@sender.example",
            "To": 'tls@a.example, "o o"@b.example',
            "Subject": "Report Domain: a.example Submitter: sender.example "
            "Report-ID: <id1@sender.example>",
            "Date": "Wed, 25 Nov 2026 00:05:00 +0000",
            "Message-Id": "<token@mail.sender.example>",
            "TLS-Report-Domain": "a.example",
            "TLS-Report-Submitter": "sender.example",
            "TLS-Required": "No",
            "MIME-Version": "1.0",
        }
        for name, value in expected.items():
            self.assertEqual(message.get_all(name), [value])
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message["Content-Type"].params["report-type"], "tlsrpt")

    def test_parts(self) -> None:
        """
        Words for people, then the report as it is.
        """
        composed = composeTLS(draft(document=DOCUMENT), TO, STAMP)
        text, attachment = self.parsed(composed).iter_parts()
        self.assertEqual(text.get_content_type(), "text/plain")
        words = text.get_content()
        for line in [
            "Policy Domain: a.example",
            "Submitter: sender.example",
            "Report-ID: id1",
            "Period: 2026-11-24 00:00:00 - 2026-11-25 00:00:00 UTC",
        ]:
            self.assertIn(line, words.splitlines())
        self.assertEqual(attachment.get_content_type(), "application/tlsrpt+gzip")
        self.assertEqual(attachment.get_filename(), draft().filename)
        self.assertEqual(attachment.get_content_disposition(), "attachment")
        self.assertEqual(attachment.get_content(), DOCUMENT)
        self.assertEqual(list(leafParts(composed))[1].content, DOCUMENT)

    def test_lines(self) -> None:
        """
        ASCII, CRLF, and lines that anybody takes (RFC 5322 2.1.1), whatever
        the length of names and the number of recipients.
        """
        long = Domain(".".join(["a" * 60] * 4))
        subject = ReportPeriod(0, DAY, long)
        wide = replace(
            draft(subject=subject, document=DOCUMENT),
            submitter=long,
            filename=filename(ReportKind.TLS, long, long, draft().span, "id1"),
        )
        recipients = [Address("x" * 64, long)] * 10
        message = composeTLS(wide, recipients, STAMP)
        self.assertTrue(message.isascii())
        self.assertTrue(message.endswith(b"\r\n"))
        lines = message.split(b"\r\n")
        for line in lines:
            self.assertNotIn(b"\n", line)
            self.assertNotIn(b"\r", line)
            self.assertLessEqual(len(line), 998)
        header = self.parsed(message)
        self.assertEqual(len(header["To"].addresses), 10)
        self.assertIn(f"Submitter: {long} Report-ID:", header["Subject"])

    def test_folded(self) -> None:
        """
        Fields of ordinary length keep within 78 columns.
        """
        recipients = [Address.parse(f"tls{each}@a.example") for each in range(10)]
        header = composeTLS(draft(), recipients, STAMP).partition(b"\r\n\r\n")[0]
        for line in header.split(b"\r\n"):
            self.assertLessEqual(len(line), 78)

    def test_submitterAgrees(self) -> None:
        """
        The submitter is the domain of the contact (RFC 8460 5.3 MUST).
        """
        message = self.parsed(composeTLS(draft(), TO, STAMP))
        self.assertEqual(message["TLS-Report-Submitter"], str(SUBMITTER))
        self.assertEqual(message["From"].addresses[0].domain, str(SUBMITTER))


class ComposeDMARCTests(SynchronousTestCase):
    """
    Tests for L{composeDMARC} and L{composeTooLarge}: RFC 9990 3.5.2, RFC 7489
    7.2.2.
    """

    def setUp(self) -> None:
        self.draft = replace(
            draft("mailto:tls@a.example", "mailto:o%20o@b.example", document=DOCUMENT),
            kind=ReportKind.DMARC,
            filename="sender.example!a.example!1795478400!1795564799.xml.gz",
        )

    def parsed(self, message: bytes) -> EmailMessage:
        found = message_from_bytes(message, policy=SMTP)
        assert isinstance(found, EmailMessage)
        self.assertEqual(found.defects, [])
        return found

    def test_header(self) -> None:
        """
        The subject of RFC 9990 3.5.2; nothing that only TLS reports have, as
        it is sent as safely as any mail.
        """
        message = self.parsed(composeDMARC(self.draft, TO, STAMP))
        expected = {
            "From": "postmaster@sender.example",
            "To": 'tls@a.example, "o o"@b.example',
            "Subject": "Report Domain: a.example Submitter: sender.example "
            "Report-ID: <id1>",
            "Date": "Wed, 25 Nov 2026 00:05:00 +0000",
            "Auto-Submitted": "auto-generated",
        }
        for name, value in expected.items():
            self.assertEqual(message.get_all(name), [value])
        self.assertEqual(message.get_content_type(), "multipart/mixed")
        for name in ("TLS-Required", "TLS-Report-Domain", "TLS-Report-Submitter"):
            self.assertIsNone(message[name])

    def test_parts(self) -> None:
        """
        Words for people, with the period in UTC, then the report as it is.
        """
        composed = composeDMARC(self.draft, TO, STAMP)
        text, attachment = self.parsed(composed).iter_parts()
        self.assertEqual(text.get_content_type(), "text/plain")
        words = text.get_content()
        self.assertIn("_dmarc.a.example asks for reports", words)
        period = "Period: 2026-11-24 00:00:00 - 2026-11-25 00:00:00 UTC"
        self.assertIn(period, words.splitlines())
        self.assertEqual(attachment.get_content_type(), "application/gzip")
        self.assertEqual(attachment.get_filename(), self.draft.filename)
        self.assertEqual(attachment.get_content_disposition(), "attachment")
        self.assertEqual(attachment.get_content(), DOCUMENT)

    def test_tooLarge(self) -> None:
        """
        All fields of RFC 7489 7.2.2, and no report.
        """
        composed = composeTooLarge(self.draft, 12345, TO, STAMP)
        message = self.parsed(composed)
        self.assertEqual(message.get_content_type(), "text/plain")
        self.assertEqual(
            message["Subject"], "DMARC aggregate reporting error report for a.example"
        )
        self.assertEqual(message["To"], 'tls@a.example, "o o"@b.example')
        self.assertEqual(
            message.get_content().splitlines(),
            [
                "Report-Date: Wed, 25 Nov 2026 00:05:00 +0000",
                "Report-Domain: a.example",
                "Report-ID: id1",
                "Report-Size: 12345",
                "Submitter: sender.example",
                "Submitting-URI: mailto:tls@a.example, mailto:o%20o@b.example",
            ],
        )
        self.assertNotIn(b"gzip", composed)
