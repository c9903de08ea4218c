"""
A host that receives mail, in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from moxtls.authentication.check import MessageAuthenticator
from moxtls.config import Config, parse
from moxtls.dmarc.evaluation import EvaluationRecorder
from moxtls.dmarc.types import VerdictEvent
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.domain import Domain
from moxtls.interfaces import IMailbox, IVerdictObserver
from moxtls.ledger.ledger import MemoryLedger
from moxtls.mailbox.memory import MemoryMailbox
from moxtls.mailbox.names import MailboxFull, MailboxRefused
from moxtls.message.header import ClientInfo
from moxtls.queue.memory import MemoryQueue
from moxtls.reception.acceptor import LocalDomains, Reception
from moxtls.reception.delivery import MailboxDelivery, VerdictDispatcher
from moxtls.reception.recipients import Directory
from moxtls.reception.reportaddresses import ReportAddresses
from moxtls.reception.reports import MailedReports
from moxtls.reporting.handover import ReportDeliveryTracker
from moxtls.smtp.server.state import TransactionState
from moxtls.smtp.server.syntax import MailParameters
from moxtls.smtp.types import Reply
from tests.reception.signed import HOST, resolver

HOSTNAME = "mx.our.example"
NOW = 1_800_000_000
CONFIG = f"""
Hostname = "{HOSTNAME}"
[HostTLSRPT]
[Domains."our.example".Aliases.all]
Addresses = ["anna@our.example", "bob@our.example"]
[Domains."own.example"]
[Accounts.anna]
RejectsMailbox = "Rejects"
[Accounts.anna.Destinations]
"anna@our.example" = {{}}
"lists@our.example" = {{Mailbox = "Lists"}}
[Accounts.bob]
JunkMailbox = "Spam"
[Accounts.bob.Destinations]
"bob@our.example" = {{}}
"\u00fc@our.example" = {{}}
"@own.example" = {{Mailbox = "Rest"}}
"""


@implementer(IMailbox)
class PickyMailbox(MemoryMailbox):
    """
    A mailbox that can fail.

    @ivar error: The exception it fails with.
    @ivar room: Free octets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.room = 1_000_000

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        if self.error is not None:
            return fail(self.error)
        return super().deliver(mailbox, message, seen)

    def hasRoom(self, size: int) -> Deferred[bool]:
        return succeed(size <= self.room)


@implementer(IVerdictObserver)
class RecordingObserver:
    """
    Records verdict events.
    """

    def __init__(self) -> None:
        self.events: list[VerdictEvent] = []
        self.answer: Deferred[None] = succeed(None)

    def verdictGiven(self, event: VerdictEvent) -> Deferred[None]:
        self.events.append(event)
        return self.answer


@dataclass
class Received:
    """
    The replies to a message, and its delivery.

    @ivar rcpt: The reply to each RCPT.
    """

    rcpt: list[int]
    reply: Reply


class ReceptionCase(SynchronousTestCase):
    """
    Tests of a host that receives mail.
    """

    config = CONFIG
    localPolicy = LocalPolicy()

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.dns = resolver()
        self.ledger = MemoryLedger()
        self.listening = RecordingObserver()
        self.mail: dict[str, PickyMailbox] = defaultdict(PickyMailbox)
        numbers = count(1)
        self.queue = MemoryQueue(self.clock, lambda: f"q{next(numbers)}")
        self.reception = self.made(self.checks())

    def checks(self) -> MessageAuthenticator:
        return MessageAuthenticator(
            self.clock,
            self.dns,
            self.localPolicy,
            HOSTNAME,
            lambda f: execute(f),
            lambda: 0,
        )

    def mailedReports(self, config: Config) -> MailedReports | None:
        """
        What takes in reports; nothing unless a test has it.
        """
        return None

    def made(self, checks: MessageAuthenticator | None) -> Reception:
        config = parse(self.config, "moxtls.toml")
        ledger, clock = self.ledger, self.clock
        deliveryTracker = ReportDeliveryTracker(
            clock, ledger.archive, ledger.suppressions
        )
        self.directory = Directory(config)
        localDomains = LocalDomains(
            HOSTNAME,
            self.directory,
            config.accounts,
            self.mail.__getitem__,
            config.postmaster.mailbox,
            deliveryTracker.bounced,
            ReportAddresses(
                clock, self.dns, config.domains, equivalents=self.directory.equivalents
            ).include,
            self.mailedReports(config),
        )
        recorder = EvaluationRecorder(clock, ledger.evaluations, True)
        self.dispatcher = VerdictDispatcher(
            clock, [self.listening, recorder], ledger.history
        )
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        return Reception(
            clock,
            localDomains,
            MailboxDelivery(self.mail.__getitem__, self.queue),
            self.dispatcher,
            checks,
            lambda: "id1",
            folder,
        )

    def receive(
        self,
        message: bytes,
        *to: str,
        sender: str = "x@a.example",
        client: ClientInfo = HOST,
        size: int = 0,
    ) -> Received:
        """
        Hand a message to the acceptor, in pieces.
        """
        parameters = MailParameters(size=size, smtputf8=True)
        transaction = TransactionState(sender, parameters)
        first = self.reception.mailFrom(client, transaction)
        self.assertEqual(self.successResultOf(first).code, 250)
        codes = []
        taken: list[str] = []
        for recipient in to or ("anna@our.example",):
            asked = self.reception.rcptTo(client, transaction, recipient)
            codes.append(self.successResultOf(asked).code)
            if codes[-1] == 250:
                taken.append(recipient)
        transaction = TransactionState(sender, parameters, tuple(taken))
        sink = self.reception.message(client, transaction)
        for start in range(0, len(message), 50_000):
            self.assertIsNone(sink.write(message[start : start + 50_000]))
        return Received(codes, self.successResultOf(sink.finish()))

    def stored(self, account: str, *mailbox: str) -> list[bytes]:
        """
        The messages in a mailbox of an account.
        """
        return [each.message for each in self.mail[account].messages.get(mailbox, [])]

    def mailboxes(self) -> set[tuple[str, ...]]:
        """
        The mailboxes that aren't empty, by account and parts of their names.
        """
        return {
            (account, *parts)
            for account, mailbox in self.mail.items()
            for parts in mailbox.messages
        }

    def isKnown(self, account: str, domain: str) -> bool:
        known = self.ledger.history.isKnown(account, Domain.parse(domain))
        return self.successResultOf(known)


__all__ = ["MailboxFull", "MailboxRefused", "Received", "ReceptionCase"]
