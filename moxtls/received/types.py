# -*- test-case-name: tests.received.test_types -*-
"""
Value types of received reports, from the parsed report to the answers of the store.  No
I/O.

Days are numbers of days since 1970-01-01 UTC; a report belongs to the day in which the
middle of its period is.
"""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import NamedTuple

from moxtls.dates import DAY
from moxtls.domain import Domain, InvalidDomain
from moxtls.tlsrpt.parse import ReceivedPolicy

Fields = tuple[tuple[str, str], ...]


class ReceivedKind(StrEnum):
    """
    The kinds of received reports: RFC 8460, RFC 9990 and RFC 9991.
    """

    TLS = "tls"
    DMARC = "dmarc"
    FAILURE = "failure"


class Channel(StrEnum):
    """
    The ways by which reports arrive.
    """

    MAIL = "mail"
    HTTPS = "https"
    IMPORT = "import"


class RawFormat(StrEnum):
    """
    The format of a report as it was received.
    """

    JSON = "json"
    XML = "xml"
    MESSAGE = "message"


class RowOutcome(IntFlag):
    """
    The outcome of the messages in a row of a DMARC report, as one number: the
    disposition in the lowest three bits, and a bit for each aligned result.
    """

    NONE = 0
    QUARANTINE = 1
    REJECT = 2
    #: RFC 9990: the message passed.
    PASS = 3
    #: Anything else, or nothing.
    OTHER = 4
    DKIM = 8
    SPF = 16

    @property
    def passed(self) -> bool:
        """
        True if the messages passed DMARC.
        """
        return bool(self & (RowOutcome.DKIM | RowOutcome.SPF))

    @property
    def disposition(self) -> str:
        """
        C{none}, C{quarantine}, C{reject}, C{pass}, or C{other}.
        """
        return _DISPOSITIONS[self & 7]


_DISPOSITIONS = ("none", "quarantine", "reject", "pass", "other", "", "", "")
_NUMBERS = {name: number for number, name in enumerate(_DISPOSITIONS[:4])}


def rowOutcome(disposition: str, dkim: str, spf: str) -> RowOutcome:
    """
    The outcome of a row, from the texts in C{policy_evaluated}, in lower case.
    """
    outcome = RowOutcome(_NUMBERS.get(disposition, RowOutcome.OTHER))
    if dkim == "pass":
        outcome |= RowOutcome.DKIM
    if spf == "pass":
        outcome |= RowOutcome.SPF
    return outcome


class DMARCRow(NamedTuple):
    """
    A row of a DMARC aggregate report, as it is stored.

    @ivar source: The IP address of the client in canonical form; as in the report,
        shortened, if it isn't one.
    @ivar network: The /24 or /48 of the client; C{source} if that is no IP address.
    @ivar authenticated: The domain that the messages were authenticated as, in lower
        case: that of an aligned DKIM signature that passed, else of any that passed,
        else of SPF that passed; else empty.
    @ivar outcome: A L{RowOutcome}.
    @ivar detail: The digest of the text in L{RowBlock.details}.
    """

    source: str
    network: str
    authenticated: str
    outcome: int
    detail: bytes
    messages: int


#: Octets up to which a block isn't compressed, which would take as long as reading the
#: report.
_MAX_PLAIN = 64 * 1024
_PLAIN, _PACKED = b"p", b"z"


@dataclass(frozen=True, slots=True)
class RowBlock:
    """
    Some rows of a report.

    @ivar details: By digest, the rest of a row as JSON: an object with C{header_from},
        C{envelope_from}, C{envelope_to}, C{dkim} (arrays of domain, selector, result,
        human result), C{spf} (arrays of domain, scope, result) and C{reasons} (arrays
        of type, comment).  Empty values are left out.
    """

    rows: Sequence[DMARCRow]
    details: Mapping[bytes, str]

    def encode(self) -> bytes:
        """
        Encode the block, and compress it if it is large.
        """
        plain = marshal.dumps(([tuple(each) for each in self.rows], dict(self.details)))
        isLarge = len(plain) > _MAX_PLAIN
        return _PACKED + zlib.compress(plain, 1) if isLarge else _PLAIN + plain

    @staticmethod
    def decode(data: bytes) -> RowBlock:
        """
        The inverse of L{encode}, for blocks made by this program.
        """
        view = memoryview(data)[1:]
        plain = zlib.decompress(view) if data.startswith(_PACKED) else view
        rows, details = marshal.loads(plain)
        return RowBlock([DMARCRow(*each) for each in rows], details)


