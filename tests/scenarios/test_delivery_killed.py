"""
A queue whose process is killed while it hands messages to an SMTP server.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import count
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.runtime import platform
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from moxtls.delivery.relay import Relay, SmarthostCourier, parseRelayHost
from moxtls.delivery.sessions import Dialer
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.message.header import ClientInfo
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.queue.schedule import GroupLimits
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.spool import Spool
from moxtls.queue.types import Envelope, RecipientState
from moxtls.smtp.client.connection import ClientSettings
from moxtls.smtp.client.session import ClientSession
from moxtls.smtp.server.interfaces import IMessage
from moxtls.smtp.server.state import TransactionState
from moxtls.smtp.types import Reply, TLSMode
from tests.delivery.deliveries import TRUST
from tests.network import SMTP, AcceptingDelivery, Network
from tests.queue.couriers import FakeMailbox
from tests.queue.killing import killedAt, quickDirectory

START = 1_800_000_000
IP = "192.0.2.25"
BODY = [b"Subject: a\r\n\r\nbody\r\n"]
MESSAGES = 6
CONNECTIONS = 2
SENDERS = [f"s{number}@us.example" for number in range(MESSAGES)]


class JournalDelivery(AcceptingDelivery):
    """
    Accepts everything, and appends the sender of each message to a file before it
    replies.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self._journal = journal

    def message(self, client: ClientInfo, transaction: TransactionState) -> IMessage:
        sink = super().message(client, transaction)
        finish = sink.finish

        def noted() -> Deferred[Reply]:
            with self._journal.open("a") as file:
                file.write(f"{transaction.sender}\n")
            return finish()

        sink.finish = noted  # type: ignore[method-assign]
        return sink


class DeliveryKilledTests(SynchronousTestCase):
    """
    Tests for L{QueueService} and its result log when its process is killed.
    """

    def setUp(self) -> None:
        if not platform.isLinux():
            raise SkipTest("needs fork")

    def filled(self) -> Path:
        """
        A spool with messages from different senders.
        """
        root = quickDirectory(self)
        spool = Spool(root)
        for number in range(MESSAGES):
            spool.perform([partial(submit, number=number)])
        spool.close()
        return root

    def live(self, root: Path) -> list[str]:
        """
        Run a process that delivers the queue until it is killed.

        @return: Senders of the undelivered messages.
        """
        clock = Clock()
        clock.advance(START)
        network = Network(clock)
        network.answer(IP, JournalDelivery(root / "journal").server(clock, None))
        service = makeService(clock, network, root)
        service.startService()
        network.flush()
        left = self.successResultOf(service.messages())
        stopped = service.stopService()
        network.flush()
        self.successResultOf(stopped)
        return [each.envelope.sender for each in left]

    def listed(self, root: Path) -> set[str]:
        """
        Senders of the messages that a command lists as waiting.
        """
        spool = InlineSpoolExecutor(root)
        spool.open()
        listing = spool.read(lambda spool: spool.index.messages())
        spool.close()
        return {
            each.envelope.sender
            for each in self.successResultOf(listing)
            if each.recipients[0].state is RecipientState.WAITING
        }

    def test_killed(self) -> None:
        """
        Each message arrives, whenever the process is killed. At most one message of
        each connection arrives twice; apart from these, the queue lists exactly the
        undelivered messages in between.
        """
        mostRepeated = 0
        for step in count():
            root = self.filled()
            died = killedAt(step, partial(self.live, root))
            journal = root / "journal"
            before = set(journal.read_text().split()) if journal.exists() else set()
            repeated = before & self.listed(root)
            self.assertLessEqual(len(repeated), CONNECTIONS)
            self.assertEqual(before | self.listed(root), set(SENDERS))
            self.assertEqual(self.live(root), [])
            arrived = Counter(journal.read_text().split())
            self.assertEqual(set(arrived), set(SENDERS))
            self.assertEqual({each for each in arrived if arrived[each] > 1}, repeated)
            self.assertLessEqual(max(arrived.values()), 2)
            mostRepeated = max(mostRepeated, len(repeated))
            if not died:
                break
        self.assertGreater(step, 4 * MESSAGES)
        # Otherwise it never died at the moment that this is about.
        self.assertGreater(mostRepeated, 0)


def submit(spool: Spool, number: int) -> None:
    """
    Operation: add a message.
    """
    envelope = Envelope(SENDERS[number], (f"you{number}@there.example",))
    spool.submit(f"m{number}", envelope, BODY, START)


def makeService(clock: Clock, network: Network, root: Path) -> QueueService:
    """
    A queue that relays everything to one smarthost.
    """
    dialer = Dialer(clock, network.endpoint)
    settings = ClientSettings("us.example", TRUST, TLSMode.SKIP, (IP,))

    def dial(ip: str) -> Deferred[ClientSession]:
        return dialer.dial(ip, SMTP, settings)

    relay = Relay(parseRelayHost(IP), (RRType.A,), secure=False)
    courier = SmarthostCourier(MemoryResolver(), relay, dial, dialer.release)
    return QueueService(
        clock,
        InlineSpoolExecutor(root),
        lambda batch: courier,
        Settlement("us.example", lambda: "dsn"),
        ReportStatusNotifier(clock, [], FakeMailbox(), str),
        lambda: "new",
        jitter=lambda: 0.5,
        limits=GroupLimits(
            maxPerDestination=CONNECTIONS, maxMessages=MESSAGES // CONNECTIONS
        ),
    )
