# -*- test-case-name: tests.smtp.client.test_session -*-
"""
Maps the errors of Twisted and OpenSSL for a lost connection to L{TLSError}.
"""

from __future__ import annotations

import re
from dataclasses import replace

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.error import ConnectionClosed
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.python.failure import Failure

from moxtls.tls.session import Alert, TLSError

_Kind = TLSError.Kind

# How OpenSSL names alerts that were received; releases differ in the prefix.
_ALERT = re.compile(r"(?:tls|ssl/tls|sslv3|tlsv1|tlsv13) (?:alert )?(.+)\Z")
_ALERT_NUMBERS = {
    "unexpected message": 10,
    "bad record mac": 20,
    "decryption failed": 21,
    "record overflow": 22,
    "decompression failure": 30,
    "handshake failure": 40,
    "no certificate": 41,
    "bad certificate": 42,
    "unsupported certificate": 43,
    "certificate revoked": 44,
    "certificate expired": 45,
    "certificate unknown": 46,
    "illegal parameter": 47,
    "unknown ca": 48,
    "access denied": 49,
    "decode error": 50,
    "decrypt error": 51,
    "export restriction": 60,
    "protocol version": 70,
    "insufficient security": 71,
    "internal error": 80,
    "inappropriate fallback": 86,
    "user cancelled": 90,
    "no renegotiation": 100,
    "missing extension": 109,
    "unsupported extension": 110,
    "certificate unobtainable": 111,
    "unrecognized name": 112,
    "bad certificate status response": 113,
    "bad certificate hash value": 114,
    "unknown psk identity": 115,
    "certificate required": 116,
    "general error": 117,
    "no application protocol": 120,
    "ech required": 121,
}
# The peer sent something other than a TLS record.
_NOT_TLS = frozenset(
    {
        "wrong version number",
        "packet length too long",
        "data length too long",
        "http request",
        "https proxy request",
        "unknown protocol",
        "record length mismatch",
    }
)
_CLOSE_NOTIFY = "close notify"
_VERIFY_FAILED = "certificate verify failed"
# The alerts that OpenSSL sends with its own errors (RFC 8446 6.2): it doesn't tell
# them.
_LOCAL_ALERTS = {
    "unexpected message": 10,
    "bad record mac": 20,
    "decryption failed or bad record mac": 20,
    "dh key too small": 40,
    "no shared cipher": 40,
    _VERIFY_FAILED: 42,
    "wrong cipher returned": 47,
    "bad signature": 51,
    "length mismatch": 50,
    "unsupported protocol": 70,
    "wrong ssl version": 70,
    "inappropriate fallback": 86,
}


class TLSConnection(SSL.Connection):
    """
    A connection whose peer may end the handshake with C{close_notify} (RFC 8446
    6.1): Twisted expects a reason in the error, and OpenSSL gives none.
    """

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except SSL.ZeroReturnError:
            raise SSL.Error([("SSL routines", "", _CLOSE_NOTIFY)]) from None


def tlsErrorOf(failure: Failure, alert: Alert | None = None) -> TLSError:
    """
    The error of a failed handshake, by the reason of the lost connection.

    @param failure: As given to C{connectionLost}, or of a call to OpenSSL.
    @param alert: The alert that was sent or received; without it, the error is
        found from OpenSSL's reason.
    """
    error = _ofFailure(failure)
    if alert is None or error.kind in (_Kind.TIMEOUT, _Kind.NOT_TLS):
        return error
    if alert.isRemote:
        return replace(error, kind=_Kind.REMOTE_ALERT, alert=alert.number)
    if error.kind in (_Kind.LOCAL_ALERT, _Kind.OTHER):
        return replace(error, kind=_Kind.LOCAL_ALERT, alert=alert.number)
    return error


def _ofFailure(failure: Failure) -> TLSError:
    error = failure.value
    if isinstance(error, (TimeoutError, ConnectTimeout)):
        return TLSError(_Kind.TIMEOUT)
    if isinstance(error, (ConnectionClosed, SSL.SysCallError, SSL.ZeroReturnError)):
        return TLSError(_Kind.CLOSED)
    if not isinstance(error, SSL.Error):
        return TLSError(_Kind.OTHER, None, type(error).__name__)
    reasons = _reasons(error)
    if not reasons:
        # OpenSSL 4: the peer closed the connection.
        return TLSError(_Kind.CLOSED)
    return _ofReasons(reasons)


def isCertificateRefusal(failure: Failure) -> bool:
    """
    True if the connection was lost because our side rejected the certificate.
    """
    error = failure.value
    if isinstance(error, (CertificateError, VerificationError)):
        return True
    return isinstance(error, SSL.Error) and _VERIFY_FAILED in _reasons(error)


def _reasons(error: SSL.Error) -> list[str]:
    """
    The reasons in OpenSSL's error queue, in lower case.
    """
    queue = error.args[0] if error.args else ()
    if not isinstance(queue, list):
        return []
    return [str(each[-1]).lower() for each in queue]


def _ofReasons(reasons: list[str]) -> TLSError:
    text = ", ".join(reasons)
    if _CLOSE_NOTIFY in reasons or any(
        each.startswith("unexpected eof") for each in reasons
    ):
        return TLSError(_Kind.CLOSED, None, text)
    if any(each in _NOT_TLS for each in reasons):
        return TLSError(_Kind.NOT_TLS, None, text)
    for reason in reasons:
        alert = _ALERT.match(reason)
        if not reason or (alert and alert[1] in _ALERT_NUMBERS):
            # OpenSSL has no reason for unknown alerts.
            number = _ALERT_NUMBERS[alert[1]] if alert else None
            return TLSError(_Kind.REMOTE_ALERT, number, text)
    for reason in reasons:
        if reason in _LOCAL_ALERTS:
            return TLSError(_Kind.LOCAL_ALERT, _LOCAL_ALERTS[reason], text)
    return TLSError(_Kind.OTHER, None, text)
