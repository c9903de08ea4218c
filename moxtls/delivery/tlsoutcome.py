# -*- test-case-name: tests.delivery.test_tlsoutcome -*-
"""
Builds the TLS outcome of one delivery attempt (RFC 8460).  No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from moxtls.dns.types import LOOKUP_FAILED, ExtendedError
from moxtls.domain import Domain
from moxtls.mtasts.policy import Mode, STSLookup
from moxtls.queue.types import ReportKind
from moxtls.tls.dane import TLSALookup, TLSALookupError, policyStrings
from moxtls.tls.resulttype import classify
from moxtls.tls.session import SessionRecord
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    TLSPolicy,
)


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
