# -*- test-case-name: tests.tls.test_resulttype -*-
"""
What was seen of TLS in one SMTP session, before it is put in the words of
RFC 8460.  No I/O.
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


#: RFC 8446 6.1: the alert with which a side says that it is done.
CLOSE_NOTIFY = 0


class STARTTLSResult(Enum):
    """
    How far a session got towards TLS.

    C{NOT_TRIED}: it ended before, or TLS was not wanted.  C{NOT_OFFERED}:
    opportunistic, and the server doesn't announce it.  C{REFUSED}: a reply
    other than 220.  C{UNANSWERED}: no reply to it came.  C{INJECTED}:
    plaintext came behind the 220, so there is somebody in the middle.
    C{BROKEN}: the handshake failed.  C{COMPLETED}: it didn't; whether the
    certificate will do is another question.
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
    What can be said about the chain that a server presented.

    @ivar chain: As sent, leaf first.
    @ivar verifyErrors: OpenSSL's C{X509_V_ERR_} numbers with their depth in the
        chain, in the order they were raised; empty if the roots vouch for it.
    @ivar nameMatches: Whether the leaf is for one of the names allowed
        (RFC 9525).
    @ivar noRoots: Whether there were no trusted roots at all to begin with.
    """

    chain: tuple[Certificate, ...]
    verifyErrors: tuple[tuple[int, int], ...]
    nameMatches: bool
    noRoots: bool = False

    @property
    def ok(self) -> bool:
        """
        Whether the Web PKI is content.
        """
        return bool(self.chain) and not self.verifyErrors and self.nameMatches


@dataclass(frozen=True, slots=True)
class Alert:
    """
    A TLS alert that ended a connection (RFC 8446 6).

    @ivar isRemote: Whether the other side sent it, or we did.
    """

    number: int
    isRemote: bool


@dataclass(frozen=True, slots=True)
class TLSError:
    """
    Why there is no reply to STARTTLS, or why a handshake, or the first read
    behind one, failed.

    @ivar kind: What failed; the details that go with it follow.
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
    What was seen of TLS in one connection to one host.

    @ivar sendingIP: Our end; empty if it isn't TCP.
    @ivar receivingIP: Theirs.
    @ivar host: The name in SNI, A-labels.
    @ivar helo: The first word of the greeting behind 220.
    @ivar code: The reply to STARTTLS if C{REFUSED}.
    @ivar verification: The Web PKI's view, whether or not it was enforced;
        C{None} if no certificate was seen.
    @ivar dane: DANE's view, whether or not it was enforced.
    @ivar enforced: The session was given up because of one of those two.
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
