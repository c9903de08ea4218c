# -*- test-case-name: tests.incoming.test_dispatch -*-
"""
Which kind of report it is.  No I/O.
"""

from __future__ import annotations

from moxtls.dmarc.arf import FeedbackReport, describeFeedback, readFeedback
from moxtls.dmarc.received import (
    ReceivedAggregate,
    describeAggregate,
    parseAggregate,
)
from moxtls.incoming.attachment import Format, findReport
from moxtls.tlsrpt.received import MAX_MESSAGE, ReceivedReport, describe, parseReport

Report = ReceivedReport | ReceivedAggregate | FeedbackReport


def readReport(data: bytes) -> Report:
    """
    Read a TLS report or a DMARC aggregate report: bare, packed, or in a whole
    message; or a message that is a failure report.

    @raise MalformedReport: It names the place and the reason, in one line.
    """
    feedback = readFeedback(data) if len(data) <= MAX_MESSAGE else None
    if feedback is not None:
        return feedback
    document = findReport(data)
    if document.format is Format.JSON:
        return parseReport(document.content)
    return parseAggregate(document.content)


def describeReport(report: Report) -> list[str]:
    """
    Lines for people; nothing in them can move a terminal's cursor.
    """
    if isinstance(report, ReceivedReport):
        return describe(report)
    if isinstance(report, FeedbackReport):
        return describeFeedback(report)
    return describeAggregate(report)
