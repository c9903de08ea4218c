# -*- test-case-name: tests.test_config -*-
"""
The configuration as frozen values. No I/O.

These classes are the reference: C{moxtls config describe} prints their meanings. Paths
are as written; the code that opens a file resolves them against the folder of the
configuration file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from enum import StrEnum
from typing import Any

from moxtls.authentication.dkim.sign import Algorithm
from moxtls.dates import DAY, HOUR
from moxtls.dmarc.aggregate import ReportFormat
from moxtls.dmarc.types import DMARCPolicy
from moxtls.domain import Domain


def setting(
    key: str,
    meaning: str,
    default: Any = MISSING,
    isSize: bool = False,
    takesOne: bool = False,
) -> Any:
    """
    A field of a configuration class.

    @param key: As written in the file.
    @param default: Immutable; without one the key is required.
    @param isSize: Whether it is a number of bytes on a disk.
    @param takesOne: Whether a string may be written in place of an array of one.
    """
    metadata = {
        "key": key,
        "meaning": meaning,
        "isSize": isSize,
        "takesOne": takesOne,
    }
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


class RelayTLS(StrEnum):
    """
    The kind of TLS on a connection to a smarthost.
    """

    NONE = "none"
    STARTTLS = "starttls"
    IMMEDIATE = "immediate"


class Families(StrEnum):
    """
    The versions of IP to connect with.
    """

    BOTH = "both"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


@dataclass(frozen=True, slots=True)
class Smarthost:
    """
    A smarthost: a relay for outgoing mail.
    """

    host: str = setting("Host", "The name or IP address of the smarthost.")
    port: int = setting("Port", "The TCP port.", 587)
    tls: RelayTLS = setting(
        "TLS", '"starttls", "immediate", or "none".', RelayTLS.STARTTLS
    )
    insecure: bool = setting(
        "Insecure", "Accept any certificate of the smarthost.", False
    )
    user: str = setting("User", "User name for SMTP AUTH; empty for no login.", "")
    passwordFile: str = setting(
        "PasswordFile", "A file whose first line is the password.", ""
    )


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """
    Outgoing delivery.
    """

    transport: str = setting(
        "Transport",
        '"direct" to the MX hosts of the recipient domain, or the name of one '
        "of Transports.",
        "direct",
    )
    routes: Mapping[str, str] = setting(
        "Routes",
        "Transports by recipient domain. Subdomains are not included.",
        {},
    )
    port: int = setting(
        "Port", "The port of mail hosts. Other than 25 only for tests.", 25
    )
    httpsPort: int = setting(
        "HTTPSPort", "The port of MTA-STS hosts. Other than 443 only for tests.", 443
    )
    allowOwnHosts: bool = setting(
        "AllowOwnHosts",
        "Allow delivery to this host itself: to the name Hostname, a loopback "
        "address, or an address on which a listener listens. By default such "
        "mail fails at once, because it could loop. For tests, and where "
        "another server on this host takes mail for domains that are not in "
        "Domains.",
        False,
    )
    families: Families = setting(
        "Families",
        'IP versions for outgoing connections: "both", "ipv4" or "ipv6".',
        Families.BOTH,
    )
    maxConnections: int = setting(
        "MaxConnections", "Maximum number of concurrent outgoing connections.", 50
    )
    maxPerDestination: int = setting(
        "MaxPerDestination", "Maximum number of concurrent deliveries to one domain.", 2
    )
    retrySchedule: tuple[int, ...] = setting(
        "RetrySchedule",
        "Seconds to wait after each failed attempt; the last value is repeated.",
        (450, 900, 1800, 3600, 7200, 14400, 28800),
    )
    maxAge: int = setting(
        "MaxAge",
        "Seconds after which mail that can't be delivered is returned.",
        5 * DAY,
    )
    maxBriefAge: int = setting("MaxBriefAge", "The same for reports and DSNs.", DAY)
    noticeAfter: int = setting(
        "NoticeAfter",
        "Seconds after which the sender gets a DSN about the delay; 0 for never.",
        2 * HOUR,
    )


@dataclass(frozen=True, slots=True)
class DMARC:
    """
    DMARC checks of received mail.
    """

    legacy: bool = setting(
        "Legacy",
        "Apply RFC 7489: organizational domains by the public suffix list, and "
        "the tag pct. Otherwise apply RFC 9989.",
        False,
    )
    enforcement: DMARCPolicy = setting(
        "Enforcement",
        'The strictest disposition that is applied: "none" only records it, '
        '"quarantine" never rejects, "reject" does.',
        DMARCPolicy.REJECT,
    )
    mailingLists: tuple[Domain, ...] = setting(
        "MailingLists",
        "Domains of mailing lists. Mail that SPF or DKIM authenticates as "
        "theirs is accepted whatever the policy of its author domain.",
        (),
    )
    trustedForwarders: tuple[str, ...] = setting(
        "TrustedForwarders",
        "Networks, such as 192.0.2.0/24, and domains of forwarders. Mail from "
        "them is accepted whatever the policy of its author domain.",
        (),
    )
    localPolicies: Mapping[str, DMARCPolicy] = setting(
        "LocalPolicies",
        'Policy overrides by author domain: "none", "quarantine" or "reject" '
        "for mail that fails, instead of the published policy.",
        {},
    )


class Purpose(StrEnum):
    """
    The messages that a DKIM key signs.
    """

    MAIL = "mail"
    TLSRPT = "tlsrpt"


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
        '"mail": signs all mail that this host itself sends for the domain, '
        'that is, reports. "tlsrpt": signs TLS reports only, and its DNS record '
        'has "s=tlsrpt". Submitted mail is not signed.',
        Purpose.MAIL,
    )


@dataclass(frozen=True, slots=True)
class DKIM:
    """
    DKIM signing of reports sent by a domain.
    """

    selectors: Mapping[str, Selector] = setting(
        "Selectors", "Keys by selector: the label before ._domainkey.", {}
    )


@dataclass(frozen=True, slots=True)
class Alias:
    """
    An address with several recipients.
    """

    addresses: tuple[str, ...] = setting("Addresses", "Addresses of local accounts.")


@dataclass(frozen=True, slots=True)
class ReportAddress:
    """
    The address to which other hosts send reports about a domain.
    """

    localPart: str = setting("Localpart", "The local part of the address.")
    mailbox: str = setting("Mailbox", "The mailbox for these reports.")
    domain: Domain | None = setting(
        "Domain",
        "The domain of the address: one of Domains, without ReportsOnly. By "
        "default the domain itself.",
        None,
    )
    account: str = setting(
        "Account",
        "The account that the mailbox belongs to. Empty: the Maildir of this host.",
        "",
    )


@dataclass(frozen=True, slots=True)
class TLSReportAddress(ReportAddress):
    """
    Reception of TLS reports about a domain.
    """

    localPart: str = setting(
        "Localpart", "The local part of the address.", "tlsreports"
    )
    mailbox: str = setting("Mailbox", "The mailbox for these reports.", "TLSRPT")


@dataclass(frozen=True, slots=True)
class DMARCReportAddress(ReportAddress):
    """
    Reception of DMARC aggregate and failure reports about a domain.
    """

    localPart: str = setting(
        "Localpart", "The local part of the address.", "dmarcreports"
    )
    mailbox: str = setting("Mailbox", "The mailbox for these reports.", "DMARC")


@dataclass(frozen=True, slots=True)
class LocalDomain:
    """
    A local domain.
    """

    dkim: DKIM = setting("DKIM", "DKIM keys for reports sent by this domain.", DKIM())
    noOutgoingTLSReports: bool = setting(
        "NoOutgoingTLSReports", "Send no TLS reports from this domain.", False
    )
    noOutgoingDMARCReports: bool = setting(
        "NoOutgoingDMARCReports",
        "Send no DMARC reports from this domain, nor any about mail to it.",
        False,
    )
    localpartCatchallSeparator: str = setting(
        "LocalpartCatchallSeparator",
        'Ignore this separator and all after it in a local part: with "+", mail '
        "to anna+x@ goes to anna@. Empty for no separator.",
        "+",
    )
    localpartCaseSensitive: bool = setting(
        "LocalpartCaseSensitive", "Distinguish ANNA@ from anna@.", False
    )
    aliases: Mapping[str, Alias] = setting(
        "Aliases", "Addresses with several recipients, by local part.", {}
    )
    certificateFile: str = setting(
        "CertificateFile",
        "PEM, leaf first. Used for clients that ask for one of its names (SNI), "
        "instead of the listener's certificate.",
        "",
    )
    keyFile: str = setting("KeyFile", "The private key of CertificateFile, PEM.", "")
    tlsrpt: TLSReportAddress | None = setting(
        "TLSRPT",
        "Receives TLS reports about this domain by mail; without this table it has "
        "no address for them.",
        None,
    )
    dmarc: DMARCReportAddress | None = setting(
        "DMARC",
        "Receives DMARC reports about this domain by mail; without this table it "
        "has no address for them.",
        None,
    )
    reportsOnly: bool = setting(
        "ReportsOnly",
        "Take no mail for this domain, only reports about it: it is hosted "
        "elsewhere. TLSRPT and DMARC name another Domain then.",
        False,
    )


class Service(StrEnum):
    """
    The service of a listener.
    """

    SUBMISSION = "submission"
    RECEPTION = "reception"
    REPORTS = "reports"


class ListenerTLS(StrEnum):
    """
    The kind of TLS on a listener.
    """

    NONE = "none"
    STARTTLS = "starttls"
    IMMEDIATE = "immediate"


@dataclass(frozen=True, slots=True)
class Listener:
    """
    A listener: a port on one or several addresses.
    """

    port: int = setting("Port", "The TCP port.")
    service: Service = setting(
        "Service",
        '"submission": takes mail to be sent. "reception": takes mail for local '
        'domains, and DSNs about reports. "reports": takes TLS reports by HTTPS, '
        "about the domains for which reports are collected.",
        Service.SUBMISSION,
    )
    address: tuple[str, ...] = setting(
        "Address",
        'One IP address, or several: ["0.0.0.0", "::"] is every address of this '
        'host. "::" alone is IPv6 only. An address of a family that this host '
        "lacks is skipped if there is another one.",
        ("127.0.0.1",),
        takesOne=True,
    )
    authentication: bool = setting(
        "Authentication",
        "Require clients to log in as one of Users. A submission listener "
        "without it must be on a loopback address.",
        False,
    )
    tls: ListenerTLS = setting(
        "TLS",
        'How TLS begins: "none", "starttls" or "immediate". For reports, "none" is '
        "for a reverse proxy on this host, and needs a loopback address.",
        ListenerTLS.NONE,
    )
    certificateFile: str = setting(
        "CertificateFile", "PEM, leaf first. Reloaded when it changes.", ""
    )
    keyFile: str = setting("KeyFile", "The private key of CertificateFile, PEM.", "")
    maxConnections: int = setting(
        "MaxConnections", "Maximum number of concurrent connections.", 500
    )
    maxConnectionsPerAddress: int = setting(
        "MaxConnectionsPerAddress",
        "The same for one IP address (for IPv6, one /64).",
        50,
    )
    maxConnectionsPerNetwork: int = setting(
        "MaxConnectionsPerNetwork",
        "The same for one network: a /24, for IPv6 a /48.",
        200,
    )
    maxConnectionRate: int = setting(
        "MaxConnectionRate",
        "Maximum number of new connections a minute from one IP address (for "
        "IPv6, one /64); four times as many from a network. 0 for no limit.",
        600,
    )
    maxMessageRate: int = setting(
        "MaxMessageRate",
        "Maximum number of messages a minute from one IP address (for IPv6, one "
        "/64); four times as many from a network. Further messages are "
        "deferred. 0 for no limit. For reports: of requests.",
        3000,
    )
    maxMessageSize: int = setting(
        "MaxMessageSize",
        "Maximum size of a message in bytes. For reports it is at most 25 MB.",
        100 * 2**20,
    )
    checks: bool = setting(
        "Checks",
        "For reception: check SPF, DKIM, DMARC and the name of the client.",
        True,
    )


@dataclass(frozen=True, slots=True)
class Postmaster:
    """
    Mail for the postmaster of this host.
    """

    mailbox: str = setting(
        "Mailbox", "Its mailbox, in the Maildir of this host.", "Postmaster"
    )


@dataclass(frozen=True, slots=True)
class HostTLSRPT:
    """
    Reception of TLS reports about this host.
    """

    localPart: str = setting(
        "Localpart", "The local part of the address, at Hostname.", "tlsreports"
    )
    mailbox: str = setting("Mailbox", "The mailbox for these reports.", "TLSRPT")


@dataclass(frozen=True, slots=True)
class Destination:
    """
    An address of an account.
    """

    mailbox: str = setting("Mailbox", "The mailbox for mail to this address.", "Inbox")


@dataclass(frozen=True, slots=True)
class Account:
    """
    An account with mailboxes.
    """

    destinations: Mapping[str, Destination] = setting(
        "Destinations",
        'By address, such as "anna@example.org"; "@example.org" takes mail for '
        "all other addresses of the domain (catch-all).",
    )
    junkMailbox: str = setting(
        "JunkMailbox", "The mailbox for mail that DMARC quarantines.", "Junk"
    )
    rejectsMailbox: str = setting(
        "RejectsMailbox",
        "The mailbox for a copy of mail that DMARC rejects; its sender gets the "
        "rejection all the same. Empty: no copy is kept.",
        "",
    )
    quota: int = setting(
        "Quota", "Maximum size of all its mail in bytes; 0 for no limit.", 0, True
    )


@dataclass(frozen=True, slots=True)
class LMTP:
    """
    An LMTP server that stores the mail of all accounts.
    """

    address: str = setting(
        "Address",
        "The address of the LMTP server: IP:PORT, [IP]:PORT or /path/of/a/socket.",
    )
    separator: str = setting(
        "Separator",
        "Mail for a mailbox other than Inbox is sent to ACCOUNT, this "
        "separator, and the mailbox.",
        "+",
    )


@dataclass(frozen=True, slots=True)
class DMARCReports:
    """
    Outgoing DMARC aggregate reports.
    """

    domain: Domain | None = setting(
        "Domain",
        "The domain that sends the reports: one of Domains with a DKIM "
        "selector, able to receive mail. By default the nearest at or above "
        "Hostname.",
        None,
    )
    format: ReportFormat = setting(
        "Format",
        '"rfc9990" or "rfc7489". Some report consumers can\'t read the additions '
        'of RFC 9990, such as the disposition "pass"; use Formats for them.',
        ReportFormat.RFC9990,
    )
    formats: Mapping[str, ReportFormat] = setting(
        "Formats", "Formats by the domain of the report address.", {}
    )
    minimum: int = setting("Minimum", "Minimum number of messages for a report.", 1)
    onlyTo: tuple[Domain, ...] = setting(
        "OnlyTo", "Policy domains that get reports; empty for all.", ()
    )
    strangers: bool = setting(
        "Strangers",
        "Also send reports on accepted mail that did not pass to domains with "
        "which no local account has corresponded. Without it, and always for "
        "mail that was rejected or quarantined, a report requires mail that "
        "passed, or mail from a local account to that domain.",
        True,
    )


@dataclass(frozen=True, slots=True)
class FailureReports:
    """
    DMARC failure reports, one on each message that fails (RFC 9991).
    """

    enabled: bool = setting("Enabled", "Send failure reports.", False)
    allow: tuple[Domain, ...] = setting(
        "Allow",
        "Policy domains that get them; empty for all that ask for them and with "
        "which a local account has corresponded.",
        (),
    )
    strangers: bool = setting(
        "Strangers",
        "Also send them to domains with which no local account has corresponded.",
        False,
    )
    perHour: int = setting(
        "PerHour", "Maximum number an hour to one policy domain.", 10
    )
    perDay: int = setting("PerDay", "Maximum number a day to all domains.", 200)


@dataclass(frozen=True, slots=True)
class Reporting:
    """
    Outgoing reports of all kinds.
    """

    window: int = setting(
        "Window", "Seconds over which the reports of a day are spread.", 4 * 3600
    )
    notTo: tuple[Domain, ...] = setting(
        "NotTo", "Policy domains that get no reports.", ()
    )
    keepDays: int = setting("KeepDays", "Days for which sent reports are kept.", 30)
    addresses: tuple[str, ...] = setting(
        "Addresses",
        "Local addresses that receive reports, such as those about domains "
        "hosted elsewhere. Mail to them alone causes no report. Addresses in "
        "the _dmarc and _smtp._tls records of Domains are found by DNS lookup "
        "and need not be listed.",
        (),
    )
    dmarc: DMARCReports = setting(
        "DMARC", "Settings of DMARC aggregate reports.", DMARCReports()
    )
    failures: FailureReports = setting(
        "Failures", "Settings of DMARC failure reports.", FailureReports()
    )


@dataclass(frozen=True, slots=True)
class ReceivedReports:
    """
    Reports of other hosts about this one.
    """

    keepTLSDays: int = setting(
        "KeepTLSDays",
        "Days for which received TLS reports are kept, from the middle of their "
        "period; so are failed handshakes and certificates of listeners. 0 for "
        "ever.",
        3 * 365,
    )
    keepDMARCDays: int = setting(
        "KeepDMARCDays",
        "The same for DMARC aggregate reports.",
        3 * 365,
    )
    keepFailureDays: int = setting(
        "KeepFailureDays",
        "The same for DMARC failure reports, which are about single messages.",
        90,
    )
    keepRefusedDays: int = setting(
        "KeepRefusedDays",
        "Days for which reports that were not accepted are kept, from their "
        "reception. 0 for ever.",
        30,
    )


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """
    The DNS servers to query.
    """

    servers: tuple[str, ...] = setting(
        "Servers",
        "Addresses of DNS servers, each with an optional port: 127.0.0.1, "
        "[::1]:5353. Empty: those of /etc/resolv.conf.",
        (),
    )
    trusted: tuple[str, ...] = setting(
        "Trusted",
        "Servers of these that are trusted to validate DNSSEC because the path "
        "to them is secure. Servers on loopback addresses always are.",
        (),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """
    The whole configuration file.
    """

    hostname: Domain = setting(
        "Hostname", "The name of this host, for EHLO and reports."
    )
    dataDirectory: str = setting(
        "DataDirectory",
        "The directory of the ledger, the queue and the mailboxes.",
        "data",
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
        "CAFile", "Trusted root certificates, PEM. Empty: those of the system.", ""
    )
    noOutgoingTLSReports: bool = setting(
        "NoOutgoingTLSReports", "Record no TLS outcomes and send no TLS reports.", False
    )
    outgoingTLSReportsForAllSuccess: bool = setting(
        "OutgoingTLSReportsForAllSuccess",
        "Send TLS reports also about days without failures.",
        False,
    )
    noOutgoingDMARCReports: bool = setting(
        "NoOutgoingDMARCReports",
        "Record no DMARC evaluations and send no DMARC reports.",
        False,
    )
    resolver: ResolverConfig = setting(
        "Resolver", "The DNS servers to ask.", ResolverConfig()
    )
    postmaster: Postmaster = setting(
        "Postmaster", "Mail for the postmaster of this host.", Postmaster()
    )
    hostTLSRPT: HostTLSRPT | None = setting(
        "HostTLSRPT",
        "Receives TLS reports about this host; without this table they are refused.",
        None,
    )
    listeners: Mapping[str, Listener] = setting(
        "Listeners", "Listeners for SMTP and for reports by HTTPS, by any name.", {}
    )
    users: Mapping[str, str] = setting(
        "Users",
        'Users that may log in: by name, the output of "moxtls config password".',
        {},
    )
    domains: Mapping[Domain, LocalDomain] = setting("Domains", "Local domains.", {})
    accounts: Mapping[str, Account] = setting(
        "Accounts",
        "Accounts that receive mail, by any name. Users of the same names may "
        "log in to send.",
        {},
    )
    lmtp: LMTP | None = setting(
        "LMTP",
        "An LMTP server that stores the mail of all accounts; without this "
        "table mail is stored in Maildirs in DataDirectory.",
        None,
    )
    dmarc: DMARC = setting("DMARC", "Settings of the DMARC checks.", DMARC())
    transports: Mapping[str, Smarthost] = setting(
        "Transports", "Smarthosts, by any name.", {}
    )
    delivery: DeliveryConfig = setting(
        "Delivery", "Settings of outgoing delivery.", DeliveryConfig()
    )
    reporting: Reporting = setting(
        "Reporting", "Settings of outgoing reports.", Reporting()
    )
    receivedReports: ReceivedReports = setting(
        "ReceivedReports", "Settings of received reports.", ReceivedReports()
    )

    @property
    def nodeName(self) -> str:
        return self.node or self.hostname.ascii

    @property
    def reportedDomains(self) -> frozenset[str]:
        """
        The domains, in A-labels, reports about which are accepted.
        """
        return frozenset(each.ascii for each in (self.hostname, *self.domains))


#: Every class that a table in the file becomes.
TABLES = (
    ResolverConfig,
    Postmaster,
    HostTLSRPT,
    Listener,
    Selector,
    DKIM,
    Alias,
    TLSReportAddress,
    DMARCReportAddress,
    LocalDomain,
    Destination,
    Account,
    LMTP,
    DMARC,
    DMARCReports,
    FailureReports,
    Smarthost,
    DeliveryConfig,
    Reporting,
    ReceivedReports,
    Config,
)