@dataclass(frozen=True, slots=True)
class ParsedReport:
    """
    A report as parsed, ready to be stored.  Worker processes return them.

    @ivar organization: The name of the reporting organization.
    @ivar contact: Its contact information.
    @ivar start: The first second of the period; for failure reports, of the message.
    @ivar end: The last second of the period.
    @ivar domain: The policy domain (A-labels, lower case) of a DMARC or failure report.
        Empty for TLS reports, where each policy has one.
    @ivar domainHint: The domain that the message or the file name says that a TLS
        report is about, for policies without one; may be empty.
    @ivar published: The published policy of a DMARC report; the redacted fields of a
        failure report.
    @ivar total: Messages or sessions.
    @ivar failed: Those that failed DMARC, or sessions that failed.
    @ivar policies: Of a TLS report.  Where the policy domain is none, it is a quoted
        text.
    @ivar blocks: Encoded L{RowBlock}s of a DMARC report.
    @ivar content: A digest of what is reported, equal for all copies of a report
        however they are packed.
    @ivar raw: The report in gzip; a failure report without what was redacted.
    """

    kind: ReceivedKind
    organization: str
    contact: str
    reportID: str
    start: int
    end: int
    content: bytes
    raw: bytes
    format: RawFormat
    total: int
    failed: int
    domain: str = ""
    domainHint: str = ""
    errors: tuple[str, ...] = ()
    published: Fields = ()
    policies: tuple[ReceivedPolicy, ...] = ()
    blocks: tuple[bytes, ...] = ()

    @property
    def day(self) -> int:
        """
        The day that the report belongs to.
        """
        return dayOf((self.start + self.end) // 2)

    @property
    def domains(self) -> tuple[str, ...]:
        """
        The domains that the report is about, each once.
        """
        if self.kind is not ReceivedKind.TLS:
            return (self.domain,)
        named = (each.domain or self.domainHint for each in self.policies)
        return tuple(filter(_isDomain, dict.fromkeys(named)))


def _isDomain(text: str) -> bool:
    try:
        Domain.parse(text)
    except InvalidDomain:
        return False
    return True


def dayOf(second: float) -> int:
    """
    The number of the UTC day of a Unix second.
    """
    return int(second // DAY)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """
    Something in the input that is no report, or can't be read.

    @ivar name: The path inside the input, such as C{a.zip/b.xml}; empty for the input
        itself.
    @ivar reason: The place and the reason, in one line.
    @ivar kind: The kind of report, if it could be seen.
    """

    name: str
    reason: str
    kind: ReceivedKind | None = None


@dataclass(frozen=True, slots=True)
class ReadResult:
    """
    The reports in one input, in order, and what couldn't be read.
    """

    reports: tuple[ParsedReport, ...]
    unreadable: tuple[Unreadable, ...]


# --- stored reports ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """
    The way by which a report arrived, and its submitter.

    @ivar sender: The From domain of mail, the IP address of an HTTPS client, or the
        path of an imported file.
    @ivar authentication: What vouches for the submitter, such as C{DKIM google.com} or
        C{DMARC example.com}; empty if nothing does.
    @ivar received: Unix seconds.
    """

    channel: Channel
    sender: str
    authentication: str
    received: float


@dataclass(frozen=True, slots=True)
class AcceptedReport:
    """
    A report that is to be stored and counted.

    @ivar domains: The policy domains of a TLS report that are counted; those of others
        stay in the raw report only.  C{None}: all.
    """

    report: ParsedReport
    origin: Origin
    domains: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class RefusedReport:
    """
    A report that is not accepted, or something that was sent in place of one.

    @ivar report: C{None} if it couldn't be read.
    @ivar kind: C{None} if unknown.
    @ivar reason: One line.
    """

    origin: Origin
    reason: str
    kind: ReceivedKind | None = None
    report: ParsedReport | None = None


@dataclass(frozen=True, slots=True)
class TakenReports:
    """
    The result of the reports in a message.

    @ivar field: The header field about it, with its CRLF.
    @ivar isAccepted: True if all were accepted.
    """

    field: bytes
    isAccepted: bool


class AddResult(StrEnum):
    """
    The result of adding a report.

    C{VARIANT}: stored, and marked: there is a different report of the same submitter,
    id and period.  C{DUPLICATE}: not stored, as it is there already.
    """

    STORED = "stored"
    VARIANT = "variant"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class StoredReport:
    """
    A report in the store, without its rows.

    @ivar number: Increases with each report.
    @ivar domains: The policy domains that it is counted for; of refused ones, that it
        is about.
    @ivar total: Of a TLS report, the sessions of these domains; so is C{failed}.
    @ivar refused: The reason why it isn't accepted and counted; empty if it is.
    @ivar isVariant: True if another report with the same submitter, id and period was
        there before.
    @ivar kind: C{None} only for refused ones.
    @ivar size: Octets of the raw report in gzip; 0 if it isn't kept.
    @ivar published: As in L{ParsedReport.published}.
    """

    number: int
    kind: ReceivedKind | None
    organization: str
    contact: str
    reportID: str
    start: int
    end: int
    domains: tuple[str, ...]
    total: int
    failed: int
    origin: Origin
    refused: str
    isVariant: bool
    format: RawFormat
    size: int
    published: Fields = ()


@dataclass(frozen=True, slots=True)
class ReportFilter:
    """
    Conditions on reports and their rows; those that are empty are not applied.

    @ivar domain: The policy domain, in A-labels.
    @ivar organization: The reporting organization: any part of its name, in any case.
    @ivar first: The first day.
    @ivar last: The last day.
    @ivar onlyFailures: Reports with failures, also those of TLS without a failed
        session; rows that failed.
    @ivar refused: True for only refused ones, false for only accepted ones.
    """

    kind: ReceivedKind | None = None
    domain: str = ""
    organization: str = ""
    first: int | None = None
    last: int | None = None
    onlyFailures: bool = False
    refused: bool | None = False


# --- answers of the store -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TLSDay:
    """
    Sessions of one day, by the type of the policy (RFC 8460 4.4).
    """

    day: int
    policyType: str
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class TLSFailureGroup:
    """
    Failed sessions with the same cause.

    @ivar reporters: The organizations that reported them, most sessions first, at most
        L{MAX_REPORTERS}.
    @ivar reports: The numbers of the latest reports with them, at most
        L{MAX_REPORTERS}.
    """

    policyType: str
    resultType: str
    reasonCode: str
    mxHost: str
    receivingIP: str
    sessions: int
    firstDay: int
    lastDay: int
    reporters: tuple[str, ...]
    reports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reporter:
    """
    A reporting organization.
    """

    organization: str
    reports: int
    total: int
    failed: int
    firstDay: int
    lastDay: int


@dataclass(frozen=True, slots=True)
class DMARCDay:
    """
    Messages of one day with the same outcome.
    """

    day: int
    outcome: RowOutcome
    messages: int


@dataclass(frozen=True, slots=True)
class DMARCSource:
    """
    Messages from one network, authenticated as one domain, with the same outcome.

    @ivar source: One of the IP addresses.
    """

    network: str
    source: str
    authenticated: str
    outcome: RowOutcome
    messages: int
    firstDay: int
    lastDay: int


#: Names and numbers in L{TLSFailureGroup}.
MAX_REPORTERS = 10


@dataclass(frozen=True, slots=True)
class TLSRow:
    """
    A policy of a stored TLS report.

    @ivar report: The number of the report.
    @ivar position: Of the policy in the report, from 0.
    """

    report: int
    organization: str
    day: int
    policy: ReceivedPolicy
    position: int = 0


@dataclass(frozen=True, slots=True)
class StoredDMARCRow:
    """
    A row of a stored DMARC report.

    @ivar report: The number of the report.
    @ivar detail: As in L{RowBlock.details}.
    @ivar position: Of the row in the report, from 0.
    """

    report: int
    organization: str
    domain: str
    day: int
    source: str
    outcome: RowOutcome
    messages: int
    detail: str
    position: int = 0


# --- events of this host --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HandshakeFailures:
    """
    TLS handshakes that failed on a listener in one hour.

    @ivar hour: The Unix second in which it begins.
    @ivar reason: OpenSSL's, or that of the lost connection.
    """

    listener: str
    hour: int
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class CertificateSeen:
    """
    A certificate that a listener began to use.

    @ivar since: Unix seconds.
    @ivar fingerprint: SHA-256 of the certificate, hexadecimal.
    @ivar names: Its DNS names.
    """

    listener: str
    since: float
    fingerprint: str
    names: tuple[str, ...]
    notBefore: float
    notAfter: float
