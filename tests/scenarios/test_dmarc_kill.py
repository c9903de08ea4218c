"""
Processes killed between any two statements while they send DMARC reports.
"""

from __future__ import annotations

from collections.abc import Sequence

from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.source import DMARCReportSource
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.interfaces import IReportSource
from moxtls.ledger.ledger import Ledger
from moxtls.message.mime import leafParts
from moxtls.reporting.service import ReportService
from tests.dmarc.reports import SPAN, counts, evaluation
from tests.reporting.support import SUBMITTER
from tests.scenarios import support_kill


class DMARCNode(support_kill.Node):
    """
    A node that sends DMARC reports.
    """

    def source(self) -> IReportSource:
        resolver = MemoryResolver({(str(SUBMITTER), RRType.A): ["192.0.2.25"]})
        record = "v=DMARC1; p=none; rua=mailto:dmarc@a.example,mailto:two@a.example"
        resolver.put("_dmarc.a.example", RRType.TXT, record)
        ledger = self.ledger
        return DMARCReportSource(
            resolver,
            ledger.evaluations,
            ledger.history,
            DMARCReporting(SUBMITTER),
            ledger.identifier,
        )


class EarlyDMARCNode(DMARCNode):
    """
    A node that is asked for reports on an unfinished interval.
    """

    def work(self, service: ReportService) -> None:
        service.runNow(early=True)


class DMARCKilledTests(support_kill.KilledCase):
    """
    Each report is queued once, wherever the process is killed.
    """

    nodeType = DMARCNode
    expected = {"dmarc@a.example": 1, "two@a.example": 1}  # noqa: RUF012

    def prepare(self, ledger: Ledger) -> None:
        for hour in (SPAN.start, SPAN.end - 3600):
            self.successResultOf(ledger.evaluations.record(hour, evaluation(hours=1)))

    def left(self, ledger: Ledger) -> Sequence[object]:
        return self.successResultOf(ledger.evaluations.evaluations())

    def inspect(self, message: bytes) -> None:
        document = list(leafParts(message))[1].content
        self.assertEqual(counts(document), {"192.0.2.1": 2})

    def test_everyStatement(self) -> None:
        """
        The process is killed before each writing statement and each change of a file
        in turn, and run again; reported evaluations are removed.
        """
        self.checkEveryStatement()


class EarlyKilledTests(DMARCKilledTests):
    """
    The same for reports sent early on request.
    """

    nodeType = EarlyDMARCNode

    def prepare(self, ledger: Ledger) -> None:
        for hour in (SPAN.end - 3600, SPAN.end):
            self.successResultOf(ledger.evaluations.record(hour, evaluation(hours=24)))
