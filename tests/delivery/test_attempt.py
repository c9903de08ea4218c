"""
Tests for L{moxtls.delivery.attempt}: hosts and results. TLS outcomes are tested in
C{test_delivery_tls}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.delivery.attempt import DirectCourier
from moxtls.delivery.results import MAX_SESSIONS
from moxtls.dns.types import RRType
from moxtls.interfaces import ICourier, IPolicyCache, IResultRecorder, ISessionObserver
from moxtls.queue.types import DeliveryStatus, ReportKind, Result
from moxtls.smtp.types import Reply
from tests.delivery.deliveries import (
    IP4,
    IP6,
    MESSAGE,
    MX,
    SECOND,
    SECOND_IP,
    USER,
    DeliveryCase,
)
from tests.network import AcceptingDelivery

OTHER = "other@example.com"


@implementer(IResultRecorder)
class SlowRecorder:
    """
    @ivar waiting: Results, each with the Deferred that fires once they are recorded.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[Sequence[Result], Deferred[None]]] = []

    def record(self, results: Sequence[Result]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if not results:
            return succeed(None)
        self.waiting.append((results, done))
        return done


class SeveralMessagesTests(DeliveryCase):
    """
    Tests for several messages in one attempt.
    """

    def setUp(self) -> None:
        super().setUp()
        self.secondHost()
        self.parcels = tuple(
            self.batchMessage(f"u{each}@example.com", messageID=f"m{each}")
            for each in range(3)
        )

    def who(self, results: tuple[Result, ...], ending: DeliveryStatus) -> list[str]:
        return sorted(each.messageID for each in results if each.ending is ending)

    def test_oneConnection(self) -> None:
        """
        Messages share one connection, which counts as one session.
        """
        server = self.serve(self.goodContext())
        self.assertDelivered(self.deliver(*self.parcels))
        self.assertEqual(len(server.messages), 3)
        self.assertEqual((self.host.succeeded, self.recipient.succeeded), (1, 1))

    def test_recordedFirst(self) -> None:
        """
        The data of a message is sent once the results of the one before are
        recorded, so that a death in between repeats one transaction at most; the
        commands before it needn't wait.
        """
        self.recorder = recorder = SlowRecorder()
        server = self.serve(self.goodContext())
        attempt = self.attempt(*self.parcels)
        for number in (1, 2):
            self.assertEqual(len(server.messages), number)
            mails = sum("MAIL" in each for each in server.commands)
            self.assertEqual(mails, number + 1)
            results, done = recorder.waiting.pop()
            self.assertDelivered(tuple(results))
            self.assertEqual(len(results), 1)
            done.callback(None)
            self.network.flush()
        self.assertDelivered(self.successResultOf(attempt))

    def test_recordedParts(self) -> None:
        """
        RFC 9422 RCPTMAX: each part of a message's recipients is a transaction
        too.
        """
        self.recorder = recorder = SlowRecorder()
        server = self.serve(extensions=("LIMITS RCPTMAX=1",))
        people = ("a@example.com", "b@example.com", "c@example.com")
        attempt = self.attempt(self.batchMessage(*people))
        for number, person in enumerate(people[:-1], 1):
            self.assertEqual(len(server.messages), number)
            results, done = recorder.waiting.pop()
            self.assertEqual([each.recipient for each in results], [person])
            done.callback(None)
            self.network.flush()
        self.assertDelivered(self.successResultOf(attempt))

    def test_recordedBeforeNextHost(self) -> None:
        """
        A result is recorded before the next host is tried, also if the host that
        accepted a message is lost.
        """
        self.recorder = recorder = SlowRecorder()
        self.serve(replies={"MAIL": ["250 ok", "421 4.7.0 enough"]})
        second = self.serve(ip=SECOND_IP)
        self.attempt(*self.parcels)
        recorder.waiting.pop()[1].callback(None)
        self.network.flush()
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])
        self.assertEqual(len(second.messages), 1)

    def test_cancelledWhileRecording(self) -> None:
        """
        A message handed over counts as delivered even if the attempt is cancelled
        while that is being recorded.
        """
        self.recorder = SlowRecorder()
        self.serve(self.goodContext())
        attempt = self.attempt(*self.parcels)
        attempt.cancel()
        self.network.flush()
        results = self.successResultOf(attempt)
        self.assertEqual(self.who(results, DeliveryStatus.DELIVERED), ["m0"])

    def test_lostWhileRecording(self) -> None:
        """
        If the host is lost meanwhile, the next one is tried once the results are
        recorded; waiting commands aren't sent any more.
        """
        self.recorder = recorder = SlowRecorder()
        first = self.serve(self.goodContext())
        second = self.serve(ip=SECOND_IP)
        self.attempt(*self.parcels)
        assert first.transport is not None
        first.transport.loseConnection()
        self.network.flush()
        self.assertEqual(self.network.dialed, [IP4])
        recorder.waiting.pop()[1].callback(None)
        self.network.flush()
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])
        self.assertEqual((len(first.messages), len(second.messages)), (1, 1))

    def lostInSecond(self) -> Deferred[tuple[Result, ...]]:
        """
        A connection is lost after the first message was accepted, while the second
        one waits for a reply.
        """
        first = self.serve(extensions=(), replies={"END": ["250 ok", ""]})
        attempt = self.attempt(*self.parcels)
        self.assertEqual(len(first.messages), 2)
        self.network.calls[0].hangUp()
        self.network.flush()
        return attempt

    def test_lost(self) -> None:
        """
        If the connection is lost in the second transaction, the first stays
        delivered, and the rest tries the next host.
        """
        second = self.serve(ip=SECOND_IP)
        results = self.successResultOf(self.lostInSecond())
        self.assertDelivered(results)
        self.assertEqual(
            [(each.messageID, each.host) for each in results],
            [("m0", MX), ("m1", SECOND), ("m2", SECOND)],
        )
        self.assertEqual(len(second.messages), 2)

    def test_lostForNow(self) -> None:
        """
        Without another host, the rest has to wait.
        """
        results = self.successResultOf(self.lostInSecond())
        self.assertEqual(self.who(results, DeliveryStatus.DELIVERED), ["m0"])
        self.assertEqual(self.who(results, DeliveryStatus.TEMPORARY), ["m1", "m2"])

    def test_limited(self) -> None:
        """
        RFC 9422 MAILMAX: if a host accepts no more messages on a connection, another
        connection is made, rather than deferring the rest.
        """
        postbox = AcceptingDelivery()
        build = postbox.server(self.clock, self.goodContext(), transactions=1)
        self.network.answer(IP4, build)
        results = self.deliver(*self.parcels)
        self.assertDelivered(results)
        self.assertEqual(len(postbox.received), 3)
        self.assertEqual(self.network.dialed, [IP4] * 3)
        self.assertEqual(self.recipient.succeeded, 3)

    def test_limitedAndRefused(self) -> None:
        """
        Another connection isn't used for recipients with a final reply.
        """
        postbox = AcceptingDelivery({"u0@example.com": Reply(450, "4.2.1", "full")})
        build = postbox.server(self.clock, None, transactions=1)
        self.network.answer(IP4, build)
        results = self.deliver(*self.parcels)
        self.assertEqual(self.who(results, DeliveryStatus.DELIVERED), ["m1", "m2"])
        self.assertEqual(self.network.dialed, [IP4] * 3 + [SECOND_IP])

    def test_closing(self) -> None:
        """
        RFC 5321 3.8: after 421 the rest goes to the next host, without a new
        connection to this one.
        """
        first = self.serve(replies={"MAIL": ["250 ok", "421 4.7.0 enough"]})
        second = self.serve(ip=SECOND_IP)
        self.assertDelivered(self.deliver(*self.parcels))
        self.assertEqual((len(first.messages), len(second.messages)), (1, 2))
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])

    def test_closingForNow(self) -> None:
        """
        Without another host, all recipients get that reply.
        """
        self.serve(replies={"MAIL": ["250 ok", "421 4.7.0 enough"]})
        self.resolver.put("example.com", RRType.MX, f"10 {MX}")
        results = self.deliver(*self.parcels)
        self.assertEqual(
            [(each.status, each.code) for each in results],
            [("2.0.0", 250), ("4.7.0", 421), ("4.7.0", 421)],
        )

    def test_unreadable(self) -> None:
        """
        An unreadable message is deferred; the others go on, and delivered ones stay
        so.
        """
        server = self.serve()
        lost = replace(self.parcels[1], path=Path(self.mktemp()))
        results = self.deliver(self.parcels[0], lost, self.parcels[2])
        self.assertEqual(self.who(results, DeliveryStatus.DELIVERED), ["m0", "m2"])
        (result,) = [each for each in results if each.messageID == "m1"]
        self.assertEqual(
            (result.ending, result.status, result.text),
            (
                DeliveryStatus.TEMPORARY,
                "4.3.0",
                "the message can't be read: No such file or directory",
            ),
        )
        self.assertEqual(len(server.messages), 2)
        self.assertEqual(self.network.dialed, [IP4])

    def test_unreadableMidway(self) -> None:
        """
        A message that becomes unreadable after its transfer has begun is deferred
        too, and the connection closed.
        """
        self.serve(None, self.server())
        broken = replace(self.parcels[0], path=Path("/proc/self/mem"))
        results = self.deliver(broken, *self.parcels[1:])
        self.assertEqual(self.who(results, DeliveryStatus.DELIVERED), ["m1", "m2"])
        self.assertEqual(self.network.dialed, [IP4, IP4])


