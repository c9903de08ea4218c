# -*- test-case-name: tests.smtp.client.test_session -*-
"""
Writes message data to a transport, as a push producer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from moxtls.smtp.dotstuffing import DotStuffing

#: Octets of a message in memory at a time: what Twisted's transports buffer before
#: they pause a producer.
CHUNK_SIZE = 65536


@implementer(IPushProducer)
class BodySender:
    """
    Reads a file and writes it dot-stuffed, with the end of data indication.
    """

    def __init__(
        self,
        message: BinaryIO,
        consumer: IConsumer,
        progressed: Callable[[], None],
        ended: Callable[[OSError | None], None],
    ) -> None:
        """
        @param progressed: Called after each chunk.
        @param ended: Called once: with C{None} when everything was written, or with
            the error if the file can't be read.  Not called if the connection is
            lost.
        """
        self._message = message
        self._consumer = consumer
        self._progressed = progressed
        self._ended = ended
        self._encoding = DotStuffing()
        self._paused = False
        self._over = False

    def start(self) -> None:
        self._consumer.registerProducer(self, True)
        self._write()

    def resumeProducing(self) -> None:
        self._paused = False
        self._write()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._over = True

    def stop(self) -> None:
        """
        Stop writing.
        """
        self._over = True
        self._consumer.unregisterProducer()

    def _write(self) -> None:
        while not self._paused and not self._over:
            try:
                part = self._message.read(CHUNK_SIZE)
            except OSError as why:
                self._end(why)
                return
            if not part:
                self._consumer.write(self._encoding.end())
                self._end(None)
                return
            self._consumer.write(self._encoding.feed(part))
            self._progressed()

    def _end(self, why: OSError | None) -> None:
        self.stop()
        self._ended(why)
