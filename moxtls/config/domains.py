# -*- test-case-name: tests.test_config -*-
"""
The configuration of domains of ours.  No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from moxtls.config.keys import setting
from moxtls.reporting.signing import Algorithm


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
