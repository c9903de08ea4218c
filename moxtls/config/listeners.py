# -*- test-case-name: tests.test_config -*-
"""
The configuration of SMTP listeners.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from moxtls.config.keys import setting


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
