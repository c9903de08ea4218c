# -*- test-case-name: tests.dmarc.test_failure -*-
"""
Reports on single messages that fail (RFC 9991): which ones are wanted, and who
may have them.  No I/O.

Reading of RFC 9989 4.7: who asks for a DKIM or an SPF failure report (C{fo=d},
C{fo=s}) gets the same report as all others, on his condition; it says what
DKIM and SPF came to (RFC 9991 3 leaves the type to us).

Reading of RFC 9991 4: what is aligned is of the author's organization, so what is
told about failures is told of all that is at or under its domain.

A report on a message that failed, as mail (RFC 9991 4, RFC 6591 3, RFC 5965).
No I/O.

Of the message there is a part of its header, redacted, and nothing of its body.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256

from moxtls import __version__
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dmarc.alignment import spfDomain
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
from moxtls.dns.query import LookupGenerator, LookupQuestion
from moxtls.dns.types import RRType
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
#: Not what wasn't there, and not what may be found out later.
_DKIM_FAILED = (
    AuthResult.FAIL,
    AuthResult.POLICY,
    AuthResult.NEUTRAL,
    AuthResult.PERMERROR,
)
_SPF_FAILED = (AuthResult.FAIL, AuthResult.SOFTFAIL, AuthResult.PERMERROR)
_REPORTS = ("multipart/report", "message/feedback-report")


@dataclass(frozen=True, slots=True)
class FailureReporting:
    """
    What the operator decides.

    @ivar submitter: In whose name reports are sent; C{None} if in nobody's.
    @ivar secret: For L{Redaction}.
    @ivar allow: Policy domains that get reports, whoever they are; if empty,
        all do that are no strangers.
    @ivar notTo: Policy domains that get none.
    @ivar silent: Domains of ours; about mail to them, there are none.
    @ivar strangers: Whether domains get reports of whom there is no good sign:
        who sends spam would learn what became of it.
    @ivar perHour: The most to one policy domain.
    @ivar perDay: The most to all.
    @ivar suffixes: Makes it what RFC 7489 has.
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
    A message of which somebody wants to be told.

    @ivar policyDomain: Where C{record} is.
    """

    event: VerdictEvent
    discovery: Discovery
    record: DMARCRecord
    policyDomain: Domain

    @property
    def id(self) -> bytes:
        """
        The same for all recipients of the message.
        """
        event = self.event
        address = event.authentication.address
        start = f"{address}\0{event.sender}\0".encode("utf-8", "replace")
        return sha256(start + event.header).digest()


def messageFailure(event: VerdictEvent) -> MessageFailure | None:
    """
    @return: C{None} if nobody wants a report, or could: it isn't known what
        is published or what failed, or the message is one that nobody shall
        be answered about.
    """
    discovery = event.verdict.discovery
    if discovery is None or discovery.temporary or discovery.policyDomain is None:
        return None
    record = discovery.record
    # RFC 9991 2: a public suffix doesn't get to see its registrants' mail.
    if record is None or not record.ruf or record.psd is PSD.YES:
        return None
    # What was refused for another reason is none of DMARC's business.
    if event.isForReports or event.finalDisposition is FinalDisposition.REJECTED:
        return None
    if not _isAsked(event, record.fo):
        return None
    if isAutomatic(event.sender, event.header):
        return None
    return MessageFailure(event, discovery, record, discovery.policyDomain)


def isWanted(event: VerdictEvent) -> bool:
    """
    Whether the record asks for a report on this message (RFC 9989 4.7 C{fo}).
    """
    return messageFailure(event) is not None


def isAllowed(failure: MessageFailure, settings: FailureReporting) -> bool:
    """
    Whether whoever wants a report may have it.
    """
    event, domain = failure.event, failure.policyDomain
    if not settings.enabled or settings.submitter is None or domain in settings.notTo:
        return False
    if _domainOf(event.recipient) in settings.silent:
        return False
    if settings.allow:
        return domain in settings.allow
    return settings.strangers or event.isKnown


def _isAsked(event: VerdictEvent, options: Sequence[str]) -> bool:
    verdict, found = event.verdict, event.authentication
    if verdict.status not in _CERTAIN:
        return False
    dkim = [each.status for each in found.dkim]
    noDKIM = not verdict.dkimAligned and AuthResult.TEMPERROR not in dkim
    noSPF = not verdict.spfAligned and found.spf.status is not AuthResult.TEMPERROR
    asked = {
        "0": verdict.status is AuthResult.FAIL,
        "1": noDKIM or noSPF,
        "d": any(status in _DKIM_FAILED for status in dkim),
        "s": found.spf.status in _SPF_FAILED,
    }
    return any(asked.get(option, False) for option in options)


def isAutomatic(sender: str, header: bytes) -> bool:
    """
    Whether a message is a program's: a report on it might be answered by
    another one (RFC 9991 5.1).  Of what can't be known, it has to be feared.

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
    The SPF record of an aligned domain that didn't help, for C{SPF-DNS}
    (RFC 6591 3.2.6): the first, as others belong to others.

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
    A signature that failed and may be aligned; one of the author's domain, if
    there is any.
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
    The domain that SPF was about, if it failed and may be aligned.
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


