# -*- test-case-name: tests.store.test_memory -*-
"""
Reports of ours, in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.domain import Domain
from moxtls.interfaces import IReportArchive
from moxtls.queue.values import ReportKind
from moxtls.reporting.values import OutgoingReport, ReportKey, ReportState
from moxtls.store.rules import clean, follows, pageOf


class SenderTaken(Exception):
    """
    Two reports can't have one envelope sender: it tells where a DSN belongs.
    """


@implementer(IReportArchive)
class MemoryReportArchive:
    """
    Reports in a dictionary.
    """

    def __init__(self) -> None:
        self._reports: dict[str, OutgoingReport] = {}
        self._senders: dict[str, str] = {}
        # Keys; of reports that nobody has taken yet, and by who has.
        self._composed = {kind: deque[str]() for kind in ReportKind}
        self._handing: dict[tuple[ReportKind, str], dict[str, None]] = {}

    def file(self, reports: Sequence[OutgoingReport]) -> int:
        """
        Add reports, all or none of them, passing over those known.

        @return: How many are new.

        @raise SenderTaken: Another report has the sender of one.
        """
        new: dict[str, OutgoingReport] = {}
        senders: dict[str, str] = {}
        for report in reports:
            key, sender = str(report.key), report.sender.lower()
            if key in self._reports or key in new:
                continue
            if sender and (sender in self._senders or sender in senders):
                raise SenderTaken(report.sender)
            new[key] = report
            if sender:
                senders[sender] = key
        self._reports.update(new)
        self._senders.update(senders)
        for key, report in new.items():
            self._composed[report.key.kind].append(key)
        return len(new)

    def take(
        self, kind: ReportKind, node: str, most: int
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        handing = self._handing.setdefault((kind, node), {})
        keys = [key for key in handing if not self._reports[key].detail]
        if not keys:
            keys = list(islice(self._waiting(kind), most))
            for key in keys:
                taken = replace(
                    self._reports[key], state=ReportState.HANDING, node=node
                )
                self._reports[key] = taken
                handing[key] = None
        keys = keys or list(handing)
        return succeed(tuple(self._reports[key] for key in keys[:most]))

    def _waiting(self, kind: ReportKind) -> Iterator[str]:
        keys = self._composed[kind]
        while keys:
            key = keys.popleft()
            report = self._reports.get(key)
            if report is not None and report.state is ReportState.COMPOSED:
                yield key

    def mark(
        self, key: ReportKey, state: ReportState, now: float, detail: str = ""
    ) -> Deferred[None]:
        report = self._reports.get(str(key))
        if report is not None and follows(report.state, state):
            self._reports[str(key)] = replace(
                report, state=state, updated=now, detail=clean(detail)
            )
            handing = self._handing.get((key.kind, report.node), {})
            if str(key) in handing:
                del handing[str(key)]
                if state is ReportState.HANDING:
                    handing[str(key)] = None  # Behind the others.
        return succeed(None)

    def reports(
        self,
        kind: ReportKind | None = None,
        domain: Domain | None = None,
        state: ReportState | None = None,
        limit: int = 1000,
        after: OutgoingReport | None = None,
    ) -> Deferred[tuple[OutgoingReport, ...]]:
        wanted = [
            report
            for report in self._reports.values()
            if kind in (None, report.key.kind)
            and domain in (None, report.key.domain)
            and state in (None, report.state)
        ]
        return succeed(
            pageOf(wanted, lambda report: (-report.composed, report.key), after, limit)
        )

    def find(self, key: str) -> Deferred[OutgoingReport | None]:
        return succeed(self._reports.get(key))

    def bySender(self, sender: str) -> Deferred[OutgoingReport | None]:
        key = self._senders.get(sender.lower()) if sender else None
        return succeed(None if key is None else self._reports[key])

    def prune(self, before: float) -> Deferred[int]:
        unfinished = (ReportState.COMPOSED, ReportState.HANDING)
        old = [
            report
            for report in self._reports.values()
            if report.composed < before and report.state not in unfinished
        ]
        for report in old:
            del self._reports[str(report.key)]
            self._senders.pop(report.sender.lower(), None)
        return succeed(len(old))
