"""
Tests for L{moxtls.queue.dsn}.
"""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.queue.dsn import DSNMessage, composeDSN, dsnEnvelope, headerOf
from moxtls.queue.types import (
    DeliveryStatus,
    Envelope,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Result,
)

HEADER = b"Subject: hello\r\nFrom: us@here.example\r\n"
NOW = 1_800_000_000.0


def failed(recipient: str, **more: object) -> QueuedRecipient:
    """
    A recipient that failed permanently as unknown.
    """
    result = Result(
        "m1",
        recipient,
        DeliveryStatus.PERMANENT,
        "5.1.1",
        550,
        "no such user",
        "mx.there.example",
    )
    return QueuedRecipient(
        recipient,
        "there.example",
        RecipientState.FAILED,
        1,
        NOW,
        replace(result, **more),  # type: ignore[arg-type]
    )


def notice(*recipients: QueuedRecipient, sender: str = "us@here.example") -> DSNMessage:
    """
    A failure DSN for C{sender} about C{recipients}.
    """
    envelope = Envelope(sender, tuple(each.recipient for each in recipients))
    message = QueuedMessage(
        "m1", envelope, 100, NOW - 60, False, Path("m1"), recipients
    )
    return DSNMessage("n1", "mx.here.example", NOW, False, message, recipients, HEADER)


def parts(dsn: bytes) -> list[Message]:
    """
    The parts of a DSN.
    """
    message = message_from_bytes(dsn)
    assert message.is_multipart()
    return [part for part in message.get_payload() if isinstance(part, Message)]


def groups(dsn: bytes) -> list[Message]:
    """
    The field groups of the C{message/delivery-status} part.
    """
    status = parts(dsn)[1]
    assert status.get_content_type() == "message/delivery-status"
    return [each for each in status.get_payload() if isinstance(each, Message)]


