"""
Tests for L{moxtls.app.build}.
"""

from __future__ import annotations

from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.build import localPolicyOf
from moxtls.config import DMARC
from moxtls.dmarc.types import DMARCPolicy
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.domain import Domain


class PracticeTests(SynchronousTestCase):
    """
    Tests for L{localPolicyOf}.
    """

    def test_default(self) -> None:
        """
        By default it is RFC 9989, and nobody is an exception.
        """
        self.assertEqual(localPolicyOf(DMARC()), LocalPolicy())

    def test_configured(self) -> None:
        """
        Everything that is configured counts.
        """
        practice = localPolicyOf(
            DMARC(
                legacy=True,
                enforcement=DMARCPolicy.QUARANTINE,
                mailingLists=(Domain("list.example"),),
                trustedForwarders=("192.0.2.0/24", "Forwarder.example"),
                localPolicies={"B\u00fccher.example": DMARCPolicy.NONE},
            )
        )
        self.assertIsNotNone(practice.suffixes)
        self.assertEqual(practice.enforcement, DMARCPolicy.QUARANTINE)
        self.assertEqual(practice.mailingLists, {Domain("list.example")})
        self.assertEqual(practice.forwarderNetworks, (ip_network("192.0.2.0/24"),))
        self.assertEqual(practice.forwarderDomains, {Domain("forwarder.example")})
        expected = {Domain("xn--bcher-kva.example"): DMARCPolicy.NONE}
        self.assertEqual(dict(practice.localPolicies), expected)
