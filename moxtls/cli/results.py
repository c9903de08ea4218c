# -*- test-case-name: tests.cli.test_results -*-
"""
C{moxtls results}: TLS results that have not been reported.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Any

from moxtls.cli.output import paged
from moxtls.cli.shell import Shell, addCommand, dayArgument, domainArgument
from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeStore
from moxtls.tlsrpt.types import StoredResult

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
    results = addCommand(commands, "results", "TLS results that have not been reported")
    results.add_argument(
        "domain",
        nargs="?",
        type=domainArgument,
        metavar="DOMAIN",
        help="a recipient domain or an MX host (default: all)",
    )
    results.add_argument(
        "--day", type=dayArgument, metavar="YYYY-MM-DD", help="only this day in UTC"
    )
    results.set_defaults(run=_results)


async def _results(shell: Shell, arguments: argparse.Namespace) -> int:
    store = (await shell.ledger()).outcomes
    listing = shell.output.listing(COLUMNS, empty="No sessions have been recorded.")
    async for each in _found(store, arguments.day, arguments.domain):
        for row in _rows(each):
            listing.add(row)
    listing.end()
    return 0


async def _found(
    store: IOutcomeStore, day: date | None, domain: Domain | None
) -> AsyncIterator[StoredResult]:
    """
    The results of mail for C{domain}, then those of C{domain} as an MX host of other
    domains.
    """
    async for each in paged(
        lambda last, most: store.results(day, None, domain, last, most)
    ):
        yield each
    if domain is None:
        return
    async for each in paged(
        lambda last, most: store.results(day, domain, None, last, most)
    ):
        if each.recipientDomain != domain:
            yield each


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
