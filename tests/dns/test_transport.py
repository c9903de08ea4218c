"""
Tests for L{moxtls.dns.transport}, with a DNS server on loopback.
"""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from moxtls.dns.transport import DNSTransport, NoReply
from moxtls.dns.types import Answer, ExtendedError, LookupStatus, NameServer, RRType
from moxtls.dns.wire import Question
from tests import MAX_WAIT
from tests.dns.server import Deviation, LoopbackServer

ASKED = Question("mx.example.com", RRType.A)


def unusedPort() -> int:
    """
    A port that is most probably unused.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert isinstance(port, int)
        return port


class DNSTransportTests(TestCase):
    """
    Tests for L{DNSTransport}.
    """

    timeout = MAX_WAIT
    host = "127.0.0.1"

    def setUp(self) -> None:
        self.server = LoopbackServer(
            IReactorUDP(reactor), IReactorTCP(reactor), self.host
        )
        self.addCleanup(self.server.stop)
        self.zone = self.server.zone
        self.zone.put("mx.example.com", RRType.A, "192.0.2.1", ad=True)
        self.exchange = DNSTransport(IReactorFDSet(reactor))

    async def ask(self, asked: Question = ASKED) -> Answer:
        reply = await self.exchange.ask(self.server.address, asked)
        assert isinstance(reply, Answer), reply
        return reply

    async def readers(self) -> int:
        await deferLater(IReactorTime(reactor), 0)
        return len(IReactorFDSet(reactor).getReaders())

    async def test_datagram(self) -> None:
        """
        A query is one datagram in each direction; no socket is left open.
        """
        before = await self.readers()
        answer = await self.ask()
        self.assertEqual(answer.addresses, ("192.0.2.1",))
        self.assertTrue(answer.authentic)
        self.assertEqual(self.zone.asked, [("UDP", "mx.example.com", "A")])
        self.assertEqual(await self.readers(), before)

    async def test_negative(self) -> None:
        """
        A negative response is an answer as well.
        """
        answer = await self.ask(Question("nothing.example.com", RRType.A))
        self.assertEqual((answer.status, answer.ttl), (LookupStatus.NO_NAME, 60))

    async def test_forgeries(self) -> None:
        """
        Datagrams with another id, question or source are ignored, and the
        true answer is waited for (RFC 5452 9.1).
        """
        for deviation in (
            Deviation.WRONG_ID,
            Deviation.WRONG_QUESTION,
            Deviation.WRONG_SOURCE,
        ):
            self.zone.deviations.append(deviation)
            answer = await self.ask()
            self.assertEqual(answer.addresses, ("192.0.2.1",), deviation)

    async def test_truncated(self) -> None:
        """
        A truncated answer is repeated over TCP (RFC 7766 5).
        """
        self.zone.put(
            "mx.example.com", RRType.TXT, *(f'"{n} {"x" * 200}"' for n in range(200))
        )
        self.zone.deviations.append(Deviation.TRUNCATE)
        answer = await self.ask(Question("mx.example.com", RRType.TXT))
        self.assertEqual(len(answer.texts), 200)
        self.assertEqual([via for via, _, _ in self.zone.asked], ["UDP", "TCP"])

    async def test_servfail(self) -> None:
        """
        A failure keeps the reason given by the server (RFC 8914).
        """
        self.zone.deviations.append(Deviation.SERVFAIL)
        answer = await self.ask()
        self.assertEqual(
            (answer.status, answer.reason), (LookupStatus.FAILED, "SERVFAIL")
        )
        self.assertEqual(answer.dnssecError, ExtendedError(6, "no signature"))

    async def test_garbage(self) -> None:
        """
        A reply that can't be read is a failure.
        """
        self.zone.deviations.append(Deviation.GARBAGE)
        answer = await self.ask()
        self.assertEqual(answer.reason, "unreadable message")

    async def test_unreachable(self) -> None:
        """
        An unreachable port is detected at once.
        """
        reply = await self.exchange.ask(NameServer(self.host, unusedPort()), ASKED)
        self.assertIsInstance(reply, NoReply)

    async def test_noNetwork(self) -> None:
        """
        An error of the operating system is a value, not an exception.
        """
        reply = await self.exchange.ask(NameServer("255.255.255.255"), ASKED)
        assert isinstance(reply, NoReply)
        self.assertIn("UDP", reply.reason)

    async def test_noTCP(self) -> None:
        """
        A truncated answer is of no use if TCP fails.
        """
        await self.server.stopStream()
        self.zone.deviations.append(Deviation.TRUNCATE)
        reply = await self.exchange.ask(self.server.address, ASKED)
        assert isinstance(reply, NoReply)
        self.assertIn("TCP", reply.reason)

    async def test_hangUp(self) -> None:
        """
        Neither if it hangs up.
        """
        self.zone.streamDeviations.append(Deviation.HANG_UP)
        self.zone.deviations.append(Deviation.TRUNCATE)
        reply = await self.exchange.ask(self.server.address, ASKED)
        assert isinstance(reply, NoReply)
        self.assertIn("TCP", reply.reason)

    async def test_cancel(self) -> None:
        """
        Giving up closes the socket.
        """
        before = await self.readers()
        self.zone.deviations.append(Deviation.DROP)
        reply = self.exchange.ask(self.server.address, ASKED)
        self.assertEqual(await self.readers(), before + 1)
        reply.cancel()
        await self.assertFailure(reply, CancelledError)
        self.assertEqual(await self.readers(), before)

    async def test_cancelStream(self) -> None:
        """
        Giving up closes a connection over TCP, too.
        """
        before = await self.readers()
        self.zone.streamDeviations.append(Deviation.DROP)
        self.zone.deviations.append(Deviation.TRUNCATE)
        reply = self.exchange.ask(self.server.address, ASKED)
        while ("TCP", "mx.example.com", "A") not in self.zone.asked:
            await deferLater(IReactorTime(reactor), 0)
        reply.cancel()
        await self.assertFailure(reply, CancelledError)
        while await self.readers() > before:
            pass

    async def test_ports(self) -> None:
        """
        Each question has a port of its own, even when there are many
        (RFC 5452 9.2).
        """
        answers = [self.exchange.ask(self.server.address, ASKED) for _ in range(50)]
        self.assertEqual(len(await gatherResults(answers)), 50)
        self.assertGreater(len(set(self.zone.ports)), 40)


class DNSTransportIPv6Tests(DNSTransportTests):
    """
    The same over IPv6.
    """

    host = "::1"

    def setUp(self) -> None:
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as trial:
                trial.bind((self.host, 0))
        except OSError as error:
            raise SkipTest("this machine has no IPv6") from error
        super().setUp()