class NextHopTests(DeliveryCase):
    """
    Tests for the hosts that are tried, and their order.
    """

    def test_interfaces(self) -> None:
        """
        The fakes of these tests provide the interfaces.
        """
        verifyObject(ICourier, DirectCourier(self.context))
        verifyObject(IPolicyCache, self.policies)
        verifyObject(ISessionObserver, self.observer)

    def test_ownServer(self) -> None:
        """
        From the courier to the project's own server, over TLS, whole.
        """
        postbox = AcceptingDelivery()
        self.network.answer(IP4, postbox.server(self.clock, self.goodContext(), MX))
        (result,) = self.deliver()
        self.assertEqual(
            result,
            Result(
                "m1",
                USER,
                DeliveryStatus.DELIVERED,
                "2.0.0",
                250,
                "250 2.0.0 taken",
                MX,
            ),
        )
        ((incoming, message),) = postbox.received
        self.assertEqual(
            (incoming.sender, incoming.recipients, message),
            ("us@us.example", (USER,), MESSAGE),
        )
        self.assertEqual((self.recipient.succeeded, self.host.succeeded), (1, 1))

    def test_order(self) -> None:
        """
        RFC 5321 5.1: the host with the lowest preference first; the next one
        if it can't be reached.
        """
        self.resolver.put("example.com", RRType.MX, f"20 {SECOND}", f"10 {MX}")
        second = self.serve(ip=SECOND_IP)
        self.assertDelivered(self.deliver())
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])
        self.assertEqual(second.messages, [MESSAGE])

    def test_first(self) -> None:
        """
        No other host is tried if the first one accepted everything.
        """
        self.secondHost()
        self.serve()
        self.assertDelivered(self.deliver())
        self.assertEqual(self.network.dialed, [IP4])

    def test_noMX(self) -> None:
        """
        RFC 5321 5.1: without MX records the domain is its own host.
        """
        self.resolver.put("example.com", RRType.MX)
        self.resolver.put("example.com", RRType.A, IP4)
        self.serve()
        (result,) = self.deliver()
        self.assertEqual(result.host, "example.com")
        self.assertIs(result.ending, DeliveryStatus.DELIVERED)

    def test_nullMX(self) -> None:
        """
        RFC 7505 3: mail to a domain with a null MX fails, without a TLS outcome and
        without a lookup of its MTA-STS policy.
        """
        self.resolver.put("example.com", RRType.MX, "0 .")
        self.assertResults(self.deliver(), (USER, DeliveryStatus.PERMANENT, "5.1.10"))
        self.assertEqual((self.outcome.recipient, self.outcome.hosts), (None, ()))
        self.assertEqual(self.policies.asked, [])

    def test_noDomain(self) -> None:
        """
        RFC 5321 5.1: a domain that doesn't exist is a permanent failure.
        """
        results = self.deliver(destination="nowhere.example")
        self.assertResults(results, (USER, DeliveryStatus.PERMANENT, "5.1.2"))
        self.assertEqual((self.outcome.recipient, self.outcome.hosts), (None, ()))

    def test_lookupFailed(self) -> None:
        """
        A DNS that doesn't answer is a temporary failure.
        """
        self.resolver.fail("example.com", RRType.MX)
        self.assertDelayed(self.deliver(), "4.4.3")
        self.assertEqual(self.outcome.recipient, None)

    def test_notADomain(self) -> None:
        """
        A name that can't be a domain isn't looked up, and fails permanently.
        """
        results = self.deliver(destination="no domain")
        self.assertResults(results, (USER, DeliveryStatus.PERMANENT, "5.1.2"))
        self.assertEqual(self.resolver.asked, [])
        self.assertEqual(self.observer.outcomes, [])

    def test_hostAddresses(self) -> None:
        """
        A host without an address, and one whose lookup fails, are passed
        over; if there is no other, the mail has to wait.
        """
        self.resolver.put(MX, RRType.A)
        self.assertDelayed(self.deliver(), "4.4.4")
        self.resolver.fail(MX, RRType.A)
        self.resolver.fail(MX, RRType.AAAA)
        self.assertDelayed(self.deliver(), "4.4.3")
        self.secondHost()
        self.serve(ip=SECOND_IP)
        self.assertDelivered(self.deliver())

    def test_literal(self) -> None:
        """
        RFC 5321 4.1.3: mail to an address literal goes to that address, without
        lookups and without a TLS outcome, for which no report can be requested.
        """
        self.serve(self.goodContext())
        for literal in (f"[{IP4}]", f"[IPv6:{IP6}]"):
            self.serve(self.goodContext(), ip=literal[1:-1].removeprefix("IPv6:"))
            (result,) = self.deliver(destination=literal)
            self.assertEqual(
                (result.ending, result.host), (DeliveryStatus.DELIVERED, literal)
            )
        self.assertEqual(self.network.dialed, [IP4, IP6])
        self.assertEqual(self.resolver.asked, [])
        self.assertEqual(self.policies.asked, [])
        self.assertEqual(self.observer.outcomes, [])


