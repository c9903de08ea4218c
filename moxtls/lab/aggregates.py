# -*- test-case-name: tests.lab.test_aggregates -*-
"""
The aggregate reports that arrived in the lab, and whether they say what they
should.  No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from email import message_from_bytes
from email.utils import parseaddr, parsedate_to_datetime

from moxtls.calendar import DAY, HOUR, Span
from moxtls.dmarc.received import ReceivedAggregate, ReceivedRecord
from moxtls.incoming.dispatch import readReport
from moxtls.lab.arrivals import Arrival
from moxtls.lab.conditions import SENDER
from moxtls.lab.owed import Owed, OwedReport
from moxtls.lab.reports import checkedSignatures
from moxtls.tlsrpt.received import MalformedReport

#: The local part of all addresses for them.
LOCAL_PART = "dmarc"


@dataclass(frozen=True, slots=True)
class ArrivedAggregate:
    """
    @ivar signatures: By selector, whether each DKIM signature holds.
    @ivar written: When, as its Date says, in Unix seconds; 0 if it doesn't.
    @ivar subject: Of the message.
    @ivar author: The domain in From.
    @ivar filename: Of the attachment.
    """

    report: ReceivedAggregate
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
        As in L{Owed}.
        """
        return self.report.domain, self.recipient


def isAggregate(arrival: Arrival) -> bool:
    """
    Whether it came to an address for such reports.
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
    if not isinstance(report, ReceivedAggregate):
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
    owed: Owed,
    received: float,
    selectors: Sequence[str],
) -> list[str]:
    """
    What isn't as it should be, a line each.

    @param received: When the mail came in that they are about, in Unix seconds.
    @param selectors: Those that have to have signed each.
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
            *_inHeading(each, expected),
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


def _inHeading(arrived: ArrivedAggregate, expected: OwedReport) -> Iterator[str]:
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
    Records are told apart by who sent what in whose name.
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
            f"{name}: {each.name}": (
                getattr(is_, each.name),
                getattr(should, each.name),
            )
            for each in fields(should)
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
