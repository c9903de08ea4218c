# -*- test-case-name: tests.lab.test_run -*-
"""
Mail to every destination, and what becomes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.mail.smtp import sendmail

from moxtls.interfaces import IQueue
from moxtls.lab.arrivals import Arrivals
from moxtls.lab.conditions import SENDER, LabDestination
from moxtls.lab.network import Network

#: Of those who send and receive the lab's mail.
WRITER = f"alice@{SENDER}"
READER = "bob"
#: Seconds between two looks at the queue, and without any change there, after
#: which nobody waits.
LOOK = 0.1
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class MailOutcome:
    """
    What became of the mail to a destination.

    @ivar attempted: Whether it was tried at all.
    @ivar detail: In what way it was delivered, or why it wasn't.
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
    A mail to a destination.
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
    Submit one mail for each destination, as any mail program would.
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


async def becameOf(
    reactor: IReactorTime,
    queue: IQueue,
    arrivals: Arrivals,
    destinations: Sequence[LabDestination],
) -> tuple[MailOutcome, ...]:
    """
    Wait until each mail was delivered, or attempted once in vain.
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
        # The version will do for people.
        tls = arrived[-1].tls.partition(" ")[0] or "in the clear"
        return MailOutcome(destination, True, True, f"{arrived[-1].place}, {tls}")
    reason = waiting.get(destination.domain, "")
    return MailOutcome(destination, bool(reason), False, reason)
