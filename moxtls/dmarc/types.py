# -*- test-case-name: tests.dmarc.test_values -*-
"""
DMARC from record to report, as values (RFC 9989, RFC 9990).  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from moxtls.authentication.results import Authentication, AuthResult
from moxtls.domain import Domain

# --- what is published --------------------------------------------------------


class DMARCPolicy(StrEnum):
    """
    RFC 9989 4.7: C{p}, C{sp}, C{np}; and what is done with a message.
    """

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class Alignment(StrEnum):
    """
    RFC 9989 4.7: C{adkim}, C{aspf}.
    """

    RELAXED = "r"
    STRICT = "s"


class PSD(StrEnum):
    """
    RFC 9989 4.7: whether the domain is a public suffix.
    """

    YES = "y"
    NO = "n"
    UNKNOWN = "u"


class DiscoveryMethod(StrEnum):
    """
    How organizational domains are found (RFC 9990 3.1.1.5 discovery_method).
    """

    PSL = "psl"
    TREE_WALK = "treewalk"


@dataclass(frozen=True, slots=True)
class ReportURI:
    """
    @ivar uri: As published, without the size.
    @ivar limit: The most octets for a report (RFC 7489 6.2; RFC 9989 has it
        no more, who publishes it means it still); 0 for no limit.
    """

    uri: str
    limit: int = 0

    @property
    def isMail(self) -> bool:
        """
        Whether reports can be sent there at all (RFC 9989 4.7).
        """
        return self.uri[:7].lower() == "mailto:"


@dataclass(frozen=True, slots=True)
class DMARCRecord:
    """
    RFC 9989 4.7, and what RFC 7489 6.3 has beyond it.

    @ivar sp: C{None} where it isn't published, as C{np}.
    @ivar fo: RFC 9991 and RFC 7489 6.3, such as C{("1", "d")}.
    @ivar percent: C{pct} of RFC 7489.
    @ivar interval: C{ri} of RFC 7489, seconds.
    @ivar problems: What its owner should know: a stranger's words.
    """

    p: DMARCPolicy = DMARCPolicy.NONE
    sp: DMARCPolicy | None = None
    np: DMARCPolicy | None = None
    adkim: Alignment = Alignment.RELAXED
    aspf: Alignment = Alignment.RELAXED
    psd: PSD = PSD.UNKNOWN
    testing: bool = False
    rua: tuple[ReportURI, ...] = ()
    ruf: tuple[ReportURI, ...] = ()
    fo: tuple[str, ...] = ("0",)
    percent: int = 100
    interval: int = 86400
    problems: tuple[str, ...] = field(default=(), compare=False)


# --- what applies to a message --------------------------------------------------


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """
    One look-up on the way to a policy, for people.

    @ivar name: Such as C{_dmarc.example.org}.
    @ivar found: What was there, such as the record's text: printable, not
        longer than 500 characters.
    """

    name: str
    found: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """
    What was published about an author domain, and where.

    The record may be there and C{problem} too: then it can't be known whether
    a nearer one or another organizational domain applies.

    @ivar organizational: RFC 9989 4.10.2; the author domain itself if nothing
        else is known.
    @ivar policyDomain: Where C{record} is; C{None} if there is none.
    @ivar exists: Whether the author domain exists (RFC 9989 3.2.13): taken for
        granted where the policy is the same either way.
    @ivar unusable: The record that applies asks for nothing that can be
        understood, so that DMARC doesn't apply (RFC 9989 4.10.1).
    @ivar temporary: A look-up failed, so nothing is certain.
    @ivar problem: Why there is no usable record although something was
        published, or what failed.
    """

    author: Domain
    organizational: Domain
    method: DiscoveryMethod
    policyDomain: Domain | None = None
    record: DMARCRecord | None = None
    exists: bool = True
    unusable: bool = False
    temporary: bool = False
    problem: str = ""
    steps: tuple[PolicyStep, ...] = ()


class OverrideKind(StrEnum):
    """
    RFC 9990 3.1.6; the last two are in RFC 7489 only.
    """

    LOCAL_POLICY = "local_policy"
    MAILING_LIST = "mailing_list"
    OTHER = "other"
    POLICY_TEST_MODE = "policy_test_mode"
    TRUSTED_FORWARDER = "trusted_forwarder"
    FORWARDED = "forwarded"
    SAMPLED_OUT = "sampled_out"


@dataclass(frozen=True, slots=True, order=True)
class Override:
    """
    Why a policy was not applied as published.

    @ivar comment: Ours, for the domain's owner to read.
    """

    kind: OverrideKind
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What DMARC says of a message.

    @ivar status: C{NONE}: there is no policy, or no author domain it could
        apply to.
    @ivar author: The domain in From; C{None} if there isn't just one.
    @ivar policy: What the record asks for in this case (p, sp or np).
    @ivar disposition: What we do because of DMARC.
    @ivar alignedDKIM: Of the signatures that are aligned and pass, their
        places in C{Authentication.dkim}.
    @ivar reasons: Why C{disposition} isn't C{policy}.
    @ivar problem: For people.
    """

    status: AuthResult
    author: Domain | None = None
    discovery: Discovery | None = None
    policy: DMARCPolicy = DMARCPolicy.NONE
    disposition: DMARCPolicy = DMARCPolicy.NONE
    alignedDKIM: tuple[int, ...] = ()
    spfAligned: bool = False
    reasons: tuple[Override, ...] = ()
    problem: str = ""

    @property
    def dkimAligned(self) -> bool:
        return bool(self.alignedDKIM)