class AddressTests(DeliveryCase):
    """
    Tests for which address of a host is dialed.
    """

    def setUp(self) -> None:
        super().setUp()
        self.resolver.put(MX, RRType.AAAA, IP6)

    def test_alternate(self) -> None:
        """
        IPv6 comes first in the first attempt, IPv4 in the second.
        """
        for attempt, ips in ((1, [IP6, IP4]), (2, [IP4, IP6]), (3, [IP6, IP4])):
            self.network.dialed.clear()
            self.assertDelayed(self.deliver(attempt=attempt), "4.4.1")
            self.assertEqual(self.network.dialed, ips)

    def test_oneFamily(self) -> None:
        """
        Only the families we have are looked up.
        """
        self.context = replace(self.context, families=(RRType.A,))
        for attempt in (1, 2):
            self.deliver(attempt=attempt)
        self.assertEqual(self.network.dialed, [IP4, IP4])
        self.assertNotIn((MX, RRType.AAAA), self.resolver.asked)

    def test_next(self) -> None:
        """
        The next address is tried if the first one doesn't answer.
        """
        self.serve(ip=IP4)
        self.assertDelivered(self.deliver())
        self.assertEqual(self.network.dialed, [IP6, IP4])

    def test_many(self) -> None:
        """
        A host with many addresses doesn't keep the next host, or the other
        family, from its turn (RFC 5321 5.1: at least two are tried).
        """
        self.secondHost()
        self.resolver.put(MX, RRType.AAAA, *(f"2001:db8::{each}" for each in range(9)))
        self.assertDelayed(self.deliver(), "4.4.1")
        self.assertEqual(
            self.network.dialed, ["2001:db8::", "2001:db8::1", IP4, SECOND_IP]
        )

    def test_silence(self) -> None:
        """
        An address that doesn't answer is given up after a while.
        """
        self.network.silence(IP6)
        self.serve(ip=IP4)
        attempt = self.attempt()
        self.assertNoResult(attempt)
        self.clock.advance(30)
        self.network.flush()
        self.assertDelivered(self.successResultOf(attempt))

    def test_lenient(self) -> None:
        """
        In the first attempt to a host with both families, a refusal for
        reasons of policy (5.7) may be due to the family: it is temporary.
        """
        no = {"MAIL": "550 5.7.1 not from you"}
        self.serve(ip=IP6, replies=no)
        self.assertDelayed(self.deliver(), "4.7.1")
        self.serve(ip=IP4, replies=no)
        self.assertResults(
            self.deliver(attempt=2), (USER, DeliveryStatus.PERMANENT, "5.7.1")
        )

    def test_lenientAtFirst(self) -> None:
        """
        The same for hosts that refuse before they know the message.
        """
        self.serve(ip=IP6, greeting="554 go away")
        self.assertDelayed(self.deliver(), "4.0.0")
        self.serve(ip=IP4, greeting="554 go away")
        self.assertResults(
            self.deliver(attempt=2), (USER, DeliveryStatus.PERMANENT, "5.0.0")
        )

    def test_notLenient(self) -> None:
        """
        Other refusals are final at once, and so is every refusal of a host
        with one family.
        """
        self.serve(ip=IP6, replies={"RCPT": "550 5.1.1 who?"})
        self.assertResults(self.deliver(), (USER, DeliveryStatus.PERMANENT, "5.1.1"))
        self.resolver.put(MX, RRType.AAAA)
        self.serve(ip=IP4, replies={"RCPT": "550 5.7.1 no"})
        self.assertResults(self.deliver(), (USER, DeliveryStatus.PERMANENT, "5.7.1"))

    def test_lenientWhenLost(self) -> None:
        """
        The same for recipients with a reply from before the connection was lost.
        """
        replies = {"RCPT": ["550 5.7.1 no", "250 ok"], "DATA": ""}
        self.serve(ip=IP6, extensions=(), replies=replies)
        attempt = self.attempt(self.batchMessage(USER, OTHER))
        self.network.calls[0].hangUp()
        self.network.flush()
        self.assertResults(
            self.successResultOf(attempt),
            (USER, DeliveryStatus.TEMPORARY, "4.7.1"),
            (OTHER, DeliveryStatus.TEMPORARY, "4.4.2"),
        )


