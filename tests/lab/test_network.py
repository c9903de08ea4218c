"""
Tests for L{moxtls.lab.network}.

Tests for L{moxtls.lab.network}.
"""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.network import Arrival, Arrivals, Network, anyNetwork
from moxtls.lab.plan import mailHosts
from moxtls.lab.scenario import DESTINATIONS


def arrival(recipient: str, content: bytes = b"text") -> Arrival:
    return Arrival(recipient, "alice@sender.test", "mx.good.test", "", content)


class ArrivalsTests(SynchronousTestCase):
    """
    Tests for L{Arrivals}.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.arrivals = Arrivals(self.directory)

    def test_files(self) -> None:
        """
        Everything is in a file, too.
        """
        self.arrivals.add(arrival("bob@Good.test", b"one"))
        self.arrivals.add(arrival("https://intake.test:8443/tlsrpt"), "json.gz")
        files = sorted(self.directory.rglob("*.*"))
        relative = [
            str(each.relative_to(self.directory)) for each in files if each.is_file()
        ]
        self.assertEqual(
            ["good.test/0001.eml", "intake.test8443/0002.json.gz"], relative
        )
        self.assertEqual(b"one", (self.directory / relative[0]).read_bytes())
        self.assertEqual(1, len(self.arrivals.at("good.test")))

    def test_strangeNames(self) -> None:
        """
        Any recipient name results in files within the directory.
        """
        for recipient in ("a@..", "a@../../etc", "postmaster", "a@", "/x", "a@[::1]"):
            self.arrivals.add(arrival(recipient))
        outside = self.directory.resolve().parent
        kept = [each for each in self.directory.rglob("*.eml")]
        self.assertEqual(6, len(kept))
        self.assertEqual([], list(outside.glob("*.eml")))

    def test_until(self) -> None:
        """
        One can wait for what is to come, or give up on it.
        """
        self.successResultOf(self.arrivals.until(lambda: True))
        one = self.arrivals.until(lambda: len(self.arrivals.all) >= 1)
        two = self.arrivals.until(lambda: len(self.arrivals.all) >= 2)
        self.arrivals.add(arrival("a@b.test"))
        self.successResultOf(one)
        self.assertNoResult(two)
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.arrivals.add(arrival("a@b.test"))


class NetworkTests(SynchronousTestCase):
    """
    Addresses and ports.
    """

    def test_loopback(self) -> None:
        """
        Everything is on an address of its own within 127.0.0.0/8, and on a
        port that needs no privileges.
        """
        for network in (Network(), anyNetwork(random.randint)):
            hosts = [each.address for each in mailHosts(network, DESTINATIONS)]
            servers = [
                network.submission,
                network.webHost,
                network.authority,
                network.resolver,
            ]
            addresses = hosts + servers
            self.assertEqual(len(addresses), len(set(addresses)))
            for each in addresses:
                self.assertTrue(ipaddress.ip_address(each).is_loopback)
            ports = (
                network.smtpPort,
                network.submissionPort,
                network.dnsPort,
                network.httpsPort,
            )
            self.assertTrue(all(port > 1023 for port in ports))
