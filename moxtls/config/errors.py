# -*- test-case-name: tests.test_config -*-
"""
What is wrong with a configuration, in one line.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Values quoted in an error are cut to this length: it is one line.
LONGEST_QUOTE = 60

#: Table, key, value, and what was expected.
Inconsistency = tuple[str, str, object, str]


# Not frozen: Python and Twisted write down tracebacks in exceptions.
@dataclass(eq=False)
class InvalidConfig(Exception):
    """
    The configuration can't be used.

    @ivar table: Such as C{Listeners.local}; empty at the top.
    @ivar key: Empty if the table itself is wrong.
    @ivar value: As written, shortened; empty if there is none.
    @ivar expected: What would have been right.
    """

    file: str
    table: str
    key: str
    value: str
    expected: str

    def __str__(self) -> str:
        where = f" [{self.table}]" if self.table else ""
        what = f" {self.key}" if self.key else ""
        value = f" = {self.value}" if self.value else ""
        place = f"{where}{what}{value}"
        return f"{self.file}:{place}{':' if place else ''} {self.expected}"


def quoted(value: object) -> str:
    """
    As in an error: on one line, and not a long one.
    """
    if value is None:
        return ""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 3] + "..."
