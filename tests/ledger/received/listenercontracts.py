"""
Contract of the history of listeners, as a mixin.
"""

from __future__ import annotations

from dataclasses import replace

from zope.interface.verify import verifyObject

from moxtls.dates import DAY, HOUR
from moxtls.ledger.received import values
from moxtls.received.interfaces import IListenerHistory
from moxtls.received.types import (
    CertificateSeen,
    HandshakeFailures,
)
from tests.ledger.contracts import Contract


class HistoryOfListenersContract(Contract):
    """
    L{IListenerHistory}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.history: IListenerHistory = self.ledger.listenerHistory

    def test_interface(self) -> None:
        """
        It provides the interface.
        """
        self.assertTrue(verifyObject(IListenerHistory, self.history))

    def test_failures(self) -> None:
        """
        Counts are added up, and found by the hours that overlap a span.
        """
        one = HandshakeFailures("mx", 0, "unknown ca", 2)
        other = HandshakeFailures("mx", HOUR, "unknown ca", 5)
        self.got(self.history.addFailures([one, one, other]))
        self.got(self.history.addFailures([one]))
        self.got(self.history.addFailures([]))
        whole = replace(one, count=6), other
        for start, end, expected in (
            (0, 2 * HOUR, whole),
            (HOUR - 1, HOUR + 1, whole),
            (HOUR, 2 * HOUR, whole[1:]),
            (0, HOUR, whole[:1]),
            (2 * HOUR, 3 * HOUR, ()),
        ):
            self.assertEqual(self.got(self.history.failures(start, end)), expected)

    def test_manyReasons(self) -> None:
        """
        The reasons per listener and hour are bounded; no failure is lost.
        """
        for start in (0, 150, 0):
            self.got(
                self.history.addFailures(
                    HandshakeFailures("mx", 0, f"\0{n}" + "x" * 999, 1)
                    for n in range(start, start + 150)
                )
            )
        found = self.got(self.history.failures(0, HOUR))
        self.assertEqual(sum(each.count for each in found), 450)
        self.assertEqual(len(found), values.MAX_LISTENER_REASONS + 1)
        self.assertIn(values.OTHER_REASONS, {each.reason for each in found})

    def seen(
        self, since: float, fingerprint: str, listener: str = "mx"
    ) -> CertificateSeen:
        return CertificateSeen(
            listener, since, fingerprint, ("a.example", "b"), 1.5, 9.5
        )

    def test_certificates(self) -> None:
        """
        A certificate is in use until the next one of its listener.
        """
        a, b, c = self.seen(10, "a"), self.seen(20, "b"), self.seen(30, "a")
        other = self.seen(15, "a", "submission")
        for each in (a, self.seen(12, "a"), b, c, other, self.seen(40, "a")):
            self.got(self.history.addCertificate(each))
        for start, end, expected in (
            (0, 100, (a, other, b, c)),
            (0, 10, ()),
            (0, 10.5, (a,)),
            (20, 25, (other, b)),
            (35, 36, (other, c)),
        ):
            found = self.got(self.history.certificates(start, end))
            self.assertEqual(found, expected, (start, end))

    def test_expire(self) -> None:
        """
        Old failures and replaced certificates are removed.
        """
        failures = [HandshakeFailures("mx", n * HOUR, "x", 1) for n in range(3)]
        self.got(self.history.addFailures(failures))
        certificates = [self.seen(n * HOUR, str(n)) for n in range(3)]
        for each in certificates:
            self.got(self.history.addCertificate(each))
        self.got(self.history.expireHistory(HOUR + 1))
        self.assertEqual(self.got(self.history.failures(0, DAY)), tuple(failures[2:]))
        found = self.got(self.history.certificates(0, DAY))
        self.assertEqual(found, tuple(certificates[1:]))
        self.got(self.history.expireHistory(DAY))
        found = self.got(self.history.certificates(0, DAY))
        self.assertEqual(found, tuple(certificates[2:]))
