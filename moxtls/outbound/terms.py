# -*- test-case-name: tests.outbound.test_delivery -*-
"""
What deliveries straight to hosts are given, and on which terms they visit
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from moxtls.dns.answers import Kind
from moxtls.interfaces import IPolicyCache, IResolver, ISessionObserver
from moxtls.outbound.outcome import Tallying
from moxtls.outbound.ownhosts import OwnHosts
from moxtls.policy.require import Demands
from moxtls.queue.values import Parcel
from moxtls.smtp.session import Session
from moxtls.smtp.values import TLSMode

#: Opens a session with an IP address under the given terms.
Dial = Callable[[str, "Terms"], Deferred[Session]]


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What a session with a host has to be like.

    @ivar names: The first is said in SNI; for DANE the certificate may be for
        any.
    @ivar webName: For the Web PKI it has to be for this one (RFC 8461 4.1).
    """

    tlsMode: TLSMode
    names: tuple[str, ...]
    webName: str
    demands: Demands


@dataclass(frozen=True, slots=True)
class Surroundings:
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
    leave: Callable[[Session], None]
    port: int
    families: tuple[Kind, ...]
    jitter: Callable[[], float]
    own: OwnHosts | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """
    Going to one host.

    @ivar parcels: What to bring.
    @ivar tallying: Where to count; C{None} for an address literal.
    @ivar lenient: As in L{Progress.answered}.
    """

    host: str
    terms: Terms
    parcels: tuple[Parcel, ...]
    tallying: Tallying | None
    lenient: bool = False
