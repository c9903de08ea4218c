# -*- test-case-name: tests.smtp.client.test_conversation -*-
"""
Parses the replies of an SMTP server (RFC 5321 4.2).  No I/O.
"""

from __future__ import annotations

import re
from functools import lru_cache

from moxtls.smtp.types import Reply

#: Octets of one line, with its end.  The 512 of RFC 5321 4.5.3.1.5 are a minimum;
#: servers that put addresses and URLs in their replies exceed it.
MAX_LINE = 16384
#: Lines of one reply, far more than any server has extensions; also the number of
#: empty lines before a reply.
MAX_LINES = 1000
#: Octets of one reply.
MAX_REPLY = 65536
#: Replies that are remembered as parsed, of one line with so many octets at most.
MAX_CACHED = 500
MAX_CACHED_LENGTH = 100

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\n]*))?\Z", re.DOTALL)
# RFC 3463 2.
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: +|\Z)")


class MalformedReply(Exception):
    """
    The server sent something that isn't an SMTP reply.
    """


class ReplyReader:
    """
    Splits a byte stream into replies.

    Reading of RFC 5321 2.3.8: only CRLF may end a line, but some servers end lines
    with a line feed alone, or send empty lines between them, and mail to them must
    be delivered.  This is safe: untrusted text that a server quotes in a reply, with
    a line feed in it, follows the code that counts, and an extra reply ends the
    session.
    """

    def __init__(self, onlyCRLF: bool = False) -> None:
        """
        @param onlyCRLF: Reject other line ends, for use in front of a parser that
            only knows CRLF.
        """
        self._onlyCRLF = onlyCRLF
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._size = 0
        self._empty = 0

    @property
    def pending(self) -> bool:
        """
        True if there is input that C{next} has not returned.
        """
        return bool(self._buffer or self._lines)

    @property
    def isReplying(self) -> bool:
        """
        True if the pending input is more than empty lines.
        """
        return bool(self._lines or self._buffer.strip(b"\r\n"))

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[bytes, ...] | None:
        """
        Return the lines of the next reply, without their ends; C{None} until it is
        complete.

        @raise MalformedReply: The input is not a reply.
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
    Parse a reply.

    @param lines: As returned by L{ReplyReader.next}.
    @param enhanced: Accept an enhanced status code in positive replies, too.
        RFC 2034 4 allows none in the greeting and in replies to EHLO, but servers
        that refuse a client there often include one.
    """
    if len(lines) == 1 and len(lines[0]) <= MAX_CACHED_LENGTH:
        return _parseCached(lines, enhanced)
    return _parse(lines, enhanced)


def _parse(lines: tuple[bytes, ...], enhanced: bool) -> Reply:
    texts = [line[4:].decode("utf-8", "replace") for line in lines]
    mayHave = enhanced or lines[0][:1] in (b"4", b"5")
    found = _ENHANCED.match(texts[0]) if mayHave else None
    status = ""
    if found and found[1] == chr(lines[0][0]):
        status = ".".join(found.groups())
        prefix = re.compile(re.escape(status) + r"(?: +|\Z)")
        texts = [prefix.sub("", text, count=1) for text in texts]
    return Reply(int(lines[0][:3]), status, "\n".join(texts))


# Most replies of a host are the same few.
_parseCached = lru_cache(MAX_CACHED)(_parse)
