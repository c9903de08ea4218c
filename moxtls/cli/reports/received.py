# -*- test-case-name: tests.cli.reports.test_received -*-
"""
C{moxtls report list}, C{show} and C{raw}: reports of other hosts.

In JSON, reports have the field names of the RFCs, whatever their format was; times are
those of RFC 3339.  docs/received.rst has the fields.
"""

from __future__ import annotations

import argparse
import zlib
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from moxtls.cli.output import AT_ONCE, paged, wrapped
from moxtls.cli.reports.documents import document
from moxtls.cli.shell import (
    STDIN,
    CommandError,
    Shell,
    addCommand,
    dayArgument,
    domainArgument,
)
from moxtls.dates import DAY, midnight, rfc3339
from moxtls.received.analysis.answers import dayOfNumber
from moxtls.received.analysis.describe import describeReport, reportVerdict
from moxtls.received.reading.documents import MAX_INPUT
from moxtls.received.reading.read import ReceivedReport, parseRaw, receivedReports
from moxtls.received.types import (
    ReceivedKind,
    ReportFilter,
    StoredReport,
    Unreadable,
)
from moxtls.tlsrpt.parse import MalformedReport, escapeUnprintable

if TYPE_CHECKING:
    from moxtls.received.interfaces import IReceivedReportStore

LIST = ("ID", "Kind", "Day", "Domains", "Reporter", "Total", "Failed", "State")
LIST_JSON = (
    "ID",
    "Kind",
    "Organization",
    "Contact",
    "Report ID",
    "Start",
    "End",
    "Domains",
    "Total",
    "Failed",
    "Channel",
    "Sender",
    "Authentication",
    "Received",
    "Refused",
    "Variant",
    "Format",
    "Size",
)
#: Numbers with as many digits may be too large for the ledger.
MAX_DIGITS = 19
#: Octets of a raw report that are decompressed at a time.
CHUNK = 64 * 1024

_GZIP = zlib.MAX_WBITS + 16


def addVerbs(verbs: Any) -> None:
    """
    Add the commands to those of C{moxtls report}.
    """
    listing = addCommand(verbs, "list", "list received reports, the latest first")
    listing.add_argument(
        "--kind",
        choices=[str(each) for each in ReceivedKind],
        help="only reports of this kind",
    )
    addFilters(listing, "only reports with failures")
    listing.add_argument(
        "--refused", action="store_true", help="only reports that were not accepted"
    )
    listing.add_argument(
        "--limit", type=_positive, metavar="N", help="at most N reports"
    )
    listing.set_defaults(run=_list)
    reading = addCommand(
        verbs,
        "show",
        "show received reports: stored ones, or files with JSON, XML, gzip, zip or "
        "whole messages",
    )
    reading.add_argument(
        "reports",
        nargs="+",
        metavar="ID|FILE",
        help="the number of a stored report, a file (./12 if its name is a number), "
        "or - for standard input",
    )
    reading.add_argument(
        "--all", action="store_true", help="show every row, not only what failed"
    )
    reading.set_defaults(run=_show)
    raw = addCommand(verbs, "raw", "print a stored report as it was received")
    raw.add_argument("id", type=_positive, metavar="ID", help="its number")
    raw.set_defaults(run=_raw)


def addFilters(verb: argparse.ArgumentParser, failures: str) -> None:
    """
    Add the arguments for L{reportFilter}.

    @param failures: The help text of C{--failures}.
    """
    verb.add_argument(
        "--domain",
        type=domainArgument,
        metavar="DOMAIN",
        help="only reports about this domain",
    )
    verb.add_argument(
        "--reporter",
        type=_text,
        default="",
        metavar="NAME",
        help="only reports of organizations with this in their name",
    )
    verb.add_argument(
        "--since", type=dayArgument, metavar="DAY", help="only from this day on"
    )
    verb.add_argument(
        "--until", type=dayArgument, metavar="DAY", help="only up to this day"
    )
    verb.add_argument("--failures", action="store_true", help=failures)


def _text(text: str) -> str:
    # Octets that are none in the terminal's encoding.
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected text")
    return text


