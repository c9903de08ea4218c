# -*- test-case-name: tests.dmarc.test_failure -*-
"""
DMARC failure reports on single messages (RFC 9991): which are requested and allowed,
and their composition (RFC 9991 4, RFC 6591 3, RFC 5965).  No I/O.

A report contains a part of the message's header, redacted, and nothing of its body.

Reading of RFC 9989 4.7: C{fo=d} and C{fo=s} request the same report as C{fo=0} on other
conditions; it states the results of DKIM and SPF (RFC 9991 3 leaves the type to us).

Reading of RFC 9991 4: aligned identifiers belong to the author's organization, so
details of failures are only reported for domains at or under the organizational
domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256

from moxtls import __version__
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dmarc.discovery import PublicSuffixes, printable
from moxtls.dmarc.redaction import Redaction, redactedFields
from moxtls.dmarc.types import (
    PSD,
    Discovery,
    DMARCPolicy,
    DMARCRecord,
    FinalDisposition,
    VerdictEvent,
)
from moxtls.dmarc.verdict import spfDomain
from moxtls.dns.types import LookupGenerator, LookupQuestion, RRType
from moxtls.domain import MAX_DOMAIN_LENGTH, Address, Domain, InvalidDomain
from moxtls.ipaddresses import ipOrEmpty
from moxtls.message.header import headerFields
from moxtls.message.mime import (
    Field,
    MessageStamp,
    contentType,
    formatField,
    multipart,
    originFields,
    part,
    textPart,
)

_CERTAIN = (AuthResult.PASS, AuthResult.FAIL)
#: Neither missing signatures nor temporary errors.
_DKIM_FAILED = (
    AuthResult.FAIL,
    AuthResult.POLICY,
    AuthResult.NEUTRAL,
    AuthResult.PERMERROR,
)
_SPF_FAILED = (AuthResult.FAIL, AuthResult.SOFTFAIL, AuthResult.PERMERROR)
_REPORTS = ("multipart/report", "message/feedback-report")

#: Octets; failure reports are smaller.
MAX_FAILURE_SIZE = 256 * 1024
#: Reported signatures.
MAX_REPORTED = 10
#: Characters of a selector and of a reason.
MAX_WORD = 200
#: RFC 5965 3.2: an unsigned 32-bit integer.
MAX_INCIDENTS = 2**32 - 1
_RESULTS = {
    FinalDisposition.ACCEPTED: "delivered",
    FinalDisposition.JUNK: "spam",
    FinalDisposition.REJECTED_BY_DMARC: "reject",
}


@dataclass(frozen=True, slots=True)
class FailureReporting:
    """
    The operator's settings for failure reports.

    @ivar submitter: The reporting domain; C{None} if no domain can sign reports.
    @ivar secret: The key of L{Redaction}.
    @ivar allow: The only policy domains that get reports; if empty, all known domains
        do.
    @ivar notTo: Policy domains that get none.
    @ivar silent: Local domains; mail to them isn't reported.
    @ivar strangers: True to report to domains with which no local account has
        corresponded: spammers would learn the disposition of their mail.
    @ivar perHour: The maximum number of reports per policy domain.
    @ivar perDay: The maximum number of reports to all domains.
    @ivar suffixes: If given, discovery as in RFC 7489.
    """

    enabled: bool = False
    submitter: Domain | None = None
    secret: bytes = field(default=b"", repr=False)
    allow: frozenset[Domain] = frozenset()
    notTo: frozenset[Domain] = frozenset()
    silent: frozenset[Domain] = frozenset()
    strangers: bool = False
    perHour: int = 10
    perDay: int = 200
    suffixes: PublicSuffixes | None = None


@dataclass(frozen=True, slots=True)
class MessageFailure:
    """
    A message for which the policy domain requests a failure report.

    @ivar policyDomain: The domain of C{record}.
    """

    event: VerdictEvent
    discovery: Discovery
    record: DMARCRecord
    policyDomain: Domain

    @property
    def id(self) -> bytes:
        """
        A digest of the message, the same for all its recipients.
        """
        event = self.event
        address = event.authentication.address
        start = f"{address}\0{event.sender}\0".encode("utf-8", "replace")
        return sha256(start + event.header).digest()


def messageFailure(event: VerdictEvent) -> MessageFailure | None:
    """
    The failure to report for an event.

    @return: C{None} if no report is requested, if the record or the result is
        uncertain, or if the message must not be reported (RFC 9991 5.1).
    """
    discovery = event.verdict.discovery
    if discovery is None or discovery.temporary or discovery.policyDomain is None:
        return None
    record = discovery.record
    # RFC 9991 2: no reports to public suffixes about mail of their registrants.
    if record is None or not record.ruf or record.psd is PSD.YES:
        return None
    # Messages refused for another reason than DMARC are not reported.
    if event.isForReports or event.finalDisposition is FinalDisposition.REJECTED:
        return None
    if not _isRequested(event, record.fo):
        return None
    if isAutomatic(event.sender, event.header):
        return None
    return MessageFailure(event, discovery, record, discovery.policyDomain)


def isWanted(event: VerdictEvent) -> bool:
    """
    True if the record requests a report on this message (RFC 9989 4.7 C{fo}).
    """
    return messageFailure(event) is not None


def isAllowed(failure: MessageFailure, settings: FailureReporting) -> bool:
    """
    True if the settings allow the requested report.
    """
    event, domain = failure.event, failure.policyDomain
    if not settings.enabled or settings.submitter is None or domain in settings.notTo:
        return False
    if _domainOf(event.recipient) in settings.silent:
        return False
    if settings.allow:
        return domain in settings.allow
    return settings.strangers or event.isKnown


def _isRequested(event: VerdictEvent, options: Sequence[str]) -> bool:
    verdict, found = event.verdict, event.authentication
    if verdict.status not in _CERTAIN:
        return False
    dkim = [each.status for each in found.dkim]
    noDKIM = not verdict.dkimAligned and AuthResult.TEMPERROR not in dkim
    noSPF = not verdict.spfAligned and found.spf.status is not AuthResult.TEMPERROR
    conditions = {
        "0": verdict.status is AuthResult.FAIL,
        "1": noDKIM or noSPF,
        "d": any(status in _DKIM_FAILED for status in dkim),
        "s": found.spf.status in _SPF_FAILED,
    }
    return any(conditions.get(option, False) for option in options)


def isAutomatic(sender: str, header: bytes) -> bool:
    """
    True if a message was sent by a program, so that a report could cause a mail loop
    (RFC 9991 5.1); also if that is unknown.

    @param sender: MAIL FROM.
    """
    if not sender or not header:
        return True
    fields = headerFields(header)
    # RFC 3834 5.
    submitted = fields.get("auto-submitted", "no").partition(";")[0].strip().lower()
    return (
        submitted != "no" or contentType(fields.get("content-type", ""))[0] in _REPORTS
    )


def spfRecord(failure: MessageFailure) -> LookupGenerator[str]:
    """
    Look up the SPF record of an aligned domain that failed, for C{SPF-DNS} (RFC 6591
    3.2.6).  Included records aren't reported: they belong to other domains.

    @return: Empty if there is none.
    """
    domain = failedSender(failure)
    if domain is None:
        return ""
    (answer,) = yield (LookupQuestion(domain.ascii, RRType.TXT),)
    for text in answer.texts:
        if text.lower().split(b" ", 1)[0] == b"v=spf1":
            return printable(text.decode("utf-8", "replace"))
    return ""


def failedSignature(failure: MessageFailure) -> DKIMResult | None:
    """
    A signature that failed and may be aligned, preferably of the author domain.
    """
    discovery = failure.discovery
    failed = [
        each
        for each in failure.event.authentication.dkim
        if each.status in _DKIM_FAILED
        and each.selector
        and each.domain.isUnder(discovery.organizational)
    ]
    own = [each for each in failed if each.domain == discovery.author]
    return next(iter([*own, *failed]), None)


def failedSender(failure: MessageFailure) -> Domain | None:
    """
    The domain checked by SPF, if it failed and may be aligned.
    """
    authentication = failure.event.authentication
    domain = spfDomain(authentication)
    if domain is None or authentication.spf.status in (
        AuthResult.PASS,
        AuthResult.NONE,
        AuthResult.TEMPERROR,
    ):
        return None
    return domain if domain.isUnder(failure.discovery.organizational) else None


def _domainOf(address: str) -> Domain | None:
    try:
        return Domain.parse(address.rpartition("@")[2])
    except InvalidDomain:
        return None


@dataclass(frozen=True, slots=True)
class FailureDetails:
    """
    Further contents of a failure report.

    @ivar submitter: The reporting domain.
    @ivar arrived: The Unix second in which the message was received.
    @ivar spfRecord: The result of L{spfRecord}.
    @ivar incidents: The number of messages that it represents.
    """

    submitter: Domain
    redaction: Redaction
    arrived: float
    spfRecord: str = ""
    incidents: int = 1

    def withRecord(self, spfRecord: str) -> FailureDetails:
        return replace(self, spfRecord=spfRecord)


def composeFailureReport(
    failure: MessageFailure,
    details: FailureDetails,
    recipients: Sequence[Address],
    stamp: MessageStamp,
) -> bytes:
    """
    An unsigned message with a failure report to all of C{recipients}.
    """
    subject = f"DMARC failure report for {failure.discovery.author}"
    header = originFields(details.submitter, recipients, subject, stamp)
    fields = [*_fields(failure, details, stamp.hostname)]
    original = redactedFields(failure.event.header, details.redaction)
    parts = [
        textPart(_text(failure, details)),
        part([("Content-Type", ["message/feedback-report"])], _lines(fields)),
        part([("Content-Type", ["text/rfc822-headers"])], _lines(original)),
    ]
    container = ("multipart/report;", "report-type=feedback-report;")
    return multipart(header, container, parts, stamp.token)


def _lines(fields: Sequence[Field]) -> bytes:
    return b"".join(map(formatField, fields))


def _fields(
    failure: MessageFailure, details: FailureDetails, hostname: Domain
) -> Iterator[Field]:
    """
    The fields of the feedback report (RFC 5965 3, RFC 6591 3.1, RFC 9991 4).
    """
    event = failure.event
    yield "Feedback-Type", ["auth-failure"]
    yield "User-Agent", [f"moxtls/{__version__}"]
    yield "Version", ["1"]
    yield "Auth-Failure", ["dmarc"]
    yield "Identity-Alignment", [_missing(event)]
    yield "Authentication-Results", _results(failure, hostname)
    yield "Reported-Domain", [str(failure.discovery.author)]
    # Reading of RFC 5965 3.2: IPv6 addresses in their usual form, without the tag of
    # RFC 5321 4.1.3.
    address = ipOrEmpty(event.authentication.address)
    if address:
        yield "Source-IP", [address]
    yield "Arrival-Date", [_date(details.arrived)]
    yield "Reporting-MTA", ["dns;", str(hostname)]
    sender = details.redaction.path(event.sender)
    if sender is not None:
        yield "Original-Mail-From", [sender]
    yield "Delivery-Result", [_deliveryResult(event)]
    yield from _dkim(failure, details.redaction)
    yield from _spf(failure, details.spfRecord)
    if details.incidents > 1:
        yield "Incidents", [str(min(details.incidents, MAX_INCIDENTS))]


def _missing(event: VerdictEvent) -> str:
    """
    The methods that authenticated no aligned identifier (RFC 9991 4).
    """
    verdict = event.verdict
    methods = {"dkim": verdict.dkimAligned, "spf": verdict.spfAligned}
    return ",".join(each for each, passed in methods.items() if not passed) or "none"


def _results(failure: MessageFailure, hostname: Domain) -> list[str]:
    """
    The Authentication-Results field, with one method only (RFC 6591 3.1).
    """
    verdict = failure.event.verdict
    policy = f"(policy {verdict.policy}, disposition {verdict.disposition})"
    author = f"header.from={failure.discovery.author}"
    return [f"{hostname};", f"dmarc={verdict.status}", *policy.split(" "), author]


def _deliveryResult(event: VerdictEvent) -> str:
    """
    The Delivery-Result field (RFC 6591 3.2.2).
    """
    isBecauseOfDMARC = event.verdict.disposition is not DMARCPolicy.NONE
    return _RESULTS.get(
        event.finalDisposition, "policy" if isBecauseOfDMARC else "other"
    )


def _dkim(failure: MessageFailure, redaction: Redaction) -> Iterator[Field]:
    """
    The DKIM fields (RFC 6591 3.2.3) for one signature, since each is allowed once.
    """
    result = failedSignature(failure)
    if result is not None:
        identity = redaction.identity(result.identity) or f"@{result.domain}"
        yield "DKIM-Domain", [str(result.domain)]
        yield "DKIM-Identity", [identity]
        if result.selector:
            yield "DKIM-Selector", [_word(result.selector)]


def _spf(failure: MessageFailure, record: str) -> Iterator[Field]:
    """
    The SPF-DNS field (RFC 6591 4).
    """
    domain = failedSender(failure)
    text = printable(" ".join(record.split())).replace("\\", "?").replace('"', "?")
    if domain is not None and text:
        yield "SPF-DNS", ["txt", ":", str(domain), ":", *f'"{text}"'.split(" ")]


def _text(failure: MessageFailure, details: FailureDetails) -> list[str]:
    event, discovery = failure.event, failure.discovery
    verdict, found = event.verdict, event.authentication
    spf = found.spf
    lines = [
        "We received a message in the name of your domain, or of one of its",
        "subdomains, that was not fully authenticated as yours.  You get this report",
        f"because the TXT record at _dmarc.{failure.policyDomain}",
        "asks for such reports (ruf) to this address.",
        "",
        f"Author Domain: {discovery.author}",
        f"Submitter: {details.submitter}",
        f"Source: {printable(found.address)}",
        f"Arrived: {_date(details.arrived)}",
        f"DMARC: {verdict.status}, policy {verdict.policy}, "
        f"disposition {verdict.disposition}",
        f"SPF ({spf.scope}): {spf.status}, {printable(spf.domain)[:MAX_DOMAIN_LENGTH]}",
        *map(_signatureLine, found.dkim[:MAX_REPORTED]),
        "",
        "Local parts of addresses are replaced by tokens; equal local parts have equal",
        "tokens.",
    ]
    if details.incidents > 1:
        lines += ["", f"This report represents {details.incidents} such messages."]
    return [*lines, ""]


def _signatureLine(result: DKIMResult) -> str:
    problem = f", {_word(result.problem)}" if result.problem else ""
    return (
        f"DKIM: {result.status}, d={result.domain} s={_word(result.selector)}{problem}"
    )


def _word(text: str) -> str:
    return printable(text)[:MAX_WORD]


def _date(second: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(second), UTC))
