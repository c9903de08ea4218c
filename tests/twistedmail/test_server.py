"""
Tests for L{moxtls.twistedmail.server}: filters on the mail that servers of
C{twisted.mail.smtp} receive.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet import _producer_helpers
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, Cooperator
from twisted.mail import smtp
from twisted.mail.imap4 import PLAINCredentials
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.message.header import ClientInfo
from moxtls.smtp.types import Reply
from moxtls.twistedmail.messages import FilterResult, IFilteredMessage, IMessageFilter
from moxtls.twistedmail.server import filterServer
from tests.certificates import good
from tests.smtp.stock import (
    Connection,
    Delivery,
    KeptMessage,
    Realm,
    portal,
    stockFactory,
)
from tests.starttls import CLIENT_IP, Link, ServerTLSCreator
from tests.twistedmail.test_client import verifying

TEXT = b"From: x@a.example\r\nSubject: hi\r\n\r\nfirst\r\n.second\r\n"
LINES = [b"From: x@a.example", b"Subject: hi", b"", b"first", b".second"]
SEEN = b"X-Seen: yes\r\n\tindeed\r\n"
FOLDED = [b"X-Seen: yes", b"\tindeed"]


@implementer(IMessageFilter)
class Asked:
    """
    Records its calls, and returns prepared results.
    """

    def __init__(self) -> None:
        self.expected: list[tuple[ClientInfo, str]] = []
        self.messages: list[FilteredMessage] = []
        self.answer: Deferred[FilterResult] | None = None
        self.isFull = False

    def expect(self, client: ClientInfo, sender: str) -> None:
        self.expected.append((client, sender))

    def message(self, client: ClientInfo, sender: str) -> FilteredMessage:
        self.messages.append(FilteredMessage(self, client, sender))
        return self.messages[-1]


@implementer(IFilteredMessage)
class FilteredMessage:
    """
    A message that is filtered.
    """

    def __init__(self, asked: Asked, client: ClientInfo, sender: str) -> None:
        self.asked = asked
        self.client = client
        self.sender = sender
        self.text = b""
        self.recipients: list[str] = []
        self.isClosed = False

    def write(self, chunk: bytes) -> None:
        if self.asked.isFull:
            raise OSError("disk full")
        self.text += chunk

    def finish(self, recipients: Sequence[str]) -> Deferred[FilterResult]:
        self.recipients += recipients
        if self.asked.answer is not None:
            return self.asked.answer
        return succeed(FilterResult(None, SEEN, [self.text]))

    def close(self) -> None:
        self.isClosed = True


class ServerCase(SynchronousTestCase):
    """
    Servers that are captured.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = Asked()
        self.delivery = Delivery()

    def captured(
        self, factory: IProtocolFactory | None = None, **choices: Any
    ) -> IProtocolFactory:
        stock = factory or stockFactory(delivery=self.delivery)
        return filterServer(self.clock, stock, self.asked, **choices)

    def connection(
        self, factory: IProtocolFactory | None = None, **choices: Any
    ) -> Connection:
        return Connection(self.captured(factory, **choices), helo="mail.a.example")

    def kept(self, name: str) -> KeptMessage:
        """
        The lines that the application has of one recipient's message.
        """
        (message,) = self.delivery.mail[name]
        return message

    def refused(self) -> int:
        """
        The number of failed messages in the protocol's log.
        """
        return len(self.flushLoggedErrors(smtp.SMTPServerError))