def _positive(text: str) -> int:
    isNumber = text.isascii() and text.isdigit() and len(text) < MAX_DIGITS
    if not isNumber or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1")
    return int(text)


def reportFilter(
    arguments: argparse.Namespace, kind: str | None, refused: bool = False
) -> ReportFilter:
    """
    The conditions in the arguments of a command.
    """
    return ReportFilter(
        ReceivedKind(kind) if kind else None,
        arguments.domain.ascii if arguments.domain else "",
        arguments.reporter,
        _dayNumber(arguments.since),
        _dayNumber(arguments.until),
        arguments.failures,
        refused,
    )


def _dayNumber(day: date | None) -> int | None:
    return None if day is None else midnight(day) // DAY


async def reportStore(shell: Shell) -> IReceivedReportStore:
    """
    The store of received reports.
    """
    return (await shell.ledger()).received


# --- list -----------------------------------------------------------------------------


async def _list(shell: Shell, arguments: argparse.Namespace) -> int:
    store = await reportStore(shell)
    filter = reportFilter(arguments, arguments.kind, arguments.refused)
    isFiltered = filter != ReportFilter()
    listing = shell.output.listing(
        LIST_JSON if arguments.json else LIST,
        empty="No such reports."
        if isFiltered
        else 'No reports have been received; "moxtls summary DOMAIN" says what to '
        "expect.",
    )

    def load(
        last: StoredReport | None, most: int
    ) -> Deferred[tuple[StoredReport, ...]]:
        return store.reports(filter, most, last.number if last else None)

    left: int = arguments.limit or 2**63
    async for each in paged(load, min(left, AT_ONCE)):
        listing.add(_jsonRow(each) if arguments.json else _row(each))
        left -= 1
        if not left:
            break
    listing.end()
    return 0


