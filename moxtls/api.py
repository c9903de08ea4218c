# -*- test-case-name: tests.test_examples -*-
"""
The public API for programs that embed parts of moxtls.

Functions whose names begin with C{make} put parts together with defaults for
randomness, identifiers and threads; everything else is the part itself.  The
interfaces are in L{moxtls.interfaces}.  docs/api.rst says what may change.

In all of them, C{reactor} is C{twisted.internet.reactor}, C{resolver} comes from
L{makeResolver} and has been started, and C{ledger} is a L{Ledger} or L{MemoryLedger}
that is stopped after everything that uses it.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IConnector,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.threads import deferToThreadPool
from twisted.mail.smtp import sendmail
from zope.interface import implementer

from moxtls.authentication.check import MessageAuthenticator, authenticate
from moxtls.authentication.dkim.sign import Signer, loadKey
from moxtls.authentication.outcome import AuthenticationOutcome, authenticationResults
from moxtls.config import serverAddress
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.evaluation import EvaluationRecorder
from moxtls.dmarc.source import DMARCReportSource
from moxtls.dmarc.types import DMARCPolicy, VerdictEvent
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.dns.resolver import ProbedResolver, Resolver
from moxtls.dns.transport import DNSTransport
from moxtls.dns.types import NameServer, systemNameServers
from moxtls.domain import Address, Domain, InvalidDomain
from moxtls.https import HTTPSClient
from moxtls.interfaces import (
    IPolicyCache,
    IReportSource,
    IReportSubmitter,
    IResolver,
    ISessionObserver,
    IVerdictObserver,
)
from moxtls.ledger.ledger import Ledger, MemoryLedger
from moxtls.message.header import ClientInfo
from moxtls.mtasts.cache import PolicyCache, PolicyFetcher
from moxtls.received.intake.authenticity import judge
from moxtls.received.intake.intake import (
    READ_TIMEOUT,
    IntakeResult,
    ReportIntake,
    ReportReader,
)
from moxtls.received.interfaces import IReportIntakeObserver
from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    Channel,
    Origin,
    ParsedReport,
    ReceivedKind,
    RefusedReport,
)
from moxtls.reception.delivery import VerdictDispatcher
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.destinations import parseDestination
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from moxtls.reporting.types import OutgoingReport
from moxtls.tls.dane import DANEVerdict, usableRecords, verifyDANE
from moxtls.tls.openssl import loadTrustStore
from moxtls.tls.session import certificateFailure
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
from moxtls.twistedmail.client import recordTLS
from moxtls.twistedmail.server import filterServer
from moxtls.twistedmail.verdicts import MessageFilter
from moxtls.workers.process import IWorkerReactor, Worker

if TYPE_CHECKING:
    # The type of twisted.internet.reactor.
    from twisted.internet import _IReactorCommon as IReactor

__all__ = [
    "AcceptedReport",
    "AddResult",
    "Address",
    "AuthenticationOutcome",
    "ClientInfo",
    "DANEVerdict",
    "DMARCPolicy",
    "Domain",
    "FailureDetail",
    "IntakeResult",
    "InvalidDomain",
    "Ledger",
    "LocalPolicy",
    "MemoryLedger",
    "MessageFilter",
    "PolicyTally",
    "PolicyType",
    "ReceivedKind",
    "RecordingReactor",
    "RefusedReport",
    "RelaySubmitter",
    "ReportIntake",
    "ReportSender",
    "ResultType",
    "SessionOutcome",
    "TLSPolicy",
    "VerdictEvent",
    "authenticationResults",
    "checkMessage",
    "filterServer",
    "loadTrustStore",
    "makeDMARCReportService",
    "makeMessageFilter",
    "makeOutcomeRecorder",
    "makePolicyCache",
    "makeReportIntake",
    "makeResolver",
    "makeTLSReportService",
    "recordTLS",
    "takeReport",
    "usableRecords",
    "verifyDANE",
]

_T = TypeVar("_T")

_RESOLV_CONF = Path("/etc/resolv.conf")
_jitter = SystemRandom().random


def _newID() -> str:
    return secrets.token_hex(12)


def makeResolver(reactor: IReactor, servers: Sequence[str] = ()) -> ProbedResolver:
    """
    A resolver that finds out whether its DNS servers validate DNSSEC.

    @param servers: IP addresses of DNS servers, with a port if it isn't 53
        (C{127.0.0.1:5353}), asked in this order; by default those of
        C{/etc/resolv.conf}.

    @raise ValueError: One of them is no address.

    @return: A C{Service}: once started it probes the servers, and until they are
        known to validate, no answer counts as authenticated and DANE (RFC 7672
        2.1) isn't used.
    """
    if servers:
        nameServers = tuple(map(_nameServer, servers))
    else:
        text = _RESOLV_CONF.read_text() if _RESOLV_CONF.exists() else ""
        nameServers = systemNameServers(text)
    return ProbedResolver(
        reactor, Resolver(reactor, nameServers, DNSTransport(reactor).ask)
    )


def _nameServer(text: str) -> NameServer:
    address = serverAddress(text)
    if address is None:
        raise ValueError(f"not the address of a DNS server: {text!r}")
    return NameServer(*address)


def makePolicyCache(
    reactor: IReactor, resolver: IResolver, ledger: Ledger
) -> IPolicyCache:
    """
    The MTA-STS policies (RFC 8461) of recipient domains, fetched over HTTPS and
    kept in C{ledger} for as long as they say.

    @return: Its C{get} fires with a lookup, which also represents failures.
    """
    https = HTTPSClient(reactor, reactor, resolver, loadTrustStore())
    fetcher = PolicyFetcher(https, certificateFailure)
    return PolicyCache(reactor, resolver, fetcher, ledger.policies)


def makeOutcomeRecorder(clock: IReactorTime, ledger: Ledger) -> ISessionObserver:
    """
    An observer that counts TLS session outcomes until a TLS report has them.

    L{recordTLS} tells it of the sessions of a client; a program with sessions of its
    own calls C{sessionEnded} with a L{SessionOutcome}.
    """
    return OutcomeRecorder(clock, ledger.outcomes)


class RecordingReactor:
    """
    Connects clients as a reactor does, and has their TLS recorded: the C{reactor}
    argument of C{twisted.mail.smtp.sendmail}.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        observer: ISessionObserver,
        recipientDomain: str,
    ) -> None:
        """
        @param observer: Such as that of L{makeOutcomeRecorder}.
        @param recipientDomain: The domain of the addresses that mail is for.
        """
        self._reactor = reactor
        self._observer = observer
        self._recipientDomain = recipientDomain

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, *rest: Any, **more: Any
    ) -> IConnector:
        """
        Connect as C{IReactorTCP} does, with C{factory} wrapped by L{recordTLS}.

        @raise InvalidDomain: The recipient domain isn't one.
        """
        wrapped = recordTLS(factory, self._observer, self._recipientDomain, host)
        return self._reactor.connectTCP(host, port, wrapped, *rest, **more)


