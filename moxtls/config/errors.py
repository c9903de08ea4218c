# -*- test-case-name: tests.test_config -*-
"""
Errors in a configuration, formatted as one line each. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

#: Values quoted in an error are cut to this length: it is one line.
MAX_QUOTED = 60

#: Table, key, value, and what was expected.
Inconsistency = tuple[str, str, object, str]


# Not frozen: Python and Twisted write down tracebacks in exceptions.
@dataclass(eq=False)
class InvalidConfig(Exception):
    """
    The configuration can't be used.

    @ivar table: The table, such as C{Listeners.local}; empty at the top level.
    @ivar key: The key; empty if the table itself is wrong.
    @ivar value: As written, shortened; empty if there is none.
    @ivar expected: A description of correct values.
    @ivar others: Further errors in the same file.
    """

    file: str
    table: str
    key: str
    value: str
    expected: str
    others: tuple[InvalidConfig, ...] = ()

    def __str__(self) -> str:
        return "\n".join(each.line for each in (self, *self.others))

    @property
    def line(self) -> str:
        """
        This error, in one line.
        """
        return f"{self.file}: {self.place}"

    @property
    def place(self) -> str:
        """
        The table, key and error, without the name of the file.
        """
        where = f"[{self.table}]" if self.table else ""
        place = " ".join(filter(None, (where, self.key)))
        place += f" = {self.value}" if self.value else ""
        return f"{place}: {self.expected}" if place else self.expected


def joinedErrors(faults: Iterable[InvalidConfig]) -> InvalidConfig | None:
    """
    Combine C{faults} into one exception, without duplicates; C{None} if there are
    none.
    """
    lines: dict[str, InvalidConfig] = {}
    for fault in faults:
        for each in (fault, *fault.others):
            lines.setdefault(each.line, replace(each, others=()))
    if not lines:
        return None
    first, *others = lines.values()
    return replace(first, others=tuple(others))


def quoted(value: object) -> str:
    """
    A value quoted for an error message: on one line, shortened.
    """
    if value is None:
        return ""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "..."
