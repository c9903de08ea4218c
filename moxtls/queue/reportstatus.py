# -*- test-case-name: tests.queue.test_service -*-
"""
Tells the rest of moxtls what became of reports.

That somebody is to be told is kept in the spool until he knows, so it happens
also if the process dies in between; it may happen twice.
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

#: Messages looked up at a time.
AT_ONCE = 100


class ReportStatusNotifier:
    """
    Puts DSNs about reports into a mailbox, where they bother nobody, and
    tells the observers.
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
        @param mailboxFor: The name of the mailbox for DSNs.
        """
        self._clock = clock
        self._observers = observers
        self._mailbox = mailbox
        self._mailboxFor = mailboxFor

    async def tell(self, spool: SpoolExecutor, notices: Settlement) -> None:
        """
        Tell whatever is to be told; what fails stays for the next time.
        """
        after = 0
        while found := await spool.read(_untold(after)):
            for number, messageID in found:
                after = number
                await self._tellOrLog(spool, notices, messageID)

    async def _tellOrLog(
        self, spool: SpoolExecutor, notices: Settlement, messageID: str
    ) -> None:
        try:
            await self._tell(spool, notices, messageID)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(
                self.log, "telling about report {messageID}", messageID=messageID
            )

    async def _tell(
        self, spool: SpoolExecutor, notices: Settlement, messageID: str
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
            about = message
            bounce = await spool.read(
                lambda spool: notices.compose(spool, about, failed, False, now)
            )
            name = self._mailboxFor(message.envelope.report)
            await self._mailbox.deliver(name, [bounce], seen=True)
        await spool.run(lambda spool: _told(spool, messageID, ended, now))


def _untold(after: int) -> Callable[[Spool], list[tuple[int, str]]]:
    return lambda spool: spool.index.untold(True, after, AT_ONCE)


def _ended(
    spool: Spool, messageID: str
) -> tuple[QueuedMessage | None, tuple[QueuedRecipient, ...]]:
    return spool.index.message(messageID), spool.index.untoldOf(messageID)


def _told(
    spool: Spool, messageID: str, ended: Sequence[QueuedRecipient], now: float
) -> None:
    spool.index.told(messageID, ended)
    if spool.index.finished(messageID):
        spool.index.remove(messageID, now)
