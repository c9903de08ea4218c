# -*- test-case-name: tests.tlsrpt.test_recorder -*-
"""
Puts session outcomes where reports will find them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from datetime import date
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dates import utcDay
from moxtls.domain import Domain
from moxtls.interfaces import IOutcomeRecorder, ISessionObserver
from moxtls.outages import Backlog
from moxtls.tlsrpt.types import PolicyType, SessionOutcome

#: A number of its own, so that none is written twice if another one fails; the day,
#: and what TLS did.
_Entry = tuple[int, date, SessionOutcome]


@implementer(ISessionObserver)
class OutcomeRecorder:
    """
    Records each outcome under the day in which its attempt ended.  Where the store
    is unavailable, outcomes wait for it, as many as there is room for.
    """

    log = Logger()

    def __init__(
        self, clock: IReactorTime, store: IOutcomeRecorder, enabled: bool = True
    ) -> None:
        """
        @param enabled: If not, nothing is recorded.
        """
        self._clock = clock
        self._store = store
        self._enabled = enabled
        self._numbers = count()
        self._backlog = Backlog(clock, "TLS outcomes", self._record)

    def sessionEnded(self, outcome: SessionOutcome) -> Deferred[None]:
        if outcome.isTLSReport:
            # RFC 8460 3: left out of the next report, so of what is counted.
            self._write(outcome)
            return succeed(None)
        if not self._enabled:
            return succeed(None)
        if _isAddress(outcome.recipientDomain):
            return succeed(None)
        if outcome.recipient is None and not outcome.hosts:
            # Nothing was seen, as when something of ours was in the way.
            return succeed(None)
        day = utcDay(self._clock.seconds())
        entry = (next(self._numbers), day, countedOnce(withoutContradiction(outcome)))
        return self._backlog.record(entry)

    def stop(self) -> Deferred[None]:
        """
        Fires once all that waited for the store is written, or can't be.
        """
        return Deferred.fromCoroutine(self._backlog.stop())

    def _record(self, entry: _Entry, times: int) -> Deferred[None]:
        _, day, outcome = entry
        return self._store.record(day, outcome)

    def _write(self, outcome: SessionOutcome) -> None:
        own = (outcome.recipient,) if outcome.recipient is not None else ()
        for tally in (*own, *outcome.hosts):
            self.log.info(
                "TLS report for {domain}: {policy} of {of}: {good} good, {bad} bad, "
                "{failures}",
                domain=outcome.recipientDomain,
                policy=tally.policy.type,
                of=tally.policy.domain,
                good=tally.succeeded,
                bad=tally.failed,
                failures=[(str(f.resultType), f.reasonCode) for f in tally.failures],
            )


def withoutContradiction(outcome: SessionOutcome) -> SessionOutcome:
    """
    Mail for a host that is its own mail host: its TLSA records were applied,
    and a report shall not say at the same time that it has no policy.
    """
    recipient = outcome.recipient
    if recipient is None or recipient.policy.type is not PolicyType.NO_POLICY:
        return outcome
    policies = (host.policy for host in outcome.hosts)
    withTLSA = {each.domain for each in policies if each.type is PolicyType.TLSA}
    if recipient.policy.domain in withTLSA:
        return replace(outcome, recipient=None)
    return outcome


def countedOnce(outcome: SessionOutcome) -> SessionOutcome:
    """
    Mail for a host that is its own mail host, without any policy: as recipient
    domain and as host it is the same entry of a report, in which its sessions
    shall be counted once.  What is counted for the recipient domain has all
    that is counted for the host in it.
    """
    recipient = outcome.recipient
    if recipient is None:
        return outcome
    hosts = tuple(each for each in outcome.hosts if each.policy != recipient.policy)
    return outcome if hosts == outcome.hosts else replace(outcome, hosts=hosts)


def _isAddress(domain: Domain) -> bool:
    # Nobody can publish a record for an address.
    try:
        ipaddress.ip_address(domain.ascii)
    except ValueError:
        return False
    return True
