# -*- test-case-name: tests.test_config -*-
"""
The configuration of how mail leaves.  No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from moxtls.calendar import DAY, HOUR
from moxtls.config.keys import setting


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
