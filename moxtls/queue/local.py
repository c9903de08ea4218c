# -*- test-case-name: tests.queue.test_local -*-
"""
Mail for people on this host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, overload

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.domain import Address, InvalidAddress
from moxtls.inbound.recipients import Found, NoSuchUser, NotHere, Target
from moxtls.interfaces import ICourier, IMailbox, IResultRecorder
from moxtls.mailbox.names import MailboxFull, MailboxRefused, MailboxUnavailable
from moxtls.queue.values import Batch, Ending, Parcel, Result
from moxtls.smtp.values import Reply

CHUNK = 64 * 1024
#: Messages to several people here of which some got theirs and others not yet:
#: more are rare enough for some to get it twice.
MOST_PARTLY_DONE = 1000


class _Verdict(NamedTuple):
    """
    @ivar code: Of the reply that C{text} is, if a server said it.
    """

    ending: Ending
    status: str
    text: str
    code: int = 0


_STORED = _Verdict(Ending.DELIVERED, "2.0.0", "stored")
#: The worst counts.
_ORDER = (Ending.DELIVERED, Ending.PERMANENT, Ending.TEMPORARY)


@implementer(ICourier)
class LocalCourier:
    """
    Delivers to mailboxes.
    """

    log = Logger()

    def __init__(
        self,
        find: Callable[[Address], Found],
        mailboxOf: Callable[[str], IMailbox],
    ) -> None:
        """
        @param find: Where mail for an address goes.
        @param mailboxOf: The mailboxes of an account.
        """
        self._find = find
        self._mailboxOf = mailboxOf
        self._partlyDone: dict[tuple[str, str], set[Target]] = {}

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        """
        Store messages, all at a time.
        """
        return Deferred.fromCoroutine(self._deliver(batch, recorder))

    async def _deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> tuple[Result, ...]:
        decided: list[Result] = []
        deciding = [
            Deferred.fromCoroutine(self._decide(parcel, recipient, decided, recorder))
            for parcel in batch.parcels
            for recipient in parcel.recipients
        ]
        try:
            await gatherResults(deciding, consumeErrors=True)
        except FirstError as error:
            # Broken off: what is in mailboxes is there.
            if not error.subFailure.check(CancelledError):
                raise
        return tuple(decided)

    async def _decide(
        self,
        parcel: Parcel,
        recipient: str,
        decided: list[Result],
        recorder: IResultRecorder,
    ) -> None:
        ending, status, text, code = await self._deliverTo(parcel, recipient)
        result = Result(parcel.messageID, recipient, ending, status, code, text)
        decided.append(result)
        await recorder.record([result])

    async def _deliverTo(self, parcel: Parcel, recipient: str) -> _Verdict:
        try:
            found = self._find(Address.parse(recipient))
        except InvalidAddress:
            return _Verdict(Ending.PERMANENT, "5.1.3", "not an address")
        if isinstance(found, NotHere):
            return _Verdict(Ending.PERMANENT, "5.1.2", "not a domain of this host")
        if isinstance(found, NoSuchUser):
            return _Verdict(Ending.PERMANENT, "5.1.1", "no such user")
        key = (parcel.messageID, recipient)
        done = self._partlyDone.pop(key, set())
        verdicts = [_STORED]
        for target in found:
            if target not in done:
                verdicts.append(await self._store(parcel, target))
            if verdicts[-1] is _STORED:
                done.add(target)
        worst = max(verdicts, key=lambda verdict: _ORDER.index(verdict.ending))
        if worst.ending is Ending.TEMPORARY and done:
            self._remember(key, done)
        return worst

    def _remember(self, key: tuple[str, str], done: set[Target]) -> None:
        """
        Who got it already is not to get it again with the next attempt.
        """
        self._partlyDone[key] = done
        if len(self._partlyDone) > MOST_PARTLY_DONE:
            del self._partlyDone[next(iter(self._partlyDone))]

    async def _store(self, parcel: Parcel, target: Target) -> _Verdict:
        try:
            mailbox = self._mailboxOf(target.account)
            message = _Body(_trace(parcel, target), parcel.path)
            await mailbox.deliver(target.mailbox, message)
        except CancelledError:
            raise
        except MailboxFull:
            # RFC 3463 3.3: X.2.2 is a persistent transient failure.
            return _Verdict(Ending.TEMPORARY, "4.2.2", "the mailbox is full")
        except MailboxRefused as refused:
            return _said(Ending.PERMANENT, "5.2.0", refused.reason, refused.reply)
        except MailboxUnavailable as why:
            return _said(Ending.TEMPORARY, "4.2.0", why.reason, why.reply)
        except Exception:
            self.log.failure("delivering to {address!r}", address=str(target.address))
            return _Verdict(Ending.TEMPORARY, "4.3.0", "can't store it now")
        return _STORED


def _said(ending: Ending, status: str, reason: str, reply: Reply | None) -> _Verdict:
    """
    @param status: If there is no better one in C{reply}.
    """
    if reply is None:
        return _Verdict(ending, status, reason)
    # What is permanent to a server that can't be used may pass (RFC 3463 2).
    isSame = reply.enhanced[:1] == status[:1]
    code = 0 if reply.isOurs else reply.code
    return _Verdict(ending, reply.enhanced if isSame else status, reason, code)


def _trace(parcel: Parcel, target: Target) -> bytes:
    """
    RFC 5321 4.4: whoever makes the final delivery adds the path; and, by
    custom, to whom it was.
    """
    lines = (f"Return-Path: <{parcel.sender}>", f"Delivered-To: {target.address}", "")
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
