"""
Nodes that share a ledger and send TLS reports, each from a queue of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from moxtls.dates import HOUR, MINUTE, midnight, utcDay
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Address, Domain
from moxtls.interfaces import IResolver
from moxtls.queue.memory import MemoryQueue
from moxtls.queue.types import DeliveryStatus, Envelope, ReportKind, Result
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.handover import QueueSubmitter, ReportDeliveryTracker
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from moxtls.tlsrpt.parse import ReceivedTLSReport
from moxtls.tlsrpt.recorder import OutcomeRecorder
from moxtls.tlsrpt.source import TLSReporting, TLSReportSource
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    TLSPolicy,
)
from tests.ledger.contracts import Stores
from tests.reporting.support import ED25519, HOSTNAME, SUBMITTER, ids
from tests.reports import readTLSReport

FAILURE = FailureDetail(ResultType.STARTTLS_NOT_SUPPORTED)


class Ledger(Stores, Protocol):
    """
    A ledger of any backend.
    """

    def stop(self) -> Deferred[None]: ...


@dataclass(frozen=True, slots=True)
class RecipientDomain:
    """
    A recipient domain.

    @ivar host: The domain's only MX host.
    @ivar lines: The lines of its MTA-STS policy; empty if it has no policy.
    """

    domain: Domain
    host: Domain
    lines: tuple[str, ...] = ()

    def outcome(self, sessions: int, sendReport: bool = True) -> SessionOutcome:
        """
        An outcome of C{sessions} successful sessions, and as many without TLS.
        """
        failures = Counter({FAILURE: sessions})
        kind = PolicyType.STS if self.lines else PolicyType.NO_POLICY
        own = TLSPolicy(kind, self.domain, self.lines)
        return SessionOutcome(
            self.domain,
            PolicyTally(own, sessions, 0, failures),
            (
                PolicyTally(
                    TLSPolicy(PolicyType.NO_POLICY, self.host), sessions, 0, failures
                ),
            ),
            sendReport,
        )


#: Policy domain, its policy, sessions.
Contents = frozenset[tuple[str, tuple[str, ...], int]]
#: Day, recipient domain, lines of its policy.
SessionKey = tuple[date, Domain, tuple[str, ...]]


class Journal:
    """
    Log of all sessions, independent of any store.

    @ivar sessions: The number of sessions.
    """

    def __init__(self) -> None:
        self.sessions: Counter[SessionKey] = Counter()

    def note(self, day: date, recipient: RecipientDomain, sessions: int) -> None:
        self.sessions[day, recipient.domain, recipient.lines] += sessions

    def total(self, day: date, domain: Domain) -> int:
        """
        Sessions under all policies of a domain.
        """
        return sum(
            count
            for (when, what, _), count in self.sessions.items()
            if (when, what) == (day, domain)
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """
    A report in some node's queue.

    @ivar about: Its policy domain, prefixed with C{host} if it is about an MX host.
    """

    node: str
    to: str
    about: str
    report: ReceivedTLSReport

    @property
    def day(self) -> date:
        return utcDay(self.report.start)

    @property
    def contents(self) -> Contents:
        """
        Policies and sessions in the report.
        """
        found = set()
        for each in self.report.policies:
            failures = sum(failure.count for failure in each.failures)
            assert failures == each.succeeded, each
            found.add((each.domain, each.strings, each.succeeded))
        assert len(found) == len(self.report.policies)
        return frozenset(found)


class Node:
    """
    The reporting half of moxtls: from recorded outcomes to a queue, and the delivery
    results of reports.
    """

    def __init__(
        self, name: str, clock: Clock, resolver: IResolver, ledger: Ledger
    ) -> None:
        newID = ids()
        self.name = name
        self.clock = clock
        self.ledger = ledger
        self.queue = MemoryQueue(clock, lambda: f"{name}{newID()}")
        self.recorder = OutcomeRecorder(clock, ledger.outcomes)
        self.deliveryTracker = ReportDeliveryTracker(
            clock, ledger.archive, ledger.suppressions
        )
        self._resolver = resolver
        self._newID: Callable[[], str] = lambda: f"{name}{newID()}"
        self._posted = 0
        self.start()

    def start(self) -> None:
        """
        Start a new process with the queue of the previous one.
        """
        source = TLSReportSource(
            self._resolver,
            self.ledger.outcomes,
            TLSReporting(SUBMITTER),
            self.ledger.identifier,
        )
        identity = ReportIdentity(HOSTNAME, (ED25519,))
        self.service = ReportService(
            self.clock,
            ReportPipeline(
                source,
                self.ledger.archive,
                self.ledger.leases,
                ReportComposer(
                    self.clock, self.ledger.suppressions, identity, self._newID
                ),
                QueueSubmitter(self.queue),
            ),
            jitter=lambda: 0.5,
            options=ReportOptions(self.name),
        )
        self.service.startService()

    def newEnvelopes(self) -> Iterator[Envelope]:
        """
        Envelopes added to the queue since the last call.
        """
        envelopes = self.queue.envelopes[self._posted :]
        self._posted += len(envelopes)
        yield from envelopes

    def sent(self) -> Iterator[Sent]:
        """
        All reports in the queue.
        """
        bodies = self.queue.bodies.values()
        for envelope, body in zip(self.queue.envelopes, bodies, strict=True):
            (recipient,) = envelope.recipients
            # The key is "report KIND PHASE DOMAIN SPAN DESTINATION".
            _, _, phase, domain, *_ = envelope.key.split(" ")
            about = f"host {domain}" if phase == "1" else domain
            yield Sent(self.name, recipient, about, readTLSReport(body))


def arrived(envelope: Envelope) -> Result:
    """
    The result of a delivered message.
    """
    (recipient,) = envelope.recipients
    return Result("id", recipient, DeliveryStatus.DELIVERED, "2.0.0", 250, "ok")


def domainOf(recipient: str) -> Domain | None:
    """
    The recipient domain of mail; C{None} for HTTPS destinations.
    """
    if recipient.startswith("https:"):
        return None
    domain = Address.parse(recipient).domain
    return domain if isinstance(domain, Domain) else None


def publishRecord(resolver: MemoryResolver, domain: Domain, *uris: str) -> None:
    """
    Publish a TLSRPT record of C{domain}.
    """
    text = f"v=TLSRPTv1; rua={','.join(uris)}"
    resolver.put(f"_smtp._tls.{domain}", RRType.TXT, text)


class Nodes:
    """
    Several nodes, and the mail they send.

    @ivar clock: The clock of all nodes without one of their own.
    """

    def __init__(
        self,
        first: date,
        recipients: Iterable[RecipientDomain],
        ledgers: Iterable[Ledger],
        apart: bool = False,
    ) -> None:
        """
        @param first: The day that begins now.
        @param apart: True if each node has a clock of its own.
        """
        self.resolver = MemoryResolver()
        self.recipients = {recipient.domain: recipient for recipient in recipients}
        self.journal = Journal()
        self.clock = _clock(first)
        self.nodes = [
            Node(
                f"node{number}",
                _clock(first) if apart else self.clock,
                self.resolver,
                ledger,
            )
            for number, ledger in enumerate(ledgers)
        ]
        self._awake = list(self.nodes)

    def deliver(
        self,
        node: Node,
        domain: Domain,
        sessions: int,
        report: ReportKind | None = None,
    ) -> None:
        """
        Deliver mail from C{node} to C{domain}, and record the outcome.
        """
        recipient = self.recipients.get(domain) or RecipientDomain(
            domain, Domain(f"mx.{domain}")
        )
        self.journal.note(utcDay(node.clock.seconds()), recipient, sessions)
        node.recorder.sessionEnded(recipient.outcome(sessions, report is None))

    def deliverReports(self, node: Node) -> None:
        """
        Deliver everything in the queue of C{node}.
        """
        for envelope in node.newEnvelopes():
            domain = domainOf(envelope.recipients[0])
            if domain is not None:
                self.deliver(node, domain, 1, envelope.report)
            node.deliveryTracker.reportEnded(envelope, arrived(envelope))

    def advanceTime(self, hours: float) -> None:
        """
        Advance the clocks.
        """
        for _ in range(round(hours * HOUR / MINUTE)):
            self.clock.advance(MINUTE)
            for node in self._awake:
                # Nothing, if that is its clock.
                node.clock.advance(self.clock.seconds() - node.clock.seconds())
                self.deliverReports(node)

    def suspend(self, node: Node) -> None:
        """
        Suspend the process of C{node}, which has a clock of its own.
        """
        self._awake.remove(node)

    def resume(self, node: Node) -> None:
        """
        Resume the process of C{node}.
        """
        self._awake.append(node)

    def sent(self) -> list[Sent]:
        """
        All reports, of all nodes.
        """
        return [each for node in self.nodes for each in node.sent()]


def _clock(day: date) -> Clock:
    clock = Clock()
    clock.advance(midnight(day))
    return clock
