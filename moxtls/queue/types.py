# -*- test-case-name: tests.queue.test_types -*-
"""
Queued messages, delivery batches and delivery results; recognizes automatic responses
among submitted messages.  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from pathlib import Path

from moxtls.domain import Address, InvalidAddress
from moxtls.smtp.server.data import validated


class ReportKind(StrEnum):
    """
    The kinds of reports that are sent.
    """

    TLS = "tls"
    DMARC = "dmarc"


@dataclass(frozen=True, slots=True)
class Envelope:
    """
    The envelope of a submitted message, with options for its delivery.

    @ivar sender: The reverse-path without angle brackets; empty for the null
        reverse-path.
    @ivar recipients: Addresses; or, for a report only, one C{https:} URI to
        which the body is posted.
    @ivar requireTLS: C{True}: RFC 8689 2 REQUIRETLS.  C{False}: the header
        field C{TLS-Required: No} of RFC 8689 3.  C{None}: neither.
    @ivar report: The kind of report that the message is; C{None} for other messages.
    @ivar key: A submission with the same non-empty key adds no second message.
    @ivar maxAttempts: The number of attempts after which to give up; 0 if only the
        schedule limits them.
    @ivar contentType: The media type of the body, for a recipient that is a URI.
    @ivar response: True if another message caused it: an automatic response, or a
        report on a message.
    """

    sender: str
    recipients: tuple[str, ...]
    eightBit: bool = False
    smtputf8: bool = False
    requireTLS: bool | None = None
    report: ReportKind | None = None
    key: str = ""
    maxAttempts: int = 0
    contentType: str = ""
    response: bool = False

    @property
    def causesReports(self) -> bool:
        """
        True if its delivery counts for TLS reports.

        With reports and responses to them, two hosts would send each other reports
        forever.  A response doesn't show if it answers a report; most responses have
        the null reverse-path (RFC 5321 4.5.5, RFC 3834 4).
        """
        return self.report is None and not self.response and bool(self.sender)


class DeliveryStatus(Enum):
    """
    The kind of result of an attempt for one recipient.
    """

    DELIVERED = "delivered"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Result:
    """
    The result of an attempt for one recipient of one message.

    @ivar messageID: The queue's id, not the header field.
    @ivar status: Enhanced status code (RFC 3463), such as C{5.1.1}; never
        empty.
    @ivar code: The code of the SMTP reply that decided; 0 if none did.
    @ivar text: For people: the reply as it was received, in one line; or, without
        C{code}, a local text.  Not to be trusted: may come from a remote host.
    @ivar host: The host that replied or failed; empty if there was none.
    @ivar retryAfter: Seconds that the remote host requested to wait, if it did.
    @ivar unreachable: True if no host of the destination was reached, so that the
        same holds for all messages to it.
    @ivar stored: For a recipient with several mailboxes: those that have the message
        already, and must not get it again.
    """

    messageID: str
    recipient: str
    ending: DeliveryStatus
    status: str
    code: int = 0
    text: str = ""
    host: str = ""
    retryAfter: int | None = None
    unreachable: bool = False
    stored: tuple[str, ...] = ()

    @property
    def isReply(self) -> bool:
        """
        True if C{text} is a complete reply: some couriers may leave out its codes.
        """
        return bool(self.code) and self.text.partition(" ")[0] == f"{self.code:03d}"

    @property
    def words(self) -> str:
        """
        C{text} after the codes of the reply, if there was one.
        """
        if self.isReply or not self.code:
            return self.text
        words = (f"{self.code:03d}", self.status, self.text)
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """
    A message of a L{Batch}, with its due recipients in the batch's domain.

    @ivar path: The message: CRLF line ends, no dot-stuffing; must not be changed.
    @ivar stored: Pairs of a recipient and one value of its C{Result.stored}.
    """

    messageID: str
    sender: str
    recipients: tuple[str, ...]
    path: Path
    size: int
    eightBit: bool = False
    smtputf8: bool = False
    contentType: str = ""
    stored: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Messages that can be delivered over one connection: they have one destination and
    the same TLS requirements.

    @ivar destination: The recipients' domain (A-labels) or address literal, or the URI
        to post to.
    @ivar requireTLS: As in L{Envelope}.
    @ivar attempt: The highest number of attempts for any of its recipients, including
        this one: 1 for the first.
    @ivar causesReports: As in L{Envelope}.
    """

    destination: str
    messages: tuple[BatchMessage, ...]
    requireTLS: bool | None = None
    report: ReportKind | None = None
    attempt: int = 1
    causesReports: bool = True


class RecipientState(StrEnum):
    """
    The state of a recipient of a queued message.
    """

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """
    A recipient of a queued message, and the state of its delivery.

    @ivar nextAttempt: Unix seconds.
    @ivar lastResult: C{None} before the first attempt.
    @ivar stored: As of L{Result}, of all attempts together.
    """

    recipient: str
    destination: str
    state: RecipientState
    attempts: int
    nextAttempt: float
    lastResult: Result | None
    stored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """
    A message in the queue.

    @ivar queued: Unix seconds.
    @ivar held: Held messages are not attempted until released.
    """

    messageID: str
    envelope: Envelope
    size: int
    queued: float
    held: bool
    path: Path
    recipients: tuple[QueuedRecipient, ...]


def isURI(recipient: str) -> bool:
    """
    True if messages are posted to C{recipient}, rather than mailed.
    """
    return recipient[:8].lower() == "https://"


def destinationOf(recipient: str) -> str:
    """
    The destination of messages to C{recipient}: its domain in A-labels, its address
    literal, or its URI.

    @raise InvalidAddress: C{recipient} is neither an address nor such a URI.
    """
    if isURI(recipient):
        return recipient
    return str(Address.parse(recipient).domain)


def accepted(envelope: Envelope) -> Envelope:
    """
    Check an envelope for submission, and remove repeated recipients.

    @raise ValueError: There is no recipient, an invalid one (L{InvalidAddress}), or an
        address with unprintable characters such as line ends.
    """
    recipients = tuple(dict.fromkeys(envelope.recipients))
    if not recipients:
        raise ValueError("a message needs a recipient")
    for address in (envelope.sender, *recipients):
        if not address.isprintable():
            raise InvalidAddress(f"{address!r} is not a mail address")
    for recipient in recipients:
        destinationOf(recipient)
    return replace(envelope, recipients=recipients)


def acceptedBody(envelope: Envelope, body: Iterable[bytes]) -> Iterable[bytes]:
    """
    Check a message for submission, chunk by chunk.

    @raise InvalidMessage: During iteration, as the SMTP server would reject it.
    """
    # A body that is posted isn't mail: it may be compressed.
    return body if isURI(envelope.recipients[0]) else validated(body)


# RFC 3834 5: "auto-generated" marks no response, and is common.
_REPLIED = re.compile(
    rb"^Auto-Submitted[ \t]*:\s*(?:\([^()]*\)\s*)?auto-replied\b",
    re.IGNORECASE | re.MULTILINE,
)
# RFC 6522 3: DSNs, MDNs, TLS reports and failure reports.
_REPORT = re.compile(
    rb"^Content-Type[ \t]*:\s*(?:\([^()]*\)\s*)?multipart/report\b",
    re.IGNORECASE | re.MULTILINE,
)


def isResponse(header: bytes) -> bool:
    """
    True if a message was caused by another one: an automatic response (RFC 3834 5), or
    a report on it (RFC 6522).
    """
    return bool(_REPLIED.search(header) or _REPORT.search(header))
