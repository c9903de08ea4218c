"""
Tests for L{moxtls.lab.expectations}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.parse import ReceivedReason, ReceivedSignature
from moxtls.lab.expectations import expectedAggregates
from moxtls.lab.messages import MESSAGES
from tests.lab.grove import NETWORK

OWED = expectedAggregates(NETWORK, MESSAGES)


class ExpectedAggregatesTests(SynchronousTestCase):
    """
    Tests for the reports expected of the table of messages.
    """

    def test_whom(self) -> None:
        """
        Domains that request a report and may get one are in the expected reports,
        with their addresses; domains without a record, unknown ones, and those whose
        lookup fails are not.
        """
        self.assertIn(("outsourced.test", "dmarc@collector.test"), OWED)
        self.assertIn(("unasked.test", "dmarc@unasked.test"), OWED)
        self.assertNotIn(("unasked.test", "dmarc@collector.test"), OWED)
        domains = {domain for domain, _ in OWED}
        for name in ("silent", "stranger", "unsure", "bulk", "lists"):
            self.assertNotIn(f"{name}.test", domains)

    def test_counted(self) -> None:
        """
        Equal messages are counted together (RFC 9990 3.1.1.7), with both of their
        signatures.
        """
        (record,) = OWED["aligned.test", "dmarc@aligned.test"].records
        self.assertEqual(2, record.count)
        self.assertEqual(
            (
                ReceivedSignature("aligned.test", "lab-ed25519", "pass"),
                ReceivedSignature("aligned.test", "lab-rsa", "pass"),
            ),
            record.dkim,
        )

    def test_subdomains(self) -> None:
        """
        Subdomains are in the report of their policy domain, each with a record of its
        own (RFC 9990 3.1.2).
        """
        records = OWED["parent.test", "dmarc@parent.test"].records
        self.assertEqual(
            {
                ("news.parent.test", "pass"),
                ("news.parent.test", "quarantine"),
                ("nowhere.parent.test", "reject"),
            },
            {(each.headerFrom, each.disposition) for each in records},
        )

    def test_overridden(self) -> None:
        """
        A disposition that differs from the policy has a reason (RFC 9990 3.1.1.9),
        and the author's broken signature is reported.
        """
        records = OWED["listed.test", "dmarc@listed.test"].records
        (record,) = (each for each in records if each.disposition == "none")
        self.assertEqual(
            (ReceivedReason("mailing_list", "verified as from lists.test"),),
            record.reasons,
        )
        self.assertEqual(["pass", "fail"], [each.result for each in record.dkim])
