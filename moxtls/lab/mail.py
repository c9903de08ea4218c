# -*- test-case-name: tests.lab.test_mail -*-
"""
Sends the lab's mail to every destination and from every sender, and observes the
results.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.utils import formatdate
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import deferLater
from twisted.mail.smtp import SMTPSender, SMTPSenderFactory, sendmail

from moxtls.interfaces import IQueue
from moxtls.lab.arrivals import Arrivals
from moxtls.lab.messages import INBOX, LabMessage, SenderKeys, messageID, writtenMessage
from moxtls.lab.plan import Network
from moxtls.lab.scenario import SENDER, LabDestination
from moxtls.lab.senders import BY_NAME, addressOf

#: Seconds without a reply, after which the client gives up.
POST_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class SMTPAnswer:
    """
    The last reply to a message.
    """

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """
    A message to be sent by SMTP.

    @ivar address: The source address.
    @ivar helo: The name in EHLO.
    @ivar sender: MAIL FROM; empty for the null sender.
    @ivar message: With CRLF.
    """

    address: str
    helo: str
    sender: str
    recipient: str
    message: bytes


class _Client(SMTPSender):
    """
    An SMTP client that returns the last reply, whatever it is.
    """

    def sentMail(
        self,
        code: int,
        resp: bytes,
        numOk: int,
        addresses: list[tuple[bytes, int, bytes]],
        log: object,
    ) -> None:
        if self.factory.sendFinished:
            # The result was cancelled.
            return
        if addresses and not numOk:
            _, code, resp = addresses[0]
        self.factory.sendFinished = True
        self.factory.result.callback(SMTPAnswer(code, resp.decode("utf-8", "replace")))


class _Clients(SMTPSenderFactory):
    noisy = False
    protocol = _Client


def post(
    reactor: IReactorTCP, to: tuple[str, int], outgoing: OutgoingMessage
) -> Deferred[SMTPAnswer]:
    """
    Send a message by SMTP.

    @param to: Address and port.

    @return: Fires with the reply to the message, or to its recipient; fails without a
        reply.  Cancelling it closes the connection.
    """

    def cancel(_: object) -> None:
        # No result is expected of the client any more.
        clients.sendFinished = True
        connector.disconnect()

    done: Deferred[SMTPAnswer] = Deferred(cancel)
    text = io.BytesIO(outgoing.message.replace(b"\r\n", b"\n"))
    clients = _Clients(
        outgoing.sender, outgoing.recipient, text, done, retries=0, timeout=POST_TIMEOUT
    )
    clients.domain = outgoing.helo.encode("ascii")
    connector = reactor.connectTCP(*to, clients, bindAddress=(outgoing.address, 0))
    return done


#: Of those who send and receive the lab's mail.
WRITER = f"alice@{SENDER}"
READER = "bob"
#: Seconds between two looks at the queue, and without any change there, after
#: which waiting ends.
LOOK = 0.1
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class MailOutcome:
    """
    The result of the mail to a destination.

    @ivar attempted: True if a delivery was attempted.
    @ivar detail: How it was delivered, or why not.
    """

    destination: LabDestination
    attempted: bool
    delivered: bool
    detail: str

    @property
    def asExpected(self) -> bool:
        return self.attempted and self.delivered == self.destination.delivered


def message(destination: LabDestination, now: float) -> bytes:
    """
    The message to a destination.
    """
    lines = (
        f"From: Alice <{WRITER}>",
        f"To: Bob <{READER}@{destination.domain}>",
        f"Subject: Hello, {destination.name}",
        f"Date: {formatdate(now)}",
        "",
        f"You are expected to be: {destination.explanation}.",
        "",
    )
    return "\n".join(lines).encode("ascii")


async def sendToAll(
    reactor: IReactorTime, network: Network, destinations: Sequence[LabDestination]
) -> None:
    """
    Submit one message for each destination, as a mail program would.
    """
    for each in destinations:
        await sendmail(
            network.submission,
            WRITER,
            f"{READER}@{each.domain}",
            message(each, reactor.seconds()),
            senderDomainName="laptop.test",
            port=network.submissionPort,
            reactor=reactor,
        )


async def awaitOutcomes(
    reactor: IReactorTime,
    queue: IQueue,
    arrivals: Arrivals,
    destinations: Sequence[LabDestination],
) -> tuple[MailOutcome, ...]:
    """
    Wait until each message was delivered, or its first attempt failed.
    """
    before: tuple[MailOutcome, ...] = ()
    changed = reactor.seconds()
    while True:
        outcomes = await _now(queue, arrivals, destinations)
        now = reactor.seconds()
        if outcomes != before:
            before, changed = outcomes, now
        done = all(each.attempted for each in outcomes)
        if done or now - changed >= TIMEOUT:
            return outcomes
        await deferLater(reactor, LOOK)


async def _now(
    queue: IQueue, arrivals: Arrivals, destinations: Sequence[LabDestination]
) -> tuple[MailOutcome, ...]:
    waiting = {}
    for queued in await queue.messages():
        for each in queued.recipients:
            result = each.lastResult
            waiting[each.destination] = "" if result is None else result.text
    return tuple(_outcome(each, arrivals, waiting) for each in destinations)


def _outcome(
    destination: LabDestination, arrivals: Arrivals, waiting: dict[str, str]
) -> MailOutcome:
    arrived = arrivals.at(destination.domain)
    # While it is in the queue too, the attempt hasn't ended, and what TLS came to
    # isn't recorded.
    if arrived and destination.domain not in waiting:
        # The TLS version suffices for the table.
        tls = arrived[-1].tls.partition(" ")[0] or "in the clear"
        return MailOutcome(destination, True, True, f"{arrived[-1].host}, {tls}")
    reason = waiting.get(destination.domain, "")
    return MailOutcome(destination, bool(reason), False, reason)


_RESULT = re.compile(r"(\w+)=(\w+)")
_DOMAIN = re.compile(r"header\.d=([^\s;]+)")
_DISPOSITION = re.compile(r"\(disposition (\w+)")
# What a refusal says of the checks, where there is nothing else to see.
_REFUSED_SPF = re.compile(r"\(SPF (\w+)")
_REFUSED_DKIM = re.compile(r"(\w+) for ([^\s,;)]+)")


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """
    The authentication results of a message in a mailbox.

    @ivar dkim: The result of each signature, by its domain.
    """

    spf: str = ""
    dkim: tuple[tuple[str, str], ...] = ()
    dmarc: str = ""
    disposition: str = "none"


def findMessage(maildir: Path, messageID: str) -> tuple[str, Message] | None:
    """
    Find a message in the mailboxes of an account.

    @param maildir: Of one account (Maildir++).

    @return: The name of its mailbox, and the message; C{None} if there is none.
    """
    for path in _files(maildir):
        message = message_from_bytes(path.read_bytes())
        if message["Message-ID"] == messageID:
            folder = path.parent.parent
            name = INBOX if folder == maildir else folder.name[1:].replace(".", "/")
            return name, message
    return None


def seenOn(message: Message) -> FoundMessage:
    """
    The results in the topmost C{Authentication-Results} (RFC 8601).
    """
    spf = dmarc = ""
    signatures: list[tuple[str, str]] = []
    disposition = "none"
    for group in re.split(r";\r?\n", message["Authentication-Results"] or ""):
        found = _RESULT.search(group)
        if found is None:
            continue
        method, result = found.groups()
        if method == "spf":
            spf = spf or result
        elif method == "dmarc":
            dmarc = result
            done = _DISPOSITION.search(group)
            disposition = done[1] if done else disposition
        elif method == "dkim" and (domain := _DOMAIN.search(group)):
            signatures.append((domain[1], result))
    return FoundMessage(spf, tuple(signatures), dmarc, disposition)


def seenIn(refusal: str) -> FoundMessage:
    """
    The results in the text of a rejection by DMARC.
    """
    text = refusal.replace("\n", " ")
    spf, _, signatures = text.partition("; DKIM ")
    found = _REFUSED_SPF.search(spf)
    dkim = tuple(
        (domain, result) for result, domain in _REFUSED_DKIM.findall(signatures)
    )
    isRefused = found is not None and "DMARC" in text
    return FoundMessage(
        found[1] if found else "",
        dkim,
        "fail" if isRefused else "",
        "reject" if isRefused else "none",
    )


def _files(maildir: Path) -> Iterator[Path]:
    for folder in (maildir, *sorted(maildir.glob(".*"))):
        for name in ("new", "cur"):
            yield from sorted((folder / name).glob("*"))


#: The results of a message that was not accepted and isn't in a mailbox: unknown.
_UNKNOWN = FoundMessage()


@dataclass(frozen=True, slots=True)
class ReceptionOutcome:
    """
    The result of a message from a sender.

    @ivar mailbox: Its mailbox; empty if there is none.
    @ivar seen: Its authentication results.
    """

    labMessage: LabMessage
    answer: SMTPAnswer
    mailbox: str
    seen: FoundMessage

    @property
    def differences(self) -> tuple[str, ...]:
        """
        Differences from the expected results, one line each.
        """
        return tuple(f"{self.labMessage.name}: {each}" for each in self._differences())

    def _differences(self) -> Iterator[str]:
        expected, seen = self.labMessage.expected, self.seen
        values: dict[str, tuple[object, object]] = {
            "reply": (self.answer.code, expected.code),
            "mailbox": (self.mailbox, expected.mailbox),
            "SPF": (seen.spf, expected.spf),
            "DKIM": (seen.dkim, expected.dkim),
            "DMARC": (seen.dmarc, expected.dmarc),
            "disposition": (seen.disposition, expected.disposition),
        }
        for name, (is_, should) in values.items():
            if is_ != should:
                yield f"{name} is {is_!r}, not {should!r}"


@dataclass(frozen=True, slots=True)
class Route:
    """
    The way of messages from senders to moxtls.

    @ivar accounts: The folder with the Maildirs of accounts.
    @ivar newToken: Returns letters and digits, never the same twice.
    """

    network: Network
    keys: SenderKeys
    accounts: Path
    newToken: Callable[[], str]


async def receiveAll(
    reactor: IReactorTime, route: Route, labMessages: Sequence[LabMessage]
) -> tuple[ReceptionOutcome, ...]:
    """
    Send each of C{labMessages}, one after the other, and observe its result.

    @param reactor: Also provides C{IReactorTCP}.

    @raise twisted.mail.smtp.SMTPClientError: There was no reply.
    """
    return tuple([await _receive(reactor, route, each) for each in labMessages])


async def _receive(
    reactor: IReactorTime, route: Route, labMessage: LabMessage
) -> ReceptionOutcome:
    network, token = route.network, route.newToken()
    client = BY_NAME[labMessage.client]
    outgoing = OutgoingMessage(
        addressOf(network, client),
        client.host,
        f"bounces@{labMessage.envelope}" if labMessage.envelope else "",
        labMessage.recipient,
        writtenMessage(labMessage, route.keys, reactor.seconds(), token),
    )
    to = (network.submission, network.smtpPort)
    answer = await post(IReactorTCP(reactor), to, outgoing)
    # It is on the disk before there is an answer.
    found = findMessage(route.accounts / labMessage.to, messageID(labMessage, token))
    if found is not None:
        mailbox, message = found
        return ReceptionOutcome(labMessage, answer, mailbox, seenOn(message))
    seen = seenIn(answer.text) if answer.code >= 400 else _UNKNOWN
    return ReceptionOutcome(labMessage, answer, "", seen)
