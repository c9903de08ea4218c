# -*- test-case-name: tests.received.analysis.test_explanations -*-
"""
Explains the result types (RFC 8460 4.3) and failure reason codes of received TLS
reports: what happened, likely causes, and the remedy.  No I/O.

Reason codes are free text.  Those that this program writes are in docs/readings.rst;
others are recognized by the words that they have in common, so that
C{X509_V_ERR_CERT_HAS_EXPIRED} and C{certificate has expired} mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moxtls.tlsrpt.types import ResultType

#: Characters of a reason code that are looked at: reports come from anybody.
MAX_CODE = 200


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    Plain words about a failure, for the postmaster of the reported domain.

    @ivar title: A phrase, without a full stop.
    @ivar meaning: What happened, as a sentence.
    @ivar causes: Phrases, the most likely first.
    @ivar remedy: What to do, and the command that shows more.

    C{DOMAIN} and C{HOST} stand for names; see L{about}.
    """

    title: str
    meaning: str
    causes: tuple[str, ...]
    remedy: str

    def about(self, domain: str, host: str) -> Explanation:
        """
        The same with names filled in.  Only host names are: commands are copied into
        shells, and others wrote the report.

        @param domain: The policy domain.
        @param host: The MX host; may be empty.
        """

        def filled(text: str) -> str:
            for word, name in (("DOMAIN", domain), ("HOST", host)):
                if _HOST_NAME.match(name):
                    text = text.replace(word, name)
            return text

        return Explanation(
            self.title,
            self.meaning,
            tuple(map(filled, self.causes)),
            filled(self.remedy),
        )


_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}\Z")
_SHOW = "openssl s_client -starttls smtp -connect HOST:25"
_FETCH = "curl -v https://mta-sts.DOMAIN/.well-known/mta-sts.txt"

_GENERAL: dict[str, Explanation] = {
    ResultType.STARTTLS_NOT_SUPPORTED: Explanation(
        "no STARTTLS offered",
        "The host didn't announce STARTTLS, so the sender could not encrypt.",
        (
            "TLS is off on the listener",
            "the certificate could not be loaded",
            "a firewall filters SMTP",
            "the MX record names another host",
        ),
        f"Set TLS of the listener, then look from outside with: {_SHOW}",
    ),
    ResultType.CERTIFICATE_HOST_MISMATCH: Explanation(
        "certificate for another name",
        "The certificate is not for the host name that the policy or MX record has.",
        (
            "the MX host was renamed",
            "the certificate lacks this name",
            "the default certificate was sent",
        ),
        "Get a certificate with the MX host's name among its DNS names. "
        f"See it with: {_SHOW}",
    ),
    ResultType.CERTIFICATE_EXPIRED: Explanation(
        "certificate expired",
        "The certificate was past its last day, or not valid yet.",
        (
            "its renewal failed",
            "the renewed files were not put in place",
            "the sender's clock is wrong",
        ),
        "Renew the certificate and replace its files; moxtls loads them by itself. "
        "Check with: moxtls config check",
    ),
    ResultType.CERTIFICATE_NOT_TRUSTED: Explanation(
        "certificate not trusted",
        "The sender found no path from the certificate to an authority it trusts.",
        (
            "intermediate certificates are missing in the file",
            "the certificate is self-signed",
            "the authority is not widely trusted",
        ),
        f"Put leaf and intermediates into CertificateFile. Check with: {_SHOW}",
    ),
    ResultType.VALIDATION_FAILURE: Explanation(
        "TLS failed",
        "The TLS session failed for a reason that has no name of its own.",
        (
            "the connection broke",
            "no common TLS version or cipher",
            "TLSA records that don't match",
        ),
        "Look for the host's own failed handshakes of those days with: "
        "moxtls summary DOMAIN",
    ),
    ResultType.TLSA_INVALID: Explanation(
        "TLSA records unusable",
        "None of the host's TLSA records could be used.",
        (
            "digests of the wrong length",
            "usages other than 2 and 3",
            "records copied with errors",
        ),
        "Publish a record 3 1 1 with the digest of the key in use. "
        "Check with: dig TLSA _25._tcp.HOST",
    ),
    ResultType.DNSSEC_INVALID: Explanation(
        "DNSSEC broken",
        "The sender's resolver could not get DNS answers that validate.",
        (
            "expired signatures in the zone",
            "a DS record for an old key",
            "name servers that don't answer for TLSA",
        ),
        "Check the zone with: delv MX DOMAIN; delv TLSA _25._tcp.HOST. Until it "
        "is mended, such senders don't deliver.",
    ),
    ResultType.DANE_REQUIRED: Explanation(
        "DANE required, but no TLSA records",
        "The sender insists on DANE for this domain and found no signed TLSA records.",
        (
            "TLSA records were removed",
            "the zone is no longer signed",
            "the MX host moved to another zone",
        ),
        "Publish TLSA records again, or ask the sender to change its "
        "configuration. Check with: delv TLSA _25._tcp.HOST",
    ),
    ResultType.STS_POLICY_FETCH_ERROR: Explanation(
        "MTA-STS policy could not be fetched",
        "There is an MTA-STS record, but the sender could not get the policy.",
        (
            "the web server was down",
            "the file isn't at its path",
            "mta-sts.DOMAIN has no address",
        ),
        f"Fetch it from outside with: {_FETCH}",
    ),
    ResultType.STS_POLICY_INVALID: Explanation(
        "MTA-STS policy invalid",
        "The MTA-STS policy was fetched, but breaks the format.",
        (
            "a misspelled key",
            "no mx or max_age line",
            "a web page instead of the policy",
        ),
        f"Compare it with RFC 8461 3.2: {_FETCH}",
    ),
    ResultType.STS_WEBPKI_INVALID: Explanation(
        "policy host's certificate invalid",
        "The web server for the MTA-STS policy has a certificate that senders reject.",
        (
            "it expired",
            "it is not for mta-sts.DOMAIN",
            "intermediates are missing",
        ),
        f"Renew the certificate of the web server, not of the MX host. See: {_FETCH}",
    ),
}