class PassTests(ServerCase):
    """
    Mail that is passed on.
    """

    def test_interfaces(self) -> None:
        """
        The fakes implement the interfaces.
        """
        verifyObject(IMessageFilter, self.asked)
        message = self.asked.message(ClientInfo(), "")
        verifyObject(IFilteredMessage, message)
        verifyObject(IProtocolFactory, self.captured())

    def test_passed(self) -> None:
        """
        Every recipient gets the message once, with the results on top, followed by
        its own Received; it is filtered once.
        """
        connection = self.connection()
        self.assertEqual(
            connection.begin("x@a.example", "anna", "nobody", "bob"),
            [
                "250 Sender address accepted",
                "250 Recipient address accepted",
                "550 Cannot receive for specified address",
                "250 Recipient address accepted",
                "354 Continue",
            ],
        )
        self.assertEqual(connection.send(TEXT), ["250 Delivery in progress"])
        for name in ("anna", "bob"):
            kept = self.kept(name)
            trace = f"Received: by stock\n\tfor {name}@our.example".encode()
            self.assertEqual(kept.lines, [*FOLDED, trace, *LINES])
            self.assertTrue(kept.ended)
            self.assertEqual(kept.lost, 0)
        (message,) = self.asked.messages
        self.assertEqual(message.text, TEXT)
        self.assertEqual(message.recipients, ["anna@our.example", "bob@our.example"])
        self.assertEqual(message.client, ClientInfo("192.0.2.1", "mail.a.example"))
        self.assertEqual(message.sender, "x@a.example")
        self.assertTrue(message.isClosed)
        self.assertEqual(self.asked.expected, [(message.client, "x@a.example")])

    def test_sameWithout(self) -> None:
        """
        To any input, the server replies as it would without moxtls.
        """
        words = [
            "NOOP",
            "RCPT TO:<a@our.example>",
            "DATA",
            "MAIL FROM:<evil@a.example>",
        ]
        words += ["MAIL FROM:<>", "RCPT TO:<anna@our.example>", "RSET", "DATA"]
        words += ["MAIL FROM:<a@b>", "RCPT TO:<nobody@our.example>", "DATA"]
        words += ["RCPT TO:<anna@our.example>", "DATA", "no header", ".", "DATA"]
        words += ["MAIL FROM:<\N{SNOWMAN}@b>", 'MAIL FROM:<"\N{SNOWMAN}"@b>', "QUIT"]
        both = []
        for factory in (self.captured(), stockFactory(delivery=Delivery())):
            connection = Connection(factory, helo="mail.a.example")
            both.append([connection.say(word) for word in words])
        self.assertEqual(*both)
        self.assertIn(["250 Delivery in progress"], both[0])
        self.assertEqual(self.kept("anna").lines[3:], [b"", b"no header"])

    def test_noReceived(self) -> None:
        """
        If the application adds no Received, the first line is the message's.
        """
        self.delivery.trace = b""
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        connection.send(TEXT)
        self.assertEqual(self.kept("anna").lines, [*FOLDED, *LINES])

    def test_empty(self) -> None:
        """
        A message of no line at all is one.
        """
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        self.assertEqual(connection.send(b""), ["250 Delivery in progress"])
        self.assertEqual(self.asked.messages[0].text, b"")

    def test_next(self) -> None:
        """
        Each transaction is filtered by itself, also after an abandoned one.
        """
        connection = self.connection()
        connection.say("MAIL FROM:<x@a.example>", "RCPT TO:<bob@our.example>", "RSET")
        for sender in ("y@a.example", ""):
            connection.begin(sender, "anna")
            connection.send(TEXT)
        self.assertNotIn("bob", self.delivery.mail)
        self.assertEqual(
            [(each.sender, each.recipients) for each in self.asked.messages],
            [("y@a.example", ["anna@our.example"]), ("", ["anna@our.example"])],
        )

    def test_later(self) -> None:
        """
        The application may take its time over a recipient.
        """
        connection = self.connection()
        connection.say("MAIL FROM:<x@a.example>", "RCPT TO:<later@our.example>")
        self.delivery.waiting[0].callback(None)
        self.assertEqual(connection.replies(), ["250 Recipient address accepted"])
        connection.say("DATA")
        self.assertEqual(connection.send(TEXT), ["250 Delivery in progress"])
        self.assertTrue(self.kept("later").ended)

    def test_bareLineEnds(self) -> None:
        """
        A bare CR or LF is a line end in a header, so that no field escapes the
        filter (RFC 5322 2.3); in a body it is kept.
        """
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        connection.send(b"From: x\nA: b\rC: d\r\n\r\nbo\ndy\r\n")
        expected = b"From: x\r\nA: b\r\nC: d\r\n\r\nbo\ndy\r\n"
        self.assertEqual(self.asked.messages[0].text, expected)
        self.assertEqual(self.kept("anna").lines[-1], b"bo\ndy")

    def test_doubledCR(self) -> None:
        """
        Clients of C{twisted.mail} that are given CRLF send CR CR LF: that is
        one line end, and no end of the header.
        """
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        connection.send(b"From: x\r\r\nA: b\r\r\n\r\r\nbody\r\r\n")
        expected = b"From: x\r\nA: b\r\n\r\nbody\r\r\n"
        self.assertEqual(self.asked.messages[0].text, expected)

    def test_chunks(self) -> None:
        """
        Lines don't suffer from the chunks they come in.
        """
        text = b"A: b\r\n\r\nli\rne\r\r\n\r\n"
        for size in (1, 2, 3, 7):
            chunks = [text[at : at + size] for at in range(0, len(text), size)]
            self.asked.answer = succeed(FilterResult(message=chunks))
            connection = self.connection()
            connection.begin("x@a.example", "anna")
            self.assertEqual(connection.send(TEXT), ["250 Delivery in progress"])
            kept = self.delivery.mail["anna"].pop()
            self.assertEqual(kept.lines[1:], [b"A: b", b"", b"li\rne\r", b""])

    def test_long(self) -> None:
        """
        While a long message is passed on, others have their turn.
        """
        chunks = [(b"x" * 70 + b"\r\n") * 1000] * 3
        self.asked.answer = succeed(FilterResult(message=chunks))
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        self.assertEqual(connection.send(TEXT), [])
        self.assertEqual(len(self.kept("anna").lines), 1 + 1000)
        self.clock.advance(0)
        self.assertEqual(len(self.kept("anna").lines), 1 + 3000)
        self.assertEqual(connection.replies(), ["250 Delivery in progress"])


