"""
Tests for L{moxtls.smtp.client.conversation} and its parts.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.client.conversation import (
    Awaiting,
    ClientConversation,
    ClientEvent,
    EndCause,
    Ended,
    Ready,
    Send,
    SendBody,
    StartHandshake,
    Transferred,
)
from moxtls.smtp.client.replies import (
    MAX_LINE,
    MAX_LINES,
    Extensions,
    MalformedReply,
    ReplyReader,
    extensionRefusal,
    mailCommand,
    parseExtensions,
    parseReply,
    splitByLimits,
)
from moxtls.smtp.dotstuffing import DotStuffing
from moxtls.smtp.types import Credentials, Reply, TLSMode, Transaction
from moxtls.tls.session import STARTTLSResult

FEW = settings(max_examples=100, deadline=None)
HELLO = b"220 mx.example ESMTP\r\n"


def transaction(
    *recipients: str,
    sender: str = "a@us.example",
    eightBit: bool = False,
    smtputf8: bool = False,
    requireTLS: bool = False,
) -> Transaction:
    return Transaction(
        sender,
        recipients or ("b@example.org",),
        Path("message"),
        1000,
        eightBit,
        smtputf8,
        requireTLS,
    )


def ehlo(*extensions: str) -> bytes:
    """
    A reply to EHLO.
    """
    lines = [f"250-{each}\r\n" for each in ("mx.example", *extensions)]
    return ("".join(lines) + "250 HELP\r\n").encode()


class ReplyTests(SynchronousTestCase):
    """
    Tests for L{ReplyReader} and L{parseReply}.
    """

    def read(self, data: bytes) -> list[Reply]:
        reader = ReplyReader()
        reader.feed(data)
        replies = []
        while (lines := reader.next()) is not None:
            replies.append(parseReply(lines))
        return replies

    def test_enhanced(self) -> None:
        """
        RFC 2034 4: the enhanced status code is taken out of all lines, if it
        is of the reply's class.
        """
        self.assertEqual(
            self.read(b"550-5.1.1 no\r\n550 5.1.1 who?\r\n250 5.1.1 odd\r\n250\r\n"),
            [
                Reply(550, "5.1.1", "no\nwho?"),
                Reply(250, "", "5.1.1 odd"),
                Reply(250),
            ],
        )

    def test_malformed(self) -> None:
        """
        Malformed replies are errors (RFC 5321 4.2).
        """
        for data in (
            b"hello\r\n",
            b"25\r\n",
            b"100 x\r\n",
            b"250x\r\n",
            b"250-a\r\n251 b\r\n",
            b"\r\n" * (MAX_LINES + 1),
            b"250 " + b"a" * MAX_LINE,
            b"250-a\r\n" * MAX_LINES + b"250 a\r\n",
            (b"250-" + b"a" * 2000 + b"\r\n") * 40,
        ):
            self.assertRaises(MalformedReply, self.read, data)

    def test_lineEnds(self) -> None:
        """
        Some servers end lines with a connection feed alone, against RFC 5321 2.3.8, or
        put empty lines between them.
        """
        replies = [Reply(250, "", "a\nb"), Reply(251, "", "c"), Reply(252)]
        for end in (b"\r\n", b"\n", b"\r\n\r\n", b"\n\n", b"\r\r\n"):
            data = b"250-a\n250 b\n251 c\n252\n".replace(b"\n", end)
            self.assertEqual(self.read(end + data), replies, end)

    def test_long(self) -> None:
        """
        RFC 5321 4.5.3.1.5: 512 octets in a connection are not the most.
        """
        text = "x" * 5000
        self.assertEqual(
            self.read(f"550-{text}\r\n550 y\r\n".encode()),
            [Reply(550, "", f"{text}\ny")],
        )

    def test_incomplete(self) -> None:
        """
        An incomplete reply yields nothing.
        """
        self.assertEqual(self.read(b"250-a\r\n250 b\r"), [])

    @FEW
    @given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
    def test_anyBytes(self, data: bytes, cuts: list[int]) -> None:
        """
        Any input, in any fragments, yields the same replies or an error.
        """

        def outcome(pieces: list[bytes]) -> list[Reply] | str:
            reader, found = ReplyReader(), []
            try:
                for piece in pieces:
                    reader.feed(piece)
                    while (lines := reader.next()) is not None:
                        found.append(parseReply(lines))
            except MalformedReply as why:
                return str(why)
            return found

        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
        self.assertEqual(outcome([data]), outcome(pieces))


class DotStuffingTests(SynchronousTestCase):
    """
    Tests for L{DotStuffing}.
    """

    def encode(self, parts: list[bytes]) -> bytes:
        encoding = DotStuffing()
        return b"".join(map(encoding.feed, parts)) + encoding.end()

    def decode(self, data: bytes) -> bytes:
        """
        Dot-unstuffing as in RFC 5321 4.5.2.
        """
        lines = data.split(b"\r\n")
        end = lines.index(b".")
        self.assertEqual(lines[end + 1 :], [b""])
        return b"".join(
            connection.removeprefix(b".") + b"\r\n" for connection in lines[:end]
        )

    @FEW
    @given(
        st.lists(st.sampled_from([b".", b"..", b"\r\n", b"a", b".\r\n", b"\r\n."])),
        st.lists(st.integers(0, 60)),
    )
    def test_sameBytes(self, tokens: list[bytes], cuts: list[int]) -> None:
        """
        RFC 5321 4.5.2: decoding yields the encoded message, for any chunks.
        """
        message = b"".join(tokens) + b"\r\n"
        edges = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
        parts = [message[a:b] for a, b in itertools.pairwise(edges)]
        self.assertEqual(self.decode(self.encode(parts)), message)

    @FEW
    @given(st.lists(st.sampled_from([b".", b"\r", b"\n", b"a", b"\r\n"])))
    def test_oneEnd(self, tokens: list[bytes]) -> None:
        """
        RFC 5321 2.3.8: an encoded message contains no other end of data than the
        final one, and no bare CR or LF.
        """
        data = self.encode(tokens)
        plain = data.replace(b"\r\n", b"")
        self.assertFalse({10, 13} & set(plain))
        self.decode(data)

    def test_edges(self) -> None:
        """
        An empty message, and an unterminated last line.
        """
        self.assertEqual(self.encode([]), b".\r\n")
        self.assertEqual(self.encode([b"a"]), b"a\r\n.\r\n")
        self.assertEqual(self.encode([b"a\r\n"]), b"a\r\n.\r\n")
        self.assertEqual(self.encode([b"a\r"]), b"a\r\n.\r\n")


ALL = Extensions(
    size=2000, eightBit=True, smtputf8=True, requireTLS=True, pipelining=True
)


class ExtensionTests(SynchronousTestCase):
    """
    Tests for L{moxtls.smtp.client.replies}.
    """

    def test_parse(self) -> None:
        """
        Keywords in any case, known ones only.
        """
        reader = ReplyReader()
        reader.feed(
            ehlo(
                "pipelining",
                "Size 10",
                "8bitMIME",
                "SMTPUTF8",
                "EnhancedStatusCodes",
                "RequireTLS",
                "StartTLS",
                "auth plain Login",
                "LIMITS rcptmax=5 MAILMAX=0 RCPTDOMAINMAX=x FOO=1",
                "XYZZY",
                "",
            )
        )
        lines = reader.next()
        assert lines is not None
        self.assertEqual(
            parseExtensions(lines),
            Extensions(
                pipelining=True,
                size=10,
                eightBit=True,
                smtputf8=True,
                enhancedCodes=True,
                requireTLS=True,
                startTLS=True,
                auth=frozenset({"PLAIN", "LOGIN"}),
                rcptMax=5,
            ),
        )

    def test_noLimit(self) -> None:
        """
        RFC 1870 4: SIZE without a number, or with 0, is no limit.
        """
        for said in (b"250-hi\r\n250 SIZE", b"250-hi\r\n250 SIZE 0"):
            lines = tuple(said.split(b"\r\n"))
            self.assertEqual(parseExtensions(lines).size, 0)

    def test_refusals(self) -> None:
        """
        A message that needs a missing extension is refused locally: SIZE (RFC
        1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689
        4.2.1).
        """
        for mail, known, status in (
            (transaction(), ALL, None),
            (transaction(), Extensions(), None),
            (transaction(), Extensions(size=0), None),
            (transaction(), Extensions(size=1000), None),
            (transaction(), Extensions(size=999), "5.3.4"),
            (transaction(eightBit=True), Extensions(), "5.6.3"),
            (transaction(eightBit=True), ALL, None),
            (transaction(smtputf8=True), Extensions(), "5.6.7"),
            (transaction("ü@example.org"), Extensions(), "5.6.7"),
            (transaction("ü@example.org"), ALL, None),
            (transaction(requireTLS=True), Extensions(), "5.7.30"),
            (transaction(requireTLS=True), ALL, None),
            (transaction(sender="a\r\nDATA"), ALL, "5.1.7"),
        ):
            reply = extensionRefusal(mail, known, True)
            self.assertEqual(reply and reply.enhanced, status)
            self.assertTrue(reply is None or reply.permanent)

    def test_requireTLSWithoutTLS(self) -> None:
        """
        RFC 8689 4.2.1: 5.7.10 where there is no TLS at all.
        """
        reply = extensionRefusal(transaction(requireTLS=True), ALL, False)
        self.assertEqual(reply and reply.enhanced, "5.7.10")

    def test_mail(self) -> None:
        """
        MAIL has the parameters that are needed and known.
        """
        everything = transaction(eightBit=True, smtputf8=True, requireTLS=True)
        self.assertEqual(
            mailCommand(everything, ALL),
            "MAIL FROM:<a@us.example> SIZE=1000 BODY=8BITMIME SMTPUTF8 REQUIRETLS",
        )
        self.assertEqual(
            mailCommand(transaction(sender=""), Extensions()), "MAIL FROM:<>"
        )
        self.assertEqual(
            mailCommand(transaction(), ALL), "MAIL FROM:<a@us.example> SIZE=1000"
        )

    def test_portions(self) -> None:
        """
        RFC 9422: recipients, and their domains, go in as many transactions
        as the limits make it.
        """
        mail = transaction("a@x", "b@x", "c@y", "d@X")
        for known, parts in (
            (Extensions(), [4]),
            (Extensions(rcptMax=3), [3, 1]),
            (Extensions(rcptDomainMax=1), [2, 1, 1]),
            (Extensions(rcptMax=1, rcptDomainMax=1), [1, 1, 1, 1]),
        ):
            found = splitByLimits(mail, known)
            self.assertEqual([len(part.recipients) for part in found], parts)
            together = tuple(each for part in found for each in part.recipients)
            self.assertEqual(together, mail.recipients)


class ConversationCase(SynchronousTestCase):
    """
    Talks to a L{ClientConversation}.
    """

    def conversation(
        self, mode: TLSMode = TLSMode.OPPORTUNISTIC, login: Credentials | None = None
    ) -> ClientConversation:
        return ClientConversation("us.example", mode, login)

    def ready(self, *extensions: str) -> ClientConversation:
        """
        A conversation that is ready for mail.
        """
        conversation = self.conversation(TLSMode.SKIP)
        conversation.receive(HELLO)
        self.assertEqual(conversation.receive(ehlo(*extensions)), [Ready()])
        return conversation

    def secured(self, login: Credentials | None = None) -> ClientConversation:
        """
        A conversation right after the TLS handshake.
        """
        conversation = self.conversation(TLSMode.REQUIRED, login)
        for said in (HELLO, ehlo("STARTTLS", "SIZE 1"), b"220 go\r\n"):
            events = conversation.receive(said)
        self.assertEqual(events, [StartHandshake()])
        self.assertEqual(conversation.secured(), [Send(b"EHLO us.example\r\n")])
        return conversation

    def assertEnded(self, events: list[ClientEvent], cause: EndCause) -> Ended:
        last = events[-1]
        assert isinstance(last, Ended)
        self.assertIs(last.cause, cause)
        return last

    def replies(self, events: list[ClientEvent]) -> list[int]:
        """
        The codes that a transaction ended with.
        """
        (found,) = [each for each in events if isinstance(each, Transferred)]
        return [each.reply.code for each in found.replies]


class OpeningTests(ConversationCase):
    """
    From the greeting to the first transaction.
    """

    def test_greeting(self) -> None:
        """
        The first word of the greeting is the host's name.
        """
        for said, name in (
            (b"220 mx.example ESMTP id 4711\r\n", "mx.example"),
            (b"220-mx.example\r\n220 and more\r\n", "mx.example"),
            (b"220\r\n", ""),
        ):
            conversation = self.conversation()
            self.assertEqual(conversation.receive(said), [Send(b"EHLO us.example\r\n")])
            self.assertEqual(conversation.helo, name)

    def test_helo(self) -> None:
        """
        RFC 5321 3.2: HELO for servers that don't know EHLO, for certain codes
        and before TLS only.
        """
        for code in (500, 501, 502, 503, 504):
            conversation = self.conversation()
            conversation.receive(HELLO)
            events = conversation.receive(b"%d what?\r\n" % code)
            self.assertEqual(events, [Send(b"HELO us.example\r\n")])
            self.assertEqual(conversation.receive(b"250 hi\r\n"), [Ready()])
            self.assertIs(conversation.starttls, STARTTLSResult.NOT_OFFERED)
            self.assertEqual(conversation.extensions, Extensions())
        for code in (421, 451, 550, 554):
            conversation = self.conversation()
            conversation.receive(HELLO)
            self.assertEnded(
                conversation.receive(b"%d no\r\n" % code), EndCause.REFUSED
            )

    def test_noHELOBehindTLS(self) -> None:
        """
        After STARTTLS only EHLO is sent.
        """
        conversation = self.secured()
        self.assertEnded(conversation.receive(b"502 what?\r\n"), EndCause.REFUSED)

    def test_heloRefused(self) -> None:
        """
        A server that refuses EHLO and HELO.
        """
        conversation = self.conversation()
        conversation.receive(HELLO)
        conversation.receive(b"502 what?\r\n")
        self.assertEnded(conversation.receive(b"550 no\r\n"), EndCause.REFUSED)

    def test_forgets(self) -> None:
        """
        RFC 3207 4.2: state from before TLS is discarded.
        """
        conversation = self.secured()
        self.assertTrue(conversation.secure)
        self.assertIsNone(conversation.extensions.size)
        self.assertEqual(conversation.receive(ehlo("SIZE 7")), [Ready()])
        self.assertEqual(conversation.extensions.size, 7)

    def test_injection(self) -> None:
        """
        RFC 3207 6: any input after the 220 reply, even one byte, ends the
        conversation.
        """
        for behind in (b"2", b"250 ok\r\n", b"\x16\x03\x03"):
            conversation = self.conversation(TLSMode.REQUIRED)
            conversation.receive(HELLO)
            conversation.receive(ehlo("STARTTLS"))
            events = conversation.receive(b"220 go\r\n" + behind)
            self.assertEnded(events, EndCause.INJECTED)
            self.assertEqual(len(events), 1)
            self.assertIs(conversation.starttls, STARTTLSResult.INJECTED)
            self.assertEqual(conversation.receive(b"250 ok\r\n"), [])

    def test_answersInAdvance(self) -> None:
        """
        A reply that arrives before the command is an error, for STARTTLS and all
        other commands.
        """
        for early in (b"220 go\r\n", b"250 ok\r\n", b"2"):
            conversation = self.conversation(TLSMode.REQUIRED)
            conversation.receive(HELLO)
            events = conversation.receive(ehlo("STARTTLS") + early)
            self.assertEnded(events, EndCause.MALFORMED)
            self.assertEqual([e for e in events if isinstance(e, Send)], [])
            self.assertIs(conversation.starttls, STARTTLSResult.UNANSWERED)
        conversation = self.conversation()
        self.assertEnded(conversation.receive(HELLO + ehlo()), EndCause.MALFORMED)
        self.assertIs(conversation.starttls, STARTTLSResult.NOT_TRIED)

    def test_startTLSClosing(self) -> None:
        """
        421 to STARTTLS is a refusal of TLS like others.
        """
        conversation = self.conversation(TLSMode.REQUIRED)
        conversation.receive(HELLO)
        conversation.receive(ehlo())
        self.assertEnded(conversation.receive(b"421 busy\r\n"), EndCause.NO_TLS)
        self.assertEqual(
            (conversation.starttls, conversation.code), (STARTTLSResult.REFUSED, 421)
        )

    def test_login(self) -> None:
        """
        RFC 4954, RFC 4616: PLAIN in one step; LOGIN in three where that is
        all there is.
        """
        login = Credentials("user", "secret")
        conversation = self.secured(login)
        plain = base64.b64encode(b"\0user\0secret")
        self.assertEqual(
            conversation.receive(ehlo("AUTH LOGIN PLAIN")),
            [Send(b"AUTH PLAIN " + plain + b"\r\n")],
        )
        self.assertEqual(conversation.receive(b"235 ok\r\n"), [Ready()])
        conversation = self.secured(login)
        said = []
        for reply in (ehlo("AUTH LOGIN"), b"334 VXNlcg==\r\n", b"334 UGFzcw==\r\n"):
            said += conversation.receive(reply)
        self.assertEqual(
            said,
            [
                Send(b"AUTH LOGIN\r\n"),
                Send(base64.b64encode(b"user") + b"\r\n"),
                Send(base64.b64encode(b"secret") + b"\r\n"),
            ],
        )
        self.assertEqual(conversation.receive(b"334 Kw==\r\n"), [Send(b"*\r\n")])
        self.assertEnded(conversation.receive(b"501 as you like\r\n"), EndCause.LOGIN)

    def test_noLogin(self) -> None:
        """
        Wrong credentials, an invalid challenge, no mechanism, no TLS.
        """
        login = Credentials("user", "secret")
        conversation = self.secured(login)
        conversation.receive(ehlo("AUTH PLAIN"))
        self.assertEnded(conversation.receive(b"535 5.7.8 no\r\n"), EndCause.LOGIN)
        conversation = self.secured(login)
        conversation.receive(ehlo("AUTH LOGIN"))
        self.assertEqual(conversation.receive(b"334 !\r\n"), [Send(b"*\r\n")])
        conversation = self.secured(login)
        self.assertEnded(conversation.receive(ehlo("AUTH CRAM-MD5")), EndCause.LOGIN)
        conversation = self.conversation(TLSMode.SKIP, login)
        conversation.receive(HELLO)
        self.assertEnded(conversation.receive(ehlo("AUTH PLAIN")), EndCause.LOGIN)

    @FEW
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from(
                    [HELLO, ehlo("STARTTLS"), ehlo("PIPELINING"), b"220 go\r\n"]
                ),
                st.sampled_from(
                    [b"250 ok\r\n", b"354 go\r\n", b"421 bye\r\n", b"550 no\r\n"]
                ),
            )
        ),
        st.sampled_from([TLSMode.SKIP, TLSMode.REQUIRED, TLSMode.OPPORTUNISTIC]),
    )
    def test_hostile(self, pieces: list[bytes], mode: TLSMode) -> None:
        """
        With any input from the server, a conversation goes on or ends, once; it never
        raises, and its commands stay bounded.
        """
        conversation = self.conversation(mode)
        seen: list[ClientEvent] = []
        for piece in pieces:
            events = conversation.receive(piece)
            seen += events
            if StartHandshake() in events:
                seen += conversation.secured()
            if SendBody() in events and conversation.awaiting is Awaiting.BODY:
                conversation.finish()
            if conversation.usable:
                seen += conversation.begin(
                    transaction("b@example.org", "c@example.org")
                )
        ends = [index for index, each in enumerate(seen) if isinstance(each, Ended)]
        self.assertEqual(ends, [len(seen) - 1] if conversation.over else [])


class TransactionTests(ConversationCase):
    """
    MAIL, RCPT, DATA.
    """

    def said(self, events: list[ClientEvent]) -> bytes:
        return b"".join(each.data for each in events if isinstance(each, Send))

    def test_oneByOne(self) -> None:
        """
        Without PIPELINING each command waits for the reply to the last.
        """
        conversation = self.ready()
        mail = transaction("b@example.org", "c@example.org")
        steps: list[tuple[bytes, bytes]] = [
            (b"250 ok\r\n", b"RCPT TO:<b@example.org>\r\n"),
            (b"250 ok\r\n", b"RCPT TO:<c@example.org>\r\n"),
            (b"550 no\r\n", b"DATA\r\n"),
        ]
        self.assertEqual(
            self.said(conversation.begin(mail)), b"MAIL FROM:<a@us.example>\r\n"
        )
        self.assertIs(conversation.awaiting, Awaiting.MAIL)
        for reply, command in steps:
            self.assertEqual(conversation.receive(reply), [Send(command)])
        self.assertEqual(conversation.receive(b"354 go\r\n"), [SendBody()])
        self.assertIs(conversation.awaiting, Awaiting.BODY)
        conversation.finish()
        self.assertIs(conversation.awaiting, Awaiting.END)
        self.assertEqual(self.replies(conversation.receive(b"250 ok\r\n")), [250, 550])
        self.assertTrue(conversation.usable)

    def test_pipelined(self) -> None:
        """
        RFC 2920: with PIPELINING all commands are one write, and the replies are
        separated however they arrive.
        """
        conversation = self.ready("PIPELINING")
        mail = transaction("b@example.org", "c@example.org")
        self.assertEqual(
            conversation.begin(mail),
            [
                Send(
                    b"MAIL FROM:<a@us.example>\r\nRCPT TO:<b@example.org>\r\n"
                    b"RCPT TO:<c@example.org>\r\nDATA\r\n"
                )
            ],
        )
        self.assertEqual(
            conversation.receive(b"250 ok\r\n451 later\r\n250 ok\r\n354 go\r\n"),
            [SendBody()],
        )
        conversation.finish()
        self.assertEqual(self.replies(conversation.receive(b"250 ok\r\n")), [451, 250])

    def test_pipelinedAllRefused(self) -> None:
        """
        RFC 2920 3.1: no recipient is left, but DATA was accepted: a lone dot ends
        that, and the reply to it is ignored.
        """
        conversation = self.ready("PIPELINING")
        conversation.begin(transaction("b@example.org", "c@example.org"))
        events = conversation.receive(b"250 ok\r\n550 no\r\n551 no\r\n354 go\r\n")
        self.assertEqual(events, [Send(b".\r\n")])
        self.assertEqual(
            self.replies(conversation.receive(b"250 queued\r\n")), [550, 551]
        )
        self.assertTrue(conversation.usable)
        self.assertTrue(
            self.said(conversation.begin(transaction())).startswith(b"MAIL")
        )

    def test_pipelinedMailRefused(self) -> None:
        """
        Refused MAIL: its reply applies to all recipients, whatever the replies to the
        commands after it; RSET precedes the next MAIL.
        """
        conversation = self.ready("PIPELINING")
        conversation.begin(transaction("b@example.org", "c@example.org"))
        events = conversation.receive(b"552 full\r\n503 no\r\n250 ok\r\n503 no\r\n")
        self.assertEqual(self.replies(events), [552, 552])
        self.assertTrue(
            self.said(conversation.begin(transaction())).startswith(b"RSET\r\nMAIL")
        )

    def test_refusedOneByOne(self) -> None:
        """
        Without PIPELINING, no DATA follows a refusal of all recipients.
        """
        conversation = self.ready()
        conversation.begin(transaction())
        self.assertEqual(self.replies(conversation.receive(b"451 later\r\n")), [451])
        conversation = self.ready()
        conversation.begin(transaction())
        conversation.receive(b"250 ok\r\n")
        self.assertEqual(self.replies(conversation.receive(b"550 no\r\n")), [550])
        self.assertEqual(self.said(conversation.begin(transaction())), b"RSET\r\n")
        self.assertTrue(
            self.said(conversation.receive(b"250 ok\r\n")).startswith(b"MAIL")
        )

    def test_dataRefused(self) -> None:
        """
        Refused DATA: its reply applies to the accepted recipients.
        """
        for extensions in ((), ("PIPELINING",)):
            conversation = self.ready(*extensions)
            conversation.begin(transaction("b@example.org", "c@example.org"))
            events: list[ClientEvent] = []
            for reply in (b"250 ok\r\n", b"550 no\r\n", b"250 ok\r\n", b"451 no\r\n"):
                events += conversation.receive(reply)
            self.assertEqual(self.replies(events), [550, 451])

    def test_closing(self) -> None:
        """
        RFC 5321 3.8: 421 answers all that is open, at any step.
        """
        steps: list[Callable[[ClientConversation], object]] = [
            lambda conversation: None,
            lambda conversation: conversation.receive(b"250 ok\r\n"),
            lambda conversation: conversation.receive(b"250 ok\r\n"),
            lambda conversation: conversation.receive(b"354 go\r\n"),
            lambda conversation: conversation.finish(),
        ]
        for count in range(1, len(steps) + 1):
            conversation = self.ready()
            conversation.begin(transaction())
            for step in steps[:count]:
                step(conversation)
            events = conversation.receive(b"421 4.3.2 bye\r\n")
            self.assertEqual(self.replies(events), [421])
            self.assertEnded(events, EndCause.REFUSED)
            self.assertFalse(conversation.usable)

    def test_nonsense(self) -> None:
        """
        Replies that don't fit their commands end the conversation.
        """
        for replies in (
            [b"354 go\r\n"],
            [b"250 ok\r\n", b"354 go\r\n"],
            [b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n"],
            [b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 ok\r\n"],
        ):
            conversation = self.ready()
            conversation.begin(transaction())
            events: list[ClientEvent] = []
            for reply in replies:
                events = conversation.receive(reply)
            self.assertEnded(events, EndCause.MALFORMED)

    def test_unasked(self) -> None:
        """
        An unsolicited reply: 421 is valid, any other one isn't.
        """
        self.assertEnded(self.ready().receive(b"421 bye\r\n"), EndCause.REFUSED)
        self.assertEnded(self.ready().receive(b"250 ok\r\n"), EndCause.MALFORMED)

    def test_badRecipient(self) -> None:
        """
        An address that would be two commands is not sent.
        """
        conversation = self.ready()
        events = conversation.begin(transaction("b@example.org>\r\nDATA\r\n"))
        self.assertEqual(self.replies(events), [553])
        conversation = self.ready("PIPELINING")
        events = conversation.begin(transaction("b\n@example.org", "c@example.org"))
        self.assertNotIn(b"b\n", self.said(events))
        conversation.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
        conversation.finish()
        self.assertEqual(self.replies(conversation.receive(b"250 ok\r\n")), [553, 250])

    def test_refusedLocally(self) -> None:
        """
        A message that needs a missing extension is refused without any command.
        """
        conversation = self.ready("SIZE 10")
        events = conversation.begin(transaction("b@example.org", "c@example.org"))
        self.assertEqual(self.replies(events), [552, 552])
        self.assertEqual(self.said(events), b"")
        self.assertTrue(conversation.usable)

    def test_mailMax(self) -> None:
        """
        RFC 9422: when the transactions are used up, there are no more.
        """
        conversation = self.ready("LIMITS MAILMAX=1")
        conversation.begin(transaction())
        conversation.receive(b"550 no\r\n")
        self.assertFalse(conversation.usable)

    def test_quit(self) -> None:
        """
        RFC 5321 4.1.1.10.
        """
        conversation = self.ready()
        self.assertEqual(conversation.quit(), [Send(b"QUIT\r\n")])
        self.assertIs(conversation.awaiting, Awaiting.QUIT)
        self.assertEnded(conversation.receive(b"221 bye\r\n"), EndCause.QUIT)
