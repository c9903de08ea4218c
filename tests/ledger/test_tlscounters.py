"""
Tests for L{moxtls.ledger.tlscounters}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.ledger.ledger import Ledger, MemoryLedger
from moxtls.ledger.tlscounters import LARGE_POLICY, TLSDelta, storedPolicy, sumOutcomes
from moxtls.tlsrpt.types import (
    PolicyTally,
    PolicyType,
    SessionOutcome,
    StoredResult,
    TLSPolicy,
)
from tests.ledger.test_ledger import emptyFile
from tests.ledger.values import (
    EXPIRED,
    MONDAY,
    MX,
    NET,
    ORG,
    TUESDAY,
    UNUSABLE,
    noPolicy,
    sts,
    tlsa,
)

failures = st.dictionaries(
    st.sampled_from([EXPIRED, UNUSABLE, replace(EXPIRED, mxHELO="")]),
    st.integers(0, 3),
    max_size=2,
).map(Counter)


def tallies(*policies: TLSPolicy) -> st.SearchStrategy[PolicyTally]:
    return st.builds(
        PolicyTally,
        st.sampled_from(policies),
        st.integers(0, 3),
        st.integers(0, 3),
        failures,
    )


outcomes = st.builds(
    SessionOutcome,
    st.sampled_from([ORG, NET]),
    st.none() | tallies(sts(ORG), sts(ORG, 1), noPolicy(NET)),
    st.lists(tallies(tlsa(MX), noPolicy(MX), noPolicy(ORG)), max_size=2).map(tuple),
    st.booleans(),
)
items = st.lists(st.tuples(st.sampled_from([MONDAY, TUESDAY]), outcomes), max_size=12)

Items = Sequence[tuple[date, SessionOutcome]]


def totals(sums: Sequence[TLSDelta]) -> dict[bytes, tuple[bool, int, int, object]]:
    return {
        each.key: (each.sendReport, each.succeeded, each.failed, each.failures)
        for each in sums
    }


class SumOutcomesTests(SynchronousTestCase):
    """
    Adding up.
    """

    @settings(max_examples=100, deadline=None)
    @given(items.flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
    def test_anyOrder(self, both: tuple[Items, Items]) -> None:
        """
        The order of outcomes has no influence on the sums.
        """
        self.assertEqual(totals(sumOutcomes(both[0])), totals(sumOutcomes(both[1])))

    def test_inOrder(self) -> None:
        """
        Sums come in the order of their keys, so that all nodes lock rows in
        the same order.
        """
        some = [
            SessionOutcome(Domain(f"{n}.example"), PolicyTally(tlsa(MX), 1))
            for n in range(9)
        ]
        keys = [each.key for each in sumOutcomes([(MONDAY, each) for each in some])]
        self.assertEqual(keys, sorted(set(keys)))
        self.assertEqual(len(keys), 9)

    def test_keys(self) -> None:
        """
        Every part of the key distinguishes rows.
        """
        tally = PolicyTally(noPolicy(ORG), 1)
        some = [
            (MONDAY, SessionOutcome(ORG, tally)),
            (TUESDAY, SessionOutcome(ORG, tally)),
            (MONDAY, SessionOutcome(NET, tally)),
            (MONDAY, SessionOutcome(ORG, None, (tally,))),
            (MONDAY, SessionOutcome(ORG, PolicyTally(noPolicy(NET), 1))),
            (MONDAY, SessionOutcome(ORG, PolicyTally(tlsa(ORG), 1))),
        ]
        self.assertEqual(len(sumOutcomes(some)), len(some))

    def test_policies(self) -> None:
        """
        Every part of a policy, and its boundaries, distinguishes rows, at any size.
        """
        kind = PolicyType.STS
        large = "x" * LARGE_POLICY
        policies = [
            TLSPolicy(kind, ORG),
            TLSPolicy(kind, ORG, ("a", "b")),
            TLSPolicy(kind, ORG, ("b", "a")),
            TLSPolicy(kind, ORG, ("ab",)),
            TLSPolicy(kind, ORG, ("a",), ("b",)),
            TLSPolicy(kind, ORG, ("a\0b",)),
            TLSPolicy(kind, ORG, (large, "y")),
            TLSPolicy(kind, ORG, (large, "z")),
        ]
        self.assertEqual(len({storedPolicy(each).digest for each in policies}), 8)
        self.assertEqual(storedPolicy(policies[-1]), storedPolicy(policies[-1]))


class AgreementTests(SynchronousTestCase):
    """
    Memory and database agree.
    """

    @settings(max_examples=25, deadline=None)
    @given(items)
    def test_results(self, some: Items) -> None:
        """
        Results are the same whether recorded in one transaction or many.
        """
        memory = MemoryLedger()
        path = Path(self.mktemp())
        path.write_bytes(emptyFile())
        ledger = Ledger(None, f"sqlite:///{path}")
        for day, outcome in some:
            memory.outcomes.record(day, outcome)
            self.successResultOf(ledger.outcomes.record(day, outcome))
        self.assertEqual(self.stored(ledger), self.stored(memory))
        self.successResultOf(ledger.stop())

    def stored(self, ledger: Ledger) -> tuple[StoredResult, ...]:
        return self.successResultOf(ledger.outcomes.results())
