"""
Outcomes recorded per second, each durable before it counts.
"""

from __future__ import annotations

from functools import partial

from bench.comparison import Variant, compare, sideBySide, table
from bench.onebyone import OneByOne, onEach
from bench.settings import Effort, IReactor, main
from bench.traffic import DAY, Outcomes, flood, lifelike
from moxtls.ledger.ledger import Ledger

#: Concurrent recordings: a server under load.
WIDTH = 1000
RECORDED = 10_000
ONE_BY_ONE = 500
TRAFFIC: dict[str, Outcomes] = {
    "50 000 domains by Zipf's law": lifelike,
    "all to one domain": flood,
}


def _recording(ledger: Ledger, outcomes: Outcomes, operations: int) -> Variant:
    async def run(count: int) -> None:
        coming = outcomes(count)
        await sideBySide(
            count, WIDTH, lambda: ledger.outcomes.record(DAY, next(coming))
        )

    return Variant("moxtls ledger", run, operations)


def _baselines(
    database: OneByOne, outcomes: Outcomes, operations: int
) -> tuple[Variant, Variant]:
    async def insert(count: int) -> None:
        database.insert(outcomes, count)

    async def upsert(count: int) -> None:
        database.upsert(outcomes, count)

    return (
        Variant("one insert per commit", insert, operations),
        Variant("one upsert per commit", upsert, operations),
    )


async def _measure(
    reactor: IReactor, effort: Effort, name: str, url: str, database: OneByOne
) -> None:
    ledger = Ledger(reactor, url)
    for traffic, outcomes in TRAFFIC.items():
        # Their generation is not measured.
        list(outcomes(effort.of(RECORDED)))
        baselines = _baselines(database, outcomes, effort.of(ONE_BY_ONE))
        comparison = await compare(
            f"{name}; {traffic}, one in ten fails; {WIDTH} at a time",
            "outcomes",
            [*baselines, _recording(ledger, outcomes, effort.of(RECORDED))],
            [each.name for each in baselines],
            effort.rounds,
        )
        print(table(comparison), flush=True)
    await ledger.stop()


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    await onEach(partial(_measure, reactor, effort))


if __name__ == "__main__":
    main(benchmark)