class RefusalTests(ServerCase):
    """
    Mail that isn't passed on.
    """

    def test_refused(self) -> None:
        """
        The client gets the reason (RFC 9989 7.2), no recipient gets the message,
        and the next one isn't affected.
        """
        words = Reply(550, "5.7.1", "Refused because of DMARC:\nindeed")
        self.asked.answer = succeed(FilterResult(words))
        connection = self.connection()
        connection.begin("x@a.example", "anna", "bob")
        self.assertEqual(
            connection.send(TEXT),
            ["550-5.7.1 Refused because of DMARC:", "550 5.7.1 indeed"],
        )
        self.assertEqual(self.refused(), 1)
        for name in ("anna", "bob"):
            kept = self.kept(name)
            self.assertEqual((kept.ended, kept.lost), (False, 1))
            self.assertEqual(kept.lines, [])
        self.assertTrue(self.asked.messages[0].isClosed)
        self.asked.answer = None
        connection.begin("x@a.example", "anna")
        self.assertEqual(connection.send(TEXT), ["250 Delivery in progress"])

    def test_refusedLater(self) -> None:
        """
        The verdict may take a while.
        """
        answer: Deferred[FilterResult] = Deferred()
        self.asked.answer = answer
        connection = self.connection()
        connection.begin("x@a.example", "anna", "bob")
        self.assertEqual(connection.send(TEXT), [])
        answer.callback(FilterResult(Reply(550, "5.7.1", "No")))
        self.assertEqual(connection.replies(), ["550 5.7.1 No"])
        self.assertEqual(self.refused(), 1)

    def test_tooLarge(self) -> None:
        """
        Data beyond the limit is discarded as it arrives.
        """
        connection = self.connection(maxSize=100)
        connection.begin("x@a.example", "anna", "bob")
        text = b"A: b\r\n\r\n" + b"x" * 60 + b"\r\n"
        connection.protocol.dataReceived(text * 50)
        self.assertLessEqual(len(self.asked.messages[0].text), 100)
        self.assertTrue(self.asked.messages[0].isClosed)
        reply = "552 5.3.4 Message is larger than this server takes"
        self.assertEqual(connection.send(b""), [reply])
        self.assertEqual(self.kept("anna").lost, 1)
        self.assertEqual(self.kept("bob").lost, 1)
        connection.begin("x@a.example", "anna")
        self.assertEqual(connection.send(TEXT), ["250 Delivery in progress"])

    def test_noSpace(self) -> None:
        """
        A full disk is a temporary failure.
        """
        self.asked.isFull = True
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        (reply,) = connection.send(TEXT)
        self.assertEqual(reply[:9], "452 4.3.1")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_hungUp(self) -> None:
        """
        If the client disconnects during the message, C{connectionLost} is called on
        all recipients' messages, and the data is discarded.
        """
        connection = self.connection()
        connection.begin("x@a.example", "anna", "bob")
        connection.protocol.dataReceived(TEXT)
        connection.hangUp()
        self.assertTrue(self.asked.messages[0].isClosed)
        for name in ("anna", "bob"):
            self.assertEqual(self.kept(name).lost, 1)
            self.assertFalse(self.kept(name).ended)

    def test_hungUpAfterwards(self) -> None:
        """
        A complete message is delivered even if the client disconnects before the
        reply (RFC 5321 4.5.3.2.6).
        """
        answer: Deferred[FilterResult] = Deferred()
        self.asked.answer = answer
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        connection.send(TEXT)
        connection.hangUp()
        answer.callback(FilterResult(message=[TEXT]))
        self.assertTrue(self.kept("anna").ended)

    def test_lineTooLong(self) -> None:
        """
        The protocol refuses a message for a reason of its own.
        """
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        connection.protocol.dataReceived(b"A: b\r\n" + b"x" * 20_000 + b"\r\n")
        self.assertIn("500 Line too long", connection.replies())
        self.assertTrue(self.asked.messages[0].isClosed)
        self.assertEqual(self.kept("anna").lost, 1)


