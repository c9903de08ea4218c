"""
Tests for L{moxtls.app.build}.
"""

from __future__ import annotations

from ipaddress import ip_network

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.build import localPolicyOf
from moxtls.config import DMARC
from moxtls.dmarc.types import DMARCPolicy
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.domain import Domain
from moxtls.queue.memory import MemoryQueue
from tests.configs import makeComponents


class LocalPolicyTests(SynchronousTestCase):
    """
    Tests for L{localPolicyOf}.
    """

    def test_default(self) -> None:
        """
        The default policy is RFC 9989's, without exceptions.
        """
        self.assertEqual(localPolicyOf(DMARC()), LocalPolicy())

    def test_configured(self) -> None:
        """
        Everything that is configured counts.
        """
        localPolicy = localPolicyOf(
            DMARC(
                legacy=True,
                enforcement=DMARCPolicy.QUARANTINE,
                mailingLists=(Domain("list.example"),),
                trustedForwarders=("192.0.2.0/24", "Forwarder.example"),
                localPolicies={"B\u00fccher.example": DMARCPolicy.NONE},
            )
        )
        self.assertIsNotNone(localPolicy.suffixes)
        self.assertEqual(localPolicy.enforcement, DMARCPolicy.QUARANTINE)
        self.assertEqual(localPolicy.mailingLists, {Domain("list.example")})
        self.assertEqual(localPolicy.forwarderNetworks, (ip_network("192.0.2.0/24"),))
        self.assertEqual(localPolicy.forwarderDomains, {Domain("forwarder.example")})
        expected = {Domain("xn--bcher-kva.example"): DMARCPolicy.NONE}
        self.assertEqual(dict(localPolicy.localPolicies), expected)


class ComponentsTests(SynchronousTestCase):
    """
    Tests for L{moxtls.app.build.Components}.
    """

    def test_localPolicy(self) -> None:
        """
        Checks follow the configuration.
        """
        base = makeComponents(self, '[DMARC]\nEnforcement = "none"\n')
        self.assertEqual(base.checks().localPolicy.enforcement, DMARCPolicy.NONE)

    def test_failures(self) -> None:
        """
        Reports on single failures are off unless they are wanted (RFC 9991 7).
        """
        for text, enabled in (("", False), ("Enabled = true\n", True)):
            base = makeComponents(self, f"[Reporting.Failures]\n{text}")
            reporter = base.failures(MemoryQueue(Clock(), str), frozenset())
            settings = reporter._settings
            self.assertEqual(settings.enabled, enabled)
            self.assertEqual(bool(settings.secret), enabled)
