# -*- test-case-name: tests.mtasts.test_cache -*-
"""
Looks up MTA-STS policies with a cache, fetches them, and refreshes cached ones before
they expire (RFC 8461 3.3, 5.1, 10.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.dates import DAY, MonotonicTime
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.https import CertificateVerification, HTTPSErrorKind, HTTPSFailure, Response
from moxtls.interfaces import (
    IPolicyCache,
    IPolicyFetcher,
    IPolicyStore,
    IResolver,
    StoreUnavailable,
)
from moxtls.mtasts.policy import (
    BACKOFF,
    BACKOFF_FAILURE,
    CachedPolicy,
    Mode,
    NoRecord,
    STSLookup,
    STSPolicy,
    STSPolicyError,
    cacheEntry,
    isObsolete,
    isStale,
    isUnused,
    isValid,
    lookupAfterFetch,
    lookupWithoutFetch,
    parsePolicy,
    recordFromAnswer,
    refreshTimes,
    shuffled,
    stsPolicyHost,
    stsRecordName,
)
from moxtls.outages import logUnlessOutage
from moxtls.tasks import SharedTask
from moxtls.tlsrpt.types import FailureDetail, ResultType

#: Domains that changed their record while their policy host doesn't answer; there
#: are few at a time, and a domain that is removed is only fetched again.
MAX_BACKOFFS = 1000
#: RFC 8461 3.3.
POLICY_PATH = "/.well-known/mta-sts.txt"
MAX_POLICY_BYTES = 64 * 1024

# RFC 8460 4.3 result types, with our reason codes.
NOT_SERVED = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "no-policy-served")
NOT_FETCHED = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "cannot-fetch-policy")
INVALID = FailureDetail(ResultType.STS_POLICY_INVALID, "policy-syntax-error")

#: Describes a certificate failure in the terms of RFC 8460 4.3: a result type and a
#: reason code, which may be empty.
Describe = Callable[[CertificateVerification], tuple[ResultType, str] | None]


@implementer(IPolicyCache)
class PolicyCache:
    """
    Looks up the TXT record for each delivery, and fetches the policy if it has
    changed.  Concurrent lookups of one domain share their result.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        resolver: IResolver,
        fetcher: IPolicyFetcher,
        store: IPolicyStore,
    ) -> None:
        self._clock = clock
        self._resolver = resolver
        self._fetcher = fetcher
        self._store = store
        self._backoffs = _Backoffs()
        self._elapsed = MonotonicTime()
        self._running: dict[Domain, SharedTask[STSLookup]] = {}

    def get(self, domain: Domain) -> Deferred[STSLookup]:
        lookup = self._running.get(domain)
        if lookup is None:
            lookup = self._running[domain] = SharedTask()
            # The callback has to be added before the lookup ends, perhaps at once.
            started = Deferred.fromCoroutine(self._look(domain))
            lookup.start(started.addBoth(self._ended, domain, lookup))
        return lookup.join()

    def _ended(
        self, result: STSLookup | Failure, domain: Domain, lookup: SharedTask[STSLookup]
    ) -> STSLookup | Failure:
        if self._running.get(domain) is lookup:
            del self._running[domain]
        return result

    async def _look(self, domain: Domain) -> STSLookup:
        try:
            return await self._find(domain)
        except CancelledError:
            raise
        except StoreUnavailable:
            # Without the cache, a domain whose record is suppressed for a moment
            # would look like one without a policy (RFC 8461 10.2).
            return STSLookup(domain, temporary=True, unavailable=True)
        except Exception:
            # A defect of ours: there might be a policy that is enforced.
            self.log.failure(
                "lookup of the MTA-STS policy of {domain} failed", domain=domain
            )
            return STSLookup(domain, temporary=True)

    async def _find(self, domain: Domain) -> STSLookup:
        now = self._clock.seconds()
        earlier = await self._store.load(domain)
        entry = earlier if isValid(earlier, now) else None
        if entry is not None:
            await self._try(self._store.used(domain, now))
            if entry.policy is None:
                return STSLookup(domain, failure=BACKOFF_FAILURE)
        answer = await self._resolver.lookup(stsRecordName(domain), RRType.TXT)
        failedID = self._backoffs.get(domain, self._elapsed.at(now))
        found = lookupWithoutFetch(domain, recordFromAnswer(answer), entry, failedID)
        if isinstance(found, STSLookup):
            return found
        result = await self._fetcher.fetch(domain)
        await self._note(domain, result, found.id, earlier)
        return lookupAfterFetch(domain, result, entry)

    async def _note(
        self,
        domain: Domain,
        result: STSPolicy | FailureDetail,
        recordID: str,
        earlier: CachedPolicy | None,
    ) -> None:
        now = self._clock.seconds()
        policy = result if isinstance(result, STSPolicy) else None
        if policy is None and isValid(earlier, now):
            # RFC 8461 3.3: back off, but the policy that is valid stays.
            until = self._elapsed.at(now) + BACKOFF
            self._backoffs.put(domain, recordID, until)
            return
        entry = cacheEntry(domain, policy, recordID, earlier, now)
        await self._try(self._store.save(replace(entry, lastUse=now)))

    async def _try(self, writing: Deferred[None]) -> None:
        """
        Write to the cache, and only log a failure: the policy is fetched again.
        """
        try:
            await writing
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "writing to the MTA-STS policy cache failed")