class HostTests(DeliveryCase):
    """
    Tests for replies to recipients and sessions.
    """

    def setUp(self) -> None:
        super().setUp()
        self.secondHost()

    def test_perRecipient(self) -> None:
        """
        Each recipient has a result of its own (RFC 5321 4.2.5, 6.1).
        """
        postbox = AcceptingDelivery({OTHER: Reply(550, "5.1.1", "who?")})
        self.network.answer(IP4, postbox.server(self.clock, None))
        results = self.deliver(self.batchMessage(USER, OTHER))
        self.assertResults(
            results,
            (USER, DeliveryStatus.DELIVERED, "2.0.0"),
            (OTHER, DeliveryStatus.PERMANENT, "5.1.1"),
        )
        self.assertEqual(self.network.dialed, [IP4])

    def test_temporaryRefusal(self) -> None:
        """
        RFC 5321 5.1: hosts are tried until one accepts. A recipient refused
        temporarily may be accepted by the next host; accepted ones aren't repeated.
        """
        first = self.serve(replies={"RCPT": ["450 4.2.1 full", "250 ok"]})
        second = self.serve(ip=SECOND_IP)
        self.assertDelivered(self.deliver(self.batchMessage(USER, OTHER)))
        self.assertIn(f"RCPT TO:<{USER}>", first.commands)
        self.assertIn(f"RCPT TO:<{USER}>", second.commands)
        self.assertNotIn(f"RCPT TO:<{OTHER}>", second.commands)

    def test_temporaryEverywhere(self) -> None:
        """
        Without a better reply from another host, the reply to the recipient counts.
        """
        self.serve(replies={"RCPT": "450 4.2.1 full"})
        (result,) = self.deliver()
        self.assertEqual(
            result,
            Result(
                "m1", USER, DeliveryStatus.TEMPORARY, "4.2.1", 450, "450 4.2.1 full", MX
            ),
        )
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])

    def test_permanentRefusal(self) -> None:
        """
        A permanent refusal is final: no other host is tried.
        """
        for verb in ("MAIL", "RCPT", "DATA", "END"):
            self.serve(replies={verb: "554 5.6.0 never"})
            self.assertResults(
                self.deliver(), (USER, DeliveryStatus.PERMANENT, "5.6.0")
            )
        self.assertEqual(self.network.dialed, [IP4] * 4)

    def test_unwelcome(self) -> None:
        """
        A host that refuses all mail is skipped; the failure is permanent only if all
        hosts do so.
        """
        self.serve(greeting="554 no SMTP service here")
        second = self.serve(ip=SECOND_IP)
        self.assertDelivered(self.deliver())
        self.assertEqual(second.messages, [MESSAGE])
        self.serve(greeting="554 no SMTP service here")
        self.assertDelayed(self.deliver(), "4.4.1")
        self.serve(greeting="554 no SMTP service here")
        self.serve(ip=SECOND_IP, greeting="521 no mail")
        self.assertResults(self.deliver(), (USER, DeliveryStatus.PERMANENT, "5.0.0"))

    def test_extensions(self) -> None:
        """
        RFC 5321 5.1: a message that needs SIZE (RFC 1870), 8BITMIME (RFC 6152) or
        SMTPUTF8 (RFC 6531) is left to the next host if one lacks it, which gets the
        other messages.
        """
        self.secondHost()
        fits = self.batchMessage(messageID="fits")
        large = replace(self.batchMessage(messageID="large"), size=50_000)
        for extensions, batchMessage in (
            (("SIZE 40000",), large),
            ((), replace(self.batchMessage(), eightBit=True)),
            (("8BITMIME",), replace(self.batchMessage(), smtputf8=True)),
        ):
            first = self.serve(extensions=extensions)
            second = self.serve(ip=SECOND_IP)
            results = self.deliver(batchMessage, fits)
            self.assertDelivered(results)
            self.assertEqual({each.host for each in results}, {MX, SECOND})
            self.assertEqual(len(first.messages), 1)
            self.assertEqual(len(second.messages), 1)

    def test_extensionsNowhere(self) -> None:
        """
        The failure is permanent only if no host is left that might have the
        extension; its text is local.
        """
        self.secondHost()
        batchMessage = replace(self.batchMessage(), eightBit=True)
        self.serve(extensions=())
        self.assertDelayed(self.deliver(batchMessage), "4.4.1")
        self.serve(extensions=())
        self.serve(ip=SECOND_IP, extensions=())
        (result,) = self.deliver(batchMessage)
        self.assertEqual((result.ending, result.code), (DeliveryStatus.PERMANENT, 0))
        self.assertEqual((result.status, result.host), ("5.6.3", SECOND))
        self.assertEqual(result.text, "the server doesn't support 8BITMIME")
        self.serve(extensions=())
        self.serve(ip=SECOND_IP, replies={"RCPT": "450 4.2.1 later"})
        self.assertDelayed(self.deliver(batchMessage), "4.2.1")

    def test_limits(self) -> None:
        """
        RFC 9422: recipients beyond the limits that a host announces go in another
        transaction, or in another connection to the same host.
        """
        extensions = ("PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=3")
        recipients = tuple(f"u{n}@example.com" for n in range(12))
        parcels = (self.batchMessage(*recipients), self.batchMessage(messageID="m2"))
        others = [self.server(extensions=extensions) for _ in range(2)]
        first = self.serve(None, *others, extensions=extensions)
        results = self.deliver(*parcels)
        self.assertDelivered(results)
        self.assertEqual(len(results), 13)
        self.assertEqual(self.network.dialed, [IP4] * 3)
        counts = [len(each.messages) for each in (first, *others)]
        self.assertEqual(counts, [3, 3, 1])
        heard = b"".join(each.heard for each in (first, *others))
        self.assertEqual(heard.count(b"RCPT TO"), 13)

    def test_limitsWithRefusals(self) -> None:
        """
        A recipient that was refused temporarily isn't tried again in the same
        attempt.
        """
        extensions = ("LIMITS RCPTMAX=1 MAILMAX=1",)
        second = self.server(extensions=extensions)
        first = self.serve(
            None, second, extensions=extensions, replies={"RCPT": "450 4.2.1 full"}
        )
        results = self.deliver(self.batchMessage(USER, OTHER))
        self.assertResults(
            results,
            (USER, DeliveryStatus.TEMPORARY, "4.2.1"),
            (OTHER, DeliveryStatus.DELIVERED, "2.0.0"),
        )
        self.assertEqual(len([*first.messages, *second.messages]), 1)

    def test_connectionsAreBounded(self) -> None:
        """
        The number of connections to a host that accepts little on each is limited.
        """
        self.resolver.put("example.com", RRType.MX, f"10 {MX}")
        extensions = ("LIMITS RCPTMAX=1 MAILMAX=1",)
        recipients = tuple(f"u{n}@example.com" for n in range(MAX_SESSIONS + 2))
        others = [self.server(extensions=extensions) for _ in recipients]
        self.serve(None, *others, extensions=extensions)
        results = self.deliver(self.batchMessage(*recipients))
        self.assertEqual(self.network.dialed.count(IP4), MAX_SESSIONS)
        statuses = Counter(each.status for each in results)
        self.assertEqual(statuses, {"2.0.0": MAX_SESSIONS, "4.5.3": 2})

    def test_words(self) -> None:
        """
        Texts of remote replies are truncated.
        """
        self.serve(replies={"RCPT": "\n".join(["550 " + "x" * 900] * 50)})
        (result,) = self.deliver()
        self.assertEqual(len(result.text), 1000)
        self.serve(greeting="\n".join(["554 " + "x" * 900] * 50))
        self.serve(ip=SECOND_IP, greeting="\n".join(["554 " + "x" * 900] * 50))
        (result,) = self.deliver()
        self.assertEqual(len(result.text), 1000)

    def test_lineEnds(self) -> None:
        """
        A host that ends its lines with a line feed alone, against RFC 5321 2.3.8, or
        sends empty lines between them gets mail, over TLS and without, one message
        after the other.
        """
        for end in (b"\n", b"\r\n\r\n", b"\n\n"):
            for context in (self.goodContext(), None):
                server = self.serve(context, lineEnd=end)
                parcels = [self.batchMessage(messageID=each) for each in ("m1", "m2")]
                self.assertDelivered(self.deliver(*parcels))
                self.assertEqual(server.messages, [MESSAGE] * 2)
                self.assertEqual(b"<TLS>" in server.heard, context is not None)

    def test_nonsense(self) -> None:
        """
        A host that doesn't speak SMTP is skipped.
        """
        self.serve(greeting="hello")
        second = self.serve(ip=SECOND_IP)
        self.assertDelivered(self.deliver())
        self.assertEqual(second.messages, [MESSAGE])

    def test_yesToWhat(self) -> None:
        """
        A positive reply of an unexpected code isn't acceptance.
        """
        self.serve(replies={"MAIL": "354 go on"})
        self.serve(ip=SECOND_IP, replies={"MAIL": "354 go on"})
        self.assertDelayed(self.deliver(), "4.5.0")


