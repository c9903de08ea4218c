# -*- test-case-name: tests.cli.reports.test_received -*-
"""
C{moxtls report export}: the rows of stored reports.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from moxtls.cli.output import paged
from moxtls.cli.reports.received import addFilters, reportFilter, reportStore
from moxtls.cli.shell import Shell, addCommand
from moxtls.received.analysis.answers import dayOfNumber
from moxtls.received.types import RowOutcome, StoredDMARCRow, TLSRow
from moxtls.tlsrpt.parse import escapeUnprintable

TLS_COLUMNS = (
    "report",
    "organization",
    "day",
    "policy_domain",
    "policy_type",
    "succeeded",
    "failed",
    "result_type",
    "reason_code",
    "sending_ip",
    "mx_host",
    "receiving_ip",
    "sessions",
)
DMARC_COLUMNS = (
    "report",
    "organization",
    "day",
    "domain",
    "source_ip",
    "messages",
    "passed",
    "disposition",
    "dkim_aligned",
    "spf_aligned",
    "header_from",
    "envelope_from",
    "envelope_to",
    "dkim",
    "spf",
    "reasons",
)

# Spreadsheets take a text that begins with one of these for a formula; some also those
# of full width.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def add(verbs: Any) -> None:
    """
    Add the command to those of C{moxtls report}.
    """
    export = addCommand(
        verbs, "export", "print the rows of reports as CSV, or one JSON object a line"
    )
    export.add_argument("kind", choices=("tls", "dmarc"), help="the kind of reports")
    addFilters(export, "only rows that failed")
    export.set_defaults(run=_export)


async def _export(shell: Shell, arguments: argparse.Namespace) -> int:
    store, filter = await reportStore(shell), reportFilter(arguments, arguments.kind)
    isTLS = arguments.kind == "tls"
    write = _rowWriter(shell, TLS_COLUMNS if isTLS else DMARC_COLUMNS)

    def tlsRows(last: TLSRow | None, most: int) -> Deferred[tuple[TLSRow, ...]]:
        return store.tlsRows(filter, most, last)

    def dmarcRows(
        last: StoredDMARCRow | None, most: int
    ) -> Deferred[tuple[StoredDMARCRow, ...]]:
        return store.dmarcRows(filter, most, last)

    if isTLS:
        async for each in paged(tlsRows):
            for row in tlsExport(each, filter.onlyFailures):
                write(row)
    else:
        async for one in paged(dmarcRows):
            write(dmarcExport(one))
    return 0


def _rowWriter(
    shell: Shell, columns: Sequence[str]
) -> Callable[[Sequence[object]], None]:
    stdout = shell.output.stdout
    if shell.output.asJSON:

        def writeJSON(row: Sequence[object]) -> None:
            stdout.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")

        return writeJSON
    writer = csv.writer(stdout)
    writer.writerow(columns)
    return lambda row: writer.writerow(map(csvCell, row))


def csvCell(value: object) -> str:
    """
    A cell that no spreadsheet takes for a formula, nor a terminal for a command.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, list | tuple):
        text = "; ".join(" ".join(filter(None, map(str, each))) for each in value)
    isFormula = text.lstrip(" ").startswith(_FORMULA)
    return escapeUnprintable(f"'{text}" if isFormula else text)


def tlsExport(row: TLSRow, onlyFailures: bool) -> Iterator[tuple[object, ...]]:
    """
    The rows for a policy: one with the counts of the policy, and one for each of its
    failure details.

    @param onlyFailures: Leave out the first if there are no failures.
    """
    policy = row.policy
    start = (
        row.report,
        row.organization,
        str(dayOfNumber(row.day)),
        policy.domain,
        policy.type,
    )
    if policy.failed or not onlyFailures:
        yield (*start, policy.succeeded, policy.failed, *(None,) * 6)
    for each in policy.failures:
        yield (
            *start,
            None,
            None,
            each.resultType,
            each.reasonCode,
            each.sendingIP,
            each.mxHostname,
            each.receivingIP,
            each.count,
        )


def dmarcExport(row: StoredDMARCRow) -> tuple[object, ...]:
    """
    The row for a stored one.
    """
    detail = json.loads(row.detail) if row.detail else {}
    outcome = RowOutcome(row.outcome)
    return (
        row.report,
        row.organization,
        str(dayOfNumber(row.day)),
        row.domain,
        row.source,
        row.messages,
        outcome.passed,
        outcome.disposition,
        bool(outcome & RowOutcome.DKIM),
        bool(outcome & RowOutcome.SPF),
        detail.get("header_from", ""),
        detail.get("envelope_from", ""),
        detail.get("envelope_to", ""),
        detail.get("dkim", []),
        detail.get("spf", []),
        detail.get("reasons", []),
    )
