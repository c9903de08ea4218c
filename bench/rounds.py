"""
Compares several ways of doing the same thing.

The load of a machine varies: so each round measures all of them one after the other,
rates are medians over the rounds, and a ratio is the median of the ratios within
rounds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

from twisted.internet.defer import Deferred, gatherResults

#: Rounds that count; one more goes ahead, in which whatever is needed only
#: once is made.
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Entrant:
    """
    One of the compared ways.

    @ivar run: Performs that many operations.
    @ivar operations: Operations in a round: about half a second's worth.
    """

    name: str
    run: Callable[[int], Awaitable[None]]
    operations: int


@dataclass(frozen=True, slots=True)
class Lap:
    """
    One measurement.

    @ivar cpu: CPU seconds of this process, over all threads.
    """

    operations: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.operations / self.seconds


@dataclass(frozen=True, slots=True)
class Contest:
    """
    The measurements of all compared ways.

    @ivar baselines: The ways that the others are compared with.
    @ivar laps: The measurements of each way, one per round.
    """

    title: str
    unit: str
    baselines: tuple[str, ...]
    laps: dict[str, list[Lap]]


async def compete(
    title: str,
    unit: str,
    entrants: Sequence[Entrant],
    baselines: Sequence[str],
    rounds: int,
    rest: float = 0,
) -> Contest:
    """
    Measure C{entrants} alternately.

    @param rounds: 0 for a quick check that they work.
    @param rest: Seconds before each, in which deferred work of the previous one ends.
    """
    laps: dict[str, list[Lap]] = {each.name: [] for each in entrants}
    for round in range(rounds + 1):
        for each in entrants:
            time.sleep(rest)
            # The first round is there to warm up.
            count = each.operations if round else max(1, each.operations // 5)
            lap = await _lap(each, count)
            if round or not rounds:
                laps[each.name].append(lap)
    return Contest(title, unit, tuple(baselines), laps)


async def _lap(entrant: Entrant, count: int) -> Lap:
    cpu, start = time.process_time(), time.perf_counter()
    await entrant.run(count)
    return Lap(count, time.perf_counter() - start, time.process_time() - cpu)


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


def table(contest: Contest) -> str:
    """
    A table of rates and ratios.
    """
    head = ["", f"{contest.unit} per second", "(lowest-highest)", "CPU each"]
    head += [f"x {each}" for each in contest.baselines]
    rows = [head]
    for name, laps in contest.laps.items():
        rates = [lap.rate for lap in laps]
        cpu = median(lap.cpu / lap.operations for lap in laps)
        row = [
            name,
            f"{median(rates):,.0f}",
            f"({min(rates):,.0f}-{max(rates):,.0f})",
            f"{cpu * 1e6:,.0f} us",
        ]
        row += [_ratio(laps, contest.laps[each]) for each in contest.baselines]
        rows.append(row)
    return f"{contest.title}\n\n{aligned(rows)}\n"


def _ratio(laps: Sequence[Lap], baseline: Sequence[Lap]) -> str:
    ratios = [one.rate / other.rate for one, other in zip(laps, baseline, strict=True)]
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
