# -*- test-case-name: tests.lab.test_scenario -*-
"""
What can be the matter with a destination, and what can be expected of mail
to it.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from moxtls.policy.mtasts import Mode
from moxtls.tlsrpt.results import PolicyType, ResultType

#: RFC 6761 6.2: never in use outside.
TLD = "test"
#: The domain that moxtls sends from, and the host it runs on.
SENDER = "sender.test"
SENDING_HOST = "mail.sender.test"
#: Where the reports are to go.
SINK = "reports.test"
REPORT_ADDRESS = f"tlsrpt@{SINK}"
HOST_REPORT_ADDRESS = f"hosts@{SINK}"
#: The path of the place that takes reports by HTTPS, and its host.
INTAKE_HOST = f"intake.{SINK}"
#: The policy domain follows.
INTAKE_PATH = "/tlsrpt"


class Certificate(Enum):
    """
    What a destination presents behind STARTTLS, if it offers that.

    C{GOOD} is from the authority that moxtls trusts here.  C{OTHER_CA} is
    from one that only DANE knows.
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
    Whether a zone is signed.  C{BAD_MX} and C{BAD_TLSA}: the signature over
    these records, and no others, is damaged.
    """

    NO = "unsigned"
    YES = "signed"
    BAD_MX = "signature of MX damaged"
    BAD_TLSA = "signature of TLSA damaged"


class PolicyHost(Enum):
    """
    What the host of an MTA-STS policy does when it is asked for it.
    """

    SERVES = "serves it"
    MISSING = "404"
    BROKEN = "500"
    BAD_CERTIFICATE = "presents a self-signed certificate"


@dataclass(frozen=True, slots=True)
class STS:
    """
    The MTA-STS policy of a destination.

    @ivar listed: Whether its host is among the policy's C{mx}.
    """

    mode: Mode = Mode.ENFORCE
    host: PolicyHost = PolicyHost.SERVES
    listed: bool = True


@dataclass(frozen=True, slots=True)
class ExpectedFailure:
    """
    @ivar inSession: Whether it shows in a connection, and so names addresses
        and the host's greeting.
    @ivar namesHost: Whether it names the host.
    """

    type: ResultType
    reason: str = ""
    sessions: int = 1
    inSession: bool = True
    namesHost: bool = True


@dataclass(frozen=True, slots=True)
class ExpectedPolicy:
    """
    What a report has to say about one policy after one message.

    @ivar empty: Whether nothing of the policy could be applied, so that its
        text is left out.
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

    @ivar explanation: One line for people.
    @ivar delivered: Whether mail arrives; if not, it has to wait.
    @ivar recipient: What its report has to say about the domain itself.
    @ivar host: The same about its MX host; C{None} if nothing.
    @ivar byHTTPS: Whether it wants its report by HTTPS rather than by mail.
    @ivar sharedHost: The host it has in common with others; empty for one of
        its own.
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
