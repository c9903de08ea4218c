# -*- test-case-name: tests.dmarc.test_record -*-
"""
Value types of DMARC, from records to reports (RFC 9989, RFC 9990).  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from moxtls.authentication.results import Authentication, AuthResult
from moxtls.domain import Domain

# --- records --------------------------------------------------------


class DMARCPolicy(StrEnum):
    """
    Values of C{p}, C{sp}, C{np} (RFC 9989 4.7); also the disposition of a message.
    """

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class Alignment(StrEnum):
    """
    Values of C{adkim}, C{aspf} (RFC 9989 4.7).
    """

    RELAXED = "r"
    STRICT = "s"


class PSD(StrEnum):
    """
    Values of C{psd} (RFC 9989 4.7): whether the domain is a public suffix.
    """

    YES = "y"
    NO = "n"
    UNKNOWN = "u"


class DiscoveryMethod(StrEnum):
    """
    Methods of finding organizational domains (RFC 9990 3.1.1.5 discovery_method).
    """

    PSL = "psl"
    TREE_WALK = "treewalk"


@dataclass(frozen=True, slots=True)
class ReportURI:
    """
    A URI of a C{rua} or C{ruf} tag.

    @ivar uri: As published, without the size limit.
    @ivar limit: The maximum number of octets of a report; 0 for no limit (RFC 7489
        6.2; obsolete in RFC 9989, but still respected).
    """

    uri: str
    limit: int = 0

    @property
    def isMail(self) -> bool:
        """
        True for C{mailto:}, the only scheme to which reports are sent (RFC 9989 4.7).
        """
        return self.uri[:7].lower() == "mailto:"


@dataclass(frozen=True, slots=True)
class DMARCRecord:
    """
    A DMARC record (RFC 9989 4.7), with the additional tags of RFC 7489 6.3.

    @ivar sp: C{None} if it isn't published; so is C{np}.
    @ivar testing: C{t=y}.
    @ivar fo: RFC 9991 and RFC 7489 6.3, such as C{("1", "d")}.
    @ivar percent: C{pct} of RFC 7489.
    @ivar interval: C{ri} of RFC 7489, in seconds.
    @ivar problems: Errors in the record, for its owner; untrusted text.
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


