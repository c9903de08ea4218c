# -*- test-case-name: tests.tlsrpt.test_types -*-
"""
TLSRPT records, TLS policies, results and counts of sessions, in the terms of RFC 8460.
No I/O.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum

from moxtls.domain import Domain
from moxtls.taglist import WSP, splitTagSpecs


class PolicyType(StrEnum):
    """
    The policy types of RFC 8460 4.4.
    """

    TLSA = "tlsa"
    STS = "sts"
    NO_POLICY = "no-policy-found"


class ResultType(StrEnum):
    """
    The result types of RFC 8460 4.3.
    """

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


@dataclass(frozen=True, slots=True, order=True)
class TLSPolicy:
    """
    A policy that was applied to sessions (RFC 8460 4.4).

    @ivar domain: The policy domain: the recipient domain for MTA-STS, the host for
        TLSA, either without a policy.
    @ivar strings: For C{STS} the lines of the policy; for C{TLSA} the usable
        records, sorted, as C{usage selector matching hexdata}.
    @ivar mxHosts: The patterns of an MTA-STS policy, A-labels.
    """

    type: PolicyType
    domain: Domain
    strings: tuple[str, ...] = ()
    mxHosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class FailureDetail:
    """
    A kind of failure of a session (RFC 8460 4.3, 4.4 failure-details).

    Empty strings stand for unknown or inapplicable values; reports omit them.

    @ivar mxHELO: The name that the host gives in its greeting.
    @ivar additional: A URI with further information.
    """

    resultType: ResultType
    reasonCode: str = ""
    sendingIP: str = ""
    mxHostname: str = ""
    mxHELO: str = ""
    receivingIP: str = ""
    additional: str = ""


@dataclass(frozen=True, slots=True)
class PolicyTally:
    """
    Sessions counted against one L{TLSPolicy}.

    @ivar failed: Sessions that failed.  Not the sum of C{failures}: one
        session can have several failures, and a failure that was not enforced
        fails no session.
    @ivar failures: Number of sessions for each; a failure seen in no session (0)
        is reported, too.
    """

    policy: TLSPolicy
    succeeded: int = 0
    failed: int = 0
    failures: Counter[FailureDetail] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """
    The TLS results of one delivery attempt to a recipient domain.

    An attempt connects to the domain's hosts one after the other until one accepts
    the mail.  Its sessions are counted for both kinds of policy domain (RFC 8460 3):
    the recipient domain itself, and each host.

    @ivar recipientDomain: The domain of the RCPT addresses, before any CNAME.
    @ivar recipient: C{None} if nothing was observed, such as after a local error.
    @ivar hosts: One tally for each host with results.
    @ivar sendReport: True if this may cause a report, rather than only be part of
        one: deliveries of reports must not cause reports.
    @ivar isTLSReport: True if the message was a TLS report, which is not reported
        (RFC 8460 3).
    """

    recipientDomain: Domain
    recipient: PolicyTally | None
    hosts: tuple[PolicyTally, ...] = ()
    sendReport: bool = True
    isTLSReport: bool = False


@dataclass(frozen=True, slots=True)
class StoredResult:
    """
    The results stored for one policy domain and one recipient domain, on one day.

    @ivar isHost: True if C{policyDomain} is that of an MX host.
    @ivar reportedToRecipient: The report to the recipient domain is settled.
    @ivar reportedToHost: The report to the host is settled.
    @ivar reportedDestinations: The destinations of the first of the two reports, if
        there was one; the second one omits what they received.
    @ivar until: The Unix second in which the period was closed early; 0 if it wasn't.
    """

    day: date
    policyDomain: Domain
    recipientDomain: Domain
    isHost: bool
    sendReport: bool
    tallies: tuple[PolicyTally, ...]
    reportedToRecipient: bool = False
    reportedToHost: bool = False
    reportedDestinations: tuple[str, ...] = ()
    until: int = 0


def mergeTallies(tallies: Iterable[PolicyTally]) -> list[PolicyTally]:
    """
    Combine tallies so that each policy, and each failure under it, occurs once.

    The order of C{tallies} affects only the order of the result, so a store may merge
    on write, on read, or both.

    RFC 8460 4.4 has one entry in C{policies} per policy applied; a domain that changed
    its MTA-STS policy at noon therefore keeps two.

    @param tallies: Tallies of the same day and policy domain.

    @return: New tallies, in the order in which their policies first occur.
    """
    merged: dict[TLSPolicy, PolicyTally] = {}
    for tally in tallies:
        known = merged.get(tally.policy)
        if known is None:
            known = PolicyTally(tally.policy)
        # Not Counter.__add__: it drops failures that were seen in 0 sessions.
        failures = Counter(known.failures)
        failures.update(tally.failures)
        merged[tally.policy] = replace(
            known,
            succeeded=known.succeeded + max(0, tally.succeeded),
            failed=known.failed + max(0, tally.failed),
            failures=failures,
        )
    return list(merged.values())


# --- the TLSRPT record (RFC 8460 3) ---

# RFC 8460 3:
#   tlsrpt-record    = tlsrpt-version 1*(field-delim tlsrpt-field) [field-delim]
#   field-delim      = *WSP ";" *WSP
#   tlsrpt-ext-name  = (ALPHA / DIGIT) *31(ALPHA / DIGIT / "_" / "-" / ".")
#   tlsrpt-ext-value = 1*(%x21-3A / %x3C / %x3E-7E)
#   tlsrpt-rua       = %s"rua=" tlsrpt-uri *(*WSP "," *WSP tlsrpt-uri)
_VERSION = re.compile(r"v=TLSRPTv1[ \t]*;")
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=(.*)\Z", re.DOTALL)
_VALUE = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e]+\Z")
# RFC 3986 3, 2.1; U-labels, which a URI may not contain, are accepted.
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:%[0-9A-Fa-f]{2}|[^\x00-\x20!,;%\x7f\ud800-\udfff])+\Z"
)


class TLSRPTRecordError(StrEnum):
    """
    The reason why a domain has no usable TLSRPT record.
    """

    NONE = "no TLSRPT record"
    MULTIPLE = "more than one TLSRPT record"
    SYNTAX = "malformed TLSRPT record"


class InvalidRecord(ValueError):
    """
    A text is not a TLSRPT record.
    """


@dataclass(frozen=True, slots=True)
class TLSRPTRecord:
    """
    A parsed TLSRPT record.

    @ivar rua: URIs as published, of all C{rua} fields, in order.
    @ivar extensions: Names and values of unknown fields.
    """

    rua: tuple[str, ...]
    extensions: tuple[tuple[str, str], ...] = ()


def tlsrptRecordName(domain: Domain) -> str:
    """
    The DNS name of the TLSRPT record of C{domain}.
    """
    return f"_smtp._tls.{domain}"


def findTLSRPTRecord(texts: Iterable[bytes]) -> TLSRPTRecord | TLSRPTRecordError:
    """
    Select and parse the TLSRPT record.

    @param texts: All TXT records at L{tlsrptRecordName}.
    """
    decoded = (text.decode("utf-8", "surrogateescape") for text in texts)
    candidates = [text for text in decoded if _VERSION.match(text)]
    if not candidates:
        return TLSRPTRecordError.NONE
    if len(candidates) > 1:
        return TLSRPTRecordError.MULTIPLE
    try:
        return parseTLSRPTRecord(candidates[0])
    except InvalidRecord:
        return TLSRPTRecordError.SYNTAX


def parseTLSRPTRecord(text: str) -> TLSRPTRecord:
    """
    Parse the text of a record.

    @raise InvalidRecord: With the reason, in one line.
    """
    version = _VERSION.match(text)
    if version is None:
        raise InvalidRecord("the record does not begin with v=TLSRPTv1;")
    rua: list[str] = []
    extensions = []
    for spec in splitTagSpecs(text[version.end() :]):
        name, value = _split(spec)
        if name == "rua":
            rua.extend(_uris(value))
        elif _VALUE.match(value):
            extensions.append((name, value))
        else:
            raise InvalidRecord(f"{spec[:80]!r} has no proper value")
    if not rua:
        raise InvalidRecord("the record has no rua")
    return TLSRPTRecord(tuple(rua), tuple(extensions))


def _split(spec: str) -> tuple[str, str]:
    matched = _FIELD.match(spec)
    if matched is None:
        raise InvalidRecord(f"{spec[:80]!r} is not name=value")
    return matched[1], matched[2]


def _uris(value: str) -> list[str]:
    uris = [uri.strip(WSP) for uri in value.split(",")]
    for uri in uris:
        if not _URI.match(uri):
            raise InvalidRecord(f"{uri[:80]!r} is not a URI")
    return uris
