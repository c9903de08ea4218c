# -*- test-case-name: tests.mtasts.test_cache -*-
"""
Looks up MTA-STS policies, with a cache (RFC 8461 3.3, 5.1).
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.dates import MonotonicTime
from moxtls.dns.types import RRType
from moxtls.domain import Domain
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
    STSLookup,
    STSPolicy,
    cacheEntry,
    isValid,
    lookupAfterFetch,
    lookupWithoutFetch,
    recordFromAnswer,
    stsRecordName,
)
from moxtls.outages import logUnlessOutage
from moxtls.tasks import SharedTask
from moxtls.tlsrpt.types import FailureDetail

#: Domains that changed their record while their policy host doesn't answer; there
#: are few at a time, and a domain that is removed is only fetched again.
MAX_BACKOFFS = 1000


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
