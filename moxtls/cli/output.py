# -*- test-case-name: tests.cli.test_output -*-
"""
What commands print: tables for people, JSON for programs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from moxtls.tlsrpt.received import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Wide enough for any row, where output goes to a file or another program.
UNLIMITED = 10_000
#: Blanks between columns.
GAP = 2
#: Longer words, such as names of hosts, may be broken.
LONGEST_WORD = 20


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
            self.json([record(columns, row) for row in gathered])
        elif gathered:
            self._write(columns, gathered, title)
        else:
            self.line(empty)

    def json(self, value: Any) -> None:
        json.dump(value, self.stdout, indent=2, default=str)
        self.stdout.write("\n")

    def line(self, text: str = "") -> None:
        """
        One line for people; nothing if a program reads the output.
        """
        if not self.asJSON:
            self.stdout.write(plain(text) + "\n")

    def done(self, text: str, **facts: object) -> None:
        """
        What was done: a line for people, an object for programs.
        """
        if self.asJSON:
            self.json(facts)
        else:
            self.line(text)

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

    @property
    def width(self) -> int:
        """
        Of a line.
        """
        return self._console().width

    def _write(
        self, columns: Sequence[str], rows: list[tuple[object, ...]], title: str
    ) -> None:
        console = self._console()
        cells = [[_cell(each) for each in row] for row in rows]
        least = _leastWidths(columns, cells)
        # Where not even words fit, neither do columns.
        if sum(least) + GAP * len(least) > console.width:
            for line in _blocks(columns, cells, title):
                self.line(line)
            return
        numeric = [
            all(type(row[number]) in (int, float) for row in rows)
            for number in range(len(columns))
        ]
        widths = _widths(columns, cells, least, console.width)
        table = _table(columns, numeric, widths, title)
        _fill(table, cells)
        with console.capture() as captured:
            console.print(table)
        # Each column is padded, the last one to no purpose.
        lines = (line.rstrip() for line in captured.get().splitlines())
        self.stdout.writelines(f"{line}\n" for line in lines)

    def _console(self) -> Console:
        from rich.console import Console

        width = None if self.stdout.isatty() else UNLIMITED
        return Console(
            file=self.stdout, width=width, highlight=False, color_system=None
        )


def record(columns: Sequence[str], row: Sequence[object]) -> dict[str, object]:
    """
    A row for programs.
    """
    keys = [column.lower().replace(" ", "_") for column in columns]
    return dict(zip(keys, row, strict=True))


def _table(
    columns: Sequence[str], numeric: Sequence[bool], widths: Sequence[int], title: str
) -> Table:
    from rich.table import Table

    table = Table(
        title=title or None,
        title_justify="left",
        title_style="",
        header_style="",
        box=None,
        pad_edge=False,
        padding=(0, GAP, 0, 0),
    )
    for column, isNumeric, width in zip(columns, numeric, widths, strict=True):
        table.add_column(
            column,
            justify="right" if isNumeric else "left",
            width=width,
            overflow="fold",
        )
    return table


def _fill(table: Table, cells: Iterable[Sequence[str]]) -> None:
    from rich.text import Text

    for row in cells:
        table.add_row(*map(Text, row))


def _leastWidths(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> list[int]:
    """
    What each column needs for its longest word.
    """
    from rich.cells import cell_len

    whole = zip(columns, *cells, strict=True)
    return [
        min(
            LONGEST_WORD,
            max(cell_len(word) for text in column for word in (text.split() or [""])),
        )
        for column in whole
    ]


def _widths(
    columns: Sequence[str],
    cells: Iterable[Sequence[str]],
    least: Sequence[int],
    room: int,
) -> list[int]:
    """
    What each column gets of a line: at least C{least}, and of the rest as much
    as others, if it has a use for it.  Left to itself, C{rich} may make the
    columns wider than the line, and cut it.
    """
    from rich.cells import cell_len

    whole = [max(map(cell_len, each)) for each in zip(columns, *cells, strict=True)]
    widths = list(least)
    spare = room - sum(least) - GAP * len(least)
    wanted = {n: max(0, each - least[n]) for n, each in enumerate(whole)}
    # Who wants little first: what is left of his share is for the others.
    for place, number in enumerate(sorted(wanted, key=wanted.__getitem__)):
        more = min(wanted[number], spare // (len(widths) - place))
        widths[number] += more
        spare -= more
    return widths


def _blocks(
    columns: Sequence[str], cells: Iterable[Sequence[str]], title: str
) -> Iterator[str]:
    """
    Where a table would be too wide: a line for each cell that says something.
    """
    indent = max(map(len, columns)) + GAP
    if title:
        yield title
    for number, row in enumerate(cells):
        if number:
            yield ""
        for column, text in zip(columns, row, strict=True):
            if text:
                yield f"{column:<{indent}}{text}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(str(each)) for each in value)
    return plain(str(value))
