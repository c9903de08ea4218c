"""
Tests for L{moxtls.tls.session}.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.tls.dane import DANEVerdict
from moxtls.tls.session import (
    CertificateVerification,
    ClassifiedSession,
    SessionRecord,
    STARTTLSResult,
    TLSError,
    certificateFailure,
    classify,
    tlsErrorFailure,
)
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.certificates import good

Kind = TLSError.Kind
CHAIN = (good().certificate,)
GOOD = CertificateVerification(CHAIN, (), True)
UNTRUSTED = CertificateVerification(CHAIN, ((18, 0),), True)
SESSION = SessionRecord("192.0.2.1", "192.0.2.2", "mx.example", "mx.helo.example")


def failure(resultType: ResultType, reason: str = "") -> FailureDetail:
    """
    A failure with the addresses and host of C{SESSION}.
    """
    return FailureDetail(
        resultType,
        reason,
        sendingIP="192.0.2.1",
        mxHostname="mx.example",
        mxHELO="mx.helo.example",
        receivingIP="192.0.2.2",
    )


def counts(*failures: FailureDetail) -> Counter[FailureDetail]:
    return Counter(failures)


NOT_TRUSTED = failure(ResultType.CERTIFICATE_NOT_TRUSTED)


class ClassifyTests(SynchronousTestCase):
    """
    Tests for L{classify}.
    """

    def both(
        self, succeeded: int, failed: int, resultType: ResultType, reason: str = ""
    ) -> ClassifiedSession:
        one = counts(failure(resultType, reason))
        return ClassifiedSession(succeeded, failed, one, one)

    def test_nothing(self) -> None:
        """
        A session that ended before TLS has no result.
        """
        self.assertEqual(classify(SESSION), ClassifiedSession())

    def test_notOffered(self) -> None:
        """
        No STARTTLS where it was optional: reported, but no session failed (RFC 8460
        4.3.1).
        """
        record = replace(SESSION, starttls=STARTTLSResult.NOT_OFFERED)
        self.assertEqual(
            classify(record), self.both(0, 0, ResultType.STARTTLS_NOT_SUPPORTED)
        )

    def test_refused(self) -> None:
        """
        A refused STARTTLS failed the session, with the code as the reason.
        """
        record = replace(SESSION, starttls=STARTTLSResult.REFUSED, code=454)
        self.assertEqual(
            classify(record),
            self.both(
                0,
                1,
                ResultType.STARTTLS_NOT_SUPPORTED,
                "smtp-starttls-reply-code-454",
            ),
        )

    def test_injected(self) -> None:
        """
        Plaintext behind STARTTLS failed the session.
        """
        record = replace(SESSION, starttls=STARTTLSResult.INJECTED)
        self.assertEqual(
            classify(record),
            self.both(
                0, 1, ResultType.VALIDATION_FAILURE, "starttls-plaintext-injection"
            ),
        )

    def test_broken(self) -> None:
        """
        A failed handshake is reported to both.
        """
        error = TLSError(Kind.REMOTE_ALERT, 70)
        record = replace(SESSION, starttls=STARTTLSResult.BROKEN, error=error)
        self.assertEqual(
            classify(record),
            self.both(
                0,
                1,
                ResultType.VALIDATION_FAILURE,
                "tls-remote-alert-70-protocol-version-not-supported",
            ),
        )

    def completed(
        self,
        verification: CertificateVerification = GOOD,
        dane: DANEVerdict = DANEVerdict.NOT_ASKED,
        enforced: bool = False,
        error: TLSError | None = None,
    ) -> ClassifiedSession:
        return classify(
            replace(
                SESSION,
                starttls=STARTTLSResult.COMPLETED,
                verification=verification,
                dane=dane,
                enforced=enforced,
                error=error,
            )
        )

    def test_good(self) -> None:
        """
        A success without failures.
        """
        self.assertEqual(self.completed(), ClassifiedSession(1, 0))
        self.assertEqual(
            self.completed(dane=DANEVerdict.MATCHED), ClassifiedSession(1, 0)
        )

    def test_unenforced(self) -> None:
        """
        An invalid certificate without enforcement: a success, and reported to the
        recipient domain only.
        """
        self.assertEqual(
            self.completed(UNTRUSTED), ClassifiedSession(1, 0, counts(NOT_TRUSTED))
        )

    def test_enforced(self) -> None:
        """
        An invalid certificate under MTA-STS: a failure of both, reported once.
        """
        self.assertEqual(
            self.completed(UNTRUSTED, enforced=True),
            ClassifiedSession(0, 1, counts(NOT_TRUSTED)),
        )

    def test_dane(self) -> None:
        """
        A mismatch is reported to the host only, enforced or not.
        """
        for verdict, reason in (
            (DANEVerdict.NO_MATCH, "dane-no-match"),
            (DANEVerdict.NO_MATCH_WITH_ERRORS, "dane-no-match+errors"),
        ):
            mismatch = counts(failure(ResultType.VALIDATION_FAILURE, reason))
            for enforced in (False, True):
                self.assertEqual(
                    self.completed(dane=verdict, enforced=enforced),
                    ClassifiedSession(1 - enforced, int(enforced), Counter(), mismatch),
                )

    def test_daneAndWebPKI(self) -> None:
        """
        With DANE the Web PKI is evaluated all the same.
        """
        self.assertEqual(
            self.completed(UNTRUSTED, DANEVerdict.MATCHED),
            ClassifiedSession(1, 0, counts(NOT_TRUSTED)),
        )

    def test_alertBehindHandshake(self) -> None:
        """
        An alert as the first data after the handshake makes the session a failure.
        """
        seen = self.completed(UNTRUSTED, error=TLSError(Kind.REMOTE_ALERT, 116))
        alert = failure(
            ResultType.VALIDATION_FAILURE, "tls-remote-alert-116-certificate-required"
        )
        self.assertEqual(
            seen, ClassifiedSession(0, 1, counts(NOT_TRUSTED, alert), counts(alert))
        )


class CertificateFailureTests(SynchronousTestCase):
    """
    Tests for L{certificateFailure}.
    """

    def words(
        self, *errors: int, nameMatches: bool = True, noRoots: bool = False
    ) -> tuple[ResultType, str] | None:
        objections = tuple((error, 0) for error in errors)
        return certificateFailure(
            CertificateVerification(CHAIN, objections, nameMatches, noRoots)
        )

    def test_good(self) -> None:
        """
        A valid certificate has no failure.
        """
        self.assertIsNone(self.words())

    def test_errors(self) -> None:
        """
        Each of OpenSSL's errors has its result type (RFC 8460 4.3.1).
        """
        notTrusted = ResultType.CERTIFICATE_NOT_TRUSTED
        for error, expected in {
            9: (ResultType.CERTIFICATE_EXPIRED, ""),
            10: (ResultType.CERTIFICATE_EXPIRED, ""),
            18: (notTrusted, ""),
            19: (notTrusted, ""),
            20: (notTrusted, ""),
            21: (notTrusted, ""),
            22: (notTrusted, "too-many-intermediates"),
            25: (notTrusted, "too-many-intermediates"),
            26: (notTrusted, "incompatible-key-usage"),
            29: (notTrusted, "parent-subject-child-issuer-mismatch"),
            32: (notTrusted, "not-authorized-to-sign"),
            79: (notTrusted, "not-authorized-to-sign"),
            47: (notTrusted, "ca-not-authorized-for-this-name"),
            62: (ResultType.CERTIFICATE_HOST_MISMATCH, ""),
            68: (notTrusted, "openssl-verify-error-68"),
            4711: (notTrusted, "openssl-verify-error-4711"),
            1: (ResultType.VALIDATION_FAILURE, "openssl-verify-error-1"),
        }.items():
            self.assertEqual(self.words(error), expected, error)

    def test_order(self) -> None:
        """
        Of several faults one is reported, in this order: expiry, chain, name, trust.
        """
        self.assertEqual(
            self.words(18, 10, nameMatches=False),
            (ResultType.CERTIFICATE_EXPIRED, ""),
        )
        self.assertEqual(
            self.words(20, 25, nameMatches=False),
            (ResultType.CERTIFICATE_NOT_TRUSTED, "too-many-intermediates"),
        )
        self.assertEqual(
            self.words(18, nameMatches=False),
            (ResultType.CERTIFICATE_HOST_MISMATCH, ""),
        )
        self.assertEqual(
            self.words(nameMatches=False), (ResultType.CERTIFICATE_HOST_MISMATCH, "")
        )

    def test_noRoots(self) -> None:
        """
        Missing roots on this side aren't the server's fault.
        """
        self.assertEqual(
            self.words(20, noRoots=True),
            (ResultType.CERTIFICATE_NOT_TRUSTED, "no-system-roots"),
        )

    def test_noCertificate(self) -> None:
        """
        A missing certificate is neither trusted nor for the wrong host.
        """
        self.assertEqual(
            certificateFailure(CertificateVerification((), (), False)),
            (ResultType.VALIDATION_FAILURE, "no-certificate"),
        )


class TLSErrorFailureTests(SynchronousTestCase):
    """
    Tests for L{tlsErrorFailure}.
    """

    def test_reasons(self) -> None:
        """
        All of them are validation failures, with their reasons.
        """
        for error, reason in (
            (
                TLSError(Kind.REMOTE_ALERT, 48),
                "tls-remote-alert-48-unknown-certificate-authority",
            ),
            (TLSError(Kind.REMOTE_ALERT, 200), "tls-remote-alert-200"),
            (TLSError(Kind.REMOTE_ALERT), "tls-remote-error"),
            (TLSError(Kind.LOCAL_ALERT, 40), "tls-local-alert-40-handshake-failure"),
            (TLSError(Kind.NOT_TLS), "tls-record-header-error"),
            (TLSError(Kind.TIMEOUT), "io-timeout-during-handshake"),
            (TLSError(Kind.CLOSED), "connection-closed-during-handshake"),
            (TLSError(Kind.OTHER, None, "odd"), ""),
        ):
            self.assertEqual(
                tlsErrorFailure(error), (ResultType.VALIDATION_FAILURE, reason)
            )
