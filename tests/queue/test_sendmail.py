"""
Tests for L{moxtls.queue.sendmail}.
"""

from __future__ import annotations

from email import message_from_bytes

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Address
from moxtls.queue.sendmail import (
    SendmailError,
    SendmailRequest,
    SubmitterInfo,
    composeSubmission,
    parseArguments,
)
from moxtls.queue.types import Envelope
from moxtls.smtp.server.state import MAX_HEADER_FIELDS

ORIGIN = SubmitterInfo("root", "here.example", 1_800_000_000, "id1@here.example")


def composed(data: bytes, *arguments: str) -> tuple[Envelope, bytes]:
    """
    The envelope and message that C{sendmail} submits with these arguments.
    """
    envelope, chunks = composeSubmission(parseArguments(arguments), data, ORIGIN)
    return envelope, b"".join(chunks)


class ArgumentTests(SynchronousTestCase):
    """
    Tests for L{parseArguments}.
    """

    def test_options(self) -> None:
        """
        Common sendmail options have their usual meaning, with the value attached or in
        the next argument.
        """
        for arguments, request in (
            ([], SendmailRequest()),
            (["a@b.example"], SendmailRequest(("a@b.example",))),
            (["a@b.example, c@d.example", "e"],
             SendmailRequest(("a@b.example", "c@d.example", "e"))),
            (["-t", "-i"], SendmailRequest(fromHeader=True, dotEnds=False)),
            (["-oi", "-bm", "-v", "-odi", "-o", "em"], SendmailRequest(dotEnds=False)),
            (["-f", "x@y.example"], SendmailRequest(sender="x@y.example")),
            (["-fx@y.example"], SendmailRequest(sender="x@y.example")),
            (["-r", "<x@y.example>"], SendmailRequest(sender="x@y.example")),
            (["-f", "<>"], SendmailRequest(sender="")),
            (["-f", ""], SendmailRequest(sender="")),
            (["-F", "A Name", "a"], SendmailRequest(("a",), name="A Name")),
            (["-N", "never", "-R", "hdrs", "-B8BITMIME", "a"], SendmailRequest(("a",))),
            (["--", "-t"], SendmailRequest(("-t",))),
        ):  # fmt: skip
            self.assertEqual(parseArguments(arguments), request, arguments)

    def test_refused(self) -> None:
        """
        Unsupported or incomplete options raise L{SendmailError} with a one-line
        message.
        """
        for arguments, said in (
            (["-bs"], "'-bs' is not supported"),
            (["-q30m"], "'-q30m' is not supported"),
            (["-Z"], "unknown option '-Z'"),
            (["-f"], "'-f' needs a value"),
            (["-o"], "'-o' needs a value"),
            (["--help"], "unknown option '--help'"),
        ):
            error = self.assertRaises(SendmailError, parseArguments, arguments)
            self.assertEqual(str(error), said)


