"""
Tests for L{moxtls.ledger.memory}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.ledger.memory import MemoryLedger
from tests.ledger.contracts import (
    ArchiveContract,
    LeaseContract,
    OutcomeContract,
    PolicyContract,
    Stores,
    SuppressionContract,
)
from tests.ledger.evaluationcontracts import EvaluationContract, HistoryContract


class _InMemory:
    def makeLedger(self) -> Stores:
        return MemoryLedger()


class MemoryOutcomeTests(_InMemory, OutcomeContract, SynchronousTestCase):
    """
    Outcomes in memory.
    """


class MemoryArchiveTests(_InMemory, ArchiveContract, SynchronousTestCase):
    """
    Reports in memory.
    """


class MemorySuppressionTests(_InMemory, SuppressionContract, SynchronousTestCase):
    """
    Suppressions in memory.
    """


class MemoryPolicyTests(_InMemory, PolicyContract, SynchronousTestCase):
    """
    Policies in memory.
    """


class MemoryLeaseTests(_InMemory, LeaseContract, SynchronousTestCase):
    """
    Leases in memory.
    """


class MemoryEvaluationTests(_InMemory, EvaluationContract, SynchronousTestCase):
    """
    Evaluations in memory.
    """


class MemoryHistoryTests(_InMemory, HistoryContract, SynchronousTestCase):
    """
    The sender history in memory.
    """
