# -*- test-case-name: tests.cli.test_evaluations -*-
"""
C{moxtls evaluations}: DMARC evaluations that have not been reported.
"""

from __future__ import annotations

import argparse
from typing import Any

from moxtls.cli.output import paged
from moxtls.cli.shell import Shell, addCommand, domainArgument, moment
from moxtls.dmarc.types import EvaluationSummary, ReportRow, StoredEvaluation
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore
from moxtls.queue.types import ReportKind

SUMMARIES = ("Policy domain", "Messages", "Dispositions", "Report", "Reason")
EVALUATIONS = (
    "Hour",
    "Messages",
    "Source",
    "From",
    "MAIL FROM",
    "To",
    "Disposition",
    "DKIM",
    "SPF",
    "May cause report",
    "Every",
    "Details",
)
#: The maximum number of evaluations that are shown of one domain.
MAX_EVALUATIONS = 10_000


def add(commands: Any) -> None:
    evaluations = addCommand(
        commands, "evaluations", "DMARC evaluations that have not been reported"
    )
    evaluations.add_argument(
        "domain",
        nargs="?",
        type=domainArgument,
        metavar="DOMAIN",
        help="show each evaluation of this policy domain (default: a summary of all)",
    )
    evaluations.set_defaults(run=_evaluations)


async def _evaluations(shell: Shell, arguments: argparse.Namespace) -> int:
    store = (await shell.ledger()).evaluations
    if arguments.domain is None:
        return await _summaries(shell, store)
    return await _ofDomain(shell, store, arguments.domain)


async def _summaries(shell: Shell, store: IEvaluationStore) -> int:
    listing = shell.output.listing(SUMMARIES, empty="No mail has been evaluated.")
    reasons = await _reasons(shell) if await store.summaries(limit=1) else {}
    async for each in paged(store.summaries):
        listing.add(_summary(each, reasons.get(each.domain, [])))
    listing.end()
    return 0


async def _reasons(shell: Shell) -> dict[Domain, list[str]]:
    """
    The reasons why a policy domain gets no report, as in C{report pending --now}: one
    for each policy of the domain, empty where a report is due.
    """
    from moxtls.reporting.service import pendingPeriods, refusals

    source = (await shell.base()).source(ReportKind.DMARC)
    periods = await pendingPeriods(source, shell.now(), early=True)
    shell.output.progress(f"looking up {len(periods)} domains")
    reasons: dict[Domain, list[str]] = {}
    for period, reason in (await refusals(source, periods)).items():
        reasons.setdefault(period.domain, []).append(reason)
    shell.output.progressEnded()
    return reasons


def _summary(each: EvaluationSummary, reasons: list[str]) -> tuple[object, ...]:
    wanted = "" in reasons
    reason = "" if wanted else next(iter(reasons), "not looked up: too many domains")
    dispositions = _words(each.dispositions)
    return each.domain.unicode, each.count, dispositions, wanted, reason


async def _ofDomain(shell: Shell, store: IEvaluationStore, domain: Domain) -> int:
    found = await store.evaluations(domain, MAX_EVALUATIONS)
    rows = [_row(each) for each in found]
    empty = f"No mail of {domain} has been evaluated."
    shell.output.table(EVALUATIONS, rows, empty=empty)
    if len(rows) == MAX_EVALUATIONS:
        shell.output.line(f"Only the first {MAX_EVALUATIONS} are shown.")
    return 0


def _row(stored: StoredEvaluation) -> tuple[object, ...]:
    evaluation = stored.evaluation
    row = evaluation.row
    return (
        moment(stored.hour),
        stored.count,
        row.sourceIP,
        row.headerFrom,
        row.envelopeFrom,
        row.envelopeTo,
        str(row.disposition),
        "aligned" if row.dkimAligned else "no",
        "aligned" if row.spfAligned else "no",
        not evaluation.optional,
        f"{evaluation.hours} h",
        _details(row),
    )


def _details(row: ReportRow) -> list[str]:
    details = [f"DKIM {each.domain} {each.result}" for each in row.dkim]
    if row.spf is not None:
        details.append(f"SPF {row.spf.domain} {row.spf.result}")
    details += [f"{each.kind} {each.comment}".rstrip() for each in row.reasons]
    return details


def _words(values: tuple[Any, ...]) -> str:
    return ", ".join(map(str, values))