#: Octets, which none of these reports has.
MAX_FAILURE_SIZE = 256 * 1024
#: Signatures of which is told what they came to.
MAX_REPORTED = 10
#: Of a selector and a reason.
MAX_WORD = 200
#: RFC 5965 3.2: an unsigned 32-bit integer.
MAX_INCIDENTS = 2**32 - 1


_RESULTS = {
    FinalDisposition.ACCEPTED: "delivered",
    FinalDisposition.JUNK: "spam",
    FinalDisposition.REJECTED_BY_DMARC: "reject",
}


@dataclass(frozen=True, slots=True)
class FailureDetails:
    """
    What else a report says.

    @ivar submitter: In whose name it is sent.
    @ivar arrived: When the message came, Unix seconds.
    @ivar spfRecord: What L{spfRecord} has found.
    @ivar incidents: How many messages it stands for.
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
    The message that brings a report to all of C{recipients}, unsigned.
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
    RFC 5965 3, RFC 6591 3.1, RFC 9991 4.
    """
    event = failure.event
    yield "Feedback-Type", ["auth-failure"]
    yield "User-Agent", [f"moxtls/{__version__}"]
    yield "Version", ["1"]
    yield "Auth-Failure", ["dmarc"]
    yield "Identity-Alignment", [_missing(event)]
    yield "Authentication-Results", _results(failure, hostname)
    yield "Reported-Domain", [str(failure.discovery.author)]
    # Reading of RFC 5965 3.2: IPv6 addresses as everybody writes and reads
    # them, without the tag that they have in RFC 5321 4.1.3.
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
    RFC 9991 4: what didn't authenticate an aligned identity.
    """
    verdict = event.verdict
    methods = {"dkim": verdict.dkimAligned, "spf": verdict.spfAligned}
    return ",".join(each for each, passed in methods.items() if not passed) or "none"


def _results(failure: MessageFailure, hostname: Domain) -> list[str]:
    """
    RFC 6591 3.1: one method only.
    """
    verdict = failure.event.verdict
    policy = f"(policy {verdict.policy}, disposition {verdict.disposition})"
    author = f"header.from={failure.discovery.author}"
    return [f"{hostname};", f"dmarc={verdict.status}", *policy.split(" "), author]


def _deliveryResult(event: VerdictEvent) -> str:
    """
    RFC 6591 3.2.2.
    """
    isBecauseOfDMARC = event.verdict.disposition is not DMARCPolicy.NONE
    return _RESULTS.get(
        event.finalDisposition, "policy" if isBecauseOfDMARC else "other"
    )


def _dkim(failure: MessageFailure, redaction: Redaction) -> Iterator[Field]:
    """
    RFC 6591 3.2.3, for one signature, as each field may be there once.
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
    RFC 6591 4.
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
        "A message in the name of your domain, or of one below it, came to us, and",
        "not all that could have shown that it is yours did.  You get this report",
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
        "In place of the local parts of addresses there are tokens, which are equal",
        "where those are.",
    ]
    if details.incidents > 1:
        lines += ["", f"This stands for {details.incidents} such messages."]
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
