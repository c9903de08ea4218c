# -*- test-case-name: tests.received.reading.test_documents -*-
"""
Streams what is in gzip, zip and tar archives.  No I/O.

Python's own readers of archives take memory for what an archive says of itself.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError
from typing import NoReturn

from moxtls.tlsrpt.parse import MalformedReport, escapeUnprintable

#: Octets of gzip, as of a whole input: there may be more in gzip within gzip.
MAX_PACKED = 25 * 1024 * 1024
#: Octets that are read at once.
CHUNK = 64 * 1024
# Of compressed data: zlib returns copies of what is left.
_PACKED_CHUNK = 16 * 1024

GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP = zlib.MAX_WBITS + 16
TAR_BLOCK = 512


def refuse(where: str, reason: str) -> NoReturn:
    """
    @raise MalformedReport: Always, with the place and the reason.
    """
    raise MalformedReport(escapeUnprintable(f"{where}: {reason}"))


def slices(view: memoryview) -> Iterator[bytes]:
    return (bytes(view[at : at + CHUNK]) for at in range(0, len(view), CHUNK))


def gunzip(
    chunks: Iterable[bytes], kept: list[bytes], begun: Callable[[], None]
) -> Iterator[bytes]:
    """
    Decompress all members (RFC 1952 2.2); what follows the last one is ignored.

    @param kept: Gets the compressed octets.
    @param begun: Called for each member but the first.
    """
    unpacker = zlib.decompressobj(_GZIP)
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_PACKED:
            refuse("gzip", f"more than {MAX_PACKED} octets in gzip within gzip")
        for at in range(0, len(chunk), _PACKED_CHUNK):
            packed = chunk[at : at + _PACKED_CHUNK]
            while packed:
                if unpacker.eof:
                    if not GZIP_MAGIC.startswith(packed[:3]):
                        return
                    begun()
                    unpacker = zlib.decompressobj(_GZIP)
                try:
                    content = unpacker.decompress(packed, CHUNK)
                except zlib.error:
                    refuse("gzip", "the data is damaged")
                left = unpacker.unused_data or unpacker.unconsumed_tail
                kept.append(packed[: len(packed) - len(left)])
                packed = left
                if content:
                    yield content
    if not unpacker.eof:
        yield from _flushed(unpacker, "gzip")


def _flushed(unpacker: zlib._Decompress, kind: str) -> Iterator[bytes]:
    """
    The content left in a decompressor at the end of the data.
    """
    while content := unpacker.decompress(b"", CHUNK):
        yield content
    if not unpacker.eof:
        refuse(kind, "the data is cut off")


# --- zip (APPNOTE.TXT 4.3) -----------------------------------------------------------

_END = Struct("<4s4H2LH")
_CENTRAL = Struct("<4s6H3L5H2L")
_LOCAL = Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 0x1, 0x800


@dataclass(frozen=True, slots=True)
class ZipMember:
    """
    @ivar offset: Of the local header.
    """

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    offset: int


def zipMembers(data: bytes) -> Iterator[ZipMember]:
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - _END.size - 0xFFFF))
    try:
        _, _, _, _, _, size, offset, _ = _END.unpack_from(data, max(at, 0))
        if at < 0:
            raise StructError
        # Octets before the archive aren't in its offsets.
        before = at - size - offset
        position = before + offset
        while position < at:
            entry = _CENTRAL.unpack_from(data, position)
            if entry[0] != b"PK\x01\x02":
                raise StructError
            flags, method, crc, packed = entry[3], entry[4], entry[7], entry[8]
            position += _CENTRAL.size
            name = data[position : position + entry[10]]
            position += sum(entry[10:13])
            encoding = "utf-8" if flags & _UTF8 else "cp437"
            text = name.decode(encoding, "replace")
            yield ZipMember(text, flags, method, crc, packed, before + entry[16])
    except StructError:
        refuse("zip", "the data is damaged")


def unzip(data: bytes, member: ZipMember) -> Iterator[bytes]:
    if member.flags & _ENCRYPTED:
        refuse("zip", "it is encrypted")
    if member.method not in (_STORED, _DEFLATED):
        refuse("zip", f"compression method {member.method} is not supported")
    try:
        local = _LOCAL.unpack_from(data, member.offset)
    except StructError:
        local = (b"",)
    if local[0] != b"PK\x03\x04":
        refuse("zip", "the data is damaged")
    start = member.offset + _LOCAL.size + local[9] + local[10]
    view = memoryview(data)[start : start + member.packed]
    if len(view) < member.packed:
        refuse("zip", "the data is cut off")
    crc = 0
    for chunk in slices(view) if member.method == _STORED else _inflate(view):
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if crc != member.crc:
        refuse("zip", "the data is damaged")


def _inflate(view: memoryview) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for at in range(0, len(view), _PACKED_CHUNK):
            packed = bytes(view[at : at + _PACKED_CHUNK])
            while packed and not unpacker.eof:
                if content := unpacker.decompress(packed, CHUNK):
                    yield content
                packed = unpacker.unconsumed_tail
        if not unpacker.eof:
            yield from _flushed(unpacker, "zip")
    except zlib.error:
        refuse("zip", "the data is damaged")


def isSkipped(name: str) -> bool:
    """
    True for folders, and for what macOS adds to files.
    """
    isAdded = name.startswith("__MACOSX/") or "/._" in f"/{name}"
    return isAdded or name.endswith("/")


# --- tar (POSIX.1-2017 pax, ustar interchange format) --------------------------------


def tarName(header: bytes) -> str:
    """
    The name of a member; empty at the end of the archive.
    """
    if len(header) < TAR_BLOCK or not header[0]:
        return ""
    if header[257:262] != b"ustar":
        refuse("tar", "the data is damaged")
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[263:265] == b"00" else b""
    whole = prefix + b"/" + name if prefix else name
    return whole.decode("utf-8", "replace")


def tarSize(header: bytes) -> int:
    digits = header[124:136].strip(b"\0 ")
    # Larger ones than 8 GB are in another format.
    if not re.fullmatch(rb"[0-7]{0,12}", digits):
        refuse("tar", "the data is damaged")
    return int(digits or b"0", 8)
