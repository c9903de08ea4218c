# -*- test-case-name: tests.dmarc.test_alignment -*-
"""
Identifier alignment (RFC 9989 4.4, 4.10.2), and the authenticated domains of a
message.  No I/O.

The tree walks of all domains are made in parallel.  None is made if its result can't
matter: the organizational domain of a name is the name itself or above it, so domains
that aren't under the author's organizational domain aren't aligned.  Ten signatures
of unrelated domains cost no lookup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moxtls.authentication.results import Authentication, AuthResult
from moxtls.dmarc.discovery import PublicSuffixes, organizationalDomain
from moxtls.dmarc.types import Alignment, Discovery
from moxtls.dns.query import LookupGenerator, parallel
from moxtls.domain import Domain, InvalidDomain
from moxtls.ipaddresses import IPNetwork, parseIP

#: Distinct domains that are looked up, those that pass first: more than sign any
#: legitimate message, and few enough to bound the lookups.
MAX_WALKS = 20

#: Organizational domains by domain; C{None} if the lookup failed.
Organizations = dict[Domain, Domain | None]


@dataclass(frozen=True, slots=True)
class Aligned:
    """
    The alignment of identifiers, whether or not they pass.

    @ivar dkim: For each of C{Authentication.dkim}, true if it is aligned.
    @ivar spf: True if the domain of C{Authentication.spf} is aligned.
    @ivar temporary: True if a lookup failed on which the alignment of an identifier
        depends that passes, or may have passed.
    """

    dkim: tuple[bool, ...] = ()
    spf: bool = False
    temporary: bool = False


def align(
    discovery: Discovery,
    authentication: Authentication,
    suffixes: PublicSuffixes | None = None,
) -> LookupGenerator[Aligned]:
    """
    Determine the alignment of all identifiers.

    @param suffixes: The same as for C{discovery}.
    """
    sender = spfDomain(authentication)
    domains = _domainsToLookUp(discovery, authentication, sender)
    known: Organizations = {}
    if domains:
        found = yield from parallel(
            [organizationalDomain(d, suffixes) for d in domains]
        )
        known = dict(zip(domains, found, strict=True))
    return _alignedFrom(discovery, authentication, sender, known)


def alignWithoutLookups(
    discovery: Discovery, authentication: Authentication
) -> Aligned | None:
    """
    The result of L{align} if it needs no lookups, which is the common case; C{None}
    if it needs some.
    """
    sender = spfDomain(authentication)
    if _domainsToLookUp(discovery, authentication, sender):
        return None
    return _alignedFrom(discovery, authentication, sender, {})


def _domainsToLookUp(
    discovery: Discovery, authentication: Authentication, sender: Domain | None
) -> Sequence[Domain]:
    record = discovery.record
    if record is None or discovery.temporary:
        return ()
    signed = [
        each for each in authentication.dkim if _needsLookup(each.domain, discovery)
    ]
    signed.sort(key=lambda each: not _mayPass(each.status))
    domains = [each.domain for each in signed]
    mayHelp = record.aspf is not Alignment.STRICT and _mayPass(
        authentication.spf.status
    )
    if mayHelp and sender is not None and _needsLookup(sender, discovery):
        domains.insert(0, sender)
    return tuple(dict.fromkeys(domains))[:MAX_WALKS]


def _needsLookup(domain: Domain, discovery: Discovery) -> bool:
    isBelow = domain.isUnder(discovery.organizational)
    return isBelow and domain != discovery.author


def _alignedFrom(
    discovery: Discovery,
    authentication: Authentication,
    sender: Domain | None,
    known: Organizations,
) -> Aligned:
    record = discovery.record
    if record is None:
        return Aligned((False,) * len(authentication.dkim))
    dkim = [
        _isAligned(each.domain, record.adkim, discovery, known)
        for each in authentication.dkim
    ]
    spf = sender is not None and _isAligned(sender, record.aspf, discovery, known)
    undecided = [
        each.status
        for each, aligned in zip(authentication.dkim, dkim, strict=True)
        if aligned is None
    ]
    if spf is None:
        undecided.append(authentication.spf.status)
    temporary = any(map(_mayPass, undecided))
    return Aligned(tuple(map(bool, dkim)), bool(spf), temporary)


def _isAligned(
    domain: Domain, mode: Alignment, discovery: Discovery, known: Organizations
) -> bool | None:
    """
    C{None} if it depends on a lookup that failed.
    """
    # RFC 9989 4.10.2: the same domain is aligned, whatever its organization.
    if domain == discovery.author:
        return True
    if mode is Alignment.STRICT:
        return False
    if discovery.temporary:
        # The organizational domain may be any domain above the author domain, so
        # only a different top-level domain is certain not to be aligned.
        return None if _top(domain) == _top(discovery.author) else False
    if not domain.isUnder(discovery.organizational) or domain not in known:
        return False
    organizational = known[domain]
    if organizational is None:
        return None
    return organizational == discovery.organizational


def _top(domain: Domain) -> str:
    return domain.ascii.rpartition(".")[2]


def _mayPass(status: AuthResult) -> bool:
    return status in (AuthResult.PASS, AuthResult.TEMPERROR)


def spfDomain(authentication: Authentication) -> Domain | None:
    """
    The identifier that SPF authenticates: the domain of MAIL FROM, or of HELO if
    that is empty (RFC 9989 3.2.4, 4.4.2); C{None} if it isn't a valid domain.
    """
    try:
        return Domain.parse(authentication.spf.domain)
    except InvalidDomain:
        return None


def verifiedDomains(authentication: Authentication) -> tuple[Domain, ...]:
    """
    The domains that SPF or DKIM has authenticated.
    """
    domains = [d.domain for d in authentication.dkim if d.status is AuthResult.PASS]
    sender = spfDomain(authentication)
    if sender is not None and authentication.spf.status is AuthResult.PASS:
        domains.append(sender)
    return tuple(domains)


def clientNames(authentication: Authentication) -> tuple[Domain, ...]:
    """
    The verified names of the SMTP client.  They identify forwarders, most of which
    leave MAIL FROM unchanged.
    """
    names = []
    if authentication.helo.status is AuthResult.PASS:
        names.append(authentication.helo.domain)
    if authentication.iprev.status is AuthResult.PASS:
        names.append(authentication.iprev.name)
    return tuple(domain for name in names for domain in _parsed(name))


def _parsed(name: str) -> tuple[Domain, ...]:
    try:
        return (Domain.parse(name),)
    except InvalidDomain:
        return ()


def firstUnder(domains: Sequence[Domain], trusted: frozenset[Domain]) -> Domain | None:
    """
    The first domain of C{trusted}, in order, that one of C{domains} is equal to or
    under; C{None} if there is none.
    """
    return next(
        (each for each in sorted(trusted) if any(d.isUnder(each) for d in domains)),
        None,
    )


def isWithin(address: str, networks: Sequence[IPNetwork]) -> bool:
    """
    True if C{address} is an IP address in one of C{networks}.
    """
    ip = parseIP(address)
    return ip is not None and any(ip in network for network in networks)
