"""
Tests for L{moxtls.mtasts.refresh}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import HOUR, MINUTE
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.ledger.ledger import MemoryLedger
from moxtls.ledger.stores import PolicyStore
from moxtls.mtasts.policy import CachedPolicy, Mode, STSPolicy
from moxtls.mtasts.refresh import PolicyRefresher, Refresh, RefreshResult
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.mtasts.fakes import DAY, DOMAIN, RECORD, FakeFetcher, entry, policy

NAME = "_mta-sts.example.com"
NOT_FETCHED = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "cannot-fetch-policy")


class FlakyStore(PolicyStore):
    """
    A store that fails to list its entries C{failures} times.
    """

    failures = 0

    def __init__(self) -> None:
        vars(self).update(vars(MemoryLedger().policies))

    def entries(
        self, after: CachedPolicy | None = None, limit: int | None = None
    ) -> Deferred[tuple[CachedPolicy, ...]]:
        if self.failures:
            self.failures -= 1
            return fail(OSError("no disk"))
        return super().entries(after, limit)


class RefresherTestCase(SynchronousTestCase):
    """
    Support for tests of L{PolicyRefresher}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.dns = MemoryResolver()
        self.dns.put(NAME, RRType.TXT, RECORD)
        self.fetcher = FakeFetcher()
        self.store = FlakyStore()
        self.refresher = PolicyRefresher(
            self.clock, self.dns, self.fetcher, self.store, lambda: 0.5
        )

    def remember(
        self,
        known: STSPolicy | None,
        age: float = 1,
        domain: Domain = DOMAIN,
        unused: float = 0,
    ) -> CachedPolicy:
        """
        Put something into the store.
        """
        now = self.clock.seconds()
        made = entry(now, known, "1", age, domain, unused)
        self.successResultOf(self.store.save(made))
        return made

    def kept(self, domain: Domain = DOMAIN) -> CachedPolicy | None:
        """
        The cached policy.
        """
        return self.successResultOf(self.store.load(domain))


class RefreshTests(RefresherTestCase):
    """
    Tests for L{PolicyRefresher.refresh}.
    """

    def refresh(self) -> Refresh:
        """
        The result of refreshing a policy.
        """
        return self.successResultOf(self.refresher.refresh(DOMAIN))

    def test_updated(self) -> None:
        """
        RFC 8461 10.2: policies are fetched again whatever the record; the whole
        policy is replaced, its lines too; a refresh isn't a use.
        """
        earlier = self.remember(policy(), age=3, unused=2)
        for record, number in ((RECORD, "1"), ("v=STSv1; id=2", "2")):
            self.dns.put(NAME, RRType.TXT, record)
            self.fetcher.results = [policy(mx="new")]
            found = self.refresh()
            kept = self.kept()
            assert kept is not None
            self.assertEqual(found, Refresh(DOMAIN, RefreshResult.UPDATED, kept))
            self.assertEqual(kept.policy, policy(mx="new"))
            self.assertEqual(kept.recordID, number)
            self.assertEqual(kept.fetched, self.clock.seconds())
            self.assertEqual(kept.validEnd, self.clock.seconds() + 7 * DAY)
            self.assertEqual(kept.lastUse, earlier.lastUse)

    def test_noRecord(self) -> None:
        """
        RFC 8461 10.2: a served policy counts even if the record is withheld.
        """
        self.remember(policy())
        for breaking in (
            lambda: self.dns.remove(NAME, RRType.TXT),
            lambda: self.dns.fail(NAME, RRType.TXT),
        ):
            breaking()
            self.fetcher.results = [policy(mx="new")]
            self.assertIs(self.refresh().ending, RefreshResult.UPDATED)
            kept = self.kept()
            assert kept is not None
            self.assertEqual((kept.recordID, kept.policy), ("1", policy(mx="new")))

    def test_failed(self) -> None:
        """
        A fetch that fails leaves everything as it is, be it a policy or a
        back-off.
        """
        for known in (policy(), None):
            earlier = self.remember(known)
            self.fetcher.results = [NOT_FETCHED]
            expected = Refresh(DOMAIN, RefreshResult.KEPT, earlier, NOT_FETCHED)
            self.assertEqual(self.refresh(), expected)
            self.assertEqual(self.kept(), earlier)

    def test_backOff(self) -> None:
        """
        A back-off is no policy that could be confirmed by its id: it is
        really fetched, and over then.
        """
        self.remember(None, age=0)
        self.fetcher.results = [policy()]
        self.assertIs(self.refresh().ending, RefreshResult.UPDATED)
        kept = self.kept()
        assert kept is not None
        self.assertEqual(kept.policy, policy())

    def test_given_up(self) -> None:
        """
        RFC 8461 8.3: a policy with mode "none" is removed once the record is gone,
        but not while lookups fail.
        """
        self.remember(policy(Mode.NONE))
        self.dns.fail(NAME, RRType.TXT)
        self.fetcher.results = [NOT_FETCHED]
        self.assertIs(self.refresh().ending, RefreshResult.KEPT)
        self.dns.put(NAME, RRType.TXT)
        self.assertEqual(self.refresh(), Refresh(DOMAIN, RefreshResult.DROPPED))
        self.assertIsNone(self.kept())

    def test_unknown(self) -> None:
        """
        A domain that isn't remembered is, if it has a policy.
        """
        self.fetcher.results = [NOT_FETCHED, policy()]
        expected = Refresh(DOMAIN, RefreshResult.ABSENT, failure=NOT_FETCHED)
        self.assertEqual(self.refresh(), expected)
        self.assertIsNone(self.kept())
        self.assertIs(self.refresh().ending, RefreshResult.UPDATED)
        kept = self.kept()
        assert kept is not None
        self.assertEqual((kept.policy, kept.recordID), (policy(), "1"))

    def test_unknownWithoutRecord(self) -> None:
        """
        Without a record no policy is fetched.
        """
        self.dns.remove(NAME, RRType.TXT)
        found = self.refresh()
        self.assertIs(found.ending, RefreshResult.ABSENT)
        assert found.failure is not None
        self.assertEqual(found.failure.reasonCode, "no-mta-sts-dns-txt-record")

    def test_meanwhile(self) -> None:
        """
        A policy used during its refresh keeps that time of use; a policy dropped
        meanwhile stays dropped.
        """
        self.remember(policy(), unused=9)
        running = self.refresher.refresh(DOMAIN)
        self.successResultOf(self.store.used(DOMAIN, self.clock.seconds()))
        self.fetcher.waiting.pop().callback(policy(mx="new"))
        self.successResultOf(running)
        kept = self.kept()
        assert kept is not None
        self.assertEqual(kept.lastUse, self.clock.seconds())
        running = self.refresher.refresh(DOMAIN)
        self.successResultOf(self.store.drop(DOMAIN))
        self.fetcher.waiting.pop().callback(policy())
        self.assertIs(self.successResultOf(running).ending, RefreshResult.DROPPED)
        self.assertIsNone(self.kept())


