# -*- test-case-name: tests.dmarc.test_failuremail -*-
"""
A report on a message that failed, as mail (RFC 9991 4, RFC 6591 3, RFC 5965).
No I/O.

Of the message there is a part of its header, redacted, and nothing of its body.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime

from moxtls import __version__
from moxtls.authentication import DKIMResult
from moxtls.dmarc.failure import MessageFailure, failedSender, failedSignature
from moxtls.dmarc.redaction import Redaction, quotedText
from moxtls.dmarc.values import DMARCPolicy, FinalDisposition, VerdictEvent
from moxtls.dmarc.walk import printable
from moxtls.domain import MAX_NAME, Address, Domain
from moxtls.ipaddresses import knownIP
from moxtls.reporting.fields import (
    Field,
    MessageStamp,
    multipart,
    origin,
    part,
    textPart,
    written,
)

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
    particulars: FailureDetails,
    recipients: Sequence[Address],
    stamp: MessageStamp,
) -> bytes:
    """
    The message that brings a report to all of C{recipients}, unsigned.
    """
    subject = f"DMARC failure report for {failure.discovery.author}"
    header = origin(particulars.submitter, recipients, subject, stamp)
    fields = [*_fields(failure, particulars, stamp.hostname)]
    original = quotedText(failure.judgement.header, particulars.redaction)
    parts = [
        textPart(_text(failure, particulars)),
        part([("Content-Type", ["message/feedback-report"])], _lines(fields)),
        part([("Content-Type", ["text/rfc822-headers"])], _lines(original)),
    ]
    container = ("multipart/report;", "report-type=feedback-report;")
    return multipart(header, container, parts, stamp.token)


def _lines(fields: Sequence[Field]) -> bytes:
    return b"".join(map(written, fields))


def _fields(
    failure: MessageFailure, particulars: FailureDetails, hostname: Domain
) -> Iterator[Field]:
    """
    RFC 5965 3, RFC 6591 3.1, RFC 9991 4.
    """
    judgement = failure.judgement
    yield "Feedback-Type", ["auth-failure"]
    yield "User-Agent", [f"moxtls/{__version__}"]
    yield "Version", ["1"]
    yield "Auth-Failure", ["dmarc"]
    yield "Identity-Alignment", [_missing(judgement)]
    yield "Authentication-Results", _results(failure, hostname)
    yield "Reported-Domain", [str(failure.discovery.author)]
    # Reading of RFC 5965 3.2: IPv6 addresses as everybody writes and reads
    # them, without the tag that they have in RFC 5321 4.1.3.
    address = knownIP(judgement.authentication.address)
    if address:
        yield "Source-IP", [address]
    yield "Arrival-Date", [_date(particulars.arrived)]
    yield "Reporting-MTA", ["dns;", str(hostname)]
    sender = particulars.redaction.path(judgement.sender)
    if sender is not None:
        yield "Original-Mail-From", [sender]
    yield "Delivery-Result", [_deliveryResult(judgement)]
    yield from _dkim(failure, particulars.redaction)
    yield from _spf(failure, particulars.spfRecord)
    if particulars.incidents > 1:
        yield "Incidents", [str(min(particulars.incidents, MAX_INCIDENTS))]


def _missing(judgement: VerdictEvent) -> str:
    """
    RFC 9991 4: what didn't authenticate an aligned identity.
    """
    verdict = judgement.verdict
    methods = {"dkim": verdict.dkimAligned, "spf": verdict.spfAligned}
    return ",".join(each for each, passed in methods.items() if not passed) or "none"


def _results(failure: MessageFailure, hostname: Domain) -> list[str]:
    """
    RFC 6591 3.1: one method only.
    """
    verdict = failure.judgement.verdict
    policy = f"(policy {verdict.policy}, disposition {verdict.disposition})"
    author = f"header.from={failure.discovery.author}"
    return [f"{hostname};", f"dmarc={verdict.status}", *policy.split(" "), author]


def _deliveryResult(judgement: VerdictEvent) -> str:
    """
    RFC 6591 3.2.2.
    """
    isBecauseOfDMARC = judgement.verdict.disposition is not DMARCPolicy.NONE
    return _RESULTS.get(judgement.fate, "policy" if isBecauseOfDMARC else "other")


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


def _text(failure: MessageFailure, particulars: FailureDetails) -> list[str]:
    judgement, discovery = failure.judgement, failure.discovery
    verdict, found = judgement.verdict, judgement.authentication
    spf = found.spf
    lines = [
        "A message in the name of your domain, or of one below it, came to us, and",
        "not all that could have shown that it is yours did.  You get this report",
        f"because the TXT record at _dmarc.{failure.policyDomain}",
        "asks for such reports (ruf) to this address.",
        "",
        f"Author Domain: {discovery.author}",
        f"Submitter: {particulars.submitter}",
        f"Source: {printable(found.address)}",
        f"Arrived: {_date(particulars.arrived)}",
        f"DMARC: {verdict.status}, policy {verdict.policy}, "
        f"disposition {verdict.disposition}",
        f"SPF ({spf.scope}): {spf.status}, {printable(spf.domain)[:MAX_NAME]}",
        *map(_signatureLine, found.dkim[:MAX_REPORTED]),
        "",
        "In place of the local parts of addresses there are tokens, which are equal",
        "where those are.",
    ]
    if particulars.incidents > 1:
        lines += ["", f"This stands for {particulars.incidents} such messages."]
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
