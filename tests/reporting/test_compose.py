"""
Tests for L{moxtls.reporting.compose}.

Tests for L{moxtls.reporting.compose}.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.dkim.sign import NoSubmitter, Signer
from moxtls.dates import midnight
from moxtls.domain import Address, Domain
from moxtls.ledger.ledger import MemoryLedger
from moxtls.message.mime import MessageStamp, leafParts
from moxtls.queue.types import ReportKind
from moxtls.reporting.compose import (
    ReportComposer,
    ReportIdentity,
    composeAggregateReport,
    composeErrorReport,
    composeTLSReport,
)
from moxtls.reporting.types import (
    DocumentVariant,
    OutgoingReport,
    ReportDraft,
    ReportPeriod,
    ReportState,
    Suppression,
    filename,
)
from tests.reporting.support import (
    DAY,
    ED25519,
    HOSTNAME,
    RSA,
    SUBMITTER,
    TLSRPT,
    A,
    draft,
    ids,
    signatures,
)

URIS = ("mailto:tls@a.example", "https://a.example/", "mailto:tls@b.example")


class ReportComposerTests(SynchronousTestCase):
    """
    Tests for L{ReportComposer}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.suppressions = MemoryLedger().suppressions

    def writer(self, *signers: Signer) -> ReportComposer:
        identity = ReportIdentity(HOSTNAME, signers or (ED25519,), "tlsrpt")
        return ReportComposer(self.clock, self.suppressions, identity, ids())

    def write(self, about: ReportDraft, *signers: Signer) -> tuple[OutgoingReport, ...]:
        return self.successResultOf(self.writer(*signers).compose(about))

    def test_destinations(self) -> None:
        """
        There is one report for each destination: the same signed message to
        all by mail, the document itself to post.
        """
        about = draft(*URIS, document=b"\x1f\x8b...")
        reports = self.write(about)
        self.assertEqual([each.key.destination for each in reports], list(URIS))
        first, posted, last = reports
        self.assertEqual(first.message, last.message)
        self.assertIn(b"To: tls@a.example, tls@b.example\r\n", first.message)
        self.assertEqual(posted.message, about.document)
        self.assertEqual(
            [each.contentType for each in reports],
            ["message/rfc822", "application/tlsrpt+gzip", "message/rfc822"],
        )
        for each in reports:
            self.assertEqual((each.key.start, each.key.end), (
                about.span.start, about.span.end,
            ))  # fmt: skip
            self.assertEqual(each.composed, 1_800_000_000)
            self.assertIs(each.state, ReportState.COMPOSED)

    def test_senders(self) -> None:
        """
        The envelope sender encodes the destination; HTTPS destinations have none.
        """
        first, posted, last = (each.sender for each in self.write(draft(*URIS)))
        self.assertEqual(posted, "")
        for sender in (first, last):
            self.assertRegex(sender, r"^tlsrpt\+id\d@sender\.example$")
        self.assertNotEqual(first, last)

    def test_signatures(self) -> None:
        """
        The message is signed with all selectors of the domain, those for TLS reports
        included, and no others.
        """
        other = replace(RSA, domain=Domain("other.example"))
        dmarc = replace(RSA, selector="d", service="dmarc")
        (report,) = self.write(draft(URIS[0]), RSA, ED25519, TLSRPT, other, dmarc)
        self.assertEqual(signatures(report.message, RSA, ED25519, TLSRPT), [True] * 3)

    def test_unsigned(self) -> None:
        """
        Without a key nothing is sent by mail (RFC 8460 3 MUST).
        """
        other = replace(RSA, domain=Domain("other.example"))
        written = self.writer(other).compose(draft(URIS[0]))
        self.failureResultOf(written, NoSubmitter)

    def test_suppressed(self) -> None:
        """
        A suppressed destination, by its canonical form, has a report that
        isn't sent.
        """
        for destination, kind in [(URIS[0], ReportKind.TLS), (URIS[1], None)]:
            entry = Suppression(destination, kind, 1_900_000_000, 0, "why")
            self.successResultOf(self.suppressions.put(entry))
        over = Suppression(URIS[2], None, 1_700_000_000, 0)
        self.successResultOf(self.suppressions.put(over))
        found = [(each.state, each.detail) for each in self.write(draft(*URIS))]
        suppressed = (ReportState.SUPPRESSED, "why")
        self.assertEqual(found, [suppressed, suppressed, (ReportState.COMPOSED, "")])

    def test_part(self) -> None:
        """
        Reports to the same domain about the same time keep apart.
        """
        about = draft(URIS[0], period=ReportPeriod(0, DAY, A, part="ab12"))
        (report,) = self.write(about)
        self.assertEqual(report.key.part, "ab12")


