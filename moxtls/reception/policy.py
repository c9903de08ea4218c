# -*- test-case-name: tests.reception.test_policy -*-
"""
Decides what is done with a message for each of its recipients.  No I/O.

Reading of RFC 9989 5.3.6, 7.4: a message for which DMARC has a temporary error is
accepted, as its sender can do nothing about the error and mail must not be lost for
it.  The exception is an evaluation that ran out of time: the message is refused
temporarily, else a slow name server could suspend any policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.authentication.results import Authentication, AuthResult
from moxtls.config import Account
from moxtls.dmarc.failure import isAutomatic, isWanted
from moxtls.dmarc.types import DMARCPolicy, FinalDisposition, Verdict, VerdictEvent
from moxtls.domain import Address, Domain
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.message.addresses import FromField
from moxtls.message.header import MAIL_LOOP, Header, headerFields, isLooping
from moxtls.message.mime import contentType
from moxtls.received.types import TakenReports
from moxtls.reception.recipients import Role, Target
from moxtls.smtp.types import Reply

#: The default junk mailbox, of the host and of accounts.
JUNK = "Junk"

#: The first line would continue a field that is added in front of it.
HEADER_MALFORMED = Reply(550, "5.6.0", "The header begins with a continuation line")
TRY_LATER = Reply(451, "4.3.0", "The message can't be stored now; try again later")
DMARC_UNAVAILABLE = Reply(451, "4.7.0", "DMARC can't be checked now; try again later")
ACCEPTED = Reply(250, "2.0.0", "OK")
OVER_QUOTA = Reply(552, "5.2.2", "The mailbox is full")
REFUSED_BY_MAILBOX = Reply(550, "5.7.1", "The mailbox refuses this message")

# RFC 9990 3.5.2, RFC 8460 5.3; a forwarder may have put text in front of it.
_REPORT = re.compile(
    r"\breport\s+domain:\s*\S+\s+submitter:\s*\S+\s+report-id:", re.IGNORECASE
)
#: Fields of replies (RFC 5322 3.6.4), and of messages that programs write.
_ANSWERS = frozenset(
    {
        "in-reply-to",
        "references",
        "x-autoreply",
        "x-autorespond",
        "x-auto-response-suppress",
    }
)
_PRECEDENCES = frozenset({"auto_reply", "bulk", "junk"})
#: Parts of the subjects of reports, which replies repeat (RFC 9990 3.5.2, RFC 8460 5.3;
#: our own failure reports).
_SUBJECTS = ("report domain:", "dmarc failure report for", "dmarc aggregate report")


@dataclass(frozen=True, slots=True)
class Recipient:
    """
    A recipient with its targets.

    @ivar address: As in RCPT.
    @ivar targets: The mailboxes that get its mail.
    """

    address: Address
    targets: tuple[Target, ...]

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.account for each in self.targets))

    @property
    def isForReports(self) -> bool:
        return all(each.isForReports for each in self.targets)

    @property
    def isPostmaster(self) -> bool:
        return any(each.role is Role.POSTMASTER for each in self.targets)

    @property
    def mayBeReportSender(self) -> bool:
        """
        True if the address looks like the envelope sender of one of our reports.
        """
        return "+" in self.address.localPart and self.isPostmaster


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The decision about a message, for all recipients.

    @ivar refusal: The reply if the message is refused.
    """

    finalDisposition: FinalDisposition
    refusal: Reply | None = None


@dataclass(frozen=True, slots=True)
class MailboxCopy:
    """
    A copy for one mailbox.

    @ivar address: The recipient's.
    @ivar field: A header field with its CRLF that is added, or nothing.
    @ivar seen: True if nobody needs to read it.
    """

    account: str
    mailbox: str
    address: Address
    field: bytes = b""
    seen: bool = False


class StoreResult(Enum):
    """
    The result of storing a copy.
    """

    STORED = auto()
    FULL = auto()
    REFUSED = auto()
    LATER = auto()


def checkHeader(header: Header) -> Reply | None:
    """
    The reply to a message that is refused because of its header alone.
    """
    if header.data[:1] in (b" ", b"\t"):
        return HEADER_MALFORMED
    return MAIL_LOOP if isLooping(header.data) else None


