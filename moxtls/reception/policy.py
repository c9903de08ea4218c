# -*- test-case-name: tests.reception.test_policy -*-
"""
What becomes of a message, for each of its recipients.  No I/O.

Reading of RFC 9989 5.3.6, 7.4: a message that can't be judged for now is
accepted, as its sender can do nothing about that, and mail isn't lost for it.
But not where that is because we didn't wait any longer: it is to come again, as
whoever keeps us waiting would have any policy suspended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.authentication.results import Authentication, AuthResult
from moxtls.config import Account
from moxtls.dmarc.failure import isAutomatic, isWanted
from moxtls.dmarc.types import DMARCPolicy, FinalDisposition, Verdict, VerdictEvent
from moxtls.domain import Address, Domain
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.message.addresses import FromField
from moxtls.message.header import Header, headerFields
from moxtls.message.mime import contentType
from moxtls.message.trace import MAIL_LOOP, isLooping
from moxtls.reception.recipients import Role, Target
from moxtls.smtp.types import Reply

#: Of this host itself, as of accounts that don't say otherwise.
JUNK = "Junk"

#: It would go on with a field that we put in front of it.
HEADER_MALFORMED = Reply(550, "5.6.0", "The header begins in the middle of a field")
TRY_LATER = Reply(451, "4.3.0", "The message can't be kept now; try again later")
DMARC_UNAVAILABLE = Reply(451, "4.7.0", "DMARC can't be checked now; try again later")
ACCEPTED = Reply(250, "2.0.0", "OK")
OVER_QUOTA = Reply(552, "5.2.2", "The mailbox is full")
REFUSED_BY_MAILBOX = Reply(550, "5.7.1", "The mailbox doesn't take this message")

# RFC 9990 3.5.2, RFC 8460 5.3; whatever a forwarder puts in front of it.
_REPORT = re.compile(
    r"\breport\s+domain:\s*\S+\s+submitter:\s*\S+\s+report-id:", re.IGNORECASE
)
#: Fields of messages that answer others (RFC 5322 3.6.4), or that programs write.
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
#: What answers to reports repeat of their subjects (RFC 9990 3.5.2, RFC 8460 5.3;
#: failure reports of ours).
_SUBJECTS = ("report domain:", "dmarc failure report for", "dmarc aggregate report")


@dataclass(frozen=True, slots=True)
class Recipient:
    """
    @ivar address: As in RCPT.
    @ivar targets: Where its mail goes.
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
        Whether it looks like the envelope sender of a report of ours.
        """
        return "+" in self.address.localPart and self.isPostmaster


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What is done with a message, whoever it is for.

    @ivar refusal: What the client is told if it isn't taken.
    """

    finalDisposition: FinalDisposition
    refusal: Reply | None = None


@dataclass(frozen=True, slots=True)
class MailboxCopy:
    """
    What is put into one mailbox.

    @ivar address: Whose it is.
    """

    account: str
    mailbox: str
    address: Address


class StoreResult(Enum):
    """
    What came of storing a copy.
    """

    STORED = auto()
    FULL = auto()
    REFUSED = auto()
    LATER = auto()


def checkHeader(header: Header) -> Reply | None:
    """
    What is to be said against a message of which nothing else is looked at.
    """
    if header.data[:1] in (b" ", b"\t"):
        return HEADER_MALFORMED
    return MAIL_LOOP if isLooping(header.data) else None


def decide(outcome: AuthenticationOutcome, sender: str) -> Decision:
    """
    @param sender: MAIL FROM.
    """
    verdict = outcome.verdict
    state = outcome.authors.state
    if state is not FromField.READ:
        # Of whoever sends DSNs some know no address of theirs; they get no
        # DSN about it either.
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
    Whether it isn't known what is wanted done: where nothing is, nothing depends
    on it (RFC 9989 5.4).
    """
    discovery = verdict.discovery
    isUnknown = discovery is None or discovery.record is None
    asks = isUnknown or verdict.policy is not DMARCPolicy.NONE
    return asks and verdict.status is AuthResult.TEMPERROR


def mayAnswerReport(
    localPart: str, isPostmaster: bool, sender: str, header: bytes
) -> bool:
    """
    Whether a message may answer a report of ours, as a DSN or as what a program
    says to anybody: reports are from the postmaster, and their envelope sender
    is C{postmaster+token}.

    Many such programs know nothing of RFC 3834: they write to whom From names, with
    a sender, and leave out C{Auto-Submitted}.

    @param localPart: Of the recipient.
    @param sender: MAIL FROM.
    """
    return isPostmaster and (
        "+" in localPart or isAutomatic(sender, header) or _isAnswer(header)
    )


def isReport(verdict: Verdict, header: bytes) -> bool:
    """
    Whether a message is a report of others, wherever it comes to: what a domain
    has sent to somebody else may be forwarded to us, so that two hosts, or even one
    alone, would go on reporting on reports for ever.

    Only if it passes, as reports have to (RFC 9990 3.5.2): else whoever forges a
    domain could keep it from being told of that.
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
    Whether a message answers another one, or says in older ways that a program
    wrote it.
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
    What observers are told, as if the author were known.
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
    Whether it makes a difference if the author is known: where DMARC has been
    held against a message, or somebody wants to be told of it.

    @param reportsFailures: Whether anybody ever is (RFC 9991).
    """
    if event.verdict.discovery is None:
        return False
    isHandled = event.finalDisposition is not FinalDisposition.ACCEPTED
    return isHandled or (reportsFailures and isWanted(event))


def planCopies(
    recipients: Iterable[Recipient],
    finalDisposition: FinalDisposition,
    accounts: Mapping[str, Account],
) -> tuple[MailboxCopy, ...]:
    """
    What goes where; of several to one mailbox, one.  What is refused goes to
    who wants to see that.
    """
    found: dict[tuple[str, str], MailboxCopy] = {}
    for recipient in recipients:
        for target in recipient.targets:
            mailbox = _mailbox(target, finalDisposition, accounts.get(target.account))
            if mailbox:
                copy = MailboxCopy(target.account, mailbox, target.address)
                found.setdefault((target.account, mailbox), copy)
    return tuple(found.values())


def authenticatedOrganization(
    outcome: AuthenticationOutcome, decision: Decision
) -> Domain | None:
    """
    The organization of the author, if mail from it is a sign that it is somebody
    whom one hears from: whoever has one domain has any number below it, each of
    which would be remembered.
    """
    verdict = outcome.verdict
    isProven = verdict.dkimAligned or verdict.spfAligned
    if not isProven or decision.finalDisposition is not FinalDisposition.ACCEPTED:
        return None
    discovery = verdict.discovery
    if discovery is None or discovery.temporary:
        return verdict.author
    return discovery.organizational


def replyFor(
    results: Sequence[StoreResult], finalDisposition: FinalDisposition
) -> Reply:
    """
    What the client is told, once its message was stored or not.

    A message that is there for one recipient isn't sent again because of the
    others, who would be all that is left over: see L{undelivered}.
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
    What the queue is to see to, or to tell the sender of: none if the client
    still has the message.  Junk never comes back.
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
    # What is told first is what speaks for the author, or nearly does.
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
        "nothing in the name of that domain says that the message is from it",
        f"({'; '.join(checks)})",
    )
    return Reply(550, "5.7.1", "\n".join(lines))