class _Backoffs:
    """
    The record C{id} of each domain whose policy couldn't be fetched recently.
    """

    def __init__(self) -> None:
        self._entries: dict[Domain, tuple[str, float]] = {}

    def put(self, domain: Domain, recordID: str, until: float) -> None:
        self._entries.pop(domain, None)
        while len(self._entries) >= MAX_BACKOFFS:
            del self._entries[next(iter(self._entries))]
        self._entries[domain] = (recordID, until)

    def get(self, domain: Domain, now: float) -> str | None:
        recordID, until = self._entries.get(domain, ("", now))
        return recordID if until > now else None


class HTTPSGetClient(Protocol):
    """
    The part of L{moxtls.https.HTTPSClient} that is needed.
    """

    def get(self, url: str, maxBody: int) -> Deferred[Response | HTTPSFailure]:
        """
        Fires with the response, or with the reason why there is none.
        """


@implementer(IPolicyFetcher)
class PolicyFetcher:
    """
    Fetches policies from C{https://mta-sts.<domain>}.
    """

    log = Logger()

    def __init__(self, client: HTTPSGetClient, describe: Describe) -> None:
        self._client = client
        self._describe = describe

    def fetch(self, domain: Domain) -> Deferred[STSPolicy | FailureDetail]:
        url = f"https://{stsPolicyHost(domain)}{POLICY_PATH}"
        fetched = self._client.get(url, MAX_POLICY_BYTES)
        return fetched.addCallback(self._read, domain)

    def _read(
        self, answer: Response | HTTPSFailure, domain: Domain
    ) -> STSPolicy | FailureDetail:
        if isinstance(answer, HTTPSFailure):
            self.log.info(
                "policy of {domain}: {kind}: {reason!r}",
                domain=domain,
                kind=answer.kind.name,
                reason=answer.reason,
            )
            return fetchFailure(answer, self._describe)
        policy = parsePolicyResponse(answer)
        if isinstance(policy, STSPolicyError):
            self.log.info("policy of {domain}: {error}", domain=domain, error=policy)
            return INVALID
        return policy


def parsePolicyResponse(answer: Response) -> STSPolicy | STSPolicyError | FailureDetail:
    """
    The policy in the response of a policy host.
    """
    if answer.status == 404:
        return NOT_SERVED
    if answer.status != 200 or not _isText(answer.header("content-type")):
        return NOT_FETCHED
    return parsePolicy(answer.body)


def fetchFailure(failure: HTTPSFailure, describe: Describe) -> FailureDetail:
    """
    The failure of a fetch without a response.
    """
    if failure.kind is HTTPSErrorKind.NO_NAME:
        return NOT_SERVED
    if failure.kind is HTTPSErrorKind.TOO_LARGE:
        return INVALID
    if failure.kind is HTTPSErrorKind.CERTIFICATE and failure.verification is not None:
        described = describe(failure.verification)
        words = [word for word in described or () if word]
        return FailureDetail(ResultType.STS_WEBPKI_INVALID, "+".join(words))
    if failure.dnssecError is not None:
        return replace(NOT_FETCHED, reasonCode=failure.dnssecError.reasonCode)
    return NOT_FETCHED


def _isText(contentType: str) -> bool:
    # RFC 8461 3.2: "SHOULD validate that the media type is text/plain", because
    # of hosts where users choose the paths of what they upload.  The RFC doesn't
    # say what a missing type means; it is accepted, as hosts for uploads send one.
    # Parameters are ignored.
    mediaType, _, _ = contentType.partition(";")
    return mediaType.strip().lower() in ("", "text/plain")


class RefreshResult(Enum):
    """
    The result of a refresh.

    C{UPDATED}: a policy was fetched.  C{KEPT}: the fetch failed, and the entry
    stays.  C{DROPPED}: the domain has stopped using MTA-STS, and the entry was
    removed.  C{ABSENT}: there was no entry, and there is no policy.
    """

    UPDATED = "updated"
    KEPT = "kept"
    DROPPED = "dropped"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Refresh:
    """
    One refresh of a cache entry.

    @ivar entry: The entry now.
    @ivar failure: Why no policy was fetched; C{None} if one was.
    """

    domain: Domain
    ending: RefreshResult
    entry: CachedPolicy | None = None
    failure: FailureDetail | None = None


