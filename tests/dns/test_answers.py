"""
Tests for L{moxtls.dns.answers}.
"""

from __future__ import annotations

import timeit
from dataclasses import replace
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR
from moxtls.dns.answers import (
    FAILURE_TTL,
    MAX_SIZE,
    MAX_TOTAL_OCTETS,
    Cache,
    needsSteps,
    stepQuestions,
    withStepAuthenticity,
)
from moxtls.dns.types import (
    IP,
    TXT,
    Answer,
    CNAMELink,
    ExtendedError,
    LookupStatus,
    NameRecord,
    RRType,
)
from moxtls.dns.wire import Question, failedAnswer

NOW = 1_800_000_000.0
ASKED = Question("a.example", RRType.A)
ANSWER = Answer("a.example", RRType.A, LookupStatus.RECORDS, (IP("192.0.2.1"),), ttl=60)

WHOLE = Answer(
    "a.example",
    RRType.A,
    LookupStatus.RECORDS,
    (IP("192.0.2.66"),),
    (
        CNAMELink("a.example", "b.example", False),
        CNAMELink("b.example", "c.example", False),
    ),
    ttl=300,
)


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


def alias(name: str, target: str, authentic: bool) -> Answer:
    return Answer(
        name,
        RRType.CNAME,
        LookupStatus.RECORDS,
        (NameRecord(target),),
        authentic=authentic,
        endAuthentic=authentic,
        ttl=200,
    )


def end(authentic: bool) -> Answer:
    return Answer(
        "c.example",
        RRType.A,
        LookupStatus.RECORDS,
        (IP("192.0.2.1"),),
        authentic=authentic,
        endAuthentic=authentic,
        ttl=100,
    )


class StepsTests(SynchronousTestCase):
    """
    Tests for L{needsSteps}, L{stepQuestions} and L{withStepAuthenticity}.
    """

    def test_unclear(self) -> None:
        """
        One AD bit for several steps is conclusive only if it is set.
        """
        self.assertTrue(needsSteps(WHOLE))
        self.assertFalse(needsSteps(replace(WHOLE, authentic=True)))
        self.assertFalse(needsSteps(replace(WHOLE, chain=())))
        self.assertFalse(needsSteps(replace(WHOLE, status=LookupStatus.FAILED)))

    def test_steps(self) -> None:
        """
        Each CNAME is queried, and the records at the end.
        """
        self.assertEqual(
            stepQuestions(WHOLE),
            (
                Question("a.example", RRType.CNAME),
                Question("b.example", RRType.CNAME),
                Question("c.example", RRType.A),
            ),
        )

    def test_mixed(self) -> None:
        """
        Each step is authentic by itself, the end too; all of it only if all
        are (RFC 7672 2.2.2).
        """
        for first, second, last in product((False, True), repeat=3):
            answer = withStepAuthenticity(
                WHOLE,
                [
                    alias("a.example", "b.example", first),
                    alias("b.example", "c.example", second),
                    end(last),
                ],
            )
            self.assertEqual([each.authentic for each in answer.chain], [first, second])
            self.assertEqual(answer.endAuthentic, last)
            self.assertEqual(answer.authentic, first and second and last)
            self.assertEqual(answer.addresses, ("192.0.2.1",))
            self.assertEqual((answer.name, answer.ttl), ("a.example", 100))

    def test_otherTarget(self) -> None:
        """
        An authentic CNAME to another target doesn't count.
        """
        answer = withStepAuthenticity(
            WHOLE,
            [
                alias("a.example", "elsewhere.example", True),
                alias("b.example", "c.example", True),
                end(True),
            ],
        )
        self.assertEqual([each.authentic for each in answer.chain], [False, True])
        self.assertFalse(answer.authentic)

    def test_failed(self) -> None:
        """
        If one step's lookup fails, the authenticity of the whole is unknown: an
        attacker might cause that (RFC 7672 2.1.1).
        """
        error = ExtendedError(6)
        parts = [
            alias("a.example", "b.example", True),
            failedAnswer(Question("b.example", RRType.CNAME), "SERVFAIL", (error,)),
            end(True),
        ]
        answer = withStepAuthenticity(WHOLE, parts)
        self.assertEqual(
            (answer.status, answer.name), (LookupStatus.FAILED, "a.example")
        )
        self.assertEqual((answer.kind, answer.dnssecError), (RRType.A, error))
        self.assertIn("b.example", answer.reason)

    def test_longerNow(self) -> None:
        """
        If there is a CNAME where the end was, the end isn't authentic.
        """
        further = (CNAMELink("c.example", "d.example", True),)
        answer = withStepAuthenticity(
            WHOLE,
            [
                alias("a.example", "b.example", True),
                alias("b.example", "c.example", True),
                replace(end(True), chain=further),
            ],
        )
        self.assertEqual((answer.authentic, answer.endAuthentic), (False, False))
        self.assertEqual(answer.addresses, WHOLE.addresses)
