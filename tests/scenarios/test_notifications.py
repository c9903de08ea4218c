"""
DSNs about failed deliveries, from the replies on a connection to the message that the
sender gets.
"""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from itertools import count
from pathlib import Path

from moxtls.delivery.attempt import DirectCourier
from moxtls.delivery.local import LocalCourier
from moxtls.delivery.relay import Relay, SmarthostCourier
from moxtls.dns.types import RRType
from moxtls.domain import Address, Domain
from moxtls.interfaces import ICourier
from moxtls.mailbox.lmtp import LMTPStore
from moxtls.mtasts.policy import Mode
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.queue.schedule import GroupLimits
from moxtls.queue.service import QueueService
from moxtls.queue.settle import ReportStatusNotifier, Settlement
from moxtls.queue.types import Batch, Envelope
from moxtls.reception.recipients import Target
from moxtls.smtp.client.connection import ClientSettings
from moxtls.smtp.types import TLSMode
from tests.certificates import selfSigned
from tests.delivery.deliveries import MX, SECOND, SECOND_IP, TRUST, USER, DeliveryCase
from tests.mailbox.lmtpserver import LMTPNetwork
from tests.network import SMTP
from tests.queue.couriers import FakeCourier, FakeMailbox

SMALL = ("SIZE 10", "8BITMIME")


