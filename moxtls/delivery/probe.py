# -*- test-case-name: tests.delivery.test_probe -*-
"""
Probes a domain's hosts: the connections of a delivery, without any mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.delivery.attempt import DeliveryContext, DirectAttempt, HostAttempt
from moxtls.delivery.results import DeliveryError, RecipientResults
from moxtls.domain import Domain
from moxtls.interfaces import IResultRecorder, ISessionObserver
from moxtls.queue.types import Batch, BatchMessage, Result
from moxtls.smtp.client.session import ClientSession
from moxtls.tls.session import SessionRecord
from moxtls.tlsrpt.types import SessionOutcome


@dataclass(frozen=True, slots=True)
class HostProbe:
    """
    One connection to one host.

    @ivar attempt: The host, and the settings of the session.
    @ivar ready: True if the session reached the point at which mail would have
        been sent.
    """

    attempt: HostAttempt
    record: SessionRecord
    ready: bool = False


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """
    Everything that was found about a domain.

    @ivar outcome: The results that a TLS report would contain.
    @ivar errors: Reasons why hosts would accept no mail.
    """

    outcome: SessionOutcome
    hosts: tuple[HostProbe, ...]
    errors: tuple[DeliveryError, ...]


async def probe(context: DeliveryContext, domain: Domain) -> ProbeResult:
    """
    Look up the policies of C{domain}, and connect to each of its hosts.
    """
    observer = _KeepingObserver()
    attempt = _ProbeAttempt(replace(context, observer=observer), domain)
    await attempt.run()
    return ProbeResult(
        observer.outcomes[0], tuple(attempt.hosts), attempt.results.errors
    )


class _ProbeAttempt(DirectAttempt):
    """
    An attempt without messages that connects to all hosts, not only to the
    first that accepts mail.
    """

    def __init__(self, context: DeliveryContext, domain: Domain) -> None:
        super().__init__(context, Batch(domain.ascii, ()), _NullRecorder())
        self.hosts: list[HostProbe] = []

    @property
    def results(self) -> RecipientResults:
        return self._results

    def _isComplete(self) -> bool:
        return False

    async def _deliver(
        self, session: ClientSession, attempt: HostAttempt
    ) -> tuple[BatchMessage, ...]:
        self.hosts[-1] = replace(self.hosts[-1], ready=True)
        return ()

    def _countSession(self, record: SessionRecord, attempt: HostAttempt) -> None:
        super()._countSession(record, attempt)
        self.hosts.append(HostProbe(attempt, record))


@implementer(ISessionObserver)
@dataclass(frozen=True, slots=True)
class _KeepingObserver:
    outcomes: list[SessionOutcome] = field(default_factory=list)

    def sessionEnded(self, outcome: SessionOutcome) -> Deferred[None]:
        self.outcomes.append(outcome)
        return succeed(None)


@implementer(IResultRecorder)
class _NullRecorder:
    """
    Records nothing: without messages there are no results.
    """

    def record(self, results: Sequence[Result]) -> Deferred[None]:
        return succeed(None)
