# -*- test-case-name: tests.queue.test_service -*-
"""
Notifies report observers of the delivery status of sent reports.

Notifications are due until they are marked in the spool, so a crash delays them; it
may also repeat one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from moxtls.interfaces import IMailbox, IReportObserver
from moxtls.outages import logUnlessOutage
from moxtls.queue.settle import Settlement, isFailed
from moxtls.queue.spool import Spool, SpoolExecutor
from moxtls.queue.types import QueuedMessage, QueuedRecipient, ReportKind

#: Messages read at a time.
PAGE_SIZE = 100


class ReportStatusNotifier:
    """
    Notifies observers of final results of reports, and stores DSNs about reports in a
    mailbox of their own.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        observers: Sequence[IReportObserver],
        mailbox: IMailbox,
        mailboxFor: Callable[[ReportKind], str],
    ) -> None:
        """
        @param mailboxFor: Returns the name of the mailbox for DSNs.
        """
        self._clock = clock
        self._observers = observers
        self._mailbox = mailbox
        self._mailboxFor = mailboxFor

    async def notifyAll(self, spool: SpoolExecutor, settlement: Settlement) -> None:
        """
        Send all notifications that are due.  One that fails is logged, and due again.
        """
        after = 0
        while found := await spool.read(_unreported(after)):
            for number, messageID in found:
                after = number
                await self._notifyOrLog(spool, settlement, messageID)

    async def _notifyOrLog(
        self, spool: SpoolExecutor, settlement: Settlement, messageID: str
    ) -> None:
        try:
            await self._notify(spool, settlement, messageID)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(
                self.log,
                "Notifying observers of report {messageID} failed",
                messageID=messageID,
            )

    async def _notify(
        self, spool: SpoolExecutor, settlement: Settlement, messageID: str
    ) -> None:
        now = self._clock.seconds()
        message, ended = await spool.read(lambda spool: _ended(spool, messageID))
        if message is None or message.envelope.report is None:
            return
        for recipient in ended:
            for observer in self._observers:
                if recipient.lastResult is not None:
                    await observer.reportEnded(message.envelope, recipient.lastResult)
        failed = [recipient for recipient in ended if isFailed(recipient)]
        if failed:
            report = message
            dsn = await spool.read(
                lambda spool: settlement.compose(spool, report, failed, False, now)
            )
            name = self._mailboxFor(message.envelope.report)
            await self._mailbox.deliver(name, [dsn], seen=True)
        await spool.run(lambda spool: _markReported(spool, messageID, ended, now))


def _unreported(after: int) -> Callable[[Spool], list[tuple[int, str]]]:
    return lambda spool: spool.index.withUnreported(True, after, PAGE_SIZE)


def _ended(
    spool: Spool, messageID: str
) -> tuple[QueuedMessage | None, tuple[QueuedRecipient, ...]]:
    return spool.index.message(messageID), spool.index.unreported(messageID)


def _markReported(
    spool: Spool, messageID: str, ended: Sequence[QueuedRecipient], now: float
) -> None:
    spool.index.markReported(messageID, ended)
    spool.index.removeFinished([messageID], now)
