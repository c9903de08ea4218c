# -*- test-case-name: tests.received.reading.test_documents -*-
"""
Finds the documents of reports in any input: JSON, XML or a failure report; bare,
compressed, in archives, or attached to messages; any number of them.  No I/O.

Media types and file names are wrong so often that the content counts.  Documents are
streams, so that a compressed report is never in memory as a whole.  The limits apply to
the whole input.  A refused part has no effect on the others.
"""

from __future__ import annotations

import binascii
import re
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from moxtls.message.header import headerFields
from moxtls.message.mime import MAX_BOUNDARY_LENGTH, contentType
from moxtls.received.reading.archives import (
    CHUNK,
    GZIP_MAGIC,
    TAR_BLOCK,
    gunzip,
    isSkipped,
    refuse,
    slices,
    tarName,
    tarSize,
    unzip,
    zipMembers,
)
from moxtls.received.types import RawFormat, ReceivedKind, Unreadable
from moxtls.tlsrpt.parse import MalformedReport, escapeUnprintable

#: Octets of an input: a mail or an HTTPS request.
MAX_INPUT = 25 * 1024 * 1024
#: Octets that are decompressed or decoded from it.
MAX_UNPACKED = 300 * 1024 * 1024
#: Octets of archives and messages within other archives or messages, which have to be
#: in memory.
MAX_HELD = 20 * 1024 * 1024
#: Containers within each other: a zip file, gzip, a message, or a multipart in it.
MAX_NESTING = 10
#: Parts of messages, and members of archives and gzip.
MAX_PARTS = 5000
#: Lines that begin like a delimiter of parts.
MAX_DELIMITERS = 100_000
#: Reports.
MAX_DOCUMENTS = 1000
#: Octets of the header of a message or a part.
MAX_HEADER = 64 * 1024
#: The end of the reason why an input is refused that has no report of any kind.
NOTHING = "there is no report in it"
#: Octets of a failure report that are read: its fields, and the original's header.
MAX_FAILURE = 512 * 1024

_HEAD = 4096
_MAX_NAME = 200

_JSON = re.compile(rb"\{\s*[\"}]")
_XML = re.compile(rb"<(?:[A-Za-z_][\w.-]{0,60}:)?feedback[\s/>]")
_XML_START = (b"<?xml", b"<!--")
_BOM = b"\xef\xbb\xbf"
_MESSAGE = re.compile(rb"(?:From |[A-Za-z][A-Za-z0-9-]{0,60}[ \t]?:)[^\0]*\Z")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_DELIMITER_END = re.compile(rb"(--)?[ \t]*(?:\r?\n|\Z)")
# Names by RFC 9990 3.5.2 and RFC 8460 5.1.
_NAMED = re.compile(r"[^!/]{1,255}!([^!/]{1,255})![0-9]{1,12}![0-9]{1,12}")
# RFC 8460 5.3.
_SUBJECT = re.compile(r"\breport domain:\s{0,9}(\S{1,255})\s{1,9}submitter:", re.I)
_FILENAME = re.compile(r'filename\s*=\s*(?:"([^"]{0,300})"|([^\s;"]{1,300}))', re.I)
_NO_DIGITS = bytes(range(256)).translate(
    None, (string.ascii_letters + string.digits + "+/=").encode("ascii")
)

_FEEDBACK = "message/feedback-report"
_ENCLOSED = ("message/rfc822", "message/global")
#: A returned message isn't a report that was sent.
_NOTIFICATION = ("message/delivery-status", "message/global-delivery-status")
_NOT_XML = ("text/html", "text/plain")


@dataclass(frozen=True, slots=True)
class Document:
    """
    A report that isn't parsed yet.

    @ivar name: The path inside the input, printable; empty for the input itself.
    @ivar chunks: The octets, to be read before the next document.
    @ivar packed: Returns the document in gzip, if it was received so, and after it was
        read to its end.
    @ivar domainHint: The domain that the message or the file name says that it is
        about; may be empty.
    """

    name: str
    format: RawFormat
    chunks: Iterator[bytes]
    packed: Callable[[], bytes] | None = None
    domainHint: str = ""