# --- verdicts -------------------------------------------------------------------


def makeMessageFilter(
    reactor: IReactor,
    resolver: IResolver,
    ledger: Ledger,
    hostname: str,
    observers: Iterable[IVerdictObserver] = (),
    *,
    enforce: bool = False,
    folder: Path | None = None,
    localPolicy: LocalPolicy | None = None,
) -> MessageFilter:
    """
    A filter for L{filterServer} that checks SPF, DKIM and DMARC, and records
    evaluations for DMARC aggregate reports in C{ledger}.

    @param hostname: This host's name, for C{Authentication-Results}.
    @param observers: Are told of each verdict besides.
    @param enforce: Refuse what DMARC says is to be rejected.
    @param folder: For large messages while they arrive; by default the system's
        folder for temporary files.
    @param localPolicy: Mailing lists, forwarders and other exceptions; by default
        none.
    """
    checks = _authenticator(reactor, resolver, hostname, localPolicy)
    recorder = EvaluationRecorder(reactor, ledger.evaluations)
    dispatcher = VerdictDispatcher(reactor, [*observers, recorder], ledger.history)
    return MessageFilter(
        checks, dispatcher, folder or Path(tempfile.gettempdir()), enforce
    )


def checkMessage(
    reactor: IReactor,
    resolver: IResolver,
    hostname: str,
    message: bytes,
    client: ClientInfo,
    sender: str = "",
) -> Deferred[AuthenticationOutcome]:
    """
    Check SPF, DKIM and DMARC of a message that is there already.

    @param hostname: This host's name.
    @param message: With CRLF line ends.
    @param client: The address and HELO name of the client that sent it.
    @param sender: The reverse-path; empty for the null one.

    @return: Fires with what was found, and does not fail.
    """
    checks = _authenticator(reactor, resolver, hostname, None)
    return authenticate(checks, client, sender, [message])


def _authenticator(
    reactor: IReactor,
    resolver: IResolver,
    hostname: str,
    localPolicy: LocalPolicy | None,
) -> MessageAuthenticator:
    threads = IReactorThreads(reactor)

    def inThread(call: Callable[[], _T]) -> Deferred[_T]:
        return deferToThreadPool(threads, threads.getThreadPool(), call)

    policy = LocalPolicy() if localPolicy is None else localPolicy
    return MessageAuthenticator(reactor, resolver, policy, hostname, inThread, _jitter)


