"""
Tests for L{moxtls.delivery.attempt}, as deliveries use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.dns.types import RRType
from moxtls.interfaces import IResultRecorder
from moxtls.queue.types import DeliveryStatus, Result
from moxtls.smtp.types import Reply
from tests.network import Postbox
from tests.outbound.deliveries import (
    IP4,
    MX,
    SECOND,
    SECOND_IP,
    DeliveryCase,
)

OTHER = "other@example.com"


@implementer(IResultRecorder)
class SlowRecorder:
    """
    @ivar waiting: Results, and what is to fire once they are recorded.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[Sequence[Result], Deferred[None]]] = []

    def record(self, results: Sequence[Result]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if not results:
            return succeed(None)
        self.waiting.append((results, done))
        return done


class ParcelTests(DeliveryCase):
    """
    Tests for several messages in one attempt.
    """

    def setUp(self) -> None:
        super().setUp()
        self.secondHost()
        self.parcels = tuple(
            self.parcel(f"u{each}@example.com", messageID=f"m{each}")
            for each in range(3)
        )

    def who(self, results: tuple[Result, ...], ending: DeliveryStatus) -> list[str]:
        return sorted(each.messageID for each in results if each.ending is ending)

    def test_oneConnection(self) -> None:
        """
        They go out in one connection, which counts as one session.
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
        attempt = self.attempt(self.parcel(*people))
        for number, person in enumerate(people[:-1], 1):
            self.assertEqual(len(server.messages), number)
            results, done = recorder.waiting.pop()
            self.assertEqual([each.recipient for each in results], [person])
            done.callback(None)
            self.network.flush()
        self.assertDelivered(self.successResultOf(attempt))

    def test_recordedBeforeNextHost(self) -> None:
        """
        The same if the host that took a message is lost, and another one is
        asked about the rest.
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
        What was handed over is known to be, if the attempt is broken off
        while that is recorded.
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
        If the host is lost meanwhile, the next one is asked once the results are
        recorded; what had waited for that isn't sent any more.
        """
        self.recorder = recorder = SlowRecorder()
        first = self.serve(self.goodContext())
        second = self.serve(ip=SECOND_IP)
        self.attempt(*self.parcels)
        first.transport.loseConnection()
        self.network.flush()
        self.assertEqual(self.network.dialed, [IP4])
        recorder.waiting.pop()[1].callback(None)
        self.network.flush()
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])
        self.assertEqual((len(first.messages), len(second.messages)), (1, 1))

    def lostInSecond(self) -> Deferred[tuple[Result, ...]]:
        """
        A connection that is lost when the first message was taken, and the
        second one waits for an answer.
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
        RFC 9422 MAILMAX: when a host takes no more messages in a connection,
        it is given another one, rather than leave the rest for later.
        """
        postbox = Postbox()
        build = postbox.server(self.clock, self.goodContext(), transactions=1)
        self.network.answer(IP4, build)
        results = self.deliver(*self.parcels)
        self.assertDelivered(results)
        self.assertEqual(len(postbox.received), 3)
        self.assertEqual(self.network.dialed, [IP4] * 3)
        self.assertEqual(self.recipient.succeeded, 3)

    def test_limitedAndRefused(self) -> None:
        """
        In another connection, nobody is asked about who had an answer.
        """
        postbox = Postbox({"u0@example.com": Reply(450, "4.2.1", "full")})
        build = postbox.server(self.clock, None, transactions=1)
        self.network.answer(IP4, build)
        results = self.deliver(*self.parcels)
        self.assertEqual(self.who(results, DeliveryStatus.DELIVERED), ["m1", "m2"])
        self.assertEqual(self.network.dialed, [IP4] * 3 + [SECOND_IP])

    def test_closing(self) -> None:
        """
        RFC 5321 3.8: a host that says 421 has enough for now; the rest goes
        to the next one, in no new connection to this one.
        """
        first = self.serve(replies={"MAIL": ["250 ok", "421 4.7.0 enough"]})
        second = self.serve(ip=SECOND_IP)
        self.assertDelivered(self.deliver(*self.parcels))
        self.assertEqual((len(first.messages), len(second.messages)), (1, 2))
        self.assertEqual(self.network.dialed, [IP4, SECOND_IP])

    def test_closingForNow(self) -> None:
        """
        If there is no other host, that is what is said to all of them.
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
        A message that we can't read has to wait; the others go on, and what
        was delivered is known to be.
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
        The same if that turns out when the message has begun, so that the
        connection has to go.
        """
        self.serve(None, self.server())
        broken = replace(self.parcels[0], path=Path("/proc/self/mem"))
        results = self.deliver(broken, *self.parcels[1:])
        self.assertEqual(self.who(results, DeliveryStatus.DELIVERED), ["m1", "m2"])
        self.assertEqual(self.network.dialed, [IP4, IP4])
