# -*- test-case-name: tests.cli.test_evaluations -*-
"""
C{moxtls evaluations}: what DMARC made of mail, until it is reported.
"""

from __future__ import annotations

import argparse
from typing import Any

from moxtls.cli.shell import Shell, domainArgument
from moxtls.cli.times import moment
from moxtls.dmarc.values import ReportRow, StoredEvaluation

SUMMARIES = ("Policy domain", "Messages", "Dispositions", "Report")
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
    "Report",
    "Every",
    "Details",
)
#: Shown of one domain.
MOST = 10_000


def add(commands: Any) -> None:
    evaluations = commands.add_parser(
        "evaluations", help="what DMARC made of mail that has not been reported"
    )
    evaluations.add_argument("domain", nargs="?", type=domainArgument, metavar="DOMAIN")
    evaluations.add_argument("--json", action="store_true")
    evaluations.set_defaults(run=_evaluations)


async def _evaluations(shell: Shell, arguments: argparse.Namespace) -> int:
    store = (await shell.ledger()).evaluations
    if arguments.domain is None:
        summaries = [
            (each.domain.unicode, each.count, _words(each.dispositions), each.sendable)
            for each in await store.summaries()
        ]
        shell.output.table(SUMMARIES, summaries, empty="No mail has been evaluated.")
        return 0
    found = await store.evaluations(arguments.domain, MOST)
    rows = [_row(each) for each in found]
    empty = f"No mail of {arguments.domain} has been evaluated."
    shell.output.table(EVALUATIONS, rows, empty=empty)
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
