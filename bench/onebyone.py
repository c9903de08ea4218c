"""
Simple ways of recording outcomes, with a commit for each. Both count the same as the
ledger: the session under the recipient domain and under the host, and its failure, if
any.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import psycopg

from bench.postgres import postgres, version
from bench.traffic import DAY, Outcomes
from moxtls.tlsrpt.types import PolicyTally, SessionOutcome

_TABLES = (
    "CREATE TABLE entry (number {serial}, day TEXT, outcome TEXT)",
    "CREATE TABLE counter (day TEXT, recipient TEXT, policy TEXT,"
    " succeeded BIGINT, failed BIGINT, PRIMARY KEY (day, recipient, policy))",
    "CREATE TABLE failure (day TEXT, recipient TEXT, policy TEXT, details TEXT,"
    " sessions BIGINT, PRIMARY KEY (day, recipient, policy, details))",
)
_INSERT = "INSERT INTO entry (day, outcome) VALUES (?, ?)"
_COUNT = (
    "INSERT INTO counter VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (day, recipient, policy) DO UPDATE SET"
    " succeeded = counter.succeeded + excluded.succeeded,"
    " failed = counter.failed + excluded.failed"
)
_COUNT_FAILURE = (
    "INSERT INTO failure VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (day, recipient, policy, details) DO UPDATE SET"
    " sessions = failure.sessions + excluded.sessions"
)
_DAY = DAY.isoformat()

Statement = tuple[str, Sequence[object]]


class OneByOne(ABC):
    """
    A database, and a commit for each outcome.
    """

    @abstractmethod
    def commit(self, statements: list[Statement]) -> None:
        """
        Execute the statements and commit durably.
        """

    @abstractmethod
    def close(self) -> None:
        """
        Close the connection.
        """

    def insert(self, outcomes: Outcomes, count: int) -> None:
        """
        Insert a row for each outcome.
        """
        for outcome in outcomes(count):
            self.commit([(_INSERT, (_DAY, _text(outcome)))])

    def upsert(self, outcomes: Outcomes, count: int) -> None:
        """
        Increment counters for each outcome.
        """
        for outcome in outcomes(count):
            self.commit(list(_counting(outcome)))


class OnSQLite(OneByOne):
    """
    SQLite with the settings of the ledger.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        for table in _TABLES:
            self._db.execute(table.format(serial="INTEGER PRIMARY KEY"))

    def commit(self, statements: list[Statement]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for sql, values in statements:
            self._db.execute(sql, values)
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


class OnPostgres(OneByOne):
    """
    psycopg with prepared statements.
    """

    def __init__(self, url: str) -> None:
        self._db = psycopg.connect(url, prepare_threshold=1)
        for table in _TABLES:
            self._db.execute(table.format(serial="BIGSERIAL PRIMARY KEY").encode())
        self._db.commit()

    def commit(self, statements: list[Statement]) -> None:
        for sql, values in statements:
            self._db.execute(sql.replace("?", "%s").encode(), values)
        self._db.commit()

    def close(self) -> None:
        self._db.close()


def _counting(outcome: SessionOutcome) -> Iterator[Statement]:
    assert outcome.recipient is not None
    recipient = outcome.recipientDomain.ascii
    for tally in (outcome.recipient, *outcome.hosts):
        policy = _policy(tally)
        counts = tally.succeeded, tally.failed
        yield _COUNT, (_DAY, recipient, policy, *counts)
        for failure, sessions in tally.failures.items():
            details = json.dumps(asdict(failure))
            yield _COUNT_FAILURE, (_DAY, recipient, policy, details, sessions)


def _text(outcome: SessionOutcome) -> str:
    assert outcome.recipient is not None
    tallies = (outcome.recipient, *outcome.hosts)
    failures = [asdict(each) for tally in tallies for each in tally.failures]
    return json.dumps(
        [outcome.recipientDomain.ascii, list(map(_policy, tallies)), failures]
    )


def _policy(tally: PolicyTally) -> str:
    policy = tally.policy
    return json.dumps([policy.type, policy.domain.ascii, policy.strings])


async def onEach(measure: Callable[[str, str, OneByOne], Awaitable[None]]) -> None:
    """
    Measure on SQLite, and on PostgreSQL if it is there.

    @param measure: Takes the name and the URL of a database for a ledger, and another
        one of the same kind.
    """
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'ledger.sqlite'}"
        onSQLite = OnSQLite(folder / "baseline.sqlite")
        await measure("SQLite", url, onSQLite)
        onSQLite.close()
    with postgres() as server:
        if server is not None:
            onPostgres = OnPostgres(server)
            await measure(version(server), server, onPostgres)
            onPostgres.close()
