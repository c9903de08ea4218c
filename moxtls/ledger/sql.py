# -*- test-case-name: tests.ledger.test_ledger -*-
"""
SQL helpers that the stores share: upserts of many rows, and digests as keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")

#: Keys per query; SQLite takes 32 766 parameters, PostgreSQL 65 535.
MAX_KEYS = 1000
#: Octets: long enough to make finding a collision infeasible.
DIGEST_SIZE = 24

Insert = sqlite.Insert | postgresql.Insert
Columns = ReadOnlyColumnCollection[str, Any]
Row = tuple[object, ...]


class Upsert:
    """
    Inserts rows into a table, or updates those whose primary key exists.

    The statement is compiled once for each kind of database, and the driver is
    given the rows as they are: half of SQLAlchemy's time for a row goes into
    parameters.
    """

    def __init__(
        self, table: Table, change: Callable[[Columns, Columns], Mapping[str, object]]
    ) -> None:
        """
        @param change: From the columns of the existing row and those of the new
            one, makes the new values of the existing row.
        """
        self._table = table
        self._change = change
        self._compiled: dict[str, str] = {}

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """
        @param rows: Values of all columns, in their order, as the driver takes
            them.  Nodes that write several rows have to do so in the same order,
            or they deadlock.
        """
        if rows:
            dialect = connection.dialect
            statement = self._compiled.get(dialect.name)
            if statement is None:
                statement = self._compiled[dialect.name] = self._compile(dialect)
            connection.exec_driver_sql(statement, list(rows))

    def _compile(self, dialect: Dialect) -> str:
        table = self._table
        statement = insertInto(table, dialect.name)
        statement = statement.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_=self._change(table.columns, statement.excluded),
        )
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        columns = [column.name for column in table.columns]
        assert compiled.positiontup == columns, compiled.positiontup
        return str(compiled)


def insertInto(table: Table, dialect: str) -> Insert:
    """
    An INSERT that has an ON CONFLICT clause.

    @param dialect: C{sqlite} or C{postgresql}.
    """
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def replaced(*names: str) -> Callable[[Columns, Columns], Mapping[str, object]]:
    """
    For L{Upsert}: replace the values of the columns C{names}.
    """
    return lambda old, new: {name: new[name] for name in names}


def digest(*texts: str) -> bytes:
    """
    A short key for C{texts}, none of which may contain a NUL.
    """
    joined = "\0".join(texts).encode("utf-8", "replace")
    return blake2b(joined, digest_size=DIGEST_SIZE).digest()


def chunks(keys: Sequence[T]) -> Iterable[Sequence[T]]:
    """
    C{keys}, at most L{MAX_KEYS} at a time.
    """
    for start in range(0, len(keys), MAX_KEYS):
        yield keys[start : start + MAX_KEYS]
