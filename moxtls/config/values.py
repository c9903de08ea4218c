# -*- test-case-name: tests.test_config -*-
"""
The configuration as frozen values.  No I/O.

These classes are the reference: C{moxtls config describe} prints what they
say.  A path in them is as written; who opens it does so relative to the
folder of the configuration file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from enum import StrEnum
from typing import Any

from moxtls.domain import Domain
from moxtls.reporting.signing import Algorithm


def setting(key: str, meaning: str, default: Any = MISSING) -> Any:
    """
    A field of a configuration class.

    @param key: As written in the file.
    @param default: Immutable; without one the key is required.
    """
    metadata = {"key": key, "meaning": meaning}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


class Service(StrEnum):
    """
    What a listener is for.
    """

    SUBMISSION = "submission"
    RECEPTION = "reception"


class ListenerTLS(StrEnum):
    """
    How TLS begins on a listener.
    """

    NONE = "none"
    STARTTLS = "starttls"
    IMMEDIATE = "immediate"


class RelayTLS(StrEnum):
    """
    How TLS begins on a connection to a smarthost.
    """

    NONE = "none"
    STARTTLS = "starttls"
    IMMEDIATE = "immediate"


class Purpose(StrEnum):
    """
    What a DKIM selector signs.
    """

    MAIL = "mail"
    TLSRPT = "tlsrpt"


class Families(StrEnum):
    """
    The versions of IP to connect with.
    """

    BOTH = "both"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


@dataclass(frozen=True, slots=True)
class Resolver:
    """
    The DNS servers to ask.
    """

    servers: tuple[str, ...] = setting(
        "Servers",
        "Addresses, each with an optional port: 127.0.0.1, [::1]:5353. "
        "Empty: those of /etc/resolv.conf.",
        (),
    )
    trusted: tuple[str, ...] = setting(
        "Trusted",
        "Of those, which are trusted to validate DNSSEC for us, because the way "
        "to them is safe. Servers on loopback addresses always are.",
        (),
    )


@dataclass(frozen=True, slots=True)
class Postmaster:
    """
    Where mail for the postmaster of this host goes.
    """

    mailbox: str = setting(
        "Mailbox", "Its mailbox, in the Maildir of this host.", "Postmaster"
    )


@dataclass(frozen=True, slots=True)
class HostTLSRPT:
    """
    Where others send TLS reports about this host.
    """

    localPart: str = setting(
        "Localpart", "The local part of the address, at Hostname.", "tlsreports"
    )
    mailbox: str = setting("Mailbox", "Where they are kept.", "TLSRPT")


@dataclass(frozen=True, slots=True)
class Listener:
    """
    An address on which SMTP is spoken.
    """

    port: int = setting("Port", "The TCP port.")
    service: Service = setting(
        "Service",
        '"submission": takes mail to be sent. "reception": takes mail for the '
        "postmaster of this host and what comes back from reports.",
        Service.SUBMISSION,
    )
    address: str = setting("Address", "The IP address.", "127.0.0.1")
    authentication: bool = setting(
        "Authentication",
        "Whether clients have to log in as one of Users. A submission listener "
        "without must be on a loopback address.",
        False,
    )
    tls: ListenerTLS = setting(
        "TLS", 'How TLS begins: "none", "starttls" or "immediate".', ListenerTLS.NONE
    )
    certificateFile: str = setting(
        "CertificateFile", "PEM, leaf first. Read again when it changes.", ""
    )
    keyFile: str = setting("KeyFile", "PEM.", "")
    maxConnections: int = setting("MaxConnections", "At the same time.", 500)
    maxMessageSize: int = setting("MaxMessageSize", "In bytes.", 100 * 2**20)


@dataclass(frozen=True, slots=True)
class Selector:
    """
    A DKIM key.
    """

    keyFile: str = setting("KeyFile", "The private key, PEM.")
    algorithm: Algorithm = setting(
        "Algorithm", '"rsa-sha256" or "ed25519-sha256".', Algorithm.RSA
    )
    purpose: Purpose = setting(
        "Purpose",
        '"mail": signs whatever this host itself sends in the name of the domain: '
        'reports. "tlsrpt": signs TLS reports only, and its record says "s=tlsrpt". '
        "Submitted mail is not signed.",
        Purpose.MAIL,
    )


@dataclass(frozen=True, slots=True)
class DKIM:
    """
    How what this host sends in the name of a domain is signed.
    """

    selectors: Mapping[str, Selector] = setting(
        "Selectors", "By name: the label before ._domainkey.", {}
    )


@dataclass(frozen=True, slots=True)
class LocalDomain:
    """
    A domain of ours.
    """

    dkim: DKIM = setting("DKIM", "How reports in its name are signed.", DKIM())
    noOutgoingTLSReports: bool = setting(
        "NoOutgoingTLSReports", "Send no TLS reports in the name of this domain.", False
    )


@dataclass(frozen=True, slots=True)
class Smarthost:
    """
    A relay that takes our mail.
    """

    host: str = setting("Host", "Its name or IP address.")
    port: int = setting("Port", "The TCP port.", 587)
    tls: RelayTLS = setting(
        "TLS", '"starttls", "immediate", or "none".', RelayTLS.STARTTLS
    )
    insecure: bool = setting(
        "Insecure", "Whether to accept any certificate of it.", False
    )
    user: str = setting("User", "To log in; empty for no login.", "")
    passwordFile: str = setting("PasswordFile", "Its first line is the password.", "")


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    How mail leaves.
    """

    transport: str = setting(
        "Transport",
        '"direct" to the hosts of a domain, or one of Transports.',
        "direct",
    )
    routes: Mapping[str, str] = setting(
        "Routes",
        "Transports for some recipient domains, by domain; their subdomains are "
        "not meant.",
        {},
    )
    port: int = setting(
        "Port", "The port of mail hosts. Other than 25 only for tests.", 25
    )
    httpsPort: int = setting(
        "HTTPSPort", "The port of MTA-STS hosts. Other than 443 only for tests.", 443
    )
    families: Families = setting("Families", '"both", "ipv4" or "ipv6".', Families.BOTH)
    maxConnections: int = setting("MaxConnections", "At the same time.", 50)
    maxPerDestination: int = setting(
        "MaxPerDestination", "At the same time, to one domain.", 2
    )
    retrySchedule: tuple[int, ...] = setting(
        "RetrySchedule",
        "Seconds to wait after each attempt that failed; the attempt after the "
        "last of them is the last.",
        (450, 900, 1800, 3600, 7200, 14400, 28800),
    )