def findDocuments(data: bytes, name: str = "") -> Iterator[Document | Unreadable]:
    """
    Find the documents in C{data}, in order, and what can't be read.

    @param name: The file name, if there is one.
    """
    if len(data) > MAX_INPUT:
        yield Unreadable("", f"input: more than {MAX_INPUT} octets")
        return
    search = _Search()
    number = 0
    whole = _Octets(slices(memoryview(data)), data)
    place = _Place(hint=_hintOf(name))
    try:
        for number, found in enumerate(search.find(whole, place), 1):  # noqa: B007
            yield found
    except _Exhausted as error:
        yield Unreadable("", str(error))
        return
    if not number:
        yield Unreadable("", f"{search.kind}: {NOTHING}")


class _Exhausted(MalformedReport):
    """
    A limit on the whole input.
    """


@dataclass(frozen=True, slots=True)
class _Place:
    """
    Where something is in the input.

    @ivar type: The media type given; empty if none is.
    @ivar packed: As in L{Document}.
    @ivar held: Octets in memory of what is around it.
    """

    path: str = ""
    hint: str = ""
    type: str = ""
    nesting: int = 0
    held: int = 0
    packed: Callable[[], bytes] | None = None

    def inside(self, name: str, type: str = "") -> _Place:
        if self.nesting >= MAX_NESTING:
            refuse("input", f"nested more than {MAX_NESTING} times")
        path = f"{self.path}/{name}" if self.path and name else self.path or name
        return replace(
            self,
            path=escapeUnprintable(path)[-_MAX_NAME:],
            hint=_hintOf(name) or self.hint,
            type=type,
            nesting=self.nesting + 1,
            packed=None,
        )


class _Octets:
    """
    A stream of octets whose beginning can be looked at.
    """

    def __init__(self, chunks: Iterable[bytes], whole: bytes | None = None) -> None:
        """
        @param whole: All of it, if that is in memory.
        """
        self._chunks = iter(chunks)
        self._head = b""
        self._whole = whole

    def peek(self, count: int) -> bytes:
        """
        The next octets; fewer at the end only.
        """
        while len(self._head) < count:
            try:
                self._head += next(self._chunks)
            except StopIteration:
                break
        return self._head[:count]

    def take(self, count: int) -> bytes:
        taken = self.peek(count)
        self._head = self._head[len(taken) :]
        return taken

    def next(self, count: int) -> Iterator[bytes]:
        """
        The next C{count} octets in chunks.
        """
        while count and (chunk := self.take(min(count, CHUNK))):
            count -= len(chunk)
            yield chunk

    def rest(self) -> Iterator[bytes]:
        head, self._head = self._head, b""
        return chain([head] if head else (), self._chunks)

    def whole(self, most: int) -> tuple[bytes, int]:
        """
        All of it, and the memory that this takes anew.
        """
        if self._whole is not None:
            return self._whole, 0
        pieces, size = [], 0
        for chunk in self.rest():
            size += len(chunk)
            if size > most:
                refuse("input", f"more than {MAX_HELD} octets in inner archives")
            pieces.append(chunk)
        return b"".join(pieces), size


