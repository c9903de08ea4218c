"""
Reads reports that were sent.
"""

from __future__ import annotations

from moxtls.received.reading.documents import Document, findDocuments
from moxtls.received.reading.read import readReport
from moxtls.tlsrpt.parse import MalformedReport, ReceivedTLSReport


def readTLSReport(data: bytes) -> ReceivedTLSReport:
    """
    The first report in C{data}, in any container.

    @raise MalformedReport: It is none, or no TLS report.
    """
    report = readReport(data)
    if not isinstance(report, ReceivedTLSReport):
        raise MalformedReport("a report of another kind")
    return report


def documentIn(data: bytes) -> bytes:
    """
    The first report in C{data}, unpacked.
    """
    found = next(findDocuments(data))
    assert isinstance(found, Document), found
    return b"".join(found.chunks)