def _row(report: StoredReport) -> tuple[object, ...]:
    middle = (report.start + report.end) // 2
    return (
        report.number,
        str(report.kind or "?"),
        str(dayOfNumber(middle // DAY)) if report.end else "",
        report.domains,
        report.organization or "(unnamed)",
        report.total,
        report.failed,
        _state(report),
    )


def _state(report: StoredReport) -> str:
    if report.refused:
        return f"refused: {report.refused}"
    return "differs from one before" if report.isVariant else ""


def _jsonRow(report: StoredReport) -> tuple[object, ...]:
    return (
        report.number,
        report.kind,
        report.organization,
        report.contact,
        report.reportID,
        _time(report.start) if report.end else None,
        _time(report.end) if report.end else None,
        report.domains,
        report.total,
        report.failed,
        report.origin.channel,
        report.origin.sender,
        report.origin.authentication,
        _time(report.origin.received),
        report.refused,
        report.isVariant,
        report.format,
        report.size,
    )


def _time(second: float) -> str:
    return rfc3339(max(0, min(second, midnight(date.max))))


# --- show -----------------------------------------------------------------------------


async def _show(shell: Shell, arguments: argparse.Namespace) -> int:
    """
    Show all that can be read.  Each error is one line; the status is 1 then.
    """
    documents: list[dict[str, object]] = []
    words: list[str] = arguments.reports
    failed, isFirst = False, True
    for word in words:
        try:
            async for name, about, report in _found(shell, word):
                if arguments.json:
                    documents.append(about | (document(report) if report else {}))
                    continue
                if not isFirst:
                    shell.output.line()
                isFirst = False
                lines = _described(about, report, arguments.all)
                for line in ([f"{name}:"] if len(words) > 1 else []) + lines:
                    _print(shell, line)
        except MalformedReports as errors:
            failed = True
            for each in errors.reasons:
                shell.output.stderr.write(f"moxtls: {escapeUnprintable(each)}\n")
    if arguments.json:
        shell.output.json(documents)
    return int(failed)


#: Name, description, and the report; C{None} if it isn't kept.
_Found = tuple[str, dict[str, object], ReceivedReport | None]


def _print(shell: Shell, line: str) -> None:
    """
    Print a line; on a terminal, in several if it is too long.
    """
    width, text = shell.output.width, line.lstrip(" ")
    indent = line[: len(line) - len(text)]
    isLong = len(line) > width
    for each in wrapped(text, width, indent, indent + "  ") if isLong else [line]:
        shell.output.line(each)


class MalformedReports(Exception):
    """
    Something in an input can't be shown.

    @ivar reasons: One line for each.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(*reasons)
        self.reasons = reasons


async def _found(shell: Shell, word: str) -> AsyncIterator[_Found]:
    """
    Iterate over the reports in an argument.

    @raise MalformedReports: At the end, if something couldn't be read.
    """
    if word.isascii() and word.isdigit():
        about, report = await _stored(shell, word)
        yield f"report {word}", about, report
        return
    reasons = []
    for found in _inFile(shell, word):
        if isinstance(found, Unreadable):
            reasons.append(": ".join(filter(None, (word, found.name, found.reason))))
        else:
            yield word, {"file": word}, found
    if reasons:
        raise MalformedReports(reasons)


def _inFile(shell: Shell, file: str) -> Iterator[ReceivedReport | Unreadable]:
    try:
        if file == STDIN:
            data = shell.stdin.read(MAX_INPUT + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_INPUT + 1)
        yield from receivedReports(data, "" if file == STDIN else Path(file).name)
    except OSError as error:
        yield Unreadable("", str(error.strerror))
    except ValueError as error:
        # A name that no file can have.
        yield Unreadable("", str(error))


async def _stored(
    shell: Shell, word: str
) -> tuple[dict[str, object], ReceivedReport | None]:
    store = await reportStore(shell)
    number = int(word) if len(word) < MAX_DIGITS else 0
    found = await store.get(number)
    if found is None:
        raise MalformedReports([f"there is no report {word}"])
    raw = await store.raw(number)
    try:
        report = None if raw is None else parseRaw(found.format, raw)
    except MalformedReport as error:
        raise MalformedReports([f"report {word}: {error}"]) from None
    keys = [each.lower().replace(" ", "_") for each in LIST_JSON]
    return dict(zip(keys, _jsonRow(found), strict=True)), report


def _described(
    about: dict[str, object], report: ReceivedReport | None, showAll: bool
) -> list[str]:
    lines = list(_arrival(about)) if "id" in about else []
    if report is None:
        return [*lines, "The report itself isn't kept."]
    return [reportVerdict(report), *lines, *describeReport(report, showAll, True)]


def _arrival(about: dict[str, object]) -> Iterator[str]:
    origin = f"by {about['channel']} from {about['sender']}"
    vouched = about["authentication"] or "not authenticated"
    yield f"Received {about['received']} {origin} ({vouched})"
    if about["refused"]:
        yield f"Refused, and not counted: {about['refused']}"
    if about["variant"]:
        yield "Differs from a report with the same id that came before"


# --- raw ------------------------------------------------------------------------------


async def _raw(shell: Shell, arguments: argparse.Namespace) -> int:
    store = await reportStore(shell)
    if await store.get(arguments.id) is None:
        raise CommandError(f"there is no report {arguments.id}")
    raw = await store.raw(arguments.id)
    if raw is None:
        raise CommandError(f"report {arguments.id} isn't kept")
    write = _rawWriter(shell)
    unpacker = zlib.decompressobj(_GZIP)
    while raw and not unpacker.eof:
        write(unpacker.decompress(raw, CHUNK))
        raw = unpacker.unconsumed_tail
    return 0


def _rawWriter(shell: Shell) -> Callable[[bytes], object]:
    """
    Writes octets as they are; to a terminal only what can't control it.
    """
    stdout = shell.output.stdout
    binary = getattr(stdout, "buffer", None)
    if binary is not None and not stdout.isatty():
        stdout.flush()
        write: Callable[[bytes], object] = binary.write
        return write

    decoder = getincrementaldecoder("utf-8")("backslashreplace")

    def escaped(data: bytes) -> None:
        text = decoder.decode(data).replace("\r\n", "\n")
        stdout.write("\n".join(map(escapeUnprintable, text.split("\n"))))

    return escaped