@dataclass(frozen=True, slots=True)
class Reporting:
    """
    How reports are sent.
    """

    window: int = setting(
        "Window", "Seconds over which the reports of a day are spread.", 4 * 3600
    )
    notTo: tuple[Domain, ...] = setting(
        "NotTo", "Policy domains that get no reports.", ()
    )
    keepDays: int = setting("KeepDays", "For how long sent reports are kept.", 30)


@dataclass(frozen=True, slots=True)
class Config:
    """
    The whole file.
    """

    hostname: Domain = setting("Hostname", "The name of this host: EHLO, reports.")
    dataDirectory: str = setting(
        "DataDirectory", "Where the ledger, the queue and mailboxes are.", "data"
    )
    ledger: str = setting(
        "Ledger",
        "The database: sqlite:///PATH or postgresql://USER@HOST/NAME. Empty: "
        "SQLite in DataDirectory.",
        "",
    )
    node: str = setting(
        "Node",
        "The name of this node among those that share a ledger. Empty: Hostname.",
        "",
    )
    caFile: str = setting(
        "CAFile", "PEM with the roots to trust. Empty: those of the system.", ""
    )
    noOutgoingTLSReports: bool = setting(
        "NoOutgoingTLSReports", "Record no TLS outcomes and send no TLS reports.", False
    )
    outgoingTLSReportsForAllSuccess: bool = setting(
        "OutgoingTLSReportsForAllSuccess",
        "Send TLS reports also about days without any failure.",
        False,
    )
    resolver: Resolver = setting("Resolver", "The DNS servers to ask.", Resolver())
    postmaster: Postmaster = setting(
        "Postmaster", "Mail for the postmaster of this host.", Postmaster()
    )
    hostTLSRPT: HostTLSRPT | None = setting(
        "HostTLSRPT",
        "TLS reports of others about this host; without this table none are taken.",
        None,
    )
    listeners: Mapping[str, Listener] = setting(
        "Listeners", "Addresses on which SMTP is spoken, by any name.", {}
    )
    users: Mapping[str, str] = setting(
        "Users", 'Who may log in: by name, the output of "moxtls config password".', {}
    )
    domains: Mapping[Domain, LocalDomain] = setting("Domains", "Domains of ours.", {})
    transports: Mapping[str, Smarthost] = setting(
        "Transports", "Smarthosts, by any name.", {}
    )
    delivery: Delivery = setting("Delivery", "How mail leaves.", Delivery())
    reporting: Reporting = setting("Reporting", "How reports are sent.", Reporting())

    @property
    def nodeName(self) -> str:
        return self.node or self.hostname.ascii


#: Every class that a table in the file becomes.
TABLES = (
    Resolver,
    Postmaster,
    HostTLSRPT,
    Listener,
    Selector,
    DKIM,
    LocalDomain,
    Smarthost,
    Delivery,
    Reporting,
    Config,
)
