"""
Tests for L{moxtls.mtasts.rules}.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.types import TXT, Answer, ExtendedError, LookupStatus, RRType
from moxtls.mtasts.policy import Mode, STSRecord
from moxtls.mtasts.rules import (
    MAX_UNUSED,
    REFRESH_SPREAD,
    NoRecord,
    cacheEntry,
    isObsolete,
    isStale,
    isUnused,
    recordFromAnswer,
    refreshTimes,
)
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.mtasts.fakes import DAY, DOMAIN, entry, policy

NOW = 1_800_000_000.0


def answer(
    found: LookupStatus, *texts: bytes, error: ExtendedError | None = None
) -> Answer:
    """
    An answer with these TXT records, or of this status.
    """
    records = tuple(TXT(text) for text in texts)
    errors = (error,) if error else ()
    return Answer("_mta-sts.example.com", RRType.TXT, found, records, errors=errors)


class RecordTests(SynchronousTestCase):
    """
    Tests for L{recordFromAnswer}.
    """

    def test_found(self) -> None:
        """
        RFC 8461 3.1: one record, among others.
        """
        found = recordFromAnswer(
            answer(LookupStatus.RECORDS, b"v=STSv1;id=a", b"other")
        )
        self.assertEqual(found, STSRecord("a"))

    def test_problems(self) -> None:
        """
        No record, several, a malformed one and a failed lookup have a reason each;
        only the first is the domain's intention, only the last is temporary.
        """
        one = b"v=STSv1;id=a"
        for given_, code, gone, temporary in (
            (answer(LookupStatus.NO_NAME), "no-mta-sts-dns-txt-record", True, False),
            (answer(LookupStatus.NO_RECORDS), "no-mta-sts-dns-txt-record", True, False),
            (
                answer(LookupStatus.RECORDS, b"x"),
                "no-mta-sts-dns-txt-record",
                True,
                False,
            ),
            (
                answer(LookupStatus.RECORDS, one, one),
                "multiple-mta-sts-records",
                False,
                False,
            ),
            (
                answer(LookupStatus.RECORDS, b"v=STSv1;"),
                "record-syntax-error",
                False,
                False,
            ),
            (answer(LookupStatus.FAILED), "dns-lookup", False, True),
            (
                answer(LookupStatus.FAILED, error=ExtendedError(22)),
                "dns-lookup",
                False,
                True,
            ),
            (
                answer(LookupStatus.FAILED, error=ExtendedError(6)),
                "dns-extended-error-6-dnssec-bogus",
                False,
                True,
            ),
        ):
            found = recordFromAnswer(given_)
            assert isinstance(found, NoRecord)
            self.assertEqual((found.gone, found.temporary), (gone, temporary), code)
            expected = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, code)
            self.assertEqual(found.failure, expected)


class CacheEntryTests(SynchronousTestCase):
    """
    Tests for L{cacheEntry} and the age of entries.
    """

    def test_policy(self) -> None:
        """
        RFC 8461 3.2: C{max_age} counts from the fetch; when it was first seen
        and last used stays.
        """
        earlier = entry(NOW, policy(), age=3, unused=2)
        found = cacheEntry(DOMAIN, policy(days=1), "2", earlier, NOW)
        self.assertEqual((found.fetched, found.validEnd), (NOW, NOW + DAY))
        self.assertEqual(found.recordID, "2")
        self.assertEqual(found.inserted, earlier.inserted)
        self.assertEqual(found.lastUse, earlier.lastUse)

    def test_backOff(self) -> None:
        """
        RFC 8461 3.3: five minutes; it is no fetch.
        """
        found = cacheEntry(DOMAIN, None, "1", None, NOW)
        self.assertEqual((found.validEnd, found.fetched), (NOW + 300, 0.0))
        self.assertEqual((found.inserted, found.lastUse), (NOW, NOW))

    def test_stale(self) -> None:
        """
        Entries fetched long ago, or never, are refreshed.
        """
        self.assertFalse(isStale(entry(NOW, policy(), age=0.4), NOW))
        self.assertTrue(isStale(entry(NOW, policy(), age=0.6), NOW))
        self.assertTrue(isStale(entry(NOW, None), NOW))

    def test_unused(self) -> None:
        """
        Half a year without mail is enough to forget.
        """
        known = entry(NOW, policy())
        self.assertFalse(isUnused(replace(known, lastUse=NOW - MAX_UNUSED), NOW))
        self.assertTrue(isUnused(replace(known, lastUse=NOW - MAX_UNUSED - 1), NOW))

    def test_obsolete(self) -> None:
        """
        RFC 8461 8.3: without a record, entries with mode C{none}, expired ones and
        those without a policy are obsolete; a valid policy never is.
        """
        gone = NoRecord("no-mta-sts-dns-txt-record")
        for known, expected in (
            (entry(NOW, policy(Mode.NONE)), True),
            (entry(NOW, None), True),
            (entry(NOW, policy(days=1), age=2), True),
            (entry(NOW, policy()), False),
            (entry(NOW, policy(Mode.TESTING)), False),
        ):
            self.assertEqual(isObsolete(known, gone, NOW), expected, known)
            for other in (NoRecord("dns-lookup", True), STSRecord("1")):
                self.assertFalse(isObsolete(known, other, NOW))


class TimeTests(SynchronousTestCase):
    """
    Tests for L{refreshTimes}.
    """

    def test_few(self) -> None:
        """
        The first at once, the last after three hours, the others in between.
        """
        self.assertEqual(refreshTimes(0, lambda: 0.5), ())
        self.assertEqual(refreshTimes(1, lambda: 0.5), (0.0,))
        self.assertEqual(
            refreshTimes(3, lambda: 0.5), (0.0, REFRESH_SPREAD / 2, REFRESH_SPREAD)
        )
        early = refreshTimes(3, lambda: 0.0)
        self.assertEqual(early, (0.0, REFRESH_SPREAD / 4, REFRESH_SPREAD * 3 / 4))

    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 50), st.randoms(use_true_random=False))
    def test_any(self, count: int, chance: object) -> None:
        """
        There is a time for each, in order, from now to half a step beyond.
        """
        jitter = getattr(chance, "random")  # noqa: B009
        times = refreshTimes(count, jitter)
        self.assertEqual(len(times), count)
        self.assertEqual(list(times), sorted(times))
        self.assertEqual(times[0], 0.0)
        self.assertLessEqual(times[-1], REFRESH_SPREAD * 1.5)
