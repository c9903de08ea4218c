# -*- test-case-name: tests.inbound.test_spfrecord -*-
"""
What SPF records are made of.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from moxtls.authentication import AuthResult
from moxtls.inbound.spfmacro import MacroString


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """
    @ivar letters: Of the macros in it.
    """

    parts: MacroString
    letters: frozenset[str]


@dataclass(frozen=True, slots=True)
class AllMechanism:
    """
    RFC 7208 5.1.
    """


@dataclass(frozen=True, slots=True)
class IncludeMechanism:
    """
    RFC 7208 5.2.
    """

    domain: DomainSpec


@dataclass(frozen=True, slots=True)
class AMechanism:
    """
    RFC 7208 5.3; without a C{domain}, it is the one that is checked.

    @ivar prefix4: Bits of an IPv4 address that count.
    """

    domain: DomainSpec | None = None
    prefix4: int = 32
    prefix6: int = 128


@dataclass(frozen=True, slots=True)
class MXMechanism:
    """
    RFC 7208 5.4; see L{AMechanism}.
    """

    domain: DomainSpec | None = None
    prefix4: int = 32
    prefix6: int = 128


@dataclass(frozen=True, slots=True)
class PTRMechanism:
    """
    RFC 7208 5.5; see L{AMechanism}.
    """

    domain: DomainSpec | None = None


@dataclass(frozen=True, slots=True)
class IPMechanism:
    """
    RFC 7208 5.6: C{ip4} and C{ip6}.

    @ivar version: 4 or 6.
    @ivar address: As a number; bits beyond C{prefix} may be set.
    """

    version: int
    address: int
    prefix: int


@dataclass(frozen=True, slots=True)
class ExistsMechanism:
    """
    RFC 7208 5.7.
    """

    domain: DomainSpec


Mechanism = (
    AllMechanism
    | IncludeMechanism
    | AMechanism
    | MXMechanism
    | PTRMechanism
    | IPMechanism
    | ExistsMechanism
)


@dataclass(frozen=True, slots=True)
class Directive:
    """
    @ivar result: What it comes to if C{mechanism} matches.
    @ivar text: As published.
    """

    result: AuthResult
    mechanism: Mechanism
    text: str


@dataclass(frozen=True, slots=True)
class SPFRecord:
    """
    @ivar directives: Up to the first C{all}, behind which nothing counts.
    @ivar redirect: C{None} also if there is an C{all} (RFC 7208 6.1).
    """

    directives: tuple[Directive, ...] = ()
    redirect: DomainSpec | None = None
    explanation: DomainSpec | None = None