# --- verdicts --------------------------------------------------


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """
    A lookup during policy discovery, for display.

    @ivar name: Such as C{_dmarc.example.org}.
    @ivar found: The result, such as the text of a record: printable, at most 500
        characters.
    """

    name: str
    found: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """
    The result of policy discovery for an author domain.

    With both C{record} and C{problem}, it is unknown whether a nearer record or
    another organizational domain applies.

    @ivar organizational: RFC 9989 4.10.2; the author domain itself if unknown.
    @ivar policyDomain: The domain of C{record}; C{None} if there is none.
    @ivar exists: True if the author domain exists (RFC 9989 3.2.13); assumed if the
        policy doesn't depend on it.
    @ivar unusable: True if the record that applies has no valid policy, so that
        DMARC doesn't apply (RFC 9989 4.10.1).
    @ivar temporary: True if a lookup failed, so that the result is uncertain.
    @ivar problem: The reason why a published record can't be used, or the failed
        lookup.
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
    Types of policy overrides (RFC 9990 3.1.6); the last two only exist in RFC 7489.
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
    A reason why a policy wasn't applied as published.

    @ivar comment: Our explanation to the domain owner.
    """

    kind: OverrideKind
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    The DMARC verdict on a message.

    @ivar status: C{NONE} without a policy, or without an author domain to which one
        could apply.
    @ivar author: The domain in From; C{None} unless there is exactly one.
    @ivar policy: The requested policy that applies (p, sp or np).
    @ivar disposition: The disposition due to DMARC.
    @ivar alignedDKIM: Indexes into C{Authentication.dkim} of the aligned signatures
        that pass.
    @ivar spfAligned: True if SPF passes and is aligned.
    @ivar reasons: The reasons why C{disposition} isn't C{policy}.
    @ivar problem: Text for operators.
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
    The final disposition of a message for one recipient.

    C{REJECTED}: for another reason than DMARC.  C{ACCEPTED_REJECT}: accepted into a
    mailbox for mail that would otherwise have been refused.
    """

    ACCEPTED = "accepted"
    JUNK = "junk"
    REJECTED_BY_DMARC = "rejected by DMARC"
    REJECTED = "rejected"
    ACCEPTED_REJECT = "accepted reject"


@dataclass(frozen=True, slots=True)
class VerdictEvent:
    """
    The decision on one message for one recipient, with its reasons.

    @ivar authentication: The results of SPF, DKIM and the client's address.
    @ivar verdict: That of DMARC.
    @ivar finalDisposition: That of the message; it can differ from the one in
        C{verdict}.
    @ivar sender: MAIL FROM; empty for the null reverse-path.
    @ivar recipient: The address in RCPT.
    @ivar isKnown: True if a local account has corresponded with the author's
        organizational domain (L{moxtls.interfaces.ISenderHistory}), or if that
        couldn't be looked up.
    @ivar isForReports: True if the message may exist because of reports: it was sent
        to one of our addresses for reports, or may reply to one of our reports.
    @ivar header: The header as received, for failure reports; never stored.
    """

    authentication: Authentication
    verdict: Verdict
    finalDisposition: FinalDisposition
    sender: str
    recipient: str
    isKnown: bool = True
    isForReports: bool = False
    header: bytes = b""


# --- evaluations that wait to be reported ----------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class PublishedPolicy:
    """
    The published policy that was applied; there is one report for each (RFC 9990
    3.1, 3.1.1.5).

    @ivar domain: The domain of the record.
    @ivar sp: C{None} if it wasn't published; so is C{np}.
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
    Dispositions in aggregate reports (RFC 9990 3.1.1.9).  C{PASS}: the message passed
    under a policy other than C{none}.
    """

    NONE = "none"
    PASS = "pass"
    QUARANTINE = "quarantine"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, order=True)
class ReportedSignature:
    """
    A DKIM result in an aggregate report (RFC 9990 3.1.1.12).

    @ivar problem: Our explanation (C{human_result}).
    """

    domain: str
    selector: str
    result: AuthResult
    problem: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ReportedSPF:
    """
    An SPF result in an aggregate report (RFC 9990 3.1.1.13).

    @ivar scope: C{mfrom} or C{helo}.
    """

    domain: str
    scope: str
    result: AuthResult


@dataclass(frozen=True, slots=True, order=True)
class ReportRow:
    """
    A C{record} of an aggregate report without its count.  Domains are A-labels.
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
    The evaluation of a message whose author domain requests aggregate reports.

    @ivar hours: The reporting interval, a divisor of 24.
    @ivar addresses: C{rua} at that time, for display: reports look it up again.
    @ivar optional: True if it goes into a report but is no reason to make one.
    @ivar wanted: True if the message passed DMARC and was accepted, not as junk: a
        sign that the author domain isn't forged.
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
    Equal evaluations of one hour.

    @ivar hour: The Unix second in which the UTC hour begins.
    @ivar count: The number of messages.
    """

    hour: int
    evaluation: Evaluation
    count: int


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """
    A summary of the evaluations that wait to be reported to one policy domain.

    @ivar count: The number of messages.
    @ivar sendable: True if any of them may cause a report.
    """

    domain: Domain
    dispositions: tuple[Disposition, ...]
    count: int
    sendable: bool


@dataclass(frozen=True, slots=True)
class PeriodSummary:
    """
    A summary of the evaluations in a L{moxtls.reporting.types.ReportPeriod}.

    @ivar hours: The reporting interval.
    @ivar first: The hour of the first evaluation, in Unix seconds.
    @ivar messages: The number of messages.
    @ivar rows: The number of different rows.
    @ivar wanted: The number of messages that were C{wanted} (see L{Evaluation}).
    @ivar omitted: The number of additional messages without a row, since there were
        too many different rows in an hour.
    @ivar since: The Unix second in which the previous period was closed early; 0 if
        it wasn't.
    """

    published: PublishedPolicy
    hours: int
    first: int
    messages: int
    rows: int
    wanted: int
    omitted: int = 0
    since: int = 0
