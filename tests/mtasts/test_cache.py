"""
Tests for L{moxtls.mtasts.cache}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dates import HOUR, MINUTE
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import ExtendedError, RRType
from moxtls.domain import Domain
from moxtls.https import CertificateVerification, HTTPSErrorKind, HTTPSFailure, Response
from moxtls.interfaces import IPolicyCache, IPolicyFetcher
from moxtls.ledger.ledger import MemoryLedger
from moxtls.ledger.stores import PolicyStore
from moxtls.mtasts.cache import (
    MAX_BACKOFFS,
    PolicyCache,
    PolicyFetcher,
    PolicyRefresher,
    Refresh,
    RefreshResult,
)
from moxtls.mtasts.policy import CachedPolicy, Mode, STSLookup, STSPolicy
from moxtls.tls.session import certificateFailure
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.certificates import good
from tests.mtasts.fakes import DAY, DOMAIN, RECORD, FakeFetcher, entry, policy

NAME = "_mta-sts.example.com"
NOT_SERVED = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "no-policy-served")
INVALID = FailureDetail(ResultType.STS_POLICY_INVALID, "policy-syntax-error")
BACKING_OFF = FailureDetail(
    ResultType.STS_POLICY_FETCH_ERROR, "back-off-after-recent-fetch-error"
)
BODY = b"version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: 86400\n"
TEXT = (("content-type", "text/plain"),)
EXPIRED, UNTRUSTED, PATH_LENGTH = 10, 18, 25
NOT_FETCHED = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "cannot-fetch-policy")


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


class FakeClient:
    """
    Answers each request with the same.
    """

    def __init__(self, answer: Response | HTTPSFailure) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    def get(self, url: str, maxBody: int) -> Deferred[Response | HTTPSFailure]:
        self.asked.append((url, maxBody))
        return succeed(self.answer)


class FetcherTests(SynchronousTestCase):
    """
    Tests for L{PolicyFetcher}.
    """

    def fetch(
        self, answer: Response | HTTPSFailure, domain: str = "d.example"
    ) -> STSPolicy | FailureDetail:
        """
        The result of fetching this response.
        """
        self.client = FakeClient(answer)
        fetcher = PolicyFetcher(self.client, certificateFailure)
        verifyObject(IPolicyFetcher, fetcher)
        return self.successResultOf(fetcher.fetch(Domain.parse(domain)))

    def assertFails(
        self,
        answer: Response | HTTPSFailure,
        reason: str,
        kind: ResultType = ResultType.STS_POLICY_FETCH_ERROR,
    ) -> None:
        """
        C{answer} is reported as this failure.
        """
        self.assertEqual(self.fetch(answer), FailureDetail(kind, reason))

    def test_served(self) -> None:
        """
        RFC 8461 3.2, 3.3: from a fixed place, in A-labels, 64 KiB at most.
        """
        found = self.fetch(Response(200, TEXT, BODY), "m\xf8x.example")
        assert isinstance(found, STSPolicy)
        self.assertEqual((found.mode, found.mx), (Mode.ENFORCE, ("mx.example",)))
        url = "https://mta-sts.xn--mx-lka.example/.well-known/mta-sts.txt"
        self.assertEqual(self.client.asked, [(url, 65536)])

    def test_notServed(self) -> None:
        """
        A missing host and a missing page both mean that there is no policy.
        """
        self.assertFails(Response(404, TEXT, BODY), "no-policy-served")
        self.assertFails(HTTPSFailure(HTTPSErrorKind.NO_NAME), "no-policy-served")

    def test_status(self) -> None:
        """
        RFC 8461 3.3: only 200 makes a policy, and redirects aren't followed.
        """
        for status in (201, 204, 301, 302, 307, 403, 410, 500, 503):
            self.assertFails(Response(status, TEXT, BODY), "cannot-fetch-policy")

    def test_mediaType(self) -> None:
        """
        RFC 8461 3.2: the media type should be text/plain, with any parameters.
        """
        for value in ("text/plain; charset=utf-8", "Text/Plain", "text/plain;x", ""):
            found = self.fetch(Response(200, (("content-type", value),), BODY))
            self.assertIsInstance(found, STSPolicy, value)
        self.assertIsInstance(self.fetch(Response(200, (), BODY)), STSPolicy)
        for value in ("text/html", "application/octet-stream", "text/plainer"):
            answer = Response(200, (("content-type", value),), BODY)
            self.assertFails(answer, "cannot-fetch-policy")

    def test_invalid(self) -> None:
        """
        RFC 8460 4.3.2.2: an invalid policy is different from a failed fetch; one
        without end is invalid.
        """
        for answer in (
            Response(200, TEXT, b"<html>"),
            HTTPSFailure(HTTPSErrorKind.TOO_LARGE),
        ):
            kind = ResultType.STS_POLICY_INVALID
            self.assertFails(answer, "policy-syntax-error", kind)

    def test_noAnswer(self) -> None:
        """
        All failures of the connection have one reason.
        """
        for kind in (
            HTTPSErrorKind.LOOKUP,
            HTTPSErrorKind.CONNECT,
            HTTPSErrorKind.TIMEOUT,
            HTTPSErrorKind.PROTOCOL,
        ):
            self.assertFails(HTTPSFailure(kind), "cannot-fetch-policy")

    def test_dnssec(self) -> None:
        """
        A policy host whose addresses were refused because of DNSSEC.
        """
        refused = HTTPSFailure(HTTPSErrorKind.LOOKUP, dnssecError=ExtendedError(6))
        self.assertFails(refused, "dns-extended-error-6-dnssec-bogus")

    def test_certificate(self) -> None:
        """
        RFC 8460 4.3.2.2: sts-webpki-invalid, with the fault of the certificate.
        """
        chain = (good("mta-sts.d.example").certificate,)
        for objections, matches, reason in (
            ((EXPIRED,), True, "certificate-expired"),
            ((), False, "certificate-host-mismatch"),
            ((UNTRUSTED,), True, "certificate-not-trusted"),
            (
                (PATH_LENGTH,),
                True,
                "certificate-not-trusted+too-many-intermediates",
            ),
        ):
            verification = CertificateVerification(
                chain, tuple((each, 0) for each in objections), matches
            )
            failure = HTTPSFailure(HTTPSErrorKind.CERTIFICATE, "", verification)
            self.assertFails(failure, reason, ResultType.STS_WEBPKI_INVALID)


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