_UNKNOWN = Explanation(
    "unknown failure",
    "The sender uses a result type that RFC 8460 doesn't have.",
    ("a newer standard", "an error in the sender's software"),
    "Ask the contact in the report: moxtls report show ID",
)

_POLICY_404 = Explanation(
    "no MTA-STS policy at its address",
    "The web server answered that there is no policy file.",
    (
        "the file is missing",
        "the web server doesn't know the name mta-sts.DOMAIN",
        "the record was published first",
    ),
    f"Serve the policy, or remove the record. Check with: {_FETCH}",
)
_POLICY_5XX = Explanation(
    "the policy host had an error",
    "The web server that serves the MTA-STS policy answered with an error.",
    ("it or its backend was down", "a bot filter refused the sender"),
    f"Look into its log for that day; fetch the policy with: {_FETCH}",
)
_REFUSED_STARTTLS = Explanation(
    "STARTTLS refused",
    "The host announced STARTTLS and then refused the command.",
    (
        "the certificate or key could not be loaded",
        "the host was overloaded",
        "a proxy in between",
    ),
    f"Look into the log for that day. Try it: {_SHOW}",
)
_CLOSED = Explanation(
    "connection closed during TLS",
    "The connection ended before TLS was set up.",
    (
        "a restart",
        "a firewall or proxy that breaks STARTTLS",
        "limits on connections",
        "a network fault",
    ),
    "If it stays with one sender, it is most likely on the way there. "
    "See the host's side with: moxtls summary DOMAIN",
)
_TIMEOUT = Explanation(
    "TLS took too long",
    "The host didn't continue with TLS in time.",
    (
        "an overloaded host",
        "lost packets, often a wrong MTU",
        "a firewall that drops packets",
    ),
    f"Try it from another network: {_SHOW}",
)
_PROTOCOL = Explanation(
    "no common TLS version or cipher",
    "Sender and host could not agree on how to encrypt.",
    (
        "an old sender that lacks TLS 1.2",
        "a restricted cipher list on one side",
        "a key that the sender can't use",
    ),
    "moxtls offers TLS 1.2 and 1.3. With an old sender, only the sender can help.",
)
_CA = Explanation(
    "authority unknown",
    "The other side doesn't know the authority that issued the certificate.",
    (
        "intermediate certificates are missing",
        "a self-signed certificate",
        "an outdated list of authorities",
    ),
    f"Put leaf and intermediates into CertificateFile. Check with: {_SHOW}",
)
_SELF_SIGNED = Explanation(
    "self-signed certificate",
    "The certificate is signed by itself, which only DANE can vouch for.",
    (
        "a certificate made at installation",
        "the wrong file in CertificateFile",
        "a root sent in place of the leaf",
    ),
    f"Get a certificate from a public authority. Check with: {_SHOW}",
)
_USAGE = Explanation(
    "certificate chain violates its own limits",
    "A certificate in the chain may not be used in this way.",
    (
        "the wrong intermediate in the file",
        "a private authority with restrictions",
        "a certificate not meant for servers",
    ),
    f"Use the chain that the authority supplies. See it with: {_SHOW}",
)
_EXPIRED = _GENERAL[ResultType.CERTIFICATE_EXPIRED]
_MISMATCH = _GENERAL[ResultType.CERTIFICATE_HOST_MISMATCH]
_BAD_CERTIFICATE = Explanation(
    "certificate rejected",
    "The other side rejected the certificate without saying more.",
    (
        "it expired",
        "its name doesn't fit",
        "intermediates are missing",
        "a weak key or signature",
    ),
    f"Check dates, names and chain with: {_SHOW}",
)
_DANE = Explanation(
    "certificate doesn't match TLSA records",
    "The host's certificate or key is none of those in its TLSA records.",
    (
        "the key was replaced before the new record was published",
        "an old record is still cached",
    ),
    "Publish the new key's record two TTLs before the change, and keep the key "
    "at renewal. Check with: dig TLSA _25._tcp.HOST",
)
_MX_MISMATCH = Explanation(
    "MX host not in the MTA-STS policy",
    "An MX record names a host that the MTA-STS policy doesn't list.",
    (
        "a new MX host was added to DNS only",
        "a misspelled mx line",
        "forged DNS answers",
    ),
    f"Add the host to the policy and change the id in DNS. Compare: {_FETCH}",
)
_DNSSEC_CODE = _GENERAL[ResultType.DNSSEC_INVALID]
_LOOKUP = Explanation(
    "DNS lookup failed",
    "The sender could not look up a record of this domain.",
    (
        "name servers that were down or slow",
        "wrong delegation",
        "a fault of the sender's resolver",
    ),
    "Ask each name server of the zone for the record: "
    "dig +norecurse TXT _mta-sts.DOMAIN @SERVER",
)
_RECORD = Explanation(
    "MTA-STS record invalid",
    "The TXT record at _mta-sts is missing, malformed, or there are several.",
    (
        "two records after a change",
        "an id with other characters than letters and digits",
        "a record removed too early",
    ),
    "Publish exactly one, such as v=STSv1; id=20260101. Check with: "
    "dig TXT _mta-sts.DOMAIN",
)
_BACKOFF = Explanation(
    "policy not fetched again yet",
    "The sender had just failed to fetch the MTA-STS policy and waits before it "
    "tries again.",
    ("the failure that came before, in the same report",),
    f"Mend the first failure. Fetch the policy with: {_FETCH}",
)
_UNUSABLE = _GENERAL[ResultType.TLSA_INVALID]
_INJECTION = Explanation(
    "data injected after STARTTLS",
    "Data came behind the reply to STARTTLS, before TLS began.",
    (
        "a proxy or mail filter in front of the host",
        "a pipelining error in the server",
        "an attack",
    ),
    "Connect to the host without proxy and compare. Update the server software.",
)
_NOT_TLS = Explanation(
    "no TLS after STARTTLS",
    "The other side sent plain text where TLS should begin.",
    (
        "a proxy or filter that answers STARTTLS itself",
        "a port with another service",
    ),
    f"Look at the first lines from outside: {_SHOW}",
)
_NO_ROOTS = Explanation(
    "the sender has no authorities",
    "The sender has no list of trusted authorities, so no certificate can pass.",
    ("an incomplete installation of the sender",),
    "Nothing on this side. The contact in the report may want to know: "
    "moxtls report show ID",
)
_NO_CERTIFICATE = Explanation(
    "no certificate sent",
    "The host completed TLS without a certificate.",
    ("anonymous ciphers are on", "a proxy in front of the host"),
    f"Configure a certificate, and ciphers that need one. See: {_SHOW}",
)
_HTTP_REDIRECT = Explanation(
    "policy host redirects",
    "The web server redirects to another address, which MTA-STS forbids.",
    ("a redirect to www or to the main site", "a parked domain"),
    f"Serve the policy at mta-sts.DOMAIN itself. See: {_FETCH}",
)
_REVOKED = Explanation(
    "certificate revoked",
    "The authority has declared the certificate invalid.",
    ("the key was reported as stolen", "the authority had to replace it"),
    "Get a new certificate with a new key, and publish its TLSA record before.",
)

