# -*- test-case-name: tests.dns.test_service -*-
"""
A resolver service that probes its servers for DNSSEC validation.
"""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dates import MINUTE
from moxtls.dns.resolver import Resolver
from moxtls.dns.types import Answer, RRType
from moxtls.dns.validation import Diagnosis
from moxtls.interfaces import IResolver

#: Seconds until a change of the servers is noticed.
PROBE_INTERVAL = MINUTE


@implementer(IResolver)
class ProbedResolver(Service):
    """
    Probes the servers at the start and every L{PROBE_INTERVAL} seconds, and logs
    each change of the result.

    Lookups wait for the end of the first probe: otherwise the first messages after
    a start would be sent without DANE.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, resolver: Resolver) -> None:
        self._resolver = resolver
        self._description: str | None = None
        self._waiting: set[Deferred[None]] = set()
        self._probing: Deferred[None] = succeed(None)
        self._loop = LoopingCall(self._probe)
        self._loop.clock = clock

    @property
    def validating(self) -> bool:
        return self._resolver.validating

    def startService(self) -> None:
        super().startService()
        self._loop.start(PROBE_INTERVAL)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        self._probing.cancel()
        return self._probing

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        if self._description is not None:
            return self._resolver.lookup(name, kind)
        return Deferred.fromCoroutine(self._lookupLater(name, kind))

    def probe(self) -> Deferred[Diagnosis]:
        """
        Probe now.

        @return: Fires with the diagnosis.
        """
        return self._resolver.probe().addCallback(self._diagnosed)

    async def _lookupLater(self, name: str, kind: RRType) -> Answer:
        waiting: Deferred[None] = Deferred(self._waiting.discard)
        self._waiting.add(waiting)
        await waiting
        return await self._resolver.lookup(name, kind)

    def _probe(self) -> None:
        self._probing = Deferred.fromCoroutine(self._probeAndLog())

    async def _probeAndLog(self) -> None:
        try:
            await self.probe()
        except CancelledError:
            pass  # stopService
        except Exception:
            self.log.failure("probing DNS servers failed")

    def _diagnosed(self, diagnosis: Diagnosis) -> Diagnosis:
        description = diagnosis.describe()
        if description != self._description:
            self._description = description
            log = self.log.info if diagnosis.validating else self.log.critical
            log("{diagnosis}", diagnosis=description)
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            each.callback(None)
        return diagnosis
