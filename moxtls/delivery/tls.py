# -*- test-case-name: tests.delivery.test_tls -*-
"""
Requirements on TLS, from the message, MTA-STS and DANE, and the TLS outcome of a
delivery attempt (RFC 8460).  No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from moxtls.dns.types import LOOKUP_FAILED, TLSA, ExtendedError
from moxtls.domain import Domain
from moxtls.mtasts.policy import Mode, STSLookup, STSPolicy, matchesPolicy
from moxtls.queue.types import Batch, ReportKind
from moxtls.smtp.types import TLSMode
from moxtls.tls.dane import TLSALookup, TLSALookupError, policyStrings
from moxtls.tls.session import SessionRecord, classify
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    TLSPolicy,
)

#: Attempts that wait for an MTA-STS record that can't be looked up.  With the
#: default retry schedule the next attempt is 22 minutes after the first: longer
#: than a restart of a name server, and than resolvers cache a failure (RFC 2308
#: 7: 5 minutes at most).
MAX_WAITING_ATTEMPTS = 2


class PolicyRefusal(Enum):
    """
    The reason why a policy forbids to use a host for a message.

    C{TLSA_LOOKUP}: RFC 7672 2.1.2.  C{MX_MISMATCH}: RFC 8461 5.  Both make the
    delivery try the next host.  C{REQUIRETLS}: RFC 8689 4.2.1; if it applies to
    all hosts, the message can't be delivered.
    """

    TLSA_LOOKUP = auto()
    MX_MISMATCH = auto()
    REQUIRETLS = auto()


@dataclass(frozen=True, slots=True)
class MessageRequirements:
    """
    The requirements of a message on TLS.

    @ivar requireTLS: C{True}: REQUIRETLS (RFC 8689 2).  C{False}:
        C{TLS-Required: No} (RFC 8689 3).  C{None}: neither.
    @ivar noFallback: Retry later rather than fall back to plaintext with a host
        that offers TLS: for DMARC reports, which disclose details of a domain's
        mail.
    """

    requireTLS: bool | None = None
    noFallback: bool = False


@dataclass(frozen=True, slots=True)
class SessionRequirements:
    """
    The requirements on a session with one host.

    @ivar enforcePKIX: Abort if the Web PKI doesn't verify the certificate.
    @ivar dane: The usable TLSA records, one of which has to match; C{None} if
        there are none.
    @ivar ignoreVerifyErrors: Record verification errors, and continue.
    @ivar plaintextFallback: If TLS fails, connect again without TLS.
    @ivar mxMismatch: The host isn't in the MTA-STS policy: reported, also if the
        host is used all the same.
    @ivar refuse: Why no connection may be made; C{None} if one may.
    """

    tlsMode: TLSMode
    enforcePKIX: bool = False
    dane: tuple[TLSA, ...] | None = None
    ignoreVerifyErrors: bool = False
    plaintextFallback: bool = False
    mxMismatch: bool = False
    refuse: PolicyRefusal | None = None


def messageRequirements(batch: Batch) -> MessageRequirements:
    """
    The requirements that all messages of a batch share.
    """
    requireTLS = batch.requireTLS
    if requireTLS and not any(message.sender for message in batch.messages):
        # RFC 8689 5: a bounce isn't discarded for want of REQUIRETLS; its body
        # was left out when it was made.
        requireTLS = None
    return MessageRequirements(requireTLS, noFallback=batch.report is ReportKind.DMARC)


def mustWait(
    lookup: STSLookup, requirements: MessageRequirements, attempt: int
) -> bool:
    """
    True if a delivery has to wait until the MTA-STS policy can be looked up.

    @param attempt: As of L{moxtls.queue.types.Batch}.
    """
    if not lookup.temporary or requirements.requireTLS is False:
        return False
    # Reading of RFC 8461 3.3, 5.1: a record that can never be looked up is no
    # policy, as long as none is cached; but an attacker who suppresses DNS answers
    # for a moment must not get the mail.  Without a failure the fault is ours, and
    # it is unknown whether a policy is cached.  REQUIRETLS (RFC 8689 4.2.1) needs
    # an authenticated host, however long that takes.
    isDNSFailure = lookup.failure is not None
    return (
        requirements.requireTLS is True
        or not isDNSFailure
        or attempt <= MAX_WAITING_ATTEMPTS
    )


def sessionRequirements(
    host: Domain | None,
    policy: STSPolicy | None,
    tlsa: TLSALookup,
    requirements: MessageRequirements,
) -> SessionRequirements:
    """
    Combine the requirements of a message, MTA-STS and DANE.

    @param host: The name in the MX record; the domain itself without one;
        C{None} for an address literal.
    @param policy: The MTA-STS policy of the recipient domain, fetched or cached.
    @param tlsa: The TLSA records of C{host}.
    """
    enforced = policy is not None and policy.mode is Mode.ENFORCE
    mismatch = _mismatches(host, policy)
    lenient = requirements.requireTLS is False
    # RFC 7672 2.2: unusable records still promise TLS.
    encrypted = enforced or bool(tlsa.records)
    return SessionRequirements(
        TLSMode.REQUIRED if encrypted else TLSMode.OPPORTUNISTIC,
        # RFC 8461 4.2 and RFC 7672: a host under both has to satisfy both.
        enforcePKIX=enforced,
        dane=tlsa.usable or None,
        # RFC 8689 3: regardless of the policies of the recipient domain.
        ignoreVerifyErrors=lenient,
        plaintextFallback=lenient
        or not (encrypted or requirements.requireTLS or requirements.noFallback),
        mxMismatch=mismatch,
        refuse=_refusal(tlsa, enforced, mismatch, requirements),
    )


def _mismatches(host: Domain | None, policy: STSPolicy | None) -> bool:
    if policy is None or policy.mode is Mode.NONE:
        return False
    return host is None or not matchesPolicy(policy, host)


def _refusal(
    tlsa: TLSALookup, enforced: bool, mismatch: bool, requirements: MessageRequirements
) -> PolicyRefusal | None:
    if requirements.requireTLS is False:
        return None
    if tlsa.error is not None:
        return PolicyRefusal.TLSA_LOOKUP
    if enforced and mismatch:
        return PolicyRefusal.MX_MISMATCH
    # RFC 8689 4.2.1: authenticated by DANE or under MTA-STS; a policy in mode
    # "testing", or unusable records, authenticate nothing.
    if requirements.requireTLS and not (enforced or tlsa.usable):
        return PolicyRefusal.REQUIRETLS
    return None


@dataclass(slots=True)
class PolicyCounter:
    """
    Counts sessions and failures under one policy during an attempt.
    """

    policy: TLSPolicy
    succeeded: int = 0
    failed: int = 0
    failures: Counter[FailureDetail] = field(default_factory=Counter)

    def addFailures(self, failures: Iterable[FailureDetail], times: int = 1) -> None:
        """
        Count failures, each in C{times} sessions.
        """
        for each in failures:
            self.failures[each] += times

    def tally(self) -> PolicyTally:
        return PolicyTally(
            self.policy, self.succeeded, self.failed, Counter(self.failures)
        )


class OutcomeBuilder:
    """
    Collects the counts of one attempt, for the recipient domain and for each
    host (RFC 8460 3).

    @ivar recipient: The counter for the recipient domain; C{None} before its
        policy is known.
    @ivar hosts: One counter for each host with a result.
    """

    def __init__(self) -> None:
        self.recipient: PolicyCounter | None = None
        self.hosts: list[PolicyCounter] = []

    @property
    def hasCounts(self) -> bool:
        """
        True if there is anything to record.
        """
        own = [self.recipient] if self.recipient is not None else []
        return any(
            each.succeeded or each.failed or each.failures
            for each in (*own, *self.hosts)
        )

    def addHost(self, counter: PolicyCounter) -> PolicyCounter:
        """
        Add the counter of another host.

        @return: C{counter}.
        """
        self.hosts.append(counter)
        return counter

    def count(
        self, counter: PolicyCounter | None, succeeded: int = 0, failed: int = 0
    ) -> None:
        """
        Count sessions for both kinds of policy domain (RFC 8460 3).

        @param counter: The counter of the host; C{None} if there is none.
        """
        for each in (self.recipient, counter):
            if each is not None:
                each.succeeded += succeeded
                each.failed += failed

    def addSession(self, record: SessionRecord, counter: PolicyCounter | None) -> None:
        """
        Count one session by its TLS record.
        """
        seen = classify(record)
        self.count(counter, seen.succeeded, seen.failed)
        if self.recipient is not None:
            self.recipient.failures.update(seen.recipientFailures)
        if counter is not None:
            counter.failures.update(seen.hostFailures)

    def outcome(
        self,
        domain: Domain,
        report: ReportKind | None = None,
        causesReports: bool = True,
    ) -> SessionOutcome:
        """
        The outcome to record.

        @param report: The kind of report that was delivered, if any.
        @param causesReports: As in L{moxtls.queue.types.Envelope}.
        """
        return SessionOutcome(
            domain,
            self.recipient.tally() if self.recipient is not None else None,
            tuple(each.tally() for each in self.hosts),
            causesReports and report is None,
            # RFC 8460 3: deliveries of TLS reports are not counted.
            report is ReportKind.TLS,
        )


def recipientCounter(lookup: STSLookup) -> PolicyCounter:
    """
    A counter for a recipient domain, with the failures of its MTA-STS lookup.

    A policy of mode "none" means that there is no policy (RFC 8461 5), and is
    reported as such; failures to look it up again don't matter.
    """
    policy = lookup.policy
    if policy is not None and policy.mode is not Mode.NONE:
        sts = TLSPolicy(PolicyType.STS, lookup.domain, policy.lines, policy.mx)
        counter = PolicyCounter(sts)
    elif policy is None and lookup.failure is not None:
        counter = PolicyCounter(TLSPolicy(PolicyType.STS, lookup.domain))
    else:
        return PolicyCounter(TLSPolicy(PolicyType.NO_POLICY, lookup.domain))
    if lookup.failure is not None:
        counter.addFailures([lookup.failure])
    return counter


def hostCounter(host: Domain, tlsa: TLSALookup) -> PolicyCounter:
    """
    A counter for a host, with the failures of its TLSA records.
    """
    base = tlsa.base or host
    if not tlsa.required:
        return PolicyCounter(TLSPolicy(PolicyType.NO_POLICY, base))
    strings = policyStrings(tlsa.usable)
    counter = PolicyCounter(TLSPolicy(PolicyType.TLSA, base, strings))
    if tlsa.error is not None:
        counter.addFailures([_tlsaFailure(host, tlsa.error)])
    elif not tlsa.usable:
        # In no session: it is about the records, sessions may succeed.
        reason = "all-unusable-records+ignored"
        failure = FailureDetail(ResultType.TLSA_INVALID, reason, mxHostname=host.ascii)
        counter.addFailures([failure], times=0)
    return counter


def unvalidatedHostCounter(host: Domain, error: ExtendedError) -> PolicyCounter:
    """
    A counter for a host whose addresses failed DNSSEC validation.
    """
    counter = PolicyCounter(TLSPolicy(PolicyType.TLSA, host))
    counter.addFailures([lookupFailure(error, host.ascii)])
    return counter


def lookupFailure(error: ExtendedError, host: str = "") -> FailureDetail:
    """
    MX, CNAME or address records failed DNSSEC validation.

    Reading of RFC 8460 4.3.2.1: "dnssec-invalid" is about DANE, so the result
    type here is the general one.

    @param host: The host of the address records, if they were such.
    """
    return FailureDetail(
        ResultType.VALIDATION_FAILURE, error.reasonCode, mxHostname=host
    )


def mismatchFailure(host: str) -> FailureDetail:
    """
    A host isn't in the MTA-STS policy (RFC 8461 4.1).
    """
    reason = "mtasts-policy-mx-mismatch"
    return FailureDetail(ResultType.VALIDATION_FAILURE, reason, mxHostname=host)


def _tlsaFailure(host: Domain, error: TLSALookupError) -> FailureDetail:
    """
    RFC 8460 4.3.2.1 "dnssec-invalid": the resolver returned no valid records.

    It is used for all reasons: TLSA records are looked up only where the
    addresses are secure, and a resolver need not tell that DNSSEC validation
    failed (RFC 8914 is optional).
    """
    reason = error.error.reasonCode if error.error else LOOKUP_FAILED
    return FailureDetail(ResultType.DNSSEC_INVALID, reason, mxHostname=host.ascii)
