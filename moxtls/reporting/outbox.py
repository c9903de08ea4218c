# -*- test-case-name: tests.reporting.test_outbox -*-
"""
Hands composed reports over, each exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from moxtls.calendar import MINUTE, Elapsed
from moxtls.interfaces import IReportArchive, IReportSubmitter
from moxtls.outages import logUnlessOutage
from moxtls.queue.values import ReportKind
from moxtls.reporting.crew import TaskGroup, ignoreCancelled
from moxtls.reporting.schedule import MAX_AGE
from moxtls.reporting.values import OutgoingReport, ReportKey, ReportState

#: Reports handed over side by side: each waits for a disk, more than once,
#: and they can share that.  As many messages are in memory.
MAX_AT_ONCE = 16
#: Where so many attempts in a row had no success at all it is the submitter
#: that fails rather than a report of them; there is no use in taking more, and
#: other nodes may do better with them.
MAX_FAILURES = 3
PAUSE = 15 * MINUTE


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
        self._inVain = 0
        self._elapsed = Elapsed()
        self._restUntil = 0.0

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
            logUnlessOutage(self.log, "Handing over {kind} reports", kind=self._kind)
        finally:
            self._turn.release()

    async def _handOverAll(self) -> None:
        tried: set[ReportKey] = set()
        while self._elapsed.at(self._clock.seconds()) >= self._restUntil:
            asked = self._asked
            most = 1 if self._inVain else MAX_AT_ONCE
            taken = await self._archive.take(self._kind, self._node, most)
            reports = [each for each in taken if each.key not in tried]
            if not reports:
                self._done = asked
                return
            tried.update(each.key for each in reports)
            self._note(await self._handOver(reports))

    def _note(self, success: bool) -> None:
        self._inVain = 0 if success else self._inVain + 1
        if self._inVain >= MAX_FAILURES:
            self._restUntil = self._elapsed.at(self._clock.seconds()) + PAUSE

    async def _handOver(self, reports: Sequence[OutgoingReport]) -> bool:
        """
        @return: Whether any of them is in safe hands.
        """
        crew = TaskGroup(len(reports))
        safe: list[OutgoingReport] = []
        for report in reports:
            crew.begin(ignoreCancelled(self._handOverOne(report, safe)))
        try:
            await crew.finished()
        finally:
            await crew.abandon()
        return bool(safe)

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
        except Exception as error:
            logUnlessOutage(self.log, "Handing over {key!r}", key=str(report.key))
            await self._failed(report, str(error) or type(error).__name__)

    async def _failed(self, report: OutgoingReport, detail: str) -> None:
        """
        Have others go first the next time; and give it up where it would be
        of no use to anybody any more.
        """
        now = self._clock.seconds()
        isStale = now - report.composed >= MAX_AGE[self._kind]
        state = ReportState.FAILED if isStale else ReportState.HANDING
        try:
            await self._archive.mark(report.key, state, now, detail)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "Marking {key!r}", key=str(report.key))
