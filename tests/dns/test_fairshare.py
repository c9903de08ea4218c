"""
Tests for L{moxtls.dns.fairshare}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dns.fairshare import FairResolver
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import Answer, RRType
from moxtls.interfaces import IResolver


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
