# -*- test-case-name: tests.mtasts.test_refresh -*-
"""
Refreshes cached MTA-STS policies before they expire (RFC 8461 3.3, 10.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason

from moxtls.dates import DAY, MonotonicTime
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IPolicyFetcher, IPolicyStore, IResolver
from moxtls.mtasts.policy import (
    CachedPolicy,
    Mode,
    NoRecord,
    STSPolicy,
    cacheEntry,
    isObsolete,
    isStale,
    isUnused,
    recordFromAnswer,
    refreshTimes,
    shuffled,
    stsRecordName,
)
from moxtls.outages import logUnlessOutage
from moxtls.tlsrpt.types import FailureDetail


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

    def _refreshingFailed(self, reason: Reason) -> None:
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
