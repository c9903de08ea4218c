# -*- test-case-name: tests.cli.test_results -*-
"""
C{moxtls results}: how TLS went, until it is reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from moxtls.cli.shell import Shell, domainArgument
from moxtls.cli.times import dayArgument
from moxtls.domain import Domain
from moxtls.reporting.values import StoredResult

COLUMNS = (
    "Day",
    "Recipient domain",
    "Policy domain",
    "Host",
    "Policy",
    "Success",
    "Failure",
    "Report",
    "Failure details",
)


def add(commands: Any) -> None:
    results = commands.add_parser(
        "results", help="how TLS went, of days that have not been reported"
    )
    results.add_argument("domain", nargs="?", type=domainArgument, metavar="DOMAIN")
    results.add_argument("--day", type=dayArgument, metavar="YYYY-MM-DD")
    results.add_argument("--json", action="store_true")
    results.set_defaults(run=_results)


async def _results(shell: Shell, arguments: argparse.Namespace) -> int:
    ledger = await shell.ledger()
    stored = await ledger.outcomes.results(day=arguments.day)
    rows = [
        row for each in stored if _about(each, arguments.domain) for row in _rows(each)
    ]
    shell.output.table(COLUMNS, rows, empty="No sessions have been recorded.")
    return 0


def _about(result: StoredResult, domain: Domain | None) -> bool:
    return domain in (None, result.policyDomain, result.recipientDomain)


def _rows(result: StoredResult) -> Iterator[tuple[object, ...]]:
    for tally in result.tallies:
        details = [
            f"{' '.join(filter(None, (each.resultType, each.reasonCode)))}: {count}"
            for each, count in sorted(tally.failures.items())
        ]
        yield (
            str(result.day),
            result.recipientDomain.unicode,
            result.policyDomain.unicode,
            result.isHost,
            str(tally.policy.type),
            tally.succeeded,
            tally.failed,
            result.sendReport,
            details,
        )