class ErrorTests(ServerCase):
    """
    Errors of the filter and of the application.
    """

    def test_broken(self) -> None:
        """
        If there is no answer at all, the client keeps the message.
        """
        self.asked.answer = fail(RuntimeError("a mistake"))
        connection = self.connection()
        connection.begin("x@a.example", "anna", "bob")
        (reply,) = connection.send(TEXT)
        self.assertEqual(reply[:9], "451 4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.refused(), 1)
        self.assertEqual(self.kept("bob").lost, 1)

    def test_failing(self) -> None:
        """
        The application can't keep the message of one recipient: the server
        answers as it always does.
        """
        answers: list[Deferred[Any]] = [fail(RuntimeError("no")), succeed(None)]
        self.delivery.make = lambda: KeptMessage(answers.pop())
        connection = self.connection()
        connection.begin("x@a.example", "anna", "bob")
        reply = "550 Could not send e-mail (1 failures out of 2 recipients)"
        self.assertEqual(connection.send(TEXT), [reply])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_slow(self) -> None:
        """
        The client waits for the application.
        """
        answer: Deferred[Any] = Deferred()
        self.delivery.make = lambda: KeptMessage(answer)
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        self.assertEqual(connection.send(TEXT), [])
        answer.callback(None)
        self.assertEqual(connection.replies(), ["250 Delivery in progress"])

    def test_applicationRefuses(self) -> None:
        """
        An application's refusal of the message's content is passed on, as without a
        filter.
        """
        for words in ("No viruses", b"No viruses"):
            kept = KeptMessage()
            kept.trouble = smtp.SMTPServerError(554, words)
            self.delivery.make = lambda kept=kept: kept
            self.delivery.trace = b""
            connection = self.connection()
            connection.begin("x@a.example", "anna")
            self.assertEqual(connection.send(TEXT), ["554 No viruses"])
            self.assertEqual((kept.ended, kept.lost), (False, 1))
        self.assertEqual(self.refused(), 2)

    def test_applicationBroken(self) -> None:
        """
        Errors of the application lose no mail.
        """
        kept = KeptMessage()
        kept.trouble = RuntimeError("a mistake")
        self.delivery.make = lambda: kept
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        (reply,) = connection.send(TEXT)
        self.assertEqual(reply[:3], "451")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.refused(), 1)

    def test_refusedAtData(self) -> None:
        """
        An application can refuse at DATA; C{connectionLost} is called on messages
        made before.
        """
        messages: list[Any] = [smtp.SMTPServerError(450, b"Not now"), KeptMessage()]

        def make() -> KeptMessage:
            message = messages.pop()
            if isinstance(message, KeptMessage):
                return message
            raise message

        self.delivery.make = make
        connection = self.connection()
        replies = connection.begin("x@a.example", "anna", "bob")
        self.assertEqual(replies[-1], "450 Not now")
        self.assertEqual(self.kept("anna").lost, 1)
        self.assertEqual(connection.say("RSET"), ["250 I remember nothing."])


