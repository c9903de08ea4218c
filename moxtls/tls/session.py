# -*- test-case-name: tests.tls.test_resulttype -*-
"""
Record of TLS in one SMTP session, before its classification by RFC 8460.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from cryptography.x509 import Certificate

from moxtls.tls.dane import DANEVerdict

__all__ = [
    "CLOSE_NOTIFY",
    "Alert",
    "CertificateVerification",
    "DANEVerdict",
    "STARTTLSResult",
    "SessionRecord",
    "TLSError",
]


#: RFC 8446 6.1: the alert with which a side closes the connection.
CLOSE_NOTIFY = 0


class STARTTLSResult(Enum):
    """
    The result of STARTTLS in a session.

    C{NOT_TRIED}: the session ended before, or TLS was not wanted.
    C{NOT_OFFERED}: opportunistic, and the server doesn't offer it.  C{REFUSED}: a
    reply other than 220.  C{UNANSWERED}: no reply.  C{INJECTED}: plaintext after
    the 220, a sign of an attacker.  C{BROKEN}: the handshake failed.
    C{COMPLETED}: the handshake succeeded, with a valid certificate or not.
    """

    NOT_TRIED = auto()
    NOT_OFFERED = auto()
    REFUSED = auto()
    UNANSWERED = auto()
    INJECTED = auto()
    BROKEN = auto()
    COMPLETED = auto()


@dataclass(frozen=True, slots=True)
class CertificateVerification:
    """
    The verification of the chain that a server sent, by the Web PKI.

    @ivar chain: As sent, leaf first.
    @ivar verifyErrors: OpenSSL's C{X509_V_ERR_} numbers with their depth in the
        chain, in the order they were raised; empty if it is verified.
    @ivar nameMatches: True if the leaf has one of the expected names (RFC 9525).
    @ivar noRoots: True if there were no trusted roots.
    """

    chain: tuple[Certificate, ...]
    verifyErrors: tuple[tuple[int, int], ...]
    nameMatches: bool
    noRoots: bool = False

    @property
    def ok(self) -> bool:
        """
        True if the chain is verified.
        """
        return bool(self.chain) and not self.verifyErrors and self.nameMatches


@dataclass(frozen=True, slots=True)
class Alert:
    """
    A TLS alert that ended a connection (RFC 8446 6).

    @ivar isRemote: True if the peer sent it, false if this side did.
    """

    number: int
    isRemote: bool


@dataclass(frozen=True, slots=True)
class TLSError:
    """
    The reason why there is no reply to STARTTLS, or why a handshake, or the first
    read after it, failed.

    @ivar kind: The kind of error.
    @ivar alert: RFC 8446 6: the number of the alert, if it was one.
    @ivar reason: OpenSSL's reason, for the log.
    """

    class Kind(Enum):
        REMOTE_ALERT = auto()
        LOCAL_ALERT = auto()
        NOT_SMTP = auto()
        NOT_TLS = auto()
        TIMEOUT = auto()
        CLOSED = auto()
        OTHER = auto()

    kind: Kind
    alert: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """
    The record of TLS in one connection to one host.

    @ivar sendingIP: Our address; empty without TCP.
    @ivar receivingIP: The address of the host.
    @ivar host: The name in SNI, A-labels.
    @ivar helo: The first word of the greeting after 220.
    @ivar code: The reply to STARTTLS if C{REFUSED}.
    @ivar verification: By the Web PKI, enforced or not; C{None} without a
        certificate.
    @ivar dane: The verification by DANE, enforced or not.
    @ivar enforced: True if the session was aborted because of one of the two.
    @ivar error: Why STARTTLS is C{UNANSWERED}, or the handshake C{BROKEN};
        or, with C{COMPLETED}, the alert that came as the first thing behind it
        (a client learns only then that a TLS 1.3 server gave up).
    """

    sendingIP: str = ""
    receivingIP: str = ""
    host: str = ""
    helo: str = ""
    starttls: STARTTLSResult = STARTTLSResult.NOT_TRIED
    code: int = 0
    verification: CertificateVerification | None = None
    dane: DANEVerdict = DANEVerdict.NOT_ASKED
    enforced: bool = False
    error: TLSError | None = None
