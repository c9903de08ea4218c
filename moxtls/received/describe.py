# -*- test-case-name: tests.received.test_describe -*-
"""
Describes received reports in lines of text, safe to print on a terminal.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator

from moxtls.dates import rfc3339
from moxtls.dmarc.parse import FeedbackReport, ReceivedAggregateReport, ReceivedRecord
from moxtls.tlsrpt.parse import (
    ReceivedFailure,
    ReceivedPolicy,
    ReceivedTLSReport,
    escapeUnprintable,
)


def describeReport(
    report: ReceivedTLSReport | ReceivedAggregateReport | FeedbackReport,
) -> list[str]:
    """
    Lines of text that describe C{report}, without control characters.
    """
    if isinstance(report, ReceivedTLSReport):
        return describeTLSReport(report)
    if isinstance(report, FeedbackReport):
        return describeFeedbackReport(report)
    return describeAggregateReport(report)


def describeTLSReport(report: ReceivedTLSReport) -> list[str]:
    """
    Describe a report in lines of text, safe to print on a terminal.
    """
    lines = [
        f"Report {report.reportID or '(no id)'} of "
        f"{report.organization or '(unnamed)'} ({report.contact or 'no contact'})",
        f"Period {rfc3339(report.start)} to {rfc3339(report.end)}",
    ]
    for policy in report.policies:
        lines.extend(_describePolicy(policy))
    return [escapeUnprintable(line) for line in lines]


def _describePolicy(policy: ReceivedPolicy) -> list[str]:
    lines = [
        f"{policy.domain}: {policy.type}, "
        f"{policy.succeeded} succeeded, {policy.failed} failed"
    ]
    if policy.mxHosts:
        lines.append("  hosts: " + ", ".join(policy.mxHosts))
    lines.extend("  | " + each for each in policy.strings)
    lines.extend("  " + _describeFailure(each) for each in policy.failures)
    return lines


def _describeFailure(failure: ReceivedFailure) -> str:
    words = [f"{failure.count} x {failure.resultType}"]
    if failure.reasonCode:
        words.append(f"({failure.reasonCode})")
    if failure.sendingIP:
        words.append(f"from {failure.sendingIP}")
    host = failure.mxHostname or failure.mxHELO
    if host or failure.receivingIP:
        words.append(f"to {host} {failure.receivingIP}".rstrip())
    if failure.additional:
        words.append(f"see {failure.additional}")
    return " ".join(words)


def describeAggregateReport(report: ReceivedAggregateReport) -> list[str]:
    """
    Lines for people; nothing in them can move a terminal's cursor.
    """
    policy = " ".join(f"{name}={value}" for name, value in report.published if value)
    lines = [
        f"Report {report.reportID or '(no id)'} of "
        f"{report.organization or '(unnamed)'} ({report.email or 'no contact'})",
        f"Period {rfc3339(report.start)} to {rfc3339(report.end)}",
        f"{report.domain}: {policy}",
        f"{report.messages} messages in {len(report.records)} records",
        *(f"Error: {each}" for each in report.errors if each),
    ]
    for record in report.records:
        lines.extend(_described(record))
    return [escapeUnprintable(line) for line in lines]


def _described(record: ReceivedRecord) -> Iterator[str]:
    yield (
        f"{record.count} x from {record.sourceIP}: {record.disposition or 'none'}, "
        f"aligned DKIM {record.dkimAligned or '-'}, SPF {record.spfAligned or '-'}"
    )
    names = [f"From {record.headerFrom}"]
    if record.envelopeFrom:
        names.append(f"MAIL FROM {record.envelopeFrom}")
    if record.envelopeTo:
        names.append(f"to {record.envelopeTo}")
    yield "  " + ", ".join(names)
    for signature in record.dkim:
        selector = f" (s={signature.selector})" if signature.selector else ""
        why = f": {signature.humanResult}" if signature.humanResult else ""
        yield f"  DKIM {signature.domain}{selector} {signature.result}{why}"
    for spf in record.spf:
        scope = f" ({spf.scope})" if spf.scope else ""
        yield f"  SPF {spf.domain or '-'}{scope} {spf.result}"
    for reason in record.reasons:
        yield f"  because {reason.type} {reason.comment}".rstrip()


def describeFeedbackReport(report: FeedbackReport) -> list[str]:
    """
    Lines for people; nothing in them can move a terminal's cursor.
    """
    kind = report.get("Feedback-Type") or "unknown"
    lines = [f"Feedback of type {kind} by {report.get('User-Agent') or '(unnamed)'}"]
    omitted = ("feedback-type", "user-agent", "version")
    lines += [f"{n}: {v}" for n, v in report.fields if n.lower() not in omitted]
    if report.original:
        lines.append("The message:")
        lines += [f"  {name}: {value}" for name, value in report.original]
    return [escapeUnprintable(line) for line in lines]
