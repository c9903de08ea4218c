# -*- test-case-name: tests.smtp.test_dotstuffing -*-
"""
A message as it goes over the wire behind DATA (RFC 5321 4.5.2), both ways.
No I/O.

Works on whole buffers: what a message costs depends on how many pieces it
comes in, not on how many lines it has.
"""

from __future__ import annotations

import re

_CRLF = b"\r\n"
# RFC 5321 4.1.1.4: the first CRLF belongs to the last line of the message.
_END = b"\r\n.\r\n"
_STUFFED = b"\r\n."
# The same: that takes half the time of C{bytes.find}.
_FIND_STUFFED = re.compile(rb"\r\n\.")
# RFC 5321 2.3.8.  Other software may take these for line ends, so a message
# with one could end where we didn't mean it to.
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class DotStuffing:
    """
    Encodes one message, part by part.

    Works on whole parts, never on lines: messages are mostly attachments.
    """

    def __init__(self) -> None:
        self._atLineStart = True
        self._carry = b""

    def feed(self, part: bytes) -> bytes:
        """
        @param part: Any part of a message, in order.
        """
        # A CR at the end may be half of a CRLF.
        part = self._carry + part
        self._carry = b"\r" if part.endswith(b"\r") else b""
        return self._encode(part[: len(part) - len(self._carry)])

    def end(self) -> bytes:
        """
        What goes behind the last part.
        """
        rest = self._encode(self._carry)
        self._carry = b""
        return rest + (b".\r\n" if self._atLineStart else b"\r\n.\r\n")

    def _encode(self, part: bytes) -> bytes:
        if not part:
            return b""
        if _hasBare(part):
            part = _BARE.sub(b"\r\n", part)
        stuffed = part
        if _FIND_STUFFED.search(part):
            stuffed = part.replace(_STUFFED, b"\r\n..")
        if self._atLineStart and part.startswith(b"."):
            stuffed = b"." + stuffed
        self._atLineStart = part.endswith(b"\r\n")
        return stuffed


class BodyDecoder:
    """
    Takes a message out of what a client sends behind C{354}.

    Only CRLF ends a line and only CRLF.CRLF the message (RFC 5321 2.3.8,
    4.1.1.4): whatever else a next hop might take for a line end makes the
    message C{flawed}, so nobody can be made to see two messages where there
    is one.

    @ivar ended: Whether the end of the message was seen.
    @ivar flawed: Whether there was a bare CR, a bare LF or a NUL.
    @ivar size: How many bytes were decoded so far.
    @ivar rest: What came behind the end.
    """

    __slots__ = ("_held", "_virtual", "ended", "flawed", "rest", "size")

    def __init__(self) -> None:
        self.ended = False
        self.flawed = False
        self.size = 0
        self.rest = b""
        # The message begins at the beginning of a line: the CRLF of the DATA
        # command counts, and is taken off again.
        self._held = _CRLF
        self._virtual = len(_CRLF)

    def feed(self, data: bytes) -> bytes:
        """
        @param data: What was received, cut anywhere.

        @return: As much of the message as is certain: CRLF line ends, no
            dot-stuffing.
        """
        wire = self._held + data
        # What is stuffed begins as the end does: mostly, the end is all there is.
        found = _FIND_STUFFED.search(wire)
        first = found.start() if found else -1
        end = wire.find(_END, first) if found else -1
        if end >= 0:
            self.ended = True
            self._held = b""
            self.rest = wire[end + len(_END) :]
            return self._decode(wire[: end + len(_CRLF)], first < end)
        kept = len(wire) - _undecided(wire)
        self._held = wire[kept:]
        return self._decode(wire[:kept], first >= 0)

    def _decode(self, wire: bytes, mayBeStuffed: bool) -> bytes:
        self.flawed = self.flawed or isFlawed(wire)
        # RFC 5321 4.5.2.  The end was found before, so no two occurrences
        # overlap.
        text = wire.replace(_STUFFED, _CRLF) if mayBeStuffed else wire
        if self._virtual and text:
            text = text[self._virtual :]
            self._virtual = 0
        self.size += len(text)
        return text


def _undecided(wire: bytes) -> int:
    """
    How many bytes at the end of C{wire} may be the beginning of the end.
    """
    for length in range(len(_END) - 1, 0, -1):
        if wire.endswith(_END[:length]):
            return length
    return 0


def isFlawed(wire: bytes) -> bool:
    """
    Whether there is a bare CR, a bare LF or a NUL.

    @param wire: Not cut within a CRLF.
    """
    return b"\0" in wire or _hasBare(wire)


def _hasBare(text: bytes) -> bool:
    # With one LF behind each CR and none elsewhere it is the same if there
    # were no others.  A fourth of the time that it takes to count them.
    return text.replace(b"\n", b"").replace(b"\r", _CRLF) != text
