"""
Processes killed between any two statements while they send TLS reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.interfaces import IReportSource
from moxtls.ledger.ledger import Ledger
from moxtls.reporting.service import ReportService
from moxtls.tlsrpt.source import TLSReporting, TLSReportSource
from tests.reporting.support import DAY, SUBMITTER, outcome
from tests.scenarios import support_kill


class TLSNode(support_kill.Node):
    """
    A node that sends TLS reports.
    """

    def source(self) -> IReportSource:
        resolver = MemoryResolver()
        record = "v=TLSRPTv1; rua=mailto:tls@a.example,https://a.example/"
        resolver.put("_smtp._tls.a.example", RRType.TXT, record)
        reporting = TLSReporting(SUBMITTER)
        ledger = self.ledger
        return TLSReportSource(resolver, ledger.outcomes, reporting, ledger.identifier)


class KilledTests(support_kill.KilledCase):
    """
    Each report is queued once, wherever the process is killed.
    """

    nodeType = TLSNode
    expected = {"tls@a.example": 1, "https://a.example/": 1}  # noqa: RUF012

    def prepare(self, ledger: Ledger) -> None:
        recorded = ledger.outcomes.record(DAY, replace(outcome(), hosts=()))
        self.successResultOf(recorded)

    def left(self, ledger: Ledger) -> Sequence[object]:
        return self.successResultOf(ledger.outcomes.results())

    def test_everyStatement(self) -> None:
        """
        The process is killed before each writing statement and each change of a file
        in turn, and run again.
        """
        self.checkEveryStatement()


class EarlyNode(TLSNode):
    """
    A node that is asked for reports on an unfinished day.
    """

    def work(self, service: ReportService) -> None:
        service.runNow(early=True)


class EarlyKilledTests(KilledTests):
    """
    The same for reports sent early on request.
    """

    nodeType = EarlyNode

    def prepare(self, ledger: Ledger) -> None:
        today = DAY + timedelta(days=1)
        recorded = ledger.outcomes.record(today, replace(outcome(), hosts=()))
        self.successResultOf(recorded)
