# -*- test-case-name: tests.test_config -*-
"""
The configuration as frozen values.  No I/O.

These classes are the reference: C{moxtls config describe} prints what they
say.  A path in them is as written; who opens it does so relative to the
folder of the configuration file.

The configuration of how mail leaves.  No I/O.

The configuration of what is done because of DMARC.  No I/O.

The configuration of domains of ours.  No I/O.

The configuration of SMTP listeners.  No I/O.

The configuration of mailboxes, and of who has them.  No I/O.

The configuration of outgoing reports.  No I/O.

Keys of the configuration file, as fields of classes.  No I/O.
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
    How TLS begins on a connection to a smarthost.
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
class DeliveryConfig:
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
    allowOwnHosts: bool = setting(
        "AllowOwnHosts",
        "Whether mail may go to hosts that are this one: of the name Hostname, on "
        "loopback addresses, or where a listener listens. Without, it fails at once, "
        "as it could go in circles. For tests, and where another server on this host "
        "takes mail for domains that are not in Domains.",
        False,
    )
    families: Families = setting("Families", '"both", "ipv4" or "ipv6".', Families.BOTH)
    maxConnections: int = setting("MaxConnections", "At the same time.", 50)
    maxPerDestination: int = setting(
        "MaxPerDestination", "At the same time, to one domain.", 2
    )
    retrySchedule: tuple[int, ...] = setting(
        "RetrySchedule",
        "Seconds to wait after each attempt that failed; the last of them is repeated.",
        (450, 900, 1800, 3600, 7200, 14400, 28800),
    )
    maxAge: int = setting(
        "MaxAge",
        "Seconds after which mail that can't be delivered is given up.",
        5 * DAY,
    )
    maxBriefAge: int = setting("MaxBriefAge", "The same for reports and DSNs.", DAY)
    noticeAfter: int = setting(
        "NoticeAfter",
        "Seconds after which senders are told that their mail is delayed; 0 for never.",
        2 * HOUR,
    )


@dataclass(frozen=True, slots=True)
class DMARC:
    """
    What is done because of DMARC.
    """

    legacy: bool = setting(
        "Legacy",
        "As RFC 7489 has it: organizational domains by the public suffix list, pct. "
        "If not, RFC 9989.",
        False,
    )
    enforcement: DMARCPolicy = setting(
        "Enforcement",
        'The most that is done to a message: "none" only writes down what would be, '
        '"quarantine" never refuses, "reject" does.',
        DMARCPolicy.REJECT,
    )
    mailingLists: tuple[Domain, ...] = setting(
        "MailingLists",
        "Domains of mailing lists: mail that SPF or DKIM says is from them is "
        "accepted whatever the policy of its author's domain.",
        (),
    )
    trustedForwarders: tuple[str, ...] = setting(
        "TrustedForwarders",
        "Networks, such as 192.0.2.0/24, and domains whose forwarded mail is "
        "accepted whatever the policy of its author's domain.",
        (),
    )
    localPolicies: Mapping[str, DMARCPolicy] = setting(
        "LocalPolicies",
        'Policies of ours, by author domain: "none", "quarantine" or "reject" for '
        "mail that fails, in place of what the domain publishes.",
        {},
    )


class Purpose(StrEnum):
    """
    What a DKIM selector signs.
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
class Alias:
    """
    An address of several people.
    """

    addresses: tuple[str, ...] = setting("Addresses", "Of accounts here.")


@dataclass(frozen=True, slots=True)
class LocalDomain:
    """
    A domain of ours.
    """

    dkim: DKIM = setting("DKIM", "How reports in its name are signed.", DKIM())
    noOutgoingTLSReports: bool = setting(
        "NoOutgoingTLSReports", "Send no TLS reports in the name of this domain.", False
    )
    noOutgoingDMARCReports: bool = setting(
        "NoOutgoingDMARCReports",
        "Send no DMARC reports in the name of this domain, nor any about mail to it.",
        False,
    )
    localpartCatchallSeparator: str = setting(
        "LocalpartCatchallSeparator",
        'What follows it in a local part is passed over: with "+", mail to anna+x@ '
        "goes to anna@. Empty: there is none.",
        "+",
    )
    localpartCaseSensitive: bool = setting(
        "LocalpartCaseSensitive", "Whether ANNA@ is somebody else than anna@.", False
    )
    aliases: Mapping[str, Alias] = setting(
        "Aliases", "Addresses of several people, by local part.", {}
    )
    certificateFile: str = setting(
        "CertificateFile",
        "PEM, leaf first: shown to clients that ask for one of its names (SNI), "
        "instead of the listener's.",
        "",
    )
    keyFile: str = setting("KeyFile", "PEM.", "")


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