def decide(outcome: AuthenticationOutcome, sender: str) -> Decision:
    """
    The decision by the author fields and the DMARC verdict.

    @param sender: MAIL FROM.
    """
    verdict = outcome.verdict
    state = outcome.authors.state
    if state is not FromField.READ:
        # Some DSN generators send no usable From.  With a null sender there is nobody
        # to notify, so file it as junk.
        if sender or state is FromField.REPEATED:
            return Decision(
                FinalDisposition.REJECTED, Reply(550, "5.6.0", f"Refused: {state}")
            )
        return Decision(FinalDisposition.JUNK)
    if outcome.isOverdue and _mayBeRefused(verdict):
        return Decision(FinalDisposition.REJECTED, DMARC_UNAVAILABLE)
    if verdict.disposition is DMARCPolicy.REJECT:
        reply = _refusal(verdict, outcome.authentication)
        return Decision(FinalDisposition.REJECTED_BY_DMARC, reply)
    isJunk = verdict.disposition is DMARCPolicy.QUARANTINE
    return Decision(FinalDisposition.JUNK if isJunk else FinalDisposition.ACCEPTED)


def _mayBeRefused(verdict: Verdict) -> bool:
    """
    True if a temporary error hides a policy that may ask for refusal; a domain
    without a policy asks for nothing (RFC 9989 5.4).
    """
    discovery = verdict.discovery
    isUnknown = discovery is None or discovery.record is None
    asks = isUnknown or verdict.policy is not DMARCPolicy.NONE
    return asks and verdict.status is AuthResult.TEMPERROR


def mayAnswerReport(
    localPart: str, isPostmaster: bool, sender: str, header: bytes
) -> bool:
    """
    True if a message may be a reply to one of our reports: a DSN or an automatic
    reply.  Reports are from the postmaster, with C{postmaster+token} as envelope
    sender.

    Many automatic responders don't follow RFC 3834: they reply to the address in
    From, with a non-null sender and without C{Auto-Submitted}.

    @param localPart: Of the recipient.
    @param sender: MAIL FROM.
    """
    return isPostmaster and (
        "+" in localPart or isAutomatic(sender, header) or _isAnswer(header)
    )


def isReport(verdict: Verdict, header: bytes) -> bool:
    """
    True if a message is a report of another host, to whatever address.  Reports may
    be forwarded here, and evaluating them would make two hosts, or one alone, report
    on reports for ever.

    Only for messages that pass DMARC, as reports have to (RFC 9990 3.5.2): else
    forged reports would keep the domain from being told of the forgery.
    """
    if verdict.status is not AuthResult.PASS:
        return False
    fields = headerFields(header)
    media, parameters = contentType(fields.get("content-type", ""))
    return (
        _REPORT.search(fields.get("subject", "")) is not None
        or "tls-report-domain" in fields
        or (
            media == "multipart/report"
            and parameters.get("report-type", "").lower() == "feedback-report"
        )
    )


def _isAnswer(header: bytes) -> bool:
    """
    True if a message is a reply, or is marked as automatic in a way older than RFC
    3834.
    """
    fields = headerFields(header)
    subject = " ".join(fields.get("subject", "").lower().split())
    return (
        not _ANSWERS.isdisjoint(fields)
        or fields.get("precedence", "").lower() in _PRECEDENCES
        or any(each in subject for each in _SUBJECTS)
    )


def verdictEvent(
    outcome: AuthenticationOutcome,
    decision: Decision,
    sender: str,
    recipient: Recipient,
    header: Header,
) -> VerdictEvent:
    """
    The event for observers, with the author taken as known.
    """
    localPart, isPostmaster = recipient.address.localPart, recipient.isPostmaster
    return VerdictEvent(
        outcome.authentication,
        outcome.verdict,
        decision.finalDisposition,
        sender,
        str(recipient.address),
        isForReports=recipient.isForReports
        or isReport(outcome.verdict, header.data)
        or mayAnswerReport(localPart, isPostmaster, sender, header.data),
        header=header.data,
    )


def needsHistory(event: VerdictEvent, reportsFailures: bool) -> bool:
    """
    True if the event depends on the sender history: DMARC was enforced, or a failure
    report is wanted.

    @param reportsFailures: True if failure reports are sent at all (RFC 9991).
    """
    if event.verdict.discovery is None:
        return False
    isHandled = event.finalDisposition is not FinalDisposition.ACCEPTED
    return isHandled or (reportsFailures and isWanted(event))


