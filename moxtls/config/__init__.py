# -*- test-case-name: tests.test_config -*-
"""
The configuration: parses TOML text to frozen values and checks them. No I/O.
"""

from moxtls.config.addresses import (
    forwarders,
    lmtpAddress,
    networkOrDomain,
    serverAddress,
)
from moxtls.config.check import remarks
from moxtls.config.describe import KeyDescription, describe
from moxtls.config.parse import InvalidConfig, joinedErrors, parse, quoted, read
from moxtls.config.types import (
    DKIM,
    DMARC,
    LMTP,
    TABLES,
    Account,
    Alias,
    Config,
    DeliveryConfig,
    Destination,
    DMARCReports,
    FailureReports,
    Families,
    HostTLSRPT,
    Listener,
    ListenerTLS,
    LocalDomain,
    Postmaster,
    Purpose,
    RelayTLS,
    Reporting,
    ResolverConfig,
    Selector,
    Service,
    Smarthost,
    setting,
)
from moxtls.dmarc.aggregate import ReportFormat

__all__ = [
    "DKIM",
    "DMARC",
    "LMTP",
    "TABLES",
    "Account",
    "Alias",
    "Config",
    "DMARCReports",
    "DeliveryConfig",
    "Destination",
    "FailureReports",
    "Families",
    "HostTLSRPT",
    "InvalidConfig",
    "KeyDescription",
    "Listener",
    "ListenerTLS",
    "LocalDomain",
    "Postmaster",
    "Purpose",
    "RelayTLS",
    "ReportFormat",
    "Reporting",
    "ResolverConfig",
    "Selector",
    "Service",
    "Smarthost",
    "describe",
    "forwarders",
    "joinedErrors",
    "lmtpAddress",
    "networkOrDomain",
    "parse",
    "quoted",
    "read",
    "remarks",
    "serverAddress",
    "setting",
]
