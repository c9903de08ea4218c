"""
Tests for L{moxtls.dns.service}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dns.resolvconf import NameServer
from moxtls.dns.resolver import Resolver
from moxtls.dns.service import PROBE_INTERVAL, ProbedResolver
from moxtls.dns.transport import NoReply
from moxtls.dns.types import Answer, LookupStatus, RRType
from moxtls.dns.wire import Question
from moxtls.interfaces import IResolver


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
        Answer everything that is asked.
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
        What was said aloud.
        """
        return [
            (each["log_level"], str(each["diagnosis"]))
            for each in self.said
            if "diagnosis" in each
        ]

    def test_interface(self) -> None:
        """
        It is a resolver.
        """
        verifyObject(IResolver, self.resolver)

    def test_waits(self) -> None:
        """
        What is asked first waits until it is known whether to believe the
        answer, so that no message goes without DANE because it was early.
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
        Who waits for the probe can give up.
        """
        early = self.resolver.lookup("example.com", RRType.MX)
        early.cancel()
        self.failureResultOf(early, CancelledError)
        self.resolver.startService()
        self.addCleanup(self.resolver.stopService)
        self.answer(True)

    def test_loud(self) -> None:
        """
        A resolver that doesn't validate is a critical matter: it is said what
        it means, once, and again only when that changes.
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
        Stopping gives up on a probe, and leaves nothing behind.
        """
        self.resolver.startService()
        self.successResultOf(self.resolver.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
