"""
Tests for L{moxtls.mtasts.fetch}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dns.types import ExtendedError
from moxtls.domain import Domain
from moxtls.https import CertificateVerification, HTTPSErrorKind, HTTPSFailure, Response
from moxtls.interfaces import IPolicyFetcher
from moxtls.mtasts.fetch import PolicyFetcher
from moxtls.mtasts.policy import Mode, STSPolicy
from moxtls.tls.resulttype import certificateFailure
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.certificates import good

BODY = b"version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: 86400\n"
TEXT = (("content-type", "text/plain"),)
EXPIRED, UNTRUSTED, PATH_LENGTH = 10, 18, 25


class FakeClient:
    """
    Answers each request with the same.
    """

    def __init__(self, answer: Response | HTTPSFailure) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    def get(self, url: str, maxBody: int) -> Deferred[Response | HTTPSFailure]:
        self.asked.append((url, maxBody))
        return succeed(self.answer)


class FetcherTests(SynchronousTestCase):
    """
    Tests for L{PolicyFetcher}.
    """

    def fetch(
        self, answer: Response | HTTPSFailure, domain: str = "d.example"
    ) -> STSPolicy | FailureDetail:
        """
        The result of fetching this response.
        """
        self.client = FakeClient(answer)
        fetcher = PolicyFetcher(self.client, certificateFailure)
        verifyObject(IPolicyFetcher, fetcher)
        return self.successResultOf(fetcher.fetch(Domain.parse(domain)))

    def assertFails(
        self,
        answer: Response | HTTPSFailure,
        reason: str,
        kind: ResultType = ResultType.STS_POLICY_FETCH_ERROR,
    ) -> None:
        """
        C{answer} is reported as this failure.
        """
        self.assertEqual(self.fetch(answer), FailureDetail(kind, reason))

    def test_served(self) -> None:
        """
        RFC 8461 3.2, 3.3: from a fixed place, in A-labels, 64 KiB at most.
        """
        found = self.fetch(Response(200, TEXT, BODY), "m\xf8x.example")
        assert isinstance(found, STSPolicy)
        self.assertEqual((found.mode, found.mx), (Mode.ENFORCE, ("mx.example",)))
        url = "https://mta-sts.xn--mx-lka.example/.well-known/mta-sts.txt"
        self.assertEqual(self.client.asked, [(url, 65536)])

    def test_notServed(self) -> None:
        """
        A missing host and a missing page both mean that there is no policy.
        """
        self.assertFails(Response(404, TEXT, BODY), "no-policy-served")
        self.assertFails(HTTPSFailure(HTTPSErrorKind.NO_NAME), "no-policy-served")

    def test_status(self) -> None:
        """
        RFC 8461 3.3: only 200 makes a policy, and redirects aren't followed.
        """
        for status in (201, 204, 301, 302, 307, 403, 410, 500, 503):
            self.assertFails(Response(status, TEXT, BODY), "cannot-fetch-policy")

    def test_mediaType(self) -> None:
        """
        RFC 8461 3.2: the media type should be text/plain, with any parameters.
        """
        for value in ("text/plain; charset=utf-8", "Text/Plain", "text/plain;x", ""):
            found = self.fetch(Response(200, (("content-type", value),), BODY))
            self.assertIsInstance(found, STSPolicy, value)
        self.assertIsInstance(self.fetch(Response(200, (), BODY)), STSPolicy)
        for value in ("text/html", "application/octet-stream", "text/plainer"):
            answer = Response(200, (("content-type", value),), BODY)
            self.assertFails(answer, "cannot-fetch-policy")

    def test_invalid(self) -> None:
        """
        RFC 8460 4.3.2.2: an invalid policy is different from a failed fetch; one
        without end is invalid.
        """
        for answer in (
            Response(200, TEXT, b"<html>"),
            HTTPSFailure(HTTPSErrorKind.TOO_LARGE),
        ):
            kind = ResultType.STS_POLICY_INVALID
            self.assertFails(answer, "policy-syntax-error", kind)

    def test_noAnswer(self) -> None:
        """
        All failures of the connection have one reason.
        """
        for kind in (
            HTTPSErrorKind.LOOKUP,
            HTTPSErrorKind.CONNECT,
            HTTPSErrorKind.TIMEOUT,
            HTTPSErrorKind.PROTOCOL,
        ):
            self.assertFails(HTTPSFailure(kind), "cannot-fetch-policy")

    def test_dnssec(self) -> None:
        """
        A policy host whose addresses were refused because of DNSSEC.
        """
        refused = HTTPSFailure(HTTPSErrorKind.LOOKUP, dnssecError=ExtendedError(6))
        self.assertFails(refused, "dns-extended-error-6-dnssec-bogus")

    def test_certificate(self) -> None:
        """
        RFC 8460 4.3.2.2: sts-webpki-invalid, with the fault of the certificate.
        """
        chain = (good("mta-sts.d.example").certificate,)
        for objections, matches, reason in (
            ((EXPIRED,), True, "certificate-expired"),
            ((), False, "certificate-host-mismatch"),
            ((UNTRUSTED,), True, "certificate-not-trusted"),
            (
                (PATH_LENGTH,),
                True,
                "certificate-not-trusted+too-many-intermediates",
            ),
        ):
            verification = CertificateVerification(
                chain, tuple((each, 0) for each in objections), matches
            )
            failure = HTTPSFailure(HTTPSErrorKind.CERTIFICATE, "", verification)
            self.assertFails(failure, reason, ResultType.STS_WEBPKI_INVALID)
