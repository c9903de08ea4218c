"""
Tests for L{moxtls.reporting.handover}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.domain import Domain
from moxtls.interfaces import IReportSubmitter
from moxtls.ledger.memory import MemoryReportArchive
from moxtls.queue.types import ReportKind
from moxtls.reporting.handover import MAX_FAILURES, PAUSE, Outbox
from moxtls.reporting.schedule import MAX_AGE
from moxtls.reporting.types import OutgoingReport, ReportState
from tests.reporting.support import report


@implementer(IReportSubmitter)
class FakeSubmitter:
    """
    Remembers what it is given; can fail, or never answer.
    """

    def __init__(self) -> None:
        self.given: list[str] = []
        self.broken = False
        self.poison = ""
        self.stuck = False

    def submit(self, report: OutgoingReport) -> Deferred[None]:
        if self.broken:
            return fail(OSError("disk full"))
        if report.key.destination == self.poison:
            raise ValueError("poison")
        self.given.append(report.key.destination)
        return Deferred() if self.stuck else succeed(None)


class OutboxTests(SynchronousTestCase):
    """
    Tests for L{Outbox}.
    """

    def setUp(self) -> None:
        self.archive = MemoryReportArchive()
        self.submitter = FakeSubmitter()
        self.clock = Clock()
        verifyObject(IReportSubmitter, self.submitter)

    def file(self, *names: str) -> None:
        self.archive.file(
            [
                report(f"mailto:{name}@a.example", f"p+{name}@sender.example")
                for name in names
            ]
        )

    def outbox(self, node: str = "node") -> Outbox:
        return Outbox(self.clock, self.archive, self.submitter, ReportKind.TLS, node)

    def states(self) -> set[ReportState]:
        return {each.state for each in self.successResultOf(self.archive.reports())}

    def test_all(self) -> None:
        """
        All are handed over and marked, but for those that are suppressed.
        """
        self.file("x", "y")
        quiet = report("https://a.example/", "", ReportState.SUPPRESSED, Domain("q"))
        self.archive.file([quiet])
        self.successResultOf(self.outbox().empty())
        self.assertEqual(
            self.submitter.given, ["mailto:x@a.example", "mailto:y@a.example"]
        )
        self.assertEqual(self.states(), {ReportState.QUEUED, ReportState.SUPPRESSED})

    def test_broken(self) -> None:
        """
        What can't be handed over is, the next time.
        """
        self.file("x")
        self.submitter.broken = True
        outbox = self.outbox()
        self.successResultOf(outbox.empty())
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.submitter.broken = False
        self.successResultOf(outbox.empty())
        self.assertEqual(self.submitter.given, ["mailto:x@a.example"])

    def test_taken(self) -> None:
        """
        What another node has taken is left to it.
        """
        self.file("x")
        self.successResultOf(self.archive.take(ReportKind.TLS, "other", 1))
        self.successResultOf(self.outbox().empty())
        self.assertEqual(self.submitter.given, [])
        self.successResultOf(self.outbox("other").empty())
        self.assertEqual(self.submitter.given, ["mailto:x@a.example"])

    def test_poison(self) -> None:
        """
        A report that can't be handed over holds up no other one, not even the
        one that comes later; and it is said what is the matter with it.
        """
        self.file("poison", "x")
        self.submitter.poison = "mailto:poison@a.example"
        outbox = self.outbox()
        for name in "xyz":
            self.file(name)
            self.successResultOf(outbox.empty())
            self.assertEqual(self.submitter.given[-1], f"mailto:{name}@a.example")
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
            self.clock.advance(300)
        waiting = self.archive.reports(state=ReportState.HANDING)
        (poison,) = self.successResultOf(waiting)
        self.assertEqual(
            (poison.key.destination, poison.detail),
            ("mailto:poison@a.example", "poison"),
        )

    def test_stale(self) -> None:
        """
        A report that nobody needs any more is given up, with the reason.
        """
        self.file("x")
        self.submitter.broken = True
        outbox = self.outbox()
        (composed,) = self.successResultOf(self.archive.reports())
        for age, state in (
            (MAX_AGE[ReportKind.TLS] - 1, ReportState.HANDING),
            (MAX_AGE[ReportKind.TLS], ReportState.FAILED),
        ):
            self.clock.rightNow = composed.composed + age
            self.successResultOf(outbox.empty())
            (found,) = self.successResultOf(self.archive.reports())
            self.assertEqual((found.state, found.detail), (state, "disk full"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_rest(self) -> None:
        """
        A node whose queue takes nothing leaves the reports to others, and
        looks again after a while.
        """
        self.file(*"abcdefgh")
        self.submitter.broken = True
        outbox = self.outbox()
        for name in "ijkl":
            self.file(name)
            self.successResultOf(outbox.empty())
        failed = len(self.flushLoggedErrors(OSError))
        self.assertEqual(failed, 9 + MAX_FAILURES - 1)
        self.submitter.broken = False
        self.successResultOf(outbox.empty())
        self.assertEqual(self.submitter.given, [])
        self.successResultOf(self.outbox("other").empty())
        left = ["mailto:k@a.example", "mailto:l@a.example"]
        self.assertEqual(self.submitter.given, left)
        self.clock.advance(PAUSE)
        self.successResultOf(outbox.empty())
        self.assertEqual(len(self.submitter.given), 12)
        self.assertEqual(self.states(), {ReportState.QUEUED})

    def test_together(self) -> None:
        """
        Two who empty it at the same time don't hand over the same report.
        """
        self.file("x", "y")
        self.submitter.stuck = True
        outbox = self.outbox()
        running = [outbox.empty(), outbox.empty()]
        self.assertEqual(len(self.submitter.given), 2)
        for each in reversed(running):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(len(self.submitter.given), 2)
        self.submitter.stuck = False
        self.successResultOf(outbox.empty())
        self.assertEqual(self.states(), {ReportState.QUEUED})
