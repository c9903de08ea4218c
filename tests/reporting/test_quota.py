"""
Tests for L{moxtls.dmarc.failurereporter}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR
from moxtls.dmarc.failurereporter import (
    MAX_DOMAINS,
    MAX_SEEN,
    REMEMBERED_FOR,
    Deduplicator,
    Quota,
)
from moxtls.domain import Domain
from tests.reporting.support import A

B = Domain("b.example")


class QuotaTests(SynchronousTestCase):
    """
    Tests for L{Quota}: RFC 9991 8.1.
    """

    def test_hour(self) -> None:
        """
        So many an hour to one domain, whatever others get; what is beyond
        that is told in the next report.
        """
        quota = Quota(perHour=2, perDay=100)
        taken = [quota.take(A, each) for each in (0, 600, 1200, 1800)]
        self.assertEqual(taken, [1, 1, 0, 0])
        self.assertEqual(quota.take(B, 1800), 1)
        taken = [quota.take(A, each) for each in (HOUR - 1, HOUR, HOUR + 1)]
        self.assertEqual(taken, [0, 4, 0])
        self.assertEqual(quota.take(A, HOUR + 600), 2)

    def test_day(self) -> None:
        """
        So many a day to all together.
        """
        quota = Quota(perHour=10, perDay=3)
        taken = [quota.take(domain, 0) for domain in (A, B, A, B, A)]
        self.assertEqual(taken, [1, 1, 1, 0, 0])
        self.assertEqual(quota.take(B, DAY - 1), 0)
        self.assertEqual(quota.take(A, DAY), 1)

    def test_old(self) -> None:
        """
        What was held back before a quiet day is forgotten.
        """
        quota = Quota(perHour=1, perDay=100)
        quota.take(A, 0)
        quota.take(A, 1)
        self.assertEqual(quota.take(A, DAY + 1), 1)

    def test_giveBack(self) -> None:
        """
        What came to nothing doesn't count for all, but for the domain, and
        the messages are told of later.
        """
        quota = Quota(perHour=1, perDay=1)
        self.assertEqual(quota.take(A, 0), 1)
        quota.giveBack(A, 1, 0)
        self.assertEqual(quota.take(A, 1), 0)
        self.assertEqual(quota.take(B, 1), 1)
        quota.giveBack(B, 1, 1)
        self.assertEqual(quota.take(A, HOUR), 3)

    def test_none(self) -> None:
        """
        Limits of nothing let nothing through.
        """
        self.assertEqual(Quota(0, 10).take(A, 0), 0)
        quota = Quota(10, 0)
        self.assertEqual(quota.take(A, 0), 0)
        quota.giveBack(A, 1, 0)

    def test_bounded(self) -> None:
        """
        However many domains there are, those of lately are remembered, and
        the limit for all holds.
        """
        quota = Quota(perHour=1, perDay=50)
        domains = [Domain(f"d{n}.example") for n in range(MAX_DOMAINS + 10)]
        taken = [quota.take(each, 0) for each in domains]
        self.assertEqual(sum(taken), 50)
        self.assertEqual(quota.take(domains[-1], DAY - 1), 0)
        self.assertEqual(quota.take(domains[-1], DAY), 3)
        self.assertEqual(len(quota._accounts), MAX_DOMAINS)


class SeenTests(SynchronousTestCase):
    """
    Tests for L{Deduplicator}.
    """

    def test_moment(self) -> None:
        """
        Something is new once, for a while.
        """
        seen = Deduplicator()
        times = (0, 1, REMEMBERED_FOR - 1, REMEMBERED_FOR, REMEMBERED_FOR + 1)
        found = [seen.isNew(b"a", each) for each in times]
        self.assertEqual(found, [True, False, False, True, False])
        self.assertTrue(seen.isNew(b"b", 1))

    def test_bounded(self) -> None:
        """
        Of very many, the oldest are forgotten.
        """
        seen = Deduplicator()
        for each in range(MAX_SEEN + 1):
            seen.isNew(str(each).encode(), 0)
        self.assertTrue(seen.isNew(b"0", 1))
        self.assertFalse(seen.isNew(str(MAX_SEEN).encode(), 1))
