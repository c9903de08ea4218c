# -*- test-case-name: tests.dns.test_service -*-
"""
A resolver that is known to validate, or known not to, before it is used.
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

#: A resolver that is replaced or breaks is noticed within this time.
PROBE_INTERVAL = MINUTE


@implementer(IResolver)
class ProbedResolver(Service):
    """
    Probes its servers at the start and from time to time, and says aloud what
    that means whenever it changes.

    What is asked before the first probe has ended waits for it: else the
    first messages after a start would go without DANE.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, resolver: Resolver) -> None:
        self._resolver = resolver
        self._known: str | None = None
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
        if self._known is not None:
            return self._resolver.lookup(name, kind)
        return Deferred.fromCoroutine(self._lookupLater(name, kind))

    def probe(self) -> Deferred[Diagnosis]:
        """
        Probe now.  Fires with what was found.
        """
        return self._resolver.probe().addCallback(self._found)

    async def _lookupLater(self, name: str, kind: RRType) -> Answer:
        waiting: Deferred[None] = Deferred(self._waiting.discard)
        self._waiting.add(waiting)
        await waiting
        return await self._resolver.lookup(name, kind)

    def _probe(self) -> None:
        self._probing = Deferred.fromCoroutine(self._probeQuietly())

    async def _probeQuietly(self) -> None:
        try:
            await self.probe()
        except CancelledError:
            pass  # stopService
        except Exception:
            self.log.failure("probing DNS servers")

    def _found(self, diagnosis: Diagnosis) -> Diagnosis:
        said = diagnosis.describe()
        if said != self._known:
            self._known = said
            say = self.log.info if diagnosis.validating else self.log.critical
            say("{diagnosis}", diagnosis=said)
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            each.callback(None)
        return diagnosis
