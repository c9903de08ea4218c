# -*- test-case-name: tests.mtasts.test_fetch -*-
"""
Fetches MTA-STS policies (RFC 8461 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.domain import Domain
from moxtls.https import CertificateVerification, HTTPSErrorKind, HTTPSFailure, Response
from moxtls.interfaces import IPolicyFetcher
from moxtls.mtasts.policy import STSPolicy, STSPolicyError, parsePolicy, stsPolicyHost
from moxtls.tlsrpt.types import FailureDetail, ResultType

#: RFC 8461 3.3.
POLICY_PATH = "/.well-known/mta-sts.txt"
MAX_POLICY_BYTES = 64 * 1024

# RFC 8460 4.3 result types, with our reason codes.
NOT_SERVED = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "no-policy-served")
NOT_FETCHED = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "cannot-fetch-policy")
INVALID = FailureDetail(ResultType.STS_POLICY_INVALID, "policy-syntax-error")

#: Describes a certificate failure in the terms of RFC 8460 4.3: a result type and a
#: reason code, which may be empty.
Describe = Callable[[CertificateVerification], tuple[ResultType, str] | None]


class HTTPSGetClient(Protocol):
    """
    The part of L{moxtls.https.HTTPSClient} that is needed.
    """

    def get(self, url: str, maxBody: int) -> Deferred[Response | HTTPSFailure]:
        """
        Fires with the response, or with the reason why there is none.
        """


@implementer(IPolicyFetcher)
class PolicyFetcher:
    """
    Fetches policies from C{https://mta-sts.<domain>}.
    """

    log = Logger()

    def __init__(self, client: HTTPSGetClient, describe: Describe) -> None:
        self._client = client
        self._describe = describe

    def fetch(self, domain: Domain) -> Deferred[STSPolicy | FailureDetail]:
        url = f"https://{stsPolicyHost(domain)}{POLICY_PATH}"
        fetched = self._client.get(url, MAX_POLICY_BYTES)
        return fetched.addCallback(self._read, domain)

    def _read(
        self, answer: Response | HTTPSFailure, domain: Domain
    ) -> STSPolicy | FailureDetail:
        if isinstance(answer, HTTPSFailure):
            self.log.info(
                "policy of {domain}: {kind}: {reason!r}",
                domain=domain,
                kind=answer.kind.name,
                reason=answer.reason,
            )
            return fetchFailure(answer, self._describe)
        policy = parsePolicyResponse(answer)
        if isinstance(policy, STSPolicyError):
            self.log.info("policy of {domain}: {error}", domain=domain, error=policy)
            return INVALID
        return policy


def parsePolicyResponse(answer: Response) -> STSPolicy | STSPolicyError | FailureDetail:
    """
    The policy in the response of a policy host.
    """
    if answer.status == 404:
        return NOT_SERVED
    if answer.status != 200 or not _isText(answer.header("content-type")):
        return NOT_FETCHED
    return parsePolicy(answer.body)


def fetchFailure(failure: HTTPSFailure, describe: Describe) -> FailureDetail:
    """
    The failure of a fetch without a response.
    """
    if failure.kind is HTTPSErrorKind.NO_NAME:
        return NOT_SERVED
    if failure.kind is HTTPSErrorKind.TOO_LARGE:
        return INVALID
    if failure.kind is HTTPSErrorKind.CERTIFICATE and failure.verification is not None:
        described = describe(failure.verification)
        words = [word for word in described or () if word]
        return FailureDetail(ResultType.STS_WEBPKI_INVALID, "+".join(words))
    if failure.dnssecError is not None:
        return replace(NOT_FETCHED, reasonCode=failure.dnssecError.reasonCode)
    return NOT_FETCHED


def _isText(contentType: str) -> bool:
    # RFC 8461 3.2: "SHOULD validate that the media type is text/plain", because
    # of hosts where users choose the paths of what they upload.  The RFC doesn't
    # say what a missing type means; it is accepted, as hosts for uploads send one.
    # Parameters are ignored.
    mediaType, _, _ = contentType.partition(";")
    return mediaType.strip().lower() in ("", "text/plain")
