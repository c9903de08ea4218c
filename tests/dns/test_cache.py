"""
Tests for L{moxtls.dns.cache}.
"""

from __future__ import annotations

import timeit
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR
from moxtls.dns.cache import FAILURE_TTL, MAX_SIZE, MAX_TOTAL_OCTETS, Cache
from moxtls.dns.types import IP, TXT, Answer, LookupStatus, RRType
from moxtls.dns.wire import Question

NOW = 1_800_000_000.0
ASKED = Question("a.example", RRType.A)
ANSWER = Answer("a.example", RRType.A, LookupStatus.RECORDS, (IP("192.0.2.1"),), ttl=60)


class CacheTests(SynchronousTestCase):
    """
    Tests for L{Cache}.
    """

    def lasts(self, answer: Answer) -> int:
        """
        The seconds for which an answer is cached, found by lookups.
        """
        cache = Cache()
        cache.put(ASKED, answer, NOW)
        known = cache.get(ASKED, NOW)
        if known is None:
            return 0
        self.assertEqual(cache.get(ASKED, NOW + known.ttl - 1), replace(answer, ttl=1))
        self.assertIsNone(cache.get(ASKED, NOW + known.ttl))
        return known.ttl

    def test_lifetimes(self) -> None:
        """
        An answer is cached for its TTL, within limits that depend on its kind (RFC
        2308 5, RFC 9520 3.2).
        """
        for found, ttl, lasts in (
            (LookupStatus.RECORDS, 60, 60),
            (LookupStatus.RECORDS, 0, 0),
            (LookupStatus.RECORDS, 10 * DAY, DAY),
            (LookupStatus.NO_RECORDS, 60, 60),
            (LookupStatus.NO_RECORDS, DAY, HOUR),
            (LookupStatus.NO_NAME, DAY, HOUR),
            (LookupStatus.NO_NAME, 0, 0),
            (LookupStatus.FAILED, 0, FAILURE_TTL),
        ):
            answer = Answer("a.example", RRType.A, found, ttl=ttl)
            self.assertEqual(self.lasts(answer), lasts, answer)

    def test_remaining(self) -> None:
        """
        The TTL of a cached answer is the remaining one.
        """
        cache = Cache()
        cache.put(ASKED, ANSWER, NOW)
        self.assertEqual(cache.get(ASKED, NOW + 20.5), replace(ANSWER, ttl=39))

    def test_kinds(self) -> None:
        """
        An answer is for one kind.
        """
        cache = Cache()
        cache.put(ASKED, ANSWER, NOW)
        self.assertIsNone(cache.get(Question("a.example", RRType.AAAA), NOW))

    def test_replaced(self) -> None:
        """
        A new answer replaces the old one, even if it can't be cached itself.
        """
        cache = Cache()
        cache.put(ASKED, ANSWER, NOW)
        cache.put(ASKED, replace(ANSWER, ttl=0), NOW)
        self.assertIsNone(cache.get(ASKED, NOW))

    def test_clockSetBack(self) -> None:
        """
        Setting the clock back doesn't prolong lifetimes.
        """
        cache = Cache()
        cache.put(ASKED, ANSWER, NOW)
        self.assertIsNone(cache.get(ASKED, NOW - 1))

    def test_entries(self) -> None:
        """
        The least recently used entry is dropped first.
        """
        cache = Cache(maxEntries=2)
        first, second, third = (Question(name, RRType.A) for name in "abc")
        cache.put(first, ANSWER, NOW)
        cache.put(second, ANSWER, NOW)
        cache.get(first, NOW)
        cache.put(third, ANSWER, NOW)
        self.assertEqual(len(cache), 2)
        self.assertIsNone(cache.get(second, NOW))
        self.assertIsNotNone(cache.get(first, NOW))

    def test_large(self) -> None:
        """
        Answers that would fill memory aren't remembered.
        """
        cache = Cache()
        text = TXT(b"x" * (MAX_SIZE + 1))
        cache.put(ASKED, replace(ANSWER, records=(text,)), NOW)
        self.assertEqual(len(cache), 0)

    def test_octets(self) -> None:
        """
        The total size of answers is limited; replaced and expired answers don't
        count.
        """
        cache = Cache()
        text = TXT(b"x" * (MAX_SIZE - 1000))
        large = replace(ANSWER, records=(text,))
        most = MAX_TOTAL_OCTETS // (MAX_SIZE - 1000)
        for number in range(most + 100):
            for _ in range(2):
                cache.put(Question(f"{number}", RRType.TXT), large, NOW)
        self.assertLessEqual(len(cache), most)
        self.assertGreater(len(cache), most * 0.95)
        for number in range(most + 100):
            cache.get(Question(f"{number}", RRType.TXT), NOW + DAY)
        self.assertEqual((len(cache), cache._octets), (0, 0))

    def test_clear(self) -> None:
        """
        All of it can be forgotten.
        """
        cache = Cache()
        cache.put(ASKED, ANSWER, NOW)
        cache.clear()
        self.assertIsNone(cache.get(ASKED, NOW))

    def test_cheap(self) -> None:
        """
        A cached answer costs well below a tenth of a millisecond, a query one or
        more.
        """
        cache = Cache()
        cache.put(ASKED, ANSWER, NOW)
        best = min(timeit.repeat(lambda: cache.get(ASKED, NOW), number=200, repeat=5))
        self.assertLess(best / 200, 1e-4)
