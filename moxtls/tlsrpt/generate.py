# -*- test-case-name: tests.tlsrpt.test_generate -*-
"""
Composes TLS reports in the format of RFC 8460 4.4, checks and compresses them.
No I/O.

The check is as strict as the strictest reader known: some parse addresses, domains
and date-times, and reject the whole report for one invalid member.  No member is
empty; unknown values are omitted.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import nlargest
from json import JSONEncoder

from moxtls.dates import Span, rfc3339
from moxtls.domain import Address, Domain, InvalidAddress, InvalidDomain
from moxtls.ipaddresses import ipOrEmpty
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    TLSPolicy,
)

#: Limits of one report.  A host of very many domains, or a day of failures with very
#: many addresses, would make it too large for any receiver; the limit frequent
#: entries are kept, and the summary counts all.
MAX_POLICIES = 50_000
MAX_FAILURES = 100_000
#: Octets before compression; receivers limit what they unpack.
MAX_REPORT = 100 * 1024 * 1024

_CHUNK = 64 * 1024
# A gzip container (RFC 1952); zlib sets its modification time to zero, so that equal
# reports are equal octets.
_GZIP = zlib.MAX_WBITS + 16

JSON = dict[str, "JSON"] | list["JSON"] | str | int


class ReportTooLarge(Exception):
    """
    A report is larger than L{MAX_REPORT}.
    """


@dataclass(frozen=True, slots=True)
class TLSReportMetadata:
    """
    The metadata of a report.

    @ivar submitter: The reporting organization.
    """

    submitter: Domain
    reportID: str
    span: Span

    @property
    def contact(self) -> str:
        return f"postmaster@{self.submitter}"


def composeReport(
    metadata: TLSReportMetadata, tallies: Sequence[PolicyTally]
) -> dict[str, JSON]:
    """
    Make the report as a JSON object, with members in the order of RFC 8460.
    """
    return {
        "organization-name": str(metadata.submitter),
        "date-range": {
            "start-datetime": rfc3339(metadata.span.start),
            "end-datetime": rfc3339(metadata.span.last),
        },
        "contact-info": metadata.contact,
        "report-id": metadata.reportID,
        "policies": [_tally(tally) for tally in trim(tallies)],
    }


def compress(report: dict[str, JSON]) -> bytes:
    """
    Encode a report as gzip, a chunk at a time to save memory.

    @raise ReportTooLarge: The JSON is larger than L{MAX_REPORT}.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    pieces = []
    size = 0
    for chunk in _rendered(report):
        size += len(chunk)
        if size > MAX_REPORT:
            raise ReportTooLarge(f"more than {MAX_REPORT} bytes")
        pieces.append(packer.compress(chunk))
    pieces.append(packer.flush())
    return b"".join(pieces)