class DMARCReportTests(SynchronousTestCase):
    """
    L{ReportComposer} with the features that only DMARC reports use.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.suppressions = MemoryLedger().suppressions

    def write(
        self, about: ReportDraft, *signers: Signer
    ) -> dict[str, tuple[ReportState, EmailMessage | None]]:
        """
        Each destination's state and message.
        """
        writer = ReportComposer(
            self.clock,
            self.suppressions,
            ReportIdentity(HOSTNAME, signers or (ED25519,)),
            ids(),
        )
        self.reports = self.successResultOf(writer.compose(about))
        return {
            each.key.destination: (each.state, parsed(each.message))
            for each in self.reports
        }

    def draft(
        self,
        *limits: int,
        document: bytes = bytes(3000),
        variants: tuple[DocumentVariant, ...] = (),
    ) -> ReportDraft:
        uris = [f"mailto:d{number}@a.example" for number in range(len(limits))]
        return replace(
            draft(*uris, document=document),
            kind=ReportKind.DMARC,
            limits=limits,
            variants=variants,
        )

    def test_signed(self) -> None:
        """
        A key that may only sign TLS reports (RFC 8460 3) signs no others.
        """
        self.write(self.draft(0), RSA, TLSRPT, ED25519)
        (report,) = self.reports
        self.assertEqual(signatures(report.message, RSA, ED25519), [True] * 2)
        other = ReportComposer(
            self.clock, self.suppressions, ReportIdentity(HOSTNAME, (TLSRPT,)), ids()
        )
        self.failureResultOf(other.compose(self.draft(0)), NoSubmitter)

    def test_limits(self) -> None:
        """
        A destination whose size limit is exceeded gets nothing, and isn't named to
        the others; there is no error report, as others get the report.
        """
        self.write(self.draft(0))
        size = len(self.reports[0].message)
        found = self.write(self.draft(0, size - 1, 10 * size))
        states = [state for state, _ in found.values()]
        suppressed, composed = ReportState.SUPPRESSED, ReportState.COMPOSED
        self.assertEqual(states, [composed, suppressed, composed])
        first, second, third = self.reports
        self.assertEqual(first.message, third.message)
        self.assertIn(b"To: d0@a.example, d2@a.example\r\n", first.message)
        self.assertEqual(second.message, b"")
        self.assertIn(f"limit of {size - 1}", second.detail)

    def test_exactly(self) -> None:
        """
        A message of exactly the size limit is sent.
        """
        self.write(self.draft(1_000_000))
        size = len(self.reports[0].message)
        ((state, message),) = self.write(self.draft(size)).values()
        self.assertIs(state, ReportState.COMPOSED)
        assert message is not None
        self.assertEqual(message.get_content_type(), "multipart/mixed")

    def test_tooLargeForAll(self) -> None:
        """
        A report too large for all destinations is replaced by an error report to each
        (RFC 7489 7.2.2), signed the same way.
        """
        found = self.write(self.draft(1, 2000))
        for state, message in found.values():
            self.assertIs(state, ReportState.COMPOSED)
            assert message is not None
            words = message.get_content()
            self.assertIn("Report-Domain: a.example\r\n", words)
            self.assertIn(
                "Submitting-URI: mailto:d0@a.example, mailto:d1@a.example", words
            )
        for report in self.reports:
            self.assertEqual(signatures(report.message, ED25519), [True])
            self.assertIn("error report", report.detail)

    def test_suppressed(self) -> None:
        """
        Suppressed destinations get no error report.
        """
        entry = Suppression("mailto:d0@a.example", ReportKind.DMARC, 100, 0, "why")
        self.successResultOf(self.suppressions.put(entry))
        found = self.write(self.draft(1, 1))
        states = [state for state, _ in found.values()]
        self.assertEqual(states, [ReportState.SUPPRESSED, ReportState.COMPOSED])

    def test_onlySuppressed(self) -> None:
        """
        There is no error report if the report fits a destination that is suppressed.
        """
        entry = Suppression("mailto:d0@a.example", ReportKind.DMARC, 100, 0, "why")
        self.successResultOf(self.suppressions.put(entry))
        found = self.write(self.draft(0, 1))
        states = [state for state, _ in found.values()]
        self.assertEqual(states, [ReportState.SUPPRESSED] * 2)

    def test_variants(self) -> None:
        """
        A destination with another format gets that variant, in a message of its own,
        under the same name.
        """
        uri = "mailto:d1@a.example"
        variants = (DocumentVariant(b"other", frozenset({uri})),)
        found = self.write(self.draft(0, 0, 0, variants=variants))
        first, second, third = self.reports
        self.assertEqual(first.message, third.message)
        self.assertEqual(first.reportID, second.reportID)
        names = set()
        for to, (_, message) in found.items():
            assert message is not None
            attachment = list(message.iter_parts())[1]
            names.add(attachment.get_filename())
            expected = b"other" if to == uri else bytes(3000)
            self.assertEqual(attachment.get_content(), expected)
        self.assertEqual(names, {self.draft(0).filename})
        self.assertIn(b"To: d1@a.example\r\n", second.message)

    def test_tooLargeInPart(self) -> None:
        """
        If all destinations of one variant are too small but one of another isn't,
        there is no error report.
        """
        variants = (DocumentVariant(bytes(9), frozenset({"mailto:d1@a.example"})),)
        found = self.write(self.draft(2000, 0, variants=variants))
        states = [state for state, _ in found.values()]
        self.assertEqual(states, [ReportState.SUPPRESSED, ReportState.COMPOSED])


def parsed(message: bytes) -> EmailMessage | None:
    found = message_from_bytes(message, policy=SMTP)
    assert isinstance(found, EmailMessage)
    return found if message else None


STAMP = MessageStamp(HOSTNAME, "token", midnight(DAY) + 86400 + 300)
TO = [Address.parse("tls@a.example"), Address.parse('"o o"@b.example')]
DOCUMENT = gzip.compress(b"{}" * 100, mtime=0)


class ComposeTLSTests(SynchronousTestCase):
    """
    Tests for L{composeTLSReport}: RFC 8460 5.3.
    """

    def parsed(self, message: bytes) -> EmailMessage:
        found = message_from_bytes(message, policy=SMTP)
        assert isinstance(found, EmailMessage)
        self.assertEqual(found.defects, [])
        return found

    def test_header(self) -> None:
        """
        All fields; the subject is that of RFC 8460 5.3.
        """
        message = self.parsed(composeTLSReport(draft(), TO, STAMP))
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
        A text part, then the unchanged report.
        """
        composed = composeTLSReport(draft(document=DOCUMENT), TO, STAMP)
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
        ASCII, CRLF, and lines of valid length (RFC 5322 2.1.1), whatever the length
        of names and the number of recipients.
        """
        long = Domain(".".join(["a" * 60] * 4))
        period = ReportPeriod(0, DAY, long)
        wide = replace(
            draft(period=period, document=DOCUMENT),
            submitter=long,
            filename=filename(ReportKind.TLS, long, long, draft().span, "id1"),
        )
        recipients = [Address("x" * 64, long)] * 10
        message = composeTLSReport(wide, recipients, STAMP)
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
        header = composeTLSReport(draft(), recipients, STAMP).partition(b"\r\n\r\n")[0]
        for line in header.split(b"\r\n"):
            self.assertLessEqual(len(line), 78)

    def test_submitterAgrees(self) -> None:
        """
        The submitter is the domain of the contact (RFC 8460 5.3 MUST).
        """
        message = self.parsed(composeTLSReport(draft(), TO, STAMP))
        self.assertEqual(message["TLS-Report-Submitter"], str(SUBMITTER))
        self.assertEqual(message["From"].addresses[0].domain, str(SUBMITTER))


class ComposeAggregateReportTests(SynchronousTestCase):
    """
    Tests for L{composeAggregateReport} and L{composeErrorReport} (RFC 9990 3.5.2,
    RFC 7489 7.2.2).
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
        The subject of RFC 9990 3.5.2, and no fields of TLS reports; TLS requirements
        are those of other mail.
        """
        message = self.parsed(composeAggregateReport(self.draft, TO, STAMP))
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
        A text part, with the period in UTC, then the unchanged report.
        """
        composed = composeAggregateReport(self.draft, TO, STAMP)
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
        composed = composeErrorReport(self.draft, 12345, TO, STAMP)
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
