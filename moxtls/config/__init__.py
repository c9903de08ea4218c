# -*- test-case-name: tests.test_config -*-
"""
The configuration: TOML text to frozen values.  No I/O.
"""

from moxtls.config.checks import serverAddress
from moxtls.config.description import KeyDescription, describe
from moxtls.config.errors import InvalidConfig, quoted
from moxtls.config.reading import parse
from moxtls.config.values import (
    TABLES,
    Config,
    Delivery,
    Families,
    HostTLSRPT,
    Listener,
    ListenerTLS,
    Purpose,
    RelayTLS,
    Selector,
    Service,
    setting,
)

__all__ = [
    "TABLES",
    "Config",
    "Delivery",
    "Families",
    "HostTLSRPT",
    "InvalidConfig",
    "KeyDescription",
    "Listener",
    "ListenerTLS",
    "Purpose",
    "RelayTLS",
    "Selector",
    "Service",
    "describe",
    "parse",
    "quoted",
    "serverAddress",
    "setting",
]
