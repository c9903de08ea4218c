"""
Tests for L{moxtls.mailbox.lmtp}.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.domain import Domain
from moxtls.interfaces import IMailbox
from moxtls.mailbox.lmtp import (
    IDLE_TIMEOUT,
    QUEUE_TIMEOUT,
    REPLY_TIMEOUT,
    LMTPFailed,
    LMTPStore,
    lmtpEndpoint,
)
from moxtls.mailbox.names import InvalidMailbox, MailboxFull, MailboxRefused
from tests.mailbox.lmtpserver import LMTPNetwork


class TornSequence(Sequence[bytes]):
    """
    A message that can't be read any more once its length is known.
    """

    def __init__(self) -> None:
        self._left = 1

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: object) -> bytes:  # type: ignore[override]
        if index != 0:
            raise IndexError
        self._left -= 1
        if self._left < 0:
            raise OSError("torn")
        return b"half"


class LMTPTests(SynchronousTestCase):
    """
    Tests for L{LMTPStore} and its mailboxes.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = LMTPNetwork()
        self.store = LMTPStore(
            self.clock, self.network, Domain("mx.example"), "+", maxConnections=2
        )
        self.mailbox = self.store.mailboxOf("anna")

    def begin(
        self, message: Sequence[bytes] = (b"x\r\n",), mailbox: str = "Inbox"
    ) -> Deferred[None]:
        return self.mailbox.deliver(mailbox, message)

    def deliver(
        self, message: Sequence[bytes] = (b"x\r\n",), mailbox: str = "Inbox"
    ) -> Deferred[None]:
        delivery = self.begin(message, mailbox)
        self.network.pump()
        return delivery

    def test_interface(self) -> None:
        """
        The store provides its interface.
        """
        verifyObject(IMailbox, self.mailbox)

    def test_delivered(self) -> None:
        """
        Messages of any content arrive unchanged (RFC 5321 4.5.2), for the account or
        one of its mailboxes, with the reverse-path in MAIL.
        """
        path = b"Return-Path: <us@there.example>\r\n"
        message = [path + b"Subject: a\r\n", b"\r\n..\r\n.\r", b"\n.b\r\n"]
        self.successResultOf(self.deliver(message))
        self.successResultOf(self.deliver([b"x\r\n"], "Lists/a b"))
        self.assertEqual(
            self.network.stored,
            [
                ("anna@mx.example", b"Subject: a\r\n\r\n..\r\n.\r\n.b\r\n"),
                ('"anna+Lists/a b"@mx.example', b"x\r\n"),
            ],
        )
        [server] = self.network.servers
        self.assertEqual(
            server.said[:2],
            ["LHLO mx.example", "MAIL FROM:<us@there.example> SIZE=25 BODY=8BITMIME"],
        )
        self.assertEqual(server.said.count("LHLO mx.example"), 1)

    def test_large(self) -> None:
        """
        A message is sent at the server's pace.
        """
        body = [b"y" * 70 + b"\r\n"] * 5000
        self.successResultOf(self.deliver(body))
        self.assertEqual(self.network.stored[0][1], b"".join(body))

    def test_unicode(self) -> None:
        """
        Without SMTPUTF8 the server doesn't get a reverse-path that isn't ASCII,
        but the message (RFC 6531 3.2).
        """
        self.successResultOf(
            self.deliver(["Return-Path: <\u00e9@a.example>\r\nx\r\n".encode()])
        )
        self.assertIn("MAIL FROM:<> ", self.network.servers[0].said[1])

    def test_refused(self) -> None:
        """
        A reply of each kind, to each command (RFC 2033 4.2).
        """
        for word, reply, why in [
            ("END", "552 5.2.2 full", MailboxFull),
            ("END", "552 full", MailboxFull),
            ("RCPT", "550 5.2.2 full", MailboxFull),
            ("END", "552 5.3.4 too large", MailboxRefused),
            ("RCPT", "550 5.1.1 nobody", MailboxRefused),
            ("MAIL", "550 no", MailboxRefused),
            ("DATA", "554 no", MailboxRefused),
            ("END", "452 4.2.2 full", LMTPFailed),
            ("RCPT", "451 4.3.0 later", LMTPFailed),
            ("END", "421 4.3.2 going", LMTPFailed),
            ("END", "", LMTPFailed),
            ("RCPT", "nonsense", LMTPFailed),
        ]:
            self.network.answers = {word: reply}
            self.failureResultOf(self.deliver(), why)
            self.network.answers = {}
            self.successResultOf(self.deliver())
        for word in ("GREETING", "LHLO"):
            self.setUp()
            self.network.answers = {word: "500 no"}
            self.failureResultOf(self.deliver(), LMTPFailed)

    def test_tooLarge(self) -> None:
        """
        A message larger than the server's announced limit is refused without
        sending it (RFC 1870 6.3).
        """
        self.assertTrue(self.successResultOf(self.mailbox.hasRoom(2**40)))
        self.successResultOf(self.deliver())
        self.assertTrue(self.successResultOf(self.mailbox.hasRoom(1_000_000)))
        self.assertFalse(self.successResultOf(self.mailbox.hasRoom(1_000_001)))
        large = [b"x" * 1_000_001]
        self.failureResultOf(self.deliver(large), MailboxRefused)

    def test_unreachable(self) -> None:
        """
        A server that isn't there may be later.
        """
        self.network.reachable = False
        self.failureResultOf(self.deliver(), LMTPFailed)
        self.network.reachable = True
        self.successResultOf(self.deliver())

    def test_hungUp(self) -> None:
        """
        If the server closes an idle connection, the next message uses a new one.
        """
        self.successResultOf(self.deliver())
        self.network.servers[0].hangUp()
        self.successResultOf(self.deliver())
        self.network.pump()
        self.assertEqual(len(self.network.stored), 2)

    def test_names(self) -> None:
        """
        No name leads anywhere else.
        """
        self.failureResultOf(self.deliver([b"x"], "../x"), InvalidMailbox)
        self.failureResultOf(self.deliver([b"x"], "x>\r\n"), InvalidMailbox)
        self.assertEqual(self.network.servers, [])

    def test_torn(self) -> None:
        """
        A message that can't be read completely isn't stored.
        """
        self.failureResultOf(self.deliver(TornSequence()), OSError)
        self.assertEqual(self.network.stored, [])
        self.successResultOf(self.deliver())

    def test_bounded(self) -> None:
        """
        The number of connections is limited, and all messages are delivered in turn.
        """
        deliveries = [self.begin() for _ in range(10)]
        self.assertEqual(len(self.network.servers), 2)
        self.network.pump()
        for each in deliveries:
            self.successResultOf(each)
        self.assertEqual(len(self.network.servers), 2)
        self.assertEqual(len(self.network.stored), 10)

    def test_turn(self) -> None:
        """
        If the server hangs, a message doesn't wait for a connection until the SMTP
        client sends it again (RFC 5321 4.5.3.2.6).
        """
        self.network.answers = {"END": None}
        waiting = [self.begin() for _ in range(3)]
        self.clock.advance(QUEUE_TIMEOUT)
        self.assertNoResult(waiting[0])
        self.failureResultOf(waiting.pop(), LMTPFailed)
        for each in waiting:
            each.cancel()
            self.failureResultOf(each, CancelledError)

    def test_slow(self) -> None:
        """
        A silent server times out.
        """
        self.network.answers = {"END": None}
        delivery = self.deliver()
        self.clock.advance(REPLY_TIMEOUT - 1)
        self.assertNoResult(delivery)
        self.clock.advance(1)
        self.failureResultOf(delivery, LMTPFailed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """
        An unused connection is closed.
        """
        self.successResultOf(self.deliver())
        self.clock.advance(IDLE_TIMEOUT)
        self.network.pump()
        self.assertEqual(self.network.servers[0].said[-1], "QUIT")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.deliver())
        self.assertEqual(len(self.network.servers), 2)

    def test_cancelled(self) -> None:
        """
        Cancellation closes the connection, as nothing else prevents the message from
        being stored.
        """
        self.network.answers = {"RCPT": None}
        delivery = self.deliver()
        delivery.cancel()
        self.failureResultOf(delivery, CancelledError)
        self.network.pump()
        self.network.answers = {}
        self.successResultOf(self.deliver())
        self.assertEqual(len(self.network.servers), 2)

    def test_stop(self) -> None:
        """
        Stopping sends QUIT on idle connections and aborts the others; no new
        delivery starts.
        """
        first, second = self.begin(), self.begin()
        self.network.pump()
        self.successResultOf(first)
        self.successResultOf(second)
        self.network.answers = {"RCPT": None}
        busy = self.deliver()
        waiting = [self.begin(), self.begin()]
        stopped = self.store.stop()
        self.network.pump()
        self.successResultOf(stopped)
        for each in (busy, *waiting):
            self.failureResultOf(each, LMTPFailed)
        self.failureResultOf(self.deliver(), LMTPFailed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopWhileConnecting(self) -> None:
        """
        A connection in progress is cancelled; if it succeeds all the same, it is
        closed at once.
        """

        @implementer(IStreamClientEndpoint)
        class Slow:
            """
            Connects on request, even after it was cancelled.
            """

            def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
                self.factory = factory
                self.isCancelled = False
                return Deferred(self.cancelled)

            def cancelled(self, connecting: Deferred[IProtocol]) -> None:
                self.isCancelled = True

        slow = Slow()
        store = LMTPStore(self.clock, slow, Domain("mx.example"), "+")
        delivery = store.mailboxOf("anna").deliver("Inbox", [b"x\r\n"])
        stopped = store.stop()
        self.assertTrue(slow.isCancelled)
        self.failureResultOf(delivery, LMTPFailed)
        self.successResultOf(stopped)
        protocol = slow.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 24))
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.assertTrue(transport.disconnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EndpointTests(SynchronousTestCase):
    """
    Tests for L{lmtpEndpoint}.
    """

    def test_kinds(self) -> None:
        """
        IP addresses of both versions, and sockets in the file system.
        """
        kinds: list[tuple[tuple[str, int] | str, type]] = [
            (("127.0.0.1", 24), TCP4ClientEndpoint),
            (("::1", 24), TCP6ClientEndpoint),
            ("/run/lmtp", UNIXClientEndpoint),
        ]
        for address, kind in kinds:
            self.assertIsInstance(lmtpEndpoint(Clock(), address), kind)