def trim(tallies: Sequence[PolicyTally]) -> list[PolicyTally]:
    """
    C{tallies} within L{MAX_POLICIES} and L{MAX_FAILURES}, the limit frequent ones.
    """
    kept = list(tallies)
    if len(kept) > MAX_POLICIES:
        kept = nlargest(MAX_POLICIES, kept, key=_weight)
    if sum(len(tally.failures) for tally in kept) <= MAX_FAILURES:
        return kept
    share = max(1, MAX_FAILURES // len(kept))
    return [_trimmed(tally, share) for tally in kept]


def _weight(tally: PolicyTally) -> tuple[int, int]:
    return tally.failed, tally.succeeded


def _trimmed(tally: PolicyTally, limit: int) -> PolicyTally:
    if len(tally.failures) <= limit:
        return tally
    return replace(tally, failures=Counter(dict(tally.failures.most_common(limit))))


def _rendered(report: dict[str, JSON]) -> Iterator[bytes]:
    pieces: list[str] = []
    size = 0
    for piece in JSONEncoder(indent="\t").iterencode(report):
        pieces.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield "".join(pieces).encode("ascii")
            pieces, size = [], 0
    yield "".join([*pieces, "\n"]).encode("ascii")


def _tally(tally: PolicyTally) -> JSON:
    return _filled(
        {
            "policy": _policy(tally.policy),
            "summary": {
                "total-successful-session-count": tally.succeeded,
                "total-failure-session-count": tally.failed,
            },
            "failure-details": [
                _failure(failure, count) for failure, count in tally.failures.items()
            ],
        }
    )


def _policy(policy: TLSPolicy) -> JSON:
    # Reading of RFC 8460 4.4: mx-host is an array of patterns, as in the RFC
    # as published; drafts and some senders have a single string.
    return _filled(
        {
            "policy-type": str(policy.type),
            "policy-string": [_wellFormed(each) for each in policy.strings],
            "policy-domain": str(policy.domain),
            "mx-host": [_wellFormed(each) for each in policy.mxHosts],
        }
    )


def _failure(failure: FailureDetail, count: int) -> JSON:
    return _filled(
        {
            "result-type": str(failure.resultType),
            "sending-mta-ip": ipOrEmpty(failure.sendingIP),
            "receiving-mx-hostname": failure.mxHostname,
            "receiving-mx-helo": _wellFormed(failure.mxHELO),
            "receiving-ip": ipOrEmpty(failure.receivingIP),
            "failed-session-count": count,
            "additional-information": _wellFormed(failure.additional),
            "failure-reason-code": _wellFormed(failure.reasonCode),
        }
    )


def _filled(members: dict[str, JSON]) -> dict[str, JSON]:
    """
    C{members} without those that are empty.

    Reading of RFC 8460 4.4: unknown and inapplicable values are omitted, as large
    senders do; an empty string is not an IP address, and readers that parse it
    reject the whole report.
    """
    return {name: value for name, value in members.items() if value not in ("", [])}


def _wellFormed(text: str) -> str:
    # RFC 7493 2.1: no surrogates, which stand for octets of the peer that were not
    # UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


#: The first faults of a report suffice to find the bug.
MAX_FAULTS = 20

# RFC 3339 5.6
_DATE_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)\Z"
)
# RFC 6698 2.2, RFC 8460 4.5
_TLSA = re.compile(r"\d{1,3} \d{1,3} \d{1,3} (?:[0-9A-Fa-f]{2})+\Z")
# RFC 3986 3, 2: a scheme, and characters that a URI may have.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#-;=?-\[\]_a-z~]+\Z")
_MAX_INTEGER = 2**53 - 1  # RFC 7493 2.2

_Faults = Iterator[str]
_Check = Callable[[object, str], _Faults]


def findFaults(report: object) -> tuple[str, ...]:
    """
    Check a report against RFC 8460 4.4.

    @param report: The decoded JSON.

    @return: At limit L{MAX_FAULTS} faults, each with the member it is in; empty if the
        report is valid.
    """
    faults = []
    for fault in _report(report, "report"):
        faults.append(fault)
        if len(faults) == MAX_FAULTS:
            break
    return tuple(faults)


def _report(value: object, where: str) -> _Faults:
    yield from _members(
        value,
        where,
        {
            "organization-name": _words,
            "date-range": _dateRange,
            "contact-info": _address,
            "report-id": _words,
            "policies": _list(_checkTally),
        },
    )
    yield from _repeated(value)


def _repeated(report: object) -> _Faults:
    """
    RFC 8460 4.4: each policy that was applied has one entry.
    """
    entries = report.get("policies") if isinstance(report, dict) else None
    seen = set()
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        policy = entry.get("policy") if isinstance(entry, dict) else None
        key = repr(policy)
        if policy is not None and key in seen:
            yield f"report.policies[{number}].policy occurs in an earlier entry"
        seen.add(key)


def _dateRange(value: object, where: str) -> _Faults:
    bounds: dict[str, _Check] = {
        "start-datetime": _dateTime,
        "end-datetime": _dateTime,
    }
    faults = list(_members(value, where, bounds))
    yield from faults
    if not faults and isinstance(value, dict):
        start, end = (datetime.fromisoformat(value[name]) for name in bounds)
        if start > end:
            yield f"{where} ends before it starts"


def _checkTally(value: object, where: str) -> _Faults:
    yield from _members(
        value,
        where,
        {
            "policy": _checkPolicy,
            "summary": _summary,
            "failure-details": _list(_checkFailure),
        },
        optional=("failure-details",),
    )


