# -*- test-case-name: tests.outbound.test_delivery -*-
"""
What deliveries straight to hosts are given, and on which terms they visit
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from moxtls.dns.answers import RRType
from moxtls.interfaces import IPolicyCache, IResolver, ISessionObserver
from moxtls.outbound.outcome import PolicyCounter
from moxtls.outbound.ownhosts import OwnHosts
from moxtls.policy.require import SessionRequirements
from moxtls.queue.values import BatchMessage
from moxtls.smtp.session import ClientSession
from moxtls.smtp.values import TLSMode

#: Opens a session with an IP address under the given terms.
Dial = Callable[[str, "SessionSettings"], Deferred[ClientSession]]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """
    What a session with a host has to be like.

    @ivar names: The first is said in SNI; for DANE the certificate may be for
        any.
    @ivar webName: For the Web PKI it has to be for this one (RFC 8461 4.1).
    """

    tlsMode: TLSMode
    names: tuple[str, ...]
    webName: str
    demands: SessionRequirements


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """
    What a courier needs of the rest, shared by all its attempts.

    @ivar families: In order of preference.
    @ivar own: Says to which hosts no mail may go, as they are this one; C{None}
        if it may go to all.
    """

    resolver: IResolver
    policies: IPolicyCache
    observer: ISessionObserver
    dial: Dial
    leave: Callable[[ClientSession], None]
    port: int
    families: tuple[RRType, ...]
    jitter: Callable[[], float]
    own: OwnHosts | None = None


@dataclass(frozen=True, slots=True)
class HostAttempt:
    """
    Going to one host.

    @ivar parcels: What to bring.
    @ivar tallying: Where to count; C{None} for an address literal.
    @ivar lenient: As in L{Progress.answered}.
    """

    host: str
    terms: SessionSettings
    parcels: tuple[BatchMessage, ...]
    tallying: PolicyCounter | None
    lenient: bool = False