class _Search:
    """
    The search through one input.

    @ivar kind: What the input is.
    """

    def __init__(self) -> None:
        self.kind = ""
        self._unpacked = 0
        self._parts = 0
        self._documents = 0

    def find(self, octets: _Octets, place: _Place) -> Iterator[Document | Unreadable]:
        """
        @raise _Exhausted: A limit on the whole input is reached.
        """
        head = octets.peek(_HEAD)
        kind = _kindOf(head, place)
        self.kind = self.kind or kind
        try:
            if kind == "gzip":
                yield from self._gzip(octets, place)
            elif kind == "zip":
                yield from self._zip(octets, place)
            elif kind == "tar":
                yield from self._tar(octets, place)
            elif kind == "message":
                data, size = octets.whole(MAX_HELD - place.held)
                place = replace(place, held=place.held + size)
                yield from self._message(data, 0, len(data), place)
            elif kind:
                format = RawFormat.JSON if kind == "JSON" else RawFormat.XML
                yield self._document(format, octets.rest(), place)
        except _Exhausted:
            raise
        except MalformedReport as error:
            yield Unreadable(place.path, str(error))

    def _document(
        self, format: RawFormat, chunks: Iterator[bytes], place: _Place
    ) -> Document:
        self._documents += 1
        if self._documents > MAX_DOCUMENTS:
            raise _Exhausted(f"input: more than {MAX_DOCUMENTS} reports")
        return Document(place.path, format, chunks, place.packed, place.hint)

    def _part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _Exhausted(f"input: more than {MAX_PARTS} parts")

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._unpacked += len(chunk)
            if self._unpacked > MAX_UNPACKED:
                raise _Exhausted(
                    f"input: more than {MAX_UNPACKED} octets when unpacked"
                )
            yield chunk

    def _gzip(self, octets: _Octets, place: _Place) -> Iterator[Document | Unreadable]:
        kept: list[bytes] = []
        unpacked = _Octets(self._counted(gunzip(octets.rest(), kept, self._part)))
        inner = replace(place.inside(""), packed=lambda: b"".join(kept))
        yield from self.find(unpacked, inner)

    def _zip(self, octets: _Octets, place: _Place) -> Iterator[Document | Unreadable]:
        data, size = octets.whole(MAX_HELD - place.held)
        place = replace(place, held=place.held + size)
        for member in zipMembers(data):
            self._part()
            if not isSkipped(member.name):
                inner = place.inside(member.name)
                try:
                    content = self._counted(unzip(data, member))
                    yield from self.find(_Octets(content), inner)
                except _Exhausted:
                    raise
                except MalformedReport as error:
                    yield Unreadable(inner.path, str(error))

    def _tar(self, octets: _Octets, place: _Place) -> Iterator[Document | Unreadable]:
        while name := tarName(header := octets.take(TAR_BLOCK)):
            self._part()
            size = tarSize(header)
            content = octets.next(size)
            # Regular files (POSIX ustar).
            if header[156:157] in (b"0", b"\0") and not isSkipped(name):
                yield from self.find(_Octets(content), place.inside(name))
            for _ in content:
                pass
            octets.take(-size % TAR_BLOCK)

    def _message(
        self, data: bytes, start: int, end: int, place: _Place
    ) -> Iterator[Document | Unreadable]:
        """
        The documents in the entity (RFC 2045 2.4) between C{start} and C{end}.
        """
        header, body = _entity(data, start, end)
        fields = headerFields(header)
        type, parameters = contentType(fields.get("content-type", ""))
        if hint := fields.get("tls-report-domain", "") or _subjectHint(fields):
            place = replace(place, hint=hint[:_MAX_NAME])
        boundary = parameters.get("boundary", "")
        if type.startswith("multipart/") and boundary:
            yield from self._multipart(data, (start, body, end), boundary, place)
            return
        encoding = fields.get("content-transfer-encoding", "").strip().lower()
        isEncoded = encoding in ("base64", "quoted-printable")
        name = _nameOf(fields, parameters)
        inner = place.inside(name, type)
        if type in _ENCLOSED and not isEncoded:
            yield from self._message(data, body, end, inner)
            return
        content = _decoded(memoryview(data)[body:end], encoding)
        octets = _Octets(self._counted(content))
        if type in _ENCLOSED or _kindOf(octets.peek(_HEAD), inner):
            yield from self.find(octets, inner)

    def _multipart(
        self, data: bytes, range: tuple[int, int, int], boundary: str, place: _Place
    ) -> Iterator[Document | Unreadable]:
        start, body, end = range
        inner = place.inside("")
        if len(boundary) > MAX_BOUNDARY_LENGTH:
            refuse("message", f"a boundary of more than {MAX_BOUNDARY_LENGTH} octets")
        ranges = []
        for each in _between(data, body, end, boundary.encode("utf-8", "replace")):
            self._part()
            ranges.append(each)
        types = [_typeOf(data, *each) for each in ranges]
        if _FEEDBACK in types:
            # RFC 5965 2: the other parts are text and the original message.
            whole = data[start : min(end, start + MAX_FAILURE)]
            yield self._document(RawFormat.MESSAGE, iter([whole]), place)
        elif not any(each in types for each in _NOTIFICATION):
            for each in ranges:
                try:
                    yield from self._message(data, *each, inner)
                except _Exhausted:
                    raise
                except MalformedReport as error:
                    yield Unreadable(inner.path, str(error))


