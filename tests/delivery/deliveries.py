"""
Support for tests of deliveries: a DNS, a network and policies in memory, and a
recorder of TLS outcomes.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from moxtls.delivery.attempt import DeliveryContext, DirectCourier
from moxtls.delivery.sessions import Dialer
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ADDRESS_TYPES, TLSA, RRType
from moxtls.domain import Domain
from moxtls.interfaces import IPolicyCache, IResultRecorder, ISessionObserver
from moxtls.mtasts.policy import Mode, STSLookup, STSPolicy
from moxtls.queue.memory import MemoryResultRecorder
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus, Result
from moxtls.smtp.client.connection import ClientSettings
from moxtls.smtp.client.session import ClientSession
from moxtls.tlsrpt.types import PolicyTally, SessionOutcome
from tests.certificates import Identity, good, root, trusting
from tests.network import SMTP, Network
from tests.smtp.scripted import Scripted

EXAMPLE = Domain("example.com")
MX = "mx.example.com"
IP4 = "198.51.100.1"
IP6 = "2001:db8:1::1"
SECOND = "mx2.example.com"
SECOND_IP = "198.51.100.2"
USER = "user@example.com"
MESSAGE = b"Subject: hi\r\n\r\nhello\r\n"
GREETING = "220 mx.example.com ESMTP 4711"
LINES = ("version: STSv1", "mode: of-tests", "max_age: 86400")
MISMATCHING = TLSA(3, 1, 1, bytes(32))
UNUSABLE = TLSA(1, 1, 1, bytes(32))

TRUST = trusting(root())


def matching(identity: Identity) -> TLSA:
    """
    A DANE-EE record for a certificate.
    """
    return TLSA(3, 1, 1, hashlib.sha256(identity.spki).digest())


def policy(mode: Mode, *mx: str) -> STSPolicy:
    """
    For C{mx}, or for every host of these tests.
    """
    return STSPolicy(mode, 86400, mx or ("*.example.com",), LINES)


def outdated(identity: Identity) -> SSL.Context:
    """
    A context of a server that supports nothing newer than TLS 1.1.
    """
    context = identity.context()
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(SSL.TLS1_VERSION)
    context.set_max_proto_version(SSL.TLS1_1_VERSION)
    return context


def demanding(identity: Identity) -> SSL.Context:
    """
    A context of a server that requires a client certificate, and alerts after the
    client's handshake is complete (RFC 8446 4.4.2.4).
    """
    context = identity.context()
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_verify(
        SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *args: True
    )
    return context


@implementer(IPolicyCache)
class FakePolicies:
    """
    MTA-STS policies.

    @ivar lookup: The lookup of any domain; an exception, or C{None} to never answer.
    @ivar asked: The domains looked up.
    """

    def __init__(self) -> None:
        self.lookup: STSLookup | Exception | None = STSLookup(EXAMPLE)
        self.asked: list[Domain] = []

    def get(self, domain: Domain) -> Deferred[STSLookup]:
        self.asked.append(domain)
        if self.lookup is None:
            return Deferred()
        if isinstance(self.lookup, Exception):
            return fail(self.lookup)
        return succeed(self.lookup)


@implementer(ISessionObserver)
class FakeObserver:
    """
    Records TLS outcomes.

    @ivar outcomes: The recorded outcomes.
    @ivar answer: The result instead of success.
    """

    def __init__(self) -> None:
        self.outcomes: list[SessionOutcome] = []
        self.answer: Callable[[], Deferred[None]] = lambda: succeed(None)

    def sessionEnded(self, outcome: SessionOutcome) -> Deferred[None]:
        self.outcomes.append(outcome)
        return self.answer()


class DeliveryCase(SynchronousTestCase):
    """
    C{example.com} has the host C{mx.example.com}, unless a test changes that.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        # For the dates in certificates.
        self.clock.rightNow = time.time()
        self.network = Network(self.clock)
        self.resolver = MemoryResolver(
            {
                ("example.com", RRType.MX): [f"10 {MX}"],
                (MX, RRType.A): [IP4],
                (SECOND, RRType.A): [SECOND_IP],
            }
        )
        self.policies = FakePolicies()
        self.recorder: IResultRecorder = MemoryResultRecorder()
        self.observer = FakeObserver()
        self.dialer = Dialer(self.clock, self.network.endpoint)
        self.released: list[ClientSession] = []
        self.dialed: list[ClientSettings] = []
        self.context = DeliveryContext(
            self.resolver,
            self.policies,
            self.observer,
            self.dial,
            self.release,
            ClientSettings("us.example", TRUST),
            SMTP,
            ADDRESS_TYPES,
            lambda: 0.5,
        )

    def dial(self, ip: str, settings: ClientSettings) -> Deferred[ClientSession]:
        self.dialed.append(settings)
        return self.dialer.dial(ip, SMTP, settings)

    def release(self, session: ClientSession) -> None:
        self.released.append(session)
        self.dialer.release(session)

    # --- the world -----------------------------------------------------------

    def secondHost(self) -> None:
        """
        Let there be another host, after the first.
        """
        self.resolver.put("example.com", RRType.MX, f"10 {MX}", f"20 {SECOND}")

    def secure(self, *records: TLSA) -> None:
        """
        Sign all zones, and have TLSA records for C{mx.example.com}.
        """
        self.resolver.trust(".")
        self.resolver.put(f"_25._tcp.{MX}", RRType.TLSA, *records)

    def publish(self, mode: Mode, *mx: str) -> None:
        """
        Publish an MTA-STS policy.
        """
        self.policies.lookup = STSLookup(EXAMPLE, policy(mode, *mx))

    def server(self, context: SSL.Context | None = None, **script: object) -> Scripted:
        """
        A server without an address.

        @param script: As of L{Scripted}.
        """
        script.setdefault("greeting", GREETING)
        return Scripted(context, **script)  # type: ignore[arg-type]

    def serve(
        self,
        context: SSL.Context | None = None,
        *others: IProtocol,
        ip: str = IP4,
        **script: object,
    ) -> Scripted:
        """
        Put a server at C{mx.example.com}, which C{others} follow if there are
        more connections.
        """
        server = self.server(context, **script)
        self.network.serve(ip, server, *others)
        return server

    def goodContext(self) -> SSL.Context:
        return good(MX).context()

    # --- mail -------------------------------------------------------------------

    def batchMessage(self, *recipients: str, messageID: str = "m1") -> BatchMessage:
        path = Path(self.mktemp())
        path.write_bytes(MESSAGE)
        return BatchMessage(
            messageID, "us@us.example", recipients or (USER,), path, len(MESSAGE)
        )

    def batch(self, *parcels: BatchMessage, **choices: object) -> Batch:
        choices.setdefault("destination", "example.com")
        return Batch(messages=parcels or (self.batchMessage(),), **choices)  # type: ignore[arg-type]

    def deliver(self, *parcels: BatchMessage, **choices: object) -> tuple[Result, ...]:
        """
        Make an attempt that ends without waiting.
        """
        attempt = self.attempt(*parcels, **choices)
        results = self.successResultOf(attempt)
        self.assertTidy()
        return results

    def attempt(
        self, *parcels: BatchMessage, **choices: object
    ) -> Deferred[tuple[Result, ...]]:
        """
        Begin one.
        """
        courier = DirectCourier(self.context)
        attempt = courier.deliver(self.batch(*parcels, **choices), self.recorder)
        self.network.flush()
        return attempt

    def assertTidy(self) -> None:
        """
        No connection and no delayed call is left.
        """
        self.network.flush()
        self.assertEqual(self.network.open, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assertResults(
        self, results: tuple[Result, ...], *expected: tuple[str, DeliveryStatus, str]
    ) -> None:
        """
        @param expected: Recipient, ending, status.
        """
        self.assertEqual(
            sorted((each.recipient, each.ending.name, each.status) for each in results),
            sorted((who, ending.name, status) for who, ending, status in expected),
        )

    def assertDelivered(self, results: tuple[Result, ...]) -> None:
        """
        All recipients have it.
        """
        self.assertTrue(results)
        self.assertEqual({each.ending for each in results}, {DeliveryStatus.DELIVERED})

    def assertDelayed(self, results: tuple[Result, ...], status: str) -> None:
        """
        The one recipient has to wait, for a reason.
        """
        (result,) = results
        self.assertEqual(
            (result.ending, result.status), (DeliveryStatus.TEMPORARY, status)
        )

    # --- what was told about TLS ----------------------------------------------------

    @property
    def outcome(self) -> SessionOutcome:
        """
        The only one.
        """
        (outcome,) = self.observer.outcomes
        return outcome

    @property
    def recipient(self) -> PolicyTally:
        recipient = self.outcome.recipient
        assert recipient is not None
        return recipient

    @property
    def host(self) -> PolicyTally:
        """
        The tally of the only host.
        """
        (host,) = self.outcome.hosts
        return host


def counted(tally: PolicyTally) -> tuple[str, int, int, Counter[tuple[str, str]]]:
    """
    Policy, successes, failures, and the details by type and reason.
    """
    details: Counter[tuple[str, str]] = Counter()
    for failure, count in tally.failures.items():
        details[str(failure.resultType), failure.reasonCode] += count
    return str(tally.policy.type), tally.succeeded, tally.failed, details
