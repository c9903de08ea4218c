# -*- test-case-name: tests.cli.test_output -*-
"""
Command output: tables for terminals, JSON for programs; long lists are read a page at a
time.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from tempfile import SpooledTemporaryFile
from textwrap import wrap
from typing import IO, TYPE_CHECKING, Any, TextIO, TypeVar

from twisted.internet.defer import Deferred

from moxtls.tlsrpt.parse import escapeUnprintable

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

#: The width of a line in files and pipes: wide enough for any row.
UNLIMITED = 10_000
#: Maximum characters of buffered rows in memory; more are in a file.
IN_MEMORY = 4 * 2**20
#: Spaces between columns.
GAP = 2
#: Columns of text: more are hard to read, and with fewer nothing fits.
MAX_TEXT = 88
MIN_TEXT = 40
#: Longer words, such as host names, may be broken.
MAX_WORD = 20


@dataclass(frozen=True)
class Output:
    """
    The output streams of a command, and their format.

    @ivar asJSON: True if the output is JSON.
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
        Print rows; in JSON, one object a row with the columns as keys.
        """
        listing = self.listing(columns, title, empty)
        for row in rows:
            listing.add(row)
        listing.end()

    def listing(
        self, columns: Sequence[str], title: str = "", empty: str = "Nothing."
    ) -> Listing:
        """
        A table, as C{table}, for any number of rows that come one by one.
        """
        return (JSONListing if self.asJSON else TextListing)(
            self, columns, title, empty
        )

    def json(self, value: Any) -> None:
        json.dump(value, self.stdout, indent=2, default=str)
        self.stdout.write("\n")

    def line(self, text: str = "") -> None:
        """
        Print one line; nothing in JSON.
        """
        if not self.asJSON:
            self.stdout.write(escapeUnprintable(text) + "\n")

    def done(self, text: str, **facts: object) -> None:
        """
        Print a result: a line, or an object in JSON.
        """
        if self.asJSON:
            self.json(facts)
        else:
            self.line(text)

    def progress(self, text: str) -> None:
        """
        Print the progress of long work: on standard error, only on a terminal.
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
        The width of a line in columns.
        """
        return self.console().width

    @property
    def textWidth(self) -> int:
        """
        The width to which text is wrapped.
        """
        return max(MIN_TEXT, min(MAX_TEXT, self.width))

    def console(self) -> Console:
        from rich.console import Console

        width = None if self.stdout.isatty() else UNLIMITED
        return Console(
            file=self.stdout, width=width, highlight=False, color_system=None
        )


def wrapped(text: str, width: int, first: str, rest: str = "") -> list[str]:
    """
    A text in lines.

    @param first: The indentation of the first line; that of the others is as long.
    """
    return wrap(
        escapeUnprintable(text),
        width,
        initial_indent=first,
        subsequent_indent=rest or " " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def record(columns: Sequence[str], row: Sequence[object]) -> dict[str, object]:
    """
    A row as a JSON object.
    """
    keys = [column.lower().replace(" ", "_") for column in columns]
    return dict(zip(keys, row, strict=True))


class Listing(ABC):
    """
    A table that is being printed.
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
        Print one more row, or buffer it.
        """

    @abstractmethod
    def end(self) -> None:
        """
        Print the rows that had to wait for all others.
        """


class JSONListing(Listing):
    """
    One JSON object a row, printed at once.
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
    A table whose columns are as wide as their contents: rows are buffered, in a file
    if they are many.
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
        # Output to a program is never broken.
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
        # If words don't fit, columns don't either.
        if sum(self._least) + GAP * (len(self._least) - 1) > room:
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
            # Every column is padded; the last one needs no padding.
            yield gap.join(_padded(*each) for each in cells).rstrip()


def _width(text: str) -> int:
    """
    The width of a text in columns of a terminal.
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
    The lines of a cell, broken between words, and within words that are too long.
    """
    from rich.text import Text

    if _width(text) <= width:
        return [text]
    return [str(each) for each in Text(text).wrap(console, width, overflow="fold")]


def _widths(whole: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """
    Distribute the width of a line: each column gets at least C{least}, and an equal
    part of the rest up to what it needs.
    """
    widths = list(least)
    spare = room - sum(least) - GAP * (len(least) - 1)
    wanted = {n: max(0, each - least[n]) for n, each in enumerate(whole)}
    # Narrow columns first: what they leave of their share is for the others.
    for place, number in enumerate(sorted(wanted, key=wanted.__getitem__)):
        more = min(wanted[number], spare // (len(widths) - place))
        widths[number] += more
        spare -= more
    return widths


def _blocks(
    columns: Sequence[str], cells: Iterable[Sequence[str]], title: str
) -> Iterator[str]:
    """
    The form of a table that is too wide: one line for each cell that isn't empty.
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


# --- long lists ------------------------------------------------------------------

#: The page size: values in memory at a time.
AT_ONCE = 1000


async def paged(
    load: Callable[[T | None, int], Deferred[tuple[T, ...]]], atOnce: int = 0
) -> AsyncIterator[T]:
    """
    Iterate over all values of a paged list.

    @param load: Loads at most the given number of values after the last value of the
        page before.
    @param atOnce: The page size; 0 for the default.
    """
    last: T | None = None
    while found := await load(last, atOnce or AT_ONCE):
        for each in found:
            yield each
        last = found[-1]