class RefreshServiceTests(RefresherTestCase):
    """
    Tests for L{PolicyRefresher} as a service.
    """

    def rememberMany(self, count: int) -> list[Domain]:
        """
        Policies of several domains.
        """
        domains = [Domain(f"d{number}.example") for number in range(count)]
        for domain in domains:
            self.remember(policy(days=30), domain=domain)
            self.dns.put(f"_mta-sts.{domain}", RRType.TXT, RECORD)
        self.fetcher.results = [policy(days=30)] * 100
        return domains

    def wait(self, seconds: float) -> None:
        """
        Let time pass, minute by minute.
        """
        self.clock.pump([MINUTE] * round(seconds / MINUTE))

    def test_spread(self) -> None:
        """
        The first at once, the others over three hours, all of them once.
        """
        domains = self.rememberMany(3)
        self.refresher.startService()
        self.addCleanup(self.refresher.stopService)
        self.clock.advance(0)
        counts = [len(self.fetcher.asked)]
        for _ in range(4):
            self.wait(1.5 * HOUR)
            counts.append(len(self.fetcher.asked))
        self.assertEqual(counts, [1, 2, 3, 3, 3])
        self.assertEqual(set(self.fetcher.asked), set(domains))

    def test_daily(self) -> None:
        """
        RFC 8461 3.3: "a suggested refresh frequency is once per day".
        """
        self.rememberMany(1)
        self.refresher.startService()
        self.addCleanup(self.refresher.stopService)
        for day in range(1, 4):
            self.wait(23 * HOUR)
            self.assertEqual(len(self.fetcher.asked), day)
            self.wait(HOUR)
        self.wait(MINUTE)
        self.assertEqual(len(self.fetcher.asked), 4)

    def test_freshAndUnused(self) -> None:
        """
        Policies fetched today aren't refreshed; those unused for half a year are
        removed.
        """
        fresh, unused = Domain("fresh.example"), Domain("unused.example")
        self.remember(policy(), age=0.25, domain=fresh)
        self.remember(policy(), domain=unused, unused=181)
        self.refresher.startService()
        self.addCleanup(self.refresher.stopService)
        self.wait(4 * HOUR)
        self.assertEqual(self.fetcher.asked, [])
        self.assertIsNotNone(self.kept(fresh))
        self.assertIsNone(self.kept(unused))

    def test_otherNode(self) -> None:
        """
        Policies refreshed by another node meanwhile aren't refreshed.
        """
        domains = self.rememberMany(2)
        self.refresher.startService()
        self.addCleanup(self.refresher.stopService)
        self.clock.advance(0)
        self.assertEqual(len(self.fetcher.asked), 1)
        for domain in domains:
            self.remember(policy(days=30), age=0, domain=domain)
        self.wait(4 * HOUR)
        self.assertEqual(len(self.fetcher.asked), 1)

    def test_slowOnes(self) -> None:
        """
        A host that hangs doesn't hold up the others.
        """
        self.rememberMany(3)
        self.fetcher.results = []
        self.refresher.startService()
        self.addCleanup(self.refresher.stopService)
        self.wait(4 * HOUR)
        self.assertEqual(len(self.fetcher.waiting), 3)

    def test_brokenStore(self) -> None:
        """
        A round that fails is not the last one.
        """
        self.rememberMany(1)
        self.store.failures = 1
        self.refresher.startService()
        self.addCleanup(self.refresher.stopService)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.wait(25 * HOUR)
        self.assertEqual(len(self.fetcher.asked), 1)

    def test_stop(self) -> None:
        """
        Stopping cancels a running refresh, whether it waits for a host or for its
        time, and leaves no delayed calls.
        """
        self.rememberMany(3)
        self.fetcher.results = []
        self.refresher.startService()
        self.wait(2 * HOUR)
        self.assertEqual(len(self.fetcher.waiting), 2)
        self.successResultOf(self.refresher.stopService())
        self.assertEqual(self.fetcher.waiting, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopBetween(self) -> None:
        """
        Stopping between rounds, or before the start, takes no time.
        """
        self.successResultOf(self.refresher.stopService())
        self.refresher.startService()
        self.clock.advance(0)
        self.successResultOf(self.refresher.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
