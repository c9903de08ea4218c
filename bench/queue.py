"""
Messages of a full queue delivered per second, to a server that discards them:
picked from the spool, handed over, and each result on the disk.
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
from bench.identity import HOST, certify
from bench.rounds import Contest, Lap, table
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
    No domain has a policy: the cache has benchmarks and a database of its own.
    """

    def get(self, domain: Domain) -> Deferred[STSLookup]:
        return succeed(STSLookup(domain))


@implementer(ISessionObserver)
class NoObserver:
    """
    Forgets outcomes: the ledger has benchmarks of its own.
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


async def _empty(reactor: IReactor, root: Path) -> None:
    """
    Fires once nothing is left in the spool.
    """
    with closing(sqlite3.connect(root / "index.sqlite")) as database:
        while database.execute("SELECT 1 FROM message LIMIT 1").fetchone():
            await deferLater(reactor, 0.01)


async def _lap(reactor: IReactor, courier: DirectCourier, root: Path) -> None:
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
    await _empty(reactor, root)
    await service.stopService()


async def _measured(
    reactor: IReactor, courier: DirectCourier, domains: int, each: int
) -> Lap:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        _fill(Path(name), domains, each, reactor.seconds())
        cpu, start = time.process_time(), time.perf_counter()
        await _lap(reactor, courier, Path(name))
        seconds = time.perf_counter() - start
        return Lap(domains * each, seconds, time.process_time() - cpu)


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    laps: dict[str, list[Lap]] = {}
    with child("bench.sink", certify().pem) as (port, _):
        dialer = Dialer(reactor, lambda ip, port: addressEndpoint(reactor, ip, port))
        courier = _courier(reactor, port, dialer)
        for _ in range(effort.rounds or 1):
            for domains, messages in SHAPES:
                name = f"{messages} each to {domains}"
                each = effort.of(messages)
                lap = await _measured(reactor, courier, domains, each)
                laps.setdefault(name, []).append(lap)
        await dialer.stop()
    first = next(iter(laps))
    print(table(Contest("2 kB each", "messages", (first,), laps)))


if __name__ == "__main__":
    main(benchmark)
