"""
Tests for L{moxtls.cli.probe}.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol

from moxtls.dns.types import RRType
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.smtp.server.state import ServerSettings
from tests.certificates import good, root, selfSigned
from tests.cli.network import NetworkCommandCase, reactor
from tests.network import AcceptingDelivery, Serving


class ProbeTests(NetworkCommandCase):
    """
    Tests for C{moxtls probe}.
    """

    configured = ""

    def serve(self, context: SSL.Context) -> None:
        """
        Run a mail host that accepts everything.
        """
        self.postbox = AcceptingDelivery()
        settings = ListenerSettings(ServerSettings("mx.example", starttls=True))
        factory = SMTPServerFactory(reactor, settings, self.postbox, Serving(context))
        self.addCleanup(factory.stop)
        self.listen(factory)

    def listen(self, factory: Factory) -> None:
        """
        Run a mail host of C{a.example}, and configure its port.
        """
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        ca = root().certificate.public_bytes(Encoding.PEM)
        (self.folder / "ca.pem").write_bytes(ca)
        if not self.configured:
            self.configured = self.file.read_text()
        text = self.configured
        self.file.write_text(
            f'CAFile = "ca.pem"\n{text}[Delivery]\nPort = {port.getHost().port}\n'
            "AllowOwnHosts = true\n"
        )
        zone = self.dns.zone
        zone.put("a.example", RRType.MX, "1 mx.example.", "2 gone.example.")
        zone.put("mx.example", RRType.A, "127.0.0.1")
        zone.put("gone.example", RRType.A, "127.0.0.99")

    async def test_good(self) -> None:
        """
        Every host is connected to; the output has the findings, the result to be
        reported, and that no mail was sent.
        """
        self.serve(good("mx.example").context())
        ran = await self.run_("probe", "a.example")
        self.assertEqual((ran.status, ran.err), (0, ""))
        self.assertIn("DNS answers are validated: 127.0.0.1", ran.out)
        row = r"mx\.example +127\.0\.0\.1 +completed +good +not asked +yes"
        self.assertRegex(ran.out, row)
        self.assertRegex(ran.out, r"gone\.example.*refused")
        self.assertRegex(ran.out, r"a\.example +no-policy-found +1 +0\n")
        self.assertEqual(self.postbox.received, [])
        results = await self.run_("results", "--json")
        self.assertEqual(results.value, [])

    async def test_json(self) -> None:
        """
        JSON has the same, with policies in the words of RFC 8460.
        """
        self.serve(selfSigned("mx.example").context())
        ran = await self.run_("probe", "a.example", "--json")
        self.assertEqual((ran.status, ran.err), (0, ""))
        reached = next(each for each in ran.value["hosts"] if each["address"])
        self.assertEqual((reached["host"], reached["taken"]), ("mx.example", True))
        self.assertIn("certificate-not-trusted", reached["certificate"])
        self.assertEqual(ran.value["troubles"][-1]["host"], "gone.example")
        self.assertIn("validated", ran.value["resolver"])
        [policy, *_] = ran.value["policies"]
        self.assertEqual(policy["policy"]["policy-type"], "no-policy-found")

    def say(self, *lines: bytes) -> None:
        """
        Run a mail host of C{a.example} that sends one of these lines for each
        command, and closes after the last.
        """

        class Saying(Protocol):
            def connectionMade(self) -> None:
                self.left = list(lines)
                self.dataReceived(b"")

            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                if self.left:
                    self.transport.write(self.left.pop(0) + b"\r\n")
                else:
                    self.transport.loseConnection()

        self.listen(Factory.forProtocol(Saying))

    async def test_hungUp(self) -> None:
        """
        A host that closes the connection on STARTTLS can't receive mail; the TLS
        result is shown as it would be reported.
        """
        self.say(b"220 mx.example hi", b"250-hi\r\n250 STARTTLS")
        ran = await self.run_("probe", "a.example")
        self.assertEqual((ran.status, ran.err), (1, ""))
        self.assertRegex(ran.out, r"mx\.example +127\.0\.0\.1 +unanswered.* no *\n")
        reason = "validation-failure connection-closed-during-starttls"
        self.assertRegex(ran.out, rf"a\.example +no-policy-found +0 +1 +{reason}")
        self.assertRegex(ran.out, rf"mx\.example +no-policy-found +0 +1 +{reason}")

    async def test_unwelcome(self) -> None:
        """
        RFC 5321 3.1, 4.1.1.1: a host that refuses the connection or EHLO can't
        receive mail, with TLS or without.
        """
        for lines in (
            [b"421 mx.example closing"],
            [b"554 mx.example no"],
            [b"220 mx.example hi", b"550 who are you"],
        ):
            self.say(*lines)
            ran = await self.run_("probe", "a.example")
            self.assertEqual((ran.status, ran.err), (1, ""))
            self.assertRegex(ran.out, r"mx\.example +127\.0\.0\.1 +not tried.* no *\n")
            self.assertIn(lines[-1][:3].decode(), ran.out)

    async def test_plaintext(self) -> None:
        """
        RFC 7435: a host without TLS can receive mail without TLS requirements.
        """
        self.say(b"220 mx.example hi", b"250 hi", b"221 bye")
        ran = await self.run_("probe", "a.example")
        self.assertEqual((ran.status, ran.err), (0, ""))
        self.assertRegex(ran.out, r"mx\.example +127\.0\.0\.1 +not offered.* yes *\n")

    async def test_nobody(self) -> None:
        """
        If no host would accept mail, the command fails and prints the reason.
        """
        ran = await self.run_("probe", "nobody.example")
        self.assertEqual((ran.status, ran.err), (1, ""))
        self.assertIn("No host was reached.", ran.out)
        self.assertIn("5.1.2", ran.out)

    async def test_notValidating(self) -> None:
        """
        A DNS server that doesn't validate is complained of.
        """
        self.dns.zone.put("", RRType.SOA, "ns.example. h.example. 1 2 3 4 5")
        self.dns.zone.put("", RRType.NS, "ns.example.")
        ran = await self.run_("probe", "nobody.example")
        self.assertIn("DANE IS OFF", ran.out)
