"""
SMTP sessions per second, one message each, to a server that discards it. moxtls
records an outcome of each durably in a ledger; C{ClientSession} is the connection
alone, with its TLS record. The stock client of C{twisted.mail} does neither.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.tcp import Connection
from twisted.mail.smtp import ESMTPSender, ESMTPSenderFactory
from zope.interface import implementer

from bench.children import child
from bench.comparison import Variant, compare, sideBySide, table
from bench.handshakes import Client
from bench.identity import HOST, Certified, certify
from bench.settings import Effort, IReactor, main
from moxtls.delivery.attempt import DeliveryContext, DirectCourier
from moxtls.delivery.sessions import Dialer
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IPolicyFetcher, IPolicyStore
from moxtls.ledger.ledger import Ledger
from moxtls.mtasts.cache import PolicyCache
from moxtls.mtasts.policy import CachedPolicy, STSPolicy, parsePolicy
from moxtls.queue.memory import MemoryResultRecorder
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus
from moxtls.smtp.client.connection import ClientSettings, addressEndpoint
from moxtls.smtp.client.session import ClientSession
from moxtls.smtp.types import TLSMode, Transaction
from moxtls.tls.openssl import TrustStore, trustStoreOf
from moxtls.tlsrpt.recorder import OutcomeRecorder
from moxtls.tlsrpt.types import FailureDetail

#: Connections at a time.
WIDTH = 20
PLAIN_SESSIONS = 500
TLS_SESSIONS = 200
DOMAINS = tuple(f"d{number}.example" for number in range(WIDTH))
STOCK = "twisted.mail"
STOCK_AT_ONCE = "twisted.mail, TCP_NODELAY"
BARE = "bare OpenSSL handshake"
SENDER = "sender@client.example"
SIZE = 2000
_STS = f"version: STSv1\r\nmode: enforce\r\nmx: {HOST}\r\nmax_age: 604800\r\n"

Once = Callable[[], Awaitable[object]]


@implementer(IPolicyStore)
class PolicyDict:
    """
    Policies in a dictionary: what the ledger takes for them isn't measured.
    """

    def __init__(self) -> None:
        self._entries: dict[Domain, CachedPolicy] = {}

    def load(self, domain: Domain) -> Deferred[CachedPolicy | None]:
        return succeed(self._entries.get(domain))

    def save(self, entry: CachedPolicy) -> Deferred[None]:
        self._entries[entry.domain] = entry
        return succeed(None)

    def used(self, domain: Domain, now: float) -> Deferred[None]:
        return succeed(None)

    def drop(self, domain: Domain) -> Deferred[bool]:
        return succeed(self._entries.pop(domain, None) is not None)

    def entries(
        self, after: CachedPolicy | None = None, limit: int | None = None
    ) -> Deferred[tuple[CachedPolicy, ...]]:
        return succeed(tuple(self._entries.values()))


@implementer(IPolicyFetcher)
class NoFetcher:
    """
    A fetcher that is never called: every policy is cached.
    """

    def fetch(self, domain: Domain) -> Deferred[STSPolicy | FailureDetail]:
        return fail(AssertionError(f"asked for the policy of {domain}"))


class AtOnce(ESMTPSender):
    """
    Sends small packets at once (TCP_NODELAY).
    """

    def connectionMade(self) -> None:
        assert isinstance(self.transport, Connection)
        self.transport.setTcpNoDelay(True)
        super().connectionMade()


class Stock:
    """
    Sessions with the client of C{twisted.mail}.
    """

    def __init__(
        self,
        reactor: IReactor,
        port: int,
        message: Path,
        certified: Certified | None,
        protocol: type[ESMTPSender] = ESMTPSender,
    ) -> None:
        self._protocol = protocol
        self._reactor = reactor
        self._port = port
        self._message = message
        self._tls = None
        if certified is not None:
            pem = X509.from_cryptography(certified.root)
            root = trustRootFromCertificates([Certificate(pem)])
            self._tls = optionsForClientTLS(HOST, root)

    async def once(self) -> None:
        with self._message.open("rb") as message:
            sent: Deferred[object] = Deferred()
            factory = ESMTPSenderFactory(
                None,
                None,
                SENDER,
                "to@d0.example",
                message,
                sent,
                contextFactory=self._tls,
                requireAuthentication=False,
                requireTransportSecurity=self._tls is not None,
            )
            factory.noisy = False
            factory.protocol = self._protocol
            self._reactor.connectTCP("127.0.0.1", self._port, factory)
            await sent


class Ours:
    """
    Sessions with moxtls.
    """

    def __init__(
        self, reactor: IReactor, port: int, message: Path, trust: TrustStore
    ) -> None:
        self._port = port
        self._message = message
        self._trust = trust
        self._dialer = Dialer(
            reactor, lambda ip, port: addressEndpoint(reactor, ip, port)
        )

    def dial(self, ip: str, settings: ClientSettings) -> Deferred[ClientSession]:
        return self._dialer.dial(ip, self._port, settings)

    def session(self, mode: TLSMode) -> Once:
        """
        One session, without lookups, policies and outcomes.
        """
        secure = mode is not TLSMode.SKIP
        settings = ClientSettings("client.example", self._trust, mode, (HOST,), secure)
        transaction = Transaction(SENDER, ("to@d0.example",), self._message, SIZE)

        async def once() -> None:
            session = await self._dialer.dial("127.0.0.1", self._port, settings)
            (answer,) = await session.deliver(transaction)
            assert answer.reply.accepted and session.secure is secure
            self._dialer.release(session)

        return once

    def delivery(
        self,
        reactor: IReactor,
        ledger: Ledger,
        resolver: MemoryResolver,
        policies: IPolicyStore,
    ) -> Once:
        """
        A whole attempt: lookups, policy, session, and the durable outcome.
        """
        cache = PolicyCache(reactor, resolver, NoFetcher(), policies)
        recorder = OutcomeRecorder(reactor, ledger.outcomes)
        courier = DirectCourier(
            DeliveryContext(
                resolver,
                cache,
                recorder,
                self.dial,
                self._dialer.release,
                ClientSettings("client.example", self._trust),
                self._port,
                (RRType.AAAA, RRType.A),
                random.random,
            )
        )
        domains = cycle(DOMAINS)

        async def once() -> None:
            domain = next(domains)
            message = BatchMessage("id", SENDER, (f"to@{domain}",), self._message, SIZE)
            batch = Batch(domain, (message,))
            (result,) = await courier.deliver(batch, MemoryResultRecorder())
            assert result.ending is DeliveryStatus.DELIVERED, result
            # It remembers all that it was asked.
            resolver.asked.clear()

        return once

    def stop(self) -> Deferred[None]:
        return self._dialer.stop()


def _policy(domain: Domain, now: float) -> CachedPolicy:
    policy = parsePolicy(_STS.encode("ascii"))
    assert isinstance(policy, STSPolicy)
    return CachedPolicy(domain, policy, "1", now, now, now + 604800, now)


def _resolver() -> MemoryResolver:
    resolver = MemoryResolver()
    resolver.put(HOST, RRType.A, "127.0.0.1")
    for domain in DOMAINS:
        resolver.put(domain, RRType.MX, f"10 {HOST}")
    return resolver


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        folder = Path(name)
        line = b"Twenty characters or so, as the lines of a message are.\r\n"
        header = b"Subject: benchmark\r\n\r\n"
        body = line * ((SIZE - len(header)) // len(line) + 1)
        (folder / "message").write_bytes((header + body)[: SIZE - 2] + b"\r\n")
        yield folder


def _variants(named: Sequence[tuple[str, Once]], operations: int) -> list[Variant]:
    return [
        Variant(name, partial(sideBySide, width=WIDTH, once=once), operations)
        for name, once in named
    ]


@dataclass(frozen=True, slots=True)
class Setting:
    """
    Parameters of all compared clients.
    """

    reactor: IReactor
    effort: Effort
    ledger: Ledger
    message: Path
    certified: Certified

    def stock(self, port: int, certified: Certified | None) -> list[tuple[str, Once]]:
        usual = Stock(self.reactor, port, self.message, certified)
        atOnce = Stock(self.reactor, port, self.message, certified, AtOnce)
        return [(STOCK, usual.once), (STOCK_AT_ONCE, atOnce.once)]

    def ours(self, port: int) -> Ours:
        trust = trustStoreOf([self.certified.root])
        return Ours(self.reactor, port, self.message, trust)


async def _plaintext(setting: Setting, port: int) -> None:
    ours = setting.ours(port)
    resolver, policies = _resolver(), PolicyDict()
    delivery = ours.delivery(setting.reactor, setting.ledger, resolver, policies)
    named = [
        *setting.stock(port, None),
        ("moxtls Session", ours.session(TLSMode.SKIP)),
        ("moxtls delivery, recorded", delivery),
    ]
    comparison = await compare(
        f"plaintext, {WIDTH} connections at a time, 2 kB each",
        "sessions",
        _variants(named, setting.effort.of(PLAIN_SESSIONS)),
        (STOCK, STOCK_AT_ONCE),
        setting.effort.rounds,
    )
    print(table(comparison), flush=True)
    await ours.stop()


async def _secure(setting: Setting, port: int, bare: int) -> None:
    ours = setting.ours(port)
    resolver, policies = _resolver(), PolicyDict()
    for domain in DOMAINS:
        resolver.put(f"_mta-sts.{domain}", RRType.TXT, "v=STSv1; id=1")
        policies.save(_policy(Domain(domain), setting.reactor.seconds()))
    delivery = ours.delivery(setting.reactor, setting.ledger, resolver, policies)
    client = Client(setting.certified, bare)

    async def handshakes(count: int) -> None:
        client.run(count, WIDTH)

    named = [
        *setting.stock(port, setting.certified),
        ("moxtls Session", ours.session(TLSMode.REQUIRED)),
        ("moxtls delivery, recorded", delivery),
    ]
    operations = setting.effort.of(TLS_SESSIONS)
    comparison = await compare(
        "STARTTLS, as above; full handshakes, ECDSA P-256, MTA-STS enforced",
        "sessions",
        [Variant(BARE, handshakes, 3 * operations), *_variants(named, operations)],
        (STOCK, STOCK_AT_ONCE, BARE),
        setting.effort.rounds,
    )
    print(table(comparison))
    await ours.stop()


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    certified = certify()
    with (
        _folder() as folder,
        child("bench.sink", certified.pem) as (plain, secure),
        child("bench.handshakes", certified.pem) as (bare,),
    ):
        ledger = Ledger(reactor, f"sqlite:///{folder / 'ledger.sqlite'}")
        setting = Setting(reactor, effort, ledger, folder / "message", certified)
        await _plaintext(setting, plain)
        await _secure(setting, secure, bare)
        await ledger.stop()


if __name__ == "__main__":
    main(benchmark)
