# -*- test-case-name: tests.received.analysis.test_describe -*-
"""
Describes received reports in lines of text, safe to print on a terminal.  No I/O.

Failures come first; all that is fine is one line, unless every row is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from moxtls.dates import rfc3339
from moxtls.dmarc.parse import FeedbackReport, ReceivedAggregateReport, ReceivedRecord
from moxtls.received.analysis.answers import count, every, number
from moxtls.received.analysis.explanations import explain
from moxtls.tlsrpt.parse import (
    ReceivedFailure,
    ReceivedPolicy,
    ReceivedTLSReport,
    escapeUnprintable,
)

#: Failing rows that are shown if not all are wanted.
MAX_ROWS = 50

AnyReport = ReceivedTLSReport | ReceivedAggregateReport | FeedbackReport


def describeReport(
    report: AnyReport, showAll: bool = False, isExplained: bool = False
) -> list[str]:
    """
    Lines of text that describe C{report}, without control characters.

    @param showAll: Every row, also those without failures.
    @param isExplained: Add the remedies for failures, for the reported domain.
    """
    if isinstance(report, ReceivedTLSReport):
        return describeTLSReport(report, showAll, isExplained)
    if isinstance(report, FeedbackReport):
        return describeFeedbackReport(report)
    return describeAggregateReport(report, showAll)


def reportVerdict(report: AnyReport) -> str:
    """
    The result of a report in a line.
    """
    if isinstance(report, ReceivedTLSReport):
        failed = sum(each.failed for each in report.policies)
        total = failed + sum(each.succeeded for each in report.policies)
        return _verdict(failed, total, "session", "TLS")
    if isinstance(report, FeedbackReport):
        kind = report.get("Auth-Failure") or report.get("Feedback-Type") or "feedback"
        return escapeUnprintable(f"1 message failed: {kind}")
    failed = sum(each.count for each in report.records if not _passed(each))
    return _verdict(failed, report.messages, "message", "DMARC")


def _verdict(failed: int, total: int, noun: str, test: str) -> str:
    if not total:
        return f"No {noun}s"
    if not failed:
        return f"{every(total, noun).capitalize()} passed {test}"
    return f"{number(failed)} of {count(total, noun)} failed {test}"


# --- TLS reports ----------------------------------------------------------------------


def describeTLSReport(
    report: ReceivedTLSReport, showAll: bool = False, isExplained: bool = False
) -> list[str]:
    """
    Lines about a TLS report, as L{describeReport}.
    """
    lines = [
        f"Report {report.reportID or '(no id)'} of "
        f"{report.organization or '(unnamed)'} ({report.contact or 'no contact'})",
        f"Period {rfc3339(report.start)} to {rfc3339(report.end)}",
    ]
    ordered = sorted(report.policies, key=lambda each: -each.failed)
    fine = [each for each in ordered if not (each.failed or each.failures)]
    failing = [each for each in ordered if each.failed or each.failures]
    shown = ordered if showAll else failing
    for policy in shown[: None if showAll else MAX_ROWS]:
        lines.extend(_describePolicy(policy, showAll, isExplained))
    lines.extend(_rest(len(shown) - MAX_ROWS, "policies with failures", showAll))
    if fine and not showAll:
        sessions = sum(each.succeeded for each in fine)
        kinds = ", ".join(
            dict.fromkeys(f"{_domainOf(each)}: {each.type}" for each in fine[:5])
        )
        lines.append(f"{count(sessions, 'session')} without failures ({kinds})")
    return [escapeUnprintable(line) for line in lines]


def _domainOf(policy: ReceivedPolicy) -> str:
    return policy.domain or "(no domain)"


def _describePolicy(
    policy: ReceivedPolicy, showAll: bool, isExplained: bool
) -> Iterator[str]:
    yield (
        f"{_domainOf(policy)}: {policy.type}, "
        f"{number(policy.succeeded)} succeeded, {number(policy.failed)} failed"
    )
    if policy.mxHosts:
        yield "  hosts: " + ", ".join(policy.mxHosts)
    yield from ("  | " + each for each in policy.strings)
    ordered = sorted(policy.failures, key=lambda each: -each.count)
    explained: set[str] = set()
    for failure in ordered[: None if showAll else MAX_ROWS]:
        yield "  " + _describeFailure(failure)
        explanation = explain(failure.resultType, failure.reasonCode)
        if isExplained and explanation.title not in explained:
            explained.add(explanation.title)
            remedy = explanation.about(policy.domain, failure.mxHostname).remedy
            yield f"    {explanation.title}: {remedy}"
    yield from _rest(len(ordered) - MAX_ROWS, "failures", showAll, "  ")


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


def _rest(more: int, nouns: str, showAll: bool, indent: str = "") -> Iterator[str]:
    if more > 0 and not showAll:
        yield f"{indent}and {number(more)} more {nouns} (--all shows them)"


# --- DMARC reports --------------------------------------------------------------------


def describeAggregateReport(
    report: ReceivedAggregateReport, showAll: bool = False
) -> list[str]:
    """
    Lines about an aggregate report, as L{describeReport}.
    """
    policy = " ".join(f"{name}={value}" for name, value in report.published if value)
    lines = [
        f"Report {report.reportID or '(no id)'} of "
        f"{report.organization or '(unnamed)'} ({report.email or 'no contact'})",
        f"Period {rfc3339(report.start)} to {rfc3339(report.end)}",
        f"{report.domain}: {policy}",
        f"{count(report.messages, 'message')} in "
        f"{count(len(report.records), 'record')}",
        *(f"Error: {each}" for each in report.errors if each),
    ]
    ordered = sorted(report.records, key=lambda each: (_passed(each), -each.count))
    failing = [each for each in ordered if not _passed(each)]
    for record in ordered if showAll else failing[:MAX_ROWS]:
        lines.extend(_described(record))
    lines.extend(_rest(len(failing) - MAX_ROWS, "failing records", showAll))
    if not showAll:
        lines.extend(_fine(ordered[len(failing) :]))
    return [escapeUnprintable(line) for line in lines]


def _passed(record: ReceivedRecord) -> bool:
    return "pass" in (record.dkimAligned, record.spfAligned)


def _fine(records: Sequence[ReceivedRecord]) -> Iterable[str]:
    if not records:
        return ()
    messages = sum(each.count for each in records)
    sources = len({each.sourceIP for each in records})
    verb = "passes" if messages == 1 else "pass"
    return (f"{count(messages, 'message')} from {count(sources, 'source')} {verb}",)


def _described(record: ReceivedRecord) -> Iterator[str]:
    disposition = record.disposition or "no disposition"
    yield (
        f"{record.count} x from {record.sourceIP}: {disposition}, "
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
    Lines about a failure report, as L{describeReport}.
    """
    kind = report.get("Feedback-Type") or "unknown"
    lines = [f"Feedback of type {kind} by {report.get('User-Agent') or '(unnamed)'}"]
    omitted = ("feedback-type", "user-agent", "version")
    lines += [f"{n}: {v}" for n, v in report.fields if n.lower() not in omitted]
    if report.original:
        lines.append("The message:")
        lines += [f"  {name}: {value}" for name, value in report.original]
    return [escapeUnprintable(line) for line in lines]
