"""
Settings and entry point of all benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP, IReactorThreads
from twisted.internet.task import react

from bench.comparison import ROUNDS
from moxtls.workers.process import IWorkerReactor


class IReactor(IWorkerReactor, IReactorTCP, IReactorThreads):
    """
    The reactor interfaces that benchmarks need.
    """


@dataclass(frozen=True, slots=True)
class Effort:
    """
    The thoroughness of measurements.

    @ivar rounds: As for L{bench.comparison.compare}.
    @ivar part: The part of the usual number of operations.
    @ivar full: True to take as long as necessary.
    """

    rounds: int = ROUNDS
    part: float = 1
    full: bool = False

    def of(self, operations: int) -> int:
        return max(1, round(operations * self.part))


#: To see that it works.
QUICK = Effort(rounds=0, part=0.02)

Benchmark = Callable[[IReactor, Effort], Coroutine[Deferred[Any], Any, None]]


def main(benchmark: Benchmark) -> None:
    """
    Run a benchmark as this process's program.
    """
    effort = Effort(full="--full" in sys.argv)
    if "--quick" in sys.argv:
        effort = QUICK
    react(lambda reactor: Deferred.fromCoroutine(benchmark(reactor, effort)))
