# -*- test-case-name: tests.test_reportfiles -*-
"""
Detects and reads reports of all kinds: as JSON or XML, compressed, or attached to a
message.  No I/O.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from typing import NoReturn
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from moxtls.dmarc.parse import (
    FeedbackReport,
    ReceivedAggregateReport,
    parseAggregateReport,
    readFeedbackReport,
)
from moxtls.message.mime import leafParts
from moxtls.tlsrpt.parse import (
    MAX_JSON,
    MAX_MESSAGE,
    MalformedReport,
    ReceivedTLSReport,
    gunzip,
    parseReport,
)

#: Octets of an uncompressed document.
MAX_SIZE = MAX_JSON
#: Members of a zip archive that are looked at.
MAX_MEMBERS = 100
#: Levels of compression: some senders compress twice by mistake.
MAX_DEPTH = 2

# The compression methods in use for reports.  With others, zipfile decompresses
# everything into memory before the size can be limited.
_METHODS = (ZIP_STORED, ZIP_DEFLATED)

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# Exceptions of zipfile for damaged, encrypted or unsupported archives.
_UNREADABLE = (
    BadZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    zlib.error,
)


class DocumentFormat(Enum):
    """
    The format of a document, detected by its first octets.
    """

    JSON = "JSON"
    XML = "XML"


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """
    A report that isn't parsed yet.
    """

    format: DocumentFormat
    content: bytes


def findReport(data: bytes) -> ReportDocument:
    """
    Find the document of a report.

    @param data: JSON or XML, bare, in gzip or zip, or attached to a whole message.

    @raise MalformedReport: There is none, or it can't be decompressed.
    """
    document = _document(data, MAX_DEPTH)
    if document is not None:
        return document
    if data[:1000].removeprefix(_BOM).lstrip().startswith(b"["):
        return ReportDocument(DocumentFormat.JSON, data)  # for the error of the parser
    if len(data) > MAX_MESSAGE:
        _refuse("input", f"larger than {MAX_MESSAGE} bytes")
    for part in leafParts(data):
        # Media types are wrong so often that only the content counts.
        document = _document(part.content, MAX_DEPTH)
        if document is not None:
            return document
    _refuse("message", "there is no report in it: no JSON, no XML, no gzip, no zip")


def _document(data: bytes, depth: int) -> ReportDocument | None:
    if data.startswith(b"\x1f\x8b"):
        return _packed(gunzip(data), "gzip", depth)
    if data.startswith(b"PK\x03\x04"):
        return _packed(_unzip(data), "zip", depth)
    start = data[:1000].removeprefix(_BOM).lstrip()
    if start.startswith(b"{"):
        return ReportDocument(DocumentFormat.JSON, data)
    xml = start.startswith((b"<?xml", b"<feedback", b"<!--"))
    return (
        ReportDocument(DocumentFormat.XML, data)
        if xml or data.startswith(_UTF16)
        else None
    )


def _packed(content: bytes, how: str, depth: int) -> ReportDocument:
    document = _document(content, depth - 1) if depth else None
    if document is None:
        _refuse(how, "what is in it is neither JSON nor XML")
    return document


def _unzip(data: bytes) -> bytes:
    try:
        with ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()[:MAX_MEMBERS]
            files = [each for each in members if each.filename[-1:] != "/"]
            # Some senders add their logo.
            named = [each for each in files if each.filename.lower().endswith(".xml")]
            for member in (*named, *files)[:1]:
                if member.compress_type not in _METHODS:
                    _refuse("zip", "it is packed in an unusual way")
                with archive.open(member) as opened:
                    content = opened.read(MAX_SIZE + 1)
                if len(content) > MAX_SIZE:
                    _refuse("zip", f"more than {MAX_SIZE} bytes when unpacked")
                return content
    except MalformedReport:
        raise
    except _UNREADABLE as error:
        _refuse("zip", f"the data is damaged ({type(error).__name__})")
    _refuse("zip", "there is nothing in it")


def _refuse(where: str, reason: str) -> NoReturn:
    raise MalformedReport(f"{where}: {reason}")


#: A report of any kind that another host sent.
ReceivedReport = ReceivedTLSReport | ReceivedAggregateReport | FeedbackReport


def readReport(data: bytes) -> ReceivedReport:
    """
    Read a TLS report or a DMARC aggregate report (bare, compressed or attached to a
    message), or a failure report (a message).

    @raise MalformedReport: With the place and the reason, in one line.
    """
    feedback = readFeedbackReport(data) if len(data) <= MAX_MESSAGE else None
    if feedback is not None:
        return feedback
    document = findReport(data)
    if document.format is DocumentFormat.JSON:
        return parseReport(document.content)
    return parseAggregateReport(document.content)