class NotificationTests(DeliveryCase):
    """
    A host with a queue, whose messages to C{example.com} fail.
    """

    def setUp(self) -> None:
        super().setUp()
        self.courier: ICourier = DirectCourier(self.context)
        self.pump: Callable[[], None] = lambda: None
        numbers = count()
        teller = ReportStatusNotifier(self.clock, [], FakeMailbox(), str)
        self.queue = QueueService(
            self.clock,
            InlineSpoolExecutor(Path(self.mktemp())),
            self.route,
            Settlement("us.example", lambda: f"n{next(numbers)}"),
            teller,
            lambda: f"m{next(numbers)}",
            jitter=lambda: 0.5,
            limits=GroupLimits(),
        )
        self.queue.startService()
        self.addCleanup(self.queue.stopService)

    def route(self, batch: Batch) -> ICourier:
        if batch.destination == "example.com":
            return self.courier
        # DSNs stay where they can be looked at.
        courier = FakeCourier()
        courier.answer = None
        return courier

    def failed(self, **envelope: bool) -> tuple[Message, str]:
        """
        Send a message.

        @return: The per-recipient fields and the text of the DSN about it.
        """
        body = (b"Subject: hello\r\n\r\n", b"hello\r\n")
        sent = Envelope("me@us.example", (USER,), **envelope)  # type: ignore[arg-type]
        self.successResultOf(self.queue.submit(sent, body))
        self.clock.advance(0)
        self.network.flush()
        self.pump()
        [dsn] = self.successResultOf(self.queue.messages())
        self.assertEqual(dsn.envelope.recipients, ("me@us.example",))
        # RFC 3464 2.1: the fields of the message come before the recipient's.
        whole = message_from_bytes(dsn.path.read_bytes())
        _, human, _, _, fields, _ = whole.walk()
        self.successResultOf(self.queue.drop(dsn.messageID))
        return fields, " ".join(str(human.get_payload()).split())

    def assertSaid(self, said: tuple[Message, str], status: str, reply: str) -> None:
        """
        A remote reply is attributed to the remote host (RFC 3464 2.3.5, 2.3.6).
        """
        fields, human = said
        self.assertEqual(fields["Status"], status)
        self.assertEqual(fields["Diagnostic-Code"], f"smtp; {reply}")
        self.assertEqual(fields["Remote-MTA"], f"dns; {MX}")
        self.assertIn(f"{MX} said: {reply}", human)

    def assertOurs(self, said: tuple[Message, str], status: str, words: str) -> None:
        """
        A local reason isn't attributed to any host.
        """
        fields, human = said
        self.assertEqual(fields["Status"], status)
        self.assertEqual(fields["Diagnostic-Code"], f"x-moxtls; {words}")
        self.assertNotIn("Remote-MTA", fields)
        self.assertIn(words, human)
        self.assertNotIn(" said", human)

    def test_steps(self) -> None:
        """
        A reply is quoted verbatim, once, whatever command it answered; its enhanced
        status code (RFC 3463) becomes the recipient's, also before EHLO, where RFC
        2034 4 has none.
        """
        for script, status, reply in (
            ({"RCPT": "550 5.1.1 no such user"}, "5.1.1", "550 5.1.1 no such user"),
            ({"RCPT": "550 no such user"}, "5.0.0", "550 no such user"),
            ({"RCPT": "550 550 no"}, "5.0.0", "550 550 no"),
            ({"RCPT": "550"}, "5.0.0", "550"),
            ({"RCPT": "550 5.1.1"}, "5.1.1", "550 5.1.1"),
            ({"RCPT": "550 4.1.1 odd"}, "5.0.0", "550 4.1.1 odd"),
            ({"RCPT": "550 5.1.1 no\n550 5.1.1 one"}, "5.1.1", "550 5.1.1 no one"),
            ({"MAIL": "553 5.1.8 who?"}, "5.1.8", "553 5.1.8 who?"),
            ({"DATA": "554 5.7.1 no"}, "5.7.1", "554 5.7.1 no"),
            ({"END": "552 5.3.4 too large"}, "5.3.4", "552 5.3.4 too large"),
            ({"EHLO": "554 5.7.1 go away"}, "5.7.1", "554 5.7.1 go away"),
            (
                {"EHLO": "502 5.5.1 what?", "HELO": "550 5.7.0 no"},
                "5.7.0",
                "550 5.7.0 no",
            ),
        ):
            self.serve(replies=script)
            self.assertSaid(self.failed(), status, reply)
        self.serve(greeting="554 5.7.1 go away")
        self.assertSaid(self.failed(), "5.7.1", "554 5.7.1 go away")

    def test_extensions(self) -> None:
        """
        A message that needs an extension which the host lacks fails for a local
        reason, without a remote reply (RFC 1870 6.3, RFC 6152 3, RFC 6531 3.2).
        """
        for extensions, envelope, status, words in (
            (SMALL, {}, "5.3.4", "the server takes 10 octets at most"),
            ((), {"eightBit": True}, "5.6.3", "the server doesn't support 8BITMIME"),
            ((), {"smtputf8": True}, "5.6.7", "the server doesn't support SMTPUTF8"),
        ):
            self.serve(extensions=extensions)
            self.assertOurs(self.failed(**envelope), status, words)

    def test_extensionsAnywhere(self) -> None:
        """
        The same if none of several hosts has the extension.
        """
        self.secondHost()
        self.serve(extensions=())
        self.serve(ip=SECOND_IP, greeting="554 5.7.1 go away")
        said = self.failed(eightBit=True)
        self.assertOurs(said, "5.6.3", "the server doesn't support 8BITMIME")
        self.serve(greeting="554 5.7.1 go away")
        self.serve(ip=SECOND_IP, extensions=())
        said = self.failed(eightBit=True)
        self.assertOurs(said, "5.6.3", "the server doesn't support 8BITMIME")
        self.assertIn(f"{SECOND}: 5.6.3", said[1])

    def test_nowhere(self) -> None:
        """
        A domain without hosts fails for a local reason too.
        """
        self.resolver.put("example.com", RRType.MX, "0 .")
        said = self.failed()
        self.assertOurs(said, "5.1.10", "domain does not accept mail")

    def test_lmtp(self) -> None:
        """
        Replies of an LMTP server (RFC 2033) are attributed to it, and local reasons
        aren't. It has no name in the DNS.
        """
        servers = LMTPNetwork()
        self.pump = servers.pump
        target = Target("anna", "Inbox", Address.parse(USER))

        def start() -> None:
            store = LMTPStore(self.clock, servers, Domain("us.example"), "+")
            self.courier = LocalCourier(
                self.clock, lambda address: (target,), store.mailboxOf
            )

        start()
        for word, reply, status in (
            ("RCPT", "550 5.1.1 no such user", "5.1.1"),
            ("END", "554 no", "5.2.0"),
        ):
            servers.answers = {word: reply}
            fields, human = self.failed()
            self.assertEqual(fields["Status"], status)
            self.assertEqual(fields["Diagnostic-Code"], f"smtp; {reply}")
            self.assertNotIn("Remote-MTA", fields)
            self.assertIn(reply, human)
        servers.answers = {"LHLO": "250-hi\r\n250 SIZE 10"}
        start()
        self.assertOurs(self.failed(), "5.3.4", "the server takes 10 octets at most")

    def test_smarthost(self) -> None:
        """
        Replies of a smarthost, and local reasons about one, are attributed in the
        same way.
        """
        relay = Relay(Domain(MX), (RRType.A,), secure=False)
        settings = ClientSettings("us.example", TRUST, TLSMode.SKIP, (MX,))
        self.courier = SmarthostCourier(
            self.resolver,
            relay,
            lambda ip: self.dialer.dial(ip, SMTP, settings),
            self.release,
        )
        self.serve(replies={"RCPT": "550 5.1.1 no such user"})
        self.assertSaid(self.failed(), "5.1.1", "550 5.1.1 no such user")
        self.serve(extensions=SMALL)
        said = self.failed()
        self.assertOurs(said, "5.3.4", "the server takes 10 octets at most")

    def test_tooLong(self) -> None:
        """
        RFC 3464 2.3.6, RFC 8460 4: an attempt that times out before the last hosts
        reports the results of the first ones, to the sender and in the TLS outcome.
        """
        hosts = [f"mx{number}.example.com" for number in range(1, 10)]
        records = [f"{10 + number} {name}" for number, name in enumerate(hosts)]
        self.resolver.put("example.com", RRType.MX, *records)
        for number, name in enumerate(hosts, 1):
            ip = f"198.51.100.{number}"
            self.resolver.put(name, RRType.A, ip)
            self.serve(
                selfSigned(name).context(),
                ip=ip,
                greeting="220 hi" if number == 1 else "",
            )
        self.publish(Mode.ENFORCE)
        body = (b"Subject: hello\r\n\r\n", b"hello\r\n")
        sent = Envelope("me@us.example", (USER,), maxAttempts=1)
        self.successResultOf(self.queue.submit(sent, body))
        for _ in range(60):
            self.network.flush()
            self.clock.advance(60)
        [dsn] = self.successResultOf(self.queue.messages())
        _, human, _, _, fields, _ = message_from_bytes(dsn.path.read_bytes()).walk()
        self.assertNotIn("Remote-MTA", fields)
        for text in (
            fields["Diagnostic-Code"],
            " ".join(str(human.get_payload()).split()),
        ):
            self.assertIn("the attempt took too long; mx1.example.com: refused:", text)
            self.assertIn("mx2.example.com: too slow", text)
        self.assertEqual((self.recipient.succeeded, self.recipient.failed), (0, 1))
        first, *others = self.outcome.hosts
        self.assertEqual(first.failed, 1)
        self.assertEqual({each.failed for each in others}, {0})
        # There was no time for the last one.
        self.assertLess(len(others), 8)
