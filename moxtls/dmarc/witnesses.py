# -*- test-case-name: tests.dmarc.test_verdict -*-
"""
Who stands behind a message, be it its author or not.  No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from moxtls.authentication import Authentication, AuthResult
from moxtls.domain import Domain, InvalidDomain
from moxtls.ipaddresses import IPNetwork, parseIP


def spfDomain(authentication: Authentication) -> Domain | None:
    """
    What SPF may be a witness for: the domain of MAIL FROM, or of HELO if that
    was empty (RFC 9989 3.2.4, 4.4.2); C{None} if that is no domain.
    """
    try:
        return Domain.parse(authentication.spf.domain)
    except InvalidDomain:
        return None


def verified(authentication: Authentication) -> tuple[Domain, ...]:
    """
    The domains of which SPF or DKIM says that the message is theirs.
    """
    domains = [d.domain for d in authentication.dkim if d.status is AuthResult.PASS]
    sender = spfDomain(authentication)
    if sender is not None and authentication.spf.status is AuthResult.PASS:
        domains.append(sender)
    return tuple(domains)


def hostNetworks(authentication: Authentication) -> tuple[Domain, ...]:
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
