# -*- test-case-name: tests.lab.test_scenario -*-
"""
The destinations of the lab: what is the matter with each, and what has to
come of it.  No I/O.
"""

from __future__ import annotations

from moxtls.lab.conditions import (
    STS,
    TLD,
    Certificate,
    ExpectedFailure,
    ExpectedPolicy,
    LabDestination,
    PolicyHost,
    Records,
    Signed,
)
from moxtls.policy.mtasts import Mode
from moxtls.tlsrpt.results import PolicyType, ResultType


def _none(
    succeeded: int, failed: int, *failures: ExpectedFailure, empty: bool = False
) -> ExpectedPolicy:
    return ExpectedPolicy(PolicyType.NO_POLICY, succeeded, failed, failures, empty)


def _sts(
    succeeded: int, failed: int, *failures: ExpectedFailure, empty: bool = False
) -> ExpectedPolicy:
    return ExpectedPolicy(PolicyType.STS, succeeded, failed, failures, empty)


def _tlsa(
    succeeded: int, failed: int, *failures: ExpectedFailure, empty: bool = False
) -> ExpectedPolicy:
    return ExpectedPolicy(PolicyType.TLSA, succeeded, failed, failures, empty)


def _elsewhere(
    type: ResultType, reason: str, sessions: int = 1, namesHost: bool = False
) -> ExpectedFailure:
    """
    A failure found outside of any connection to a host.
    """
    return ExpectedFailure(type, reason, sessions, False, namesHost)


_UNTRUSTED = ExpectedFailure(ResultType.CERTIFICATE_NOT_TRUSTED)
_NO_STARTTLS = ExpectedFailure(ResultType.STARTTLS_NOT_SUPPORTED)
# RFC 5321 4.2.2: what our server says to a command that it doesn't offer.
_REFUSED = ExpectedFailure(
    ResultType.STARTTLS_NOT_SUPPORTED, "smtp-starttls-reply-code-503"
)
_BOGUS = "dns-extended-error-6-dnssec-bogus"
_FETCH = ResultType.STS_POLICY_FETCH_ERROR

#: The MX host of two domains, with a TLSRPT record of its own.
SHARED_ZONE = f"shared.{TLD}"
SHARED_HOST = f"mx.{SHARED_ZONE}"

