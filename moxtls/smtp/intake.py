# -*- test-case-name: tests.smtp.test_server -*-
"""
One message on its way in, be it behind DATA or in chunks: what of it came,
and what is wrong about it.  No I/O.
"""

from __future__ import annotations

from moxtls.smtp.body import BodyDecoder
from moxtls.smtp.chunking import Chunk, ChunkReader
from moxtls.smtp.dialogue import TOO_LARGE
from moxtls.smtp.events import ServerSettings
from moxtls.smtp.lines import LineBuffer
from moxtls.smtp.shape import HeaderLimits
from moxtls.smtp.values import Reply

#: How much of a message is passed over after it was found to be refused, so
#: that the client gets to hear why.
MAX_DISCARD_LENGTH = 64 * 1024 * 1024

#: Of a message, chunks of fewer bytes than that are counted beyond so many.
MAX_SMALL_CHUNKS = 1000
SMALL_CHUNK = 64

_FLAWED = Reply(554, "5.6.0", "Message has a bare CR, a bare LF or a NUL")


class DataReceiver:
    """
    @ivar refusal: What there is to say to the client, whatever comes.
    @ivar isOver: Whether the owner of the conversation wants no more of it.
    @ivar inChunks: Whether it comes by BDAT (RFC 3030).
    """

    __slots__ = (
        "_chunks",
        "_decoder",
        "_reader",
        "_settings",
        "_shape",
        "inChunks",
        "isOver",
        "refusal",
    )

    def __init__(self, settings: ServerSettings, inChunks: bool) -> None:
        self._settings = settings
        self._shape = HeaderLimits(settings.lineLength)
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
        return not self.ended and self.size > self._settings.size + MAX_DISCARD_LENGTH

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
        self._shape.feed(text)
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
        isLarge = self.size > self._settings.size
        return TOO_LARGE if isLarge else self._shape.fault(self._settings)
