"""
Tests for L{moxtls.queue.service}.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    capturedLogs,
    formatEvent,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from moxtls.dates import DAY, HOUR
from moxtls.interfaces import IQueue, IResultRecorder
from moxtls.queue.executor import InlineSpoolExecutor, QueueClient, SpoolClosed
from moxtls.queue.files import MessageFiles
from moxtls.queue.schedule import GroupLimits
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.spool import Spool, SpoolUnusable
from moxtls.queue.types import (
    Batch,
    DeliveryStatus,
    Envelope,
    QueuedMessage,
    RecipientState,
    ReportKind,
    Result,
)
from tests.queue import queues
from tests.queue.couriers import (
    FakeCourier,
    FakeMailbox,
    FakeObserver,
    deferred,
    delivered,
    refused,
    unreachable,
)

BODY = [b"Subject: hello\r\nFrom: us@here.example\r\n\r\n", b"body\r\n"]
START = 1_800_000_000
#: Attempts of the default schedule, in seconds after the submission.
SCHEDULE = [0, 450, 1350, 3150, 6750, 13950, 28350, 57150]


class ServiceCase(SynchronousTestCase):
    """
    Base of tests for a running service with a spool on disk.
    """

    limits = GroupLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.root = Path(self.mktemp())
        self.courier = FakeCourier()
        self.observer = FakeObserver()
        self.mailbox = FakeMailbox()
        self.numbers = count(1)
        self.service = self.startedService()

    def newID(self) -> str:
        return f"id{next(self.numbers)}"

    def startedService(self) -> QueueService:
        service = self.makeService()
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        return service

    def makeService(self) -> QueueService:
        notifier = ReportStatusNotifier(
            self.clock,
            [self.observer],
            self.mailbox,
            lambda kind: f"Postmaster/{kind}",
        )
        return QueueService(
            self.clock,
            InlineSpoolExecutor(self.root),
            lambda batch: self.courier,
            Settlement("mx.here.example", self.newID),
            notifier,
            self.newID,
            jitter=lambda: 0.5,
            limits=self.limits,
        )

    def restart(self) -> None:
        """
        Stop the service and start another on the same spool.
        """
        self.successResultOf(self.service.stopService())
        self.service = self.startedService()

    def submit(self, *recipients: str, **more: object) -> str:
        envelope = replace(
            Envelope("us@here.example", recipients or ("you@there.example",)),
            **more,  # type: ignore[arg-type]
        )
        return self.successResultOf(self.service.submit(envelope, BODY))

    def queued(self) -> tuple[QueuedMessage, ...]:
        return self.successResultOf(self.service.messages())

    def dsns(self) -> list[QueuedMessage]:
        return [each for each in self.queued() if not each.envelope.sender]

    def attemptTimes(self, until: int) -> list[int]:
        """
        The times of delivery attempts for a message, in seconds since its submission.
        """
        times: list[int] = []
        route = self.courier.deliver

        def deliver(
            batch: Batch, recorder: IResultRecorder
        ) -> Deferred[tuple[Result, ...]]:
            if batch.destination == "there.example":
                times.append(int(self.clock.seconds()) - START)
            return route(batch, recorder)

        with patch.object(self.courier, "deliver", deliver):
            self.submit()
            self.clock.pump([450] * (until // 450))
        return times


class QueueServiceContractTests(queues.QueueMixin):
    """
    Tests for L{QueueService} as an L{IQueue}.
    """

    def makeQueue(self) -> IQueue:
        courier = FakeCourier()
        courier.answer = None
        numbers = count(1)
        service = QueueService(
            self.clock,
            InlineSpoolExecutor(Path(self.mktemp())),
            lambda batch: courier,
            Settlement("mx.here.example", lambda: f"n{next(numbers)}"),
            ReportStatusNotifier(self.clock, [], FakeMailbox(), str),
            lambda: f"m{next(numbers)}",
            jitter=lambda: 0.5,
            limits=GroupLimits(),
        )
        service.startService()
        self.addCleanup(service.stopService)
        return service


class QueueClientContractTests(queues.QueueMixin):
    """
    Tests for L{QueueClient} as an L{IQueue}.
    """

    def makeQueue(self) -> IQueue:
        spool = InlineSpoolExecutor(Path(self.mktemp()))
        spool.open()
        self.addCleanup(spool.close)
        numbers = count(1)
        return QueueClient(self.clock, spool, lambda: f"m{next(numbers)}")


class DeliveryTests(ServiceCase):
    """
    Tests for the results of delivery attempts.
    """

    def test_delivered(self) -> None:
        """
        A message delivered to all recipients is removed with its file.
        """
        messageID = self.submit("a@there.example", "b@there.example", eightBit=True)
        (batch,) = self.courier.batches
        (item,) = batch.messages
        self.assertEqual(
            (batch.destination, batch.attempt, item.messageID, item.recipients),
            ("there.example", 1, messageID, ("a@there.example", "b@there.example")),
        )
        self.assertTrue(item.eightBit)
        self.assertEqual(item.size, sum(map(len, BODY)))
        self.assertEqual(self.queued(), ())
        self.assertFalse(item.path.exists())

    def test_body(self) -> None:
        """
        During an attempt the message's file is the submitted message.
        """
        self.courier.answer = None
        self.submit()
        path = self.courier.batches[0].messages[0].path
        self.assertEqual(path.read_bytes(), b"".join(BODY))

    def test_schedule(self) -> None:
        """
        Waits between attempts double from 450 seconds up to eight hours, until the
        message is five days old.  RFC 5321 4.5.4.1
        """
        self.courier.answer = deferred
        times = self.attemptTimes(6 * DAY)
        self.assertEqual(times[:8], SCHEDULE)
        self.assertEqual({b - a for a, b in pairwise(times[7:-1])}, {28800})
        self.assertEqual(times[-1], 5 * DAY)

    def test_delayed(self) -> None:
        """
        The sender gets one delay DSN when a message is two hours old, whatever the
        number of attempts.
        """
        self.courier.answer = self.deliverOnlyDSNs(deferred)
        self.submit()
        self.clock.pump([60] * 119)
        self.assertEqual(self.delivered, [])
        self.clock.pump([60] * 600)
        (dsn,) = self.delivered
        self.assertIn(b"\r\nAction: delayed\r\n", dsn)
        self.assertIn(b"\r\nSubject: Mail delivery delayed\r\n", dsn)

    def test_noDelayDSNDuringAttempt(self) -> None:
        """
        No delay DSN is sent for a message that is being delivered.
        """
        self.courier.answer = deferred
        messageID = self.submit()
        self.clock.pump([60] * 115)
        self.courier.answer = None
        self.successResultOf(self.service.retry(messageID))
        self.clock.pump([60] * 10)
        self.courier.finish(delivered)
        self.assertEqual(self.queued(), ())
        self.assertEqual(self.courier.pending, [])

    def deliverOnlyDSNs(
        self, others: Callable[[Batch], tuple[Result, ...]]
    ) -> Callable[[Batch], tuple[Result, ...]]:
        """
        An answer that delivers DSNs and keeps them in C{self.delivered}, and leaves
        other batches to C{others}.
        """
        self.delivered: list[bytes] = []

        def answer(batch: Batch) -> tuple[Result, ...]:
            if batch.destination == "here.example":
                self.delivered += [each.path.read_bytes() for each in batch.messages]
                return delivered(batch)
            return others(batch)

        return answer

    def test_givenUp(self) -> None:
        """
        A recipient that fails temporarily until the end of the schedule fails, and the
        sender gets a DSN.
        """
        self.courier.answer = self.deliverOnlyDSNs(deferred)
        self.submit()
        self.clock.pump([450] * (5 * 24 * 8))
        self.assertEqual(self.queued(), ())
        failure = self.delivered[-1]
        self.assertIn(b"\r\nAction: failed\r\nStatus: 4.2.1\r\n", failure)
        self.assertEqual(len(self.delivered), 2)

    def test_permanent(self) -> None:
        """
        A permanent failure isn't retried; one DSN from the null reverse-path tells the
        sender of all failed recipients.  RFC 3464 2
        """
        self.courier.answer = self.deliverOnlyDSNs(refused)
        self.submit("a@there.example", "b@there.example")
        self.assertEqual(self.queued(), ())
        (dsn,) = self.delivered
        self.assertEqual(dsn.count(b"Action: failed"), 2)
        self.assertEqual(self.courier.batches[-1].messages[0].sender, "")
        message = message_from_bytes(dsn)
        self.assertEqual(message["To"], "us@here.example")
        self.assertEqual(message["From"], "Mail delivery <postmaster@mx.here.example>")

    def test_mixedResults(self) -> None:
        """
        Each recipient has its own state.
        """

        def answer(batch: Batch) -> tuple[Result, ...]:
            first, second, third = refused(batch)
            return (
                replace(first, ending=DeliveryStatus.DELIVERED),
                replace(second, ending=DeliveryStatus.TEMPORARY),
                third,
            )

        self.courier.answer = None
        self.submit("a@there.example", "b@there.example", "c@there.example")
        self.courier.finish(answer)
        message = self.queued()[0]
        self.assertEqual(
            [(each.state, each.attempts) for each in message.recipients],
            [
                (RecipientState.DELIVERED, 1),
                (RecipientState.WAITING, 1),
                (RecipientState.FAILED, 1),
            ],
        )
        self.assertEqual(message.recipients[1].nextAttempt, self.clock.seconds() + 450)
        (dsn,) = self.dsns()
        self.assertEqual(dsn.path.read_bytes().count(b"Final-Recipient"), 1)
        last = message.recipients[2].lastResult
        assert last is not None
        self.assertEqual((last.code, last.text), (550, "no such user"))
        self.courier.answer = delivered
        self.clock.pump([30] * 16)
        self.assertEqual(self.courier.batches[-1].messages[0].recipients,
                         ("b@there.example",))  # fmt: skip
        self.assertEqual(self.courier.batches[-1].attempt, 2)

    def test_concurrentFailures(self) -> None:
        """
        Recipients of a message that fail in concurrent attempts share one DSN.
        """
        self.courier.answer = None
        self.submit("a@one.example", "b@two.example")
        self.courier.finish(refused)
        self.assertEqual(self.dsns(), [])
        self.courier.finish(refused)
        (dsn,) = self.dsns()
        self.assertEqual(dsn.path.read_bytes().count(b"Action: failed"), 2)

    def test_nullReversePath(self) -> None:
        """
        No DSN is sent to the null reverse-path (RFC 5321 6.1): the postmaster gets the
        message, and if that fails too, an error is logged.
        """
        self.courier.answer = refused
        with capturedLogs() as logs:
            self.submit(sender="")
            self.assertEqual(self.queued(), ())
        lost = [each for each in logs if each["log_level"] is LogLevel.error]
        self.assertEqual(len(lost), 1)
        [_, second] = self.courier.batches
        self.assertEqual(second.destination, "mx.here.example")
        [item] = second.messages
        self.assertEqual(
            (item.sender, item.recipients), ("", ("postmaster@mx.here.example",))
        )

    def test_requireTLS(self) -> None:
        """
        The DSN about a REQUIRETLS message requires TLS and returns no more than the
        header.  RFC 8689 5
        """
        self.courier.answer = None
        self.submit(requireTLS=True)
        self.courier.finish(refused)
        (dsn,) = self.dsns()
        self.assertEqual(dsn.envelope.requireTLS, True)
        text = dsn.path.read_bytes()
        self.assertIn(b"Subject: hello\r\n", text)
        self.assertNotIn(b"body\r\n", text)

    def test_retryAfter(self) -> None:
        """
        A longer wait requested by the peer is granted up to the longest wait of the
        schedule.
        """
        for requested, waited in ((1000, 1000), (10**9, 450 * 2**6), (1, 450)):
            self.courier.answer = lambda batch, requested=requested: tuple(
                replace(each, retryAfter=requested) for each in deferred(batch)
            )
            messageID = self.submit()
            (recipient,) = next(
                m for m in self.queued() if m.messageID == messageID
            ).recipients
            self.assertEqual(recipient.nextAttempt, self.clock.seconds() + waited)

    def test_courierRaises(self) -> None:
        """
        An exception in a courier counts as an attempt.
        """

        def answer(batch: Batch) -> tuple[Result, ...]:
            raise ZeroDivisionError

        self.courier.answer = answer
        self.submit()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        (recipient,) = self.queued()[0].recipients
        self.assertEqual(recipient.attempts, 1)
        self.assertEqual(recipient.nextAttempt, self.clock.seconds() + 450)

    def test_missingResults(self) -> None:
        """
        A recipient without a result from the courier stays queued; results for others
        are ignored.
        """
        self.courier.answer = lambda batch: (
            Result("other", "x@y.example", DeliveryStatus.DELIVERED, "2.0.0"),
        )
        self.submit()
        (recipient,) = self.queued()[0].recipients
        self.assertEqual(recipient.state, RecipientState.WAITING)

    def test_courierHangs(self) -> None:
        """
        A courier that doesn't finish even when cancelled counts as an attempt.
        """
        cancelled: list[object] = []
        stuck: Deferred[tuple[Result, ...]] = Deferred()

        def deliver(
            batch: Batch, recorder: IResultRecorder
        ) -> Deferred[tuple[Result, ...]]:
            waits: Deferred[tuple[Result, ...]] = Deferred(cancelled.append)
            return waits.addErrback(lambda failure: stuck)

        with patch.object(self.courier, "deliver", deliver):
            self.submit()
            self.clock.pump([60] * 36)
        self.assertEqual(len(cancelled), 1)
        (recipient,) = self.queued()[0].recipients
        self.assertEqual(recipient.attempts, 1)

    def test_fullDisk(self) -> None:
        """
        Results that can't be written are kept and written later, and the message isn't
        sent again.
        """
        self.courier.answer = None
        self.submit()
        with patch.object(Spool, "perform", side_effect=OSError(28, "full")):
            self.courier.finish(delivered)
            self.clock.pump([1] * 5)
        self.assertTrue(self.flushLoggedErrors(OSError))
        self.assertEqual(len(self.queued()), 1)
        self.clock.pump([1] * 6)
        self.assertEqual(self.queued(), ())
        self.assertEqual(len(self.courier.batches), 1)

    def test_readFails(self) -> None:
        """
        A failure of the query for due messages doesn't end the periodic query.
        """
        with patch.object(Spool, "read", side_effect=OSError(5, "I/O error")):
            self.clock.pump([1] * 3)
        self.assertTrue(self.flushLoggedErrors(OSError))
        self.submit()
        self.assertEqual(self.queued(), ())


class RecordingTests(ServiceCase):
    """
    Tests for results recorded during an attempt.
    """

    limits = GroupLimits(maxPerDestination=1)

    def setUp(self) -> None:
        super().setUp()
        self.courier.answer = None
        self.submit("first@there.example")
        self.second = self.submit("a@there.example", "b@there.example")
        self.third = self.submit("c@there.example")
        self.courier.finish(delivered)
        ((self.batch, _),) = self.courier.pending

    def record(self, *results: Result) -> Deferred[None]:
        return self.courier.recorder.record(results)

    def test_listedDuringAttempt(self) -> None:
        """
        A recorded result is listed within a quarter of a second, before the other
        recipients have results.
        """
        first, second, third = delivered(self.batch)
        self.successResultOf(self.record(third))
        self.successResultOf(self.record(first))
        self.clock.advance(0.25)
        self.assertEqual(
            [[each.state for each in message.recipients] for message in self.queued()],
            [
                [RecipientState.DELIVERED, RecipientState.WAITING],
                [RecipientState.DELIVERED],
            ],
        )
        self.courier.finish(lambda batch: (first, replace(second), third))
        self.assertEqual(self.queued(), ())

    def test_processDied(self) -> None:
        """
        Results recorded before the process died take effect in the next one: complete
        messages are removed, failures reported, and nothing is attempted again.
        """
        first, second, third = delivered(self.batch)
        failed = replace(second, ending=DeliveryStatus.PERMANENT)
        self.successResultOf(self.record(first, failed, third))
        # As after a crash: nothing else is written.
        self.successResultOf(self.service._spool.close())
        self.successResultOf(self.service.stopService())
        self.flushLoggedErrors(SpoolClosed)
        self.service = self.startedService()
        (dsn,) = self.dsns()
        self.assertEqual(dsn.path.read_bytes().count(b"Action: failed"), 1)
        self.assertEqual([each.messageID for each in self.queued()], [dsn.messageID])

    def test_recordedOnce(self) -> None:
        """
        The results at the end of an attempt don't replace recorded ones.
        """
        self.successResultOf(self.record(*refused(self.batch)[2:]))
        self.courier.finish(delivered)
        (dsn,) = self.dsns()
        self.assertIn(b"c@there.example", dsn.path.read_bytes())
        self.assertEqual(self.queued(), (dsn,))

    def test_oneDSN(self) -> None:
        """
        Recorded failures are reported in one DSN for each message at the end of the
        attempt.
        """
        self.successResultOf(self.record(refused(self.batch)[0]))
        self.successResultOf(self.record(refused(self.batch)[1]))
        self.assertEqual(self.dsns(), [])
        self.courier.finish(refused)
        first, _ = self.dsns()
        self.assertEqual(first.path.read_bytes().count(b"Action: failed"), 2)

    def test_stopped(self) -> None:
        """
        Recorded results survive a stop; other recipients count as not attempted.
        """
        self.successResultOf(self.record(delivered(self.batch)[0]))
        self.successResultOf(self.service.stopService())
        self.service = self.startedService()
        self.assertEqual(
            [each.recipients for each in self.courier.batches[-1].messages],
            [("b@there.example",), ("c@there.example",)],
        )

    def test_fullDisk(self) -> None:
        """
        C{record} doesn't fire until its results are written; at most one failure is
        logged in a minute.
        """
        with patch("moxtls.queue.files.os.write", side_effect=OSError(28, "full")):
            recorded = self.record(*delivered(self.batch))
            self.clock.pump([1] * 65)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)
        self.assertNoResult(recorded)
        self.clock.pump([1] * 10)
        self.successResultOf(recorded)
        self.courier.finish(delivered)
        self.assertEqual(self.queued(), ())

    def test_indexFails(self) -> None:
        """
        Results that can't be moved to the index stay in the journal with later ones and
        are moved when that is possible again; at most one failure is logged in ten
        seconds.
        """
        first, second, third = delivered(self.batch)
        self.successResultOf(self.record(first))
        with patch.object(Spool, "perform", side_effect=OSError(28, "full")):
            self.clock.pump([0.25] * 8)
            self.successResultOf(self.record(third))
            self.clock.pump([0.25] * 8)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(len(self.journal()), 2)
        self.clock.pump([0.25] * 40)
        self.assertEqual(self.states(), ["delivered", "waiting", "delivered"])
        # The second of two checkpoints has emptied the first file.
        self.successResultOf(self.record(second))
        self.clock.pump([0.25] * 2)
        self.assertEqual(self.states(), ["delivered"] * 3)
        self.assertEqual(self.journal(), [])

    def test_journalIsEmptied(self) -> None:
        """
        The journal is emptied when its results have been moved to the index.
        """
        for result in delivered(self.batch):
            self.successResultOf(self.record(result))
            self.assertEqual(len(self.journal()), 1)
            self.clock.advance(0.25)
            self.assertEqual(self.journal(), [])

    def test_listedAfterDeath(self) -> None:
        """
        A command on the spool of a dead process moves the journal to the index; while a
        process delivers, it leaves the journal alone.
        """
        self.successResultOf(self.record(delivered(self.batch)[0]))
        command = InlineSpoolExecutor(self.root)
        command.open()
        self.successResultOf(command.close())
        self.assertEqual(len(self.journal()), 1)
        # As after a crash: nothing else is written.
        self.successResultOf(self.service._spool.close())
        command.open()
        found = self.successResultOf(command.read(lambda spool: spool.index.messages()))
        self.successResultOf(command.close())
        self.assertEqual(
            [each.state.value for message in found for each in message.recipients],
            ["delivered", "waiting", "waiting"],
        )
        self.assertEqual(self.journal(), [])
        self.successResultOf(self.service.stopService())
        self.flushLoggedErrors(SpoolClosed)

    def test_damagedJournal(self) -> None:
        """
        Truncated or invalid lines of the journal are ignored with an error, and the
        others are recorded.
        """
        self.successResultOf(self.record(*delivered(self.batch)[:2]))
        self.successResultOf(self.service._spool.close())
        self.successResultOf(self.service.stopService())
        self.flushLoggedErrors(SpoolClosed)
        path = self.root / "results.0"
        whole = path.read_bytes()
        bad = [b'{"id": "id1"}', b"\0\xff", b"[1]", b"[" * 100_000]
        bad += [
            whole.split(b"\n")[0].replace(b'"2.0.0"', value)
            for value in (b"NaN", b"[" * 1500 + b"]" * 1500)
        ]
        path.write_bytes(b"\n".join([*bad, whole + whole[:40]]))
        with capturedLogs() as logs:
            self.service = self.startedService()
        self.assertIn(
            f"Spool {self.root}: 7 unreadable lines of the journal are ignored",
            [formatEvent(event) for event in logs],
        )
        self.assertEqual(
            [each.recipients for each in self.courier.batches[-1].messages],
            [("c@there.example",)],
        )

    def test_otherJournal(self) -> None:
        """
        A journal that isn't two files is an error, for a command too: opening a named
        pipe would block, and a link may lead to any file.
        """
        self.successResultOf(self.service.stopService())
        path = self.root / "results.1"
        for make in (os.mkfifo, os.mkdir, partial(os.symlink, "lock")):
            path.unlink() if path.is_file() else None
            make(path)
            self.assertRaises(SpoolUnusable, self.makeService().startService)
            self.assertRaises(SpoolUnusable, InlineSpoolExecutor(self.root).open)
            path.rmdir() if path.is_dir() else path.unlink()

    def test_oldJournal(self) -> None:
        """
        A journal line whose result the index already has changes nothing.
        """
        self.successResultOf(self.record(*deferred(self.batch)))
        lines = (self.root / "results.0").read_bytes()
        self.courier.finish(deferred)
        self.clock.advance(450)
        self.courier.finish(deferred)
        before = self.queued()
        self.assertEqual(before[0].recipients[0].attempts, 2)
        self.successResultOf(self.service.stopService())
        (self.root / "results.0").write_bytes(lines)
        self.service = self.startedService()
        self.assertEqual(self.queued(), before)

    def journal(self) -> list[str]:
        """
        The lines of the journal.
        """
        return [
            line
            for name in ("results.0", "results.1")
            for line in (self.root / name).read_text().splitlines()
        ]

    def states(self) -> list[str]:
        return [
            each.state.value for message in self.queued() for each in message.recipients
        ]


class UnreachableTests(ServiceCase):
    """
    Tests for destinations without a reachable host.
    """

    limits = GroupLimits(maxPerDestination=1, maxMessages=2)

    def setUp(self) -> None:
        super().setUp()
        self.courier.answer = None
        for number in range(7):
            self.submit(f"a{number}@dead.example")

    def attempts(self) -> list[int]:
        return [each.recipients[0].attempts for each in self.queued()]

    def test_allMessagesWait(self) -> None:
        """
        All due messages for an unreachable destination count as attempted, with the
        same result, and wait.
        """
        self.courier.finish(unreachable)
        self.assertEqual(self.courier.pending, [])
        self.assertEqual(self.attempts(), [1] * 7)
        for message in self.queued():
            (recipient,) = message.recipients
            self.assertEqual(recipient.nextAttempt, self.clock.seconds() + 450)
            assert recipient.lastResult is not None
            self.assertEqual(recipient.lastResult.text, "nobody there")

    def test_newMail(self) -> None:
        """
        Mail submitted later waits until the destination is due, and is listed with
        that time.
        """
        self.courier.finish(unreachable)
        self.submit("new@dead.example")
        self.assertEqual(
            {each.recipients[0].nextAttempt for each in self.queued()}, {START + 450}
        )
        self.clock.pump([30] * 14)
        self.assertEqual(self.courier.pending, [])
        self.clock.pump([30] * 2)
        self.assertEqual(len(self.courier.pending), 1)
        self.courier.finish(unreachable)
        self.assertEqual(self.attempts(), [2] * 7 + [1])

    def test_otherDestinations(self) -> None:
        """
        Other destinations are not affected.
        """
        self.courier.finish(unreachable)
        self.submit("you@there.example")
        self.assertEqual(self.courier.batches[-1].destination, "there.example")

    def test_hourly(self) -> None:
        """
        Waits double up to an hour, with one attempt each.
        """
        times: list[float] = []

        def answer(batch: Batch) -> tuple[Result, ...]:
            if batch.destination == "dead.example":
                times.append(self.clock.seconds() - START)
                return unreachable(batch)
            return delivered(batch)

        self.courier.answer = answer
        self.courier.finish(answer)
        self.clock.pump([30] * 600)
        self.assertEqual(times, [0, 450, 1350, 3150, 6750, 10350, 13950, 17550])

    def test_reachableAgain(self) -> None:
        """
        All due messages are sent at once when a host is reachable again.
        """
        self.courier.finish(unreachable)
        self.courier.answer = delivered
        self.clock.pump([30] * 16)
        self.assertEqual(self.queued(), ())

    def test_retry(self) -> None:
        """
        A retry of one message is attempted at once.
        """
        self.courier.finish(unreachable)
        self.courier.answer = delivered
        (first, *_) = self.queued()
        self.successResultOf(self.service.retry(first.messageID))
        self.assertEqual(len(self.queued()), 6)

    def test_restart(self) -> None:
        """
        The wait of a destination survives a restart.
        """
        self.courier.finish(unreachable)
        self.restart()
        self.submit("new@dead.example")
        self.assertEqual(self.courier.pending, [])

    def test_dsns(self) -> None:
        """
        Delay and failure DSNs of each message depend on its own age, even if other
        messages were attempted in its place.
        """
        bounced: list[tuple[float, bytes]] = []

        def answer(batch: Batch) -> tuple[Result, ...]:
            if batch.destination == "dead.example":
                return unreachable(batch)
            now = self.clock.seconds() - START
            bounced.extend((now, each.path.read_bytes()) for each in batch.messages)
            return delivered(batch)

        self.courier.answer = answer
        self.courier.finish(answer)
        self.clock.pump([300] * 12)
        self.submit("late@dead.example")
        self.clock.pump([300] * 12 * 24 * 6)
        self.assertEqual(self.queued(), ())
        ages = {b"Action: delayed": 2 * HOUR, b"Action: failed": 5 * DAY}
        for words, age in ages.items():
            found = [(at, text) for at, text in bounced if words in text]
            self.assertEqual(len(found), 8)
            self.assertTrue(all(b"nobody there" in text for _, text in found))
            for at, text in found:
                came = HOUR if b"late@" in text else 0
                self.assertGreaterEqual(at, came + age)
                self.assertLessEqual(at, came + age + 2 * HOUR)

    def test_maxAttempts(self) -> None:
        """
        The last of a limited number of attempts is made for the message itself.
        """
        once = self.submit("once@dead.example", maxAttempts=1)
        self.courier.finish(unreachable)
        (message,) = [each for each in self.queued() if each.messageID == once]
        self.assertEqual(message.recipients[0].attempts, 0)
        self.courier.answer = unreachable
        self.clock.pump([30] * 16 * 20)
        self.assertNotIn(once, [each.messageID for each in self.queued()])


class AgeTests(ServiceCase):
    """
    Tests for messages that reach their maximum age without an attempt.
    """

    limits = GroupLimits(maxMessageTime=10 * DAY)

    def test_neverAttempted(self) -> None:
        """
        Messages for a destination that is always busy are given up, too, with a DSN.
        """
        self.courier.answer = None
        for number in range(60):
            self.submit(f"a{number}@slow.example")
        self.assertEqual(sum(len(each.messages) for each in self.courier.batches), 2)
        dsns = self.collectDSNs(5 * DAY + 3 * HOUR)
        self.assertEqual(len(dsns[b"Action: failed"]), 58)
        self.assertEqual(len(dsns[b"Action: delayed"]), 58)
        self.assertIn(b"Status: 4.4.7\r\n", dsns[b"Action: failed"][0])

    def collectDSNs(self, seconds: float) -> dict[bytes, list[bytes]]:
        """
        Advance the clock while DSNs are delivered and other attempts hang.

        @return: The DSNs by action.
        """
        found: dict[bytes, list[bytes]] = {
            b"Action: failed": [],
            b"Action: delayed": [],
        }

        def answer(batch: Batch) -> tuple[Result, ...]:
            for each in batch.messages:
                text = each.path.read_bytes()
                for action, texts in found.items():
                    texts += [text] * text.count(action)
            return delivered(batch)

        real = self.courier.deliver

        def deliver(
            batch: Batch, recorder: IResultRecorder
        ) -> Deferred[tuple[Result, ...]]:
            isDSN = batch.destination == "here.example"
            self.courier.answer = answer if isDSN else None
            return real(batch, recorder)

        with patch.object(self.courier, "deliver", deliver):
            self.clock.pump([600] * int(seconds / 600))
        return found

    def test_afterDowntime(self) -> None:
        """
        A message that reached its maximum age while no process ran is attempted before
        it is given up.
        """
        self.courier.answer = None
        self.submit()
        self.successResultOf(self.service.stopService())
        self.clock.advance(6 * DAY)
        self.service = self.startedService()
        self.clock.pump([60] * 20)
        self.courier.pending.pop(0)
        self.courier.finish(delivered)
        self.assertEqual(self.queued(), ())

    def test_held(self) -> None:
        """
        A held message isn't given up and causes no delay DSN.
        """
        self.courier.answer = deferred
        messageID = self.submit()
        self.successResultOf(self.service.hold(messageID, True))
        self.clock.pump([HOUR] * 24 * 7)
        (message,) = self.queued()
        self.assertEqual(message.recipients[0].state, RecipientState.WAITING)


class DamagedFileTests(ServiceCase):
    """
    Tests for messages with damaged files.
    """

    def setUp(self) -> None:
        super().setUp()
        self.courier.answer = deferred
        self.messageID = self.submit()
        self.path = self.queued()[0].path
        self.errors: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.error:
                self.errors.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def assertHeld(self, fault: str) -> None:
        """
        Assert that the message is held with one logged error and isn't delivered.
        """
        self.courier.answer = delivered
        self.clock.pump([60] * 30)
        (message,) = self.queued()
        self.assertTrue(message.held)
        self.assertEqual(len(self.courier.batches), 1)
        (error,) = self.errors
        self.assertIn(self.messageID, error)
        self.assertIn(fault, error)

    def test_empty(self) -> None:
        """
        A message with an empty file is held.
        """
        self.path.write_bytes(b"")
        self.assertHeld("0 octets instead of 47")

    def test_truncated(self) -> None:
        """
        A message with a truncated file is held.
        """
        self.path.write_bytes(self.path.read_bytes()[:-1])
        self.assertHeld("46 octets instead of 47")

    def test_missing(self) -> None:
        """
        A message with a missing file is held.
        """
        self.path.unlink()
        self.assertHeld("No such file")

    def test_restored(self) -> None:
        """
        A message is delivered if it is released after its file was restored.
        """
        whole = self.path.read_bytes()
        self.path.write_bytes(b"")
        self.assertHeld("0 octets")
        self.path.write_bytes(whole)
        self.successResultOf(self.service.hold(self.messageID, False))
        self.assertEqual(self.queued(), ())

    def test_otherMessages(self) -> None:
        """
        Other messages to the same destination are delivered.
        """
        self.path.write_bytes(b"")
        self.courier.answer = delivered
        self.submit("b@there.example")
        self.clock.pump([60] * 30)
        self.assertEqual([each.messageID for each in self.queued()], [self.messageID])


class StaleFilesTests(ServiceCase):
    """
    Tests for files left behind by a killed process.
    """

    def test_removed(self) -> None:
        """
        Stale files are removed while the service runs, not only when it starts.
        """
        folder = self.root / "messages"
        for name in (".half", "whole"):
            (folder / name).write_bytes(b"x")
            os.utime(folder / name, (0, START))
        self.courier.answer = deferred
        messageID = self.submit()
        os.utime(folder / messageID, (0, START))
        self.clock.pump([60] * 31)
        self.assertEqual(os.listdir(folder), [messageID])


class CommandTests(ServiceCase):
    """
    Tests for commands on queued messages, in this or another process.
    """

    def setUp(self) -> None:
        super().setUp()
        self.courier.answer = deferred
        self.messageID = self.submit()
        self.courier.answer = delivered
        spool = InlineSpoolExecutor(self.root)
        spool.open()
        self.addCleanup(spool.close)
        self.other = QueueClient(self.clock, spool, self.newID)

    def test_retry(self) -> None:
        """
        A retry starts an attempt at once, which counts.
        """
        self.assertTrue(self.successResultOf(self.service.retry(self.messageID)))
        self.assertEqual([each.attempt for each in self.courier.batches], [1, 2])

    def test_retryInOtherProcess(self) -> None:
        """
        A retry in another process takes effect with the next periodic query.
        """
        self.successResultOf(self.other.retry(self.messageID))
        self.assertEqual(len(self.courier.batches), 1)
        self.clock.advance(1)
        self.assertEqual(self.queued(), ())

    def test_submitInOtherProcess(self) -> None:
        """
        A message submitted in another process is attempted after the next periodic
        query.
        """
        self.successResultOf(self.other.submit(Envelope("", ("x@else.example",)), BODY))
        self.clock.advance(1)
        self.assertEqual(self.courier.batches[-1].destination, "else.example")

    def test_held(self) -> None:
        """
        A held message isn't attempted, even after a retry, until it is released.
        """
        self.successResultOf(self.service.hold(self.messageID, True))
        self.successResultOf(self.service.retry(self.messageID))
        self.clock.pump([60] * 60)
        self.assertEqual(len(self.courier.batches), 1)
        self.successResultOf(self.service.hold(self.messageID, False))
        self.assertEqual(self.queued(), ())

    def test_heldDuringAttempt(self) -> None:
        """
        A message held during an attempt is held when the attempt has ended.
        """
        self.courier.answer = None
        self.successResultOf(self.service.retry(self.messageID))
        self.successResultOf(self.other.hold(self.messageID, True))
        self.courier.finish(deferred)
        self.clock.pump([60] * 60)
        self.assertEqual(len(self.courier.batches), 2)
        self.assertTrue(self.queued()[0].held)

    def test_droppedDuringAttempt(self) -> None:
        """
        A message dropped during an attempt stays removed and causes no DSN.
        """
        self.courier.answer = None
        self.successResultOf(self.service.retry(self.messageID))
        self.successResultOf(self.service.drop(self.messageID))
        self.courier.finish(refused)
        self.assertEqual(self.queued(), ())


class ConcurrencyTests(ServiceCase):
    """
    Tests for limits and grouping of concurrent attempts.
    """

    limits = GroupLimits(
        maxConcurrent=5, maxPerDestination=2, maxMessages=3, maxRecipients=4
    )

    def setUp(self) -> None:
        super().setUp()
        self.courier.answer = None

    def test_perDestination(self) -> None:
        """
        Attempts for one destination are limited; waiting messages share the next one.
        """
        for _ in range(8):
            self.submit()
        self.assertEqual(len(self.courier.pending), 2)
        self.courier.finish(delivered)
        self.assertEqual(len(self.courier.pending), 2)
        self.assertEqual(len(self.courier.batches[-1].messages), 3)

    def test_total(self) -> None:
        """
        The total number of attempts is limited.
        """
        for number in range(8):
            self.submit(f"a@d{number}.example")
        self.assertEqual(len(self.courier.pending), 5)
        self.courier.finish(delivered)
        self.assertEqual(len(self.courier.pending), 5)

    def test_slowDestination(self) -> None:
        """
        Many messages for a slow destination don't delay other destinations.
        """
        for _ in range(50):
            self.submit()
        self.submit("a@else.example")
        self.assertEqual(self.courier.batches[-1].destination, "else.example")

    def test_recipients(self) -> None:
        """
        The recipients of an attempt are limited, and each recipient is attempted once.
        """
        self.courier.answer = delivered
        recipients = [f"a{number}@there.example" for number in range(10)]
        self.submit(*recipients)
        sizes = [len(batch.messages[0].recipients) for batch in self.courier.batches]
        self.assertEqual(sizes, [4, 4, 2])
        attempted = [r for b in self.courier.batches for r in b.messages[0].recipients]
        self.assertEqual(attempted, recipients)

    def test_tlsRequirements(self) -> None:
        """
        Messages with different TLS requirements are in different attempts.
        """
        self.clock.advance(0)
        held = [
            self.submit(requireTLS=demand, report=report)
            for demand in (None, True, False)
            for report in (None, ReportKind.TLS)
        ]
        self.assertEqual(len(held), 6)
        self.courier.answer = delivered
        while self.courier.pending:
            self.courier.finish(delivered)
        demands = [(each.requireTLS, each.report) for each in self.courier.batches]
        self.assertEqual(len(set(demands)), 6)

    def test_causesReports(self) -> None:
        """
        Messages that must not cause reports (reports, responses, null reverse-path) are
        in separate attempts.
        """
        self.clock.advance(0)
        for sender, response, report in (
            ("a@here.example", False, None),
            ("a@here.example", True, None),
            ("", False, None),
            ("a@here.example", False, ReportKind.DMARC),
        ):
            self.submit(sender=sender, response=response, report=report)
        self.courier.answer = delivered
        while self.courier.pending:
            self.courier.finish(delivered)
        causing = [each.causesReports for each in self.courier.batches]
        self.assertEqual(sorted(causing), [False, False, False, True])

    def test_requireTLSDSNs(self) -> None:
        """
        REQUIRETLS DSNs are in separate attempts, as less is required of them than of
        other REQUIRETLS messages.  RFC 8689 5
        """
        self.clock.advance(0)
        # The first two are attempted at once, the others together.
        for sender in ("a@here.example", "b@here.example", "", "c@here.example"):
            self.submit(sender=sender, requireTLS=True)
        while self.courier.pending:
            self.courier.finish(delivered)
        senders = [
            {item.sender == "" for item in batch.messages}
            for batch in self.courier.batches
        ]
        self.assertEqual({len(each) for each in senders}, {1})


class ReportTests(ServiceCase):
    """
    Tests for reports sent by this node.
    """

    def submitReport(self, *recipients: str, **more: object) -> str:
        return self.submit(
            *recipients, sender="r@here.example", report=ReportKind.TLS,
            key="k", **more,
        )  # fmt: skip

    def test_delivered(self) -> None:
        """
        The observers, and nobody else, are notified of a delivered report.
        """
        self.submitReport()
        ((envelope, result),) = self.observer.notifications
        self.assertEqual(envelope.key, "k")
        self.assertEqual(result.ending, DeliveryStatus.DELIVERED)
        self.assertEqual(self.mailbox.deliveries, [])
        self.assertEqual(self.queued(), ())

    def test_failed(self) -> None:
        """
        The DSN about a report is stored in a mailbox as read instead of being sent.
        """
        self.courier.answer = refused
        self.submitReport()
        ((_, result),) = self.observer.notifications
        self.assertEqual(result.ending, DeliveryStatus.PERMANENT)
        ((mailbox, dsn, seen),) = self.mailbox.deliveries
        self.assertEqual((mailbox, seen), ("Postmaster/tls", True))
        self.assertIn(b"Action: failed", dsn)
        self.assertIn(b"To: r@here.example", dsn)
        self.assertEqual(self.queued(), ())

    def test_noDelayDSN(self) -> None:
        """
        A report is attempted for 24 hours (RFC 8460 5.5) without a delay DSN.
        """
        self.courier.answer = deferred
        self.submitReport()
        self.clock.pump([450] * (24 * 8))
        self.assertEqual(len(self.courier.batches), 10)
        ((_, result),) = self.observer.notifications
        self.assertEqual(result.ending, DeliveryStatus.TEMPORARY)
        self.assertEqual(self.queued(), ())

    def test_posted(self) -> None:
        """
        The DSN about a report sent by HTTP returns no header.
        """
        self.courier.answer = refused
        self.submitReport("https://a.example/r", contentType="application/tlsrpt+gzip")
        ((_, dsn, _),) = self.mailbox.deliveries
        self.assertIn(b"Final-Recipient: x-uri; https://a.example/r\r\n", dsn)
        self.assertNotIn(b"Subject: hello", dsn)

    def test_observerFails(self) -> None:
        """
        A failed notification of an observer is repeated, also by the next process, and
        the message stays queued until it succeeds.
        """
        self.observer.broken = True
        self.submitReport()
        self.assertTrue(self.flushLoggedErrors(OSError))
        self.assertEqual(len(self.queued()), 1)
        self.restart()
        self.assertTrue(self.flushLoggedErrors(OSError))
        self.observer.broken = False
        self.clock.pump([30] * 3)
        self.assertEqual(len(self.observer.notifications), 1)
        self.assertEqual(self.queued(), ())
        self.assertEqual(len(self.courier.batches), 1)

    def test_mailboxFails(self) -> None:
        """
        A DSN that the mailbox can't store is stored later.
        """
        self.courier.answer = refused
        self.mailbox.broken = True
        self.submitReport()
        self.assertTrue(self.flushLoggedErrors(OSError))
        self.mailbox.broken = False
        self.clock.pump([30] * 3)
        self.assertEqual(len(self.mailbox.deliveries), 1)


class StopTests(ServiceCase):
    """
    Tests for stopping and restarting the service.
    """

    def test_attemptCancelled(self) -> None:
        """
        Stopping cancels attempts; they don't count, and the next process repeats them
        at once.
        """
        self.courier.answer = None
        self.submit()
        ((_, attempt),) = self.courier.pending
        self.successResultOf(self.service.stopService())
        self.assertTrue(attempt.called)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.courier.answer = delivered
        self.service = self.startedService()
        self.assertEqual([each.attempt for each in self.courier.batches], [1, 1])
        self.assertEqual(self.queued(), ())

    def test_partialResults(self) -> None:
        """
        Recipients that a cancelled courier reports as delivered aren't attempted again.
        """

        def deliver(
            batch: Batch, recorder: IResultRecorder
        ) -> Deferred[tuple[Result, ...]]:
            return Deferred(lambda own: own.callback(delivered(batch)[:1]))

        with patch.object(self.courier, "deliver", deliver):
            self.submit("a@there.example", "b@there.example")
            self.restart()
            states = [each.state for each in self.queued()[0].recipients]
        self.assertEqual(states, [RecipientState.DELIVERED, RecipientState.WAITING])

    def test_temporaryResults(self) -> None:
        """
        Temporary results of a cancelled courier count after a timeout, but not when the
        service stops.
        """

        def deliver(
            batch: Batch, recorder: IResultRecorder
        ) -> Deferred[tuple[Result, ...]]:
            return Deferred(lambda own: own.callback(deferred(batch)))

        with patch.object(self.courier, "deliver", deliver):
            self.submit()
            self.restart()
            (recipient,) = self.queued()[0].recipients
            self.assertEqual((recipient.attempts, recipient.lastResult), (0, None))
            self.clock.pump([60] * 36)
        (recipient,) = self.queued()[0].recipients
        assert recipient.lastResult is not None
        self.assertEqual(recipient.attempts, 1)
        self.assertNotIn("without a result", recipient.lastResult.text)

    def test_waitsForCourier(self) -> None:
        """
        Stopping waits for cancelled couriers to finish.
        """
        slow: list[Deferred[tuple[Result, ...]]] = []

        def deliver(
            batch: Batch, recorder: IResultRecorder
        ) -> Deferred[tuple[Result, ...]]:
            def cancelled(failure: object) -> Deferred[tuple[Result, ...]]:
                slow.append(Deferred())
                return slow[0]

            result: Deferred[tuple[Result, ...]] = Deferred()
            return result.addErrback(cancelled)

        with patch.object(self.courier, "deliver", deliver):
            self.submit()
        stopped = self.service.stopService()
        slow[0].errback(CancelledError())
        self.successResultOf(stopped)

    def test_unreportedFailure(self) -> None:
        """
        A failure whose DSN was postponed until other attempts end is reported after a
        restart.
        """
        self.courier.answer = None
        self.submit("a@one.example", "b@two.example")
        self.courier.finish(refused)
        self.assertEqual(self.dsns(), [])
        self.restart()
        self.assertEqual(len(self.dsns()), 1)

    def test_fullDiskAtStart(self) -> None:
        """
        A process that starts with a full disk does what another one left as soon as
        there is room, before the first attempt.
        """
        self.courier.answer = None
        self.submit("a@one.example", "b@two.example")
        self.courier.finish(refused)
        self.successResultOf(self.service.stopService())
        attempts = len(self.courier.batches)
        with patch(
            "moxtls.queue.index.Index.repair", side_effect=sqlite3.OperationalError
        ):
            self.service = self.startedService()
            self.clock.pump([1] * 30)
        self.assertEqual(len(self.courier.batches), attempts)
        self.clock.pump([1] * 12)
        errors = self.flushLoggedErrors(sqlite3.OperationalError)
        self.assertLess(len(errors), 5)
        self.assertEqual(len(self.dsns()), 1)
        self.assertGreater(len(self.courier.batches), attempts)

    def test_secondService(self) -> None:
        """
        A second service on the same spool doesn't start.
        """
        other = self.makeService()
        self.assertRaises(SpoolUnusable, other.startService)
        self.assertFalse(other.running)

    def test_idle(self) -> None:
        """
        An idle service stops at once and leaves no delayed calls.
        """
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OrderTests(ServiceCase):
    """
    Tests for the order of attempts.
    """

    limits = GroupLimits(maxConcurrent=4, maxPerDestination=1, maxMessages=1)

    def setUp(self) -> None:
        super().setUp()
        self.courier.answer = None

    def destinations(self) -> list[str]:
        return [each.destination for each in self.courier.batches]

    def test_newAndOldMail(self) -> None:
        """
        New and old mail get equal shares of the attempts.
        """
        for number in range(20):
            self.submit(f"a@old{number}.example")
        self.clock.advance(1)
        for number in range(20):
            self.submit(f"a@new{number}.example")
        del self.courier.batches[:]
        for _ in range(10):
            self.courier.finish(delivered)
        kinds = [each[:3] for each in self.destinations()]
        self.assertEqual(kinds.count("new"), 5)
        self.assertEqual(kinds.count("old"), 5)

    def test_fairDestinations(self) -> None:
        """
        Destinations with many older messages don't starve one with a single new
        message.
        """
        for number in range(5):
            for _ in range(20):
                self.submit(f"a@big{number}.example")
        self.clock.advance(1)
        self.submit("a@small.example")
        for _ in range(8):
            self.clock.advance(1)
            self.courier.finish(delivered)
        self.assertIn("small.example", self.destinations())
        self.assertIn("big4.example", self.destinations())

    def test_retriesLimited(self) -> None:
        """
        Retries leave some of the concurrent attempts to new mail.
        """
        self.courier.answer = deferred
        for number in range(20):
            self.submit(f"a@slow{number}.example")
        self.courier.answer = None
        self.clock.pump([460])
        self.assertEqual(len(self.courier.pending), 3)
        self.submit("a@quick.example")
        self.assertEqual(len(self.courier.pending), 4)
        self.assertEqual(self.destinations()[-1], "quick.example")

    def test_oldestFirst(self) -> None:
        """
        Messages for one destination are attempted in the order of their submission.
        """
        sent = [self.submit() for _ in range(6)]
        while self.courier.pending:
            self.courier.finish(delivered)
        self.assertEqual(
            [each.messages[0].messageID for each in self.courier.batches], sent
        )


class LongQueueTests(ServiceCase):
    """
    Tests for a long queue.
    """

    def test_periodicQueryCost(self) -> None:
        """
        A periodic query costs next to nothing while ten thousand messages wait, and
        each is sent once when due.
        """
        spool = Spool(self.root)
        self.addCleanup(spool.close)
        # The cost of writing files is not measured.
        self.patch(MessageFiles, "fault", lambda bodies, messageID, size: "")
        with patch.object(MessageFiles, "write", return_value=10):
            spool.perform(
                [lambda spool: fill(spool, 10_000, self.clock.seconds() + 100)]
            )
        steps: list[int] = []
        countSteps(self.service, steps)
        self.clock.advance(1)
        self.assertLess(len(steps), 10)
        self.clock.advance(100)
        sent = [p.messageID for b in self.courier.batches for p in b.messages]
        self.assertEqual(len(sent), 10_000)
        self.assertEqual(len(set(sent)), 10_000)
        self.assertEqual(self.queued(), ())


def fill(spool: Spool, number: int, due: float) -> None:
    """
    Operation that submits C{number} messages for a hundred destinations.
    """
    for n in range(number):
        envelope = Envelope("us@here.example", (f"a@d{n % 100}.example",))
        spool.submit(f"m{n}", envelope, BODY, due)


def countSteps(service: QueueService, steps: list[int]) -> None:
    """
    Append to C{steps} for each thousand instructions of SQLite's virtual machine.
    """
    service._spool.run(
        lambda spool: spool._db.set_progress_handler(lambda: steps.append(1), 1000)
    )
