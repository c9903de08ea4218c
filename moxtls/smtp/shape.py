# -*- test-case-name: tests.smtp.test_shape -*-
"""
How large the parts of a message are that others have to hold at once: the
header, its fields, a line; and whether it can be sent at all.  No I/O.

Works on whole pieces: what it costs depends on how many there are, not on how
many lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from moxtls.smtp.body import isFlawed
from moxtls.smtp.events import MAX_LINE, ServerSettings
from moxtls.smtp.values import Reply

_CRLF = b"\r\n"
HEADER_TOO_LONG = Reply(552, "5.3.4", "Header is larger than this server takes")
_FIELDS = Reply(554, "5.6.0", "Header has too many fields")
_LINE = Reply(554, "5.6.0", "Line too long")
_FLAW = re.compile(rb"\0|\r(?!\n)|(?<!\r)\n")
_NAMES = {b"\0": "NUL", b"\r": "bare CR", b"\n": "bare LF"}


class InvalidMessage(ValueError):
    """
    A message has something in it that no server takes: a NUL, a bare CR or LF
    (RFC 5321 2.3.8, 4.5.2), or a line that is far too long.
    """


def validated(body: Iterable[bytes]) -> Iterator[bytes]:
    """
    The chunks of a message, as long as L{moxtls.smtp.server} would take them from
    a client.

    @raise InvalidMessage: Says which line is at fault.
    """
    shape, lines, held = HeaderLimits(MAX_LINE), 1, b""
    for chunk in body:
        # A CR at the end may be half of a CRLF.
        text = held + chunk
        held = b"\r" if text.endswith(b"\r") else b""
        text = text[: len(text) - len(held)]
        _check(text, shape, lines)
        lines += text.count(b"\n")
        yield chunk
    _check(held, shape, lines)


def _check(text: bytes, shape: HeaderLimits, first: int) -> None:
    """
    @param first: The number of the line with which C{text} begins.
    """
    shape.feed(text)
    if shape.hasLongLine:
        lengths = [len(line) for line in text.split(b"\n")]
        line = first + lengths.index(max(lengths))
        reason = f"has more than {MAX_LINE} octets"
    elif isFlawed(text):
        flaw = _FLAW.search(text)
        assert flaw is not None
        line = first + text.count(b"\n", 0, flaw.start())
        reason = f"has a {_NAMES[flaw[0]]}"
    else:
        return
    raise InvalidMessage(f"line {line} of the message {reason}")


class HeaderLimits:
    """
    Looks at one message as it comes.

    @ivar header: Bytes of the header so far.
    @ivar fields: How many it has.
    @ivar hasLongLine: Whether a line is over the limit.
    """

    __slots__ = (
        "_held",
        "_inHeader",
        "_longest",
        "_open",
        "fields",
        "hasLongLine",
        "header",
    )

    def __init__(self, longestLine: int) -> None:
        """
        @param longestLine: In bytes, with its CRLF.
        """
        self._longest = longestLine
        self._inHeader = True
        # What the message begins with is a line's beginning too.
        self._held = _CRLF
        self._open = 0
        self.header = 0
        self.fields = 0
        self.hasLongLine = False

    def feed(self, text: bytes) -> None:
        """
        @param text: In order, never cut within a CRLF.
        """
        if self._inHeader:
            self._measure(self._held + text)
        self._findLongLine(text)

    def fault(self, settings: ServerSettings) -> Reply | None:
        """
        What is to be said against the message, as far as it is known.
        """
        if self.header > settings.headerSize:
            return HEADER_TOO_LONG
        if self.fields > settings.headerFields:
            return _FIELDS
        return _LINE if self.hasLongLine else None

    def _measure(self, text: bytes) -> None:
        """
        @param text: Begins where a line may begin.
        """
        end = text.find(b"\r\n\r\n")
        self._inHeader = end < 0
        if end < 0:
            # Whether a field begins behind it remains to be seen.
            self._held = _CRLF if text.endswith(_CRLF) else b""
            end = len(text) - len(self._held)
        begun = text.count(_CRLF, 0, end)
        # RFC 5322 2.2.3.
        folded = text.count(b"\r\n ", 0, end) + text.count(b"\r\n\t", 0, end)
        self.fields += begun - folded
        self.header += end

    def _findLongLine(self, text: bytes) -> None:
        if self.hasLongLine:
            return
        start = -self._open
        while len(text) - start > self._longest:
            # The last line end within reach, not each: long strides.
            end = text.rfind(b"\n", max(0, start), start + self._longest)
            if end < 0:
                self.hasLongLine = True
                return
            start = end + 1
        last = text.rfind(b"\n", max(0, start))
        self._open = len(text) - (start if last < 0 else last + 1)
