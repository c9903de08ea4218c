"""
Tests for L{moxtls.dns.resolver}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet import reactor
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    fail,
    gatherResults,
    succeed,
)
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

import moxtls.dns.resolver as resolverModule
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.resolver import (
    PROBE_INTERVAL,
    QUERY_TIMEOUT,
    SERVER_TIMEOUTS,
    FairResolver,
    ProbedResolver,
    Resolver,
)
from moxtls.dns.transport import DNSTransport, NoReply
from moxtls.dns.types import (
    IP,
    Answer,
    CNAMELink,
    ExtendedError,
    LookupStatus,
    NameRecord,
    NameServer,
    RRType,
)
from moxtls.dns.validation import ServerStatus
from moxtls.dns.wire import Question, failedAnswer
from moxtls.interfaces import IResolver
from tests import MAX_WAIT
from tests.dns.server import Deviation, LoopbackServer

LOCAL = NameServer("127.0.0.1")
OTHER = NameServer("192.0.2.53")
THIRD = NameServer("192.0.2.54")
BOGUS = ExtendedError(6, "no signature")
SOUGHT = Question("a.example", RRType.A)

Reply = Answer | NoReply | None


def address(asked: Question, authentic: bool = False) -> Answer:
    return Answer(
        asked.name,
        asked.kind,
        LookupStatus.RECORDS,
        (IP("192.0.2.1"),),
        authentic=authentic,
        endAuthentic=authentic,
        ttl=60,
    )


class FakeNetwork:
    """
    Servers with scripted responses.

    @ivar replies: By server, or by server and question; C{None} is silence.
    @ivar asked: Each server with its question.
    @ivar open: Queries neither answered nor cancelled.
    """

    def __init__(self) -> None:
        self.replies: dict[NameServer | tuple[NameServer, Question], Reply] = {}
        self.asked: list[tuple[NameServer, Question]] = []
        self.open: list[Deferred[Answer | NoReply]] = []

    def ask(self, server: NameServer, asked: Question) -> Deferred[Answer | NoReply]:
        self.asked.append((server, asked))
        known = replace(server, trusted=False)
        default = self.replies.get(known, address(asked))
        reply = self.replies.get((known, asked), default)
        if reply is not None:
            return succeed(reply)
        silence: Deferred[Answer | NoReply] = Deferred(self.open.remove)
        self.open.append(silence)
        return silence

    @property
    def servers(self) -> list[NameServer]:
        return [server for server, _ in self.asked]


class ResolverTests(SynchronousTestCase):
    """
    Tests for L{Resolver}, on a clock and a network that are not real.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.network = FakeNetwork()

    def resolver(self, *servers: NameServer, maxQueries: int = 100) -> Resolver:
        return Resolver(self.clock, servers, self.network.ask, maxQueries=maxQueries)

    def lookup(
        self, resolver: Resolver, name: str = "a.example", kind: RRType = RRType.A
    ) -> Answer:
        return self.successResultOf(resolver.lookup(name, kind))

    def test_interface(self) -> None:
        """
        The resolver provides its interface.
        """
        self.assertTrue(verifyObject(IResolver, self.resolver(LOCAL)))

    def test_remembered(self) -> None:
        """
        A question is repeated only after the answer's TTL.
        """
        resolver = self.resolver(LOCAL)
        self.assertEqual(self.lookup(resolver).addresses, ("192.0.2.1",))
        self.clock.advance(59)
        self.assertEqual(self.lookup(resolver, "A.Example.").ttl, 1)
        self.assertEqual(len(self.network.asked), 1)
        self.clock.advance(1)
        self.lookup(resolver)
        self.assertEqual(len(self.network.asked), 2)

    def test_failureIsRemembered(self) -> None:
        """
        A failure is remembered for some seconds, so that a burst of questions
        is one (RFC 9520 3.2).
        """
        self.network.replies[LOCAL] = failedAnswer(SOUGHT, "SERVFAIL")
        resolver = self.resolver(LOCAL)
        for wait, asked in ((0, 1), (4, 1), (1, 2)):
            self.clock.advance(wait)
            self.assertTrue(self.lookup(resolver).failed)
            self.assertEqual(len(self.network.asked), asked)

    def test_impossible(self) -> None:
        """
        Names that can't be in the DNS aren't queried.
        """
        answer = self.lookup(self.resolver(LOCAL), "a..example")
        self.assertEqual(
            (answer.status, self.network.asked), (LookupStatus.NO_NAME, [])
        )

    def test_noServers(self) -> None:
        """
        Without servers, everything fails.
        """
        answer = self.lookup(self.resolver())
        self.assertEqual(answer.reason, "no DNS server is configured")

    def test_nextServer(self) -> None:
        """
        If a server fails, the next one is queried; the server that answered last is
        queried first.
        """
        self.network.replies[OTHER] = failedAnswer(SOUGHT, "REFUSED")
        resolver = self.resolver(OTHER, THIRD)
        self.assertFalse(self.lookup(resolver).failed)
        self.lookup(resolver, "b.example")
        self.assertEqual(self.network.servers, [OTHER, THIRD, THIRD])

    def test_silence(self) -> None:
        """
        A silent server is waited for for a while, in each round; the last
        error is remembered.
        """
        self.network.replies[OTHER] = None
        self.network.replies[THIRD] = failedAnswer(SOUGHT, "SERVFAIL", (BOGUS,))
        looked = self.resolver(OTHER, THIRD).lookup("a.example", RRType.A)
        self.clock.advance(SERVER_TIMEOUTS[0])
        self.assertEqual(self.network.servers, [OTHER, THIRD, OTHER])
        self.assertNoResult(looked)
        self.clock.advance(SERVER_TIMEOUTS[1])
        answer = self.successResultOf(looked)
        self.assertEqual(
            (answer.status, answer.errors), (LookupStatus.FAILED, (BOGUS,))
        )
        self.assertIn("192.0.2.53: no answer within", answer.reason)
        self.assertIn("192.0.2.54: SERVFAIL", answer.reason)
        self.assertEqual((self.network.open, self.clock.getDelayedCalls()), ([], []))

    def test_bounded(self) -> None:
        """
        However many servers are silent, there is an end to it.
        """
        servers = [NameServer(f"192.0.2.{n}") for n in range(1, 20)]
        self.network.replies.update(dict.fromkeys(servers, None))
        looked = self.resolver(*servers).lookup("a.example", RRType.A)
        self.clock.pump([1] * int(QUERY_TIMEOUT - 1))
        self.assertNoResult(looked)
        self.clock.advance(1)
        self.assertTrue(self.successResultOf(looked).failed)
        self.assertEqual(self.network.open, [])

    def test_forgeriesAreFinal(self) -> None:
        """
        If a trusted server has found forgeries, no other one is queried, which might
        accept them (RFC 4035 4.7).
        """
        self.network.replies[LOCAL] = failedAnswer(SOUGHT, "SERVFAIL", (BOGUS,))
        trusted = replace(OTHER, trusted=True)
        answer = self.lookup(self.resolver(LOCAL, trusted))
        self.assertEqual((answer.dnssecError, self.network.servers), (BOGUS, [LOCAL]))

    def test_broken(self) -> None:
        """
        An internal error fails the lookup.
        """

        def broken(server: NameServer, asked: Question) -> Deferred[Answer | NoReply]:
            return fail(ZeroDivisionError())

        resolver = Resolver(self.clock, [LOCAL], broken)
        self.assertTrue(self.lookup(resolver).failed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_joined(self) -> None:
        """
        Concurrent lookups of the same question share one query.
        """
        self.network.replies[LOCAL] = None
        resolver = self.resolver(LOCAL)
        looked = [resolver.lookup("a.example", RRType.A) for _ in range(3)]
        self.assertEqual(len(self.network.asked), 1)
        self.network.open.pop().callback(address(SOUGHT))
        for each in looked:
            self.assertEqual(self.successResultOf(each).addresses, ("192.0.2.1",))

    def test_cancelOne(self) -> None:
        """
        Cancelling one lookup doesn't affect the others; the last cancellation ends
        the query, and a later lookup starts a new one.
        """
        self.network.replies[LOCAL] = None
        resolver = self.resolver(LOCAL)
        first, second = (resolver.lookup("a.example", RRType.A) for _ in range(2))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.assertEqual(len(self.network.open), 1)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual((self.network.open, self.clock.getDelayedCalls()), ([], []))
        third = resolver.lookup("a.example", RRType.A)
        self.network.open.pop().callback(address(SOUGHT))
        self.assertFalse(self.successResultOf(third).failed)

    def test_cancelInCallback(self) -> None:
        """
        The callback of one lookup may cancel the others.
        """
        self.network.replies[LOCAL] = None
        resolver = self.resolver(LOCAL)
        first, second = (resolver.lookup("a.example", RRType.A) for _ in range(2))
        first.addCallback(lambda _: second.cancel())
        self.network.open.pop().callback(address(SOUGHT))
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_atATime(self) -> None:
        """
        The number of concurrent queries is limited; waiting ones can be cancelled,
        and have the same timeout.
        """
        self.network.replies[LOCAL] = None
        resolver = self.resolver(LOCAL, maxQueries=2)
        looked = [resolver.lookup(f"{n}.example", RRType.A) for n in range(5)]
        self.assertEqual(len(self.network.open), 2)
        looked[2].cancel()
        self.failureResultOf(looked[2], CancelledError)
        self.network.open.pop(0).callback(address(SOUGHT))
        self.successResultOf(looked[0])
        self.assertEqual(
            [asked.name for _, asked in self.network.asked],
            ["0.example", "1.example", "3.example"],
        )
        self.clock.pump([0.5] * int(2 * QUERY_TIMEOUT))
        for each in (looked[1], looked[3], looked[4]):
            self.assertTrue(self.successResultOf(each).failed)
        self.assertEqual((self.network.open, self.clock.getDelayedCalls()), ([], []))

    def test_probe(self) -> None:
        """
        Servers are probed first; then only validating ones are queried.
        """
        soa = Question("", RRType.SOA)
        self.network.replies[THIRD, soa] = address(soa, authentic=True)
        trusted = replace(THIRD, trusted=True)
        resolver = self.resolver(OTHER, trusted)
        self.assertFalse(resolver.validating)
        diagnosis = self.successResultOf(resolver.probe())
        self.assertEqual(
            [each.status for each in diagnosis.reports],
            [ServerStatus.NOT_VALIDATING, ServerStatus.VALIDATING],
        )
        self.assertTrue(resolver.validating)
        self.network.asked.clear()
        self.network.replies[THIRD] = failedAnswer(SOUGHT, "SERVFAIL")
        self.assertTrue(self.lookup(resolver).failed)
        self.assertEqual(self.network.servers, [trusted])

    def test_probeAgain(self) -> None:
        """
        A server that doesn't answer a repeated probe keeps its status; one that
        doesn't validate any more loses it.
        """
        soa = Question("", RRType.SOA)
        resolver = self.resolver(LOCAL)
        for reply, validating in (
            (address(soa, authentic=True), True),
            (NoReply("down"), True),
            (address(soa), False),
        ):
            self.network.replies[LOCAL] = reply
            self.successResultOf(resolver.probe())
            self.assertEqual(resolver.validating, validating)

    def test_probeForgets(self) -> None:
        """
        Answers from before the probe aren't used after it.
        """
        resolver = self.resolver(LOCAL)
        self.lookup(resolver)
        soa = Question("", RRType.SOA)
        self.network.replies[LOCAL, soa] = address(soa, authentic=True)
        self.successResultOf(resolver.probe())
        self.network.replies[LOCAL] = address(SOUGHT, authentic=True)
        self.assertTrue(self.lookup(resolver).authentic)

    def test_probeIsBounded(self) -> None:
        """
        A probe of silent servers ends soon, and can be given up.
        """
        self.network.replies.update({LOCAL: None, OTHER: None})
        resolver = self.resolver(LOCAL, OTHER)
        probed = resolver.probe()
        self.clock.pump([SERVER_TIMEOUTS[0]] * 2)
        diagnosis = self.successResultOf(probed)
        self.assertFalse(diagnosis.validating)
        self.assertIn("no answer within 2 s", diagnosis.explanation)
        probed = resolver.probe()
        probed.cancel()
        self.failureResultOf(probed, CancelledError)
        self.assertEqual((self.network.open, self.clock.getDelayedCalls()), ([], []))

    def test_localFirst(self) -> None:
        """
        Before the probe, only servers that may be trusted are queried.
        """
        self.lookup(self.resolver(OTHER, LOCAL))
        self.assertEqual(self.network.servers, [LOCAL])


class ChainTests(SynchronousTestCase):
    """
    Tests for how L{Resolver} finds out about the steps of a chain.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = FakeNetwork()
        whole = replace(
            address(SOUGHT), chain=(CNAMELink("a.example", "b.example", False),)
        )
        step = Answer(
            "a.example",
            RRType.CNAME,
            LookupStatus.RECORDS,
            (NameRecord("b.example"),),
            authentic=True,
            endAuthentic=True,
            ttl=30,
        )
        for server in (LOCAL, OTHER):
            self.network.replies[server, SOUGHT] = whole
            self.network.replies[server, Question("a.example", RRType.CNAME)] = step
        self.end = Question("b.example", RRType.A)

    def test_mixed(self) -> None:
        """
        Each step is queried, once, if a trusted server hasn't called the whole
        authentic (RFC 7672 2.2.2).
        """
        resolver = Resolver(self.clock, [LOCAL], self.network.ask)
        for _ in range(2):
            answer = self.successResultOf(resolver.lookup("a.example", RRType.A))
            self.assertEqual(answer.chain, (CNAMELink("a.example", "b.example", True),))
            self.assertEqual((answer.authentic, answer.endAuthentic), (False, False))
        self.assertEqual(answer.ttl, 30)
        self.assertEqual(
            self.network.asked,
            [
                (LOCAL, SOUGHT),
                (LOCAL, Question("a.example", RRType.CNAME)),
                (LOCAL, self.end),
            ],
        )

    def test_notTrusted(self) -> None:
        """
        Without trusted servers, steps aren't queried.
        """
        resolver = Resolver(self.clock, [OTHER], self.network.ask)
        answer = self.successResultOf(resolver.lookup("a.example", RRType.A))
        self.assertEqual(answer.addresses, ("192.0.2.1",))
        self.assertEqual(self.network.asked, [(OTHER, SOUGHT)])

    def test_stepFails(self) -> None:
        """
        A step that can't be looked up makes for a failure of the whole.
        """
        self.network.replies[LOCAL, self.end] = failedAnswer(
            self.end, "SERVFAIL", (BOGUS,)
        )
        resolver = Resolver(self.clock, [LOCAL], self.network.ask)
        answer = self.successResultOf(resolver.lookup("a.example", RRType.A))
        self.assertEqual(answer.dnssecError, BOGUS)

    def test_cancel(self) -> None:
        """
        Cancellation cancels all steps.
        """
        self.network.replies[LOCAL, self.end] = None
        resolver = Resolver(self.clock, [LOCAL], self.network.ask)
        looked = resolver.lookup("a.example", RRType.A)
        self.assertNoResult(looked)
        looked.cancel()
        self.failureResultOf(looked, CancelledError)
        self.assertEqual((self.network.open, self.clock.getDelayedCalls()), ([], []))


class LoopbackTests(TestCase):
    """
    L{Resolver} and L{DNSTransport} with a server on loopback.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.server = LoopbackServer(
            IReactorUDP(reactor), IReactorTCP(reactor), "127.0.0.1"
        )
        self.addCleanup(self.server.stop)
        self.zone = self.server.zone
        self.resolver = Resolver(
            IReactorTime(reactor),
            [self.server.address],
            DNSTransport(IReactorFDSet(reactor)).ask,
        )

    async def test_probe(self) -> None:
        """
        A server that sets AD for the root validates.
        """
        self.zone.put("", RRType.NS, "ns.example.", ad=True)
        diagnosis = await self.resolver.probe()
        self.assertTrue(diagnosis.validating and self.resolver.validating)

    async def test_chain(self) -> None:
        """
        An alias in an unsigned zone to a host in a signed one.
        """
        self.zone.put("a.example", RRType.CNAME, "b.example.")
        self.zone.put("b.example", RRType.CNAME, "c.example.", ad=True)
        self.zone.put("c.example", RRType.TLSA, "3 1 0 ab", ad=True)
        answer = await self.resolver.lookup("a.example", RRType.TLSA)
        self.assertEqual([each.authentic for each in answer.chain], [False, True])
        self.assertEqual((answer.authentic, answer.endAuthentic), (False, True))
        self.assertEqual(len(answer.tlsa), 1)

    async def test_lost(self) -> None:
        """
        When a datagram is lost, another one is sent.
        """
        self.zone.put("a.example", RRType.A, "192.0.2.1")
        self.zone.deviations.append(Deviation.DROP)
        self.patch(resolverModule, "SERVER_TIMEOUTS", (0.1, 5.0))
        answer = await self.resolver.lookup("a.example", RRType.A)
        self.assertEqual(answer.addresses, ("192.0.2.1",))

    async def test_burst(self) -> None:
        """
        Hundreds of questions at once don't take hundreds of sockets.
        """
        self.zone.put("a.example", RRType.A, "192.0.2.1")
        looked = [self.resolver.lookup(f"{n}.example", RRType.A) for n in range(500)]
        readers = len(IReactorFDSet(reactor).getReaders())
        self.assertLess(readers, 120)
        answers = await gatherResults(looked)
        self.assertEqual({each.status for each in answers}, {LookupStatus.NO_NAME})


class ProbedResolverTests(SynchronousTestCase):
    """
    Tests for L{ProbedResolver}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[Answer | NoReply]] = []
        inner = Resolver(self.clock, [NameServer("127.0.0.1")], self.ask)
        self.resolver = ProbedResolver(self.clock, inner)
        captured = capturedLogs()
        self.said = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)

    def ask(self, server: NameServer, asked: Question) -> Deferred[Answer | NoReply]:
        """
        Wait for L{answer}.
        """
        self.questions = asked
        reply: Deferred[Answer | NoReply] = Deferred()
        self.asked.append(reply)
        return reply

    def answer(self, authentic: bool) -> None:
        """
        Answer all queries.
        """
        while self.asked:
            asked = self.questions
            answer = Answer(
                asked.name,
                asked.kind,
                LookupStatus.NO_RECORDS,
                authentic=authentic,
                endAuthentic=authentic,
                ttl=1,
            )
            self.asked.pop(0).callback(answer)

    def diagnoses(self) -> list[tuple[LogLevel, str]]:
        """
        The logged diagnoses.
        """
        return [
            (each["log_level"], str(each["diagnosis"]))
            for each in self.said
            if "diagnosis" in each
        ]

    def test_interface(self) -> None:
        """
        The resolver provides its interface.
        """
        verifyObject(IResolver, self.resolver)

    def test_waits(self) -> None:
        """
        The first lookups wait for the probe of validation, so that early messages
        aren't sent without DANE.
        """
        early = self.resolver.lookup("example.com", RRType.MX)
        self.assertEqual(self.asked, [])
        self.resolver.startService()
        self.addCleanup(self.resolver.stopService)
        self.answer(True)
        self.answer(True)
        self.assertTrue(self.resolver.validating)
        self.assertTrue(self.successResultOf(early).authentic)

    def test_giveUpWaiting(self) -> None:
        """
        A lookup that waits for the probe can be cancelled.
        """
        early = self.resolver.lookup("example.com", RRType.MX)
        early.cancel()
        self.failureResultOf(early, CancelledError)
        self.resolver.startService()
        self.addCleanup(self.resolver.stopService)
        self.answer(True)

    def test_loud(self) -> None:
        """
        A resolver that doesn't validate is logged as critical, with its consequences,
        once, and again only when that changes.
        """
        self.resolver.startService()
        self.addCleanup(self.resolver.stopService)
        self.answer(False)
        [(level, text)] = self.diagnoses()
        self.assertEqual(level, LogLevel.critical)
        self.assertIn("DANE IS OFF", text)
        self.clock.advance(PROBE_INTERVAL)
        self.answer(False)
        self.assertEqual(len(self.diagnoses()), 1)
        self.clock.advance(PROBE_INTERVAL)
        self.answer(True)
        self.assertEqual(self.diagnoses()[-1][0], LogLevel.info)
        self.assertTrue(self.resolver.validating)

    def test_stop(self) -> None:
        """
        Stopping cancels a probe, and leaves no delayed calls.
        """
        self.resolver.startService()
        self.successResultOf(self.resolver.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FairResolverTests(SynchronousTestCase):
    """
    Tests for L{FairResolver}.
    """

    def setUp(self) -> None:
        self.dns = MemoryResolver({("known.example", RRType.A): ["192.0.2.1"]})
        self.resolver = FairResolver(self.dns, maxQueries=4, maxPerClient=2)

    def slow(self, client: str, *names: str) -> list[Deferred[Answer]]:
        """
        Look up names whose answers are pending.
        """
        for name in names:
            self.dns.hang(name, RRType.A)
        resolver = self.resolver.forClient(client)
        return [resolver.lookup(name, RRType.A) for name in names]

    def asked(self) -> list[str]:
        return [name for name, _ in self.dns.asked]

    def test_interface(self) -> None:
        """
        Each client gets an L{IResolver}.
        """
        resolver = self.resolver.forClient("x")
        self.assertTrue(verifyObject(IResolver, resolver))
        self.assertEqual(resolver.validating, self.dns.validating)

    def test_each(self) -> None:
        """
        A client at its limit waits, and no other client does.
        """
        answers = self.slow("x", "a.example", "b.example", "c.example")
        self.slow("y", "d.example")
        self.assertEqual(self.asked(), ["a.example", "b.example", "d.example"])
        self.dns.release("a.example", RRType.A)
        self.assertEqual(self.asked()[3:], ["c.example"])
        self.dns.release("c.example", RRType.A)
        self.assertEqual(self.successResultOf(answers[2]).name, "c.example")

    def test_all(self) -> None:
        """
        At the limit for all clients, they take turns, however many lookups one of
        them has waiting.
        """
        self.slow("x", "1.x", "2.x", "3.x", "4.x")
        self.slow("y", "1.y", "2.y", "3.y")
        self.slow("z", "1.z", "2.z")
        self.assertEqual(self.asked(), ["1.x", "2.x", "1.y", "2.y"])
        self.dns.release("1.x", RRType.A)
        self.dns.release("1.y", RRType.A)
        self.dns.release("2.y", RRType.A)
        self.assertEqual(self.asked()[4:], ["3.x", "3.y", "1.z"])

    def test_remembered(self) -> None:
        """
        A cached answer takes no slot, and a failed lookup frees its own.
        """
        resolver = self.resolver.forClient("x")
        for _ in range(9):
            self.successResultOf(resolver.lookup("known.example", RRType.A))
        for cancelled in self.slow("x", "a.example", "b.example"):
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
        self.slow("x", "c.example", "d.example")
        self.assertEqual(self.asked()[-2:], ["c.example", "d.example"])

    def test_cancelled(self) -> None:
        """
        A waiting lookup that is cancelled is never made, and leaves no state.
        """
        answers = self.slow("x", "a.example", "b.example", "c.example", "d.example")
        for each in reversed(answers):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.asked(), ["a.example", "b.example"])
        self.assertFalse(self.resolver._waiting or self.resolver._running)
        self.assertEqual(self.resolver._total, 0)