class ComposeTests(SynchronousTestCase):
    """
    Tests for L{composeDSN}.
    """

    def test_header(self) -> None:
        """
        A DSN is a C{multipart/report} (RFC 3464 2, RFC 6522 3) from the postmaster,
        marked as automatic (RFC 3834 5).
        """
        message = message_from_bytes(composeDSN(notice(failed("you@there.example"))))
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message.get_param("report-type"), "delivery-status")
        self.assertEqual(message["From"], "Mail delivery <postmaster@mx.here.example>")
        self.assertEqual(message["To"], "us@here.example")
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        self.assertEqual(message["Message-ID"], "<n1@mx.here.example>")
        self.assertEqual(message["Date"], "Fri, 15 Jan 2027 08:00:00 +0000")
        self.assertEqual(
            [part.get_content_type() for part in parts(message.as_bytes())],
            ["text/plain", "message/delivery-status", "text/rfc822-headers"],
        )

    def test_fields(self) -> None:
        """
        The C{message/delivery-status} part has a field group for the message and one
        for each recipient.  RFC 3464 2.2, 2.3
        """
        top, first, second = groups(
            composeDSN(
                notice(
                    failed("you@there.example"),
                    failed("me@there.example", code=0, host="", text="no route"),
                )
            )
        )
        self.assertEqual(top["Reporting-MTA"], "dns; mx.here.example")
        self.assertEqual(top["Arrival-Date"], "Fri, 15 Jan 2027 07:59:00 +0000")
        self.assertEqual(
            first.items(),
            [
                ("Final-Recipient", "rfc822; you@there.example"),
                ("Action", "failed"),
                ("Status", "5.1.1"),
                ("Remote-MTA", "dns; mx.there.example"),
                ("Diagnostic-Code", "smtp; 550 5.1.1 no such user"),
                ("Last-Attempt-Date", "Fri, 15 Jan 2027 08:00:00 +0000"),
            ],
        )
        # There was no SMTP reply.
        self.assertEqual(second["Diagnostic-Code"], "x-moxtls; no route")
        self.assertNotIn("Remote-MTA", second)

    def test_emptyText(self) -> None:
        """
        Diagnostic-Code has a text of ours if the result has none.  RFC 3464 2.3.6
        """
        silent = failed("you@there.example", code=0, host="", text="\r\n")
        fields = groups(composeDSN(notice(silent)))[1]
        self.assertEqual(fields["Diagnostic-Code"], "x-moxtls; no reason was given")

    def test_reply(self) -> None:
        """
        Diagnostic-Code has the codes of a reply once, whether or not they are in the
        text; Remote-MTA accepts any host name (RFC 3464 2.3.5).
        """
        for text, reply in (
            ("550 5.1.1 who?", "550 5.1.1 who?"),
            ("550 who?", "550 who?"),
            ("550", "550"),
            ("5500 who?", "550 5.1.1 5500 who?"),
            ("who?", "550 5.1.1 who?"),
            ("", "550 5.1.1"),
        ):
            each = failed("you@there.example", text=text, host="mx_1.there.example")
            fields = groups(composeDSN(notice(each)))[1]
            self.assertEqual(fields["Diagnostic-Code"], f"smtp; {reply}")
            self.assertEqual(fields["Remote-MTA"], "dns; mx_1.there.example")

    def test_delayed(self) -> None:
        """
        A delay DSN has the action C{delayed} and a text that says that nothing has
        failed.  RFC 3464 2.3.3
        """
        late = failed("you@there.example", status="4.2.1", code=450)
        dsn = composeDSN(replace(notice(late), delayed=True))
        self.assertEqual(groups(dsn)[1]["Action"], "delayed")
        human = str(parts(dsn)[0].get_payload())
        self.assertIn("you need not send it again", human)
        self.assertIn("mx.there.example said: 450 4.2.1 no such user", human)

    def test_originalHeader(self) -> None:
        """
        The header of the original is returned unchanged.
        """
        dsn = composeDSN(notice(failed("you@there.example")))
        self.assertIn(b"\r\n\r\n" + HEADER + b"\r\n--=_n1--\r\n", dsn)

    def test_noOriginalHeader(self) -> None:
        """
        A DSN without the header of the original has no third part.  RFC 6522 3
        """
        dsn = composeDSN(replace(notice(failed("a@b.example")), header=b""))
        self.assertEqual(len(parts(dsn)), 2)

    def test_utf8Header(self) -> None:
        """
        An original header beyond ASCII is returned as C{message/global-headers},
        encoded in ASCII.  RFC 6533 6
        """
        header = "Subject: grüße\r\n".encode() + b"X: \xff\r\n"
        dsn = composeDSN(replace(notice(failed("a@b.example")), header=header))
        self.assertTrue(dsn.isascii())
        part = parts(dsn)[2]
        self.assertEqual(part.get_content_type(), "message/global-headers")
        self.assertEqual(part["Content-Transfer-Encoding"], "quoted-printable")
        self.assertIn(b"Subject: gr=C3=BC=C3=9Fe\r\n", dsn)

    def test_utf8Recipient(self) -> None:
        """
        A recipient beyond ASCII is encoded in ASCII.  RFC 6533 3
        """
        dsn = composeDSN(notice(failed("gr\u00fc\u00dfe+x@there.example")))
        self.assertTrue(dsn.isascii())
        self.assertEqual(
            groups(dsn)[1]["Final-Recipient"],
            "utf-8; gr\\x{FC}\\x{DF}e\\x{2B}x@there.example",
        )
        human = parts(dsn)[0].get_payload(decode=True)
        assert isinstance(human, bytes)
        self.assertIn("grüße+x@there.example", human.decode())

    @settings(max_examples=100, deadline=None)
    @given(st.text(), st.text(), st.text(), st.integers(0, 999))
    def test_hostileReply(self, text: str, host: str, status: str, code: int) -> None:
        """
        No reply of a host can add a field or part, break a line end or make a line too
        long.  RFC 5322 2.1.1
        """
        hostile = failed(
            "you@there.example", text=text, host=host, status=status, code=code
        )
        dsn = composeDSN(notice(hostile))
        self.assertEqual(len(parts(dsn)), 3)
        _, group = groups(dsn)
        self.assertEqual(
            set(group.keys())
            - {"Remote-MTA"},
            {"Final-Recipient", "Action", "Status", "Diagnostic-Code",
             "Last-Attempt-Date"},
        )  # fmt: skip
        self.assertLessEqual(len(group.keys()), 6)
        self.assertRegex(group["Status"], r"\A[45]\.\d{1,3}\.\d{1,3}\Z")
        self.checkLines(dsn)

    def checkLines(self, dsn: bytes) -> None:
        self.assertEqual(dsn.count(b"\n"), dsn.count(b"\r\n"))
        self.assertEqual(dsn.count(b"\r"), dsn.count(b"\r\n"))
        self.assertTrue(dsn.isascii())
        self.assertLessEqual(max(map(len, dsn.split(b"\r\n"))), 998)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(), st.text(max_size=200))
    def test_hostileOriginal(self, header: bytes, recipient: str) -> None:
        """
        No original header or recipient can add a part or field group, break a line end
        or make a line too long.
        """
        about = replace(notice(failed(recipient)), header=header + b"x" * 2000)
        dsn = composeDSN(about)
        self.assertEqual(len(parts(dsn)), 3)
        self.assertEqual(len(groups(dsn)), 2)
        self.checkLines(dsn)

    def test_injection(self) -> None:
        """
        Line ends in a reply become spaces.
        """
        hostile = failed("a@b.example", text="no\r\n\r\nBcc: x@y.example\r\n--=_n1--")
        dsn = composeDSN(notice(hostile))
        self.assertEqual(
            groups(dsn)[1]["Diagnostic-Code"],
            "smtp; 550 5.1.1 no Bcc: x@y.example --=_n1--",
        )
        self.assertEqual(len(parts(dsn)), 3)


