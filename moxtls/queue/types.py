# -*- test-case-name: tests.queue.test_types -*-
"""
Messages on their way out.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from pathlib import Path

from moxtls.domain import Address, InvalidAddress
from moxtls.smtp.server.data import validated


class ReportKind(StrEnum):
    """
    The two kinds of report that are sent.
    """

    TLS = "tls"
    DMARC = "dmarc"


@dataclass(frozen=True, slots=True)
class Envelope:
    """
    Where a message comes from and goes to, and what may happen on the way.

    @ivar sender: The reverse-path without angle brackets; empty for the null
        one.
    @ivar recipients: Addresses; or, for a report only, one C{https:} URI to
        which the body is posted.
    @ivar requireTLS: C{True}: RFC 8689 2 REQUIRETLS.  C{False}: the header
        field C{TLS-Required: No} of RFC 8689 3.  C{None}: neither.
    @ivar report: Of which kind of report of ours this is one, if it is one.
    @ivar key: Submitting the same non-empty key again adds nothing.
    @ivar maxAttempts: After how many attempts to give up; 0 for as many as
        the schedule has.
    @ivar contentType: Of the body, for a recipient that is a URI.
    @ivar response: Whether it exists because of another message: a program's
        answer to it, or a report on it.
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
        Whether its delivery may be the reason for a TLS report.

        Reports and what answers them would have hosts write to each other for
        ever.  Whether a response answers a report can't be told from it; most
        have the null reverse-path (RFC 5321 4.5.5, RFC 3834 4).
        """
        return self.report is None and not self.response and bool(self.sender)


class DeliveryStatus(Enum):
    """
    What an attempt came to for one recipient.
    """

    DELIVERED = "delivered"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Result:
    """
    How an attempt ended for one recipient of one message.

    @ivar messageID: The queue's, not the header field.
    @ivar status: Enhanced status code (RFC 3463), such as C{5.1.1}; never
        empty.
    @ivar code: That of the SMTP reply that decided; 0 if none did.
    @ivar text: For people: the reply as it was received, in one line; or, without
        C{code}, our words.  May hold a stranger's words.
    @ivar host: The host that it is about; empty if it didn't come to that.
    @ivar retryAfter: Seconds the other side asked us to wait, if it did.
    @ivar unreachable: Whether no host was reached that could have said
        anything about the message, so that the same holds for all mail to its
        destination.
    @ivar stored: Where a recipient's mail goes to several places: those that
        have it already, and are not to be given it again.
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
        Whether C{text} is a whole reply: couriers of others may leave its codes
        out.
        """
        return bool(self.code) and self.text.partition(" ")[0] == f"{self.code:03d}"

    @property
    def words(self) -> str:
        """
        C{text} with the codes of the reply in front, once; our own words have
        none.
        """
        if self.isReply or not self.code:
            return self.text
        words = (f"{self.code:03d}", self.status, self.text)
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """
    One message of a L{Batch}: those of its recipients that are in the
    batch's domain and due.

    @ivar path: The body: CRLF line ends, no dot-stuffing; must not be
        changed.
    @ivar stored: Recipients with what C{stored} of L{Result} has for them.
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
    Messages that can go out in one connection: one destination, one set of
    demands on TLS.

    @ivar destination: The recipients' domain (A-labels) or address literal,
        or the URI to post to.
    @ivar requireTLS: As in L{Envelope}.
    @ivar attempt: The highest number of attempts made so far for any of its
        recipients, this one included: 1 for the first.
    @ivar causesReports: As in L{Envelope}.
    """

    destination: str
    parcels: tuple[BatchMessage, ...]
    requireTLS: bool | None = None
    report: ReportKind | None = None
    attempt: int = 1
    causesReports: bool = True


class RecipientState(StrEnum):
    """
    Where a recipient of a queued message stands.
    """

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """
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
    A message in the queue, as shown to the postmaster.

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
    Whether a message is posted to C{recipient}, not mailed.
    """
    return recipient[:8].lower() == "https://"


def destinationOf(recipient: str) -> str:
    """
    Where mail for C{recipient} goes: its domain in A-labels or its address
    literal; a URI is its own destination.

    @raise InvalidAddress: C{recipient} is neither an address nor such a URI.
    """
    if isURI(recipient):
        return recipient
    return str(Address.parse(recipient).domain)


def accepted(envelope: Envelope) -> Envelope:
    """
    The same with each recipient once, if a queue can take it.

    @raise ValueError: There is no recipient, or one that is none
        (L{InvalidAddress}), or an address would reach over the end of a line.
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
    The chunks of a message, if a queue can take them.

    @raise InvalidMessage: On the way: there is something in it that our servers take
        from nobody.
    """
    # What is posted isn't mail: it may be compressed.
    return body if isURI(envelope.recipients[0]) else validated(body)