class UnreachableTests(DeliveryCase):
    """
    Tests for which results hold for all mail to a destination.
    """

    def assertUnreachable(self, expected: bool, **choices: object) -> None:
        results = self.deliver(**choices)
        self.assertEqual({each.unreachable for each in results}, {expected})

    def test_nobody(self) -> None:
        """
        No address of the destination answers.
        """
        self.assertUnreachable(True)

    def test_noAnswer(self) -> None:
        """
        The lookup of the hosts fails.
        """
        self.resolver.fail("example.com", RRType.MX)
        self.assertUnreachable(True)

    def test_closed(self) -> None:
        """
        The only host is about to shut down.
        """
        self.serve(greeting="421 4.3.2 later")
        self.assertUnreachable(True)

    def test_silent(self) -> None:
        """
        The only host takes connections and never greets.
        """
        self.serve(greeting="")
        attempt = self.attempt()
        self.clock.advance(301)
        self.network.flush()
        (result,) = self.successResultOf(attempt)
        self.assertTrue(result.unreachable)

    def test_gone(self) -> None:
        """
        A permanent refusal doesn't mark the destination as unreachable: it concerns
        this attempt's recipients only, and later ones may be of other domains.
        """
        self.serve(greeting="554 5.7.1 go away")
        self.assertUnreachable(False)

    def test_begun(self) -> None:
        """
        A connection lost within a transaction doesn't mark the destination as
        unreachable: the reason may be the message.
        """
        self.serve(replies={"DATA": ["421 4.3.2 later"]})
        self.assertUnreachable(False)

    def test_recipient(self) -> None:
        """
        A temporary refusal of a recipient doesn't either.
        """
        self.serve(replies={"RCPT": ["450 4.2.1 full"]})
        self.assertUnreachable(False)

    def test_demands(self) -> None:
        """
        A failed message that requires TLS, or a report that mustn't go in plaintext,
        doesn't mark the destination as unreachable: other mail may be deliverable.
        """
        self.assertUnreachable(False, requireTLS=True)
        self.assertUnreachable(False, report=ReportKind.DMARC)
        self.assertUnreachable(True, report=ReportKind.TLS)


