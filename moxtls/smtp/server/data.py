# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
One message on its way in, be it behind DATA or in chunks: what of it came,
and what is wrong about it.  No I/O.

How large the parts of a message are that others have to hold at once: the
header, its fields, a line; and whether it can be sent at all.  No I/O.

Works on whole pieces: what it costs depends on how many there are, not on how
many lines.

A message as it goes over the wire behind BDAT (RFC 3030 2).  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moxtls.smtp.dotstuffing import BodyDecoder, isFlawed
from moxtls.smtp.server.events import MAX_LINE_LENGTH, ServerSettings
from moxtls.smtp.server.state import TOO_LARGE
from moxtls.smtp.server.syntax import LineBuffer
from moxtls.smtp.types import Reply

#: How much of a message is passed over after it was found to be refused, so
#: that the client gets to hear why.
MAX_DISCARD_LENGTH = 64 * 1024 * 1024

#: Of a message, chunks of fewer bytes than that are counted beyond so many.
MAX_SMALL_CHUNKS = 1000
SMALL_CHUNK = 64

_FLAWED = Reply(554, "5.6.0", "Message has a bare CR, a bare LF or a NUL")


_CRLF = b"\r\n"

HEADER_TOO_LONG = Reply(552, "5.3.4", "Header is larger than this server takes")

_FIELDS = Reply(554, "5.6.0", "Header has too many fields")

_LINE = Reply(554, "5.6.0", "Line too long")

_FLAW = re.compile(rb"\0|\r(?!\n)|(?<!\r)\n")

_NAMES = {b"\0": "NUL", b"\r": "bare CR", b"\n": "bare LF"}

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
        if self.header > settings.maxHeaderSize:
            return HEADER_TOO_LONG
        if self.fields > settings.maxHeaderFields:
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


class DataReceiver:
    """
    @ivar refusal: What there is to say to the client, whatever comes.
    @ivar isOver: Whether the owner of the conversation wants no more of it.
    @ivar inChunks: Whether it comes by BDAT (RFC 3030).
    """

    __slots__ = (
        "_chunks",
        "_decoder",
        "_headerLimits",
        "_reader",
        "_settings",
        "inChunks",
        "isOver",
        "refusal",
    )

    def __init__(self, settings: ServerSettings, inChunks: bool) -> None:
        self._settings = settings
        self._headerLimits = HeaderLimits(settings.maxLineLength)
        self._decoder = BodyDecoder()
        self._reader = ChunkReader()
        self.inChunks = inChunks
        self.refusal: Reply | None = None
        self.isOver = False
        self._chunks = 0

    @property
    def ended(self) -> bool:
        """
        Whether the end of the message, or of a chunk, was seen.
        """
        return self._reader.ended if self.inChunks else self._decoder.ended

    @property
    def isLast(self) -> bool:
        """
        Whether with that the message is complete.
        """
        return not self.inChunks or self._reader.isLast

    @property
    def size(self) -> int:
        return self._reader.size if self.inChunks else self._decoder.size

    @property
    def isEndless(self) -> bool:
        """
        Whether it is time to stop listening to what is refused.
        """
        return (
            not self.ended and self.size > self._settings.maxSize + MAX_DISCARD_LENGTH
        )

    @property
    def isFragmented(self) -> bool:
        """
        Whether there were too many chunks for what was in them: each is answered.
        """
        return self._chunks > MAX_SMALL_CHUNKS + self.size // SMALL_CHUNK

    def begin(self, chunk: Chunk) -> None:
        """
        One more chunk comes.
        """
        self._chunks += 1
        self._reader.begin(chunk)

    def take(self, buffer: LineBuffer) -> bytes:
        """
        @return: What more there is of the message.
        """
        if not self.inChunks:
            text = self._decoder.feed(buffer.takeAll())
            buffer.add(self._decoder.rest)
        else:
            data = buffer.take(self._reader.remaining)
            if self.refusal is not None:
                self._reader.skip(data)
                return b""
            text = self._reader.feed(data)
        self._headerLimits.feed(text)
        return text

    def fault(self) -> Reply | None:
        """
        What there is to say to the client, as far as is known.  Only depends
        on what came, and not on how it was cut.
        """
        if self.refusal is not None:
            return self.refusal
        if self._reader.flawed if self.inChunks else self._decoder.flawed:
            return _FLAWED
        isLarge = self.size > self._settings.maxSize
        return TOO_LARGE if isLarge else self._headerLimits.fault(self._settings)


class InvalidMessage(ValueError):
    """
    A message has something in it that no server takes: a NUL, a bare CR or LF
    (RFC 5321 2.3.8, 4.5.2), or a line that is far too long.
    """


def validated(body: Iterable[bytes]) -> Iterator[bytes]:
    """
    The chunks of a message, as long as L{moxtls.smtp.server.conversation} would
    take them from
    a client.

    @raise InvalidMessage: Says which line is at fault.
    """
    limits, lines, held = HeaderLimits(MAX_LINE_LENGTH), 1, b""
    for chunk in body:
        # A CR at the end may be half of a CRLF.
        text = held + chunk
        held = b"\r" if text.endswith(b"\r") else b""
        text = text[: len(text) - len(held)]
        _check(text, limits, lines)
        lines += text.count(b"\n")
        yield chunk
    _check(held, limits, lines)


def _check(text: bytes, limits: HeaderLimits, first: int) -> None:
    """
    @param first: The number of the line with which C{text} begins.
    """
    limits.feed(text)
    if limits.hasLongLine:
        lengths = [len(line) for line in text.split(b"\n")]
        line = first + lengths.index(max(lengths))
        reason = f"has more than {MAX_LINE_LENGTH} octets"
    elif isFlawed(text):
        flaw = _FLAW.search(text)
        assert flaw is not None
        line = first + text.count(b"\n", 0, flaw.start())
        reason = f"has a {_NAMES[flaw[0]]}"
    else:
        return
    raise InvalidMessage(f"line {line} of the message {reason}")