@dataclass(frozen=True, slots=True)
class Listener:
    """
    Addresses on which SMTP is spoken, with one port.
    """

    port: int = setting("Port", "The TCP port.")
    service: Service = setting(
        "Service",
        '"submission": takes mail to be sent. "reception": takes mail for our '
        "domains, and what comes back from reports.",
        Service.SUBMISSION,
    )
    address: tuple[str, ...] = setting(
        "Address",
        'The IP address, or several: ["0.0.0.0", "::"] is every address of this host. '
        '"::" alone is IPv6 only. An address of a family that this host doesn\'t have '
        "is left out if there is another one.",
        ("127.0.0.1",),
        takesOne=True,
    )
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
    maxConnectionsPerAddress: int = setting(
        "MaxConnectionsPerAddress",
        "At the same time, from one IP address (for IPv6, one /64).",
        50,
    )
    maxConnectionsPerNetwork: int = setting(
        "MaxConnectionsPerNetwork",
        "At the same time, from one network: a /24, for IPv6 a /48.",
        200,
    )
    maxConnectionRate: int = setting(
        "MaxConnectionRate",
        "New connections a minute from one IP address (for IPv6, one /64); a "
        "network may make four times as many. 0 for any number.",
        600,
    )
    maxMessageRate: int = setting(
        "MaxMessageRate",
        "Messages a minute from one IP address (for IPv6, one /64); a network may "
        "send four times as many. Whoever sends more is told to wait. 0 for any "
        "number.",
        3000,
    )
    maxMessageSize: int = setting("MaxMessageSize", "In bytes.", 100 * 2**20)
    checks: bool = setting(
        "Checks",
        "Of reception: whether SPF, DKIM, DMARC and the name of the client are "
        "checked.",
        True,
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
class Destination:
    """
    An address of an account.
    """

    mailbox: str = setting("Mailbox", "Where its mail goes.", "Inbox")


@dataclass(frozen=True, slots=True)
class Account:
    """
    Somebody with mailboxes.
    """

    destinations: Mapping[str, Destination] = setting(
        "Destinations",
        'By address, such as "anna@example.org"; "@example.org" takes what nobody '
        "else in that domain does.",
    )
    junkMailbox: str = setting("JunkMailbox", "Where suspicious mail goes.", "Junk")
    rejectsMailbox: str = setting(
        "RejectsMailbox",
        "Where mail that DMARC has refused is kept all the same, while its sender "
        "is told that it was refused. Empty: it isn't kept.",
        "",
    )
    quota: int = setting("Quota", "Of all its mail, in bytes; 0 for no limit.", 0, True)


@dataclass(frozen=True, slots=True)
class LMTP:
    """
    Another program that keeps the mail of all accounts.
    """

    address: str = setting(
        "Address", "Where it listens: IP:PORT, [IP]:PORT or /path/of/a/socket."
    )
    separator: str = setting(
        "Separator",
        "Mail for a mailbox other than Inbox goes to ACCOUNT, this, and the mailbox.",
        "+",
    )


@dataclass(frozen=True, slots=True)
class DMARCReports:
    """
    What is sent to whom about mail in their name.
    """

    domain: Domain | None = setting(
        "Domain",
        "In whose name reports are sent: one of Domains with a DKIM selector, that "
        "can receive mail. Not given: the nearest at or above Hostname.",
        None,
    )
    format: ReportFormat = setting(
        "Format",
        '"rfc9990" or "rfc7489". Some readers of reports fail at what RFC 9990 has '
        'new, such as the disposition "pass": for them there is Formats.',
        ReportFormat.RFC9990,
    )
    formats: Mapping[str, ReportFormat] = setting(
        "Formats", "By the domain of the address that a report goes to.", {}
    )
    minimum: int = setting(
        "Minimum", "Of how many messages there has to be something to report.", 1
    )
    onlyTo: tuple[Domain, ...] = setting(
        "OnlyTo", "Policy domains that get reports; empty for all.", ()
    )
    strangers: bool = setting(
        "Strangers",
        "Whether domains get reports that nobody here has had to do with, on mail that "
        "was accepted but did not pass. Without it mail has to have passed, or "
        "somebody here has to have written to them; as for mail that was refused or "
        "junk in any case.",
        True,
    )


@dataclass(frozen=True, slots=True)
class FailureReports:
    """
    A report on each message that fails DMARC (RFC 9991).
    """

    enabled: bool = setting("Enabled", "Whether they are sent.", False)
    allow: tuple[Domain, ...] = setting(
        "Allow",
        "Policy domains that get them; empty for all that ask and are no strangers.",
        (),
    )
    strangers: bool = setting(
        "Strangers",
        "Whether domains get them that nobody here has had to do with.",
        False,
    )
    perHour: int = setting("PerHour", "The most to one policy domain.", 10)
    perDay: int = setting("PerDay", "The most to all together.", 200)


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
    addresses: tuple[str, ...] = setting(
        "Addresses",
        "Addresses here that others send reports to, such as those about domains of "
        "others. Mail to them alone is no reason for a report; nor is mail to those "
        "that the _dmarc and _smtp._tls records of Domains name, which are looked up.",
        (),
    )
    dmarc: DMARCReports = setting(
        "DMARC", "DMARC aggregate reports only.", DMARCReports()
    )
    failures: FailureReports = setting(
        "Failures", "DMARC failure reports only.", FailureReports()
    )


@dataclass(frozen=True, slots=True)
class ResolverConfig:
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
    accounts: Mapping[str, Account] = setting(
        "Accounts",
        "Who gets mail, by any name. Users of the same names may log in to send.",
        {},
    )
    lmtp: LMTP | None = setting(
        "LMTP",
        "Keeps the mail of all accounts; without this table it is in Maildirs in "
        "DataDirectory.",
        None,
    )
    dmarc: DMARC = setting("DMARC", "What is done because of DMARC.", DMARC())
    transports: Mapping[str, Smarthost] = setting(
        "Transports", "Smarthosts, by any name.", {}
    )
    delivery: DeliveryConfig = setting("Delivery", "How mail leaves.", DeliveryConfig())
    reporting: Reporting = setting("Reporting", "How reports are sent.", Reporting())

    @property
    def nodeName(self) -> str:
        return self.node or self.hostname.ascii


#: Every class that a table in the file becomes.
TABLES = (
    ResolverConfig,
    Postmaster,
    HostTLSRPT,
    Listener,
    Selector,
    DKIM,
    Alias,
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
    Config,
)
