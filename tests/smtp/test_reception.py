"""
Tests for L{moxtls.smtp.reception}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.domain import Address
from moxtls.smtp.acceptor import IAcceptor, IMessageSink
from moxtls.smtp.events import Incoming
from moxtls.smtp.received import Client
from moxtls.smtp.reception import LocalReception, ReceivedMessage
from moxtls.smtp.values import Reply

CLIENT = Client("192.0.2.1", "client.example")
POSTMASTER = Address.parse("postmaster@mx.example")


class LocalReceptionTests(SynchronousTestCase):
    """
    Tests for L{LocalReception}.
    """

    def setUp(self) -> None:
        self.delivered: list[ReceivedMessage] = []
        self.answer: Deferred[None] = succeed(None)
        self.reception = LocalReception(
            Clock(),
            "mx.example",
            lambda: "id1",
            lambda address: address == POSTMASTER,
            self.deliver,
        )

    def deliver(self, message: ReceivedMessage) -> Deferred[None]:
        self.delivered.append(message)
        return self.answer

    def receive(self, *chunks: bytes) -> Reply:
        """
        Hand a message to the acceptor.
        """
        recipients = ("postmaster", "postmaster@MX.example")
        incoming = Incoming("a@a.example", recipients=recipients)
        sink = self.reception.message(CLIENT, incoming)
        verifyObject(IMessageSink, sink)
        for chunk in chunks:
            sink.write(chunk)
        return self.successResultOf(sink.finish())

    def test_recipients(self) -> None:
        """
        Nobody else gets mail here: this is no relay (RFC 5321 3.6.2).
        """
        verifyObject(IAcceptor, self.reception)
        incoming = Incoming("a@a.example")
        for recipient, code in (
            ("postmaster", 250),
            ("Postmaster@MX.example", 550),
            ("postmaster@MX.example", 250),
            ("b@b.example", 550),
        ):
            asked = self.reception.rcptTo(CLIENT, incoming, recipient)
            self.assertEqual(self.successResultOf(asked).code, code, recipient)

    def test_delivered(self) -> None:
        """
        A message is delivered once, with its trace (RFC 5321 4.4).
        """
        self.assertEqual(self.receive(b"A: b\r\n", b"\r\n").code, 250)
        [message] = self.delivered
        self.assertEqual(message.sender, "a@a.example")
        self.assertEqual(message.recipients, (POSTMASTER,))
        text = b"".join(message.message)
        self.assertTrue(
            text.startswith(b"Return-Path: <a@a.example>\r\nReceived: from")
        )
        self.assertIn(b"for <postmaster@mx.example>;", text)
        self.assertTrue(text.endswith(b" +0000\r\nA: b\r\n\r\n"))

    def test_notDelivered(self) -> None:
        """
        If it can't be kept, the client tries again later.
        """
        self.answer = fail(OSError("disk"))
        self.assertEqual(self.receive(b"A: b\r\n").code, 451)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
