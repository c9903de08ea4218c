# -*- test-case-name: tests.received.reading.test_read -*-
"""
Reads received reports of all kinds from any input.  Worker processes call
L{readReports}.
"""

from __future__ import annotations

import errno
import gc
import zlib
from collections.abc import Iterable, Iterator

from moxtls.dmarc.parse import (
    FeedbackReport,
    ReceivedAggregateReport,
    parseAggregateReport,
    readAggregateReport,
    readFeedbackReport,
)
from moxtls.received.reading.documents import (
    KINDS,
    MAX_INPUT,
    NOTHING,
    Document,
    findDocuments,
)
from moxtls.received.reading.parsed import (
    MAX_STORED,
    RowCollector,
    parsedAggregate,
    parsedFailure,
    parsedTLS,
)
from moxtls.received.types import (
    ParsedReport,
    RawFormat,
    ReadResult,
    Unreadable,
)
from moxtls.regularfiles import readRegular
from moxtls.tlsrpt.parse import (
    MAX_JSON,
    MalformedReport,
    ReceivedTLSReport,
    escapeUnprintable,
    parseReport,
)

#: A report of any kind that another host sent.
ReceivedReport = ReceivedTLSReport | ReceivedAggregateReport | FeedbackReport

_GZIP = zlib.MAX_WBITS + 16
# Most of the time is spent otherwise then.
_LEVEL = 1
_MAX_REASON = 300


def readReports(source: bytes | str, name: str = "") -> ReadResult:
    """
    Read all reports in an input.  Never fails: what can't be read is in the result.

    @param source: JSON, XML or a message, compressed or in archives; or the path of a
        file with it.
    @param name: The file name, if there is one.
    """
    wasEnabled = gc.isenabled()
    # Nothing that is made here refers to itself, and searching for that takes a sixth
    # of the time.
    gc.disable()
    try:
        return _read(source, name)
    finally:
        if wasEnabled:
            gc.enable()


def _read(source: bytes | str, name: str) -> ReadResult:
    reports: list[ParsedReport] = []
    unreadable: list[Unreadable] = []
    stored = 0
    try:
        data, name = (source, name) if isinstance(source, bytes) else _load(source)
        for found in findDocuments(data, name):
            if isinstance(found, Unreadable):
                unreadable.append(found)
                continue
            try:
                report = _parsed(found)
                stored += len(report.raw) + sum(map(len, report.blocks))
                if stored > MAX_STORED:
                    raise MalformedReport(f"input: more than {MAX_STORED} octets")
                reports.append(report)
            except MalformedReport as error:
                kind = KINDS[found.format]
                unreadable.append(Unreadable(found.name, _line(str(error)), kind))
    except OSError as error:
        reason = "" if error.errno == errno.EFBIG else error.strerror
        reason = reason or f"more than {MAX_INPUT} octets"
        unreadable.append(Unreadable("", _line(f"input: {reason}")))
    except Exception as error:
        # A report must not end the worker that reads it.
        unreadable.append(Unreadable("", f"input: {type(error).__name__}"))
    return ReadResult(tuple(reports), tuple(unreadable))


def readReport(data: bytes) -> ReceivedReport:
    """
    Read the first report in an input.

    @raise MalformedReport: It can't be read, or there is none.
    """
    for found in receivedReports(data):
        if isinstance(found, Unreadable):
            raise MalformedReport(found.reason)
        return found
    raise MalformedReport(f"input: {NOTHING}")


def receivedReports(
    data: bytes, name: str = ""
) -> Iterator[ReceivedReport | Unreadable]:
    """
    All reports in an input, each in memory as a whole, and what can't be read.
    """
    for found in findDocuments(data, name):
        if isinstance(found, Unreadable):
            yield found
            continue
        try:
            yield _report(found.format, found.chunks)
        except MalformedReport as error:
            yield Unreadable(found.name, _line(str(error)), KINDS[found.format])


def parseRaw(format: RawFormat, raw: bytes) -> ReceivedReport:
    """
    Parse a stored report.

    @param raw: L{ParsedReport.raw}.

    @raise MalformedReport: It isn't one.
    """
    for found in receivedReports(raw):
        if isinstance(found, Unreadable):
            raise MalformedReport(found.reason)
        return found
    raise MalformedReport("report: missing")


def _load(path: str) -> tuple[bytes, str]:
    return readRegular(path, MAX_INPUT), path.rpartition("/")[2]


def _report(format: RawFormat, chunks: Iterable[bytes]) -> ReceivedReport:
    if format is RawFormat.JSON:
        return parseReport(_joined(chunks))
    if format is RawFormat.XML:
        return parseAggregateReport(chunks)
    report = readFeedbackReport(b"".join(chunks))
    if report is None:
        raise MalformedReport("message: the fields of the report are missing")
    return report


def _parsed(document: Document) -> ParsedReport:
    if document.format is RawFormat.MESSAGE:
        return parsedFailure(b"".join(document.chunks))
    raw = _Raw(document)
    if document.format is RawFormat.JSON:
        report = parseReport(_joined(raw))
        return parsedTLS(report, raw.finish(), document.domainHint)
    rows = RowCollector()
    head = readAggregateReport(raw, rows.take)
    return parsedAggregate(head, rows, raw.finish())


class _Raw:
    """
    The chunks of a document; collects it in gzip while they are read.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._pieces: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        if self._document.packed is not None:
            yield from self._document.chunks
            return
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        size = 0
        try:
            for chunk in self._document.chunks:
                piece = packer.compress(chunk)
                size += len(piece)
                if size > MAX_STORED:
                    raise MalformedReport(f"report: more than {MAX_STORED} octets")
                self._pieces.append(piece)
                yield chunk
        finally:
            self._pieces.append(packer.flush())

    def finish(self) -> bytes:
        """
        The document; what the parser left is left out if it wasn't compressed.
        """
        if self._document.packed is None:
            return b"".join(self._pieces)
        for _ in self._document.chunks:
            pass
        return self._document.packed()


def _joined(chunks: Iterable[bytes]) -> bytes:
    pieces, size = [], 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_JSON:
            raise MalformedReport(f"report: more than {MAX_JSON} octets")
        pieces.append(chunk)
    return b"".join(pieces)


def _line(reason: str) -> str:
    return escapeUnprintable(reason)[:_MAX_REASON]
