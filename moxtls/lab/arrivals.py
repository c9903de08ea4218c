# -*- test-case-name: tests.lab.test_arrivals -*-
"""
The mail and the reports that arrive in the lab, and the differences between reports and
those expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from email import message_from_bytes
from email.parser import BytesHeaderParser
from email.utils import parseaddr, parsedate_to_datetime
from pathlib import Path

import dkim
from twisted.internet.defer import Deferred, succeed

from moxtls.dates import DAY, HOUR, Span, spanOfDay
from moxtls.dmarc.parse import ReceivedAggregateReport, ReceivedRecord
from moxtls.lab.expectations import (
    ExpectedAggregate,
    ExpectedAggregates,
    Policies,
    inOrder,
)
from moxtls.lab.scenario import HOST_REPORT_ADDRESS, REPORT_ADDRESS, SENDER
from moxtls.received.reading.read import readReport
from moxtls.tlsrpt.parse import MalformedReport, ReceivedTLSReport


@dataclass(frozen=True, slots=True)
class Arrival:
    """
    A message or report that arrived.

    @ivar recipient: An address, or the URI that was posted to.
    @ivar sender: The envelope sender; the client's address if it was posted.
    @ivar host: The host that accepted it.
    @ivar tls: Version and cipher suite; empty without TLS.
    @ivar contentType: If it was posted.
    """

    recipient: str
    sender: str
    host: str
    tls: str
    content: bytes
    contentType: str = ""


class Arrivals:
    """
    All arrivals, in their order.

    @param directory: Gets a folder for each recipient domain.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._all: list[Arrival] = []
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    @property
    def all(self) -> tuple[Arrival, ...]:
        return tuple(self._all)

    def at(self, domain: str) -> tuple[Arrival, ...]:
        """
        The arrivals for addresses in C{domain}.
        """
        return tuple(each for each in self._all if _domain(each.recipient) == domain)

    def add(self, arrival: Arrival, suffix: str = "eml") -> None:
        """
        Add an arrival.
        """
        self._all.append(arrival)
        folder = self._directory / _folder(arrival.recipient)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{len(self._all):04}.{suffix}"
        path.write_bytes(arrival.content)
        for entry in tuple(self._waiting):
            enough, waiting = entry
            if enough():
                self._waiting.remove(entry)
                waiting.callback(None)

    def until(self, enough: Callable[[], bool]) -> Deferred[None]:
        """
        @return: Fires once C{enough} is true; can be cancelled.
        """
        if enough():
            return succeed(None)

        def forget(cancelled: Deferred[None]) -> None:
            self._waiting.remove((enough, cancelled))

        waiting: Deferred[None] = Deferred(forget)
        self._waiting.append((enough, waiting))
        return waiting


def _domain(recipient: str) -> str:
    return recipient.rpartition("@")[2].lower()


def _folder(recipient: str) -> str:
    """
    A safe folder name for a recipient.
    """
    domain = recipient.partition("://")[2].partition("/")[0] or _domain(recipient)
    name = "".join(each for each in domain if each.isalnum() or each in "-.")
    return name.strip(".") or "unnamed"


# --- TLS reports ---

#: Signatures looked at in one message.
MAX_SIGNATURES = 10


@dataclass(frozen=True, slots=True)
class ArrivedReport:
    """
    A TLS report that arrived.

    @ivar domain: The policy domain it is for.
    @ivar signatures: By selector, whether each DKIM signature is valid; empty for a
        report that was posted.
    """

    domain: str
    report: ReceivedTLSReport
    arrival: Arrival
    signatures: Mapping[str, bool]


def isReport(arrival: Arrival) -> bool:
    """
    True if it arrived at an address for TLS reports.
    """
    posted = arrival.recipient.startswith("https:")
    return posted or arrival.recipient in (REPORT_ADDRESS, HOST_REPORT_ADDRESS)


def arrivedReport(
    arrival: Arrival, dkimRecords: Mapping[str, str]
) -> ArrivedReport | None:
    """
    @return: C{None} if it can't be read.
    """
    try:
        report = readReport(arrival.content)
    except MalformedReport:
        return None
    if not isinstance(report, ReceivedTLSReport):
        return None
    signatures: Mapping[str, bool] = {}
    if arrival.recipient.startswith("https:"):
        domain = arrival.recipient.rpartition("/")[2]
    else:
        header = BytesHeaderParser().parsebytes(arrival.content)
        domain = str(header["TLS-Report-Domain"])
        signatures = checkedSignatures(arrival.content, dkimRecords)
    return ArrivedReport(domain, report, arrival, signatures)


def checkedSignatures(message: bytes, records: Mapping[str, str]) -> dict[str, bool]:
    """
    Verify each DKIM signature; the results by selector.

    @param records: By selector, the contents of key records.
    """
    return dict(_dkimSignatures(message, records))


