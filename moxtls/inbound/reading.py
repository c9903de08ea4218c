# -*- test-case-name: tests.smtp.test_servercapture -*-
"""
A message while it comes in: kept, and examined as far as it is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from moxtls.inbound.authenticate import MessageAuthentication
from moxtls.inbound.findings import AuthenticationOutcome
from moxtls.inbound.headers import Header, headerEnd, splitHeader, withoutForged
from moxtls.smtp.received import MAX_HEADER
from moxtls.smtp.spooled import SpooledMessage


class StreamingMessage:
    """
    Takes a message piece by piece; begins to examine it when its header is
    there.

    @ivar isTooLong: Whether the header is longer than anybody takes.
    """

    def __init__(
        self, spooled: SpooledMessage, examination: MessageAuthentication | None
    ) -> None:
        """
        @param examination: C{None} if nothing is checked.
        """
        self._spooled = spooled
        self._examination = examination
        # Until the header is complete, and how long it is with the empty line.
        self._beginning = bytearray()
        self._header: Header | None = None
        self._bodyStart = 0

    @property
    def isTooLong(self) -> bool:
        return len(self._beginning) > MAX_HEADER

    def write(self, chunk: bytes) -> None:
        """
        @raise OSError: There is no room.
        """
        self._spooled.write(chunk)
        if self._header is None and not self.isTooLong:
            seen = len(self._beginning)
            self._beginning += chunk
            end = headerEnd(self._beginning, seen)
            if 0 <= end <= MAX_HEADER:
                self._headerEnds(bytes(self._beginning[:end]), end + len(b"\r\n"))

    def end(self) -> Header:
        """
        The message is complete; to be called unless C{isTooLong}.
        """
        if self._header is None:
            # Without an empty line all of it is header.
            self._headerEnds(bytes(self._beginning), self._spooled.size)
        assert self._header is not None
        return self._header

    async def findings(self) -> AuthenticationOutcome | None:
        """
        @return: C{None} if nothing is checked.
        """
        examination, self._examination = self._examination, None
        if examination is None:
            return None
        body = self._spooled.chunks(start=self._bodyStart)
        return await examination.finish(body)

    def chunks(self, hostname: str, trace: bytes = b"") -> Sequence[bytes]:
        """
        The message behind C{trace}, without results that pretend to be of
        C{hostname}; to be used before it is closed.
        """
        header = self.end()
        left = withoutForged(header, hostname)
        if left is header.data:
            return self._spooled.chunks(trace)
        return self._spooled.chunks(trace + left, len(header.data))

    def giveUp(self) -> None:
        """
        Examine it no more.
        """
        examination, self._examination = self._examination, None
        if examination is not None:
            examination.cancel()

    def close(self) -> None:
        """
        Forget it.  Doing so twice is harmless.
        """
        self.giveUp()
        self._spooled.close()

    def _headerEnds(self, data: bytes, bodyStart: int) -> None:
        self._beginning.clear()
        self._header = splitHeader(data)
        self._bodyStart = bodyStart
        if self._examination is not None:
            self._examination.begin(self._header)
