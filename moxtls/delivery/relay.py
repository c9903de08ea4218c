# -*- test-case-name: tests.delivery.test_relay -*-
"""
Delivers all mail through a relay (smarthost).

Uses neither DANE nor MTA-STS, and records no TLS outcome: the relay reports on
TLS with the recipients' hosts (RFC 8460 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from moxtls.delivery.mx import Host
from moxtls.delivery.results import (
    MAX_SESSIONS,
    REQUIRETLS_STATUS,
    DeliveryError,
    RecipientResults,
    sessionLimitReached,
    tlsFailed,
    unreachableHost,
)
from moxtls.delivery.sessions import (
    connectOrder,
    deliverBatch,
    lookUpAddresses,
    sessionError,
)
from moxtls.dns.types import RRType
from moxtls.domain import AddressLiteral, Domain
from moxtls.interfaces import ICourier, IResolver, IResultRecorder
from moxtls.queue.types import Batch, BatchMessage, Result
from moxtls.smtp.client.connection import ConnectFailed, SessionFailed, TLSFailed
from moxtls.smtp.client.session import ClientSession

_INSECURE = "REQUIRETLS was asked for, and nothing vouches for the relay"

#: Opens a session with the relay at an IP address.
DialRelay = Callable[[str], Deferred[ClientSession]]


@dataclass(frozen=True, slots=True)
class Relay:
    """
    The relay, and how it is reached.

    @ivar families: The types of its address records, in order of preference.
    @ivar secure: True if its sessions are encrypted and authenticated: only then
        messages with REQUIRETLS may be relayed (RFC 8689 4.2.1).
    """

    host: Host
    families: tuple[RRType, ...]
    secure: bool


@implementer(ICourier)
class SmarthostCourier:
    """
    Delivers all mail to one relay.
    """

    def __init__(
        self,
        resolver: IResolver,
        relay: Relay,
        dial: DialRelay,
        release: Callable[[ClientSession], None],
    ) -> None:
        """
        @param release: As L{moxtls.delivery.sessions.Dialer.release}.
        """
        self._resolver = resolver
        self._relay = relay
        self._dial = dial
        self._release = release

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        return Deferred.fromCoroutine(self._deliver(batch, recorder))

    async def _deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> tuple[Result, ...]:
        results = RecipientResults(batch)
        host = self._relay.host
        try:
            if batch.requireTLS and not self._relay.secure:
                error = DeliveryError(REQUIRETLS_STATUS, _INSECURE, str(host))
                results.addHostError(error)
            else:
                await self._tryRelay(batch, results, recorder)
        except CancelledError:
            # Messages that the relay has accepted must not be sent again.
            results.expire()
            return results.final()
        results.finish()
        return results.final()

    async def _tryRelay(
        self, batch: Batch, results: RecipientResults, recorder: IResultRecorder
    ) -> None:
        relay = self._relay
        found = await lookUpAddresses(self._resolver, relay.host, relay.families)
        if not found.addresses:
            results.addHostError(unreachableHost(found))
        for ip in connectOrder(found.addresses):
            try:
                await self._tryAddress(ip, batch, results, recorder)
            except ConnectFailed as failed:
                reason = f"{ip}: {failed.reason}"
                results.addHostError(DeliveryError("4.4.1", reason, str(relay.host)))
            else:
                return

    async def _tryAddress(
        self,
        ip: str,
        batch: Batch,
        results: RecipientResults,
        recorder: IResultRecorder,
    ) -> None:
        rest = batch.messages
        for _ in range(MAX_SESSIONS):
            rest = await self._session(ip, batch, rest, results, recorder)
            if not rest:
                return
        results.addHostError(sessionLimitReached(str(self._relay.host)))

    async def _session(
        self,
        ip: str,
        batch: Batch,
        messages: tuple[BatchMessage, ...],
        results: RecipientResults,
        recorder: IResultRecorder,
    ) -> tuple[BatchMessage, ...]:
        """
        @return: As L{deliverBatch}.
        """
        host = str(self._relay.host)
        try:
            session = await self._dial(ip)
        except TLSFailed as failed:
            results.addHostError(tlsFailed(failed.reason, failed.reply, host))
            return ()
        except SessionFailed as failed:
            # A refusal of the session is a fault of our configuration: a wrong
            # password is no reason to bounce all mail.
            results.addHostError(sessionError(failed, host, lenient=True))
            return ()
        try:
            required = batch.requireTLS is True
            return await deliverBatch(
                session, messages, results, recorder, host, required
            )
        finally:
            self._release(session)


def parseRelayHost(text: str) -> Host:
    """
    Read the host of a relay.

    @param text: A name, or an IP address.

    @raise InvalidDomain: It is neither.
    """
    try:
        return AddressLiteral.parse(f"[IPv6:{text}]" if ":" in text else f"[{text}]")
    except ValueError:
        return Domain.parse(text)
