"""
Nodes that fail between any two operations of stores and queues.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import MINUTE
from moxtls.domain import Domain
from moxtls.reporting.types import ReportState
from tests.reporting.support import A, World, outcome

B = Domain("b.example")
EXPECTED = {
    "tls@a.example": 1,
    "https://a.example/": 1,
    "tls@b.example": 1,
    "x@host.example": 1,
}


class FailedResult(Exception):
    """
    The result of an operation on a failed node.
    """


class FailurePoint:
    """
    Counts operations of stores and a queue, and fails at one of them; from then on
    all fail.
    """

    def __init__(self, blowAt: int, late: bool) -> None:
        """
        @param late: Fail after the operation took effect, but before its result is
            known.
        """
        self.asked = 0
        self._blowAt = blowAt
        self._late = late

    def guard(self, step: object, *names: str) -> None:
        for name in names:
            setattr(step, name, partial(self._ask, getattr(step, name)))

    def _ask(self, method: object, *what: object, **more: object) -> Deferred[object]:
        self.asked += 1
        assert callable(method)
        if self.asked > self._blowAt:
            return fail(FailedResult())
        if self.asked < self._blowAt or self._late:
            result: Deferred[object] = method(*what, **more)
            if self.asked < self._blowAt:
                return result
        return fail(FailedResult())


class BrokenNodeTests(SynchronousTestCase):
    """
    Each report is sent once, wherever a node fails.
    """

    def world(self) -> World:
        world = World()
        world.publishRecord(A, "mailto:tls@a.example", "https://a.example/")
        world.publishRecord(B)
        world.publishRecord(Domain("mx.host.example"), "mailto:x@host.example")
        world.record(outcome(A, "mx.host.example"), outcome(B, "mx.host.example"))
        return world

    def breakDown(self, world: World, blowAt: int, late: bool) -> int:
        """
        Run a node until it fails, and stop it.
        """
        failurePoint = FailurePoint(blowAt, late)
        originals: list[tuple[object, tuple[str, ...]]] = [
            (
                world.ledger.outcomes,
                ("count", "periods", "results", "settle", "prune"),
            ),
            (world.ledger.archive, ("take", "mark", "prune")),
            (world.ledger.suppressions, ("active",)),
            (world.ledger.leases, ("acquire", "release")),
            (world.queue, ("submit",)),
        ]
        for step, names in originals:
            failurePoint.guard(step, *names)
        self.runNode(world, "node")
        self.flushLoggedErrors(FailedResult)
        for step, names in originals:
            for name in names:
                delattr(step, name)
        return failurePoint.asked

    def runNode(self, world: World, node: str) -> None:
        service = world.service(node)
        service.startService()
        world.clock.pump([MINUTE] * 150)
        service.stopService()
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def checked(self, world: World, step: str) -> None:
        self.assertEqual(Counter(world.queued()), EXPECTED, step)
        self.assertEqual(world.results(), (), step)
        reports = self.successResultOf(world.ledger.archive.reports())
        states = {report.state for report in reports}
        self.assertEqual(states, {ReportState.QUEUED}, step)

    def steps(self) -> int:
        """
        The number of operations without a failure.
        """
        world = self.world()
        asked = self.breakDown(world, 10**6, False)
        self.checked(world, "unbroken")
        return asked

    def test_everyStep(self) -> None:
        """
        A node that fails at any step, before or after it took effect, finishes when
        it is restarted.
        """
        steps = self.steps()
        self.assertGreater(steps, 30)
        for late in (False, True):
            for step in range(1, steps + 1):
                world = self.world()
                self.breakDown(world, step, late)
                self.runNode(world, "node")
                self.checked(world, f"step {step}, late {late}")

    def test_twice(self) -> None:
        """
        The same if it fails again at another step.
        """
        steps = self.steps()
        for first in range(1, steps + 1, 5):
            for second in range(1, steps + 1, 7):
                world = self.world()
                self.breakDown(world, first, True)
                self.breakDown(world, second, first % 2 == 0)
                self.runNode(world, "node")
                self.checked(world, f"steps {first}, {second}")

    def test_otherNode(self) -> None:
        """
        Another node sends reports that no node has claimed; a report claimed by the
        failed node waits for it, as it may be in its queue.
        """
        for step in range(1, self.steps() + 1, 3):
            world = self.world()
            self.breakDown(world, step, True)
            self.runNode(world, "other")
            sent = Counter(world.queued())
            self.assertLessEqual(sent, Counter(EXPECTED), step)
            self.runNode(world, "node")
            self.checked(world, f"step {step}")
