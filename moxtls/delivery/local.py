# -*- test-case-name: tests.delivery.test_local -*-
"""
Delivers mail to the mailboxes of local accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.domain import Address, InvalidAddress
from moxtls.interfaces import ICourier, IMailbox, IResultRecorder
from moxtls.mailbox.names import MailboxFull, MailboxRefused, MailboxUnavailable
from moxtls.message.spooled import CHUNK, LazyChunks
from moxtls.outages import logUnlessOutage
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus, Result
from moxtls.received.types import TakenReports
from moxtls.reception.recipients import DirectoryResult, NoSuchUser, NotLocal, Target
from moxtls.smtp.types import Reply

#: Seconds for mailboxes to finish when an attempt is cancelled: a mailbox may store
#: a message after its delivery was cancelled.
FINISH_TIMEOUT = 10.0

TakeReport = Callable[[Path, str, Target], Coroutine[Deferred[Any], Any, TakenReports]]


class _Outcome(NamedTuple):
    """
    @ivar code: The code of the server's reply in C{text}; 0 without one.
    """

    ending: DeliveryStatus
    status: str
    text: str
    code: int = 0


_STORED = _Outcome(DeliveryStatus.DELIVERED, "2.0.0", "stored")
_CANCELLED = _Outcome(
    DeliveryStatus.TEMPORARY, "4.3.2", "not all mailboxes have it yet"
)
#: From best to worst: the worst one counts.
_ORDER = (DeliveryStatus.DELIVERED, DeliveryStatus.PERMANENT, DeliveryStatus.TEMPORARY)


@implementer(ICourier)
class LocalCourier:
    """
    Delivers to mailboxes.
    """

    def __init__(
        self,
        clock: IReactorTime,
        find: Callable[[Address], DirectoryResult],
        mailboxOf: Callable[[str], IMailbox],
        takeReport: TakeReport | None = None,
    ) -> None:
        """
        @param find: Returns the mailboxes for mail to an address.
        @param mailboxOf: Returns the mailboxes of an account.
        @param takeReport: Takes in reports of this host, about its own domains, for
            an address that is for reports; C{None} if they are only delivered.
        """
        self._clock = clock
        self._find = find
        self._mailboxOf = mailboxOf
        self._takeReport = takeReport

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        """
        Store messages, all at the same time.
        """
        # The queue knows what this host itself has made; a user's mail may be forged.
        take = None if batch.report is None else self._takeReport
        attempt = _Attempt(self._find, self._mailboxOf, recorder, take)
        return Deferred.fromCoroutine(attempt.run(self._clock, batch))


class _Attempt:
    """
    One attempt to store messages.
    """

    log = Logger()

    def __init__(
        self,
        find: Callable[[Address], DirectoryResult],
        mailboxOf: Callable[[str], IMailbox],
        recorder: IResultRecorder,
        takeReport: TakeReport | None,
    ) -> None:
        self._find = find
        self._mailboxOf = mailboxOf
        self._recorder = recorder
        self._takeReport = takeReport
        self._results: list[Result] = []
        self._isCancelled = False

    async def run(self, clock: IReactorTime, batch: Batch) -> tuple[Result, ...]:
        deliveries = [
            Deferred.fromCoroutine(self._deliver(message, recipient))
            for message in batch.messages
            for recipient in message.recipients
        ]
        for each in deliveries:
            each.addErrback(self._failed)
        ended: Deferred[None] = Deferred()

        def allEnded(results: object) -> None:
            # Unless it was cancelled.
            if not ended.called:
                ended.callback(None)

        DeferredList(deliveries).addCallback(allEnded)
        try:
            await ended
        except CancelledError:
            self._isCancelled = True
            await self._finish(clock, deliveries)
        return tuple(self._results)

    async def _finish(
        self, clock: IReactorTime, deliveries: Sequence[Deferred[None]]
    ) -> None:
        """
        Wait for the mailboxes for at most L{FINISH_TIMEOUT} seconds.
        """

        def cancel() -> None:
            for each in deliveries:
                each.cancel()

        end = clock.callLater(FINISH_TIMEOUT, cancel)
        try:
            await DeferredList(deliveries)
        finally:
            if end.active():
                end.cancel()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("delivery to a local mailbox failed", failure)

    async def _deliver(self, message: BatchMessage, recipient: str) -> None:
        try:
            found = self._find(Address.parse(recipient))
        except InvalidAddress:
            found = None
        stored = [mailbox for to, mailbox in message.stored if to == recipient]
        outcome = await self._deliverTo(message, found, stored)
        if outcome is _CANCELLED and not stored:
            return
        ending, status, text, code = outcome
        if ending is not DeliveryStatus.TEMPORARY:
            stored.clear()
        result = Result(
            message.messageID,
            recipient,
            ending,
            status,
            code,
            text,
            stored=tuple(stored),
        )
        self._results.append(result)
        await self._recorder.record([result])

    async def _deliverTo(
        self, message: BatchMessage, found: DirectoryResult | None, stored: list[str]
    ) -> _Outcome:
        """
        @param stored: The mailboxes that have the message; extended by those
            that store it now.
        """
        if found is None:
            return _Outcome(DeliveryStatus.PERMANENT, "5.1.3", "not an address")
        if isinstance(found, NotLocal):
            return _Outcome(
                DeliveryStatus.PERMANENT, "5.1.2", "not a domain of this host"
            )
        if isinstance(found, NoSuchUser):
            return _Outcome(DeliveryStatus.PERMANENT, "5.1.1", "no such user")
        outcomes = [_STORED]
        for target in found:
            mailbox = f"{target.account}/{target.mailbox}"
            if mailbox not in stored:
                outcome = await self._store(message, target)
                outcomes.append(outcome)
                if outcome is _STORED:
                    stored.append(mailbox)
        return max(outcomes, key=lambda outcome: _ORDER.index(outcome.ending))

    async def _store(self, message: BatchMessage, target: Target) -> _Outcome:
        if self._isCancelled:
            return _CANCELLED
        try:
            mailbox = self._mailboxOf(target.account)
            header, seen = _traceFields(message, target), False
            if self._takeReport is not None and target.isForReports:
                taken = await self._takeReport(message.path, message.sender, target)
                header, seen = header + taken.field, taken.isAccepted
            await mailbox.deliver(target.mailbox, _Body(header, message.path), seen)
        except CancelledError:
            return _CANCELLED
        except MailboxFull:
            # RFC 3463 3.3: X.2.2 is a persistent transient failure.
            return _Outcome(DeliveryStatus.TEMPORARY, "4.2.2", "the mailbox is full")
        except MailboxRefused as refused:
            return _serverOutcome(
                DeliveryStatus.PERMANENT, "5.2.0", refused.reason, refused.reply
            )
        except MailboxUnavailable as why:
            return _serverOutcome(
                DeliveryStatus.TEMPORARY, "4.2.0", why.reason, why.reply
            )
        except Exception:
            logUnlessOutage(
                self.log,
                "delivery to {address!r} failed",
                address=str(target.address),
            )
            return _Outcome(DeliveryStatus.TEMPORARY, "4.3.0", "can't store it now")
        return _STORED


def _serverOutcome(
    ending: DeliveryStatus, status: str, reason: str, reply: Reply | None
) -> _Outcome:
    """
    The outcome of a server's reply.

    @param status: The status without a better one in C{reply}.
    """
    if reply is None:
        return _Outcome(ending, status, reason)
    # A permanent reply of an unusable server is no permanent failure (RFC 3463 2).
    isSame = reply.enhanced[:1] == status[:1]
    code = 0 if reply.isLocal else reply.code
    return _Outcome(ending, reply.enhanced if isSame else status, reason, code)


def _traceFields(message: BatchMessage, target: Target) -> bytes:
    """
    The header fields of the final delivery: Return-Path (RFC 5321 4.4), and by
    convention Delivered-To.
    """
    lines = (f"Return-Path: <{message.sender}>", f"Delivered-To: {target.address}", "")
    return "\r\n".join(lines).encode()


class _Body(LazyChunks):
    """
    A message in a file, after its header.
    """

    def __init__(self, header: bytes, path: Path) -> None:
        """
        @raise OSError: There is no such file.
        """
        super().__init__(1 + -(-path.stat().st_size // CHUNK))
        self._header = header
        self._path = path

    def read(self, position: int) -> bytes:
        if position == 0:
            return self._header
        with self._path.open("rb") as file:
            file.seek((position - 1) * CHUNK)
            return file.read(CHUNK)