def _kindOf(head: bytes, place: _Place) -> str:
    """
    The format of data, by its first octets; empty if it can't have a report in it.
    """
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    mayBeMessage = not place.type or place.type in _ENCLOSED
    if mayBeMessage or place.path.endswith(".eml"):
        # An attached report may be near its beginning.
        if _MESSAGE.match(head):
            return "message"
        mayBeMessage = not place.nesting
    return _textKind(head, place.type) or ("message" if mayBeMessage else "")


def _textKind(head: bytes, type: str) -> str:
    # UTF-16 has an octet of zero in each character.
    text = head.replace(b"\0", b"")
    text = text.removeprefix(_BOM).removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    text = text.lstrip()
    if _JSON.match(text):
        return "JSON"
    isXML = text.startswith(_XML_START) and type not in _NOT_XML
    return "XML" if isXML or _XML.search(text) else ""


# --- messages ------------------------------------------------------------------------


def _entity(data: bytes, start: int, end: int) -> tuple[bytes, int]:
    """
    The header of an entity, and the position of its body.
    """
    if data.startswith(b"From ", start):
        start = data.find(b"\n", start, end) + 1 or end
    if data.startswith((b"\n", b"\r\n"), start, end):
        return b"", data.find(b"\n", start, end) + 1
    found = _HEADER_END.search(data, start, min(end, start + MAX_HEADER))
    if found is None:
        return data[start : min(end, start + MAX_HEADER)], end
    return data[start : found.start()], found.end()


def _typeOf(data: bytes, start: int, end: int) -> str:
    fields = headerFields(_entity(data, start, end)[0])
    return contentType(fields.get("content-type", ""))[0]


def _between(
    data: bytes, start: int, end: int, boundary: bytes
) -> Iterator[tuple[int, int]]:
    """
    The ranges between delimiters (RFC 2046 5.1.1).
    """
    delimiter = b"\n--" + boundary
    part: int | None = None
    # The position of the line end before the delimiter.
    at = start - 1
    if not data.startswith(delimiter[1:], start, end):
        at = data.find(delimiter, start, end)
    for _ in range(MAX_DELIMITERS):
        if at < 0:
            break
        after = _DELIMITER_END.match(data, at + len(delimiter), end)
        if after is None:
            at = data.find(delimiter, at + 1, end)
            continue
        if part is not None:
            # It belongs to the delimiter.
            last = at - 1 if data[at - 1 : at] == b"\r" else at
            yield part, max(part, last)
        if after[1]:
            return
        part = after.end()
        at = data.find(delimiter, part - 1, end)
    if part is not None:
        yield part, end


def _nameOf(fields: dict[str, str], parameters: dict[str, str]) -> str:
    found = _FILENAME.search(fields.get("content-disposition", ""))
    named = (found[1] or found[2]) if found else parameters.get("name", "")
    return named.rpartition("/")[2]


def _hintOf(name: str) -> str:
    found = _NAMED.search(name)
    return found[1] if found else ""


def _subjectHint(fields: dict[str, str]) -> str:
    found = _SUBJECT.search(fields.get("subject", ""))
    return found[1] if found else ""


def _decoded(body: memoryview, encoding: str) -> Iterator[bytes]:
    if encoding == "base64":
        return _base64(slices(body))
    if encoding == "quoted-printable":
        return _quotedPrintable(slices(body))
    return slices(body)


def _base64(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """
    Decode up to the padding; other octets are ignored (RFC 2045 6.8).
    """
    rest = b""
    for chunk in chunks:
        digits, padding, _ = (rest + chunk.translate(None, _NO_DIGITS)).partition(b"=")
        rest = digits[len(digits) & ~3 :]
        yield binascii.a2b_base64(digits[: len(digits) & ~3])
        if padding:
            break
    if len(rest) > 1:
        yield binascii.a2b_base64(rest + b"=" * (4 - len(rest)))


def _quotedPrintable(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        lines, end, last = (rest + chunk).rpartition(b"\n")
        if end or len(last) > CHUNK:
            yield binascii.a2b_qp(lines + end)
            rest = last
        else:
            rest = last
    yield binascii.a2b_qp(rest)


#: The kind of report in a document, as far as its format tells.
KINDS = {
    RawFormat.JSON: ReceivedKind.TLS,
    RawFormat.XML: ReceivedKind.DMARC,
    RawFormat.MESSAGE: ReceivedKind.FAILURE,
}
