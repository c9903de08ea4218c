"""
Tests for L{moxtls.mtasts.cache}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.domain import Domain
from moxtls.interfaces import IPolicyCache
from moxtls.ledger.ledger import MemoryLedger
from moxtls.ledger.stores import PolicyStore
from moxtls.mtasts.cache import MAX_BACKOFFS, PolicyCache
from moxtls.mtasts.policy import CachedPolicy, Mode, STSLookup, STSPolicy
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.mtasts.fakes import DAY, DOMAIN, RECORD, FakeFetcher, entry, policy

NAME = "_mta-sts.example.com"
NOT_SERVED = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "no-policy-served")
INVALID = FailureDetail(ResultType.STS_POLICY_INVALID, "policy-syntax-error")
BACKING_OFF = FailureDetail(
    ResultType.STS_POLICY_FETCH_ERROR, "back-off-after-recent-fetch-error"
)


def fetchError(reason: str) -> FailureDetail:
    """
    Most failures are of this type.
    """
    return FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, reason)


class Broken(Exception):
    """
    A disk is full.
    """


class BrokenStore(PolicyStore):
    """
    A store of which some methods fail.
    """

    def __init__(self, *failing: str) -> None:
        vars(self).update(vars(MemoryLedger().policies))
        self.failing = failing

    def load(self, domain: Domain) -> Deferred[CachedPolicy | None]:
        return fail(Broken()) if "load" in self.failing else super().load(domain)

    def save(self, entry: CachedPolicy) -> Deferred[None]:
        return fail(Broken()) if "save" in self.failing else super().save(entry)

    def used(self, domain: Domain, now: float) -> Deferred[None]:
        return fail(Broken()) if "used" in self.failing else super().used(domain, now)


class CacheTests(SynchronousTestCase):
    """
    Tests for L{PolicyCache}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.dns = MemoryResolver()
        self.dns.put(NAME, RRType.TXT, RECORD)
        self.fetcher = FakeFetcher()
        self.store = MemoryLedger().policies
        self.make()

    def make(self) -> None:
        """
        A cache as after a restart.
        """
        self.cache = PolicyCache(self.clock, self.dns, self.fetcher, self.store)

    def get(self) -> STSLookup:
        """
        The policy that applies now.
        """
        return self.successResultOf(self.cache.get(DOMAIN))

    def remember(
        self, known: STSPolicy | None, age: float = 0, unused: float = 0
    ) -> None:
        """
        Put something into the store.
        """
        made = entry(self.clock.seconds(), known, age=age, unused=unused)
        self.successResultOf(self.store.save(made))

    def kept(self) -> CachedPolicy | None:
        """
        The cached policy.
        """
        return self.successResultOf(self.store.load(DOMAIN))

    def test_interface(self) -> None:
        """
        The cache provides the interface that deliveries use.
        """
        verifyObject(IPolicyCache, self.cache)

    def test_fresh(self) -> None:
        """
        RFC 8461 5.1: a policy that isn't known yet is fetched, and known from
        then on until C{max_age} is over.
        """
        self.fetcher.results = [policy(days=7), policy(mx="new")]
        for _ in range(2):
            self.assertEqual(self.get(), STSLookup(DOMAIN, policy(days=7)))
        self.assertEqual(self.fetcher.asked, [DOMAIN])
        self.clock.advance(7 * DAY - 1)
        self.assertEqual(self.get(), STSLookup(DOMAIN, policy(days=7)))
        self.clock.advance(1)
        self.assertEqual(self.get(), STSLookup(DOMAIN, policy(mx="new")))

    def test_noRecord(self) -> None:
        """
        RFC 8461 3.1: without a record there is no policy, no failure and no
        fetch.
        """
        self.dns.put(NAME, RRType.TXT, "v=spf1 -all")
        self.assertEqual(self.get(), STSLookup(DOMAIN))
        self.dns.remove(NAME, RRType.TXT)
        self.assertEqual(self.get(), STSLookup(DOMAIN))
        self.assertEqual((self.fetcher.asked, self.kept()), ([], None))

    def test_badRecord(self) -> None:
        """
        RFC 8461 3.1: with two records or a malformed one there is no policy, but a
        failure to report.
        """
        for records, reason in (
            ((RECORD, RECORD + " x=1"), "multiple-mta-sts-records"),
            (("v=STSv1; id=",), "record-syntax-error"),
        ):
            self.dns.put(NAME, RRType.TXT, *records)
            expected = STSLookup(DOMAIN, failure=fetchError(reason))
            self.assertEqual(self.get(), expected)
        self.assertEqual((self.fetcher.asked, self.kept()), ([], None))

    def test_lookupFailed(self) -> None:
        """
        If the lookup of the record fails, the delivery has to wait; the DNSSEC reason
        is reported.
        """
        for error, reason in (
            (None, "dns-lookup"),
            (ExtendedError(7), "dns-extended-error-7-signature-expired"),
        ):
            self.dns.fail(NAME, RRType.TXT, error)
            self.assertEqual(
                self.get(), STSLookup(DOMAIN, None, fetchError(reason), True)
            )
        self.assertIsNone(self.kept())

    def test_lookupFailedAfterTheEnd(self) -> None:
        """
        RFC 8461 5.1: a policy that has run out doesn't help.
        """
        self.remember(policy(days=1), age=2)
        self.dns.fail(NAME, RRType.TXT)
        self.assertTrue(self.get().temporary)

    def test_fetchFailed(self) -> None:
        """
        RFC 8461 3.3: mail is sent as without a policy, the failure is reported, and
        the host isn't contacted for five minutes.
        """
        self.fetcher.results = [NOT_SERVED, INVALID, policy()]
        self.assertEqual(self.get(), STSLookup(DOMAIN, failure=NOT_SERVED))
        self.make()
        self.clock.advance(299)
        self.assertEqual(self.get(), STSLookup(DOMAIN, failure=BACKING_OFF))
        self.assertEqual(len(self.fetcher.asked), 1)
        self.clock.advance(1)
        self.assertEqual(self.get(), STSLookup(DOMAIN, failure=INVALID))
        self.clock.advance(300)
        self.assertEqual(self.get(), STSLookup(DOMAIN, policy()))

    def test_expiredAndFailed(self) -> None:
        """
        RFC 8461 3.3: "no valid (non-expired) previously-cached policy": it is
        gone.
        """
        self.remember(policy(days=1), age=2)
        self.fetcher.results = [NOT_SERVED]
        self.assertEqual(self.get(), STSLookup(DOMAIN, failure=NOT_SERVED))
        kept = self.kept()
        assert kept is not None
        self.assertIsNone(kept.policy)

    def test_fallback(self) -> None:
        """
        RFC 8461 3.3: a valid cached policy applies whatever happens to the record,
        and RFC 8461 6: that is reported.
        """
        for mode in (Mode.ENFORCE, Mode.TESTING):
            self.remember(policy(mode))
            for records, reason in (
                ((), "no-mta-sts-dns-txt-record"),
                ((RECORD, RECORD + "x=1"), "multiple-mta-sts-records"),
                (("v=STSv1;",), "record-syntax-error"),
            ):
                self.dns.put(NAME, RRType.TXT, *records)
                failure = fetchError(reason + "+fallback-to-cached-policy")
                self.assertEqual(self.get(), STSLookup(DOMAIN, policy(mode), failure))
            self.dns.fail(NAME, RRType.TXT)
            failure = fetchError("dns-lookup+fallback-to-cached-policy")
            self.assertEqual(self.get(), STSLookup(DOMAIN, policy(mode), failure))
        self.assertEqual(self.fetcher.asked, [])

    def test_noneAndGone(self) -> None:
        """
        RFC 8461 6, 8.3: a policy of mode "none" is returned as such, and the later
        absence of the record is no failure.
        """
        self.remember(policy(Mode.NONE))
        self.assertEqual(self.get(), STSLookup(DOMAIN, policy(Mode.NONE)))
        self.dns.remove(NAME, RRType.TXT)
        self.assertEqual(self.get(), STSLookup(DOMAIN, policy(Mode.NONE)))

    def test_changed(self) -> None:
        """
        RFC 8461 3.1: another id is another policy.
        """
        self.remember(policy())
        self.dns.put(NAME, RRType.TXT, "v=STSv1; id=2")
        self.fetcher.results = [policy(Mode.TESTING)]
        for _ in range(2):
            self.assertEqual(self.get(), STSLookup(DOMAIN, policy(Mode.TESTING)))
        kept = self.kept()
        assert kept is not None
        self.assertEqual((kept.recordID, kept.policy), ("2", policy(Mode.TESTING)))

    def test_changedAndFailed(self) -> None:
        """
        RFC 8461 3.3: if the new policy can't be fetched, the old one applies
        while it is valid; the host is left alone "per version ID".
        """
        self.remember(policy())
        self.dns.put(NAME, RRType.TXT, "v=STSv1; id=2")
        self.fetcher.results = [INVALID, NOT_SERVED, policy(mx="new")]
        failure = FailureDetail(
            INVALID.resultType, "policy-syntax-error+fallback-to-cached-policy"
        )
        self.assertEqual(self.get(), STSLookup(DOMAIN, policy(), failure))
        found = self.get()
        self.assertEqual(found.policy, policy())
        assert found.failure is not None
        reason = "back-off-after-recent-fetch-error+fallback-to-cached-policy"
        self.assertEqual(found.failure, fetchError(reason))
        self.dns.put(NAME, RRType.TXT, "v=STSv1; id=3")
        self.assertEqual(self.get().policy, policy())
        self.assertEqual(len(self.fetcher.asked), 2)
        self.clock.advance(300)
        self.assertEqual(self.get(), STSLookup(DOMAIN, policy(mx="new")))

    def test_backOffsAreBounded(self) -> None:
        """
        Many domains that change their records and serve no policies take no
        more memory than some.
        """
        for number in range(MAX_BACKOFFS + 5):
            domain = Domain(f"d{number}.example")
            made = entry(self.clock.seconds(), policy(), "1", domain=domain)
            self.successResultOf(self.store.save(made))
            self.dns.put(f"_mta-sts.{domain}", RRType.TXT, "v=STSv1; id=2")
            self.fetcher.results = [NOT_SERVED]
            self.successResultOf(self.cache.get(domain))
        last = self.successResultOf(self.cache.get(Domain(f"d{number}.example")))
        assert last.failure is not None
        self.assertIn("back-off", last.failure.reasonCode)
        self.assertEqual(len(self.cache._backoffs._entries), MAX_BACKOFFS)

    def test_lastUse(self) -> None:
        """
        Each lookup of a policy counts as use.
        """
        self.remember(policy(), unused=5)
        self.get()
        kept = self.kept()
        assert kept is not None
        self.assertEqual(kept.lastUse, self.clock.seconds())
        self.clock.advance(8 * DAY)
        self.fetcher.results = [policy()]
        self.get()
        kept = self.kept()
        assert kept is not None
        self.assertEqual(kept.lastUse, self.clock.seconds())

    def test_brokenStore(self) -> None:
        """
        An unreadable store might hold an enforced policy; an unwritable one just
        doesn't cache.
        """
        self.store = BrokenStore("load")
        self.make()
        self.assertEqual(self.get(), STSLookup(DOMAIN, temporary=True))
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 1)
        self.store = BrokenStore("save", "used")
        self.make()
        self.fetcher.results = [policy(), policy(), NOT_SERVED]
        for expected in (policy(), policy(), None):
            self.assertEqual(self.get().policy, expected)
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 3)