def _checkPolicy(value: object, where: str) -> _Faults:
    types = {str(each) for each in PolicyType}
    yield from _members(
        value,
        where,
        {
            "policy-type": _oneOf(types),
            "policy-string": _list(_words),
            "policy-domain": _domain,
            "mx-host": _list(_pattern),
        },
        optional=("policy-string", "mx-host"),
    )
    if isinstance(value, dict) and value.get("policy-type") == PolicyType.TLSA:
        strings = value.get("policy-string")
        for each in strings if isinstance(strings, list) else ():
            if not isinstance(each, str) or not _TLSA.match(each):
                yield f"{where}.policy-string has {each!r:.80}, not a TLSA record"


def _summary(value: object, where: str) -> _Faults:
    yield from _members(
        value,
        where,
        {
            "total-successful-session-count": _count,
            "total-failure-session-count": _count,
        },
    )


def _checkFailure(value: object, where: str) -> _Faults:
    types = {str(each) for each in ResultType}
    yield from _members(
        value,
        where,
        {
            "result-type": _oneOf(types),
            "sending-mta-ip": _ip,
            "receiving-mx-hostname": _domain,
            "receiving-mx-helo": _words,
            "receiving-ip": _ip,
            "failed-session-count": _count,
            "additional-information": _uri,
            "failure-reason-code": _words,
        },
        optional=(
            "sending-mta-ip",
            "receiving-mx-hostname",
            "receiving-mx-helo",
            "receiving-ip",
            "additional-information",
            "failure-reason-code",
        ),
    )


def _members(
    value: object,
    where: str,
    members: dict[str, _Check],
    optional: Collection[str] = (),
) -> _Faults:
    if not isinstance(value, dict):
        yield f"{where} is not an object"
        return
    for name, checkMember in members.items():
        if name in value:
            yield from checkMember(value[name], f"{where}.{name}")
        elif name not in optional:
            yield f"{where}.{name} is missing"
    for name in value:
        if name not in members:
            yield f"{where} has an unknown member {name!r:.80}"


def _list(checkItem: _Check) -> _Check:
    def checkList(value: object, where: str) -> _Faults:
        if not isinstance(value, list):
            yield f"{where} is not an array"
            return
        if not value:
            yield f"{where} is empty"
        for number, item in enumerate(value):
            yield from checkItem(item, f"{where}[{number}]")

    return checkList


def _oneOf(words: Collection[str]) -> _Check:
    def checkWord(value: object, where: str) -> _Faults:
        if value not in words:
            yield f"{where} is {value!r:.80}, which is not a registered value"

    return checkWord


def _text(value: object, where: str) -> _Faults:
    if not isinstance(value, str):
        yield f"{where} is not a string"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        yield f"{where} is not Unicode text"


def _words(value: object, where: str) -> _Faults:
    yield from _text(value, where)
    if value == "":
        yield f"{where} is empty"


def _count(value: object, where: str) -> _Faults:
    if not isinstance(value, int) or isinstance(value, bool):
        yield f"{where} is not an integer"
    elif not 0 <= value <= _MAX_INTEGER:
        yield f"{where} is out of range"


def _dateTime(value: object, where: str) -> _Faults:
    try:
        isValid = isinstance(value, str) and bool(_DATE_TIME.match(value))
        if isValid:
            datetime.fromisoformat(str(value))
    except ValueError:
        isValid = False
    if not isValid:
        yield f"{where} is not a date-time of RFC 3339"


def _address(value: object, where: str) -> _Faults:
    try:
        isValid = isinstance(value, str) and bool(Address.parse(value))
    except InvalidAddress:
        isValid = False
    if not isValid:
        yield f"{where} is not a mail address"


def _domain(value: object, where: str) -> _Faults:
    # RFC 8460 4.4: A-labels.
    try:
        isValid = isinstance(value, str) and Domain.parse(value).ascii == value
    except InvalidDomain:
        isValid = False
    if not isValid:
        yield f"{where} is not a domain in A-labels"


def _pattern(value: object, where: str) -> _Faults:
    # RFC 8460 4.4, RFC 6125 6.4.3: a host name, or a wildcard and a domain.
    yield from _domain(
        value.removeprefix("*.") if isinstance(value, str) else value, where
    )


def _uri(value: object, where: str) -> _Faults:
    if not isinstance(value, str) or not _URI.match(value):
        yield f"{where} is not a URI"


def _ip(value: object, where: str) -> _Faults:
    if not isinstance(value, str) or not value or ipOrEmpty(value) != value:
        yield f"{where} is not an IP address in canonical form"
