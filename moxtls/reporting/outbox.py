# -*- test-case-name: tests.reporting.test_outbox -*-
"""
Hands composed reports over, each exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from moxtls.interfaces import IReportArchive, IReportSubmitter
from moxtls.queue.values import ReportKind
from moxtls.reporting.crew import Crew, quietly
from moxtls.reporting.values import OutgoingReport, ReportState

#: Reports handed over side by side: each waits for a disk, more than once,
#: and they can share that.  As many messages are in memory.
MOST_AT_ONCE = 16


class Outbox:
    """
    Gives the reports of one kind that nobody has taken yet to a submitter.

    A report that is taken has this node's name on it before the submitter
    sees it, and the submitter knows it again by its key: so dying anywhere in
    between neither loses nor doubles it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        archive: IReportArchive,
        submitter: IReportSubmitter,
        kind: ReportKind,
        node: str,
    ) -> None:
        self._clock = clock
        self._archive = archive
        self._submitter = submitter
        self._kind = kind
        self._node = node
        # Two at once would be given the same reports.
        self._turn = DeferredLock()
        self._asked = 0
        self._done = 0

    def empty(self) -> Deferred[None]:
        """
        Hand over all there is.  Never fails: what can't be handed over now is
        there the next time.
        """
        return Deferred.fromCoroutine(self._empty())

    async def _empty(self) -> None:
        self._asked += 1
        mine = self._asked
        await self._turn.acquire()
        try:
            # Somebody who had his turn since then may have found all there is.
            if self._done < mine:
                await self._handOverAll()
        except CancelledError:
            raise
        except Exception:
            self.log.failure("Handing over {kind} reports", kind=self._kind)
        finally:
            self._turn.release()

    async def _handOverAll(self) -> None:
        while True:
            asked = self._asked
            taken = await self._archive.take(self._kind, self._node, MOST_AT_ONCE)
            if not taken:
                self._done = asked
                return
            if not await self._handOver(taken):
                return

    async def _handOver(self, reports: Sequence[OutgoingReport]) -> bool:
        """
        @return: Whether all of them are in safe hands.
        """
        crew = Crew(len(reports))
        safe: list[OutgoingReport] = []
        for report in reports:
            crew.begin(quietly(self._handOverOne(report, safe)))
        try:
            await crew.finished()
        finally:
            await crew.abandon()
        return len(safe) == len(reports)

    async def _handOverOne(
        self, report: OutgoingReport, safe: list[OutgoingReport]
    ) -> None:
        try:
            await self._submitter.submit(report)
            now = self._clock.seconds()
            await self._archive.mark(report.key, ReportState.QUEUED, now)
            safe.append(report)
        except CancelledError:
            raise
        except Exception:
            self.log.failure("Handing over {key}", key=str(report.key))