class ConcurrentLookupTests(SynchronousTestCase):
    """
    Tests for L{PolicyCache} with concurrent lookups.
    """

    def setUp(self) -> None:
        self.dns = MemoryResolver()
        self.dns.put(NAME, RRType.TXT, RECORD)
        self.fetcher = FakeFetcher()
        self.cache = PolicyCache(
            Clock(), self.dns, self.fetcher, MemoryLedger().policies
        )

    def test_joined(self) -> None:
        """
        Concurrent lookups share one fetch.
        """
        waiting = [self.cache.get(DOMAIN) for _ in range(3)]
        [fetching] = self.fetcher.waiting
        fetching.callback(policy())
        for each in waiting:
            self.assertEqual(self.successResultOf(each), STSLookup(DOMAIN, policy()))
        self.assertEqual(len(self.fetcher.asked), 1)

    def test_oneCancelled(self) -> None:
        """
        A cancelled lookup doesn't affect others for the same domain.
        """
        leaving, staying = self.cache.get(DOMAIN), self.cache.get(DOMAIN)
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.fetcher.waiting[0].callback(policy())
        self.assertEqual(self.successResultOf(staying).policy, policy())

    def test_allCancelled(self) -> None:
        """
        If all lookups are cancelled the fetch is cancelled, and the next one starts
        anew.
        """
        for each in [self.cache.get(DOMAIN) for _ in range(2)]:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.fetcher.waiting, [])
        again = self.cache.get(DOMAIN)
        self.fetcher.waiting[0].callback(policy())
        self.assertEqual(self.successResultOf(again).policy, policy())

    def test_apart(self) -> None:
        """
        Other domains don't wait.
        """
        self.dns.put("_mta-sts.other.example", RRType.TXT, RECORD)
        waiting = self.cache.get(DOMAIN)
        self.fetcher.results = [policy(mx="other")]
        found = self.successResultOf(self.cache.get(Domain("other.example")))
        self.assertEqual(found.policy, policy(mx="other"))
        self.assertNoResult(waiting)
