"""
Tests for L{moxtls.smtp.authenticator}; logins over a connection are in
L{tests.smtp.server.test_factory}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.authenticator import (
    MAX_CHECKS,
    MAX_WAITING,
    Authenticator,
)
from moxtls.smtp.logins import MAX_DELAY, MAX_FAILURES
from moxtls.smtp.passwords import StoredPassword
from moxtls.smtp.rates import networkOf
from moxtls.smtp.sasl import (
    Authenticated,
    CredentialsChecker,
    Postponed,
    Rejected,
    SASLStep,
)

ACCOUNTS = CredentialsChecker(
    {"anna": StoredPassword.make("pencil", bytes(32))}, b"secret"
)


class AuthenticatorTests(SynchronousTestCase):
    """
    Tests for L{Authenticator}, whose checks end when the test lets them.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.checks: list[tuple[Callable[[], bool], Deferred[bool]]] = []
        self.authenticator = Authenticator(ACCOUNTS, lambda: "n", self.offload)

    def offload(self, check: Callable[[], bool]) -> Deferred[bool]:
        result: Deferred[bool] = Deferred()
        self.checks.append((check, result))
        return result

    def work(self, count: int = 99) -> None:
        """
        Let so many checks end.
        """
        while self.checks and count:
            check, result = self.checks.pop(0)
            result.callback(check())
            count -= 1

    def login(self, host: str, password: str = "wrong") -> Deferred[SASLStep]:
        exchange = self.authenticator.begin("PLAIN")
        response = f"\0anna\0{password}".encode()
        network = networkOf(host)
        step = self.authenticator.step(self.clock, exchange, response, network)
        return Deferred.fromCoroutine(step)

    def test_fair(self) -> None:
        """
        A correct password from another network is checked after one or two others,
        however many wait.
        """
        for _ in range(MAX_WAITING):
            self.login("192.0.2.1")
        mine = self.login("198.51.100.1", "pencil")
        self.work(2 * MAX_CHECKS)
        self.assertEqual(self.successResultOf(mine), Authenticated("anna"))

    def test_burst(self) -> None:
        """
        Any number of simultaneous correct passwords is accepted, also from new
        networks.
        """
        logins = [self.login("192.0.2.1", "pencil") for _ in range(5 * MAX_FAILURES)]
        self.work()
        found = {self.successResultOf(each) for each in logins}
        self.assertEqual(found, {Authenticated("anna")})

    def test_limited(self) -> None:
        """
        Only a limited number of simultaneous wrong passwords is checked.
        """
        logins = [self.login("192.0.2.1") for _ in range(5 * MAX_FAILURES)]
        self.work()
        self.clock.advance(MAX_DELAY)
        found = [self.successResultOf(each) for each in logins]
        self.assertEqual(found.count(Rejected()), MAX_FAILURES)
        self.assertEqual(found.count(Postponed()), 4 * MAX_FAILURES)

    def test_waiting(self) -> None:
        """
        A limited number of checks waits for each network; others are postponed,
        which doesn't count as a failure.
        """
        waiting = [
            self.login(f"192.0.2.{n}") for n in range(MAX_CHECKS + MAX_WAITING + 3)
        ]
        answers = [self.successResultOf(each) for each in waiting if each.called]
        self.assertTrue(answers)
        self.assertEqual(set(answers), {Postponed()})

    def test_left(self) -> None:
        """
        A check continues when its client disconnects, and holds its slot until then,
        so that the limit holds.
        """
        for n in range(50):
            login = self.login(f"10.{n}.0.1")
            login.cancel()
            self.failureResultOf(login, CancelledError)
            self.assertLessEqual(len(self.checks), MAX_CHECKS)
        self.assertEqual(len(self.checks), MAX_CHECKS)
        self.work()
        mine = self.login("198.51.100.1", "pencil")
        self.work()
        self.assertEqual(self.successResultOf(mine), Authenticated("anna"))

    def test_broken(self) -> None:
        """
        An internal error doesn't count as a failed login.
        """
        for _ in range(2 * MAX_FAILURES):
            login = self.login("192.0.2.1", "pencil")
            [(_, result)] = self.checks
            self.checks.clear()
            result.errback(OSError("no threads"))
            self.failureResultOf(login, OSError)

    def test_setBack(self) -> None:
        """
        Setting the clock back changes nothing.
        """
        first = self.login("192.0.2.1")
        self.work()
        self.assertEqual(self.successResultOf(first), Rejected())
        self.clock.rightNow -= 3600
        mine = self.login("192.0.2.1", "pencil")
        self.work()
        self.assertEqual(self.successResultOf(mine), Authenticated("anna"))
