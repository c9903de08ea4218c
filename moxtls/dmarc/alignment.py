# -*- test-case-name: tests.dmarc.test_alignment -*-
"""
Which of the domains that speak for a message are those of its author
(RFC 9989 4.4, 4.10.2).  No I/O.

Each has a tree walk of its own, all side by side.  None is made where its end
can't matter: an organizational domain is the domain itself or above it, so what
isn't under the author's has another one.  So ten signatures of ten strangers
cost no question.

Who stands behind a message, be it its author or not.  No I/O.
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

#: Distinct domains that are looked into, those that pass first: far more than
#: sign any message, and few enough that nobody makes us ask for long.
MAX_WALKS = 20

#: The organizational domains that are known; C{None}: couldn't be looked up.
Organizations = dict[Domain, Domain | None]


@dataclass(frozen=True, slots=True)
class Aligned:
    """
    Which identifiers are in the author's name, whatever came of checking them.

    @ivar dkim: For each of C{Authentication.dkim}, whether it is aligned.
    @ivar spf: Whether what C{Authentication.spf} is about is aligned.
    @ivar temporary: A look-up failed on which it depends whether something
        that passes, or may have passed, is aligned.
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
    @param suffixes: As C{discovery} was made with.
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
    What L{align} comes to where it has nothing to ask, as mostly; C{None} where
    it has.
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
    C{None} if it can't be known.
    """
    # RFC 9989 4.10.2: the same domain is aligned, whatever its organization.
    if domain == discovery.author:
        return True
    if mode is Alignment.STRICT:
        return False
    if discovery.temporary:
        # The organization may be any above the author; they meet somewhere,
        # or they don't.
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
    What SPF may be a witness for: the domain of MAIL FROM, or of HELO if that
    was empty (RFC 9989 3.2.4, 4.4.2); C{None} if that is no domain.
    """
    try:
        return Domain.parse(authentication.spf.domain)
    except InvalidDomain:
        return None


def verifiedDomains(authentication: Authentication) -> tuple[Domain, ...]:
    """
    The domains of which SPF or DKIM says that the message is theirs.
    """
    domains = [d.domain for d in authentication.dkim if d.status is AuthResult.PASS]
    sender = spfDomain(authentication)
    if sender is not None and authentication.spf.status is AuthResult.PASS:
        domains.append(sender)
    return tuple(domains)


def clientNames(authentication: Authentication) -> tuple[Domain, ...]:
    """
    The names that the client has been shown to have: a forwarder mostly leaves
    MAIL FROM as it is.
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
    The first of those that are trusted, in order, that one of C{domains} is
    under.
    """
    return next(
        (each for each in sorted(trusted) if any(d.isUnder(each) for d in domains)),
        None,
    )


def isWithin(address: str, networks: Sequence[IPNetwork]) -> bool:
    ip = parseIP(address)
    return ip is not None and any(ip in network for network in networks)
