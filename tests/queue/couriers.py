"""
Couriers, observers and mailboxes with configurable answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from moxtls.interfaces import (
    ICourier,
    IMailbox,
    IReportObserver,
    IResultRecorder,
)
from moxtls.queue.types import Batch, DeliveryStatus, Envelope, Result


def delivered(batch: Batch) -> tuple[Result, ...]:
    """
    Report delivery to all recipients.
    """
    return resultsFor(batch, DeliveryStatus.DELIVERED, "2.0.0")


def deferred(batch: Batch) -> tuple[Result, ...]:
    """
    Report a temporary failure of all recipients.
    """
    return resultsFor(batch, DeliveryStatus.TEMPORARY, "4.2.1", 450, "later")


def refused(batch: Batch) -> tuple[Result, ...]:
    """
    Report a permanent failure of all recipients.
    """
    return resultsFor(batch, DeliveryStatus.PERMANENT, "5.1.1", 550, "no such user")


def unreachable(batch: Batch) -> tuple[Result, ...]:
    """
    Report that no host of the destination can be reached.
    """
    results = resultsFor(batch, DeliveryStatus.TEMPORARY, "4.4.1", 0, "nobody there")
    return tuple(replace(each, unreachable=True) for each in results)


def resultsFor(
    batch: Batch, ending: DeliveryStatus, status: str, code: int = 250, text: str = "ok"
) -> tuple[Result, ...]:
    """
    The same result for each recipient of C{batch}.
    """
    return tuple(
        Result(item.messageID, recipient, ending, status, code, text, "mx.example")
        for item in batch.messages
        for recipient in item.recipients
    )


@implementer(ICourier)
class FakeCourier:
    """
    Courier that keeps its batches and gives the configured answer.

    @ivar answer: Returns the results of a batch at once; with C{None}, attempts stay
        pending.

    @ivar pending: Attempts without an answer, oldest first.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.pending: list[tuple[Batch, Deferred[tuple[Result, ...]]]] = []
        self.answer: Callable[[Batch], tuple[Result, ...]] | None = delivered

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        self.recorder = recorder
        self.batches.append(batch)
        if self.answer is not None:
            return succeed(self.answer(batch))
        result: Deferred[tuple[Result, ...]] = Deferred()
        self.pending.append((batch, result))
        return result

    def finish(self, answer: Callable[[Batch], tuple[Result, ...]]) -> None:
        """
        Finish the oldest pending attempt.
        """
        batch, result = self.pending.pop(0)
        result.callback(answer(batch))


@implementer(IReportObserver)
class FakeObserver:
    """
    Observer that keeps the reports it is notified of.

    @ivar broken: Whether notifications fail.
    """

    def __init__(self) -> None:
        self.notifications: list[tuple[Envelope, Result]] = []
        self.broken = False

    def reportEnded(self, envelope: Envelope, result: Result) -> Deferred[None]:
        if self.broken:
            return fail(OSError("no ledger"))
        self.notifications.append((envelope, result))
        return succeed(None)


@implementer(IMailbox)
class FakeMailbox:
    """
    Mailbox that keeps messages in memory.

    @ivar broken: Whether deliveries fail.
    """

    def __init__(self) -> None:
        self.deliveries: list[tuple[str, bytes, bool]] = []
        self.broken = False

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        if self.broken:
            return fail(OSError("no room"))
        self.deliveries.append((mailbox, b"".join(message), seen))
        return succeed(None)

    def hasRoom(self, size: int) -> Deferred[bool]:
        return succeed(True)
