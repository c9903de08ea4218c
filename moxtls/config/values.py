# -*- test-case-name: tests.test_config -*-
"""
The configuration as frozen values.  No I/O.

These classes are the reference: C{moxtls config describe} prints what they
say.  A path in them is as written; who opens it does so relative to the
folder of the configuration file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moxtls.config.delivery import DeliveryConfig, Smarthost
from moxtls.config.dmarc import DMARC
from moxtls.config.domains import DKIM, Alias, LocalDomain, Selector
from moxtls.config.keys import setting
from moxtls.config.listeners import Listener
from moxtls.config.mail import LMTP, Account, Destination, HostTLSRPT, Postmaster
from moxtls.config.reports import DMARCReports, FailureReports, Reporting
from moxtls.domain import Domain


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