# --- reports --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReportSender:
    """
    The host and domain that reports are sent by.

    @ivar hostname: Of this host, for Message-ID fields and leases.
    @ivar domain: Reports are sent and signed in its name.
    @ivar selector: Of the DKIM key of C{domain}.
    @ivar key: The private key in PEM, RSA or Ed25519.
    @ivar submitter: Takes the composed reports.
    """

    hostname: str
    domain: str
    selector: str
    key: bytes
    submitter: IReportSubmitter


@implementer(IReportSubmitter)
class RelaySubmitter:
    """
    Hands reports to a mail server that relays them without authentication, over
    STARTTLS if it is offered.
    Destinations with C{https:} fail: they need a submitter of the program's own.
    """

    def __init__(self, host: str, port: int = 25) -> None:
        """
        @param host: The name or address of the mail server.
        """
        self._host = host
        self._port = port

    def submit(self, report: OutgoingReport) -> Deferred[None]:
        address = parseDestination(report.key.destination).address
        if address is None:
            return fail(ValueError(f"no mail address: {report.key.destination}"))
        sent: Deferred[None] = sendmail(
            self._host, report.sender, [str(address)], report.message, port=self._port
        )
        return sent.addCallback(lambda result: None)


def makeTLSReportService(
    reactor: IReactor, resolver: IResolver, ledger: Ledger, sender: ReportSender
) -> ReportService:
    """
    A C{Service} that sends TLS reports (RFC 8460) on what C{ledger} has about days
    that are over.

    @raise InvalidKey: The DKIM key can't be read.
    @raise InvalidDomain: C{hostname} or C{domain} isn't one.
    """
    settings = TLSReporting(Domain.parse(sender.domain))
    source = TLSReportSource(resolver, ledger.outcomes, settings, ledger.identifier)
    return _reports(reactor, source, ledger, sender)


def makeDMARCReportService(
    reactor: IReactor, resolver: IResolver, ledger: Ledger, sender: ReportSender
) -> ReportService:
    """
    A C{Service} that sends DMARC aggregate reports (RFC 9990) each hour on the
    evaluations in C{ledger} that are due.

    @raise InvalidKey: The DKIM key can't be read.
    @raise InvalidDomain: C{hostname} or C{domain} isn't one.
    """
    settings = DMARCReporting(Domain.parse(sender.domain))
    source = DMARCReportSource(
        resolver, ledger.evaluations, ledger.history, settings, ledger.identifier
    )
    return _reports(reactor, source, ledger, sender)


def _reports(
    reactor: IReactor, source: IReportSource, ledger: Ledger, sender: ReportSender
) -> ReportService:
    signer = Signer(Domain.parse(sender.domain), sender.selector, loadKey(sender.key))
    identity = ReportIdentity(Domain.parse(sender.hostname), (signer,))
    composer = ReportComposer(reactor, ledger.suppressions, identity, _newID)
    pipeline = ReportPipeline(
        source, ledger.archive, ledger.leases, composer, sender.submitter
    )
    return ReportService(reactor, pipeline, _jitter, ReportOptions(sender.hostname))


# --- reports of other hosts -----------------------------------------------------


def makeReportIntake(
    reactor: IReactor, ledger: Ledger, observers: Iterable[IReportIntakeObserver] = ()
) -> ReportIntake:
    """
    An intake of reports of other hosts: it reads them in a worker process, and stores
    them in C{ledger.received}, an L{IReceivedReportStore
    <moxtls.received.interfaces.IReceivedReportStore>}.

    @param observers: Are told of each report that is accepted.

    @return: To be stopped before C{ledger}.
    """
    every: IWorkerReactor = reactor  # type: ignore[assignment]  # all real ones are
    worker = Worker(every, "received reports", READ_TIMEOUT)
    return ReportIntake(ledger.received, ReportReader(reactor, [worker]), observers)


def takeReport(
    clock: IReactorTime,
    intake: ReportIntake,
    data: bytes,
    domains: Iterable[str],
    sender: str = "",
) -> Deferred[tuple[IntakeResult, ...]]:
    """
    Take in reports whose submitters nothing vouches for.

    @param data: TLS reports (RFC 8460), DMARC aggregate reports (RFC 9990) or failure
        reports (RFC 9991): JSON or XML, compressed, in archives or in a message.
    @param domains: The policy domains that are counted; reports about others are
        refused.
    @param sender: Where they come from, such as the path of a file.

    @raise InvalidDomain: One of C{domains} isn't one.

    @return: Fires with at least one result, once everything is stored.  Fails with the
        failure of the ledger.
    """
    origin = Origin(Channel.IMPORT, sender, "", clock.seconds())
    ours = frozenset(Domain.parse(each).ascii for each in domains)

    def decide(report: ParsedReport) -> AcceptedReport | RefusedReport:
        return judge(report, origin, ours)

    return intake.take(data, origin, decide, sender)