class ComposeTests(SynchronousTestCase):
    """
    Tests for L{composeSubmission}.
    """

    def test_completed(self) -> None:
        """
        Missing fields are added, and line ends become CRLF.  RFC 5322 3.6
        """
        envelope, message = composed(b"Subject: a\n\nbody\n", "you@there.example")
        self.assertEqual(
            envelope, Envelope("root@here.example", ("you@there.example",))
        )
        self.assertEqual(
            message,
            b"From: root@here.example\r\n"
            b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n"
            b"Message-ID: <id1@here.example>\r\n"
            b"Subject: a\r\n\r\nbody\r\n",
        )

    def test_presentFields(self) -> None:
        """
        Fields that are present are kept.
        """
        data = b"from: A <a@b.example>\nDATE: then\nmessage-id: <x>\n\n"
        _, message = composed(data, "-F", "Other", "you@there.example")
        self.assertEqual(message, data.replace(b"\n", b"\r\n"))

    def test_name(self) -> None:
        """
        The full name of C{-F} is quoted in From and can't add fields.
        """
        _, message = composed(b"\n", "-F", 'A "B"\r\nBcc: x@y.example', "you")
        self.assertEqual(
            message_from_bytes(message)["From"],
            '"A \\"B\\"Bcc: x@y.example" <root@here.example>',
        )

    def test_fromHeader(self) -> None:
        """
        With C{-t} the recipients are those of To, Cc and Bcc, and Bcc is removed.
        """
        envelope, message = composed(
            b"To: A <a@b.example>,\n c@d.example\nCc: e@f.example, a@b.example\n"
            b"Bcc: g@h.example,\n\tI <i@j.example>\nSubject: s\n\nb\n",
            "-t",
        )
        self.assertEqual(
            envelope.recipients,
            ("a@b.example", "c@d.example", "e@f.example", "g@h.example",
             "i@j.example"),
        )  # fmt: skip
        self.assertNotIn(b"g@h.example", message)
        self.assertNotIn(b"i@j.example", message)
        self.assertIn(b"To: A <a@b.example>,\r\n c@d.example\r\n", message)

    def test_resent(self) -> None:
        """
        With C{-t} the Resent fields, if any, have the recipients.  RFC 5322 3.6.6
        """
        envelope, _ = composed(b"To: a@b.example\nResent-To: c@d.example\n\n", "-t")
        self.assertEqual(envelope.recipients, ("c@d.example",))

    def test_notFromHeader(self) -> None:
        """
        Without C{-t} the recipients in the header are ignored and Bcc is kept.
        """
        envelope, message = composed(b"Bcc: a@b.example\n\n", "c@d.example")
        self.assertEqual(envelope.recipients, ("c@d.example",))
        self.assertIn(b"Bcc: a@b.example", message)

    def test_dot(self) -> None:
        """
        A line with a single dot ends the message, except with C{-i}.
        """
        data = b"A: b\n\none\n.\ntwo\n"
        self.assertTrue(composed(data, "you")[1].endswith(b"\r\n\r\none\r\n"))
        self.assertTrue(composed(data, "-i", "you")[1].endswith(b".\r\ntwo\r\n"))

    def test_noHeader(self) -> None:
        """
        A message without a header is all body; the first line of an mbox is removed.
        """
        for data in (b"hello there\nagain\n", b"From x Mon\n\nhello there\nagain\n"):
            _, message = composed(data, "you")
            header, _, body = message.partition(b"\r\n\r\n")
            self.assertEqual(body, b"hello there\r\nagain\r\n")
            self.assertIn(b"Message-ID:", header)

    def test_local(self) -> None:
        """
        A local part without a domain gets the domain of the host.
        """
        envelope, _ = composed(b"\n", "-f", "cron", "root")
        self.assertEqual(
            envelope, Envelope("cron@here.example", ("root@here.example",))
        )

    def test_eightBit(self) -> None:
        """
        The envelope shows the need of 8BITMIME (RFC 6152) or SMTPUTF8 (RFC 6531).
        """
        body, _ = composed("A: b\n\nä\n".encode(), "you")
        header, _ = composed("A: ä\n\n\n".encode(), "you")
        address, _ = composed(b"\n", "jörg@there.example")
        self.assertEqual((body.eightBit, body.smtputf8), (True, False))
        self.assertEqual((header.eightBit, header.smtputf8), (True, True))
        self.assertEqual(address.smtputf8, True)
        self.assertEqual(address.recipients, ("jörg@there.example",))

    def test_response(self) -> None:
        """
        Automatic responses (RFC 3834 5) are recognized.
        """
        for field, wanted in (
            (b"Auto-Submitted: auto-replied", True),
            (b"auto-submitted:\n auto-replied", True),
            (b"Auto-Submitted: auto-generated", False),
            (b"X-Auto-Submitted: auto-replied", False),
        ):
            envelope, _ = composed(field + b"\n\n", "you")
            self.assertEqual(envelope.response, wanted, field)

    def test_tlsRequired(self) -> None:
        """
        C{TLS-Required: No} requests delivery even if TLS fails.  RFC 8689 3
        """
        for field, wanted in (
            (b"TLS-Required: No", False),
            (b"tls-required:\n no", False),
            (b"TLS-Required: Yes", None),
            (b"X-TLS-Required: No", None),
        ):
            envelope, _ = composed(field + b"\n\n", "you")
            self.assertEqual(envelope.requireTLS, wanted, field)

    def test_invalidRecipients(self) -> None:
        """
        Messages with invalid addresses, or without recipients, are not submitted.
        """
        for arguments in ([], ["a b@c d"], ["-f", "x y@z", "you"], ["you@-"]):
            self.assertRaises(SendmailError, composed, b"\n", *arguments)

    def test_headerLimits(self) -> None:
        """
        A header is subject to the same limits as in the SMTP server.
        """
        for header, said in (
            (b"A: b\n" * (MAX_HEADER_FIELDS - 3), ""),
            (b"A: b\n" * MAX_HEADER_FIELDS, "Header has too many fields"),
            (b"A: " + b" b\n" * 100_000, "Header is larger than this server takes"),
        ):
            if said:
                data = header + b"\n"
                error = self.assertRaises(SendmailError, composed, data, "you")
                self.assertEqual(str(error), said)
            else:
                composed(header + b"\n", "you")

    @settings(max_examples=100, deadline=None)
    @given(st.binary(), st.booleans())
    def test_anything(self, data: bytes, ignoreDots: bool) -> None:
        """
        Every composed message has CRLF line ends only and all required fields, and its
        recipients are addresses.
        """
        flags = ["-i"] if ignoreDots else []
        try:
            envelope, message = composed(b"To: " + data, "-t", "you", *flags)
        except SendmailError:
            envelope, message = composed(data, "you", *flags)
        self.assertEqual(message.count(b"\n"), message.count(b"\r\n"))
        self.assertEqual(message.count(b"\r"), message.count(b"\r\n"))
        header = message.partition(b"\r\n\r\n")[0].lower()
        for name in (b"from:", b"date:", b"message-id:"):
            self.assertIn(name, header)
        for recipient in envelope.recipients:
            Address.parse(recipient)
