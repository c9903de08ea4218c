"""
Couriers, observers and mailboxes that do as they are told.
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
    Everything arrives.
    """
    return ended(batch, DeliveryStatus.DELIVERED, "2.0.0")


def deferred(batch: Batch) -> tuple[Result, ...]:
    """
    All recipients are deferred.
    """
    return ended(batch, DeliveryStatus.TEMPORARY, "4.2.1", 450, "later")


def refused(batch: Batch) -> tuple[Result, ...]:
    """
    Nobody is wanted.
    """
    return ended(batch, DeliveryStatus.PERMANENT, "5.1.1", 550, "no such user")


def unreachable(batch: Batch) -> tuple[Result, ...]:
    """
    No host is there.
    """
    results = ended(batch, DeliveryStatus.TEMPORARY, "4.4.1", 0, "nobody there")
    return tuple(replace(each, unreachable=True) for each in results)


def ended(
    batch: Batch, ending: DeliveryStatus, status: str, code: int = 250, text: str = "ok"
) -> tuple[Result, ...]:
    """
    The same result for everybody.
    """
    return tuple(
        Result(item.messageID, recipient, ending, status, code, text, "mx.example")
        for item in batch.messages
        for recipient in item.recipients
    )


@implementer(ICourier)
class FakeCourier:
    """
    Keeps the batches it gets.

    @ivar answer: What it says at once; C{None} to say nothing.
    @ivar pending: What it has said nothing about yet.
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

    def finish(self, how: Callable[[Batch], tuple[Result, ...]]) -> None:
        """
        Answer the attempt that began first.
        """
        batch, result = self.pending.pop(0)
        result.callback(how(batch))


@implementer(IReportObserver)
class FakeObserver:
    """
    @ivar broken: Whether it fails.
    """

    def __init__(self) -> None:
        self.told: list[tuple[Envelope, Result]] = []
        self.broken = False

    def reportEnded(self, envelope: Envelope, result: Result) -> Deferred[None]:
        if self.broken:
            return fail(OSError("no ledger"))
        self.told.append((envelope, result))
        return succeed(None)


@implementer(IMailbox)
class FakeMailbox:
    """
    @ivar broken: Whether it fails.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[str, bytes, bool]] = []
        self.broken = False

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        if self.broken:
            return fail(OSError("no room"))
        self.kept.append((mailbox, b"".join(message), seen))
        return succeed(None)

    def hasRoom(self, size: int) -> Deferred[bool]:
        return succeed(True)
