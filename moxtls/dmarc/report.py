# -*- test-case-name: tests.dmarc.test_report -*-
"""
Aggregate reports of ours: written row by row, and compressed at once, so that
a report of any size takes little more memory than what is sent.  No I/O.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from moxtls.dmarc.reportxml import (
    END,
    AggregateMetadata,
    ReportFormat,
    recordWriter,
    xmlHead,
)
from moxtls.dmarc.values import PublishedPolicy, ReportRow

#: Before compression: nobody unpacks more than this.
MAX_REPORT = 100 * 1024 * 1024

# Not the best: that takes several times as long to make reports smaller by a
# few percent.
_LEVEL = 6
# A gzip container (RFC 1952); zlib leaves its modification time at zero, so
# equal reports are equal bytes.
_GZIP = zlib.MAX_WBITS + 16


class AggregateWriter:
    """
    Composes one report in one format.

    @ivar records: How many there are in it.
    """

    def __init__(
        self,
        format: ReportFormat,
        heading: AggregateMetadata,
        published: PublishedPolicy,
        largest: int = MAX_REPORT,
    ) -> None:
        """
        @param largest: Octets before compression, from which on nothing more
            is taken.
        """
        self._record = recordWriter(format)
        self._room = largest
        self.records = 0
        self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._pieces: list[bytes] = []
        self._put(xmlHead(format, heading, published))

    @property
    def isFull(self) -> bool:
        return self._room <= 0

    def add(self, rows: Iterable[tuple[ReportRow, int]]) -> None:
        """
        Write rows, each with its number of messages; none where it is full.
        """
        if not self.isFull:
            record = self._record
            records = [record(row, count) for row, count in rows]
            self.records += len(records)
            self._put("".join(records))

    def finish(self) -> bytes:
        """
        As it is sent.
        """
        self._put(END)
        return b"".join([*self._pieces, self._packer.flush()])

    def _put(self, text: str) -> None:
        data = text.encode("utf-8")
        self._room -= len(data)
        packed = self._packer.compress(data)
        if packed:
            self._pieces.append(packed)
