# -*- test-case-name: tests.delivery.test_mx -*-
"""
The hosts of a recipient domain in order of preference, which of the DNS answers that
lead to them are authentic, and detection of mail loops (RFC 5321 5.1, RFC 7672 2.2).
No I/O.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moxtls.dns.types import MX, Answer, CNAMELink, ExtendedError, LookupStatus
from moxtls.domain import AddressLiteral, Domain, InvalidDomain

Host = Domain | AddressLiteral

#: Hosts of a domain that are tried, the most preferred ones: RFC 5321 5.1 allows
#: for a limit, and an attempt has to end.
MAX_HOSTS = 20
#: Addresses of one host that are used.  Large providers have some ten.
MAX_ADDRESSES = 16

#: RFC 3463 3.5: routing loop detected.
LOOP_STATUS = "5.4.6"

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class NextHopFailure:
    """
    The reason why a domain has no hosts, or none that is known.

    @ivar status: Enhanced status code (RFC 3463, RFC 7505).
    @ivar reason: Human-readable.
    @ivar dnssecError: The error of DNSSEC validation, if that failed.
    """

    permanent: bool
    status: str
    reason: str
    dnssecError: ExtendedError | None = None


@dataclass(frozen=True, slots=True)
class NextHop:
    """
    The hosts that accept mail for a domain.

    @ivar domain: The domain of the recipients.
    @ivar expanded: C{domain} after following all CNAMEs.
    @ivar hosts: In the order in which to try them; empty if and only if
        there is a C{failure}.
    @ivar haveMX: True if C{hosts} are from MX records.
    @ivar authentic: True if the first step, a CNAME or the MX records (also their
        absence), was validated.
    @ivar expandedAuthentic: True if all steps were validated.
    """

    domain: Host
    expanded: Host
    hosts: tuple[Host, ...] = ()
    haveMX: bool = False
    authentic: bool = False
    expandedAuthentic: bool = False
    failure: NextHopFailure | None = None


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """
    The addresses of a host.

    @ivar addresses: Empty if there are none, or the lookup failed.
    @ivar authentic: True if the first step, a CNAME or the addresses, was
        validated.
    @ivar expanded: The name of the host after following all CNAMEs.
    @ivar expandedAuthentic: True if all steps were validated.
    @ivar failed: There are no C{addresses} because a lookup failed.
    @ivar reason: Why there are no C{addresses}, for the log.
    @ivar dnssecError: The error of DNSSEC validation, if that failed.
    """

    host: Host
    addresses: tuple[str, ...] = ()
    authentic: bool = False
    expanded: Domain | None = None
    expandedAuthentic: bool = False
    failed: bool = False
    reason: str = ""
    dnssecError: ExtendedError | None = None


def literalHop(literal: AddressLiteral, own: OwnHosts | None = None) -> NextHop:
    """
    The next hop of an address literal, which is the host.  RFC 7672 2.2: DANE
    doesn't apply to it.
    """
    if own is not None and own.hasName(literal):
        return NextHop(literal, literal, failure=_loop(literal))
    return NextHop(literal, literal, (literal,))


def nextHop(
    domain: Domain,
    answer: Answer,
    jitter: Callable[[], float],
    own: OwnHosts | None = None,
) -> NextHop:
    """
    The hosts of C{domain}, by its MX records.

    @param answer: The MX records of C{domain}.
    @param jitter: Random numbers, which order hosts of equal preference.
    @param own: Identifies this host, so that hosts from it on are left out;
        C{None} to keep all.
    """
    expanded = _domain(answer.canonicalName) or domain
    failure = _failure(answer)
    hosts: tuple[Host, ...] = ()
    if failure is None:
        # RFC 5321 5.1: without MX records, the domain itself is the host, under
        # the name that the sender gave even if that is a CNAME; RFC 7672 2.2.2
        # finds TLSA records under either.
        hosts = _order(answer.mx, jitter) if answer.mx else (domain,)
        if not hosts:
            failure = NextHopFailure(False, "4.4.4", "no valid host in MX records")
        elif own is not None:
            hosts = _before(own, answer.mx, hosts)
            failure = None if hosts else _loop(own.hostname)
    return NextHop(
        domain,
        expanded,
        hosts,
        bool(answer.mx),
        _firstStepAuthentic(answer),
        answer.authentic,
        failure,
    )


def literalAddresses(literal: AddressLiteral) -> HostAddresses:
    """
    The address of an address literal.
    """
    return HostAddresses(literal, (literal.ip,))


def hostAddresses(host: Domain, answers: Iterable[Answer]) -> HostAddresses:
    """
    The addresses of C{host}, by its address records.

    @param answers: The A and the AAAA records of C{host}, the preferred kind
        first.  One of the two lookups may have failed.
    """
    answers = tuple(answers)
    found = [answer for answer in answers if answer.addresses]
    if not found:
        return _unreachable(host, answers)
    addresses = [each for answer in found for each in answer.addresses]
    # Only answers with addresses count: validation of the negative answer for the
    # other kind depends on how the zone proves it (NSEC3 opt-out).
    names = {answer.canonicalName for answer in found}
    everything = len(names) == 1 and all(answer.authentic for answer in found)
    return HostAddresses(
        host,
        tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES],
        all(_firstStepAuthentic(answer) for answer in found),
        _domain(found[0].canonicalName) or host,
        everything,
    )


def isDANECandidate(hop: NextHop, found: HostAddresses) -> bool:
    """
    True if TLSA records have to be looked up.

    Elsewhere they must not be: some servers of unsigned zones never answer that
    question (RFC 7672 2.2.2).
    """
    if not isinstance(found.host, Domain) or not found.addresses:
        return False
    # RFC 7672 2.2.1: an insecure CNAME on the way to the MX records makes
    # them insecure.
    secured = hop.expandedAuthentic if hop.haveMX else hop.authentic
    return secured and found.authentic


def baseDomains(found: HostAddresses) -> tuple[Domain, ...]:
    """
    Candidates for the TLSA base domain, the preferred one first (RFC 7672
    2.2.2, 2.2.3).
    """
    host, expanded = found.host, found.expanded
    if not isinstance(host, Domain):
        return ()
    if expanded is None or expanded == host or not found.expandedAuthentic:
        return (host,)
    return (expanded, host)


def referenceNames(hop: NextHop, host: Domain, base: Domain) -> tuple[Domain, ...]:
    """
    The reference identifiers for the host's certificate, C{base} first (RFC 7672
    3.2.2).

    The unexpanded host is included also where C{base} is its expansion: both are
    from secure answers, and there are certificates for either.
    """
    names: tuple[Host, ...] = (base, host)
    if hop.haveMX and hop.expandedAuthentic:
        names = (base, host, hop.domain, hop.expanded)
    domains = (name for name in names if isinstance(name, Domain))
    return tuple(dict.fromkeys(domains))


def _failure(answer: Answer) -> NextHopFailure | None:
    if answer.failed:
        return NextHopFailure(
            False, "4.4.3", answer.reason or "DNS lookup failed", answer.dnssecError
        )
    if answer.status is LookupStatus.NO_NAME:
        # RFC 5321 5.1: a domain that doesn't exist "MUST be reported".
        return NextHopFailure(True, "5.1.2", "domain does not exist")
    if [each.exchange for each in answer.mx] == [""]:
        # RFC 7505 3: a null MX counts only if it is the only one.
        return NextHopFailure(True, "5.1.10", "domain does not accept mail")
    return None


def _order(records: Iterable[MX], jitter: Callable[[], float]) -> tuple[Host, ...]:
    # RFC 5321 5.1: by preference; spread the load over those of equal one.
    ordered = sorted(records, key=lambda each: (each.preference, jitter()))
    hosts: dict[Host, None] = {}
    for each in ordered:
        host = _exchange(each.exchange)
        if host is not None:
            hosts[host] = None
        if len(hosts) == MAX_HOSTS:
            break
    return tuple(hosts)


def _before(
    own: OwnHosts, records: Iterable[MX], hosts: tuple[Host, ...]
) -> tuple[Host, ...]:
    """
    The hosts that are preferred to this one: RFC 5321 5.1 discards the others.
    """
    if not any(own.hasName(host) for host in hosts):
        return hosts
    # The better preference of a host that is listed twice counts.
    worstFirst = sorted(records, key=lambda each: -each.preference)
    preferences: dict[Host | None, int] = {
        _exchange(each.exchange): each.preference for each in worstFirst
    }
    # Without MX records the only host is the domain itself.
    limit = min(preferences.get(host, 0) for host in hosts if own.hasName(host))
    return tuple(host for host in hosts if preferences.get(host, 0) < limit)


def _loop(host: Host) -> NextHopFailure:
    return NextHopFailure(True, LOOP_STATUS, ownHostReason(host))


def _exchange(name: str) -> Domain | None:
    """
    RFC 5321 5.1: an exchange is a name, never an address.
    """
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return _domain(name)
    return None


def _domain(name: str) -> Domain | None:
    try:
        return Domain.parse(name)
    except InvalidDomain:
        return None


def _firstStepAuthentic(answer: Answer) -> bool:
    first: tuple[CNAMELink, ...] = answer.chain[:1]
    return first[0].authentic if first else answer.authentic


def _unreachable(host: Domain, answers: tuple[Answer, ...]) -> HostAddresses:
    failures = [answer for answer in answers if answer.failed]
    errors = (answer.dnssecError for answer in failures)
    return HostAddresses(
        host,
        failed=bool(failures),
        reason=failures[0].reason if failures else "host has no address",
        dnssecError=next((error for error in errors if error is not None), None),
    )


@dataclass(frozen=True, slots=True)
class OwnHosts:
    """
    The names and addresses of this host, from which mail for a foreign domain would
    return for ever (RFC 5321 5.1).

    @ivar hostname: The name in EHLO.
    @ivar listening: The addresses of the listeners at the SMTP port; C{0.0.0.0}
        and C{::} stand for all addresses of their family.
    @ivar isLocalAddress: Returns true if a network interface of this host has an
        address.
    """

    hostname: Domain
    listening: frozenset[str]
    isLocalAddress: Callable[[str], bool]

    def hasName(self, host: Domain | AddressLiteral) -> bool:
        """
        True if a host is this one by its name alone.
        """
        if isinstance(host, AddressLiteral):
            return self.hasAddress(host.ip)
        return host == self.hostname

    def hasAddress(self, ip: str) -> bool:
        """
        True if a connection to C{ip} would reach this host.  Loopback and
        unspecified addresses always do.
        """
        address = _plain(ip)
        if address.is_loopback or address.is_unspecified:
            return True
        listening = [_plain(each) for each in self.listening]
        if address in listening:
            return True
        isAny = any(
            each.is_unspecified and each.version == address.version
            for each in listening
        )
        return isAny and self.isLocalAddress(str(address))


def ownHostReason(host: object) -> str:
    """
    A human-readable reason why no mail is sent to C{host}.
    """
    return f"mail for this domain goes to {host}, which is this host itself"


def _plain(ip: str) -> _IP:
    """
    The IPv4 address in an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2).
    """
    address = ipaddress.ip_address(ip)
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
