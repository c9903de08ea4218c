"""
Messages delivered from a full queue per second, to a server that discards them.  The
time includes the selection of messages and the storage of each result.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from zope.interface import implementer

from bench.children import child
from bench.comparison import Comparison, Measurement, table
from bench.identity import HOST, certify
from bench.settings import Effort, IReactor, main
from moxtls.delivery.attempt import DeliveryContext, DirectCourier
from moxtls.delivery.sessions import Dialer
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IPolicyCache, ISessionObserver
from moxtls.mtasts.policy import STSLookup
from moxtls.queue.executor import ThreadedSpoolExecutor
from moxtls.queue.schedule import GroupLimits
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.spool import Spool
from moxtls.queue.types import Envelope
from moxtls.smtp.client.connection import ClientSettings, addressEndpoint
from moxtls.smtp.client.session import ClientSession
from moxtls.smtp.types import TLSMode
from moxtls.tls.openssl import trustStoreOf
from moxtls.tlsrpt.types import SessionOutcome

#: Destinations, and messages to each of them.
SHAPES = ((1, 1000), (50, 40), (1000, 1))
BODY = b"Subject: benchmark\r\n\r\n" + b"a line of no importance\r\n" * 80
#: Messages submitted in one transaction.
GROUP = 100


@implementer(IPolicyCache)
class NoPolicies:
    """
    Policy cache in which no domain has a policy, so that its database isn't measured.
    """

    def get(self, domain: Domain) -> Deferred[STSLookup]:
        return succeed(STSLookup(domain))


@implementer(ISessionObserver)
class NoObserver:
    """
    Observer that discards outcomes: the ledger has benchmarks of its own.
    """

    def sessionEnded(self, outcome: SessionOutcome) -> Deferred[None]:
        return succeed(None)


def _courier(reactor: IReactor, port: int, dialer: Dialer) -> DirectCourier:
    resolver = MemoryResolver()
    resolver.put(HOST, RRType.A, "127.0.0.1")
    for number in range(max(domains for domains, _ in SHAPES)):
        resolver.put(_domain(number), RRType.MX, f"10 {HOST}")
    trust = trustStoreOf([certify().root])

    def dial(ip: str, settings: ClientSettings) -> Deferred[ClientSession]:
        return dialer.dial(ip, port, replace(settings, mode=TLSMode.SKIP))

    return DirectCourier(
        DeliveryContext(
            resolver,
            NoPolicies(),
            NoObserver(),
            dial,
            dialer.release,
            ClientSettings("client.example", trust),
            port,
            (RRType.A,),
            random.random,
        )
    )


def _domain(number: int) -> str:
    return f"d{number}.example"


def _fill(root: Path, domains: int, each: int, now: float) -> None:
    spool = Spool(root)
    envelopes = [
        Envelope("sender@client.example", (f"to@{_domain(number)}",))
        for _ in range(each)
        for number in range(domains)
    ]
    for start in range(0, len(envelopes), GROUP):
        group = envelopes[start : start + GROUP]
        spool.perform([partial(_submit, envelope=each, now=now) for each in group])
    spool.close()


def _submit(spool: Spool, envelope: Envelope, now: float) -> None:
    spool.submit(secrets.token_hex(12), envelope, [BODY], now)


async def _untilEmpty(reactor: IReactor, root: Path) -> None:
    """
    Wait until the spool is empty.
    """
    with closing(sqlite3.connect(root / "index.sqlite")) as database:
        while database.execute("SELECT 1 FROM message LIMIT 1").fetchone():
            await deferLater(reactor, 0.01)


async def _deliver(reactor: IReactor, courier: DirectCourier, root: Path) -> None:
    service = QueueService(
        reactor,
        ThreadedSpoolExecutor(reactor, root),
        lambda batch: courier,
        Settlement("client.example", lambda: secrets.token_hex(12)),
        ReportStatusNotifier(reactor, [], None, str),  # type: ignore[arg-type]  # no reports
        lambda: secrets.token_hex(12),
        random.random,
        GroupLimits(),
    )
    service.startService()
    await _untilEmpty(reactor, root)
    await service.stopService()


async def _measure(
    reactor: IReactor, courier: DirectCourier, domains: int, each: int
) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        _fill(Path(name), domains, each, reactor.seconds())
        cpu, start = time.process_time(), time.perf_counter()
        await _deliver(reactor, courier, Path(name))
        seconds = time.perf_counter() - start
        return Measurement(domains * each, seconds, time.process_time() - cpu)


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    measurements: dict[str, list[Measurement]] = {}
    with child("bench.sink", certify().pem) as (port, _):
        dialer = Dialer(reactor, lambda ip, port: addressEndpoint(reactor, ip, port))
        courier = _courier(reactor, port, dialer)
        for _ in range(effort.rounds or 1):
            for domains, messages in SHAPES:
                name = f"{messages} each to {domains}"
                each = effort.of(messages)
                measurement = await _measure(reactor, courier, domains, each)
                measurements.setdefault(name, []).append(measurement)
        await dialer.stop()
    first = next(iter(measurements))
    print(table(Comparison("2 kB each", "messages", (first,), measurements)))


if __name__ == "__main__":
    main(benchmark)
