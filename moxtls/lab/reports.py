# -*- test-case-name: tests.lab.test_reports -*-
"""
The reports that arrived in the lab, and whether they say what they should.
No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from email.parser import BytesHeaderParser

import dkim

from moxtls.calendar import spanOfDay
from moxtls.lab.arrivals import Arrival
from moxtls.lab.conditions import HOST_REPORT_ADDRESS, REPORT_ADDRESS, SENDER
from moxtls.lab.expected import Policies, inOrder
from moxtls.tlsrpt.received import MalformedReport, ReceivedReport, readReport

#: Signatures looked at in one message.
MAX_SIGNATURES = 10


@dataclass(frozen=True, slots=True)
class ArrivedReport:
    """
    @ivar domain: The policy domain it is for.
    @ivar signatures: By selector, whether each DKIM signature holds; nothing
        for a report that was posted.
    """

    domain: str
    report: ReceivedReport
    arrival: Arrival
    signatures: Mapping[str, bool]


def isReport(arrival: Arrival) -> bool:
    """
    Whether it came to a place for reports.
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
    By selector, whether each DKIM signature holds.

    @param records: By selector, the contents of key records.
    """
    return dict(_signatures(message, records))


def _signatures(
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
    What isn't as it should be, a line each.

    @param selectors: Those that have to have signed what came by mail.
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
            found.append(f"{each.domain}: a report that nobody asked for")
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