class PolicyRefresher(Service):
    """
    Refreshes the cache at the start and once a day.

    RFC 8461 10.2: the policy is fetched even if the TXT record has not changed.
    Otherwise an attacker who keeps the record from changing could keep an old
    policy in force; and C{max_age} counts from the fetch of a policy, not from the
    last lookup of its record.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        resolver: IResolver,
        fetcher: IPolicyFetcher,
        store: IPolicyStore,
        jitter: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._resolver = resolver
        self._fetcher = fetcher
        self._store = store
        self._jitter = jitter
        self._loop: LoopingCall | None = None
        self._ended: Deferred[None] = succeed(None)
        self._refreshing: Deferred[None] = succeed(None)

    def startService(self) -> None:
        super().startService()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self._clock
        self._ended = self._loop.start(DAY).addCallback(lambda loop: None)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        self._refreshing.cancel()
        return self._ended

    def refresh(self, domain: Domain) -> Deferred[Refresh]:
        """
        Fetch the policy of C{domain} now, whether or not it is cached.

        @return: Fires with the result.
        """
        return Deferred.fromCoroutine(self._refresh(domain))

    async def _refresh(self, domain: Domain) -> Refresh:
        entry = await self._store.load(domain)
        answer = await self._resolver.lookup(stsRecordName(domain), RRType.TXT)
        record = recordFromAnswer(answer)
        if entry is None and isinstance(record, NoRecord):
            return Refresh(domain, RefreshResult.ABSENT, failure=record.failure)
        if entry is not None and isObsolete(entry, record, self._clock.seconds()):
            await self._store.drop(domain)
            return Refresh(domain, RefreshResult.DROPPED)
        result = await self._fetcher.fetch(domain)
        # The entry may have been used, or removed, meanwhile.
        latest = await self._store.load(domain)
        if isinstance(result, FailureDetail):
            ending = RefreshResult.KEPT if latest else RefreshResult.ABSENT
            return Refresh(domain, ending, latest, result)
        if entry is not None and latest is None:
            return Refresh(domain, RefreshResult.DROPPED)
        known = latest.recordID if latest else ""
        recordID = known if isinstance(record, NoRecord) else record.id
        return await self._update(domain, result, recordID, latest)

    async def _update(
        self,
        domain: Domain,
        policy: STSPolicy,
        recordID: str,
        latest: CachedPolicy | None,
    ) -> Refresh:
        now = self._clock.seconds()
        entry = cacheEntry(domain, policy, recordID, latest, now)
        await self._store.save(entry)
        return Refresh(domain, RefreshResult.UPDATED, entry)

    def _tick(self) -> Deferred[None]:
        self._refreshing = Deferred.fromCoroutine(self._refreshAll())
        return self._refreshing.addErrback(self._refreshingFailed)

    def _refreshingFailed(self, reason: Failure) -> None:
        if reason.check(CancelledError) is None:
            logUnlessOutage(self.log, "refresh of MTA-STS policies failed", reason)

    async def _refreshAll(self) -> None:
        elapsed = MonotonicTime()
        begin = elapsed.at(self._clock.seconds())
        entries = await self._store.entries()
        for entry in entries:
            if isUnused(entry, begin):
                await self._store.drop(entry.domain)
        stale = [
            entry
            for entry in shuffled(entries, self._jitter)
            if isStale(entry, begin) and not isUnused(entry, begin)
        ]
        times = refreshTimes(len(stale), self._jitter)
        running: list[Deferred[None]] = []
        try:
            for entry, due in zip(stale, times, strict=True):
                now = elapsed.at(self._clock.seconds())
                wait = max(0.0, begin + due - now)
                await deferLater(self._clock, wait)
                one = Deferred.fromCoroutine(self._refreshIfStale(entry.domain))
                running = [*(each for each in running if not each.called), one]
            await DeferredList(running)
        except CancelledError:
            for each in running:
                each.cancel()
            await DeferredList(running)
            raise

    async def _refreshIfStale(self, domain: Domain) -> None:
        try:
            entry = await self._store.load(domain)
            # Another node may have refreshed or removed it.
            if entry is None or not isStale(entry, self._clock.seconds()):
                return
            self._warn(await self._refresh(domain))
        except CancelledError:
            return
        except Exception:
            logUnlessOutage(
                self.log,
                "refresh of the MTA-STS policy of {domain} failed",
                domain=domain,
            )

    def _warn(self, refresh: Refresh) -> None:
        # RFC 8461 3.3: warn the administrator of failures, "unless the cached
        # policy mode is none".
        policy = refresh.entry.policy if refresh.entry else None
        if refresh.failure is None or policy is None or policy.mode is Mode.NONE:
            return
        self.log.warn(
            "policy of {domain} can't be refreshed, valid until {end}: {kind} {code}",
            domain=refresh.domain,
            end=refresh.entry.validEnd if refresh.entry else 0,
            kind=str(refresh.failure.resultType),
            code=refresh.failure.reasonCode,
        )