def envelopeFor(message: QueuedMessage) -> Envelope | None:
    """
    The envelope of a DSN about all recipients of C{message}.
    """
    return dsnEnvelope(message, message.recipients, "mx.here.example")


class EnvelopeTests(SynchronousTestCase):
    """
    Tests for L{dsnEnvelope}.
    """

    def test_nullReversePath(self) -> None:
        """
        DSNs are sent from the null reverse-path to the sender.  RFC 3464 2
        """
        envelope = envelopeFor(notice(failed("a@b.example")).message)
        self.assertEqual(envelope, Envelope("", ("us@here.example",)))

    def test_requireTLS(self) -> None:
        """
        A DSN keeps REQUIRETLS, but not C{TLS-Required: No}.  RFC 8689 5
        """
        message = notice(failed("a@b.example")).message
        for original, own in ((True, True), (False, None), (None, None)):
            changed = replace(message.envelope, requireTLS=original)
            envelope = envelopeFor(replace(message, envelope=changed))
            assert envelope is not None
            self.assertEqual(envelope.requireTLS, own)

    def test_utf8Sender(self) -> None:
        """
        A DSN to a sender beyond ASCII needs SMTPUTF8.  RFC 6531 3.2
        """
        about = notice(failed("a@b.example"), sender="jörg@here.example")
        envelope = envelopeFor(about.message)
        assert envelope is not None
        self.assertTrue(envelope.smtputf8 and envelope.eightBit)
        self.assertIn("To: jörg@here.example\r\n".encode(), composeDSN(about))

    def test_invalidSender(self) -> None:
        """
        A DSN for a null or invalid sender goes to the postmaster; if delivery to the
        postmaster failed, there is none.  RFC 5321 6.1
        """
        postmaster = "postmaster@mx.here.example"
        for sender in ("", "nobody", "a@b\r\nX: y"):
            about = notice(failed("a@b.example"), sender=sender)
            self.assertEqual(envelopeFor(about.message), Envelope("", (postmaster,)))
            self.assertIn(f"\r\nTo: {postmaster}\r\n".encode(), composeDSN(about))
            about = notice(failed(postmaster.title()), sender=sender)
            self.assertIsNone(envelopeFor(about.message))

    def test_postmasterOriginal(self) -> None:
        """
        A DSN to the postmaster contains the whole original if that consists of valid
        lines, and its header otherwise.
        """
        for original, kind, encoding in [
            (b"Subject: x\r\n\r\nbody\r\n", "message/rfc822", "7bit"),
            ("Subject: x\r\n\r\nbödy\r\n".encode(), "message/rfc822", "8bit"),
            ("Subject: ö\r\n\r\nbody\r\n".encode(), "message/global", "8bit"),
        ]:
            about = notice(failed("a@b.example"), sender="")
            written = composeDSN(replace(about, original=original))
            self.assertIn(original, written)
            fields = f"Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            self.assertIn(fields.encode(), written)
        about = replace(about, original=b"X: y\r\n\r\na\rb", header=b"X: y\r\n")
        self.assertIn(b"text/rfc822-headers", composeDSN(about))


class HeaderTests(SynchronousTestCase):
    """
    Tests for L{headerOf}.
    """

    def test_whole(self) -> None:
        """
        The header ends before the first empty line.
        """
        self.assertEqual(headerOf(b"A: b\r\nC: d\r\n\r\nE: f\r\n"), b"A: b\r\nC: d\r\n")
        self.assertEqual(headerOf(b"\r\nbody"), b"")
        self.assertEqual(headerOf(b""), b"")

    def test_truncated(self) -> None:
        """
        A header that is too long is truncated after a whole line.
        """
        found = headerOf(b"A: b\r\n" * 100_000)
        self.assertLessEqual(len(found), 64 * 1024)
        self.assertTrue(found.endswith(b"A: b\r\n"))
