# -*- test-case-name: tests.smtp.test_dotstuffing -*-
"""
Dot-stuffing of message data after DATA (RFC 5321 4.5.2): encoder and decoder.
No I/O.

Both work on whole buffers, never on single lines: the cost of a message depends on
the number of chunks, not of lines.
"""

from __future__ import annotations

import re

_CRLF = b"\r\n"
# RFC 5321 4.1.1.4: the first CRLF belongs to the last line of the message.
_END = b"\r\n.\r\n"
_STUFFED = b"\r\n."
# Searching for this regular expression takes half the time of C{bytes.find}.
_FIND_STUFFED = re.compile(rb"\r\n\.")
# RFC 5321 2.3.8.  Other software may accept these as line ends, so that a message
# could end where it should not (SMTP smuggling).
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class DotStuffing:
    """
    Encodes one message, chunk by chunk.  Bare CR and LF become CRLF.
    """

    def __init__(self) -> None:
        self._atLineStart = True
        self._carry = b""

    def feed(self, part: bytes) -> bytes:
        """
        Encode the next chunk of the message, cut anywhere.
        """
        # A CR at the end may be half of a CRLF.
        part = self._carry + part
        self._carry = b"\r" if part.endswith(b"\r") else b""
        return self._encode(part[: len(part) - len(self._carry)])

    def end(self) -> bytes:
        """
        Return the end of the encoded message, with the end of data indication.
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
    Decodes the message that a client sends after the reply C{354}.

    Only CRLF ends a line, and only CRLF.CRLF the message (RFC 5321 2.3.8,
    4.1.1.4).  Anything else that a next hop might accept as a line end makes the
    message C{flawed}, so that no server can see two messages where there is one.

    @ivar ended: The end of data indication was received.
    @ivar flawed: The message has a bare CR, a bare LF or a NUL.
    @ivar size: Octets decoded so far.
    @ivar rest: Input after the end of data.
    """

    __slots__ = ("_held", "_virtual", "ended", "flawed", "rest", "size")

    def __init__(self) -> None:
        self.ended = False
        self.flawed = False
        self.size = 0
        self.rest = b""
        # The message begins at the beginning of a line: the CRLF of the DATA
        # command counts as its start, and is removed again.
        self._held = _CRLF
        self._virtual = len(_CRLF)

    def feed(self, data: bytes) -> bytes:
        """
        Decode received data, cut anywhere.

        @return: The message as far as it is certain: CRLF line ends, no
            dot-stuffing.
        """
        wire = self._held + data
        # Stuffed lines begin like the end of data; most messages have none.
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
        # RFC 5321 4.5.2.  The end of data was removed before, so occurrences don't
        # overlap.
        text = wire.replace(_STUFFED, _CRLF) if mayBeStuffed else wire
        if self._virtual and text:
            text = text[self._virtual :]
            self._virtual = 0
        self.size += len(text)
        return text


def _undecided(wire: bytes) -> int:
    """
    The number of octets at the end of C{wire} that may begin the end of data.
    """
    for length in range(len(_END) - 1, 0, -1):
        if wire.endswith(_END[:length]):
            return length
    return 0


def isFlawed(wire: bytes) -> bool:
    """
    True if there is a bare CR, a bare LF or a NUL.

    @param wire: Not cut within a CRLF.
    """
    return b"\0" in wire or _hasBare(wire)


def _hasBare(text: bytes) -> bool:
    # The text is unchanged only if each CR is followed by a LF and there are no
    # other LFs.  Takes a quarter of the time of counting them.
    return text.replace(b"\n", b"").replace(b"\r", _CRLF) != text
