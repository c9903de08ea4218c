"""
Tests for L{moxtls.lab.scenario} and L{moxtls.lab.expectations}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.expectations import SENDING_IP, Facts, expectedReports, inOrder
from moxtls.lab.plan import Network
from moxtls.lab.scenario import (
    DESTINATIONS,
    SHARED_HOST,
    Certificate,
    PolicyHost,
    Records,
    Signed,
)
from moxtls.mtasts.policy import Mode
from moxtls.tlsrpt.parse import ReceivedFailure, ReceivedPolicy

RECORD = "3 1 1 " + "ab" * 32
FACTS = Facts(
    Network(),
    DESTINATIONS,
    {each.mx: (RECORD,) for each in DESTINATIONS},
)


class DestinationsTests(SynchronousTestCase):
    """
    The table is complete.
    """

    def test_conditions(self) -> None:
        """
        Every condition occurs at some destination.
        """
        self.assertEqual(set(Certificate), {each.certificate for each in DESTINATIONS})
        self.assertEqual(set(Records), {each.tlsa for each in DESTINATIONS})
        self.assertEqual(set(Signed), {each.signed for each in DESTINATIONS})
        policies = [each.sts for each in DESTINATIONS if each.sts]
        self.assertEqual(set(PolicyHost), {each.host for each in policies})
        self.assertLessEqual(
            {Mode.ENFORCE, Mode.TESTING}, {each.mode for each in policies}
        )

    def test_names(self) -> None:
        """
        Names are unique, and descriptions are one line.
        """
        self.assertEqual(len(DESTINATIONS), len({each.name for each in DESTINATIONS}))
        for each in DESTINATIONS:
            self.assertNotIn("\n", each.explanation)
            self.assertTrue(each.explanation)

    def test_signed(self) -> None:
        """
        TLSA records only mean something in zones that are signed (RFC 7672
        2.2).
        """
        for each in DESTINATIONS:
            if each.tlsa is not Records.NONE:
                self.assertIsNot(Signed.NO, each.signed, each.name)


class ExpectedReportsTests(SynchronousTestCase):
    """
    Tests for the reports expected of the table.
    """

    def setUp(self) -> None:
        self.reports = expectedReports(FACTS)

    def test_everybody(self) -> None:
        """
        Each domain gets a report, and the host that requests one.
        """
        domains = {each.domain for each in DESTINATIONS}
        self.assertEqual(domains | {SHARED_HOST}, set(self.reports))

    def test_policy(self) -> None:
        """
        A policy is quoted by line, with its hosts (RFC 8460 4.4).
        """
        (policy,) = (each for each in self.reports["good.test"] if each.type == "sts")
        self.assertEqual(("mx.good.test",), policy.mxHosts)
        lines = ("version: STSv1", "mode: enforce", "mx: mx.good.test")
        self.assertEqual((*lines, "max_age: 86400"), policy.strings)

    def test_failure(self) -> None:
        """
        A failure in a connection names both its ends.
        """
        (policy,) = (
            each for each in self.reports["expired.test"] if each.type == "sts"
        )
        failure = ReceivedFailure(
            resultType="certificate-expired",
            count=1,
            sendingIP=SENDING_IP,
            mxHostname="mx.expired.test",
            mxHELO="mx.expired.test",
            receivingIP="127.0.25.7",
        )
        self.assertEqual((failure,), policy.failures)

    def test_host(self) -> None:
        """
        A host's report names the affected recipient domains.
        """
        told = self.reports[SHARED_HOST]
        self.assertEqual(
            ["shared-one.test", "shared-two.test"], [each.domain for each in told]
        )
        for each in told:
            self.assertEqual((SHARED_HOST,), each.mxHosts)
            self.assertEqual((RECORD,), each.strings)

    def test_order(self) -> None:
        """
        Policies and failures are compared without regard to their order.
        """
        failures = tuple(ReceivedFailure(str(each), each) for each in range(3))
        policies = [
            ReceivedPolicy("sts", str(each), (), (), 0, 0, failures)
            for each in range(3)
        ]
        reverse = [
            ReceivedPolicy("sts", str(each), (), (), 0, 0, failures[::-1])
            for each in reversed(range(3))
        ]
        self.assertEqual(inOrder(policies), inOrder(reverse))
