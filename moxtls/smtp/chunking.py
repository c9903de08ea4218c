# -*- test-case-name: tests.smtp.test_chunking -*-
"""
A message as it goes over the wire behind BDAT (RFC 3030 2).  No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moxtls.smtp.body import isFlawed
from moxtls.smtp.values import Reply

# RFC 3030 2: bdat-cmd = "BDAT" SP chunk-size [SP end-marker].  As many digits
# as RFC 1870 6.1 allows a size.
_CHUNK = re.compile(r"([0-9]{1,20})(?: +(LAST))? *\Z", re.ASCII | re.IGNORECASE)
# Nobody knows where the chunk ends, so nothing behind it can be told from
# commands.
_UNCLEAR = Reply(421, "4.5.0", "Syntax: BDAT size [LAST]")


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    What BDAT says.

    @ivar size: In bytes.
    @ivar isLast: Whether the message ends with it.
    """

    size: int
    isLast: bool


def parseChunk(argument: str) -> Chunk | Reply:
    """
    @param argument: What is behind C{BDAT}.

    @return: The chunk, or the last word before the connection ends.
    """
    found = _CHUNK.match(argument)
    if found is None:
        return _UNCLEAR
    return Chunk(int(found[1]), bool(found[2]))


class ChunkReader:
    """
    Takes a message out of chunks.

    BINARYMIME isn't offered, so the message still has lines, and nothing ends
    them but CRLF (RFC 3030 3).

    @ivar remaining: How much of the chunk is still to come.
    @ivar isLast: Whether the chunk is the last one.
    @ivar flawed: Whether there was a bare CR, a bare LF or a NUL.
    @ivar size: How many bytes of the message there were so far.
    """

    __slots__ = ("_atLineStart", "_held", "flawed", "isLast", "remaining", "size")

    def __init__(self) -> None:
        self.remaining = 0
        self.isLast = False
        self.flawed = False
        self.size = 0
        self._held = b""
        self._atLineStart = True

    @property
    def ended(self) -> bool:
        """
        Whether the chunk is complete.
        """
        return not self.remaining

    def begin(self, chunk: Chunk) -> None:
        self.remaining = chunk.size
        self.isLast = chunk.isLast

    def skip(self, data: bytes) -> None:
        """
        Nobody wants to know what is in it.
        """
        self.remaining -= len(data)

    def feed(self, data: bytes) -> bytes:
        """
        @param data: What was received, of the chunk and nothing behind it.

        @return: As much of the message as is certain: CRLF line ends.
        """
        self.remaining -= len(data)
        text = self._held + data if self._held else data
        self._held = b""
        if self.isLast and not self.remaining:
            text = self._completed(text)
        elif text.endswith(b"\r"):
            # It may be half of a CRLF.
            text, self._held = text[:-1], b"\r"
        if text:
            self._atLineStart = text.endswith(b"\r\n")
        self.flawed = self.flawed or isFlawed(text)
        self.size += len(text)
        return text

    def _completed(self, text: bytes) -> bytes:
        """
        The last line has an end, whether the client thought of it or not:
        behind DATA there is no other way, and to DKIM it makes no difference
        (RFC 6376 3.4.3, 3.4.4).
        """
        atLineStart = text.endswith(b"\r\n") if text else self._atLineStart
        return text if atLineStart else text + b"\r\n"