# In this order: the first that matches applies.  Codes are compared in lower case, with
# hyphens for all that is no letter or digit.
Codes = tuple[tuple[str, Explanation], ...]
_BOTH_CODES: Codes = (
    (r"mx-mismatch|mx-hosts-of|mx-not-(?:listed|in-policy)|[45]-4-8", _MX_MISMATCH),
    (r"multiple-mta-sts|record-syntax|no-mta-sts-dns", _RECORD),
    (r"dns-extended-error|dnssec|bogus|[45]-7-324", _DNSSEC_CODE),
    (r"dns-lookup|no-such-host|servfail|nxdomain|host-not-found", _LOOKUP),
)
_POLICY_CODES: Codes = (
    (r"back-off-after", _BACKOFF),
    (r"no-policy-served|\b4(?:04|10)\b", _POLICY_404),
    (r"\b30[1-8]\b|redirect", _HTTP_REDIRECT),
    (r"\b[45][0-9]{2}\b", _POLICY_5XX),
)
_SESSION_CODES: Codes = (
    (r"dane-no-match|no-matching-dane|(?:dane|tlsa)-.*mismatch", _DANE),
    (r"unusable|[45]-7-323", _UNUSABLE),
    (r"plaintext-injection", _INJECTION),
    (r"no-system-roots", _NO_ROOTS),
    (r"^no-certificate$|peer-did-not-(?:return|present)", _NO_CERTIFICATE),
    (r"starttls.*-[45][0-9]{2}\b", _REFUSED_STARTTLS),
    (r"[45]-7-321", _GENERAL[ResultType.STARTTLS_NOT_SUPPORTED]),
    (r"revoked|alert-44\b", _REVOKED),
    (r"expired|not-yet-valid|alert-45\b|[45]-7-322", _EXPIRED),
    (r"self-signed|depth-zero", _SELF_SIGNED),
    (r"unknown-(?:ca\b|certificate-authority)|alert-48\b|unknown-authority", _CA),
    (r"unable-to-(?:get|verify).*(?:issuer|leaf|first)", _CA),
    (r"verify-error-(?:2|20|21|27)$|partial-chain|untrusted", _CA),
    (r"(?:host-?name|host|name|ip-address)-mismatch|wrong-(?:host|name)", _MISMATCH),
    (
        r"not-authorized-to-sign|too-many-intermediates|incompatible-key-usage"
        r"|unconstrained-name|issuer-mismatch|ca-not-authorized|path-length"
        r"|invalid-(?:ca|purpose)|permitted-violation",
        _USAGE,
    ),
    (r"(?:bad|unknown|unsupported)-certificate|alert-4[236]\b", _BAD_CERTIFICATE),
    (r"record-header|wrong-version|not-tls|http-request|malformed-reply", _NOT_TLS),
    (r"protocol-version|handshake-failure|insufficient-security", _PROTOCOL),
    (r"unsupported-protocol|no-shared-cipher|alert-(?:40|70|71)\b", _PROTOCOL),
    (r"io-timeout|timed?-?out|deadline", _TIMEOUT),
    (r"connection-(?:closed|reset|lost)|eof\b|broken-pipe", _CLOSED),
)
# A certificate's code under "sts-webpki-invalid" is about the web server, as the result
# type says already.
_CODES: Mapping[str, Codes] = {
    ResultType.STS_WEBPKI_INVALID: (),
    ResultType.STS_POLICY_FETCH_ERROR: (*_BOTH_CODES, *_POLICY_CODES),
    ResultType.STS_POLICY_INVALID: (*_BOTH_CODES, *_POLICY_CODES),
}
_OTHER_CODES = (*_BOTH_CODES, *_SESSION_CODES)
_FALLBACK = "+fallback-to-cached-policy"
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def explain(resultType: str, reasonCode: str = "") -> Explanation:
    """
    Explain a failure.

    @param resultType: RFC 8460 4.3; others are possible.
    @param reasonCode: C{failure-reason-code}, in whatever form a sender writes it.

    @return: That of the result type for an unknown reason code.
    """
    kind = resultType.strip().lower()
    code = reasonCode[:MAX_CODE].lower().replace(_FALLBACK, "")
    code = _SEPARATORS.sub("-", code).strip("-")
    codes = _CODES.get(kind, _OTHER_CODES) if code else ()
    for pattern, explanation in codes:
        if re.search(pattern, code):
            return explanation
    return _GENERAL.get(kind, _UNKNOWN)


def allExplanations() -> tuple[Explanation, ...]:
    """
    Every explanation once.
    """
    codes = (*_BOTH_CODES, *_POLICY_CODES, *_SESSION_CODES)
    known = (*_GENERAL.values(), *(each for _, each in codes), _UNKNOWN)
    return tuple(dict.fromkeys(known))
