# -*- test-case-name: tests.received.analysis.test_questions -*-
"""
Asks the store, the history of listeners and the DNS for what the answers about a domain
need.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from moxtls.authentication.check import checkIPRev
from moxtls.authentication.results import AuthResult
from moxtls.config import Config
from moxtls.dates import DAY
from moxtls.dmarc.discovery import PublicSuffixes, discover, requestedPolicy
from moxtls.dmarc.record import DMARCRecordError, dmarcRecordName
from moxtls.dmarc.types import Discovery
from moxtls.dns.types import Answer, RRType
from moxtls.domain import Domain, InvalidDomain
from moxtls.interfaces import IPolicyFetcher, IResolver
from moxtls.ipaddresses import canonicalIP
from moxtls.mtasts.policy import (
    NoRecord,
    STSPolicy,
    STSRecord,
    recordFromAnswer,
    stsRecordName,
)
from moxtls.received.analysis.answers import (
    DMARCAnswer,
    FailureReason,
    TLSAnswer,
    answerDMARC,
    answerTLS,
    failureReasons,
    recentDays,
)
from moxtls.received.analysis.correlation import correlate, localListener
from moxtls.received.analysis.readiness import (
    DMARC_SPAN,
    STS_SPAN,
    PublishedRecords,
    Step,
    steps,
)
from moxtls.received.analysis.sources import OwnSenders, groupSources
from moxtls.received.interfaces import IListenerHistory, IReceivedReportStore
from moxtls.received.types import DMARCSource, ReceivedKind
from moxtls.tasks import gather, resolve
from moxtls.tlsrpt.types import TLSRPTRecord, findTLSRPTRecord, tlsrptRecordName

#: Seconds for all DNS and HTTPS lookups of one command or page.
LOOKUP_TIME = 5.0
#: Addresses of one domain whose names are looked up: those with most messages.
MAX_NAMES = 30
#: Groups of failures, networks and reporters of one domain that are looked at: those
#: with most sessions or messages.
MAX_FAILURES = 1000
MAX_SOURCES = 5000
MAX_ASKED_REPORTERS = 1000

NOT_LOOKED_UP = "not looked up"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lookups:
    """
    The lookups for answers.

    @ivar fetcher: Of MTA-STS policies.
    """

    resolver: IResolver
    fetcher: IPolicyFetcher


@dataclass(frozen=True, slots=True)
class OwnHost:
    """
    This host.

    @ivar senders: Its names and addresses, for any domain.
    @ivar node: Its name among those that share the ledger.
    @ivar listeners: The names of its listeners.
    """

    senders: OwnSenders
    node: str = ""
    listeners: frozenset[str] = frozenset()


class ReportQuestions:
    """
    The questions of one command or page.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: IReceivedReportStore,
        history: IListenerHistory,
        own: OwnHost,
        lookups: Lookups | None,
    ) -> None:
        """
        @param lookups: C{None} to look nothing up.
        """
        self._clock = clock
        self._store = store
        self._history = history
        self._host = own
        self._own = own.senders
        self._isComplete = False
        self._lookups = lookups
        self._end: float | None = None
        self._suffixes = PublicSuffixes()
        self._names: dict[str, str] = {}

    async def tls(self, domain: Domain, first: int, last: int) -> TLSAnswer:
        """
        The answer about TLS in mail to C{domain}.
        """
        name, store = domain.ascii, self._store
        reasons = failureReasons(
            await store.tlsFailures(name, first, last, MAX_FAILURES)
        )
        if reasons:
            reasons = await self._correlated(reasons, domain)
        return answerTLS(
            name,
            first,
            last,
            await store.tlsDays(name, first, last),
            reasons,
            await store.reporters(
                ReceivedKind.TLS, name, first, last, MAX_ASKED_REPORTERS
            ),
        )

    async def _correlated(
        self, reasons: Sequence[FailureReason], domain: Domain
    ) -> tuple[FailureReason, ...]:
        start = min(each.firstDay for each in reasons) * DAY
        end = (max(each.lastDay for each in reasons) + 1) * DAY
        handshakes = [
            replace(each, listener=listener)
            for each in await self._history.failures(start, end)
            if (listener := self._local(each.listener))
        ]
        certificates = [
            replace(each, listener=listener)
            for each in await self._history.certificates(start, end)
            if (listener := self._local(each.listener))
        ]
        own = await self._ownHosts()
        hosts = own.names | own.addresses
        return tuple(
            replace(each, events=correlate(each, handshakes, certificates, hosts))
            for each in reasons
        )

    def _local(self, key: str) -> str | None:
        return localListener(key, self._host.node, self._host.listeners)

    async def dmarc(
        self,
        domain: Domain,
        first: int,
        last: int,
        published: PublishedRecords | None = None,
    ) -> DMARCAnswer:
        """
        The answer about mail from C{domain}.

        @param published: Looked up if not given.
        """
        name, store = domain.ascii, self._store
        sources = await store.dmarcSources(name, first, last, MAX_SOURCES)
        days = await store.dmarcDays(name, first, last)
        recent: tuple[DMARCSource, ...] = ()
        if days:
            latest = recentDays(days, first)
            recent = await store.dmarcSources(name, *latest, MAX_SOURCES)
        published = published or await self.published(domain)
        own = replace(await self._ownHosts(), domain=name)
        names = await self._namesOf(sources)
        return answerDMARC(
            name,
            first,
            last,
            days,
            groupSources(sources, own, names, self._organizational),
            groupSources(recent, own, names, self._organizational),
            await store.reporters(
                ReceivedKind.DMARC, name, first, last, MAX_ASKED_REPORTERS
            ),
            published.isEnforced,
        )

    async def readiness(self, domain: Domain, today: int) -> tuple[Step, ...]:
        """
        The readiness of C{domain} for stricter policies, from the reports before
        C{today}.
        """
        published = await self.published(domain)
        return steps(
            published,
            await self.tls(domain, today - STS_SPAN, today - 1),
            await self.dmarc(domain, today - DMARC_SPAN, today - 1, published),
        )

    # --- lookups ------------------------------------------------------------------

    async def published(self, domain: Domain) -> PublishedRecords:
        """
        Look up the records and the policy that C{domain} publishes now.
        """
        lookups = self._lookups
        if lookups is None:
            return _unknown(domain, NOT_LOOKED_UP)
        looking = Deferred.fromCoroutine(self._published(domain, lookups))
        return await self._inTime(looking, _unknown(domain, "lookups took too long"))

    async def _published(self, domain: Domain, lookups: Lookups) -> PublishedRecords:
        resolver = lookups.resolver
        discovery = Deferred.fromCoroutine(resolve(resolver, discover(domain)))
        policy = Deferred.fromCoroutine(_policy(domain, lookups))
        tlsrpt = resolver.lookup(tlsrptRecordName(domain), RRType.TXT)
        mx = resolver.lookup(domain.ascii, RRType.MX)
        try:
            found = await discovery, await policy, await tlsrpt, await mx
        finally:
            for each in (discovery, policy, tlsrpt, mx):
                each.cancel()
                each.addErrback(lambda _: None)
        return _assembled(domain, *found)

    async def _namesOf(self, sources: Iterable[DMARCSource]) -> dict[str, str]:
        """
        The reverse names of the sources with most messages that resolve back.
        """
        asked = dict.fromkeys(each.source for each in sources)
        new = [each for each in list(asked)[:MAX_NAMES] if each not in self._names]
        lookups = self._lookups
        if lookups is not None:
            looking = [
                Deferred.fromCoroutine(_reverseName(each, lookups.resolver))
                for each in new
            ]
            limited = [
                Deferred.fromCoroutine(self._inTime(each, "")) for each in looking
            ]
            self._names.update(zip(new, await gather(limited), strict=True))
        return {each: name for each, name in self._names.items() if name}

    async def _ownHosts(self) -> OwnSenders:
        """
        With the addresses of this host's names in the DNS: behind NAT they aren't in
        the configuration.
        """
        own, lookups = self._own, self._lookups
        if lookups is not None and not self._isComplete:
            self._isComplete = True
            looking = [
                lookups.resolver.lookup(name, kind)
                for name in sorted(own.names)
                for kind in (RRType.A, RRType.AAAA)
            ]
            answers = await self._inTime(Deferred.fromCoroutine(gather(looking)), [])
            found = {ip for answer in answers for ip in answer.addresses}
            self._own = replace(own, addresses=own.addresses | found)
        return self._own

    async def _inTime(self, looking: Deferred[T], default: T) -> T:
        """
        The result of lookups, or C{default} if they take too long.
        """
        now = self._clock.seconds()
        if self._end is None:
            self._end = now + LOOKUP_TIME
        try:
            return await looking.addTimeout(max(0, self._end - now), self._clock)
        except TimeoutError:
            return default

    def _organizational(self, name: str) -> str:
        try:
            return self._suffixes.organizational(Domain.parse(name)).ascii
        except InvalidDomain:
            return name


