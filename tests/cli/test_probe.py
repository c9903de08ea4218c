"""
Tests for L{moxtls.cli.probe}.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred

from moxtls.dns.answers import Kind
from moxtls.smtp.acceptor import ListenerSettings
from moxtls.smtp.events import ServerSettings
from moxtls.smtp.listener import SMTPServerFactory
from tests.certificates import good, root, selfSigned
from tests.cli.network import NetworkCommandCase, reactor
from tests.network import Postbox, Serving


class ProbeTests(NetworkCommandCase):
    """
    Tests for C{moxtls probe}.
    """

    def serve(self, context: SSL.Context) -> None:
        """
        Have the mail host of C{a.example}, and configure its port.
        """
        self.postbox = Postbox()
        settings = ListenerSettings(ServerSettings("mx.example", starttls=True))
        factory = SMTPServerFactory(reactor, settings, self.postbox, Serving(context))
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")

        async def stop() -> None:
            await maybeDeferred(port.stopListening)
            await factory.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        ca = root().certificate.public_bytes(Encoding.PEM)
        (self.folder / "ca.pem").write_bytes(ca)
        text = self.file.read_text()
        self.file.write_text(
            f'CAFile = "ca.pem"\n{text}[Delivery]\nPort = {port.getHost().port}\n'
        )
        zone = self.dns.zone
        zone.put("a.example", Kind.MX, "1 mx.example.", "2 gone.example.")
        zone.put("mx.example", Kind.A, "127.0.0.1")
        zone.put("gone.example", Kind.A, "127.0.0.99")

    async def test_good(self) -> None:
        """
        Every host is connected to, and it is told what was found, what would
        be reported, and that no mail was sent.
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
        Programs get the same, and policies in the words of RFC 8460.
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

    async def test_nobody(self) -> None:
        """
        Where no host would take mail, the exit status says so, and the output
        why.
        """
        ran = await self.run_("probe", "nobody.example")
        self.assertEqual((ran.status, ran.err), (1, ""))
        self.assertIn("No host was reached.", ran.out)
        self.assertIn("5.1.2", ran.out)

    async def test_notValidating(self) -> None:
        """
        A DNS server that doesn't validate is complained of.
        """
        self.dns.zone.put("", Kind.SOA, "ns.example. h.example. 1 2 3 4 5")
        self.dns.zone.put("", Kind.NS, "ns.example.")
        ran = await self.run_("probe", "nobody.example")
        self.assertIn("DANE IS OFF", ran.out)
