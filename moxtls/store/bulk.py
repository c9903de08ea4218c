# -*- test-case-name: tests.store.test_ledger -*-
"""
One statement for many rows, where it matters how long each takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection
from sqlalchemy.sql.compiler import SQLCompiler

from moxtls.store.database import Database, Insert


class Bulk:
    """
    An INSERT that is compiled once and given to the driver with rows as they
    are: half of SQLAlchemy's time for a row goes into parameters.
    """

    def __init__(self, database: Database, statement: Insert) -> None:
        """
        @param statement: Of all columns.
        """
        compiled = statement.compile(dialect=database.writer.dialect)
        assert isinstance(compiled, SQLCompiler)
        columns = [column.name for column in statement.table.columns]
        assert compiled.positiontup == columns, compiled.positiontup
        self._sql = str(compiled)

    def __call__(
        self, connection: Connection, rows: Sequence[tuple[object, ...]]
    ) -> None:
        """
        @param rows: In the order of the columns; values as the driver takes
            them.
        """
        if rows:
            connection.exec_driver_sql(self._sql, list(rows))
