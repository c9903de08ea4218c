"""
Support for tests of reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date
from itertools import count
from typing import Protocol

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from moxtls.authentication.dkim.sign import Signer, loadKey
from moxtls.dates import DAY as DAYS
from moxtls.dates import HOUR, midnight, spanOfDay
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeStore, IQueue, IReportSource
from moxtls.ledger.ledger import MemoryLedger
from moxtls.queue.memory import MemoryQueue
from moxtls.queue.types import ReportKind
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.handover import QueueSubmitter
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from moxtls.reporting.types import (
    OutgoingReport,
    ReportDraft,
    ReportKey,
    ReportPeriod,
    ReportState,
    filename,
)
from moxtls.tlsrpt.source import TLSReporting, TLSReportSource
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    StoredResult,
    TLSPolicy,
)

DAY = date(2026, 11, 24)
SUBMITTER = Domain("sender.example")
HOSTNAME = Domain("mail.sender.example")
A = Domain("a.example")


class PrivateKey(Protocol):
    """
    Any of them.
    """

    def private_bytes(
        self,
        encoding: Encoding,
        format: PrivateFormat,
        encryption_algorithm: NoEncryption,
    ) -> bytes: ...


def pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# Short, so that signing takes no time.
RSA_PEM = pem(generate_private_key(65537, 1024))
ED25519_PEM = pem(Ed25519PrivateKey.generate())
RSA = Signer(SUBMITTER, "r", loadKey(RSA_PEM))
ED25519 = Signer(SUBMITTER, "e", loadKey(ED25519_PEM))
TLSRPT = Signer(SUBMITTER, "t", loadKey(ED25519_PEM), "tlsrpt")


def ids() -> Callable[[], str]:
    """
    Identifiers that can be foreseen.
    """
    numbers = count(1)
    return lambda: f"id{next(numbers)}"


def signatures(message: bytes, *signers: Signer) -> list[bool]:
    """
    The validity of each of the message's signatures, with the keys of C{signers}.
    """
    records = {f"{each.recordName}.": each.record for each in signers}

    def lookup(name: bytes, timeout: int = 5) -> bytes:
        return records.get(name.decode(), "").encode()

    verifier = dkim.DKIM(message, tlsrpt=True)
    total = sum(name.lower() == b"dkim-signature" for name, _ in verifier.headers)
    return [_isGood(verifier, number, lookup) for number in range(total)]


def _isGood(
    verifier: dkim.DKIM, number: int, lookup: Callable[[bytes, int], bytes]
) -> bool:
    try:
        return bool(verifier.verify(number, dnsfunc=lookup))
    except dkim.DKIMException:
        return False


def outcome(recipient: Domain = A, host: str = "mx.a.example") -> SessionOutcome:
    """
    An outcome that causes a report.
    """
    failures = Counter([FailureDetail(ResultType.CERTIFICATE_NOT_TRUSTED)])
    return SessionOutcome(
        recipient,
        PolicyTally(TLSPolicy(PolicyType.NO_POLICY, recipient), 1, 0, failures),
        (PolicyTally(TLSPolicy(PolicyType.NO_POLICY, Domain(host)), 1, 0, failures),),
    )


def draft(
    *destinations: str,
    period: ReportPeriod | None = None,
    document: bytes = b"\x1f\x8b",
) -> ReportDraft:
    period = period or ReportPeriod(0, DAY, A)
    span = spanOfDay(period.day)
    return ReportDraft(
        ReportKind.TLS,
        period,
        span,
        "id1",
        SUBMITTER,
        destinations,
        document,
        filename(ReportKind.TLS, SUBMITTER, period.domain, span, "id1"),
    )


def report(
    destination: str = "mailto:tls@a.example",
    sender: str = "postmaster+id1@sender.example",
    state: ReportState = ReportState.COMPOSED,
    domain: Domain = A,
) -> OutgoingReport:
    span = spanOfDay(DAY)
    return OutgoingReport(
        ReportKey(ReportKind.TLS, domain, span.start, span.end, destination),
        "1@sender.example",
        sender,
        b"Subject: report\r\n\r\n",
        "message/rfc822",
        span.end,
        state,
    )


class World:
    """
    All that report services need, in memory, a little after midnight.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(midnight(DAY) + 24 * HOUR + 300)
        self.resolver = MemoryResolver()
        self.ledger = MemoryLedger()
        self.queue = MemoryQueue(self.clock, ids())
        self.newID = ids()

    def publishRecord(self, domain: Domain, *uris: str) -> None:
        name = f"_smtp._tls.{domain}"
        uris = uris or (f"mailto:tls@{domain}",)
        self.resolver.put(name, RRType.TXT, f"v=TLSRPTv1; rua={','.join(uris)}")

    def record(self, *outcomes: SessionOutcome, day: date = DAY) -> None:
        for each in outcomes:
            self.ledger.outcomes.record(day, each)

    def source(self, outcomes: IOutcomeStore | None = None) -> TLSReportSource:
        return TLSReportSource(
            self.resolver,
            outcomes or self.ledger.outcomes,
            TLSReporting(SUBMITTER),
            self.ledger.identifier,
        )

    def service(
        self,
        node: str = "node",
        source: IReportSource | None = None,
        ledger: MemoryLedger | None = None,
        queue: IQueue | None = None,
        kept: float = 30 * DAYS,
        reactor: IReactorTime | None = None,
    ) -> ReportService:
        """
        A service that isn't started, without spread by default.
        """
        ledger = ledger or self.ledger
        writer = ReportComposer(
            self.clock,
            ledger.suppressions,
            ReportIdentity(HOSTNAME, (ED25519,)),
            self.newID,
        )
        return ReportService(
            self.clock,
            ReportPipeline(
                source or self.source(ledger.outcomes),
                ledger.archive,
                ledger.leases,
                writer,
                QueueSubmitter(queue or self.queue),
            ),
            jitter=lambda: 0.5,
            options=ReportOptions(node, kept=kept),
            reactor=reactor,
        )

    def queued(self) -> list[str]:
        """
        The recipients in the queue.
        """
        return [to for each in self.queue.envelopes for to in each.recipients]

    def results(self) -> tuple[StoredResult, ...]:
        found: list[tuple[StoredResult, ...]] = []
        self.ledger.outcomes.results().addCallback(found.append)
        return found[0]
