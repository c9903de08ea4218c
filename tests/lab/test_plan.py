"""
Tests for L{moxtls.lab.plan} and L{moxtls.lab.zones}.
"""

from __future__ import annotations

import ipaddress
import random

import dns.name
from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.plan import (
    Network,
    anyNetwork,
    mailHosts,
    policyHosts,
    policyText,
    reportURI,
)
from moxtls.lab.scenario import DESTINATIONS, SHARED_HOST, LabDestination
from tests.lab.grove import NETWORK, RECORD, texts, tree


def destination(name: str) -> LabDestination:
    (found,) = (each for each in DESTINATIONS if each.name == name)
    return found


class PublishedTests(SynchronousTestCase):
    """
    Tests for published records.
    """

    def test_hosts(self) -> None:
        """
        Every destination has an MX host with an address of its own, but for
        those that share one.
        """
        addresses = {
            each.name: each.address for each in mailHosts(NETWORK, DESTINATIONS)
        }
        for each in DESTINATIONS:
            if each.name != "mx-bogus":
                self.assertEqual([f"10 {each.mx}."], texts(each.domain, "MX"))
            self.assertEqual([addresses[each.mx]], texts(each.mx, "A"))
        self.assertEqual(len(addresses), len(set(addresses.values())))

    def test_sink(self) -> None:
        """
        The MX of report destinations exists.
        """
        self.assertEqual(["10 mx.reports.test."], texts("reports.test", "MX"))
        self.assertTrue(texts("mx.reports.test", "A"))
        self.assertTrue(texts("intake.reports.test", "A"))

    def test_tlsrpt(self) -> None:
        """
        All domains request reports (RFC 8460 3), and one host does.
        """
        for each in DESTINATIONS:
            (record,) = texts(f"_smtp._tls.{each.domain}", "TXT")
            uri = reportURI(NETWORK, each)
            self.assertEqual(f'"v=TLSRPTv1; rua={uri}"', record)
        (record,) = texts(f"_smtp._tls.{SHARED_HOST}", "TXT")
        self.assertIn("hosts@", record)
        self.assertEqual([], texts("_smtp._tls.mx.good.test", "TXT"))
        self.assertTrue(reportURI(NETWORK, destination("https")).startswith("https:"))

    def test_tlsa(self) -> None:
        """
        TLSA records are at the port that is connected to (RFC 7671 3).
        """
        for port in (25, NETWORK.smtpPort):
            self.assertEqual([RECORD], texts(f"_{port}._tcp.{SHARED_HOST}", "TLSA"))

    def test_sts(self) -> None:
        """
        Destinations with a policy publish a record (RFC 8461 3.1, 3.3).
        """
        for each in DESTINATIONS:
            has = each.sts is not None
            self.assertEqual(has, bool(texts(f"_mta-sts.{each.domain}", "TXT")))
            self.assertEqual(has, bool(texts(f"mta-sts.{each.domain}", "A")))
            self.assertEqual(has, policyText(each) is not None)

    def test_policy(self) -> None:
        """
        RFC 8461 3.2.
        """
        self.assertEqual(
            b"version: STSv1\r\nmode: enforce\r\n"
            b"mx: other.mx-mismatch.test\r\nmax_age: 86400\r\n",
            policyText(destination("mx-mismatch")),
        )
        self.assertEqual(("mx.good.test",), policyHosts(destination("good")))

    def test_dkim(self) -> None:
        """
        A key longer than a character-string is published in pieces (RFC 6376
        3.6.2.2).
        """
        (record,) = texts("lab._domainkey.sender.test", "TXT")
        pieces = record.strip('"').split('" "')
        self.assertGreater(len(pieces), 1)
        self.assertEqual("v=DKIM1; k=rsa; p=" + "A" * 392, "".join(pieces))

    def test_zoneFiles(self) -> None:
        """
        Zones are from the root down, and can be served by others.
        """
        origins = [each.origin for each in tree().zones]
        self.assertEqual(dns.name.root, origins[0])
        self.assertIn(dns.name.from_text("good.test"), origins)
        self.assertRegex(tree().anchorText, r"^\. IN DS \d+ 13 2 [0-9a-f]{64}\n$")


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