DESTINATIONS = (
    LabDestination(
        "good",
        "MTA-STS enforced, and everything is as it should be",
        Certificate.GOOD,
        True,
        _sts(1, 0),
        _none(1, 0),
        sts=STS(),
    ),
    LabDestination(
        "testing",
        "MTA-STS in testing, self-signed certificate: told, but not enforced",
        Certificate.SELF_SIGNED,
        True,
        _sts(1, 0, _UNTRUSTED),
        _none(1, 0),
        sts=STS(Mode.TESTING),
    ),
    LabDestination(
        "dane-ee",
        "a self-signed certificate that its DANE-EE record vouches for",
        Certificate.SELF_SIGNED,
        True,
        _none(1, 0, _UNTRUSTED),
        _tlsa(1, 0),
        signed=Signed.YES,
        tlsa=Records.EE,
    ),
    LabDestination(
        "dane-ta",
        "an authority of its own that its DANE-TA record vouches for",
        Certificate.OTHER_CA,
        True,
        _none(1, 0, _UNTRUSTED),
        _tlsa(1, 0),
        signed=Signed.YES,
        tlsa=Records.TA,
    ),
    LabDestination(
        "dane-mismatch",
        "a good certificate, but its DANE record is of another key",
        Certificate.GOOD,
        False,
        _none(0, 1),
        _tlsa(0, 1, ExpectedFailure(ResultType.VALIDATION_FAILURE, "dane-no-match")),
        signed=Signed.YES,
        tlsa=Records.MISMATCH,
    ),
    LabDestination(
        "dane-unusable",
        "only TLSA records that SMTP can't use: TLS, unverified",
        Certificate.GOOD,
        True,
        _none(1, 0),
        _tlsa(
            1,
            0,
            _elsewhere(
                ResultType.TLSA_INVALID, "all-unusable-records+ignored", 0, True
            ),
            empty=True,
        ),
        signed=Signed.YES,
        tlsa=Records.UNUSABLE,
    ),
    LabDestination(
        "expired",
        "MTA-STS enforced, the certificate has expired",
        Certificate.EXPIRED,
        False,
        _sts(0, 1, ExpectedFailure(ResultType.CERTIFICATE_EXPIRED)),
        _none(0, 1),
        sts=STS(),
    ),
    LabDestination(
        "wrong-name",
        "MTA-STS enforced, the certificate is for another name",
        Certificate.WRONG_NAME,
        False,
        _sts(0, 1, ExpectedFailure(ResultType.CERTIFICATE_HOST_MISMATCH)),
        _none(0, 1),
        sts=STS(),
    ),
    LabDestination(
        "self-signed",
        "MTA-STS enforced, nobody vouches for the certificate",
        Certificate.SELF_SIGNED,
        False,
        _sts(0, 1, _UNTRUSTED),
        _none(0, 1),
        sts=STS(),
    ),
    LabDestination(
        "no-starttls",
        "MTA-STS enforced, the host doesn't offer STARTTLS",
        Certificate.NONE,
        False,
        _sts(0, 1, _REFUSED),
        _none(0, 1, _REFUSED),
        sts=STS(),
    ),
    LabDestination(
        "cleartext",
        "no policy, and no STARTTLS: delivered in the clear",
        Certificate.NONE,
        True,
        _none(0, 0, _NO_STARTTLS),
        _none(0, 0, _NO_STARTTLS),
    ),
    LabDestination(
        "mx-mismatch",
        "MTA-STS enforced, its policy doesn't list its MX host",
        Certificate.GOOD,
        False,
        _sts(
            0,
            1,
            _elsewhere(
                ResultType.VALIDATION_FAILURE, "mtasts-policy-mx-mismatch", 1, True
            ),
        ),
        None,
        sts=STS(listed=False),
    ),
    LabDestination(
        "fetch-error",
        "an MTA-STS record, but the policy host is broken (500)",
        Certificate.GOOD,
        True,
        _sts(1, 0, _elsewhere(_FETCH, "cannot-fetch-policy"), empty=True),
        _none(1, 0),
        sts=STS(host=PolicyHost.BROKEN),
    ),
    LabDestination(
        "no-policy",
        "an MTA-STS record, but the policy host has no policy (404)",
        Certificate.GOOD,
        True,
        _sts(1, 0, _elsewhere(_FETCH, "no-policy-served"), empty=True),
        _none(1, 0),
        sts=STS(host=PolicyHost.MISSING),
    ),
    LabDestination(
        "policy-cert",
        "an MTA-STS record, but the policy host's certificate is self-signed",
        Certificate.GOOD,
        True,
        _sts(
            1,
            0,
            _elsewhere(ResultType.STS_WEBPKI_INVALID, "certificate-not-trusted"),
            empty=True,
        ),
        _none(1, 0),
        sts=STS(host=PolicyHost.BAD_CERTIFICATE),
    ),
    LabDestination(
        "mx-bogus",
        "the DNSSEC signature of its MX record is damaged",
        Certificate.GOOD,
        False,
        _none(0, 1, _elsewhere(ResultType.VALIDATION_FAILURE, _BOGUS)),
        None,
        signed=Signed.BAD_MX,
    ),
    LabDestination(
        "tlsa-bogus",
        "the DNSSEC signature of its TLSA record is damaged",
        Certificate.GOOD,
        False,
        _none(0, 1),
        _tlsa(
            0,
            1,
            _elsewhere(ResultType.DNSSEC_INVALID, _BOGUS, 1, True),
            empty=True,
        ),
        signed=Signed.BAD_TLSA,
        tlsa=Records.EE,
    ),
    LabDestination(
        "plain",
        "no policy, self-signed certificate: encrypted to whomever",
        Certificate.SELF_SIGNED,
        True,
        _none(1, 0, _UNTRUSTED),
        _none(1, 0),
    ),
    LabDestination(
        "https",
        "as good as the first, but wants its report by HTTPS",
        Certificate.GOOD,
        True,
        _sts(1, 0),
        _none(1, 0),
        sts=STS(),
        byHTTPS=True,
    ),
    LabDestination(
        "shared-one",
        "shares a host with the next; the host gets a report of its own",
        Certificate.GOOD,
        True,
        _none(1, 0),
        _tlsa(1, 0),
        signed=Signed.YES,
        sharedHost=SHARED_HOST,
    ),
    LabDestination(
        "shared-two",
        "shares a host with the one before",
        Certificate.GOOD,
        True,
        _none(1, 0),
        _tlsa(1, 0),
        signed=Signed.YES,
        sharedHost=SHARED_HOST,
    ),
)
