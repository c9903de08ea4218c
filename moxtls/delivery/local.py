# -*- test-case-name: tests.delivery.test_local -*-
"""
Mail for people on this host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, overload

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.domain import Address, InvalidAddress
from moxtls.interfaces import ICourier, IMailbox, IResultRecorder
from moxtls.mailbox.names import MailboxFull, MailboxRefused, MailboxUnavailable
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus, Result
from moxtls.reception.recipients import DirectoryResult, NoSuchUser, NotLocal, Target
from moxtls.smtp.types import Reply

CHUNK = 64 * 1024
#: Seconds for mailboxes to finish what they have begun when an attempt is broken
#: off: what they are given they may store, whether or not anybody waits for it.
FINISH = 10.0


class _Verdict(NamedTuple):
    """
    @ivar code: Of the reply that C{text} is, if a server said it.
    """

    ending: DeliveryStatus
    status: str
    text: str
    code: int = 0


_STORED = _Verdict(DeliveryStatus.DELIVERED, "2.0.0", "stored")
_BROKEN_OFF = _Verdict(
    DeliveryStatus.TEMPORARY, "4.3.2", "not all mailboxes have it yet"
)
#: The worst counts.
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
    ) -> None:
        """
        @param find: Where mail for an address goes.
        @param mailboxOf: The mailboxes of an account.
        """
        self._clock = clock
        self._find = find
        self._mailboxOf = mailboxOf

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        """
        Store messages, all at a time.
        """
        attempt = _Attempt(self._find, self._mailboxOf, recorder)
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
    ) -> None:
        self._find = find
        self._mailboxOf = mailboxOf
        self._recorder = recorder
        self._results: list[Result] = []
        self._isBrokenOff = False

    async def run(self, clock: IReactorTime, batch: Batch) -> tuple[Result, ...]:
        deciding = [
            Deferred.fromCoroutine(self._decide(message, recipient))
            for message in batch.messages
            for recipient in message.recipients
        ]
        for each in deciding:
            each.addErrback(self._failed)
        ended: Deferred[None] = Deferred()

        def decided(results: object) -> None:
            # Unless it was broken off.
            if not ended.called:
                ended.callback(None)

        DeferredList(deciding).addCallback(decided)
        try:
            await ended
        except CancelledError:
            self._isBrokenOff = True
            await self._finish(clock, deciding)
        return tuple(self._results)

    async def _finish(
        self, clock: IReactorTime, deciding: Sequence[Deferred[None]]
    ) -> None:
        """
        Wait for the mailboxes, but not long.
        """

        def cancel() -> None:
            for each in deciding:
                each.cancel()

        end = clock.callLater(FINISH, cancel)
        try:
            await DeferredList(deciding)
        finally:
            if end.active():
                end.cancel()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("delivering to somebody here", failure)

    async def _decide(self, message: BatchMessage, recipient: str) -> None:
        try:
            found = self._find(Address.parse(recipient))
        except InvalidAddress:
            found = None
        stored = [place for to, place in message.stored if to == recipient]
        verdict = await self._deliverTo(message, found, stored)
        if verdict is _BROKEN_OFF and not stored:
            return
        ending, status, text, code = verdict
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
    ) -> _Verdict:
        """
        @param stored: Where it is already; what is added is there too.
        """
        if found is None:
            return _Verdict(DeliveryStatus.PERMANENT, "5.1.3", "not an address")
        if isinstance(found, NotLocal):
            return _Verdict(
                DeliveryStatus.PERMANENT, "5.1.2", "not a domain of this host"
            )
        if isinstance(found, NoSuchUser):
            return _Verdict(DeliveryStatus.PERMANENT, "5.1.1", "no such user")
        verdicts = [_STORED]
        for target in found:
            place = f"{target.account}/{target.mailbox}"
            if place not in stored:
                verdict = await self._store(message, target)
                verdicts.append(verdict)
                if verdict is _STORED:
                    stored.append(place)
        return max(verdicts, key=lambda verdict: _ORDER.index(verdict.ending))

    async def _store(self, message: BatchMessage, target: Target) -> _Verdict:
        if self._isBrokenOff:
            return _BROKEN_OFF
        try:
            mailbox = self._mailboxOf(target.account)
            body = _Body(_trace(message, target), message.path)
            await mailbox.deliver(target.mailbox, body)
        except CancelledError:
            return _BROKEN_OFF
        except MailboxFull:
            # RFC 3463 3.3: X.2.2 is a persistent transient failure.
            return _Verdict(DeliveryStatus.TEMPORARY, "4.2.2", "the mailbox is full")
        except MailboxRefused as refused:
            return _said(
                DeliveryStatus.PERMANENT, "5.2.0", refused.reason, refused.reply
            )
        except MailboxUnavailable as why:
            return _said(DeliveryStatus.TEMPORARY, "4.2.0", why.reason, why.reply)
        except Exception:
            self.log.failure("delivering to {address!r}", address=str(target.address))
            return _Verdict(DeliveryStatus.TEMPORARY, "4.3.0", "can't store it now")
        return _STORED


def _said(
    ending: DeliveryStatus, status: str, reason: str, reply: Reply | None
) -> _Verdict:
    """
    @param status: If there is no better one in C{reply}.
    """
    if reply is None:
        return _Verdict(ending, status, reason)
    # What is permanent to a server that can't be used may pass (RFC 3463 2).
    isSame = reply.enhanced[:1] == status[:1]
    code = 0 if reply.isLocal else reply.code
    return _Verdict(ending, reply.enhanced if isSame else status, reason, code)


def _trace(message: BatchMessage, target: Target) -> bytes:
    """
    RFC 5321 4.4: whoever makes the final delivery adds the path; and, by
    custom, to whom it was.
    """
    lines = (f"Return-Path: <{message.sender}>", f"Delivered-To: {target.address}", "")
    return "\r\n".join(lines).encode()


class _Body(Sequence[bytes]):
    """
    A message in a file, in chunks that are read when they are wanted.
    """

    def __init__(self, before: bytes, path: Path) -> None:
        """
        @raise OSError: There is no such file.
        """
        self._before = before
        self._path = path
        self._count = 1 + -(-path.stat().st_size // CHUNK)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._count))]
        place = range(self._count)[index]
        if place == 0:
            return self._before
        with self._path.open("rb") as file:
            file.seek((place - 1) * CHUNK)
            return file.read(CHUNK)
