# -*- test-case-name: tests.reception.test_reportaddresses -*-
"""
Looks up the local addresses to which other hosts send reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from moxtls.dates import HOUR, MINUTE
from moxtls.dmarc.discovery import PublicSuffixes, discover
from moxtls.dns.types import RRType
from moxtls.domain import Address, Domain
from moxtls.interfaces import IResolver
from moxtls.reporting.destinations import chooseDestinations
from moxtls.tasks import TaskGroup, gather, ignoreCancelled, resolve
from moxtls.tlsrpt.types import TLSRPTRecordError, findTLSRPTRecord, tlsrptRecordName

#: Seconds for which records are cached, and until a failed lookup is retried.
CACHE_TTL = HOUR
RETRY = 5 * MINUTE
#: Domains looked up concurrently.
MAX_CONCURRENT_DOMAINS = 8
#: Seconds that the first messages wait for the first lookups.
MAX_WAIT = 10
#: Addresses in one record.
MAX_ADDRESSES = 50


def lowerCased(address: Address) -> Sequence[Address]:
    """
    The address with its local part in lower case.
    """
    return (Address(address.localPart.lower(), address.domain),)


class ReportAddresses:
    """
    The addresses in the C{_dmarc} and C{_smtp._tls} records of local domains (RFC
    9989 4.7, RFC 8460 3), and those in the configuration.

    Records are looked up when mail is received, at most once in L{CACHE_TTL} seconds;
    during later lookups the previous addresses are used.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        resolver: IResolver,
        domains: Iterable[Domain],
        named: Iterable[Address] = (),
        equivalents: Callable[[Address], Sequence[Address]] = lowerCased,
        suffixes: PublicSuffixes | None = None,
    ) -> None:
        """
        @param domains: The local domains.
        @param named: The addresses in the configuration.
        @param equivalents: Returns the forms of a local address, the most exact
            first; none for other addresses.
        @param suffixes: For discovery by RFC 7489.
        """
        self._clock = clock
        self._resolver = resolver
        self._domains = tuple(dict.fromkeys(domains))
        self._equivalents = equivalents
        self._suffixes = suffixes
        self._named = self._exact(named)
        self._found: dict[str, frozenset[Address]] = {}
        self._all = self._named
        self._due = 0.0
        self._isLoaded = False
        self._waiting: list[Deferred[None]] = []
        self._tasks = TaskGroup(1)

    def include(self, address: Address) -> Deferred[bool]:
        """
        Fires with true if C{address} is one of them.
        """
        return Deferred.fromCoroutine(self._include(address))

    def stop(self) -> Deferred[None]:
        """
        Fires once no lookup is in progress.
        """
        return self._tasks.cancel()

    async def _include(self, address: Address) -> bool:
        now = self._clock.seconds()
        if now >= self._due and not len(self._tasks):
            self._due = now + CACHE_TTL
            self._tasks.begin(ignoreCancelled(self._load()))
        if not self._isLoaded:
            await self._wait()
        return any(each in self._all for each in self._equivalents(address))

    async def _wait(self) -> None:
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        with suppress(TimeoutError):
            await waiting.addTimeout(MAX_WAIT, self._clock)

    async def _load(self) -> None:
        try:
            for start in range(0, len(self._domains), MAX_CONCURRENT_DOMAINS):
                some = self._domains[start : start + MAX_CONCURRENT_DOMAINS]
                lookups = [Deferred.fromCoroutine(self._lookUp(each)) for each in some]
                await gather(lookups)
        finally:
            self._all = self._named.union(*self._found.values())
            self._isLoaded = True
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    async def _lookUp(self, domain: Domain) -> None:
        try:
            await self._ofDMARC(domain)
            await self._ofTLS(domain)
        except CancelledError:
            raise
        except Exception:
            self.log.failure(
                "lookup of report addresses of {domain} failed", domain=domain
            )
            self._retrySoon()

    async def _ofDMARC(self, domain: Domain) -> None:
        found = await resolve(self._resolver, discover(domain, self._suffixes))
        if found.temporary:
            return self._retrySoon()
        record = found.record
        uris = () if record is None else (*record.rua, *record.ruf)
        self._found[f"_dmarc.{domain}"] = self._addresses(each.uri for each in uris)

    async def _ofTLS(self, domain: Domain) -> None:
        name = tlsrptRecordName(domain)
        answer = await self._resolver.lookup(name, RRType.TXT)
        if answer.failed:
            return self._retrySoon()
        record = findTLSRPTRecord(answer.texts)
        uris = () if isinstance(record, TLSRPTRecordError) else record.rua
        self._found[name] = self._addresses(uris)

    def _retrySoon(self) -> None:
        self._due = min(self._due, self._clock.seconds() + RETRY)

    def _addresses(self, uris: Iterable[str]) -> frozenset[Address]:
        chosen, _ = chooseDestinations(uris, MAX_ADDRESSES)
        return self._exact(each.address for each in chosen if each.address is not None)

    def _exact(self, addresses: Iterable[Address]) -> frozenset[Address]:
        spelled = map(self._equivalents, addresses)
        return frozenset(each[0] for each in spelled if each)
