# -*- test-case-name: tests.cli.test_output -*-
"""
What commands print: tables for people, JSON for programs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moxtls.tlsrpt.received import plain

#: Wide enough for any row, where output goes to a file or another program.
UNLIMITED = 10_000


@dataclass(frozen=True)
class Output:
    """
    Where a command prints, and how.

    @ivar asJSON: Whether a program reads it.
    """

    stdout: TextIO
    stderr: TextIO
    asJSON: bool = False

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        title: str = "",
        empty: str = "Nothing.",
    ) -> None:
        """
        Rows for people; as JSON, one object a row with the columns as keys.
        """
        gathered = [tuple(row) for row in rows]
        if self.asJSON:
            self.json([_object(columns, row) for row in gathered])
        elif gathered:
            self._console().print(_table(columns, gathered, title))
        else:
            self.line(empty)

    def json(self, value: Any) -> None:
        json.dump(value, self.stdout, indent=2, default=str)
        self.stdout.write("\n")

    def line(self, text: str) -> None:
        """
        One line for people; nothing if a program reads the output.
        """
        if not self.asJSON:
            self.stdout.write(plain(text) + "\n")

    def progress(self, text: str) -> None:
        """
        How far long work has come: on standard error, only on a terminal.
        """
        if self.stderr.isatty():
            self.stderr.write(f"\r\x1b[K{plain(text)}")
            self.stderr.flush()

    def progressEnded(self) -> None:
        if self.stderr.isatty():
            self.stderr.write("\r\x1b[K")
            self.stderr.flush()

    def _console(self) -> Console:
        width = None if self.stdout.isatty() else UNLIMITED
        return Console(file=self.stdout, width=width, soft_wrap=False, highlight=False)


def _object(columns: Sequence[str], row: Sequence[object]) -> dict[str, object]:
    keys = [column.lower().replace(" ", "_") for column in columns]
    return dict(zip(keys, row, strict=True))


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str
) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(_cell(each)) for each in row))
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(str(each)) for each in value)
    return plain(str(value))
