# -*- test-case-name: tests.received.reading.test_read -*-
"""
Canonical names, addresses and rows of parsed reports, and redacted failure reports.  No
I/O.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC
from email.utils import parseaddr, parsedate_to_datetime
from functools import lru_cache
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import NoReturn

from moxtls.dates import DAY
from moxtls.dmarc.parse import (
    MAX_COUNT,
    FeedbackReport,
    ReceivedAggregateReport,
    ReceivedRecord,
    ReceivedSignature,
    ReceivedSPF,
    readFeedbackReport,
)
from moxtls.dmarc.redaction import Redaction, redactedFields
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain, InvalidDomain
from moxtls.ipaddresses import parseIP
from moxtls.message.header import headerFields
from moxtls.message.mime import leafParts, splitEntity
from moxtls.received.types import (
    DMARCRow,
    Fields,
    ParsedReport,
    RawFormat,
    ReceivedKind,
    RowBlock,
    rowOutcome,
)
from moxtls.tlsrpt.parse import (
    MalformedReport,
    ReceivedFailure,
    ReceivedPolicy,
    ReceivedTLSReport,
    escapeUnprintable,
)

#: Rows in a block, and characters of their details.
MAX_ROWS = 1000
MAX_DETAILS = 1024 * 1024
#: Octets of all blocks and of the report in gzip, for one input.
MAX_STORED = 32 * 1024 * 1024
#: The longest period, in seconds: a year.
MAX_PERIOD = 366 * DAY
#: 1971-01-01 and 2100-01-01.  The example in RFC 9990 appendix B is of 1979.
FIRST_SECOND = 31536000
LAST_SECOND = 4102444800

#: Characters of a text that has no other limit.
MAX_TEXT = 300
_MAX_ADDRESS = 64
# Characters of a text that is no domain.
_MAX_SHOWN = 80
_DIGEST = 16
# Canonical addresses (RFC 5952 4), most of all: ipaddress takes several times as long.
# Behind "::" it takes at most six groups that one group can't stand for.
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}\Z")
_GROUP = "[1-9a-f][0-9a-f]{0,3}"
_IPV6 = re.compile(
    rf"({_GROUP}:{_GROUP}:{_GROUP}):"
    rf"(?:((?:{_GROUP}:){{4}}{_GROUP})|(?:{_GROUP}:){{0,3}}:(?:{_GROUP}:){{0,2}}{_GROUP})\Z"
)
_MAX_COLONS = 6


def _refuse(where: str, reason: str) -> NoReturn:
    raise MalformedReport(escapeUnprintable(f"{where}: {reason}"))


# --- common --------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def canonicalName(text: str) -> str:
    """
    A domain name in A-labels and lower case; shortened, if it isn't one.
    """
    name = text.lower().removesuffix(".")
    if not name.isascii():
        with suppress(InvalidDomain):
            name = Domain.parse(name).ascii
    return name[:MAX_DOMAIN_LENGTH]


def policyDomain(text: str, where: str) -> str:
    """
    @raise MalformedReport: It is no domain.
    """
    try:
        return Domain.parse(text).ascii
    except InvalidDomain:
        _refuse(where, f"{text[:_MAX_SHOWN]!r} is not a domain")


def checkPeriod(start: int, end: int) -> None:
    """
    @raise MalformedReport: The period is impossible.
    """
    if end < start:
        _refuse("period", "it ends before it begins")
    if start < FIRST_SECOND or end > LAST_SECOND or end - start > MAX_PERIOD:
        _refuse("period", f"{start} to {end} isn't plausible")


def _checkTotal(total: int) -> None:
    if total > MAX_COUNT:
        _refuse("report", f"more than {MAX_COUNT} in total")


def _digest(*values: object) -> bytes:
    return blake2b(repr(values).encode("utf-8"), digest_size=_DIGEST).digest()


# --- TLS reports ---------------------------------------------------------------------


def parsedTLS(report: ReceivedTLSReport, raw: bytes, hint: str) -> ParsedReport:
    """
    @param hint: As L{ParsedReport.domainHint}; ignored if it is no domain.

    @raise MalformedReport: It can't be stored.
    """
    checkPeriod(report.start, report.end)
    policies = tuple(map(_policy, report.policies))
    failed = sum(each.failed for each in policies)
    total = failed + sum(each.succeeded for each in policies)
    _checkTotal(total)
    try:
        hint = Domain.parse(hint).ascii
    except InvalidDomain:
        hint = ""
    return ParsedReport(
        kind=ReceivedKind.TLS,
        organization=report.organization,
        contact=report.contact,
        reportID=report.reportID,
        start=report.start,
        end=report.end,
        content=_digest("tls", *_identity(report), policies),
        raw=raw,
        format=RawFormat.JSON,
        total=total,
        failed=failed,
        domainHint=hint,
        policies=policies,
    )


def _identity(
    report: ReceivedTLSReport | ReceivedAggregateReport,
) -> tuple[object, ...]:
    return (report.organization, report.reportID, report.start, report.end)


def _policy(policy: ReceivedPolicy) -> ReceivedPolicy:
    domain = policy.domain
    if domain:
        try:
            domain = Domain.parse(domain).ascii
        except InvalidDomain:
            # The other policies count.  In quotes it is no domain in any case.
            domain = repr(domain[:_MAX_SHOWN])
    return replace(
        policy,
        type=policy.type.lower(),
        domain=domain,
        failures=tuple(map(_failure, policy.failures)),
    )


def _failure(failure: ReceivedFailure) -> ReceivedFailure:
    return replace(
        failure,
        resultType=failure.resultType.lower(),
        sendingIP=canonicalAddress(failure.sendingIP)[0],
        receivingIP=canonicalAddress(failure.receivingIP)[0],
        mxHostname=canonicalName(failure.mxHostname),
    )


# --- DMARC aggregate reports ---------------------------------------------------------

_Results = tuple[
    str, str, str, tuple[ReceivedSignature, ...], tuple[ReceivedSPF, ...], object
]


@lru_cache(maxsize=4096)
def canonicalAddress(text: str) -> tuple[str, str]:
    """
    The canonical form of an IP address, and its network, /24 or /48; twice the text,
    shortened, if it is no IP address.
    """
    if _IPV4.match(text):
        return text, text.rpartition(".")[0] + ".0/24"
    found = _IPV6.match(text)
    if found is not None and (found[2] or text.count(":") <= _MAX_COLONS):
        return text, f"{found[1]}::/48"
    ip = parseIP(text[:_MAX_ADDRESS])
    if ip is None:
        return text[:_MAX_ADDRESS], text[:_MAX_ADDRESS]
    if ip.version == 4:
        return str(ip), str(ip).rpartition(".")[0] + ".0/24"
    network = type(ip)(int(ip) >> 80 << 80)
    return str(ip), f"{network}/48"


@lru_cache(maxsize=256)
def _outcome(disposition: str, dkim: str, spf: str) -> tuple[int, bool]:
    outcome = rowOutcome(disposition, dkim, spf)
    return int(outcome), outcome.passed


class RowCollector:
    """
    Collects the rows of an aggregate report in blocks; equal ones are merged within a
    block.
    """

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.total = 0
        self.failed = 0
        self._content = blake2b(digest_size=_DIGEST)
        self._results: dict[_Results, tuple[bytes, str]] = {}
        self._details: dict[bytes, str] = {}
        self._size = 0
        self._rows: dict[tuple[str, str, str, int, bytes], int] = {}

    def take(self, record: ReceivedRecord) -> None:
        """
        Add a row.
        """
        results = (
            record.headerFrom,
            record.envelopeFrom,
            record.envelopeTo,
            record.dkim,
            record.spf,
            record.reasons,
        )
        known = self._results.get(results)
        if known is None:
            known = self._results[results] = self._add(record)
        digest, authenticated = known
        source, network = canonicalAddress(record.sourceIP)
        outcome, passed = _outcome(
            record.disposition, record.dkimAligned, record.spfAligned
        )
        row = (source, network, authenticated, outcome, digest)
        self._rows[row] = self._rows.get(row, 0) + record.count
        self.total += record.count
        if not passed:
            self.failed += record.count
        if len(self._rows) >= MAX_ROWS or self._size >= MAX_DETAILS:
            self._flush()

    def finish(self) -> bytes:
        """
        Encode the last block.

        @return: A digest of all rows.
        """
        if self._rows:
            self._flush()
        return self._content.digest()

    def _add(self, record: ReceivedRecord) -> tuple[bytes, str]:
        """
        Add the details of a row.

        @return: Their digest, and the domain that was authenticated.
        """
        author = canonicalName(record.headerFrom)
        text = _details(record, author)
        digest = blake2b(text.encode("utf-8"), digest_size=_DIGEST).digest()
        self._details[digest] = text
        self._size += len(text)
        return digest, _authenticated(author, record.dkim, record.spf)

    def _flush(self) -> None:
        rows = [DMARCRow(*row, count) for row, count in self._rows.items()]
        self._content.update(repr(list(self._rows.items())).encode("utf-8"))
        self.blocks.append(RowBlock(rows, self._details).encode())
        self._results.clear()
        self._details = {}
        self._rows = {}
        self._size = 0


def _details(record: ReceivedRecord, author: str) -> str:
    """
    As in L{RowBlock.details}.  Written here, as an encoder takes twice as long.
    """
    members = []
    if record.dkim:
        members.append(f'"dkim":[{",".join(map(_result, record.dkim))}]')
    if record.envelopeFrom:
        members.append(f'"envelope_from":{_string(record.envelopeFrom)}')
    if record.envelopeTo:
        members.append(f'"envelope_to":{_string(record.envelopeTo)}')
    if author:
        members.append(f'"header_from":{_string(author)}')
    if record.reasons:
        members.append(f'"reasons":[{",".join(map(_array, record.reasons))}]')
    if record.spf:
        members.append(f'"spf":[{",".join(map(_result, record.spf))}]')
    return f"{{{','.join(members)}}}"


def _string(name: str) -> str:
    return encode_basestring(canonicalName(name))


def _array(texts: Iterable[str]) -> str:
    return f"[{','.join(map(encode_basestring, texts))}]"


@lru_cache(maxsize=4096)
def _result(result: ReceivedSignature | ReceivedSPF) -> str:
    return _array((canonicalName(result.domain), *result[1:]))


def _authenticated(
    author: str, dkim: Sequence[ReceivedSignature], spf: Sequence[ReceivedSPF]
) -> str:
    """
    As L{DMARCRow.authenticated}.  Which signature is aligned isn't reported: it is the
    one that has most labels in common with the author's domain.
    """
    signers = [canonicalName(each.domain) for each in dkim if each.result == "pass"]
    if len(signers) > 1:
        labels = author.split(".")[::-1]
        return max(signers, key=lambda each: _common(labels, each))
    passed = [canonicalName(each.domain) for each in spf if each.result == "pass"]
    return (*signers, *passed, "")[0]


def _common(labels: Sequence[str], name: str) -> int:
    count = 0
    for one, other in zip(labels, reversed(name.split(".")), strict=False):
        if one != other:
            break
        count += 1
    return count


def parsedAggregate(
    head: ReceivedAggregateReport, rows: RowCollector, raw: bytes
) -> ParsedReport:
    """
    @param head: The report without its records.

    @raise MalformedReport: It can't be stored.
    """
    checkPeriod(head.start, head.end)
    content = rows.finish()
    _checkTotal(rows.total)
    domain = policyDomain(head.domain, "feedback.policy_published.domain")
    about = (*_identity(head), domain, head.published, head.errors)
    return ParsedReport(
        kind=ReceivedKind.DMARC,
        organization=head.organization,
        contact=head.email or head.contact,
        reportID=head.reportID,
        start=head.start,
        end=head.end,
        content=_digest("dmarc", *about, content.hex()),
        raw=raw,
        format=RawFormat.XML,
        total=rows.total,
        failed=rows.failed,
        domain=domain,
        errors=tuple(filter(None, head.errors)),
        published=head.published,
        blocks=tuple(rows.blocks),
    )


# --- failure reports -----------------------------------------------------------------

#: RFC 5965 3, RFC 6591 3, RFC 9991 4: those with neither content nor links.
_KEPT = frozenset(
    {
        "feedback-type",
        "user-agent",
        "version",
        "auth-failure",
        "delivery-result",
        "identity-alignment",
        "arrival-date",
        "received-date",
        "source-ip",
        "source-port",
        "reported-domain",
        "incidents",
        "authentication-results",
        "dkim-domain",
        "dkim-identity",
        "dkim-selector",
        "dkim-selector-dns",
        "spf-dns",
        "dkim-adsp-dns",
        "reporting-mta",
        "original-mail-from",
        "original-rcpt-to",
    }
)
_NOT_ATEXT = r"\s<>()\[\]:;,=\"\\@"
_LOCAL_PART = re.compile(rf'(?<![^{_NOT_ATEXT}])[^{_NOT_ATEXT}]+@|"[^"]*"@')
_REMOVED = "redacted"


class _Removal(Redaction):
    """
    Removes local parts.  They can't be told apart then, but nothing can be found out
    from what is stored.
    """

    def token(self, localPart: str) -> str:
        return _REMOVED


def parsedFailure(message: bytes) -> ParsedReport:
    """
    @param message: The beginning of a failure report at least.

    @raise MalformedReport: It is none, or can't be stored.
    """
    report = readFeedbackReport(message)
    if report is None:
        _refuse("message", "the fields of the failure report are missing")
    type = report.get("Feedback-Type").lower()
    if type != "auth-failure":
        # Complaints of users (RFC 5965) come in the same format.
        _refuse("message", f"a report of type {type[:40]!r}, not 'auth-failure'")
    fields = headerFields(splitEntity(message)[0])
    original = _originalFields(message)
    moment = _moment(
        report.get("Arrival-Date")
        or report.get("Received-Date")
        or dict(original).get("Date", "")
        or fields.get("date", "")
    )
    checkPeriod(moment, moment)
    contact = parseaddr(fields.get("from", ""))[1]
    shown = tuple(_redacted(report))
    incidents = report.get("Incidents")
    count = int(incidents) if re.fullmatch("[0-9]{1,6}", incidents) else 1
    return ParsedReport(
        kind=ReceivedKind.FAILURE,
        organization=canonicalName(contact.rpartition("@")[2]),
        contact=contact[:MAX_DOMAIN_LENGTH],
        reportID=fields.get("message-id", "")[:MAX_TEXT],
        start=moment,
        end=moment,
        content=_digest("failure", fields.get("message-id", ""), shown, original),
        raw=_rebuilt(contact, shown, original),
        format=RawFormat.MESSAGE,
        total=count,
        failed=count,
        domain=_reportedDomain(report, original),
        published=(*shown, *original),
    )


def _redacted(report: FeedbackReport) -> Iterable[tuple[str, str]]:
    for name, value in report.fields:
        if name.lower() in _KEPT:
            yield name, _LOCAL_PART.sub(f"{_REMOVED}@", value)


def _originalFields(message: bytes) -> Fields:
    """
    The redacted header of the message that the report is about.
    """
    for part in leafParts(message):
        if part.type in ("message/rfc822", "message/global", "text/rfc822-headers"):
            header = splitEntity(part.content)[0]
            fields = redactedFields(header, _Removal(b""))
            return tuple((name, " ".join(words)) for name, words in fields)
    return ()


def _reportedDomain(report: FeedbackReport, original: Fields) -> str:
    author = dict(original).get("From", "").rpartition("@")[2].rstrip(">")
    for name in (report.get("Reported-Domain"), author, report.get("DKIM-Domain")):
        try:
            return Domain.parse(name).ascii
        except InvalidDomain:
            continue
    _refuse("Reported-Domain", "missing")


def _moment(text: str) -> int:
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp())
    except (ValueError, OverflowError, TypeError, IndexError):
        _refuse("Arrival-Date", f"{text[:40]!r} is no date" if text else "missing")


def _rebuilt(contact: str, fields: Fields, original: Fields) -> bytes:
    """
    A message with what is kept of a report, in gzip.
    """
    lines = [
        f"From: <{contact}>",
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b",
        "",
        "--b",
        "Content-Type: message/feedback-report",
        "",
        *(f"{name}: {value}" for name, value in fields),
        "",
        "--b",
        "Content-Type: text/rfc822-headers",
        "",
        *(f"{name}: {value}" for name, value in original),
        "",
        "--b--",
        "",
    ]
    text = "\r\n".join(" ".join(each.split("\n")) for each in lines)
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS + 16)
    return packer.compress(text.encode("utf-8")) + packer.flush()
