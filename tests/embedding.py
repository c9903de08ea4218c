"""
An embedding program, never run: type-checked by C{make lint}, and by C{.ci/run}
against the installed wheel.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IReactorFromThreads
from zope.interface import implementer

from moxtls import api
from moxtls.interfaces import IResolver, ISessionObserver, IVerdictObserver


@implementer(ISessionObserver, IVerdictObserver)
class Printer:
    def sessionEnded(self, outcome: api.SessionOutcome) -> Deferred[None]:
        failed = outcome.recipient.failed if outcome.recipient else 0
        print(outcome.recipientDomain.ascii, failed)
        return succeed(None)

    def verdictGiven(self, event: api.VerdictEvent) -> Deferred[None]:
        print(event.recipient, event.verdict.status, event.finalDisposition)
        return succeed(None)


def wrapClient(factory: IProtocolFactory, ledger: api.Ledger) -> IProtocolFactory:
    observer = api.makeOutcomeRecorder(reactor, ledger)
    api.RecordingReactor(reactor, observer, "example.org")
    return api.recordTLS(factory, Printer(), "example.org", "mx.example.org")


def wrapServer(factory: IProtocolFactory, ledger: api.Ledger) -> IProtocolFactory:
    resolver = api.makeResolver(reactor, ["127.0.0.1"])
    resolver.startService()
    checks = api.makeMessageFilter(
        reactor, resolver, ledger, "mx.us.example", [Printer()], enforce=True
    )
    return api.filterServer(reactor, factory, checks)


async def check(resolver: IResolver, message: bytes) -> bytes:
    client = api.ClientInfo("192.0.2.1", "client.example")
    found = await api.checkMessage(reactor, resolver, "mx.us.example", message, client)
    return api.authenticationResults(
        "mx.us.example", found.authentication, found.verdict, ""
    )


async def policyMode(resolver: IResolver, ledger: api.Ledger) -> str:
    cache = api.makePolicyCache(reactor, resolver, ledger)
    found = await cache.get(api.Domain.parse("example.org"))
    return str(found.policy.mode) if found.policy else "none"


def startReports(key: Path) -> None:
    ledger = api.Ledger(IReactorFromThreads(reactor), "sqlite:///ledger.sqlite")
    resolver = api.makeResolver(reactor)
    submitter = api.RelaySubmitter("localhost")
    sender = api.ReportSender(
        "mx.us.example", "us.example", "2026a", key.read_bytes(), submitter
    )
    resolver.startService()
    api.makeTLSReportService(reactor, resolver, ledger, sender).startService()
    api.makeDMARCReportService(reactor, resolver, ledger, sender).startService()
