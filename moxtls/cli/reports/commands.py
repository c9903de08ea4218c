# -*- test-case-name: tests.cli.reports.test_commands -*-
"""
C{moxtls report}: reports that are due, and reports that were sent.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from moxtls.cli.output import paged
from moxtls.cli.reports import export, importing
from moxtls.cli.reports.documents import document
from moxtls.cli.reports.received import addVerbs
from moxtls.cli.shell import (
    CommandError,
    Shell,
    addCommand,
    addGroup,
    domainArgument,
    moment,
)
from moxtls.dates import rfc3339, utcDay
from moxtls.queue.types import ReportKind
from moxtls.received.analysis.describe import describeReport
from moxtls.received.reading.read import ReceivedReport, readReport
from moxtls.reporting.types import NoReport, OutgoingReport, ReportDraft, ReportPeriod
from moxtls.tlsrpt.parse import (
    MalformedReport,
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
    addVerbs(verbs)
    export.add(verbs)
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
        for line in describeReport(_read(draft), showAll=True):
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