def planCopies(
    recipients: Iterable[Recipient],
    finalDisposition: FinalDisposition,
    accounts: Mapping[str, Account],
    reports: TakenReports | None = None,
) -> tuple[MailboxCopy, ...]:
    """
    The copies to be stored, at most one for each mailbox.  Refused messages go to
    accounts that have a mailbox for them.

    @param reports: For recipients that are for reports.
    """
    found: dict[tuple[str, str], MailboxCopy] = {}
    for recipient in recipients:
        for target in recipient.targets:
            mailbox = _mailbox(target, finalDisposition, accounts.get(target.account))
            if mailbox:
                copy = MailboxCopy(target.account, mailbox, target.address)
                if reports is not None and target.isForReports:
                    copy = replace(copy, field=reports.field, seen=reports.isAccepted)
                found.setdefault((target.account, mailbox), copy)
    return tuple(found.values())


def authenticatedOrganization(
    outcome: AuthenticationOutcome, decision: Decision
) -> Domain | None:
    """
    The organizational domain of the author if mail from it may be recorded as
    correspondence.  It isn't the author domain itself, as an owner has any number of
    subdomains, each of which would be recorded.

    @return: C{None} if the author isn't authenticated or the message isn't accepted.
    """
    verdict = outcome.verdict
    isProven = verdict.dkimAligned or verdict.spfAligned
    if not isProven or decision.finalDisposition is not FinalDisposition.ACCEPTED:
        return None
    discovery = verdict.discovery
    if discovery is None or discovery.temporary:
        return verdict.author
    return discovery.organizational


def withoutUnneeded(
    copies: Sequence[MailboxCopy], results: Sequence[StoreResult]
) -> list[StoreResult]:
    """
    The results, with copies that nobody needs to read taken as stored if they never
    can be: a full mailbox must not return reports that are in the ledger.
    """
    never = (StoreResult.FULL, StoreResult.REFUSED)
    return [
        StoreResult.STORED if copy.seen and result in never else result
        for copy, result in zip(copies, results, strict=True)
    ]


def replyFor(
    results: Sequence[StoreResult], finalDisposition: FinalDisposition
) -> Reply:
    """
    The reply to the client once the copies were stored or not.

    A message that was stored for one recipient isn't refused because of the others:
    see L{undelivered}.
    """
    if StoreResult.STORED in results:
        isMissing = (
            finalDisposition is FinalDisposition.JUNK and StoreResult.LATER in results
        )
        return TRY_LATER if isMissing else ACCEPTED
    if StoreResult.LATER in results:
        return TRY_LATER
    return OVER_QUOTA if StoreResult.FULL in results else REFUSED_BY_MAILBOX


def undelivered(
    copies: Sequence[MailboxCopy],
    results: Sequence[StoreResult],
    finalDisposition: FinalDisposition,
) -> tuple[MailboxCopy, ...]:
    """
    The copies that the queue has to deliver or to bounce; none if the client keeps
    the message.  Junk is never bounced.
    """
    if StoreResult.STORED not in results or finalDisposition is FinalDisposition.JUNK:
        return ()
    return tuple(
        copy
        for copy, result in zip(copies, results, strict=True)
        if result is not StoreResult.STORED
    )


def _mailbox(
    target: Target, finalDisposition: FinalDisposition, account: Account | None
) -> str:
    if target.account == HOST_ACCOUNT or account is None:
        places = {
            FinalDisposition.JUNK: JUNK,
            FinalDisposition.ACCEPTED: target.mailbox,
        }
    else:
        places = {
            FinalDisposition.JUNK: account.junkMailbox or JUNK,
            FinalDisposition.ACCEPTED: target.mailbox,
            FinalDisposition.REJECTED_BY_DMARC: account.rejectsMailbox,
        }
    return places.get(finalDisposition, "")


def _refusal(verdict: Verdict, authentication: Authentication) -> Reply:
    """
    RFC 9989 7.2: C{550 5.7.1}, and the word DMARC.
    """
    # Results for the author domain first.
    dkim = sorted(authentication.dkim, key=lambda each: each.domain != verdict.author)
    signatures = [f"{each.status} for {each.domain}" for each in dkim]
    signatures += [
        f"{AuthResult.PERMERROR}: {p}" for p in authentication.unreadableDKIM
    ]
    checks = (
        f"SPF {authentication.spf.status} for {authentication.spf.domain[:100]}",
        f"DKIM {', '.join(signatures[:3]) or 'none'}",
    )
    why = f"the DMARC policy of {verdict.author}"
    if verdict.policy is not DMARCPolicy.REJECT:
        why = f"what this host does about DMARC failures of {verdict.author}"
    lines = (
        f"Refused because of {why}:",
        "neither SPF nor DKIM authenticates the message for that domain",
        f"({'; '.join(checks)})",
    )
    return Reply(550, "5.7.1", "\n".join(lines))