class FinalDisposition(StrEnum):
    """
    What became of a message, for one recipient.

    C{REJECTED}: for another reason than DMARC.  C{ACCEPTED_REJECT}: it would
    have been refused, but was taken into a mailbox for such mail, and the
    sender was told that it was accepted.
    """

    ACCEPTED = "accepted"
    JUNK = "junk"
    REJECTED_BY_DMARC = "rejected by DMARC"
    REJECTED = "rejected"
    ACCEPTED_REJECT = "accepted reject"


@dataclass(frozen=True, slots=True)
class VerdictEvent:
    """
    What was decided on one message for one recipient, and why.

    @ivar sender: MAIL FROM; empty for the null one.
    @ivar recipient: The address in RCPT.
    @ivar isKnown: There is positive history with the author's organizational
        domain (L{moxtls.interfaces.ISenderHistory}), or it couldn't be known.
    @ivar isForReports: It may well exist because of reports: it came to an
        address of ours for reports, or may answer one of ours.
    @ivar header: The message's header as it came, for failure reports; kept
        nowhere.
    """

    authentication: Authentication
    verdict: Verdict
    finalDisposition: FinalDisposition
    sender: str
    recipient: str
    isKnown: bool = True
    isForReports: bool = False
    header: bytes = b""


# --- what is kept until a report has it ----------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class PublishedPolicy:
    """
    The configuration that was applied: there is one report for each
    (RFC 9990 3.1, 3.1.1.5).

    @ivar domain: Where the record is.
    @ivar sp: C{None} where it wasn't published, as C{np}.
    """

    domain: Domain
    p: DMARCPolicy
    sp: DMARCPolicy | None = None
    np: DMARCPolicy | None = None
    adkim: Alignment = Alignment.RELAXED
    aspf: Alignment = Alignment.RELAXED
    testing: bool = False
    fo: tuple[str, ...] = ("0",)
    percent: int = 100
    method: DiscoveryMethod = DiscoveryMethod.TREE_WALK


class Disposition(StrEnum):
    """
    RFC 9990 3.1.1.9.  C{PASS}: the message passed, under a policy that would
    have had consequences.
    """

    NONE = "none"
    PASS = "pass"
    QUARANTINE = "quarantine"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, order=True)
class ReportedSignature:
    """
    RFC 9990 3.1.1.12.

    @ivar problem: C{human_result}: ours.
    """

    domain: str
    selector: str
    result: AuthResult
    problem: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ReportedSPF:
    """
    RFC 9990 3.1.1.13.

    @ivar scope: C{mfrom} or C{helo}.
    """

    domain: str
    scope: str
    result: AuthResult


@dataclass(frozen=True, slots=True, order=True)
class ReportRow:
    """
    What a C{record} of a report says, but for the count.  Domains are in
    A-labels.
    """

    sourceIP: str
    disposition: Disposition
    dkimAligned: bool
    spfAligned: bool
    reasons: tuple[Override, ...]
    headerFrom: str
    envelopeFrom: str
    envelopeTo: str
    dkim: tuple[ReportedSignature, ...] = ()
    spf: ReportedSPF | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """
    One message in the name of a domain that wants reports.

    @ivar hours: How often it wants them, a divisor of 24.
    @ivar addresses: C{rua} as it was then, for people: a report looks it up
        afresh.
    @ivar optional: In a report if there is one; no reason to make one.
    @ivar wanted: Accepted, not junk, and DMARC passed: a sign that its sender
        is somebody, and no forger.
    """

    published: PublishedPolicy
    row: ReportRow
    hours: int = 24
    addresses: tuple[str, ...] = ()
    optional: bool = False
    wanted: bool = False


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """
    @ivar hour: The UTC hour in which they were made: the Unix second in which
        it begins.
    @ivar count: How many messages that were the same in everything.
    """

    hour: int
    evaluation: Evaluation
    count: int


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """
    What is waiting to be reported to one policy domain.

    @ivar sendable: Whether any of it may cause a report.
    """

    domain: Domain
    dispositions: tuple[Disposition, ...]
    count: int
    sendable: bool


@dataclass(frozen=True, slots=True)
class PeriodSummary:
    """
    What a report will be about, but for the rows.

    @ivar first: The hour of the first evaluation.
    @ivar messages: How many.
    @ivar rows: How many differ.
    @ivar wanted: How many were.
    @ivar omitted: How many more messages there were that are in no row, since
        too many rows of an hour differed.
    @ivar since: When the period before was closed, if that was before its
        time: the Unix second; 0 if it never was.
    """

    published: PublishedPolicy
    hours: int
    first: int
    messages: int
    rows: int
    wanted: int
    omitted: int = 0
    since: int = 0
