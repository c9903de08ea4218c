# -*- test-case-name: tests.lab.test_runner -*-
"""
Prints the lab and its results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moxtls.cli.output import Output
from moxtls.dates import DAY, rfc3339
from moxtls.lab.arrivals import ArrivedAggregate, ArrivedReport
from moxtls.lab.mail import MailOutcome, ReceptionOutcome
from moxtls.lab.messages import ANNA, OTTO
from moxtls.lab.received import ReportReception
from moxtls.lab.scenario import SENDER
from moxtls.lab.world import Lab
from moxtls.received.analysis.answers import Answer, TLSAnswer
from moxtls.received.analysis.describe import describeTLSReport
from moxtls.received.types import StoredReport

HELP = (
    'Enter (or "moxtls lab end-day" elsewhere) ends the report day, '
    "m sends and receives another mail of each kind, q quits."
)


def showWorld(output: Output, lab: Lab) -> None:
    """
    Print the addresses of everything.
    """
    network = lab.network
    dns, https = network.dnsPort, network.httpsPort
    output.line(f"The lab is in {lab.directory}; its moxtls uses {lab.configFile}")
    output.line(f"  resolver {network.resolver}:{dns}, zones {network.authority}:{dns}")
    output.line(f"  policies and reports by HTTPS {network.webHost}:{https}")
    output.line(f"  {len(lab.hosts)} mail hosts on port {network.smtpPort}")
    ours = network.submission
    output.line(f"  moxtls takes mail to be sent at {ours}:{network.submissionPort}")
    output.line(f"  and for {ANNA} and {OTTO} at {ours}:{network.smtpPort};")
    output.line(f"  their mail is in {lab.accounts}")
    output.line("")


def showMail(output: Output, outcomes: Sequence[MailOutcome]) -> None:
    """
    Print the results of the mail to each destination.
    """
    rows = [
        (
            each.destination.domain,
            each.destination.explanation,
            _ending(each),
            each.detail,
        )
        for each in outcomes
    ]
    output.line(f"Mail from {SENDER}, the domain of this moxtls, to each destination:")
    output.table(("Domain", "Condition", "Mail", "How"), rows)
    output.line("")


def _ending(outcome: MailOutcome) -> str:
    if not outcome.attempted:
        return "not attempted"
    ending = "delivered" if outcome.delivered else "deferred"
    return ending if outcome.asExpected else f"{ending} (UNEXPECTED)"


def showReceived(
    output: Output, outcomes: Sequence[ReceptionOutcome], wrong: Sequence[str]
) -> None:
    """
    Print the results of the messages from senders.
    """
    if not outcomes:
        return
    rows = [_receivedRow(each) for each in outcomes]
    columns = (
        "From",
        "What it is",
        "Reply, mailbox",
        "SPF",
        "DKIM",
        "DMARC, disposition",
    )
    output.line(f"Mail of others to {SENDER}:")
    output.table(columns, rows)
    for line in wrong:
        output.line(f"UNEXPECTED {line}")
    output.line("")


def _receivedRow(outcome: ReceptionOutcome) -> tuple[object, ...]:
    labMessage, seen = outcome.labMessage, outcome.seen
    signatures = [
        result if domain == labMessage.author else f"{result} {domain}"
        for domain, result in seen.dkim
    ]
    return (
        labMessage.author,
        labMessage.explanation,
        f"{outcome.answer.code} {outcome.mailbox}",
        seen.spf,
        signatures or "none",
        f"{seen.dmarc}, {seen.disposition}",
    )


def showReceptions(
    output: Output,
    receptions: Sequence[ReportReception],
    answers: Sequence[Answer],
) -> None:
    """
    Print what became of the reports about the lab's domain, and what they say.
    """
    rows = [
        (
            each.labReport.domain,
            each.labReport.explanation,
            each.answer.code,
            _state(each.stored),
        )
        for each in receptions
    ]
    output.line(f"Reports of others about {SENDER}:")
    output.table(("Report from", "What it is", "Reply", "What became of it"), rows)
    for each in receptions:
        for line in each.differences:
            output.line(f"UNEXPECTED {line}")
    for answer in answers:
        kind = "TLS" if isinstance(answer, TLSAnswer) else "DMARC"
        verdict, sentence = answer.conclusion.verdict, answer.conclusion.sentence
        output.line(f"{answer.domain}, {kind}: {verdict}: {sentence}")
    output.line("")


def _state(stored: StoredReport | None) -> str:
    if stored is None:
        return "not in the ledger"
    if stored.refused:
        return f"refused: {stored.refused}"
    return f"accepted by {stored.origin.authentication}"


def showAggregates(output: Output, reports: Sequence[ArrivedAggregate]) -> None:
    """
    Print the DMARC reports of a day, a line for each record.
    """
    rows = [row for each in reports for row in _records(each)]
    columns = ("DMARC report to", "From", "Source", "Count", "Aligned", "Disposition")
    output.table(columns, rows, empty="No DMARC reports arrived.")
    for each in reports:
        domain, recipient = each.key
        if not recipient.endswith(f"@{domain}"):
            output.line(f"That to {domain} was sent to {recipient}")
        for error in each.report.errors:
            output.line(f"That to {domain} says: {error}")
    output.line("")


def _records(arrived: ArrivedAggregate) -> Iterator[tuple[object, ...]]:
    report = arrived.report
    domain = f"{report.domain}{_hours(report.start, report.end + 1)}"
    for record in report.records:
        results = {"DKIM": record.dkimAligned, "SPF": record.spfAligned}
        reasons = [each.type for each in record.reasons]
        yield (
            domain,
            record.headerFrom,
            record.sourceIP,
            record.count,
            [name for name, result in results.items() if result == "pass"] or "-",
            ": ".join([record.disposition, *reasons]),
        )
        domain = ""


def _hours(start: int, end: int) -> str:
    """
    The hours of the day, if not all.
    """
    if end - start >= DAY:
        return ""
    return f", {rfc3339(start)[11:16]}-{rfc3339(end)[11:16]}"


def showReports(output: Output, reports: Sequence[ArrivedReport]) -> None:
    """
    Print the TLS reports of a day, a line for each policy.
    """
    rows = [row for each in reports for row in _rows(each)]
    columns = ("Report to", "Policy", "Of", "Good", "Failed", "What failed", "Sent to")
    output.table(columns, rows, empty="No reports arrived.")
    output.line("")


def describeReports(output: Output, reports: Sequence[ArrivedReport]) -> None:
    """
    The TLS reports of a day as sentences.
    """
    for each in reports:
        for line in (*describeTLSReport(each.report, True), *_signatures(each)):
            output.line(line)
        output.line("")


def _rows(arrived: ArrivedReport) -> Iterator[tuple[object, ...]]:
    name, destination = arrived.domain, arrived.arrival.recipient
    for policy in arrived.report.policies:
        failures = [
            " ".join(filter(None, (each.resultType, each.reasonCode)))
            for each in policy.failures
        ]
        yield (
            name,
            policy.type,
            policy.domain,
            policy.succeeded,
            policy.failed,
            failures,
            destination,
        )
        name = destination = ""


def _signatures(arrived: ArrivedReport) -> Iterator[str]:
    for selector, holds in arrived.signatures.items():
        yield f"DKIM signature by {selector}: {'valid' if holds else 'NOT VALID'}"


def showProgress(output: Output, now: float, count: int, expected: int) -> None:
    """
    Print how far the night has advanced.
    """
    output.progress(f"{rfc3339(now)}: {count} of {expected} reports have arrived")


def showDifferences(output: Output, found: Sequence[str]) -> None:
    """
    Print whether all reports are as expected.
    """
    if not found:
        output.line("All of it is as it should be.")
    for each in found:
        output.line(f"UNEXPECTED {each}")
