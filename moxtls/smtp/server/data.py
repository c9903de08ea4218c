# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
Reception of message data after DATA or in BDAT chunks (RFC 3030), with limits on
its header and lines.  No I/O.

Works on whole chunks: the cost depends on their number, not on the number of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moxtls.smtp.dotstuffing import BodyDecoder, isFlawed
from moxtls.smtp.server.state import MAX_LINE_LENGTH, TOO_LARGE, ServerSettings
from moxtls.smtp.server.syntax import LineBuffer
from moxtls.smtp.types import Reply

#: Octets beyond the maximum size that are read and discarded before the connection
#: is closed, so that the client gets the reply.
MAX_DISCARD_LENGTH = 64 * 1024 * 1024

#: BDAT chunks of a message that may be smaller than C{SMALL_CHUNK} octets on average.
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

# The end of the chunk is unknown, so its data can't be distinguished from commands.
_UNCLEAR = Reply(421, "4.5.0", "Syntax: BDAT size [LAST]")


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    The arguments of BDAT.

    @ivar size: In octets.
    @ivar isLast: The message ends with this chunk.
    """

    size: int
    isLast: bool


def parseChunk(argument: str) -> Chunk | Reply:
    """
    Parse the argument of BDAT.

    @return: The chunk, or the last reply before the connection is closed.
    """
    found = _CHUNK.match(argument)
    if found is None:
        return _UNCLEAR
    return Chunk(int(found[1]), bool(found[2]))


class ChunkReader:
    """
    Assembles a message from chunks.

    BINARYMIME isn't offered, so the message consists of lines that end with CRLF
    (RFC 3030 3).

    @ivar remaining: Octets of the chunk that are still to come.
    @ivar isLast: The chunk is the last one.
    @ivar flawed: The message has a bare CR, a bare LF or a NUL.
    @ivar size: Octets of the message so far.
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
        True if the chunk is complete.
        """
        return not self.remaining

    def begin(self, chunk: Chunk) -> None:
        self.remaining = chunk.size
        self.isLast = chunk.isLast

    def skip(self, data: bytes) -> None:
        """
        Discard data of the chunk.
        """
        self.remaining -= len(data)

    def feed(self, data: bytes) -> bytes:
        """
        Take received data of the chunk.

        @return: The message as far as it is certain: CRLF line ends.
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
        Add the end of the last line if it is missing: after DATA it always has one,
        and DKIM ignores it (RFC 6376 3.4.3, 3.4.4).
        """
        atLineStart = text.endswith(b"\r\n") if text else self._atLineStart
        return text if atLineStart else text + b"\r\n"


class HeaderLimits:
    """
    Measures the header and the lines of one message as it is received.

    @ivar header: Octets of the header so far.
    @ivar fields: Header fields so far.
    @ivar hasLongLine: A line exceeds the limit.
    """

    __slots__ = (
        "_held",
        "_inHeader",
        "_maxLineLength",
        "_open",
        "fields",
        "hasLongLine",
        "header",
    )

    def __init__(self, maxLineLength: int) -> None:
        """
        @param maxLineLength: In octets, with CRLF.
        """
        self._maxLineLength = maxLineLength
        self._inHeader = True
        # The message begins with the beginning of a line.
        self._held = _CRLF
        self._open = 0
        self.header = 0
        self.fields = 0
        self.hasLongLine = False

    def feed(self, text: bytes) -> None:
        """
        Take the next chunk, never cut within a CRLF.
        """
        if self._inHeader:
            self._measure(self._held + text)
        self._findLongLine(text)

    def fault(self, settings: ServerSettings) -> Reply | None:
        """
        The negative reply, if a limit is exceeded so far.
        """
        if self.header > settings.maxHeaderSize:
            return HEADER_TOO_LONG
        if self.fields > settings.maxHeaderFields:
            return _FIELDS
        return _LINE if self.hasLongLine else None

    def _measure(self, text: bytes) -> None:
        """
        @param text: Begins with the CRLF of the preceding line.
        """
        end = text.find(b"\r\n\r\n")
        self._inHeader = end < 0
        if end < 0:
            # The next chunk shows whether a field begins after it.
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
        while len(text) - start > self._maxLineLength:
            # Searching for the last line end within the limit skips most lines.
            end = text.rfind(b"\n", max(0, start), start + self._maxLineLength)
            if end < 0:
                self.hasLongLine = True
                return
            start = end + 1
        last = text.rfind(b"\n", max(0, start))
        self._open = len(text) - (start if last < 0 else last + 1)


class DataReceiver:
    """
    Receives one message.

    @ivar refusal: The negative reply, whatever data follow.
    @ivar isOver: The owner of the conversation gets no more data.
    @ivar inChunks: The message is sent with BDAT (RFC 3030).
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
        True if the end of the message, or of a chunk, was received.
        """
        return self._reader.ended if self.inChunks else self._decoder.ended

    @property
    def isLast(self) -> bool:
        """
        True if the message is complete at that end.
        """
        return not self.inChunks or self._reader.isLast

    @property
    def size(self) -> int:
        return self._reader.size if self.inChunks else self._decoder.size

    @property
    def isEndless(self) -> bool:
        """
        True if too much of a refused message was discarded.
        """
        return (
            not self.ended and self.size > self._settings.maxSize + MAX_DISCARD_LENGTH
        )

    @property
    def isFragmented(self) -> bool:
        """
        True if there were too many small chunks, as each gets a reply.
        """
        return self._chunks > MAX_SMALL_CHUNKS + self.size // SMALL_CHUNK

    def begin(self, chunk: Chunk) -> None:
        """
        Start a chunk.
        """
        self._chunks += 1
        self._reader.begin(chunk)

    def take(self, buffer: LineBuffer) -> bytes:
        """
        Take input from the buffer.

        @return: The decoded part of the message.
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
        The negative reply so far, if any.  Independent of how the data were cut.
        """
        if self.refusal is not None:
            return self.refusal
        if self._reader.flawed if self.inChunks else self._decoder.flawed:
            return _FLAWED
        isLarge = self.size > self._settings.maxSize
        return TOO_LARGE if isLarge else self._headerLimits.fault(self._settings)


class InvalidMessage(ValueError):
    """
    A message contains something that servers refuse: a NUL, a bare CR or LF (RFC
    5321 2.3.8, 4.5.2), or a line that is too long.
    """


def validated(body: Iterable[bytes]) -> Iterator[bytes]:
    """
    Yield the chunks of a message, with the checks that a server applies to a
    client's message.

    @raise InvalidMessage: Names the invalid line.
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
    @param first: The number of the first line of C{text}.
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