def _dkimSignatures(
    message: bytes, records: Mapping[str, str]
) -> Iterator[tuple[str, bool]]:
    def lookup(name: bytes, timeout: float = 0) -> bytes:
        return records.get(name.decode("ascii").partition(".")[0], "").encode("ascii")

    signed = dkim.DKIM(message, tlsrpt=True)
    names = [name.lower() for name, _ in signed.headers]
    for number in range(min(names.count(b"dkim-signature"), MAX_SIGNATURES)):
        try:
            holds = bool(signed.verify(number, lookup))
        except dkim.DKIMException:
            holds = False
        yield (signed.selector or b"?").decode("ascii", "replace"), holds


def differences(
    arrived: Sequence[ArrivedReport],
    expected: Mapping[str, Policies],
    day: date,
    selectors: Sequence[str],
) -> list[str]:
    """
    Differences from the expected report, one line each.

    @param selectors: Those that must have signed reports by mail.
    """
    counts = Counter(each.domain for each in arrived)
    found = [
        f"{domain}: {count} reports instead of one"
        for domain, count in sorted(counts.items())
        if count > 1
    ]
    found += [f"{domain}: no report" for domain in expected if domain not in counts]
    for each in arrived:
        if each.domain not in expected:
            found.append(f"{each.domain}: an unrequested report")
            continue
        found += _inHeading(each, day)
        found += _inSignatures(each, selectors)
        found += _inPolicies(each, expected[each.domain])
    return found


def _inHeading(arrived: ArrivedReport, day: date) -> Iterator[str]:
    span = spanOfDay(day)
    report = arrived.report
    expected = {
        "organization-name": (report.organization, SENDER),
        "contact-info": (report.contact, f"postmaster@{SENDER}"),
        "start-datetime": (report.start, span.start),
        "end-datetime": (report.end, span.last),
    }
    for name, (is_, should) in expected.items():
        if is_ != should:
            yield f"{arrived.domain}: {name} is {is_}, not {should}"


def _inSignatures(arrived: ArrivedReport, selectors: Sequence[str]) -> Iterator[str]:
    if arrived.arrival.recipient.startswith("https:"):
        return
    for selector in selectors:
        if not arrived.signatures.get(selector):
            yield f"{arrived.domain}: no valid DKIM signature by {selector}"


def _inPolicies(arrived: ArrivedReport, expected: Policies) -> Iterator[str]:
    policies = inOrder(arrived.report.policies)
    if len(policies) != len(expected):
        yield f"{arrived.domain}: {len(policies)} policies, not {len(expected)}"
        return
    for is_, should in zip(policies, expected, strict=True):
        for each in fields(should):
            value, wanted = getattr(is_, each.name), getattr(should, each.name)
            if value != wanted:
                yield (
                    f"{arrived.domain}: {should.type} {should.domain} {each.name}: "
                    f"{value}, not {wanted}"
                )


# --- aggregate reports ---

#: The local part of all addresses for them.
LOCAL_PART = "dmarc"


@dataclass(frozen=True, slots=True)
class ArrivedAggregate:
    """
    An aggregate report that arrived.

    @ivar signatures: By selector, whether each DKIM signature is valid.
    @ivar written: Its Date, in Unix seconds; 0 without one.
    @ivar subject: Of the message.
    @ivar author: The domain in From.
    @ivar filename: Of the attachment.
    """

    report: ReceivedAggregateReport
    recipient: str
    signatures: Mapping[str, bool]
    written: float
    subject: str
    author: str
    filename: str
    isEncrypted: bool

    @property
    def key(self) -> tuple[str, str]:
        """
        The key in L{ExpectedAggregates}.
        """
        return self.report.domain, self.recipient


def isAggregate(arrival: Arrival) -> bool:
    """
    True if it arrived at an address for aggregate reports.
    """
    return arrival.recipient.partition("@")[0] == LOCAL_PART


def arrivedAggregate(
    arrival: Arrival, dkimRecords: Mapping[str, str]
) -> ArrivedAggregate | None:
    """
    @return: C{None} if it can't be read.
    """
    try:
        report = readReport(arrival.content)
    except MalformedReport:
        return None
    if not isinstance(report, ReceivedAggregateReport):
        return None
    message = message_from_bytes(arrival.content)
    names = (part.get_filename() for part in message.walk())
    return ArrivedAggregate(
        report,
        arrival.recipient,
        checkedSignatures(arrival.content, dkimRecords),
        _written(message["Date"] or ""),
        " ".join((message["Subject"] or "").split()),
        parseaddr(message["From"] or "")[1].rpartition("@")[2],
        next(filter(None, names), ""),
        bool(arrival.tls),
    )


