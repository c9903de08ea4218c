# -*- test-case-name: tests.cli.test_reports -*-
"""
C{moxtls report}: reports that are due, reports that were sent, and received reports.

C{moxtls report show} prints received reports; its JSON has the field names of the RFCs,
whatever the format of the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from moxtls.cli import importing
from moxtls.cli.pages import paged
from moxtls.cli.shell import (
    CommandError,
    Shell,
    addCommand,
    addGroup,
    domainArgument,
    moment,
)
from moxtls.dates import rfc3339, utcDay
from moxtls.dmarc.parse import FeedbackReport, ReceivedAggregateReport, ReceivedRecord
from moxtls.queue.types import ReportKind
from moxtls.received.describe import describeReport
from moxtls.received.documents import MAX_INPUT
from moxtls.received.read import ReceivedReport, readReport
from moxtls.reporting.types import NoReport, OutgoingReport, ReportDraft, ReportPeriod
from moxtls.tlsrpt.parse import (
    MalformedReport,
    ReceivedFailure,
    ReceivedPolicy,
    ReceivedTLSReport,
)

if TYPE_CHECKING:
    from moxtls.reporting.service import ReportService

PENDING = ("Kind", "Until", "Domain", "Of", "To be sent", "Reason")
SENT = (
    "Kind",
    "Day",
    "Domain",
    "Destination",
    "State",
    "Node",
    "Composed",
    "Updated",
    "Detail",
)
#: They are kept with the whole message.
REPORTS_AT_ONCE = 50
_PHASES = {
    ReportKind.TLS: ("recipient domain", "MX host"),
    ReportKind.DMARC: ("policy domain",),
}

#: A report that may be due, and its draft or the reason why there is none.
Preview = tuple[ReportKind, ReportPeriod, ReportDraft | NoReport]


def add(commands: Any) -> None:
    verbs = addGroup(commands, "report", "list, preview, send and read reports")
    pending = addCommand(verbs, "pending", "list reports that may be due")
    pending.set_defaults(run=_pending)
    sent = addCommand(verbs, "sent", "list sent reports and their state")
    sent.set_defaults(run=_sent)
    preview = addCommand(
        verbs, "preview", "show the reports that would be sent, or why none would"
    )
    preview.set_defaults(run=_preview)
    send = addCommand(verbs, "send", "send the reports that are due, all at once")
    send.set_defaults(run=_send)
    for verb in (pending, sent, preview, send):
        verb.add_argument(
            "--kind",
            choices=[str(each) for each in ReportKind],
            help="only reports of this kind",
        )
        verb.add_argument(
            "--domain",
            type=domainArgument,
            metavar="DOMAIN",
            help="only reports about this domain",
        )
    for verb in (pending, preview, send):
        verb.add_argument(
            "--now",
            action="store_true",
            help="also report periods that have not ended, up to now; later results "
            "go into another report",
        )
    reading = addCommand(
        verbs, "show", "read received reports: JSON, XML, gzip, zip or whole messages"
    )
    reading.add_argument(
        "files", nargs="+", metavar="FILE", help="- for standard input"
    )
    reading.set_defaults(run=show)
    importing.add(verbs)


async def _services(
    shell: Shell, arguments: argparse.Namespace, sending: bool = False
) -> dict[ReportKind, ReportService]:
    base, queue = await shell.base(), await shell.queue(make=sending)
    kinds = [ReportKind(arguments.kind)] if arguments.kind else list(ReportKind)
    return {kind: base.reports(queue, kind) for kind in kinds}


async def _pending(shell: Shell, arguments: argparse.Namespace) -> int:
    rows = [
        (
            str(kind),
            _until(each),
            each.domain.unicode,
            _PHASES[kind][each.phase],
            not reason,
            reason,
        )
        for kind, service in (await _services(shell, arguments)).items()
        for each, reason in (
            await service.owed(arguments.domain, arguments.now)
        ).items()
    ]
    shell.output.table(PENDING, rows, empty="No reports are due.")
    return 0


def _until(period: ReportPeriod) -> str:
    """
    The end of the period of a report.
    """
    return rfc3339(period.end) if period.end else str(period.day)


async def _sent(shell: Shell, arguments: argparse.Namespace) -> int:
    ledger = await shell.ledger()
    kind = ReportKind(arguments.kind) if arguments.kind else None
    listing = shell.output.listing(SENT, empty="No reports have been sent.")

    def load(
        last: OutgoingReport | None, most: int
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        return ledger.archive.reports(kind, arguments.domain, None, most, last)

    async for each in paged(load, REPORTS_AT_ONCE):
        listing.add(
            (
                str(each.key.kind),
                str(utcDay(each.key.start)),
                each.key.domain.unicode,
                each.key.destination,
                str(each.state),
                each.node,
                moment(each.composed),
                moment(each.updated),
                each.detail,
            )
        )
    listing.end()
    return 0


async def _preview(shell: Shell, arguments: argparse.Namespace) -> int:
    found: list[Preview] = []
    for kind, service in (await _services(shell, arguments)).items():
        periods = await service.pending(arguments.now)
        domains = dict.fromkeys(
            each.domain for each in periods if arguments.domain in (None, each.domain)
        )
        for number, domain in enumerate(domains, 1):
            shell.output.progress(f"{kind}: {number} of {len(domains)}: {domain}")
            found += [
                (kind, *each) for each in await service.preview(domain, arguments.now)
            ]
    shell.output.progressEnded()
    if arguments.json:
        shell.output.json([_previewed(*each) for each in found])
    for line in _previewLines(found):
        shell.output.line(line)
    return 0


def _previewed(
    kind: ReportKind, period: ReportPeriod, draft: ReportDraft | NoReport
) -> dict[str, object]:
    about: dict[str, object] = {
        "kind": str(kind),
        "day": str(period.day),
        "domain": str(period.domain),
    }
    if isinstance(draft, NoReport):
        return {**about, "reason": draft.reason}
    report = document(_read(draft))
    return {**about, "destinations": draft.destinations, "report": report}


def _previewLines(found: list[Preview]) -> Iterator[str]:
    if not found:
        yield "No reports are due."
    for kind, period, draft in found:
        role = _PHASES[kind][period.phase]
        about = f"{_until(period)} {period.domain} ({role})"
        if isinstance(draft, NoReport):
            yield f"{about}: no report: {draft.reason}"
            continue
        yield f"{about}: to {', '.join(draft.destinations)}"
        for line in describeReport(_read(draft)):
            yield f"  {line}"


def _read(draft: ReportDraft) -> ReceivedReport:
    try:
        return readReport(draft.document)
    except MalformedReport as error:
        # Too large to print.
        about = f"the report to {draft.period.domain}"
        raise CommandError(f"{about} can't be shown: {error}") from None


async def _send(shell: Shell, arguments: argparse.Namespace) -> int:
    from moxtls.reporting.service import ReportsBusy

    services = await _services(shell, arguments, sending=True)
    shell.output.progress("composing reports")
    count = 0
    try:
        for service in services.values():
            count += await service.runNow(arguments.domain, arguments.now)
    except ReportsBusy:
        raise CommandError("another node is sending reports at the moment") from None
    finally:
        shell.output.progressEnded()
    shell.output.done(f"{count} composed and queued.", composed=count)
    return 0


#: The file name that stands for standard input.
STDIN = "-"


async def show(shell: Shell, arguments: argparse.Namespace) -> int:
    """
    Print received reports. All files are read before the first is printed: after an
    error nothing is printed.
    """
    files: list[str] = arguments.files
    reports = [_readFile(shell, each) for each in files]
    if arguments.json:
        named = zip(files, reports, strict=True)
        shell.output.json([{"file": name, **document(each)} for name, each in named])
    for name, report in zip(files, reports, strict=True):
        if name is not files[0]:
            shell.output.line()
        if len(files) > 1:
            shell.output.line(f"{name}:")
        for line in describeReport(report):
            shell.output.line(line)
    return 0


def _readFile(shell: Shell, file: str) -> ReceivedReport:
    try:
        if file == STDIN:
            return readReport(shell.stdin.read(MAX_INPUT + 1))
        with Path(file).open("rb") as opened:
            return readReport(opened.read(MAX_INPUT + 1))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        # A MalformedReport, or a name that no file can have.
        raise CommandError(f"{file}: {error}") from None


def document(report: ReceivedReport) -> dict[str, object]:
    """
    A received report as JSON, with the names of RFC 8460 4.4, RFC 9990 3.1 or RFC
    5965 3.
    """
    if isinstance(report, ReceivedTLSReport):
        return _tls(report)
    if isinstance(report, FeedbackReport):
        return {"feedback_report": report.fields, "original": report.original}
    return _aggregate(report)


def _tls(report: ReceivedTLSReport) -> dict[str, object]:
    return {
        "organization-name": report.organization,
        "date-range": {
            "start-datetime": rfc3339(report.start),
            "end-datetime": rfc3339(report.end),
        },
        "contact-info": report.contact,
        "report-id": report.reportID,
        "policies": [_policy(each) for each in report.policies],
    }


def _policy(policy: ReceivedPolicy) -> dict[str, object]:
    return {
        "policy": {
            "policy-type": policy.type,
            "policy-string": policy.strings,
            "policy-domain": policy.domain,
            "mx-host": policy.mxHosts,
        },
        "summary": {
            "total-successful-session-count": policy.succeeded,
            "total-failure-session-count": policy.failed,
        },
        "failure-details": [_failure(each) for each in policy.failures],
    }


def _failure(failure: ReceivedFailure) -> dict[str, object]:
    fields: dict[str, object] = {
        "result-type": failure.resultType,
        "sending-mta-ip": failure.sendingIP,
        "receiving-mx-hostname": failure.mxHostname,
        "receiving-mx-helo": failure.mxHELO,
        "receiving-ip": failure.receivingIP,
        "failed-session-count": failure.count,
        "additional-information": failure.additional,
        "failure-reason-code": failure.reasonCode,
    }
    return {name: value for name, value in fields.items() if value != ""}


def _aggregate(report: ReceivedAggregateReport) -> dict[str, object]:
    return {
        "report_metadata": {
            "org_name": report.organization,
            "email": report.email,
            "extra_contact_info": report.contact,
            "report_id": report.reportID,
            "date_range": {"begin": report.start, "end": report.end},
            "error": report.errors,
            "generator": report.generator,
        },
        "policy_published": {"domain": report.domain, **dict(report.published)},
        "records": [_record(each) for each in report.records],
    }


def _record(record: ReceivedRecord) -> dict[str, object]:
    return {
        "row": {
            "source_ip": record.sourceIP,
            "count": record.count,
            "policy_evaluated": {
                "disposition": record.disposition,
                "dkim": record.dkimAligned,
                "spf": record.spfAligned,
                "reasons": [each._asdict() for each in record.reasons],
            },
        },
        "identifiers": {
            "header_from": record.headerFrom,
            "envelope_from": record.envelopeFrom,
            "envelope_to": record.envelopeTo,
        },
        "auth_results": {
            "dkim": [
                {
                    "domain": each.domain,
                    "selector": each.selector,
                    "result": each.result,
                    "human_result": each.humanResult,
                }
                for each in record.dkim
            ],
            "spf": [each._asdict() for each in record.spf],
        },
    }
