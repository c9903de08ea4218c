# -*- test-case-name: tests.dmarc.test_failure -*-
"""
Reports on single messages that fail (RFC 9991): which ones are wanted, and who
may have them.  No I/O.

Reading of RFC 9989 4.7: who asks for a DKIM or an SPF failure report (C{fo=d},
C{fo=s}) gets the same report as all others, on his condition; it says what
DKIM and SPF came to (RFC 9991 3 leaves the type to us).

Reading of RFC 9991 4: what is aligned is of the author's organization, so what is
told about failures is told of all that is at or under its domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from moxtls.authentication import AuthResult, DKIMResult
from moxtls.dmarc.suffixes import Suffixes
from moxtls.dmarc.values import (
    PSD,
    Discovery,
    DMARCRecord,
    FinalDisposition,
    VerdictEvent,
)
from moxtls.dmarc.walk import printable
from moxtls.dmarc.witnesses import spfDomain
from moxtls.dns.answers import RRType
from moxtls.dns.inquiry import LookupGenerator, LookupQuestion
from moxtls.domain import Domain, InvalidDomain
from moxtls.reporting.mime import contentType, headerFields

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
    suffixes: Suffixes | None = None


@dataclass(frozen=True, slots=True)
class MessageFailure:
    """
    A message of which somebody wants to be told.

    @ivar policyDomain: Where C{record} is.
    """

    judgement: VerdictEvent
    discovery: Discovery
    record: DMARCRecord
    policyDomain: Domain

    @property
    def id(self) -> bytes:
        """
        The same for all recipients of the message.
        """
        judgement = self.judgement
        address = judgement.authentication.address
        start = f"{address}\0{judgement.sender}\0".encode("utf-8", "replace")
        return sha256(start + judgement.header).digest()


def messageFailure(judgement: VerdictEvent) -> MessageFailure | None:
    """
    @return: C{None} if nobody wants a report, or could: it isn't known what
        is published or what failed, or the message is one that nobody shall
        be answered about.
    """
    discovery = judgement.verdict.discovery
    if discovery is None or discovery.temporary or discovery.policyDomain is None:
        return None
    record = discovery.record
    # RFC 9991 2: a public suffix doesn't get to see its registrants' mail.
    if record is None or not record.ruf or record.psd is PSD.YES:
        return None
    # What was refused for another reason is none of DMARC's business.
    if judgement.isForReports or judgement.fate is FinalDisposition.REJECTED:
        return None
    if not _isAsked(judgement, record.fo):
        return None
    if isAutomatic(judgement.sender, judgement.header):
        return None
    return MessageFailure(judgement, discovery, record, discovery.policyDomain)


def isWanted(judgement: VerdictEvent) -> bool:
    """
    Whether the record asks for a report on this message (RFC 9989 4.7 C{fo}).
    """
    return messageFailure(judgement) is not None


def isAllowed(failure: MessageFailure, settings: FailureReporting) -> bool:
    """
    Whether whoever wants a report may have it.
    """
    judgement, domain = failure.judgement, failure.policyDomain
    if not settings.enabled or settings.submitter is None or domain in settings.notTo:
        return False
    if _domainOf(judgement.recipient) in settings.silent:
        return False
    if settings.allow:
        return domain in settings.allow
    return settings.strangers or judgement.isKnown


def _isAsked(judgement: VerdictEvent, options: Sequence[str]) -> bool:
    verdict, found = judgement.verdict, judgement.authentication
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
        for each in failure.judgement.authentication.dkim
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
    authentication = failure.judgement.authentication
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
