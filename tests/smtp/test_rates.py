"""
Tests for L{moxtls.smtp.rates}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.rates import (
    MINUTE,
    NETWORK_SHARE,
    ClientNetwork,
    RateLimiter,
    TokenBucket,
    networkOf,
)

#: 2026-11-24T00:00:00Z
NOW = 1795478400.0


def taken(bucket: TokenBucket, key: str, now: float, tries: int) -> int:
    """
    The number of allowed attempts.
    """
    count = 0
    for _ in range(tries):
        if bucket.allows(key, now):
            bucket.take(key, now)
            count += 1
    return count


class NetworkOfTests(SynchronousTestCase):
    """
    Tests for L{networkOf}.
    """

    def test_table(self) -> None:
        """
        An IPv4 address is one client in a C{/24}; for IPv6 it is a C{/64} in
        a C{/48}.
        """
        for host, address, network in (
            ("192.0.2.1", "192.0.2.1", "192.0.2.0/24"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
            ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
            ("", "", ""),
            ("/a/socket", "/a/socket", "/a/socket"),
        ):
            self.assertEqual(networkOf(host), ClientNetwork(address, network))


class TokenBucketTests(SynchronousTestCase):
    """
    Tests for L{TokenBucket}.
    """

    def test_burst(self) -> None:
        """
        A minute's worth of tokens at once, and then at the rate.
        """
        for rate in (1, 7, 60, 3000):
            bucket = TokenBucket(rate)
            self.assertEqual(taken(bucket, "a", NOW, rate + 10), rate)
            self.assertEqual(taken(bucket, "b", NOW, 1), 1)
            self.assertEqual(taken(bucket, "a", NOW + MINUTE / rate, 5), 1)
            later = NOW + 10 * MINUTE
            self.assertEqual(taken(bucket, "a", later, rate + 10), rate)

    def test_slow(self) -> None:
        """
        Less than one a minute is possible.
        """
        bucket = TokenBucket(0.5)
        self.assertEqual(taken(bucket, "a", NOW, 5), 1)
        self.assertEqual(taken(bucket, "a", NOW + 60, 5), 0)
        self.assertEqual(taken(bucket, "a", NOW + 120, 5), 1)

    def test_none(self) -> None:
        """
        A rate of 0 means no limit, and stores no keys.
        """
        bucket = TokenBucket(0)
        self.assertEqual(taken(bucket, "a", NOW, 1000), 1000)
        self.assertEqual(len(bucket), 0)

    def test_setBack(self) -> None:
        """
        A clock that is set back blocks no key for longer than a minute's tokens
        take.
        """
        bucket = TokenBucket(10)
        taken(bucket, "a", NOW + 10**6, 100)
        self.assertEqual(taken(bucket, "a", NOW, 5), 0)
        bucket.take("a", NOW)
        self.assertEqual(taken(bucket, "a", NOW + 2 * MINUTE, 100), 10)

    def test_bounded(self) -> None:
        """
        A client that uses many addresses doesn't need more memory, and its own
        bucket isn't removed.
        """
        bucket = TokenBucket(10, maxEntries=100)
        self.assertEqual(taken(bucket, "attacker", NOW, 20), 10)
        for number in range(10_000):
            self.assertEqual(taken(bucket, str(number), NOW, 1), 1)
            self.assertLessEqual(len(bucket), 100)
        self.assertEqual(taken(bucket, "attacker", NOW, 20), 0)

    def test_forgetting(self) -> None:
        """
        Clients with a full bucket are forgotten first.
        """
        bucket = TokenBucket(60, maxEntries=100)
        taken(bucket, "heavy", NOW, 60)
        for number in range(100):
            bucket.take(f"old {number}", NOW)
        self.assertLess(len(bucket), 100)
        for number in range(90):
            bucket.take(f"new {number}", NOW + 30)
        self.assertEqual(taken(bucket, "heavy", NOW + 30, 60), 30)

    @settings(max_examples=100, deadline=None)
    @given(
        st.integers(1, 100),
        st.lists(st.tuples(st.floats(0, 30), st.sampled_from("abcdefgh"))),
    )
    def test_never(self, rate: int, steps: list[tuple[float, str]]) -> None:
        """
        No key gets more than a full bucket and the tokens gained since.
        """
        bucket, now = TokenBucket(rate, maxEntries=4), NOW
        counts: dict[str, int] = {}
        for pause, key in steps:
            now += pause
            counts[key] = counts.get(key, 0) + taken(bucket, key, now, rate)
            self.assertLessEqual(len(bucket), 4)
        if len(counts) <= 4:
            most = rate + (now - NOW) * rate / MINUTE + 1
            self.assertTrue(all(count <= most for count in counts.values()))


class RateTests(SynchronousTestCase):
    """
    Tests for L{RateLimiter}.
    """

    def test_network(self) -> None:
        """
        A network has four times the limit of an address; commands refused by an
        address's limit don't count against it.
        """
        rate = RateLimiter(5)
        networks = [networkOf(f"192.0.2.{n}") for n in range(10)]
        counts = [sum(rate.take(each, NOW) for _ in range(9)) for each in networks]
        self.assertEqual(counts, [5] * NETWORK_SHARE + [0] * 6)
        self.assertTrue(rate.take(networkOf("192.0.3.1"), NOW))
