"""
Tests for L{moxtls.tlsrpt.types}.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    TLSPolicy,
    mergeTallies,
)

DOMAIN = Domain("a.example")
TESTING = TLSPolicy(PolicyType.STS, DOMAIN, ("mode: testing",), ("mx.a.example",))
ENFORCE = TLSPolicy(PolicyType.STS, DOMAIN, ("mode: enforce",), ("mx.a.example",))
EXPIRED = FailureDetail(ResultType.CERTIFICATE_EXPIRED, receivingIP="192.0.2.1")
ELSEWHERE = FailureDetail(ResultType.CERTIFICATE_EXPIRED, receivingIP="192.0.2.2")
UNUSABLE = FailureDetail(ResultType.TLSA_INVALID, "all-unusable-records+ignored")

TALLIES = [
    PolicyTally(TESTING, 1, 0, Counter({EXPIRED: 1})),
    PolicyTally(ENFORCE, 0, 1, Counter({EXPIRED: 1})),
    PolicyTally(TESTING, 2, 3, Counter({EXPIRED: 2, ELSEWHERE: 1})),
    PolicyTally(TESTING, 0, 0, Counter({UNUSABLE: 0})),
]


class MergeTalliesTests(SynchronousTestCase):
    """
    Tests for L{mergeTallies}.
    """

    def test_anyOrder(self) -> None:
        """
        Each policy, and each failure under it, is there once; the order of merging
        changes no number.
        """
        for tallies in permutations(TALLIES):
            merged = {each.policy: each for each in mergeTallies(tallies)}
            self.assertEqual(
                merged,
                {
                    TESTING: PolicyTally(
                        TESTING, 3, 3, Counter({EXPIRED: 3, ELSEWHERE: 1, UNUSABLE: 0})
                    ),
                    ENFORCE: PolicyTally(ENFORCE, 0, 1, Counter({EXPIRED: 1})),
                },
            )

    def test_first(self) -> None:
        """
        Policies are in the order in which they first occur.
        """
        merged = mergeTallies(TALLIES)
        self.assertEqual([each.policy for each in merged], [TESTING, ENFORCE])

    def test_stepwise(self) -> None:
        """
        Merging merged tallies gives the same result.
        """
        for split in range(len(TALLIES) + 1):
            start, end = mergeTallies(TALLIES[:split]), mergeTallies(TALLIES[split:])
            self.assertEqual(
                {each.policy: each for each in mergeTallies(start + end)},
                {each.policy: each for each in mergeTallies(TALLIES)},
            )

    def test_zero(self) -> None:
        """
        A failure that was seen in no session isn't lost.
        """
        (merged,) = mergeTallies([TALLIES[3], TALLIES[3]])
        self.assertEqual(list(merged.failures.items()), [(UNUSABLE, 0)])

    def test_negative(self) -> None:
        """
        Counts don't go below none.
        """
        (merged,) = mergeTallies(
            [PolicyTally(TESTING, 1, 1), PolicyTally(TESTING, -1, -5)]
        )
        self.assertEqual((merged.succeeded, merged.failed), (1, 1))

    def test_unchanged(self) -> None:
        """
        Merging doesn't change its arguments.
        """
        before = [Counter(each.failures) for each in TALLIES]
        mergeTallies(TALLIES)
        self.assertEqual([each.failures for each in TALLIES], before)
