"""
Tests for L{moxtls.reporting.letters}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.queue.values import ReportKind
from moxtls.reporting.letters import Letterhead, LetterWriter
from moxtls.reporting.signing import NoSubmitter, Signer
from moxtls.reporting.values import (
    Draft,
    OutgoingReport,
    ReportState,
    Suppression,
)
from moxtls.store.memory import MemorySuppressions
from tests.reporting.support import (
    ED25519,
    HOSTNAME,
    RSA,
    TLSRPT,
    draft,
    ids,
    signatures,
)

URIS = ("mailto:tls@a.example", "https://a.example/", "mailto:tls@b.example")


class LetterWriterTests(SynchronousTestCase):
    """
    Tests for L{LetterWriter}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.suppressions = MemorySuppressions()

    def writer(self, *signers: Signer) -> LetterWriter:
        letterhead = Letterhead(HOSTNAME, signers or (ED25519,), "tlsrpt")
        return LetterWriter(self.clock, self.suppressions, letterhead, ids())

    def write(self, about: Draft, *signers: Signer) -> tuple[OutgoingReport, ...]:
        return self.successResultOf(self.writer(*signers).write(about))

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
        The envelope sender leads back to the destination; nobody answers to
        a URI.
        """
        first, posted, last = (each.sender for each in self.write(draft(*URIS)))
        self.assertEqual(posted, "")
        for sender in (first, last):
            self.assertRegex(sender, r"^tlsrpt\+id\d@sender\.example$")
        self.assertNotEqual(first, last)

    def test_signatures(self) -> None:
        """
        It is signed with all selectors of the domain, those for TLS reports
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
        written = self.writer(other).write(draft(URIS[0]))
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
