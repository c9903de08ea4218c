"""
A queue whose process is killed at every step, and restarted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from moxtls.interfaces import (
    ICourier,
    IMailbox,
    IReportObserver,
    IResultRecorder,
)
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.queue.schedule import GroupLimits
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.types import Batch, Envelope, ReportKind, Result
from tests.queue.couriers import delivered, refused
from tests.queue.killing import killedAt, quickDirectory

START = 1_800_000_000
BODY = [b"Subject: a\r\n\r\nbody\r\n"]
MAIL = Envelope(
    "us@here.example", ("good@there.example", "bad@refusing.example"), key="mail"
)
REPORT = Envelope("r@here.example", ("r@refusing.example",), key="report",
                  report=ReportKind.TLS)  # fmt: skip


class Journal:
    """
    Events outside the queue, over all its processes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, *words: object) -> None:
        with self._path.open("a") as file:
            file.write(" ".join(str(word) for word in words) + "\n")

    def counts(self) -> Counter[str]:
        return Counter(self._path.read_text().splitlines())


@implementer(ICourier)
class NotingCourier:
    """
    Delivers everything for one destination, and nothing for the other.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        for message in batch.messages:
            # It has to be there, and whole.
            message.path.read_bytes().index(b"\r\n\r\n")
            what = message.sender or f"dsn {message.messageID}"
            self._journal.note("attempt", what, batch.destination)
        isRefused = batch.destination == "refusing.example"
        return succeed(refused(batch) if isRefused else delivered(batch))


@implementer(IReportObserver)
class NotingObserver:
    """
    Records report results.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def reportEnded(self, envelope: Envelope, result: Result) -> Deferred[None]:
        self._journal.note("told", envelope.key, result.ending.value)
        return succeed(None)


@implementer(IMailbox)
class NotingMailbox:
    """
    Records stored messages.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        self._journal.note("kept", mailbox)
        return succeed(None)

    def hasRoom(self, size: int) -> Deferred[bool]:
        return succeed(True)


class KilledTests(SynchronousTestCase):
    """
    Tests for L{QueueService} when its process is killed repeatedly.
    """

    def live(self, root: Path, name: str) -> int:
        """
        Run a process that submits both messages, as a client does that doesn't know
        whether they were accepted, and delivers the queue.

        @return: The number of messages left at its end.
        """
        clock = Clock()
        clock.advance(START)
        numbers = count(1)
        journal = Journal(root / "journal")
        courier = NotingCourier(journal)

        def newID() -> str:
            return f"{name}{next(numbers)}"

        service = QueueService(
            clock,
            InlineSpoolExecutor(root),
            lambda batch: courier,
            Settlement("mx.here.example", newID),
            ReportStatusNotifier(
                clock, [NotingObserver(journal)], NotingMailbox(journal), str
            ),
            newID,
            jitter=lambda: 0.5,
            limits=GroupLimits(),
        )
        service.startService()
        for envelope in (MAIL, REPORT):
            self.successResultOf(service.submit(envelope, BODY))
        clock.advance(60)
        left = len(self.successResultOf(service.messages()))
        self.successResultOf(service.stopService())
        return left

    def test_killed(self) -> None:
        """
        The next process finishes what a killed one began: nothing is lost, no DSN is
        sent twice, and observers of the report are notified. Only the interrupted
        attempt is repeated.
        """
        for step in count():
            root = quickDirectory(self)
            died = killedAt(step, partial(self.live, root, "first"))
            self.assertEqual(self.live(root, "second"), 0)
            self.check(Journal(root / "journal").counts(), died)
            if not died:
                break
        self.assertGreater(step, 50)

    def check(self, counts: Counter[str], died: bool) -> None:
        attempts = {
            words: number for words, number in counts.items() if "attempt" in words
        }
        bounces = [words for words in attempts if " dsn " in words]
        self.assertEqual(len(bounces), 1, attempts)
        self.assertEqual(len(attempts), 4)
        self.assertLessEqual(sum(attempts.values()), 4 + (1 if died else 0), attempts)
        for note in ("told report permanent", "kept tls"):
            self.assertIn(counts[note], (1, 2) if died else (1,))
