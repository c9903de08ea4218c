"""
Tests for L{moxtls.outages}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from moxtls.interfaces import StoreUnavailable
from moxtls.outages import RETRY, Backlog, OutageLog, logUnlessOutage

AWAY = StoreUnavailable("ledger x: connection refused")


class OutageLogTests(SynchronousTestCase):
    """
    Tests for L{OutageLog}.
    """

    def test_minutes(self) -> None:
        """
        An outage logs a line at once, one a minute with the number of failed
        operations, and one at the end.
        """
        clock = Clock()
        outages = OutageLog(clock.seconds)
        with capturedLogs() as events:
            outages.succeeded()
            for _ in range(180):
                for _ in range(1000):
                    outages.failed(AWAY, 1)
                clock.advance(1)
            outages.succeeded()
            outages.succeeded()
            outages.failed(AWAY, 3)
        lines = [formatEvent(each) for each in events]
        self.assertEqual(len(lines), 5, lines)
        self.assertIn("connection refused", lines[0])
        self.assertIn("for 60 seconds, and 60000 operations failed", lines[1])
        self.assertIn("for 120 seconds, and 60000 operations failed", lines[2])
        self.assertIn("after 180 seconds; 180000 operations failed", lines[3])
        self.assertIn("is unavailable", lines[4])

    def test_others(self) -> None:
        """
        Failures of another kind are logged where they happen, those of the ledger
        aren't.
        """
        log = Logger()
        with capturedLogs() as events:
            logUnlessOutage(log, "doing {what}", Failure(AWAY), what="this")
            logUnlessOutage(log, "doing {what}", Failure(ValueError()), what="that")
        self.assertEqual([formatEvent(each) for each in events], ["doing that"])
        self.flushLoggedErrors(ValueError)


class BacklogTests(SynchronousTestCase):
    """
    Tests for L{Backlog}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.error: Exception | None = None
        self.written: dict[str, int] = {}
        self.attempts = 0
        self.backlog = Backlog(self.clock, "things", self.write, maxWaiting=3)

    def write(self, entry: str, count: int) -> Deferred[None]:
        self.attempts += 1
        if self.error is not None:
            return fail(self.error)
        self.written[entry] = self.written.get(entry, 0) + count
        return succeed(None)

    def record(self, *entries: str) -> None:
        for each in entries:
            self.successResultOf(self.backlog.record(each))

    def said(self, level: LogLevel = LogLevel.error) -> list[str]:
        return [formatEvent(each) for each in self.events if each["log_level"] is level]

    def test_available(self) -> None:
        """
        Without an outage, each entry is logged at once.
        """
        self.record("a", "b", "a")
        self.assertEqual(self.written, {"a": 2, "b": 1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waiting(self) -> None:
        """
        Entries wait for the ledger, equal ones counted, and each is written once. One
        attempt at a time tests whether it is available.
        """
        self.error = AWAY
        self.record("a", "b", "a")
        self.assertEqual((len(self.backlog), self.attempts), (3, 1))
        self.clock.pump([RETRY] * 4)
        self.assertEqual((len(self.backlog), self.attempts), (3, 5))
        self.error = None
        self.clock.advance(RETRY)
        self.assertEqual(self.written, {"a": 2, "b": 1})
        self.assertEqual(len(self.backlog), 0)
        self.record("c")
        self.assertEqual(self.written, {"a": 2, "b": 1, "c": 1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full(self) -> None:
        """
        The number of waiting entries is limited; those beyond it are counted, and
        logged.
        """
        self.error = AWAY
        with capturedLogs() as self.events:
            self.record("a", "b", "c", "d", "e", "a")
            self.error = None
            self.clock.advance(RETRY)
        self.assertEqual(self.written, {"a": 2, "b": 1, "c": 1})
        (line,) = self.said()
        self.assertIn("2 things are lost", line)

    def test_uncertain(self) -> None:
        """
        Entries that may have been written are not written again, but logged.
        """
        self.error = StoreUnavailable("gone")
        self.error.uncertain = True
        with capturedLogs() as self.events:
            self.record("a")
            self.error = AWAY
            self.record("b")
            self.error = None
            self.clock.advance(RETRY)
        self.assertEqual(self.written, {"b": 1})
        (line,) = self.said()
        self.assertIn("another 1 may be lost", line)

    def test_stop(self) -> None:
        """
        Stopping makes one more attempt; unwritten entries are logged.
        """
        for error, written, lines in ((None, {"a": 1}, 0), (AWAY, {"a": 1}, 1)):
            self.error = AWAY
            self.record("a")
            self.error = error
            with capturedLogs() as self.events:
                self.successResultOf(Deferred.fromCoroutine(self.backlog.stop()))
            self.assertEqual(self.written, written)
            self.assertEqual(len(self.said()), lines)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another(self) -> None:
        """
        Errors other than outages are passed to the caller.
        """
        self.error = ValueError("no")
        self.failureResultOf(self.backlog.record("a"), ValueError)
        self.assertEqual(len(self.backlog), 0)