class ErrorTests(DeliveryCase):
    """
    Tests for internal errors.
    """

    def test_observer(self) -> None:
        """
        Mail is delivered all the same if its TLS outcome can't be recorded;
        that is logged.
        """
        for failing in (lambda: fail(OSError("disk")), raising):
            self.serve()
            self.observer.answer = failing
            self.assertDelivered(self.deliver())
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(len(self.observer.outcomes), 2)

    def test_policies(self) -> None:
        """
        If policies can't be looked up for a local reason, the mail waits, without a
        TLS outcome.
        """
        self.policies.lookup = OSError("disk")
        self.assertDelayed(self.deliver(), "4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual((self.outcome.recipient, self.outcome.hosts), (None, ()))

    def test_midway(self) -> None:
        """
        Remote replies before an internal error remain valid, and the TLS outcome is
        recorded.
        """
        self.secondHost()
        self.serve(self.goodContext(), replies={"RCPT": ["250 ok", "450 4.2.1 full"]})
        dial = self.context.dial
        self.context = replace(
            self.context,
            dial=lambda ip, settings: (
                dial(ip, settings) if ip == IP4 else fail(RuntimeError("oops"))
            ),
        )
        results = self.deliver(self.batchMessage(USER, OTHER))
        self.assertResults(
            results,
            (USER, DeliveryStatus.DELIVERED, "2.0.0"),
            (OTHER, DeliveryStatus.TEMPORARY, "4.2.1"),
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.recipient.succeeded, 1)

    def test_left(self) -> None:
        """
        Each session that was opened is left, however it went.
        """
        scripts: list[dict[str, str]] = [
            {},
            {"MAIL": "550 no"},
            {"RCPT": "450 later"},
            {"DATA": "421 going down"},
            {"END": "999 nonsense"},
        ]
        for replies in scripts:
            self.serve(replies=replies)
            self.deliver()
        self.assertEqual(len(self.released), len(scripts))

    def test_slowGoodbye(self) -> None:
        """
        Results don't wait for the reply to QUIT.
        """
        self.serve(replies={"QUIT": ""})
        self.assertDelivered(self.successResultOf(self.attempt()))
        self.assertEqual(len(self.network.open), 1)
        self.clock.advance(5)
        self.assertTidy()


def raising() -> Deferred[None]:
    raise OSError("disk")
