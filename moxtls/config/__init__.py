# -*- test-case-name: tests.test_config -*-
"""
The configuration: TOML text to frozen values.  No I/O.
"""

from moxtls.config.checks import remarks
from moxtls.config.delivery import DeliveryConfig, Families, RelayTLS, Smarthost
from moxtls.config.description import KeyDescription, describe
from moxtls.config.dmarc import DMARC
from moxtls.config.domains import DKIM, Alias, LocalDomain, Purpose, Selector
from moxtls.config.errors import InvalidConfig, quoted, together
from moxtls.config.keys import setting
from moxtls.config.listeners import Listener, ListenerTLS, Service
from moxtls.config.mail import LMTP, Account, Destination, HostTLSRPT, Postmaster
from moxtls.config.places import (
    forwarders,
    lmtpAddress,
    networkOrDomain,
    serverAddress,
)
from moxtls.config.reading import parse, read
from moxtls.config.reports import DMARCReports, FailureReports, Reporting
from moxtls.config.values import TABLES, Config, ResolverConfig
from moxtls.dmarc.reportxml import ReportFormat

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
    "lmtpAddress",
    "networkOrDomain",
    "parse",
    "quoted",
    "read",
    "remarks",
    "serverAddress",
    "setting",
    "together",
]
