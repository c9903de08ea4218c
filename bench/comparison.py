"""
Compares the rates of several implementations or configurations.

The load of a machine varies.  So each round measures all variants one after the other;
rates are medians over the rounds, and a ratio is the median of the ratios within
rounds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

from twisted.internet.defer import Deferred, gatherResults

#: Measured rounds, after a warm-up round.
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Variant:
    """
    A compared implementation or configuration.

    @ivar run: Performs a number of operations.
    @ivar operations: Operations in a round: about half a second's worth.
    """

    name: str
    run: Callable[[int], Awaitable[None]]
    operations: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    The time taken by one variant in one round.

    @ivar cpu: CPU seconds of this process, over all threads.
    """

    operations: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.operations / self.seconds


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    The measurements of all variants.

    @ivar baselines: Names of the variants that the others are compared with.
    @ivar measurements: By name of the variant, one per round.
    """

    title: str
    unit: str
    baselines: tuple[str, ...]
    measurements: dict[str, list[Measurement]]


async def compare(
    title: str,
    unit: str,
    variants: Sequence[Variant],
    baselines: Sequence[str],
    rounds: int,
    rest: float = 0,
) -> Comparison:
    """
    Measure C{variants} alternately.

    @param rounds: 0 for a quick check that they work.
    @param rest: Seconds to wait before each measurement, while the previous variant
        finishes work in the background.
    """
    measurements: dict[str, list[Measurement]] = {each.name: [] for each in variants}
    for round in range(rounds + 1):
        for each in variants:
            time.sleep(rest)
            # Round 0 is the warm-up.
            count = each.operations if round else max(1, each.operations // 5)
            measurement = await _measure(each, count)
            if round or not rounds:
                measurements[each.name].append(measurement)
    return Comparison(title, unit, tuple(baselines), measurements)


async def _measure(variant: Variant, count: int) -> Measurement:
    cpu, start = time.process_time(), time.perf_counter()
    await variant.run(count)
    return Measurement(count, time.perf_counter() - start, time.process_time() - cpu)


async def sideBySide(
    count: int, width: int, once: Callable[[], Awaitable[object]]
) -> None:
    """
    Call C{once} C{count} times, C{width} at a time.
    """
    left = count

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await once()

    workers = [Deferred.fromCoroutine(worker()) for _ in range(min(width, count))]
    await gatherResults(workers, consumeErrors=True)


def table(comparison: Comparison) -> str:
    """
    A table of rates and ratios.
    """
    head = ["", f"{comparison.unit} per second", "(lowest-highest)", "CPU each"]
    head += [f"x {each}" for each in comparison.baselines]
    rows = [head]
    for name, measurements in comparison.measurements.items():
        rates = [each.rate for each in measurements]
        cpu = median(each.cpu / each.operations for each in measurements)
        row = [
            name,
            f"{median(rates):,.0f}",
            f"({min(rates):,.0f}-{max(rates):,.0f})",
            f"{cpu * 1e6:,.0f} us",
        ]
        row += [
            _ratio(measurements, comparison.measurements[each])
            for each in comparison.baselines
        ]
        rows.append(row)
    return f"{comparison.title}\n\n{aligned(rows)}\n"


def _ratio(measurements: Sequence[Measurement], baseline: Sequence[Measurement]) -> str:
    ratios = [
        one.rate / other.rate for one, other in zip(measurements, baseline, strict=True)
    ]
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """
    Align columns: the first to the left, the others to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [
            cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
