# -*- test-case-name: tests.reporting.test_outbox -*-
"""
Hands composed reports over, each exactly once.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from moxtls.interfaces import IReportArchive, IReportSubmitter
from moxtls.queue.values import ReportKind
from moxtls.reporting.values import ReportState


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
        # Two at once would be given the same report.
        self._turn = DeferredLock()

    def empty(self) -> Deferred[None]:
        """
        Hand over all there is.  Never fails: what can't be handed over now is
        there the next time.
        """
        return Deferred.fromCoroutine(self._empty())

    async def _empty(self) -> None:
        await self._turn.acquire()
        try:
            while await self._handOverOne():
                pass
        except CancelledError:
            raise
        except Exception:
            self.log.failure("Handing over {kind} reports", kind=self._kind)
        finally:
            self._turn.release()

    async def _handOverOne(self) -> bool:
        report = await self._archive.take(self._kind, self._node)
        if report is None:
            return False
        await self._submitter.submit(report)
        now = self._clock.seconds()
        await self._archive.mark(report.key, ReportState.QUEUED, now)
        return True
