"""
Tests for L{moxtls.lab.network}.
"""

from __future__ import annotations

import ipaddress
import random

from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.network import Network, anyNetwork
from moxtls.lab.plan import mailHosts
from moxtls.lab.scenario import DESTINATIONS


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
