# -*- test-case-name: tests.lab.test_scenario -*-
"""
The destinations of the lab: the condition of each, and the results expected of mail to
it. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from moxtls.mtasts.policy import Mode
from moxtls.tlsrpt.types import PolicyType, ResultType

#: RFC 6761 6.2: never in use outside.
TLD = "test"
#: The domain that moxtls sends from, and the host it runs on.
SENDER = "sender.test"
SENDING_HOST = "mail.sender.test"
#: Where the reports are to go.
SINK = "reports.test"
REPORT_ADDRESS = f"tlsrpt@{SINK}"
HOST_REPORT_ADDRESS = f"hosts@{SINK}"
#: The path of the HTTPS destination of reports, and its host.
UPLOAD_HOST = f"intake.{SINK}"
#: The policy domain follows.
UPLOAD_PATH = "/tlsrpt"


class Certificate(Enum):
    """
    The certificate of a destination, if it offers STARTTLS.

    C{GOOD} is from the authority that moxtls trusts here. C{OTHER_CA} is from one
    that is known only by DANE.
    """

    GOOD = "good"
    SELF_SIGNED = "self-signed"
    EXPIRED = "expired"
    WRONG_NAME = "for another name"
    OTHER_CA = "from an unknown authority"
    NONE = "no STARTTLS"


class Records(Enum):
    """
    The TLSA records of a destination's host.
    """

    NONE = ""
    EE = "DANE-EE"
    TA = "DANE-TA"
    MISMATCH = "DANE-EE of another key"
    UNUSABLE = "PKIX-TA and PKIX-EE"


class Signed(Enum):
    """
    The signing of a zone. C{BAD_MX} and C{BAD_TLSA}: the signature of these records,
    and no others, is damaged.
    """

    NO = "unsigned"
    YES = "signed"
    BAD_MX = "signature of MX damaged"
    BAD_TLSA = "signature of TLSA damaged"


class PolicyHost(Enum):
    """
    The response of an MTA-STS policy host.
    """

    SERVES = "serves it"
    MISSING = "404"
    BROKEN = "500"
    BAD_CERTIFICATE = "presents a self-signed certificate"


@dataclass(frozen=True, slots=True)
class STS:
    """
    The MTA-STS policy of a destination.

    @ivar listed: True if its host is among the policy's C{mx}.
    """

    mode: Mode = Mode.ENFORCE
    host: PolicyHost = PolicyHost.SERVES
    listed: bool = True


@dataclass(frozen=True, slots=True)
class ExpectedFailure:
    """
    A failure that a report must contain.

    @ivar inSession: True if it occurs in a connection, and so names addresses and the
        host's greeting.
    @ivar namesHost: True if it names the host.
    """

    type: ResultType
    reason: str = ""
    sessions: int = 1
    inSession: bool = True
    namesHost: bool = True


@dataclass(frozen=True, slots=True)
class ExpectedPolicy:
    """
    The part of a report about one policy, after one message.

    @ivar empty: True if the policy couldn't be applied, so that its text is omitted.
    """

    type: PolicyType
    succeeded: int = 0
    failed: int = 0
    failures: tuple[ExpectedFailure, ...] = ()
    empty: bool = False


@dataclass(frozen=True, slots=True)
class LabDestination:
    """
    A recipient domain, C{name} under the lab's top-level domain.

    @ivar explanation: One line for the operator.
    @ivar delivered: True if mail is delivered; otherwise it waits.
    @ivar recipient: The part of its report about the domain itself.
    @ivar host: The same about its MX host; C{None} if there is none.
    @ivar byHTTPS: True if it wants its report by HTTPS rather than by mail.
    @ivar sharedHost: The host that it shares with other domains; empty for one of its
        own.
    """

    name: str
    explanation: str
    certificate: Certificate
    delivered: bool
    recipient: ExpectedPolicy
    host: ExpectedPolicy | None
    signed: Signed = Signed.NO
    tlsa: Records = Records.NONE
    sts: STS | None = None
    byHTTPS: bool = False
    sharedHost: str = ""

    @property
    def domain(self) -> str:
        return f"{self.name}.{TLD}"

    @property
    def mx(self) -> str:
        return self.sharedHost or f"mx.{self.domain}"


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
    A failure outside of any connection to a host.
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
        "MTA-STS enforced, self-signed certificate",
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
