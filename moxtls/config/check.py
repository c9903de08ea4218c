# -*- test-case-name: tests.test_config -*-
"""
Checks a configuration for inconsistencies between its values. No I/O.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator

from moxtls.config.addresses import (
    ReportMailbox,
    destinationKey,
    isNumeric,
    isPostmaster,
    lmtpAddress,
    networkOrDomain,
    reportMailboxes,
    serverAddress,
)
from moxtls.config.types import (
    Account,
    Alias,
    Config,
    DMARCReports,
    Listener,
    ListenerTLS,
    LocalDomain,
    Purpose,
    RelayTLS,
    Service,
    Smarthost,
)
from moxtls.domain import Address, Domain, InvalidAddress, InvalidDomain
from moxtls.ipaddresses import IP, parseIP
from moxtls.mailbox.names import InvalidMailbox, splitMailbox

#: Table, key, value, and what was expected.
Inconsistency = tuple[str, str, object, str]

# RFC 6376 3.1: sub-domain *( "." sub-domain ), as in RFC 5321 4.1.2.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")


def inconsistencies(config: Config) -> Iterator[Inconsistency]:
    """
    Errors that no value shows alone: table, key, value, and a description of correct
    values.
    """
    for name, listener in config.listeners.items():
        yield from _wrongListener(f"Listeners.{name}", listener, config)
    yield from _wrongPorts(config)
    for name, host in config.transports.items():
        yield from _wrongSmarthost(f"Transports.{name}", name, host)
    yield from _wrongDelivery(config)
    yield from mailboxErrors(config)
    yield from _wrongDomains(config)
    yield from reportAddressErrors(config)
    for server in (*config.resolver.servers, *config.resolver.trusted):
        if serverAddress(server) is None:
            yield "Resolver", "Servers", server, "expected an IP address, or [IP]:port"


def _wrongListener(
    table: str, listener: Listener, config: Config
) -> Iterator[Inconsistency]:
    if not listener.address:
        yield table, "Address", [], "expected an IP address"
    if len(set(listener.address)) < len(listener.address):
        yield table, "Address", list(listener.address), "expected each address once"
    for address in listener.address:
        if parseIP(address) is None:
            yield table, "Address", address, "expected an IP address"
    if listener.port > 65535:
        yield table, "Port", listener.port, "expected an integer from 0 to 65535"
    if listener.tls is not ListenerTLS.NONE and not listener.certificateFile:
        yield table, "CertificateFile", None, "expected a file, as TLS is on"
    yield from _wrongKeyPair(table, listener)
    yield from _wrongLimits(table, listener)
    if listener.service is Service.REPORTS:
        yield from _wrongReportListener(table, listener)
    if listener.authentication and listener.service is not Service.SUBMISSION:
        # Clients of an MX are other hosts, not users of this one.
        expected = 'expected Service = "submission", as Authentication is on'
        yield table, "Service", listener.service, expected
    if listener.authentication and listener.tls is ListenerTLS.NONE:
        # RFC 4954 9: no passwords in the clear.
        yield table, "TLS", listener.tls, "expected TLS, as Authentication is on"
    if listener.authentication and not config.users:
        yield "", "Users", None, f"expected a user, as [{table}] Authentication is on"
    open_ = listener.service is Service.SUBMISSION and not listener.authentication
    for address in listener.address if open_ else ():
        ip = parseIP(address)
        if ip is not None and not ip.is_loopback:
            expected = "expected a loopback address, or Authentication = true"
            yield table, "Address", address, expected


def _wrongReportListener(table: str, listener: Listener) -> Iterator[Inconsistency]:
    if listener.tls is ListenerTLS.STARTTLS:
        # RFC 8460 3: HTTPS.
        yield table, "TLS", listener.tls, 'expected "immediate" or "none" for reports'
    for address in listener.address if listener.tls is ListenerTLS.NONE else ():
        ip = parseIP(address)
        if ip is not None and not ip.is_loopback:
            expected = 'expected a loopback address, or TLS = "immediate"'
            yield table, "Address", address, expected


def _wrongPorts(config: Config) -> Iterator[Inconsistency]:
    """
    Ports that two listeners can't both bind.
    """
    taken: list[tuple[str, int, tuple[IP, str]]] = []
    for name, listener in config.listeners.items():
        own = [
            (ip, address.partition("%")[2])
            for address in listener.address
            if (ip := parseIP(address)) is not None
        ]
        others = (
            other
            for other, port, there in taken
            if port == listener.port and any(_overlap(there, here) for here in own)
        )
        other = next(others, None)
        if other is not None:
            expected = f"expected another port or address than [Listeners.{other}] has"
            yield f"Listeners.{name}", "Port", listener.port, expected
        if listener.port:
            taken += [(name, listener.port, here) for here in own]


def _overlap(one: tuple[IP, str], other: tuple[IP, str]) -> bool:
    """
    True if both can't be bound at the same port.

    @param one: An address and its zone, such as C{eth0}.
    """
    # An IPv6 listener takes no IPv4 (RFC 3493 5.3).
    anywhere = one[0].is_unspecified or other[0].is_unspecified
    return one == other or (anywhere and one[0].version == other[0].version)


def remarks(config: Config) -> Iterator[Inconsistency]:
    """
    Valid but probably unintended settings: table, key, value, and the consequence.
    """
    for name, listener in config.listeners.items():
        if listener.service is Service.RECEPTION and not config.accounts:
            isReported = config.hostTLSRPT or any(reportMailboxes(config))
            reports = ", reports" if isReported else ""
            why = f"no Accounts: mail for postmaster, DSNs{reports}, and no other mail"
            yield f"Listeners.{name}", "Service", listener.service, f"{why} is taken"


def _wrongKeyPair(table: str, named: Listener | LocalDomain) -> Iterator[Inconsistency]:
    if named.certificateFile and not named.keyFile:
        yield table, "KeyFile", None, "expected a file, as CertificateFile is set"
    if named.keyFile and not named.certificateFile:
        yield table, "CertificateFile", None, "expected a file, as KeyFile is set"


def _wrongLimits(table: str, listener: Listener) -> Iterator[Inconsistency]:
    limits = {
        "MaxConnections": listener.maxConnections,
        "MaxConnectionsPerAddress": listener.maxConnectionsPerAddress,
        "MaxConnectionsPerNetwork": listener.maxConnectionsPerNetwork,
        "MaxMessageSize": listener.maxMessageSize,
    }
    for key, limit in limits.items():
        if limit < 1:
            yield table, key, limit, "expected an integer from 1 up"


def _wrongSmarthost(table: str, name: str, host: Smarthost) -> Iterator[Inconsistency]:
    if name == "direct":
        yield table, "", None, 'expected another name: "direct" is built in'
    if not 0 < host.port <= 65535:
        yield table, "Port", host.port, "expected an integer from 1 to 65535"
    try:
        ipaddress.ip_address(host.host)
    except ValueError:
        try:
            Domain.parse(host.host)
        except InvalidDomain:
            yield table, "Host", host.host, "expected a domain name or an IP address"
    if host.user and not host.passwordFile:
        yield table, "PasswordFile", None, "expected a file, as User is set"
    if host.user and host.tls is RelayTLS.NONE:
        yield table, "TLS", host.tls, "expected TLS, as User is set"


def _wrongDelivery(config: Config) -> Iterator[Inconsistency]:
    delivery = config.delivery
    known = {"direct", *config.transports}
    expected = f"expected one of {', '.join(sorted(known))}"
    if delivery.transport not in known:
        yield "Delivery", "Transport", delivery.transport, expected
    for domain, transport in delivery.routes.items():
        if transport not in known:
            yield "Delivery.Routes", domain, transport, expected
    yield from wrongKeys("Delivery.Routes", delivery.routes)
    for key, port in (("Port", delivery.port), ("HTTPSPort", delivery.httpsPort)):
        if not 0 < port <= 65535:
            yield "Delivery", key, port, "expected an integer from 1 to 65535"
    limits = {
        "MaxConnections": delivery.maxConnections,
        "MaxPerDestination": delivery.maxPerDestination,
        "MaxAge": delivery.maxAge,
        "MaxBriefAge": delivery.maxBriefAge,
    }
    for key, limit in limits.items():
        if limit < 1:
            yield "Delivery", key, limit, "expected an integer from 1 up"
    if not delivery.retrySchedule or min(delivery.retrySchedule) < 1:
        value = list(delivery.retrySchedule)
        yield "Delivery", "RetrySchedule", value, "expected seconds, each from 1 up"


def _wrongDomains(config: Config) -> Iterator[Inconsistency]:
    for domain, local in config.domains.items():
        yield from _wrongKeyPair(f"Domains.{domain}", local)
        for name in local.dkim.selectors:
            if not _SELECTOR.match(name):
                table = f"Domains.{domain}.DKIM.Selectors"
                yield table, name, None, "expected a DNS label as the key"


_DOMAIN = "expected a domain name as the key"


def reportAddressErrors(config: Config) -> Iterator[Inconsistency]:
    """
    Errors in the settings of DMARC and of reports.
    """
    for text in config.dmarc.trustedForwarders:
        if networkOrDomain(text) is None:
            expected = "expected a network, such as 192.0.2.0/24, or a domain name"
            yield "DMARC", "TrustedForwarders", text, expected
    yield from wrongKeys("DMARC.LocalPolicies", config.dmarc.localPolicies)
    for text in config.reporting.addresses:
        if not isinstance(destinationKey(text, config.domains), Address):
            expected = "expected an address in one of Domains"
            yield "Reporting", "Addresses", text, expected
    reports = config.reporting.dmarc
    yield from wrongKeys("Reporting.DMARC.Formats", reports.formats)
    if reports.minimum < 1:
        expected = "expected an integer from 1 up"
        yield "Reporting.DMARC", "Minimum", reports.minimum, expected
    yield from _wrongSubmitter(reports, config)


def wrongKeys(table: str, keys: Iterable[str]) -> Iterator[Inconsistency]:
    """
    Keys that are no domains, or duplicates.
    """
    seen: set[Domain] = set()
    for text in keys:
        try:
            domain = Domain.parse(text)
        except InvalidDomain:
            yield table, text, None, _DOMAIN
            continue
        if isNumeric(domain):
            yield table, text, None, _DOMAIN
        if domain in seen:
            yield table, text, None, "expected each domain once"
        seen.add(domain)


def _wrongSubmitter(reports: DMARCReports, config: Config) -> Iterator[Inconsistency]:
    domain = reports.domain
    if domain is None:
        return
    local = config.domains.get(domain)
    if local is None:
        yield "Reporting.DMARC", "Domain", domain, "expected one of Domains"
    elif all(
        each.purpose is not Purpose.MAIL for each in local.dkim.selectors.values()
    ):
        expected = 'expected a domain with a selector whose Purpose is "mail"'
        yield "Reporting.DMARC", "Domain", domain, expected
    elif local.noOutgoingDMARCReports:
        expected = "expected a domain without NoOutgoingDMARCReports"
        yield "Reporting.DMARC", "Domain", domain, expected
    elif local.reportsOnly:
        # RFC 9990 3.5.2: reports must pass DMARC, and DSNs about them come back.
        expected = "expected a domain without ReportsOnly"
        yield "Reporting.DMARC", "Domain", domain, expected


#: An account's name is that of a folder, and a local part in LMTP: with a mailbox
#: behind it, other programs may take no more than RFC 5321 4.5.3.1.1 demands.
_ACCOUNT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?\Z")
# atext of RFC 5321 4.1.2, the dot within it, and what RFC 6531 3.3 adds.
_SEPARATOR = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\U0010ffff-]*\Z")

_Key = Address | Domain

_MAILBOX = "expected names of letters, digits, spaces and _+@-, separated by /"
_NAME = "expected a name of letters, digits and _-. as the key, up to 64 of them"
_ADDRESS = "expected an address, or @ and a domain, in one of Domains, as the key"
_LOCALPART = "expected an ASCII local part, other than postmaster"
_MEMBER = "expected the address of an account"


def mailboxErrors(config: Config) -> Iterator[Inconsistency]:
    """
    Errors in accounts, aliases and mailboxes.
    """
    yield from _wrongHost(config)
    yield from _wrongNames(config)
    yield from _wrongDestinations(config)
    for name, account in config.accounts.items():
        yield from _wrongMailboxes(f"Accounts.{name}", account)
    owned = frozenset(_owned(config))
    for domain, local in config.domains.items():
        yield from _wrongSeparator(domain, local)
        yield from _wrongAliases(domain, config, owned)
        if local.reportsOnly:
            yield from _wrongReportsOnly(f"Domains.{domain}", local)
    yield from _wrongReportMailboxes(config)
    if config.lmtp is not None:
        yield from _wrongLMTP(config.lmtp.address, config.lmtp.separator)


def _wrongHost(config: Config) -> Iterator[Inconsistency]:
    # The mailboxes for DSNs about reports are below it.
    if not _isMailbox(f"{config.postmaster.mailbox}/tlsrpt"):
        yield "Postmaster", "Mailbox", config.postmaster.mailbox, _MAILBOX
    host = config.hostTLSRPT
    if host is None:
        return
    if not _isMailbox(host.mailbox):
        yield "HostTLSRPT", "Mailbox", host.mailbox, _MAILBOX
    try:
        address = Address.parse(f"{host.localPart}@{config.hostname}")
        good = address.localPart.isascii() and not (
            address.unquoted or isPostmaster(address.localPart)
        )
    except InvalidAddress:
        good = False
    if not good:
        yield "HostTLSRPT", "Localpart", host.localPart, _LOCALPART


def _wrongNames(config: Config) -> Iterator[Inconsistency]:
    seen: dict[str, str] = {}
    for name in config.accounts:
        if not _ACCOUNT.match(name):
            yield "Accounts", name, None, _NAME
        # Some file systems, and most LMTP servers, ignore case.
        known = seen.setdefault(name.lower(), name)
        if known != name:
            expected = f"expected a name that differs from {known} in more than case"
            yield "Accounts", name, None, expected


def _wrongDestinations(config: Config) -> Iterator[Inconsistency]:
    owners: dict[_Key, str] = {}
    for name, account in config.accounts.items():
        table = f"Accounts.{name}.Destinations"
        for text, destination in account.destinations.items():
            key = destinationKey(text, config.domains)
            if key is None:
                yield table, text, None, _ADDRESS
                continue
            if key in owners:
                expected = f"expected an address that account {owners[key]} hasn't got"
                yield table, text, None, expected
            owners[key] = name
            if key == _hostAddress(config):
                yield table, text, None, "expected another address than HostTLSRPT has"
            if not _isMailbox(destination.mailbox):
                yield f"{table}.{text}", "Mailbox", destination.mailbox, _MAILBOX


def _wrongMailboxes(table: str, account: Account) -> Iterator[Inconsistency]:
    if not _isMailbox(account.junkMailbox):
        yield table, "JunkMailbox", account.junkMailbox, _MAILBOX
    if account.rejectsMailbox and not _isMailbox(account.rejectsMailbox):
        yield table, "RejectsMailbox", account.rejectsMailbox, _MAILBOX


def _wrongSeparator(domain: Domain, local: LocalDomain) -> Iterator[Inconsistency]:
    separator = local.localpartCatchallSeparator
    if not _SEPARATOR.match(separator):
        expected = "expected characters of local parts, such as +, or nothing"
        table = f"Domains.{domain}"
        yield table, "LocalpartCatchallSeparator", separator, expected


def _wrongAliases(
    domain: Domain, config: Config, owned: Collection[_Key]
) -> Iterator[Inconsistency]:
    table = f"Domains.{domain}.Aliases"
    seen: set[_Key] = set()
    for localPart, alias in config.domains[domain].aliases.items():
        key = destinationKey(f"{localPart}@{domain}", config.domains)
        if not isinstance(key, Address):
            yield table, localPart, None, "expected the local part of an address"
        elif key in owned:
            yield table, localPart, None, "expected an address that no account has"
        elif key in seen:
            yield table, localPart, None, "expected an address that no other alias has"
        else:
            seen.add(key)
        yield from _wrongMembers(f"{table}.{localPart}", alias, config, owned)


def _wrongMembers(
    table: str, alias: Alias, config: Config, owned: Collection[_Key]
) -> Iterator[Inconsistency]:
    if not alias.addresses:
        yield table, "Addresses", [], "expected at least one address"
    for text in alias.addresses:
        key = destinationKey(text, config.domains)
        # Not another alias: aliases could form a loop.
        if not isinstance(key, Address) or key not in owned:
            yield table, "Addresses", text, _MEMBER


def _owned(config: Config) -> Iterator[_Key]:
    """
    The addresses that aliases may have as members.
    """
    for account in config.accounts.values():
        for text in account.destinations:
            key = destinationKey(text, config.domains)
            if key is not None:
                yield key
    for each in reportMailboxes(config):
        if each.address is not None:
            yield each.address


def _wrongLMTP(address: str, separator: str) -> Iterator[Inconsistency]:
    if lmtpAddress(address) is None:
        expected = "expected IP:PORT, [IP]:PORT or the whole path of a socket"
        yield "LMTP", "Address", address, expected
    if not separator or not _SEPARATOR.match(separator) or not separator.isascii():
        expected = "expected characters of local parts, such as +"
        yield "LMTP", "Separator", separator, expected


def _wrongReportsOnly(table: str, local: LocalDomain) -> Iterator[Inconsistency]:
    expected = "expected nothing, as ReportsOnly is true"
    if local.aliases:
        yield f"{table}.Aliases", "", None, expected
    if local.dkim.selectors:
        # No mail is sent from a domain that takes none.
        yield f"{table}.DKIM", "", None, expected
    if local.tlsrpt is None and local.dmarc is None:
        expected = "expected the table TLSRPT or DMARC, as ReportsOnly is true"
        yield table, "", None, expected


def _wrongReportMailboxes(config: Config) -> Iterator[Inconsistency]:
    """
    Several domains, and both kinds of reports, may share an address.
    """
    owners = dict(_owners(config))
    shared: dict[_Key, tuple[str, str, str]] = {}
    host = _hostAddress(config)
    if host is not None and config.hostTLSRPT is not None:
        shared[host] = "HostTLSRPT", "", config.hostTLSRPT.mailbox
    for each in reportMailboxes(config):
        yield from _wrongReportMailbox(each, config)
        if each.address is None:
            continue
        place = each.settings.account, each.settings.mailbox
        table, *there = shared.setdefault(each.address, (each.table, *place))
        if each.address in owners:
            expected = f"expected an address that {owners[each.address]} hasn't got"
        elif tuple(there) != place:
            expected = f"expected the Account and Mailbox of [{table}], as both "
            expected += f"have {each.address}"
        else:
            continue
        yield each.table, "Localpart", each.settings.localPart, expected


def _wrongReportMailbox(each: ReportMailbox, config: Config) -> Iterator[Inconsistency]:
    table, settings = each.table, each.settings
    domain = config.domains.get(settings.domain or each.domain)
    if domain is None or domain.reportsOnly:
        expected = "expected one of Domains, without ReportsOnly"
        yield table, "Domain", settings.domain, expected
    elif each.address is None or isPostmaster(each.address.localPart):
        yield table, "Localpart", settings.localPart, _LOCALPART
    if settings.account and settings.account not in config.accounts:
        yield table, "Account", settings.account, "expected one of Accounts, or nothing"
    if not _isMailbox(settings.mailbox):
        yield table, "Mailbox", settings.mailbox, _MAILBOX


def _owners(config: Config) -> Iterator[tuple[_Key, str]]:
    """
    The addresses of accounts and aliases, with descriptions of these.
    """
    for name, account in config.accounts.items():
        for text in account.destinations:
            key = destinationKey(text, config.domains)
            if key is not None:
                yield key, f"account {name}"
    for domain, local in config.domains.items():
        for localPart in local.aliases:
            key = destinationKey(f"{localPart}@{domain}", config.domains)
            if key is not None:
                yield key, f"alias {localPart}"


def _hostAddress(config: Config) -> _Key | None:
    host = config.hostTLSRPT
    if host is None:
        return None
    return destinationKey(f"{host.localPart}@{config.hostname}", config.domains)


def _isMailbox(name: str) -> bool:
    try:
        splitMailbox(name)
    except InvalidMailbox:
        return False
    return True
