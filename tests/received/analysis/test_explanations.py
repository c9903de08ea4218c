"""
Tests for L{moxtls.received.analysis.explanations}.
"""

from __future__ import annotations

import re
from pathlib import Path
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import moxtls
from moxtls.received.analysis.explanations import MAX_CODE, allExplanations, explain
from moxtls.tlsrpt.types import ResultType

READINGS = Path(moxtls.__file__).parent.parent / "docs" / "readings.rst"

#: Result type, reason code as senders write it, and the title of the explanation.
KNOWN = [
    ("certificate-expired", "", "certificate expired"),
    ("certificate-not-trusted", "X509_V_ERR_CERT_HAS_EXPIRED", "certificate expired"),
    ("certificate-not-trusted", "self signed certificate", "self-signed certificate"),
    ("certificate-not-trusted", "self-signed-certificate", "self-signed certificate"),
    (
        "certificate-not-trusted",
        "X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        "authority unknown",
    ),
    ("certificate-not-trusted", "openssl-verify-error-20", "authority unknown"),
    (
        "certificate-not-trusted",
        "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
        "certificate chain violates its own limits",
    ),
    ("certificate-not-trusted", "no-system-roots", "the sender has no authorities"),
    (
        "validation-failure",
        "tls-remote-alert-48-unknown-certificate-authority",
        "authority unknown",
    ),
    ("validation-failure", "tls-remote-alert-48-unknown-ca", "authority unknown"),
    ("validation-failure", "tls-local-alert-45", "certificate expired"),
    (
        "validation-failure",
        "tls-remote-alert-70-protocol-version-not-supported",
        "no common TLS version or cipher",
    ),
    (
        "validation-failure",
        "dane-no-match+errors",
        "certificate doesn't match TLSA records",
    ),
    (
        "validation-failure",
        "mtasts-policy-mx-mismatch",
        "MX host not in the MTA-STS policy",
    ),
    (
        "validation-failure",
        "5.4.8 MX hosts of 'example.org' failed MTA-STS validation",
        "MX host not in the MTA-STS policy",
    ),
    ("validation-failure", "5.7.322 certificate-expired", "certificate expired"),
    ("validation-failure", "io-timeout-during-handshake", "TLS took too long"),
    (
        "validation-failure",
        "connection-closed-during-starttls",
        "connection closed during TLS",
    ),
    ("starttls-not-supported", "smtp-starttls-reply-code-454", "STARTTLS refused"),
    ("starttls-not-supported", "", "no STARTTLS offered"),
    (
        "sts-policy-fetch-error",
        "bad https response code: 404",
        "no MTA-STS policy at its address",
    ),
    (
        "sts-policy-fetch-error",
        "bad https response code: 500",
        "the policy host had an error",
    ),
    (
        "sts-policy-fetch-error",
        "no-policy-served+fallback-to-cached-policy",
        "no MTA-STS policy at its address",
    ),
    ("sts-policy-fetch-error", "dns-lookup", "DNS lookup failed"),
    # The web server timed out, not the MX host.
    (
        "sts-policy-fetch-error",
        "i/o timeout",
        "MTA-STS policy could not be fetched",
    ),
    # The web server's certificate, not the MX host's.
    (
        "sts-webpki-invalid",
        "certificate-expired",
        "policy host's certificate invalid",
    ),
    ("dnssec-invalid", "dns-extended-error-6-dnssec-bogus", "DNSSEC broken"),
    ("validation-failure", "nobody knows this", "TLS failed"),
    ("Certificate-Expired", "", "certificate expired"),
    ("made-up", "", "unknown failure"),
    ("", "", "unknown failure"),
]
#: The general one, as the result type says all of it.
SAME = {
    "cannot-fetch-policy",
    "policy-syntax-error",
    "tls-remote-error",
    "tls-local-error",
    "openssl-verify-error-<n>",
    "tls-remote-alert-<n>",
    "tls-remote-alert-<n>-<name>",
    "+fallback-to-cached-policy",
    "local",
    "+",
}


class ExplainTests(SynchronousTestCase):
    """
    Tests for L{explain}.
    """

    def test_known(self) -> None:
        """
        Reason codes of several senders are explained within their result type (RFC
        8460 4.3).
        """
        for resultType, code, title in KNOWN:
            self.assertEqual(explain(resultType, code).title, title, (resultType, code))

    def test_resultTypes(self) -> None:
        """
        Every result type of RFC 8460 4.3 has its own explanation.
        """
        titles = {explain(each).title for each in ResultType}
        self.assertEqual(len(titles), len(ResultType))
        self.assertNotIn("unknown failure", titles)

    def test_own(self) -> None:
        """
        The reason codes that this program writes are explained more closely than their
        result type alone.
        """
        if not READINGS.exists():
            raise SkipTest(f"no {READINGS}")
        section = READINGS.read_text().partition("By standard")[0]
        codes = set(re.findall(r"``([^`]+)``", section)) - SAME
        self.assertGreater(len(codes), 20)
        general = {explain(each).title for each in ResultType} | {"unknown failure"}
        fine = {"certificate expired", "TLSA records unusable", "DNSSEC broken"}
        for code in (each.replace("<code>", "454") for each in codes):
            kinds = (ResultType.VALIDATION_FAILURE, ResultType.STS_POLICY_FETCH_ERROR)
            titles = {explain(each, code).title for each in kinds}
            self.assertTrue(titles - general or titles & fine, code)

    def test_voice(self) -> None:
        """
        Each explanation has fewer than 60 words, at least one cause, and a remedy.
        """
        for each in allExplanations():
            words = " ".join((each.title, each.meaning, *each.causes, each.remedy))
            self.assertLess(len(words.split()), 60, each.title)
            self.assertTrue(each.causes and each.remedy, each.title)
            self.assertTrue(each.meaning.endswith("."), each.title)
            self.assertFalse(each.title.endswith("."), each.title)

    def test_names(self) -> None:
        """
        Commands have the names of the domain and host; but never what only a shell
        would take for more than a name.
        """
        found = explain("sts-policy-fetch-error").about("example.org", "")
        self.assertIn("https://mta-sts.example.org/.well-known", found.remedy)
        self.assertIn("mta-sts.example.org has no address", found.causes)
        found = explain("starttls-not-supported").about("", "mx.example.org")
        self.assertIn("-connect mx.example.org:25", found.remedy)
        for host in ("x; id", "$(id)", "-x", "a\nb", "", "x" * 300, "`id`", "a b"):
            found = explain("starttls-not-supported").about(host, host)
            self.assertIn("-connect HOST:25", found.remedy)

    @given(st.text(max_size=40), st.text(max_size=2 * MAX_CODE))
    def test_anything(self, resultType: str, code: str) -> None:
        """
        Any text has an explanation.
        """
        self.assertIn(explain(resultType, code), allExplanations())
