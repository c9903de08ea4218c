# -*- test-case-name: tests.smtp.client.test_conversation -*-
"""
Bytes from an SMTP server -> replies (RFC 5321 4.2).  No I/O.
"""

from __future__ import annotations

import re

from moxtls.smtp.types import Reply

#: Of one line, its end included.  The 512 of RFC 5321 4.5.3.1.5 are the least that
#: is to be taken; servers that put addresses and URLs in their replies exceed it.
MAX_LINE = 16384
#: Far more than any server has extensions; also of empty lines in front of one.
MAX_LINES = 1000
#: Of one reply, in octets.
MAX_REPLY = 65536

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

    Reading of RFC 5321 2.3.8: nothing but CRLF may end a line, but there are
    servers whose lines a line feed ends, or that put empty ones between them,
    and mail to them is to arrive.  A stranger's words that are quoted in a
    reply, with a line feed in them, come behind the code that counts, and a
    reply too many ends the session.
    """

    def __init__(self, onlyCRLF: bool = False) -> None:
        """
        @param onlyCRLF: Refuse those servers, for somebody who reads the same
            bytes and knows no other line ends.
        """
        self._onlyCRLF = onlyCRLF
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._size = 0
        self._empty = 0

    @property
    def pending(self) -> bool:
        """
        Whether anything came that C{next} has not given out.
        """
        return bool(self._buffer or self._lines)

    @property
    def isReplying(self) -> bool:
        """
        Whether C{pending} is more than empty lines.
        """
        return bool(self._lines or self._buffer.strip(b"\r\n"))

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[bytes, ...] | None:
        """
        The lines of the next reply, without their ends; C{None} until it is
        complete.

        @raise MalformedReply: What came is no reply.
        """
        while (line := self._nextLine()) is not None:
            if not line and not self._onlyCRLF:
                self._skipEmpty()
                continue
            last = self._isLast(line)
            self._lines.append(line)
            if last:
                reply, self._lines = tuple(self._lines), []
                self._size = self._empty = 0
                return reply
        return None

    def _skipEmpty(self) -> None:
        self._empty += 1
        if self._empty > MAX_LINES:
            raise MalformedReply("empty lines in place of a reply")

    def _nextLine(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        length = len(self._buffer) if end < 0 else end + 1
        if length > MAX_LINE:
            raise MalformedReply("a line that is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        if not self._onlyCRLF:
            return line.rstrip(b"\r")
        if not line.endswith(b"\r"):
            raise MalformedReply("a bare line feed")
        return line[:-1]

    def _isLast(self, line: bytes) -> bool:
        match = _LINE.match(line)
        if match is None:
            raise MalformedReply("a line that is no reply")
        if self._lines and self._lines[0][:3] != match[1]:
            raise MalformedReply("a reply with more than one code")
        self._size += len(line)
        if len(self._lines) >= MAX_LINES or self._size > MAX_REPLY:
            raise MalformedReply("a reply that is too long")
        return match[2] != b"-"


def parseReply(lines: tuple[bytes, ...], enhanced: bool = True) -> Reply:
    """
    @param lines: As L{ReplyReader.next} gives them.
    @param enhanced: Whether there may be an enhanced status code in any case.
        RFC 2034 4 has none in the greeting and in replies to EHLO; servers that
        refuse there put one in all the same.
    """
    texts = [line[4:].decode("utf-8", "replace") for line in lines]
    mayHave = enhanced or lines[0][:1] in (b"4", b"5")
    found = _ENHANCED.match(texts[0]) if mayHave else None
    status = ""
    if found and found[1] == chr(lines[0][0]):
        status = ".".join(found.groups())
        prefix = re.compile(re.escape(status) + r"(?: +|\Z)")
        texts = [prefix.sub("", text, count=1) for text in texts]
    return Reply(int(lines[0][:3]), status, "\n".join(texts))
