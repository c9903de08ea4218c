# -*- test-case-name: tests.smtp.test_client -*-
"""
Bytes from an SMTP server -> replies (RFC 5321 4.2).  No I/O.
"""

from __future__ import annotations

import re

from moxtls.smtp.values import Reply

#: Of one line, CRLF included.  RFC 5321 4.5.3.1.5 has 512; servers that put
#: addresses and URLs in their replies exceed it.
LONGEST_LINE = 2048
#: Far more than any server has extensions.
MOST_LINES = 100
#: Of one reply, in octets.
LONGEST_REPLY = 65536

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\n]*))?\Z", re.DOTALL)
# RFC 3463 2.
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: +|\Z)")


class MalformedReply(Exception):
    """
    The other side doesn't speak SMTP.
    """


class ReplyReader:
    """
    Takes a stream of replies apart.

    RFC 5321 2.3.8: nothing but CRLF ends a line.  A bare line feed is an
    error at once: taken for the end of a line, it would let whoever gets his
    words quoted in a reply make up replies of his own.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> bool:
        """
        Whether anything came that C{next} has not given out.
        """
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[bytes, ...] | None:
        """
        The lines of the next reply, without CRLF; C{None} until it is
        complete.

        @raise MalformedReply: What came is no reply.
        """
        while (line := self._nextLine()) is not None:
            last = self._isLast(line)
            self._lines.append(line)
            if last:
                reply, self._lines, self._size = tuple(self._lines), [], 0
                return reply
        return None

    def _nextLine(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        length = len(self._buffer) if end < 0 else end + 1
        if length > LONGEST_LINE:
            raise MalformedReply("a line that is too long")
        if end < 0:
            return None
        if self._buffer[end - 1 : end] != b"\r":
            raise MalformedReply("a bare line feed")
        line = bytes(self._buffer[: end - 1])
        del self._buffer[: end + 1]
        return line

    def _isLast(self, line: bytes) -> bool:
        match = _LINE.match(line)
        if match is None:
            raise MalformedReply("a line that is no reply")
        if self._lines and self._lines[0][:3] != match[1]:
            raise MalformedReply("a reply with more than one code")
        self._size += len(line)
        if len(self._lines) >= MOST_LINES or self._size > LONGEST_REPLY:
            raise MalformedReply("a reply that is too long")
        return match[2] != b"-"


def parseReply(lines: tuple[bytes, ...], enhanced: bool = True) -> Reply:
    """
    @param lines: As L{ReplyReader.next} gives them.
    @param enhanced: Whether there may be an enhanced status code: not in the
        greeting and in replies to EHLO (RFC 2034 4).
    """
    texts = [line[4:].decode("utf-8", "replace") for line in lines]
    found = _ENHANCED.match(texts[0]) if enhanced else None
    status = ""
    if found and found[1] == chr(lines[0][0]):
        status = ".".join(found.groups())
        prefix = re.compile(re.escape(status) + r"(?: +|\Z)")
        texts = [prefix.sub("", text, count=1) for text in texts]
    return Reply(int(lines[0][:3]), status, "\n".join(texts))