class DeploymentTests(ServerCase):
    """
    All ways in which deliveries and protocols come together.
    """

    def assertCaptured(self, factory: IProtocolFactory) -> Connection:
        connection = self.connection(factory)
        connection.begin("x@a.example", "anna")
        self.assertEqual(connection.send(TEXT), ["250 Delivery in progress"])
        self.assertEqual(self.kept("anna").lines[:2], FOLDED)
        return connection

    def test_deliveryFactory(self) -> None:
        """
        A delivery for each message.
        """
        self.assertCaptured(stockFactory(deliveryFactory=self.delivery))

    def test_portal(self) -> None:
        """
        The delivery of an anonymous avatar is filtered.
        """
        factory = stockFactory()
        factory.portal = portal(self.delivery)
        connection = self.assertCaptured(factory)
        self.assertEqual(len(self.asked.messages), 1)
        connection.begin("y@a.example", "bob")
        self.assertEqual(connection.send(TEXT), ["250 Delivery in progress"])
        self.assertEqual(self.asked.messages[1].sender, "y@a.example")

    def test_noPortal(self) -> None:
        """
        Mail of a client that the portal refuses isn't filtered.
        """
        factory = stockFactory()
        factory.portal = Portal(Realm(self.delivery), [])
        connection = self.connection(factory)
        (reply,) = connection.say("MAIL FROM:<x@a.example>")
        self.assertIn("Unauthenticated senders not allowed", reply)
        self.assertEqual(self.asked.expected, [])

    def test_smtp(self) -> None:
        """
        Without ESMTP.
        """
        self.assertCaptured(stockFactory(smtp.SMTP, delivery=self.delivery))
        self.assertEqual(self.asked.messages[0].client.helo, "")

    def test_overridden(self) -> None:
        """
        Protocols that validate by themselves.
        """
        outer = self

        class Own(smtp.SMTP):
            def validateFrom(self, helo: Any, origin: Any) -> Any:
                return origin

            def validateTo(self, user: Any) -> Any:
                return outer.delivery.validateTo(user)

            def receivedHeader(self, *about: Any) -> bytes:
                return b"Received: here"

        self.assertCaptured(stockFactory(Own))

    def test_wrapped(self) -> None:
        """
        Protocols inside of policies.
        """
        stock = stockFactory(delivery=self.delivery)
        wrapping = WrappingFactory(stock)
        wrapping.noisy = False
        self.assertCaptured(wrapping)

    def test_other(self) -> None:
        """
        A factory that builds another kind of protocol is an error; one that builds
        none refuses the connection.
        """
        peer = IPv4Address("TCP", "192.0.2.1", 1)
        other = self.captured(Factory.forProtocol(Protocol))
        self.assertRaises(TypeError, other.buildProtocol, peer)

        class Full(smtp.SMTPFactory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        self.assertIsNone(self.captured(Full()).buildProtocol(peer))

    def test_startAndStop(self) -> None:
        """
        The wrapped factory is started and stopped with the port.
        """
        heard = []
        stock: Any = stockFactory()
        stock.startFactory = lambda: heard.append("start")
        stock.stopFactory = lambda: heard.append("stop")
        factory = self.captured(stock)
        factory.doStart()
        factory.doStop()
        self.assertEqual(heard, ["start", "stop"])

    def login(self, **choices: Any) -> Connection:
        factory = stockFactory(
            challengers={b"PLAIN": PLAINCredentials},
        )
        factory.portal = portal(self.delivery)
        connection = self.connection(factory, **choices)
        secret = base64.b64encode(b"\0user\0pw").decode()
        (reply,) = connection.say(f"AUTH PLAIN {secret}")
        self.assertEqual(reply[:3], "235")
        connection.begin("x@a.example", "anna")
        self.assertEqual(connection.send(TEXT), ["250 Delivery in progress"])
        return connection

    def test_authenticated(self) -> None:
        """
        Mail of authenticated users isn't filtered (RFC 6409).
        """
        self.login()
        self.assertEqual(self.asked.messages, [])
        self.assertEqual(self.kept("anna").lines[1:], LINES)

    def test_authenticatedToo(self) -> None:
        """
        Unless the programmer wants that.
        """
        self.login(checkAuthenticated=True)
        self.assertEqual(len(self.asked.messages), 1)

    def test_startTLS(self) -> None:
        """
        TLS is the protocol's own, and filters work the same in it.
        """
        stock = stockFactory(
            delivery=self.delivery, ctx=ServerTLSCreator(good().context())
        )
        server: Any = self.captured(stock).buildProtocol(
            IPv4Address("TCP", CLIENT_IP, 1)
        )
        # By which Twisted's TLS pulls from a FileSender: else on the reactor.
        cooperator = Cooperator(scheduler=lambda go: self.clock.callLater(0, go))
        self.patch(_producer_helpers, "cooperate", cooperator.cooperate)
        sent: Deferred[Any] = Deferred()
        sender = smtp.ESMTPSenderFactory(
            None,
            None,
            "x@us.example",
            "anna@our.example",
            BytesIO(b"Subject: hi\n\nhi\n"),
            sent,
            retries=0,
            contextFactory=verifying(),
            requireAuthentication=False,
        )
        sender.noisy = False
        client = sender.buildProtocol(IPv4Address("TCP", CLIENT_IP, 25))
        link = Link(client, server, self.clock)
        server.canStartTLS = True
        link.flush()
        self.assertTrue(server.startedTLS)
        self.assertEqual(self.successResultOf(sent)[0], 1)
        (message,) = self.asked.messages
        self.assertEqual(message.client, ClientInfo(CLIENT_IP, "localhost"))
        self.assertEqual(self.kept("anna").lines[-1], b"hi")
