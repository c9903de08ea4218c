# -*- test-case-name: tests.cli.test_output -*-
"""
What commands print: tables for people, JSON for programs.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, TextIO

from moxtls.tlsrpt.parse import escapeUnprintable

if TYPE_CHECKING:
    from rich.console import Console

#: Wide enough for any row, where output goes to a file or another program.
UNLIMITED = 10_000
#: Characters of rows that wait in memory until all are known; more are in a file.
IN_MEMORY = 4 * 2**20
#: Blanks between columns.
GAP = 2
#: Longer words, such as names of hosts, may be broken.
MAX_WORD = 20


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
        listing = self.listing(columns, title, empty)
        for row in rows:
            listing.add(row)
        listing.end()

    def listing(
        self, columns: Sequence[str], title: str = "", empty: str = "Nothing."
    ) -> Listing:
        """
        As C{table}, for rows that come one after the other, however many.
        """
        return (JSONListing if self.asJSON else TextListing)(
            self, columns, title, empty
        )

    def json(self, value: Any) -> None:
        json.dump(value, self.stdout, indent=2, default=str)
        self.stdout.write("\n")

    def line(self, text: str = "") -> None:
        """
        One line for people; nothing if a program reads the output.
        """
        if not self.asJSON:
            self.stdout.write(escapeUnprintable(text) + "\n")

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
            self.stderr.write(f"\r\x1b[K{escapeUnprintable(text)}")
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
        return self.console().width

    def console(self) -> Console:
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


class Listing(ABC):
    """
    A table that is being written.
    """

    def __init__(
        self, output: Output, columns: Sequence[str], title: str, empty: str
    ) -> None:
        self._output = output
        self._columns = columns
        self._title = title
        self._empty = empty

    @abstractmethod
    def add(self, row: Sequence[object]) -> None:
        """
        Write, or keep, one more row.
        """

    @abstractmethod
    def end(self) -> None:
        """
        Write what has to wait until all rows are known.
        """


class JSONListing(Listing):
    """
    One object a row, written at once.
    """

    _before = "[\n  "

    def add(self, row: Sequence[object]) -> None:
        text = json.dumps(record(self._columns, row), indent=2, default=str)
        self._output.stdout.write(self._before + text.replace("\n", "\n  "))
        self._before = ",\n  "

    def end(self) -> None:
        isEmpty = self._before == JSONListing._before
        self._output.stdout.write("[]\n" if isEmpty else "\n]\n")


class TextListing(Listing):
    """
    Columns as wide as what is in them: rows wait, in a file if they are many.
    """

    def __init__(
        self, output: Output, columns: Sequence[str], title: str, empty: str
    ) -> None:
        super().__init__(output, columns, title, empty)
        self._rows: IO[str] = SpooledTemporaryFile(  # noqa: SIM115  # Closed in C{end}.
            IN_MEMORY, "w+", encoding="utf-8"
        )
        self._count = 0
        self._whole = [_width(each) for each in columns]
        self._least = [_longestWord(each) for each in columns]
        self._numeric = [True for _ in columns]
        # What goes to a program is never broken, so that words don't matter.
        self._isBroken = output.stdout.isatty()

    def add(self, row: Sequence[object]) -> None:
        cells = [_cell(each) for each in row]
        for number, (value, text) in enumerate(zip(row, cells, strict=True)):
            self._whole[number] = max(self._whole[number], _width(text))
            if self._isBroken:
                least = max(self._least[number], _longestWord(text))
                self._least[number] = least
            self._numeric[number] &= type(value) in (int, float)
        self._rows.write(json.dumps(cells) + "\n")
        self._count += 1

    def end(self) -> None:
        with self._rows:
            if not self._count:
                self._output.line(self._empty)
                return
            for line in self._lines():
                self._output.stdout.write(f"{line}\n")

    def _cells(self) -> Iterator[list[str]]:
        self._rows.seek(0)
        return map(json.loads, self._rows)

    def _lines(self) -> Iterator[str]:
        room = self._output.width
        # Where not even words fit, neither do columns.
        if sum(self._least) + GAP * len(self._least) > room:
            yield from _blocks(self._columns, self._cells(), self._title)
            return
        widths = _widths(self._whole, self._least, room)
        if self._title:
            yield self._title
        for row in chain([self._columns], self._cells()):
            yield from self._rowLines(row, widths)

    def _rowLines(self, row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        console = self._output.console()
        broken = [_broken(console, *each) for each in zip(row, widths, strict=True)]
        for line in zip_longest(*broken, fillvalue=""):
            cells = zip(line, widths, self._numeric, strict=True)
            gap = " " * GAP
            # Each column is padded, the last one to no purpose.
            yield gap.join(_padded(*each) for each in cells).rstrip()


def _width(text: str) -> int:
    """
    In columns of a terminal.
    """
    from rich.cells import cell_len

    return len(text) if text.isascii() else cell_len(text)


def _longestWord(text: str) -> int:
    return min(MAX_WORD, max(map(_width, text.split()), default=0))


def _padded(text: str, width: int, isNumeric: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if isNumeric else text + blanks


def _broken(console: Console, text: str, width: int) -> list[str]:
    """
    The lines of a cell: broken between words, and within those that don't fit.
    """
    from rich.text import Text

    if _width(text) <= width:
        return [text]
    return [str(each) for each in Text(text).wrap(console, width, overflow="fold")]


def _widths(whole: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """
    What each column gets of a line: at least C{least}, and of the rest as much
    as others, if it has a use for it.
    """
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
        return ", ".join(escapeUnprintable(str(each)) for each in value)
    return escapeUnprintable(str(value))
