"""
Tests for L{moxtls.smtp.server.conversation}.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.server.conversation import MAX_BACKLOG_LENGTH, MAX_COMMAND_LINE
from moxtls.smtp.server.state import (
    MAX_LINE_LENGTH,
    AuthStep,
    BodyFailed,
    DataStart,
    MailFrom,
    StartTLS,
    TransactionState,
)
from moxtls.smtp.server.syntax import MailParameters, encodeReply
from moxtls.smtp.types import Reply
from tests.smtp.owner import ENVELOPE, OK, SETTINGS, Owner, greeted


class GreetingTests(SynchronousTestCase):
    """
    Tests for how conversations begin.
    """

    def test_greeting(self) -> None:
        """
        RFC 5321 4.2: 220 and our name, without enhanced status code (RFC 2034
        3).
        """
        self.assertEqual(Owner().greeting, b"220 mx.example ESMTP\r\n")

    def test_ehlo(self) -> None:
        """
        EHLO is answered with the extensions (RFC 5321 4.1.1.1).
        """
        self.assertEqual(
            Owner().says(b"ehlo client.example\r\n"),
            [
                "250-mx.example",
                "250-PIPELINING",
                "250-CHUNKING",
                "250-SIZE 1000",
                "250-8BITMIME",
                "250-SMTPUTF8",
                "250-ENHANCEDSTATUSCODES",
                "250-LIMITS MAILMAX=1000 RCPTMAX=1000",
                "250 STARTTLS",
            ],
        )

    def test_ehloOverTLS(self) -> None:
        """
        STARTTLS is not offered again (RFC 3207 4.2); REQUIRETLS (RFC 8689 2)
        and AUTH (RFC 4954 4) are.
        """
        settings = replace(SETTINGS, mechanisms=("SCRAM-SHA-256", "PLAIN"))
        lines = Owner(settings, isSecure=True).says(b"EHLO c\r\n")
        self.assertIn("250-REQUIRETLS", lines)
        self.assertIn("250 AUTH SCRAM-SHA-256 PLAIN", lines)
        self.assertNotIn("STARTTLS", " ".join(lines))
        self.assertNotIn("AUTH", " ".join(Owner(settings).says(b"EHLO c\r\n")))

    def test_helo(self) -> None:
        """
        HELO works as ever (RFC 5321 4.1.1.1), and has no extensions.
        """
        owner = Owner()
        self.assertEqual(owner.says(b"HELO c.example\r\n"), ["250 mx.example"])
        self.assertFalse(owner.conversation.state.extended)
        self.assertEqual(owner.conversation.state.helo, "c.example")

    def test_order(self) -> None:
        """
        Commands out of order get 503 (RFC 5321 4.1.4).
        """
        owner = Owner()
        self.assertEqual(owner.codes(b"MAIL FROM:<a@a.example>\r\n"), ["503 5.5.1"])
        owner.says(b"EHLO c\r\n")
        self.assertEqual(owner.codes(b"RCPT TO:<a@a.example>\r\n"), ["503 5.5.1"])
        self.assertEqual(owner.codes(b"DATA\r\n"), ["503 5.5.1"])
        self.assertEqual(owner.codes(ENVELOPE, b"MAIL FROM:<>\r\n")[-1], "503 5.5.1")


class CommandTests(SynchronousTestCase):
    """
    Tests for the syntax of commands.
    """

    def test_table(self) -> None:
        """
        Well-formed commands (RFC 5321 4.1.1, 4.1.2) are accepted; others get a
        reply that names the error.
        """
        for line, code in (
            (b"MAIL FROM:<>", "250 2.0.0"),
            (b"mail from:<a@a.example> size=10 BODY=8bitmime", "250 2.0.0"),
            (b"MAIL FROM: <a@a.example>", "250 2.0.0"),
            (b"MAIL FROM:<a@a.example> AUTH=<>", "250 2.0.0"),
            (b"MAIL FROM:<@x.example,@y.example:a@a.example>", "250 2.0.0"),
            (b'MAIL FROM:<"a b>c\\""@a.example>', "250 2.0.0"),
            (b"MAIL FROM:<a@[192.0.2.1]>  ", "250 2.0.0"),
            (b"MAIL FROM:<b+12-" + b"first.last=" * 6 + b"@e.example>", "250 2.0.0"),
            (b"MAIL FROM:<a..b@a.example>", "250 2.0.0"),
            (b"MAIL FROM:<a.@web_server.example>", "250 2.0.0"),
            (b"MAIL FROM:<" + b"a" * 254 + b"@a.example>", "553 5.1.7"),
            (b"HELO " + b"a" * 300, "250 mx.example"),
            (b"MAIL FROM:a@a.example", "501 5.5.2"),
            (b"MAIL FROM:<a@a.example", "501 5.5.2"),
            (b"MAIL", "501 5.5.2"),
            (b"MAIL TO:<a@a.example>", "501 5.5.2"),
            (b"MAIL FROM:<a>", "553 5.1.7"),
            (b"MAIL FROM:<a@-.example>", "553 5.1.7"),
            (b"MAIL FROM:<a@a.example> SIZE=1001", "552 5.3.4"),
            (b"MAIL FROM:<a@a.example> SIZE=x", "501 5.5.4"),
            (b"MAIL FROM:<a@a.example> SIZE=1 SIZE=1", "501 5.5.4"),
            (b"MAIL FROM:<a@a.example> BODY=9BIT", "501 5.5.4"),
            (b"MAIL FROM:<a@a.example> RET=FULL", "555 5.5.4"),
            (b"MAIL FROM:<a@a.example> REQUIRETLS", "530 5.7.10"),
            ("MAIL FROM:<\u00e9@a.example> SMTPUTF8".encode(), "250 2.0.0"),
            ("MAIL FROM:<\u00e9@a.example>".encode(), "553 5.6.7"),
            (b"MAIL FROM:<\xe9@a.example>", "500 5.5.2"),
            (b"NOOP whatever", "250 2.0.0"),
            (b"RSET", "250 2.0.0"),
            (b"VRFY a", "252 2.1.5"),
            (b"EXPN a", "502 5.5.1"),
            (b"HELP", "214 2.0.0"),
            (b"BDAT 0 LAST", "503 5.5.1"),
            (b"BDAT", "421 4.5.0"),
            (b"", "500 5.5.1"),
            (b"EHLO", "501 5.5.4"),
            (b"STARTTLS now", "501 5.5.4"),
            (b"AUTH PLAIN", "502 5.5.1"),
            (b"GET / HTTP/1.1", "421 4.7.0"),
            (b"QUIT", "221 2.0.0"),
        ):
            self.assertEqual(greeted().codes(line + b"\r\n"), [code], line)

    def test_recipients(self) -> None:
        """
        C{postmaster} needs no domain (RFC 5321 4.5.1), others do; no
        parameters are known.
        """
        for line, code in (
            (b"RCPT TO:<Postmaster>", "250 2.0.0"),
            (b"RCPT TO:<b@b.example>", "250 2.0.0"),
            (b"RCPT TO:<b.@b_c.example>", "250 2.0.0"),
            (b"RCPT TO:<" + b"b" * 80 + b"@b.example>", "250 2.0.0"),
            (b"RCPT TO:<b>", "553 5.1.3"),
            (b"RCPT TO:<>", "553 5.1.3"),
            (b"RCPT TO:<b@b.example> NOTIFY=NEVER", "555 5.5.4"),
            ("RCPT TO:<\u00e9@b.example>".encode(), "553 5.6.7"),
        ):
            owner = greeted()
            codes = owner.codes(b"MAIL FROM:<>\r\n", line + b"\r\n")
            self.assertEqual(codes[1:], [code], line)

    def test_parameters(self) -> None:
        """
        The event has the parameters of MAIL.
        """
        owner = greeted(isSecure=True)
        owner.says(b"MAIL FROM:<a@a.example> SIZE=9 BODY=8BITMIME SMTPUTF8 ")
        owner.says(b"REQUIRETLS\r\n")
        parameters = MailParameters(9, True, True, True)
        self.assertEqual(
            owner.events, [MailFrom(TransactionState("a@a.example", parameters))]
        )

    def test_lineEnds(self) -> None:
        """
        Bare CR, bare LF and NUL end no command (RFC 5321 2.3.8).
        """
        for bare in (b"\n", b"\r", b"\0"):
            owner = greeted()
            codes = owner.codes(b"NOOP" + bare + b"RSET\r\nNOOP\r\n")
            self.assertEqual(codes, ["500 5.5.2", "250 2.0.0"])

    def test_longLine(self) -> None:
        """
        A line that is too long is passed over however it comes, without being
        kept.
        """
        owner = greeted()
        for _ in range(100):
            self.assertEqual(owner.says(b"NOOP " * 1000), [])
            self.assertLess(owner.conversation.backlog, 5000)
        self.assertEqual(owner.codes(b"\r", b"\nNOOP\r\n"), ["500 5.5.2", "250 2.0.0"])
        codes = owner.codes(b"NOOP " + b"x" * 5000 + b"\r\nNOOP\r\n")
        self.assertEqual(codes, ["500 5.5.2", "250 2.0.0"])


class TransactionTests(SynchronousTestCase):
    """
    Tests for mail transactions.
    """

    def test_pipelining(self) -> None:
        """
        A whole group is answered in order (RFC 2920 3.1), and several
        messages can follow one another.
        """
        owner = greeted()
        for _ in range(2):
            codes = owner.codes(ENVELOPE + b"RCPT TO:<c@c.example>\r\nDATA\r\n")
            self.assertEqual(codes, ["250 2.0.0"] * 3 + ["354 End"])
            codes = owner.codes(b"..a\r\n.\r\nNOOP\r\n")
            self.assertEqual(codes, ["250 2.0.0"] * 2)
        self.assertEqual(owner.messages, [b".a\r\n"] * 2)
        recipients = ("b@b.example", "c@c.example")
        transaction = TransactionState("a@a.example", MailParameters(), recipients)
        self.assertEqual(owner.events.count(DataStart(transaction)), 2)

    def test_waiting(self) -> None:
        """
        While an answer is outstanding, pipelined commands wait.
        """
        conversation = greeted().conversation
        conversation.receive(ENVELOPE)
        self.assertIsInstance(conversation.nextEvent(), MailFrom)
        self.assertIsNone(conversation.nextEvent())
        self.assertEqual(conversation.takeOutput(), b"")
        conversation.reply(Reply(550, "5.7.1", "No"))
        self.assertIsNone(conversation.nextEvent())
        self.assertEqual(
            conversation.takeOutput(), b"550 5.7.1 No\r\n503 5.5.1 Send MAIL first\r\n"
        )
        self.assertRaises(ValueError, conversation.reply, OK)

    def test_noRecipients(self) -> None:
        """
        If all recipients are refused, DATA is refused (RFC 2920 3.1).
        """
        conversation = greeted().conversation
        conversation.receive(ENVELOPE + b"DATA\r\n")
        conversation.nextEvent()
        conversation.reply(OK)
        conversation.nextEvent()
        conversation.reply(Reply(550, "5.1.1", "Nobody"))
        self.assertIsNone(conversation.nextEvent())
        lines = conversation.takeOutput().splitlines()
        self.assertEqual(lines[-1], b"554 5.5.1 No valid recipients")

    def test_early(self) -> None:
        """
        A message sent before 354 ends the connection: it could be taken for
        commands (RFC 2920 3.1).
        """
        owner = greeted()
        codes = owner.codes(ENVELOPE + b"DATA\r\nQUIT\r\n.\r\n")
        self.assertEqual(codes[-1], "421 4.5.0")
        self.assertTrue(owner.conversation.isClosed)

    def test_reset(self) -> None:
        """
        RSET and EHLO end a transaction (RFC 5321 4.1.1.5, 4.1.4).
        """
        for command in (b"RSET\r\n", b"EHLO c\r\n", b"HELO c\r\n"):
            owner = greeted()
            owner.says(ENVELOPE, command)
            self.assertIsNone(owner.conversation.state.transaction)
            self.assertEqual(owner.codes(ENVELOPE), ["250 2.0.0"] * 2)

    def test_tooLarge(self) -> None:
        """
        A message over the limit is passed over, and refused at its end (RFC
        1870 6.3); another is welcome.
        """
        owner = greeted()
        owner.says(ENVELOPE, b"DATA\r\n")
        self.assertEqual(owner.says(*[b"a" * 98 + b"\r\n"] * 11), [])
        self.assertEqual(owner.codes(b".\r\n"), ["552 5.3.4"])
        self.assertIsInstance(owner.events[-1], BodyFailed)
        owner.says(ENVELOPE, b"DATA\r\n")
        self.assertEqual(owner.codes(b"a\r\n.\r\n"), ["250 2.0.0"])
        self.assertEqual(owner.messages, [b"a\r\n"])

    def test_endless(self) -> None:
        """
        A refused message that doesn't end is cut off.
        """
        owner = greeted()
        owner.says(ENVELOPE, b"DATA\r\n")
        piece = b"a" * (1 << 20)
        count = 0
        while not owner.conversation.isClosed:
            owner.conversation.receive(piece)
            owner.conversation.nextEvent()
            count += 1
            self.assertLess(count, 100)
        self.assertEqual(owner.codes(), ["552 5.3.4"])

    def test_byteByByte(self) -> None:
        """
        The result doesn't depend on how the input is cut.
        """
        settings = replace(SETTINGS, mechanisms=("PLAIN",), authWithoutTLS=True)
        steps = (
            b"AUTH PLAIN AGEAYg==\r\n",
            ENVELOPE,
            b"DATA\r\n",
            b"a\r\n.\r\nQUIT\r\n",
        )
        whole, cut = greeted(settings), greeted(settings)
        expected = [line for step in steps for line in whole.says(step)]
        found = [
            line
            for step in steps
            for line in cut.says(*(bytes([byte]) for byte in step))
        ]
        self.assertEqual(found, expected)
        self.assertEqual(cut.messages, [b"a\r\n"])


class TLSTests(SynchronousTestCase):
    """
    Tests for STARTTLS.
    """

    def test_starttls(self) -> None:
        """
        STARTTLS resets the session (RFC 3207 4.2).
        """
        owner = greeted()
        self.assertEqual(owner.codes(ENVELOPE, b"STARTTLS\r\n")[-1], "220 2.0.0")
        self.assertTrue(owner.conversation.state.isSecure)
        self.assertEqual(owner.conversation.state.helo, "")
        self.assertEqual(owner.codes(ENVELOPE), ["503 5.5.1"] * 2)
        owner.says(b"EHLO c\r\n")
        self.assertEqual(owner.codes(b"STARTTLS\r\n"), ["503 5.5.1"])

    def test_injection(self) -> None:
        """
        Plaintext behind STARTTLS ends the connection (RFC 3207 6).
        """
        owner = greeted()
        codes = owner.codes(b"STARTTLS\r\nEHLO evil\r\n" + ENVELOPE)
        self.assertEqual(codes, ["421 4.7.0"])
        self.assertEqual(owner.events, [])
        self.assertEqual(owner.codes(ENVELOPE), [])

    def test_lateInjection(self) -> None:
        """
        Plaintext between 220 and the handshake ends the connection too.
        """
        conversation = greeted().conversation
        conversation.receive(b"STARTTLS\r\n")
        self.assertEqual(conversation.nextEvent(), StartTLS())
        conversation.receive(b"EHLO evil\r\n")
        conversation.tlsStarted()
        self.assertTrue(conversation.isClosed)
        self.assertIsNone(conversation.nextEvent())

    def test_required(self) -> None:
        """
        If TLS is required, few commands are accepted before it (RFC 3207 4).
        """
        owner = greeted(replace(SETTINGS, tlsRequired=True))
        self.assertEqual(
            owner.codes(b"NOOP\r\nMAIL FROM:<>\r\nVRFY a\r\n"),
            ["250 2.0.0", "530 5.7.0", "530 5.7.0"],
        )
        self.assertEqual(
            owner.codes(b"STARTTLS\r\n", b"EHLO c\r\nMAIL FROM:<>\r\n")[-1], "250 2.0.0"
        )


class AuthTests(SynchronousTestCase):
    """
    Tests for AUTH (RFC 4954).
    """

    SETTINGS = replace(SETTINGS, mechanisms=("PLAIN", "LOGIN"), authRequired=True)

    def test_needsTLS(self) -> None:
        """
        There is no AUTH without TLS.
        """
        owner = greeted(self.SETTINGS)
        self.assertEqual(owner.codes(b"AUTH PLAIN\r\n"), ["538 5.7.11"])
        self.assertEqual(owner.codes(b"MAIL FROM:<>\r\n"), ["530 5.7.0"])

    def test_exchange(self) -> None:
        """
        Challenges and responses travel in base64 (RFC 4954 4); after success
        there is no more AUTH, and mail.
        """
        conversation = greeted(self.SETTINGS, isSecure=True).conversation
        conversation.receive(b"auth login\r\n")
        self.assertEqual(conversation.nextEvent(), AuthStep("LOGIN", None, True))
        conversation.challenge(b"Username:")
        self.assertEqual(conversation.takeOutput(), b"334 VXNlcm5hbWU6\r\n")
        conversation.receive(base64.b64encode(b"a\0b") + b"\r\n")
        self.assertEqual(conversation.nextEvent(), AuthStep("LOGIN", b"a\0b", False))
        conversation.authenticated("a")
        conversation.receive(b"AUTH LOGIN\r\nMAIL FROM:<>\r\n")
        self.assertIsInstance(conversation.nextEvent(), MailFrom)
        self.assertEqual(
            conversation.takeOutput(),
            b"235 2.7.0 Authenticated\r\n503 5.5.1 Not allowed now\r\n",
        )
        self.assertEqual(conversation.state.user, "a")

    def test_initialResponse(self) -> None:
        """
        C{=} stands for an initial response of no bytes (RFC 4954 4).
        """
        for line, response in ((b"=", b""), (b"AGEAYg==", b"\0a\0b")):
            owner = greeted(self.SETTINGS, isSecure=True)
            self.assertEqual(
                owner.codes(b"AUTH PLAIN " + line + b"\r\n"), ["535 5.7.8"]
            )
            self.assertEqual(owner.events, [AuthStep("PLAIN", response, True)])

    def test_nonsense(self) -> None:
        """
        Bad base64, C{*} and unknown mechanisms (RFC 4954 4).
        """
        owner = greeted(self.SETTINGS, isSecure=True)
        self.assertEqual(owner.codes(b"AUTH PLAIN !\r\n"), ["501 5.5.2"])
        self.assertEqual(owner.codes(b"AUTH GSSAPI\r\n"), ["504 5.5.4"])
        conversation = owner.conversation
        conversation.receive(b"AUTH PLAIN\r\n")
        conversation.nextEvent()
        conversation.challenge(b"")
        self.assertEqual(owner.codes(b"*\r\n"), ["334", "501 5.7.0"])
        self.assertEqual(owner.codes(b"NOOP\r\n"), ["250 2.0.0"])

    def test_failures(self) -> None:
        """
        The session is closed after three failed logins.
        """
        owner = greeted(self.SETTINGS, isSecure=True)
        codes = owner.codes(b"AUTH PLAIN AGEAYg==\r\n" * 5)
        self.assertEqual(codes, ["535 5.7.8"] * 3 + ["421 4.7.0"])


class LimitTests(SynchronousTestCase):
    """
    Tests for the patience of servers.
    """

    def closed(self, owner: Owner, lines: Iterable[bytes]) -> list[str]:
        """
        @return: The replies, of which the last closes the connection.
        """
        codes = owner.codes(*lines)
        self.assertEqual(codes[-1], "421 4.7.0")
        self.assertTrue(owner.conversation.isClosed)
        return codes

    def test_errors(self) -> None:
        """
        Too many errors end the connection.
        """
        self.assertEqual(len(self.closed(greeted(), [b"FOO\r\n" * 99])), 22)

    def test_idleCommands(self) -> None:
        """
        Too many commands without a transaction end the connection.
        """
        self.assertEqual(len(self.closed(greeted(), [b"NOOP\r\n" * 200])), 100)
        owner = greeted()
        for _ in range(5):
            owner.says(b"NOOP\r\n" * 50, ENVELOPE, b"DATA\r\n", b".\r\n")
        self.assertEqual(len(owner.messages), 5)

    def test_recipients(self) -> None:
        """
        Recipients over the limit get 452 (RFC 5321 4.5.3.1.10); those before
        get their mail.
        """
        owner = greeted(replace(SETTINGS, maxRecipients=2))
        owner.says(b"MAIL FROM:<>\r\n")
        codes = owner.codes(*(b"RCPT TO:<%d@b.example>\r\n" % n for n in range(3)))
        self.assertEqual(codes, ["250 2.0.0"] * 2 + ["452 4.5.3"])
        owner.says(b"DATA\r\n", b".\r\n")
        self.assertEqual(owner.messages, [b""])

    def test_recipientsBeyond(self) -> None:
        """
        As many recipients beyond the maximum as allowed ones, as pipelining clients
        send them, don't close the session; more do.
        """
        settings = replace(SETTINGS, maxRecipients=300)
        for beyond, ends in ((300, "354"), (301, "421")):
            owner = greeted(settings)
            lines = [b"RCPT TO:<%d@b.example>\r\n" % n for n in range(300 + beyond)]
            codes = owner.codes(b"MAIL FROM:<>\r\n", *lines)
            self.assertEqual(codes.count("452 4.5.3"), 300, beyond)
            codes += owner.codes(b"DATA\r\n")
            self.assertEqual(codes[-1][:3], ends, beyond)

    def test_repeated(self) -> None:
        """
        A repeated recipient counts each time, though it gets one copy: within a
        transaction, and over unsuccessful ones.
        """
        owner = greeted(replace(SETTINGS, maxRecipients=2))
        owner.says(b"MAIL FROM:<>\r\n")
        codes = owner.codes(b"RCPT TO:<b@b.example>\r\n" * 3)
        self.assertEqual(codes, ["250 2.0.0"] * 2 + ["452 4.5.3"])
        owner.says(b"DATA\r\n", b".\r\n")
        self.assertEqual(owner.messages, [b""])
        again = b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@b.example>\r\n" * 2 + b"RSET\r\n"
        self.assertEqual(len(self.closed(owner, [again * 9])), 3 * 4 - 2 + 1)

    def test_smallChunks(self) -> None:
        """
        Each chunk gets a reply (RFC 3030 2), so the number of tiny ones is limited;
        that of larger ones isn't.
        """
        owner = greeted()
        owner.says(ENVELOPE)
        self.closed(owner, [b"BDAT 1\r\nx" * 2000])
        owner = greeted(replace(SETTINGS, maxSize=10**6))
        owner.says(ENVELOPE)
        line = b"y" * 62 + b"\r\n"
        codes = owner.codes(b"BDAT 2\r\n\r\n", *[b"BDAT 64\r\n" + line] * 2000)
        self.assertEqual(set(codes), {"250 2.0.0"})

    def test_guessing(self) -> None:
        """
        Too many refused recipients close the session.
        """
        conversation = greeted().conversation
        conversation.receive(b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@b.example>\r\n" * 300)
        conversation.nextEvent()
        conversation.reply(OK)
        count = 0
        while conversation.nextEvent() is not None:
            conversation.reply(Reply(550, "5.1.1", "Nobody"))
            count += 1
        self.assertEqual(count, SETTINGS.maxRefusals + 1)
        self.assertTrue(conversation.isClosed)

    def test_transactions(self) -> None:
        """
        RFC 9422 MAILMAX: one message too many ends the connection.
        """
        owner = greeted(replace(SETTINGS, maxTransactions=2))
        self.closed(owner, [b"MAIL FROM:<>\r\nRSET\r\n" * 3])

    def test_backlog(self) -> None:
        """
        The amount of pipelined input is limited.
        """
        conversation = greeted().conversation
        conversation.receive(b"MAIL FROM:<>\r\n")
        conversation.nextEvent()
        while not conversation.isClosed:
            conversation.receive(b"NOOP\r\n" * 10000)
            self.assertLess(conversation.backlog, 2 * MAX_BACKLOG_LENGTH)
        self.assertEqual(conversation.backlog, 0)
        conversation.reply(OK)
        self.assertEqual(conversation.takeOutput()[:3], b"421")

    def test_header(self) -> None:
        """
        A header that is too large, or has too many fields, is refused when the
        message is complete; other messages are welcome.
        """
        settings = replace(
            SETTINGS, maxSize=10**6, maxHeaderSize=1000, maxHeaderFields=10
        )
        for header, code in (
            (b"A: b\r\n" * 10, "250 2.0.0"),
            (b"A: b\r\n\tc\r\n c\r\n" * 10, "250 2.0.0"),
            (b"A: b\r\n" * 11, "554 5.6.0"),
            (b"A: " + b"b" * 995 + b"\r\n", "250 2.0.0"),
            (b"A: " + b"b" * 996 + b"\r\n", "552 5.3.4"),
        ):
            owner = greeted(settings)
            owner.says(ENVELOPE, b"DATA\r\n")
            body = b"\r\n" + b"A: b\r\n" * 1000 + b".\r\n"
            self.assertEqual(owner.codes(header + body), [code])
            owner.says(ENVELOPE, b"DATA\r\n")
            self.assertEqual(owner.codes(b"A: b\r\n.\r\n"), ["250 2.0.0"])

    def test_longLine(self) -> None:
        """
        Lines may be much longer than RFC 5321 4.5.3.1.6 has it, but not as
        long as they like.
        """
        for length, code in ((100_000, "250 2.0.0"), (MAX_LINE_LENGTH, "554 5.6.0")):
            owner = greeted(replace(SETTINGS, maxSize=10**7))
            owner.says(ENVELOPE, b"DATA\r\n", b"\r\n" + b"a" * length)
            self.assertEqual(owner.codes(b"\r\n.\r\n"), [code])

    def test_longestCommand(self) -> None:
        """
        A command of the longest length is one, wherever it is cut.
        """
        for length, code in (
            (MAX_COMMAND_LINE, "250 2.0.0"),
            (MAX_COMMAND_LINE + 1, "500 5.5.2"),
        ):
            line = b"NOOP " + b"x" * (length - 5)
            for pieces in ((line + b"\r\n",), (line, b"\r\n"), (line + b"\r", b"\n")):
                self.assertEqual(greeted().codes(*pieces), [code])


class ReplyTests(SynchronousTestCase):
    """
    Tests for L{encodeReply}.
    """

    def test_lines(self) -> None:
        """
        Each line has the codes (RFC 5321 4.2.1, RFC 2034 4).
        """
        self.assertEqual(
            encodeReply(Reply(550, "5.7.1", "one\ntwo")),
            b"550-5.7.1 one\r\n550 5.7.1 two\r\n",
        )

    @examples(max_examples=100, deadline=None)
    @given(st.text())
    def test_anyText(self, text: str) -> None:
        """
        No text injects a reply, or makes a line too long (RFC 5321 4.5.3.1.5).
        """
        encoded = encodeReply(Reply(250, "2.0.0", text))
        self.assertTrue(encoded.endswith(b"\r\n"))
        lines = encoded.removesuffix(b"\r\n").split(b"\r\n")
        for line in lines:
            self.assertRegex(line, rb"\A250[ -]2\.0\.0 [\x20-\x7e]{0,500}\Z")
        self.assertEqual([line[3:4] for line in lines].index(b" "), len(lines) - 1)
