# -*- test-case-name: tests.tls.test_session -*-
"""
Record of TLS in one SMTP session, and its result types and failure reason codes (RFC
8460 4.3).  No I/O.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto

from cryptography.x509 import Certificate

from moxtls.tls.dane import DANEVerdict
from moxtls.tlsrpt.types import FailureDetail, ResultType

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


# OpenSSL's X509_V_ERR_ numbers, <openssl/x509_vfy.h>.  They never change.
UNSPECIFIED = 1
_EXPIRED = frozenset({9, 10})
_HOST_MISMATCH = frozenset({62, 64})
# No chain to a root: 2, 20 and 21 lack an issuer, 18 and 19 end in a
# certificate that signed itself, 7 is not signed by who it says it is; 27 and
# 28 have a root that isn't trusted for this.
_UNKNOWN_AUTHORITY = frozenset({2, 7, 18, 19, 20, 21, 27, 28})
_REASONS = {
    22: "too-many-intermediates",
    25: "too-many-intermediates",
    24: "not-authorized-to-sign",
    32: "not-authorized-to-sign",
    79: "not-authorized-to-sign",
    26: "incompatible-key-usage",
    39: "incompatible-key-usage",
    29: "parent-subject-child-issuer-mismatch",
    30: "parent-subject-child-issuer-mismatch",
    31: "parent-subject-child-issuer-mismatch",
    47: "ca-not-authorized-for-this-name",
    48: "ca-not-authorized-for-this-name",
    51: "unconstrained-name",
    52: "unconstrained-name",
    53: "unconstrained-name",
}

# RFC 8446 6, RFC 5246 7.2 and the registry of TLS alerts, in words that say
# what is wrong.
_ALERTS = {
    0: "close notify",
    10: "unexpected message",
    20: "bad record mac",
    21: "decryption failed",
    22: "record overflow",
    30: "decompression failure",
    40: "handshake failure",
    41: "no certificate",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "revoked certificate",
    45: "expired certificate",
    46: "unknown certificate",
    47: "illegal parameter",
    48: "unknown certificate authority",
    49: "access denied",
    50: "error decoding message",
    51: "error decrypting message",
    52: "too many cids requested",
    60: "export restriction",
    70: "protocol version not supported",
    71: "insufficient security level",
    80: "internal error",
    86: "inappropriate fallback",
    90: "user canceled",
    100: "no renegotiation",
    109: "missing extension",
    110: "unsupported extension",
    111: "certificate unobtainable",
    112: "unrecognized name",
    113: "bad certificate status response",
    114: "bad certificate hash value",
    115: "unknown psk identity",
    116: "certificate required",
    117: "general error",
    120: "no application protocol",
    121: "encrypted client hello required",
}

_HANDSHAKE_REASONS = {
    TLSError.Kind.NOT_TLS: "tls-record-header-error",
    TLSError.Kind.TIMEOUT: "io-timeout-during-handshake",
    TLSError.Kind.CLOSED: "connection-closed-during-handshake",
}
_STARTTLS_REASONS = {
    TLSError.Kind.NOT_SMTP: "malformed-reply-to-starttls",
    TLSError.Kind.TIMEOUT: "io-timeout-during-starttls",
    TLSError.Kind.CLOSED: "connection-closed-during-starttls",
}


@dataclass(frozen=True, slots=True)
class ClassifiedSession:
    """
    The counts of one session, for the recipient domain and for the host.

    @ivar succeeded: 0 or 1, for both.
    @ivar failed: 0 or 1, for both.
    """

    succeeded: int = 0
    failed: int = 0
    recipientFailures: Counter[FailureDetail] = field(default_factory=Counter)
    hostFailures: Counter[FailureDetail] = field(default_factory=Counter)


def classify(record: SessionRecord) -> ClassifiedSession:
    """
    Classify a session by RFC 8460 4.3.

    A session with working TLS is a success even if the certificate, which didn't
    have to be verified, is not valid: that failure is reported beside it.
    """
    if record.starttls is STARTTLSResult.NOT_TRIED:
        return ClassifiedSession()
    if record.starttls is STARTTLSResult.COMPLETED and record.error is None:
        return _certificateResult(record)
    both = _failure(record, *_handshakeFailure(record))
    failed = int(record.starttls is not STARTTLSResult.NOT_OFFERED)
    certificate = _certificateResult(record)
    return ClassifiedSession(
        0,
        failed,
        certificate.recipientFailures + Counter([both]),
        certificate.hostFailures + Counter([both]),
    )


def _handshakeFailure(record: SessionRecord) -> tuple[ResultType, str]:
    if record.starttls is STARTTLSResult.NOT_OFFERED:
        return ResultType.STARTTLS_NOT_SUPPORTED, ""
    if record.starttls is STARTTLSResult.REFUSED:
        reason = f"smtp-starttls-reply-code-{record.code}"
        return ResultType.STARTTLS_NOT_SUPPORTED, reason
    error = record.error or TLSError(TLSError.Kind.OTHER)
    if record.starttls is STARTTLSResult.UNANSWERED:
        return ResultType.VALIDATION_FAILURE, _STARTTLS_REASONS.get(error.kind, "")
    if record.starttls is STARTTLSResult.INJECTED:
        return ResultType.VALIDATION_FAILURE, "starttls-plaintext-injection"
    return tlsErrorFailure(error)


def _certificateResult(record: SessionRecord) -> ClassifiedSession:
    """
    The failures of the certificate: those of the Web PKI belong to the recipient
    domain, for MTA-STS; those of DANE to the host, whose TLSA records they concern.
    """
    recipient: Counter[FailureDetail] = Counter()
    host: Counter[FailureDetail] = Counter()
    pkix = record.verification and certificateFailure(record.verification)
    if pkix:
        recipient[_failure(record, *pkix)] += 1
    if record.dane in (DANEVerdict.NO_MATCH, DANEVerdict.NO_MATCH_WITH_ERRORS):
        errors = record.dane is DANEVerdict.NO_MATCH_WITH_ERRORS
        reason = "dane-no-match+errors" if errors else "dane-no-match"
        host[_failure(record, ResultType.VALIDATION_FAILURE, reason)] += 1
    enforced = int(record.enforced)
    return ClassifiedSession(1 - enforced, enforced, recipient, host)


def _failure(
    record: SessionRecord, resultType: ResultType, reason: str
) -> FailureDetail:
    return FailureDetail(
        resultType,
        reason,
        sendingIP=record.sendingIP,
        mxHostname=record.host,
        mxHELO=record.helo,
        receivingIP=record.receivingIP,
    )


def certificateFailure(
    verification: CertificateVerification,
) -> tuple[ResultType, str] | None:
    """
    The failure of a chain that the Web PKI doesn't verify: the first that applies.
    C{None} if it is verified.
    """
    errors = [error for error, _ in verification.verifyErrors]
    other = [each for each in errors if each not in _NOT_OTHER]
    if not _EXPIRED.isdisjoint(errors):
        return ResultType.CERTIFICATE_EXPIRED, ""
    if other:
        reason = _REASONS.get(other[0], f"openssl-verify-error-{other[0]}")
        return ResultType.CERTIFICATE_NOT_TRUSTED, reason
    if not _HOST_MISMATCH.isdisjoint(errors) or (
        verification.chain and not verification.nameMatches
    ):
        return ResultType.CERTIFICATE_HOST_MISMATCH, ""
    if not _UNKNOWN_AUTHORITY.isdisjoint(errors):
        reason = "no-system-roots" if verification.noRoots else ""
        return ResultType.CERTIFICATE_NOT_TRUSTED, reason
    if errors:
        return ResultType.VALIDATION_FAILURE, f"openssl-verify-error-{errors[0]}"
    if not verification.chain:
        return ResultType.VALIDATION_FAILURE, "no-certificate"
    return None


_NOT_OTHER = _EXPIRED | _HOST_MISMATCH | _UNKNOWN_AUTHORITY | {UNSPECIFIED}


def tlsErrorFailure(error: TLSError) -> tuple[ResultType, str]:
    """
    The result type and reason code of a failed handshake.
    """
    whose = {
        TLSError.Kind.REMOTE_ALERT: "remote",
        TLSError.Kind.LOCAL_ALERT: "local",
    }.get(error.kind)
    if whose is None:
        return ResultType.VALIDATION_FAILURE, _HANDSHAKE_REASONS.get(error.kind, "")
    if error.alert is None:
        return ResultType.VALIDATION_FAILURE, f"tls-{whose}-error"
    words = [f"tls-{whose}-alert-{error.alert}"]
    words += _ALERTS.get(error.alert, "").split()
    return ResultType.VALIDATION_FAILURE, "-".join(words)