async def _reverseName(ip: str, resolver: IResolver) -> str:
    found = await resolve(resolver, checkIPRev(ip))
    return found.name.lower() if found.status is AuthResult.PASS else ""


async def _policy(domain: Domain, lookups: Lookups) -> STSPolicy | str | NoRecord:
    """
    The MTA-STS policy, or why there is none.
    """
    answer = await lookups.resolver.lookup(stsRecordName(domain), RRType.TXT)
    record = recordFromAnswer(answer)
    if not isinstance(record, STSRecord):
        return record
    found = await lookups.fetcher.fetch(domain)
    if isinstance(found, STSPolicy):
        return found
    return " ".join(filter(None, (found.resultType, found.reasonCode)))


def _assembled(
    domain: Domain,
    discovery: Discovery,
    policy: STSPolicy | str | NoRecord,
    tlsrpt: Answer,
    mx: Answer,
) -> PublishedRecords:
    record = findTLSRPTRecord(tlsrpt.texts)
    isKnown = not discovery.temporary
    if isinstance(policy, NoRecord):
        isKnown = isKnown and not policy.temporary
        policy = f"{policy.reasonCode} at {stsRecordName(domain)}"
    policyDomain = discovery.policyDomain or discovery.organizational
    isUsable = discovery.record is not None and not discovery.unusable
    return PublishedRecords(
        domain,
        policy if isinstance(policy, STSPolicy) else None,
        policy if isinstance(policy, str) else "",
        tuple(_domains(each.exchange for each in mx.mx)),
        discovery.record if isUsable else None,
        requestedPolicy(discovery),
        discovery.problem or DMARCRecordError.NONE,
        dmarcRecordName(policyDomain),
        record.rua if isinstance(record, TLSRPTRecord) else (),
        _tlsrptProblem(tlsrpt, record),
        isKnown,
    )


def _tlsrptProblem(answer: Answer, record: object) -> str:
    if isinstance(record, TLSRPTRecord):
        return "" if record.rua else "the record has no rua"
    return f"could not be looked up: {answer.reason}" if answer.failed else str(record)


def _domains(names: Iterable[str]) -> Iterable[Domain]:
    for name in names:
        try:
            yield Domain.parse(name)
        except InvalidDomain:
            # A null MX, RFC 7505.
            continue


def _unknown(domain: Domain, why: str) -> PublishedRecords:
    return PublishedRecords(
        domain,
        stsProblem=why,
        dmarcProblem=why,
        dmarcName=dmarcRecordName(domain),
        tlsrptProblem=why,
        isKnown=False,
    )


def ownHost(config: Config) -> OwnHost:
    """
    This host, by its configuration.
    """
    listening = {ip for each in config.listeners.values() for ip in each.address}
    # Those that stand for all addresses are none.
    addresses = frozenset(map(canonicalIP, listening - {"0.0.0.0", "::"}))
    return OwnHost(
        OwnSenders("", frozenset({config.hostname.ascii}), addresses),
        config.nodeName,
        frozenset(config.listeners),
    )
