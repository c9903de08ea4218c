# -*- test-case-name: tests.smtp.test_server -*-
"""
Command lines out of what a client sends.  No I/O.
"""

from __future__ import annotations


class LineBuffer:
    """
    What was received and not looked at yet.

    Only CRLF ends a line (RFC 5321 2.3.8).  Of a line that is too long only
    that fact is kept.
    """

    __slots__ = ("_data", "_end", "_overlong")

    def __init__(self) -> None:
        self._data = bytearray()
        self._end = -1
        self._overlong = False

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        self._data += data

    def clear(self) -> None:
        self._data.clear()

    def takeAll(self) -> bytes:
        """
        What is there, lines or not.
        """
        data = bytes(self._data)
        self._data.clear()
        return data

    def take(self, most: int) -> bytes:
        """
        The first C{most} bytes, or what there is of them.
        """
        if len(self._data) <= most:
            return self.takeAll()
        data = bytes(self._data[:most])
        del self._data[:most]
        return data

    def hasLine(self, longest: int) -> bool:
        """
        Look for a line of at most C{longest} bytes, or for the end of one
        that is longer.
        """
        self._end = self._data.find(b"\r\n")
        found = self._end >= 0
        if (found and self._end <= longest) or not self._data:
            return found
        # A CR at the end may be half of a CRLF.
        length = len(self._data) - self._data.endswith(b"\r")
        if (self._end if found else length) > longest:
            self._overlong = True
        if self._overlong and not found:
            del self._data[:-1]
        return found

    def takeLine(self) -> bytes | None:
        """
        Take the line that C{hasLine} found, without its CRLF.

        @return: C{None} if it was too long.
        """
        line = None if self._overlong else bytes(self._data[: self._end])
        del self._data[: self._end + 2]
        self._overlong = False
        return line
