"""
Tests for L{moxtls.smtp.logins}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.logins import (
    FAILURES_PER_HOUR,
    MAX_ACCOUNT_FAILURES,
    MAX_DELAY,
    MAX_FAILURES,
    MAX_KNOWN,
    UNDELAYED_FAILURES,
    LoginLimit,
    LoginLimits,
)
from moxtls.smtp.rates import NETWORK_SHARE, ClientNetwork, networkOf

NOW = 1000.0
HOUR = 3600.0
HOME = networkOf("198.51.100.1")


class LoginLimitsTests(SynchronousTestCase):
    """
    Tests for L{LoginLimits}.
    """

    def setUp(self) -> None:
        self.limits = LoginLimits()

    def failAttempt(
        self, user: str, network: ClientNetwork, tries: int, now: float = NOW
    ) -> int:
        """
        The number of wrong passwords that are checked.
        """
        count = 0
        for _ in range(tries):
            if self.limits.exceeded(user, network, now) is None:
                self.limits.begin(user, network, now)
                count += 1
        return count

    def succeed(self, user: str, network: ClientNetwork) -> None:
        self.limits.succeeded(self.limits.begin(user, network, NOW))

    def test_address(self) -> None:
        """
        An address has a number of failures, for whatever accounts, and some more each
        hour.
        """
        network = networkOf("192.0.2.1")
        count = sum(self.failAttempt(f"user {n}", network, 1) for n in range(100))
        self.assertEqual(count, MAX_FAILURES)
        self.assertEqual(self.limits.exceeded("x", network, NOW), LoginLimit.ADDRESS)
        self.assertEqual(
            self.failAttempt("x", network, 99, NOW + HOUR), FAILURES_PER_HOUR
        )

    def test_network(self) -> None:
        """
        A network of many addresses has four times as many.
        """
        count = sum(
            self.failAttempt(f"user {n} {m}", networkOf(f"192.0.2.{n}"), 1)
            for n in range(256)
            for m in range(5)
        )
        self.assertEqual(count, MAX_FAILURES * NETWORK_SHARE)
        other = networkOf("192.0.3.1")
        self.assertIsNone(self.limits.exceeded("x", other, NOW))

    def test_account(self) -> None:
        """
        Guesses at one account from many addresses are limited, for unknown accounts
        too.
        """
        for user in ("anna", "nobody"):
            count = sum(
                self.failAttempt(user, networkOf(f"10.{n}.0.1"), 1) for n in range(99)
            )
            self.assertEqual(count, MAX_ACCOUNT_FAILURES)
            exceeded = self.limits.exceeded(user, HOME, NOW)
            self.assertEqual(exceeded, LoginLimit.ACCOUNT)
            self.setUp()

    def test_owner(self) -> None:
        """
        In a network from which an account has logged in, neither guesses from
        elsewhere count, nor failures of other clients in the same network or address.
        """
        self.succeed("anna", HOME)
        for n in range(99):
            self.failAttempt("anna", networkOf(f"10.{n}.0.1"), 1)
        near = networkOf("198.51.100.77")
        self.assertIsNone(self.limits.exceeded("anna", near, NOW))
        self.failAttempt("somebody", HOME, 99)
        for n in range(2, 99):
            self.failAttempt("somebody else", networkOf(f"198.51.100.{n}"), 9)
        self.assertIsNone(self.limits.exceeded("anna", HOME, NOW))
        exceeded = self.limits.exceeded("anna", networkOf("203.0.113.1"), NOW)
        self.assertEqual(exceeded, LoginLimit.ACCOUNT)

    def test_ownAddress(self) -> None:
        """
        There, too, guesses are limited.
        """
        self.succeed("anna", HOME)
        self.assertEqual(self.failAttempt("anna", HOME, 99), MAX_FAILURES)
        exceeded = self.limits.exceeded("anna", HOME, NOW)
        self.assertEqual(exceeded, LoginLimit.ACCOUNT_AT_ADDRESS)

    def test_known(self) -> None:
        """
        A limited number of networks is stored for each account: those of the latest
        logins.
        """
        for n in range(MAX_KNOWN):
            self.succeed("anna", networkOf(f"10.{n}.0.1"))
        for n in range(200, 200 + MAX_ACCOUNT_FAILURES):
            self.failAttempt("anna", networkOf(f"10.{n}.0.1"), 1)
        limits = [
            self.limits.exceeded("anna", networkOf(f"10.{n}.0.1"), NOW)
            for n in (0, MAX_KNOWN - 1)
        ]
        self.assertEqual(limits, [LoginLimit.ACCOUNT, None])

    def test_atOnce(self) -> None:
        """
        Attempts that have not ended count as failures; those that succeed don't.
        """
        network = networkOf("192.0.2.1")
        begun = [self.limits.begin("a", network, NOW) for _ in range(MAX_FAILURES)]
        self.assertIsNotNone(self.limits.exceeded("a", network, NOW))
        for attempt in begun:
            self.limits.giveBack(attempt)
        self.assertEqual(self.failAttempt("a", network, 99), MAX_FAILURES)

    def test_delay(self) -> None:
        """
        Answers take longer with each failure, but never very long.
        """
        network, delays = networkOf("192.0.2.1"), []
        for _ in range(MAX_FAILURES):
            self.limits.begin("a", network, NOW)
            delays.append(self.limits.delay(network, NOW))
        self.assertEqual(delays[:UNDELAYED_FAILURES], [0.0] * UNDELAYED_FAILURES)
        self.assertEqual(delays[UNDELAYED_FAILURES:][:3], [1.0, 2.0, 4.0])
        self.assertEqual(delays[-1], MAX_DELAY)

    def test_bounded(self) -> None:
        """
        Many user names from many addresses don't need more memory.
        """
        self.limits = LoginLimits(maxEntries=100)
        for n in range(1000):
            network = networkOf(f"10.{n // 256}.{n % 256}.1")
            self.limits.begin(f"user {n}" * 100, network, NOW)
        for bucket in self.limits._buckets.values():
            self.assertLessEqual(len(bucket), 100)
        self.assertEqual(len(self.limits._known), 0)
