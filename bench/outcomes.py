"""
Outcomes recorded per second, each durable before it counts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.onebyone import OneByOne, OnPostgres, OnSQLite
from bench.postgres import postgres, version
from bench.rounds import Entrant, compete, sideBySide, table
from bench.settings import Effort, IReactor, main
from bench.traffic import DAY, Outcomes, flood, lifelike
from moxtls.ledger.ledger import Ledger

#: Deliveries that wait for theirs to be recorded: a server under load.
WIDTH = 1000
RECORDED = 10_000
ONE_BY_ONE = 500
TRAFFIC: dict[str, Outcomes] = {
    "50 000 domains by Zipf's law": lifelike,
    "all to one domain": flood,
}


def _recording(ledger: Ledger, outcomes: Outcomes, operations: int) -> Entrant:
    async def run(count: int) -> None:
        coming = outcomes(count)
        await sideBySide(
            count, WIDTH, lambda: ledger.outcomes.record(DAY, next(coming))
        )

    return Entrant("moxtls ledger", run, operations)


def _baselines(
    database: OneByOne, outcomes: Outcomes, operations: int
) -> tuple[Entrant, Entrant]:
    async def insert(count: int) -> None:
        database.insert(outcomes, count)

    async def upsert(count: int) -> None:
        database.upsert(outcomes, count)

    return (
        Entrant("one insert per commit", insert, operations),
        Entrant("one upsert per commit", upsert, operations),
    )


async def _measure(
    reactor: IReactor, effort: Effort, name: str, url: str, database: OneByOne
) -> None:
    ledger = Ledger(reactor, url)
    for traffic, outcomes in TRAFFIC.items():
        # Making them is no part of it.
        list(outcomes(effort.of(RECORDED)))
        baselines = _baselines(database, outcomes, effort.of(ONE_BY_ONE))
        contest = await compete(
            f"{name}; {traffic}, one in ten fails; {WIDTH} at a time",
            "outcomes",
            [*baselines, _recording(ledger, outcomes, effort.of(RECORDED))],
            [each.name for each in baselines],
            effort.rounds,
        )
        print(table(contest), flush=True)
    await ledger.stop()


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'ledger.sqlite'}"
        onSQLite = OnSQLite(folder / "baseline.sqlite")
        await _measure(reactor, effort, "SQLite", url, onSQLite)
        onSQLite.close()
    with postgres() as server:
        if server is not None:
            onPostgres = OnPostgres(server)
            await _measure(reactor, effort, version(server), server, onPostgres)
            onPostgres.close()


if __name__ == "__main__":
    main(benchmark)
