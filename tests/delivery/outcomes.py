"""
Support for tests of TLS outcomes.
"""

from __future__ import annotations

from collections import Counter

from moxtls.dns.types import ExtendedError
from moxtls.domain import Domain
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.delivery.deliveries import EXAMPLE, IP4, MX, DeliveryCase, counted
from tests.network import OUR_IP

BOGUS = ExtendedError(6)
BOGUS_REASON = "dns-extended-error-6-dnssec-bogus"
UNTRUSTED = ("certificate-not-trusted", "")
VALIDATION = "validation-failure"
UNSUPPORTED = "starttls-not-supported"
NO_POLICY = "no-policy-found"


def seen(resultType: ResultType, reason: str = "") -> FailureDetail:
    """
    Something seen in the only session with C{mx.example.com}.
    """
    return FailureDetail(resultType, reason, OUR_IP, MX, MX, IP4)


class OutcomeCase(DeliveryCase):
    """
    Assertions on TLS outcomes.
    """

    def assertRecipient(
        self, kind: str, succeeded: int, failed: int, *details: tuple[str, str]
    ) -> None:
        """
        @param details: Type and reason, each seen once.
        """
        expected = kind, succeeded, failed, Counter(details)
        self.assertEqual(counted(self.recipient), expected)
        self.assertEqual(self.recipient.policy.domain, EXAMPLE)

    def assertHost(
        self, kind: str, succeeded: int, failed: int, *details: tuple[str, str]
    ) -> None:
        """
        Like L{assertRecipient}, for the only host.
        """
        expected = kind, succeeded, failed, Counter(details)
        self.assertEqual(counted(self.host), expected)
        self.assertEqual(self.host.policy.domain, Domain(MX))