def aggregateDifferences(
    arrived: Sequence[ArrivedAggregate],
    owed: ExpectedAggregates,
    received: float,
    selectors: Sequence[str],
) -> list[str]:
    """
    Differences from the expected report, one line each.

    @param received: When the reported mail was received, in Unix seconds.
    @param selectors: Those that must have signed each report.
    """
    counts = Counter(each.key for each in arrived)
    found = [
        f"{domain}: {count} aggregate reports to {recipient} instead of one"
        for (domain, recipient), count in sorted(counts.items())
        if count > 1
    ]
    found += [
        f"{domain}: no aggregate report to {recipient}"
        for domain, recipient in owed
        if (domain, recipient) not in counts
    ]
    for each in arrived:
        domain, _ = each.key
        expected = owed.get(each.key)
        if expected is None:
            found.append(
                f"{domain}: an aggregate report to {each.recipient}, "
                "which it is not owed"
            )
            continue
        about = f"{domain}: aggregate report"
        wrong = (
            *_inAggregateMetadata(each, expected),
            *_inPeriod(each, spanOf(expected.hours, received)),
            *_inMessage(each, selectors),
            *_inRecords(each.report.records, expected.records),
        )
        found += [f"{about}: {line}" for line in wrong]
    return found


def spanOf(hours: int, moment: float) -> Span:
    """
    The interval of C{hours}, counted from midnight, that C{moment} is in.
    """
    length = hours * HOUR
    start = int(moment) // length * length
    return Span(start, start + length)


def _written(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0


def _inPeriod(arrived: ArrivedAggregate, due: Span) -> Iterator[str]:
    """
    RFC 9990 3.1.1.4: the reporting period.  A report that couldn't be made when
    it was due is made an interval or more later, and about all of them; but it is
    never about more than a day (RFC 9990 3.1: daily, or more frequent), nor about
    an interval that isn't over.

    @param due: The interval in which the mail came in.
    """
    start, last = arrived.report.start, arrived.report.end
    if start != due.start:
        yield f"begin is {start}, not {due.start}"
    interval = due.end - due.start
    seconds = last + 1 - due.start
    if seconds % interval or not interval <= seconds <= max(interval, DAY):
        yield f"end is {last}, not {due.last} or whole intervals later"
    elif last > arrived.written:
        yield f"end is {last}, after it was written at {arrived.written:.0f}"


def _inAggregateMetadata(
    arrived: ArrivedAggregate, expected: ExpectedAggregate
) -> Iterator[str]:
    report = arrived.report
    values: dict[str, tuple[object, object]] = {
        "org_name": (report.organization, SENDER),
        "email": (report.email, f"postmaster@{SENDER}"),
        "error": ("; ".join(report.errors), "; ".join(expected.errors)),
        "generator": (report.generator.partition("/")[0], "moxtls"),
        "policy_published": (sorted(report.published), sorted(expected.published)),
    }
    yield from _unequal(values)


def _inMessage(arrived: ArrivedAggregate, selectors: Sequence[str]) -> Iterator[str]:
    """
    RFC 9990 3.5.2.
    """
    report = arrived.report
    subject = (
        f"Report Domain: {report.domain} Submitter: {SENDER} "
        f"Report-ID: <{report.reportID}>"
    )
    # RFC 9990 3.1.4: the same identifier everywhere.
    period = f"{report.start}!{report.end}"
    filename = f"{SENDER}!{report.domain}!{period}!{report.reportID}.xml.gz"
    yield from _unequal(
        {
            "Subject": (arrived.subject, subject),
            "From": (arrived.author, SENDER),
            "filename": (arrived.filename, filename),
            "TLS": (arrived.isEncrypted, True),
        }
    )
    for selector in selectors:
        if not arrived.signatures.get(selector):
            yield f"no valid DKIM signature by {selector}"


def _inRecords(
    arrived: Sequence[ReceivedRecord], expected: Sequence[ReceivedRecord]
) -> Iterator[str]:
    """
    Compare records by source and domain.
    """
    left = {_identity(each): each for each in arrived}
    if len(left) != len(arrived) or len(arrived) != len(expected):
        yield f"{len(arrived)} records, not {len(expected)}"
    for should in expected:
        is_ = left.pop(_identity(should), None)
        name = " ".join(_identity(should))
        if is_ is None:
            yield f"no record of {name}"
            continue
        values = {
            f"{name}: {each}": (getattr(is_, each), getattr(should, each))
            for each in should._fields
        }
        yield from _unequal(values)
    for key in left:
        yield f"a record of {' '.join(key)}, which isn't expected"


def _identity(record: ReceivedRecord) -> tuple[str, ...]:
    return record.sourceIP, record.headerFrom, record.envelopeFrom


def _unequal(values: Mapping[str, tuple[object, object]]) -> Iterator[str]:
    for name, (is_, should) in values.items():
        if is_ != should:
            yield f"{name} is {is_}, not {should}"
