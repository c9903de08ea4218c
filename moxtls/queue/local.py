# -*- test-case-name: tests.queue.test_local -*-
"""
Mail for people on this host.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.interfaces import ICourier, IMailbox
from moxtls.queue.values import Batch, Ending, Parcel, Result


@implementer(ICourier)
class LocalCourier:
    """
    Delivers to mailboxes.
    """

    log = Logger()

    def __init__(
        self, mailbox: IMailbox, mailboxFor: Callable[[str], str | None]
    ) -> None:
        """
        @param mailboxFor: The name of the mailbox of an address, if there is
            such an address.
        """
        self._mailbox = mailbox
        self._mailboxFor = mailboxFor

    def deliver(self, batch: Batch) -> Deferred[tuple[Result, ...]]:
        return Deferred.fromCoroutine(self._deliver(batch))

    async def _deliver(self, batch: Batch) -> tuple[Result, ...]:
        return tuple(
            [
                await self._deliverTo(parcel, recipient)
                for parcel in batch.parcels
                for recipient in parcel.recipients
            ]
        )

    async def _deliverTo(self, parcel: Parcel, recipient: str) -> Result:
        name = self._mailboxFor(recipient)
        if name is None:
            return _result(parcel, recipient, Ending.PERMANENT, "5.1.1", "no such user")
        try:
            # RFC 5321 4.4: whoever makes the final delivery adds the path.
            path = f"Return-Path: <{parcel.sender}>\r\n".encode()
            await self._mailbox.deliver(name, [path, _read(parcel.path)])
        except CancelledError:
            raise
        except Exception:
            self.log.failure("delivering to mailbox {name!r}", name=name)
            return _result(
                parcel, recipient, Ending.TEMPORARY, "4.3.0", "can't store it now"
            )
        return _result(parcel, recipient, Ending.DELIVERED, "2.0.0", "stored")


def _read(path: Path) -> bytes:
    # Mail for this host is for the postmaster: little, and small.
    return path.read_bytes()


def _result(
    parcel: Parcel, recipient: str, ending: Ending, status: str, text: str
) -> Result:
    return Result(parcel.messageID, recipient, ending, status, text=text)
