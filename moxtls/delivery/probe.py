# -*- test-case-name: tests.delivery.test_probe -*-
"""
What a delivery to a domain would meet, without any mail.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.delivery.attempt import Attempt, DeliveryContext, HostAttempt
from moxtls.delivery.results import DeliveryError, RecipientResults
from moxtls.domain import Domain
from moxtls.interfaces import ISessionObserver
from moxtls.queue.memory import MemoryResultRecorder
from moxtls.queue.types import Batch, BatchMessage
from moxtls.smtp.client.session import ClientSession
from moxtls.tls.session import SessionRecord
from moxtls.tlsrpt.types import SessionOutcome


@dataclass(frozen=True, slots=True)
class HostProbe:
    """
    One connection to one host.

    @ivar taken: Whether it came to where mail would have been handed over.
    """

    visit: HostAttempt
    record: SessionRecord
    taken: bool = False


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """
    @ivar outcome: What would be reported.
    @ivar troubles: Why hosts would take no mail.
    """

    outcome: SessionOutcome
    sightings: tuple[HostProbe, ...]
    troubles: tuple[DeliveryError, ...]


async def probe(context: DeliveryContext, domain: Domain) -> ProbeResult:
    """
    Look up the policies of C{domain}, and connect to every host of it.
    """
    kept = _Kept()
    around = replace(context, observer=kept)
    surveying = _Survey(around, Batch(domain.ascii, ()))
    await surveying.run()
    return ProbeResult(
        kept.outcomes[0], tuple(surveying.sightings), surveying.progress.troubles
    )


class _Survey(Attempt):
    """
    An attempt that has nothing to deliver, and visits every host.
    """

    def __init__(self, context: DeliveryContext, batch: Batch) -> None:
        super().__init__(context, batch, MemoryResultRecorder())
        self.sightings: list[HostProbe] = []

    @property
    def progress(self) -> RecipientResults:
        return self._progress

    def _over(self) -> bool:
        return False

    async def _carry(
        self, session: ClientSession, visit: HostAttempt
    ) -> tuple[BatchMessage, ...]:
        self.sightings[-1] = replace(self.sightings[-1], taken=True)
        return ()

    def _saw(self, record: SessionRecord, visit: HostAttempt) -> None:
        super()._saw(record, visit)
        self.sightings.append(HostProbe(visit, record))


@implementer(ISessionObserver)
@dataclass(frozen=True, slots=True)
class _Kept:
    outcomes: list[SessionOutcome] = field(default_factory=list)

    def sessionEnded(self, outcome: SessionOutcome) -> Deferred[None]:
        self.outcomes.append(outcome)
        return succeed(None)
