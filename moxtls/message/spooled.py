# -*- test-case-name: tests.reception.test_submission -*-
"""
Stores messages while they are received: in memory while they are small, else in an
unnamed temporary file.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, overload

#: Octets kept in memory.  Most mail is smaller, and a listener holds as many messages
#: as it has connections.
MAX_IN_MEMORY = 256 * 1024
CHUNK = 64 * 1024


class SpooledMessage:
    """
    Collects a message piece by piece, and returns it as chunks.

    @ivar size: Octets.
    @ivar isASCII: True if all octets are below 128.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Not a list: a client may send single octets.
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0
        self.isASCII = True

    def write(self, piece: bytes) -> None:
        """
        @raise OSError: The disk is full.
        """
        self.size += len(piece)
        self.isASCII = self.isASCII and piece.isascii()
        self._memory += piece
        if len(self._memory) > MAX_IN_MEMORY:
            self._spill()

    def beginning(self, length: int) -> bytes:
        """
        The first C{length} octets, or all if there are fewer.
        """
        if self._file is None:
            return bytes(self._memory[:length])
        self._spill()
        return os.pread(self._file.fileno(), length, 0)

    def chunks(self, prefix: bytes = b"", start: int = 0) -> Sequence[bytes]:
        """
        The message, to be read before it is closed.

        @param prefix: Octets to put before it.
        @param start: The number of its octets to leave out.
        """
        if self._file is None:
            # In one piece, which is written with one system call.
            whole = b"".join((prefix, memoryview(self._memory)[start:]))
            return [whole] if whole else []
        self._spill()
        before = [prefix] if prefix else []
        return _FileChunks(self._file.fileno(), start, self.size, before)

    def close(self) -> None:
        """
        Discard the message.  Idempotent.
        """
        self._memory.clear()
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        if self._file is None:
            self._file = TemporaryFile(  # noqa: SIM115 - closed by close()
                dir=self._folder, buffering=0
            )
        remaining = bytes(self._memory)
        while remaining:
            remaining = remaining[self._file.write(remaining) :]
        self._memory.clear()


class LazyChunks(Sequence[bytes], ABC):
    """
    A message as a sequence of chunks that are read on access.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    @abstractmethod
    def read(self, position: int) -> bytes:
        """
        The chunk at C{position}.
        """

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self.read(each) for each in range(*index.indices(self._count))]
        return self.read(range(self._count)[index])


class _FileChunks(LazyChunks):
    """
    An open file, with octets before it.
    """

    def __init__(
        self, descriptor: int, start: int, end: int, before: list[bytes]
    ) -> None:
        super().__init__(len(before) + -(-(end - start) // CHUNK))
        self._descriptor = descriptor
        self._start = start
        self._before = before

    def read(self, position: int) -> bytes:
        if position < len(self._before):
            return self._before[position]
        offset = self._start + (position - len(self._before)) * CHUNK
        return os.pread(self._descriptor, CHUNK, offset)
