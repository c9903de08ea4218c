# -*- test-case-name: tests.test_config,tests.reception.test_recipients -*-
"""
Parses network addresses in a configuration, and normalizes local parts of local
domains.  No I/O.
"""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moxtls.config.types import DMARC, Config, LocalDomain, ReportAddress
from moxtls.domain import Address, AddressLiteral, Domain, InvalidAddress, InvalidDomain
from moxtls.ipaddresses import IPNetwork, parseIP, parseNetwork

#: RFC 5321 4.5.1: in any case, at every domain for which mail is accepted.
POSTMASTER = "postmaster"

#: An IP address and a port.
SocketAddress = tuple[str, int]

#: The maximum path length of a Unix socket, including the final NUL (unix(7)).
MAX_SOCKET_LENGTH = 108


def serverAddress(text: str) -> SocketAddress | None:
    """
    Parse the address of a DNS server: C{127.0.0.1}, C{127.0.0.1:5353}, C{::1} or
    C{[::1]:5353}.

    @return: IP address and port, or C{None} if it is malformed.
    """
    hasPort = text.startswith("[") or text.count(":") == 1
    return _withPort(text) if hasPort else _socketAddress(text, "53")


def lmtpAddress(text: str) -> SocketAddress | str | None:
    """
    Parse the address of an LMTP server: C{127.0.0.1:24}, C{[::1]:24}, or the absolute
    path of a Unix socket.

    @return: IP address and port; the path; or C{None} if it is malformed.
    """
    if not text.startswith("/"):
        return _withPort(text)
    isPath = "\0" not in text and len(text.encode("utf-8")) < MAX_SOCKET_LENGTH
    return text if isPath else None


def _withPort(text: str) -> SocketAddress | None:
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
    else:
        host, _, port = text.partition(":")
    return _socketAddress(host, port)


def _socketAddress(host: str, port: str) -> SocketAddress | None:
    isNumber = port.isascii() and port.isdigit() and len(port) <= 5
    if not isNumber or not 0 < int(port) < 65536:
        return None
    ip = parseIP(host)
    return None if ip is None else (str(ip), int(port))


def networkOrDomain(text: str) -> IPNetwork | Domain | None:
    """
    Parse a source of mail: C{192.0.2.0/24}, C{2001:db8::/32}, one IP address, or a
    domain.

    @return: C{None} if it is none of these.
    """
    network = parseNetwork(text)
    if network is not None:
        return network
    try:
        domain = Domain.parse(text)
    except InvalidDomain:
        return None
    return None if isNumeric(domain) else domain


def isNumeric(domain: Domain) -> bool:
    """
    True if a domain looks like an IPv4 address: no top-level domain is a number (RFC
    1123 2.1).
    """
    return domain.ascii.rpartition(".")[2].isdigit()


def forwarders(dmarc: DMARC) -> tuple[tuple[IPNetwork, ...], tuple[Domain, ...]]:
    """
    Parse C{TrustedForwarders} into networks and domains.
    """
    parsed = [networkOrDomain(each) for each in dmarc.trustedForwarders]
    domains = tuple(each for each in parsed if isinstance(each, Domain))
    networks = (ipaddress.IPv4Network, ipaddress.IPv6Network)
    return tuple(each for each in parsed if isinstance(each, networks)), domains


def plainLocalPart(localPart: str, local: LocalDomain) -> str:
    """
    The canonical spelling of a local part.
    """
    # RFC 6532 3.1: NFC, because users can't see or type the difference.
    text = unicodedata.normalize("NFC", localPart)
    return text if local.localpartCaseSensitive else text.lower()


def withoutSuffix(localPart: str, local: LocalDomain) -> str:
    """
    The local part before the separator; all of it if there is no separator, or
    nothing before it.
    """
    separator = local.localpartCatchallSeparator
    return (separator and localPart.partition(separator)[0]) or localPart


def destinationKey(
    text: str, domains: Mapping[Domain, LocalDomain]
) -> Address | Domain | None:
    """
    Parse an address in the configuration: an address in its canonical spelling; for
    C{@example.org}, the domain; C{None} if it is neither, or not in one of
    C{domains} that mail is taken for.
    """
    try:
        if text.startswith("@"):
            domain = Domain.parse(text[1:])
            return (
                domain
                if domain in domains and not domains[domain].reportsOnly
                else None
            )
        address = Address.parse(text)
    except (InvalidAddress, InvalidDomain):
        return None
    if isinstance(address.domain, AddressLiteral) or address.domain not in domains:
        return None
    if address.unquoted or domains[address.domain].reportsOnly:
        return None
    return plainAddress(address, domains[address.domain])


def plainAddress(address: Address, local: LocalDomain) -> Address:
    """
    The canonical spelling of an address at a local domain.
    """
    return Address(plainLocalPart(address.localPart, local), address.domain)


@dataclass(frozen=True, slots=True)
class ReportMailbox:
    """
    The address and mailbox of reports about one domain.

    @ivar table: The name of the table that configures them.
    @ivar domain: The domain that the reports are about.
    @ivar address: In its canonical spelling; C{None} if it isn't a usable address in a
        domain that mail is taken for.
    """

    table: str
    domain: Domain
    settings: ReportAddress
    address: Address | None


def reportMailboxes(config: Config) -> Iterator[ReportMailbox]:
    """
    The mailboxes for reports about all domains, in the order of the configuration;
    that of C{HostTLSRPT} is not included.
    """
    for domain, local in config.domains.items():
        for name, settings in (("TLSRPT", local.tlsrpt), ("DMARC", local.dmarc)):
            if settings is not None:
                text = f"{settings.localPart}@{settings.domain or domain}"
                key = destinationKey(text, config.domains) if text.isascii() else None
                address = key if isinstance(key, Address) else None
                yield ReportMailbox(
                    f"Domains.{domain}.{name}", domain, settings, address
                )


def isPostmaster(localPart: str) -> bool:
    """
    True if mail goes to the postmaster, also to C{postmaster+token}, the envelope
    sender of reports.
    """
    return localPart.lower().partition("+")[0] == POSTMASTER
