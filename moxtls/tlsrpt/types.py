# -*- test-case-name: tests.tlsrpt.test_types -*-
"""
How often TLS went well or badly under which policy.  No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum

from moxtls.domain import Domain


class PolicyType(StrEnum):
    """
    RFC 8460 4.4 policy-type.
    """

    TLSA = "tlsa"
    STS = "sts"
    NO_POLICY = "no-policy-found"


class ResultType(StrEnum):
    """
    RFC 8460 4.3.
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
    One way for a session to go wrong (RFC 8460 4.3, 4.4 failure-details).

    Empty strings stand for what isn't known or doesn't apply; reports leave
    it out.

    @ivar mxHELO: The first word of the greeting: the name by which the host
        calls itself.
    @ivar additional: A URI with more about it.
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
        session can fail in more than one way, and a failure that was found
        but not enforced fails no session.
    @ivar failures: In how many sessions each was seen; one seen in none (0)
        is worth telling all the same.
    """

    policy: TLSPolicy
    succeeded: int = 0
    failed: int = 0
    failures: Counter[FailureDetail] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """
    What TLS and policy did in one attempt to reach a recipient domain.

    An attempt has one connection after the other to the domain's hosts until
    one takes the mail.  Everything in it is counted for both kinds of policy
    domain (RFC 8460 3): the recipient domain itself, and each host.

    @ivar recipientDomain: The domain of the RCPT addresses, before any CNAME.
    @ivar recipient: C{None} if nothing is known, such as after an error of
        our own.
    @ivar hosts: One for each host that was considered and says something.
    @ivar sendReport: Whether this may cause a report, rather than only be
        part of one: deliveries of reports must not cause reports.
    @ivar isTLSReport: Whether a TLS report was delivered: that is no part of
        a report (RFC 8460 3).
    """

    recipientDomain: Domain
    recipient: PolicyTally | None
    hosts: tuple[PolicyTally, ...] = ()
    sendReport: bool = True
    isTLSReport: bool = False


@dataclass(frozen=True, slots=True)
class StoredResult:
    """
    What the ledger has about one policy domain, as seen by mail for one
    recipient domain, on one day.

    @ivar isHost: Whether C{policyDomain} is that of an MX host.
    @ivar reportedToRecipient: The report to the recipient domain is settled.
    @ivar reportedToHost: The report to the host is settled.
    @ivar reportedDestinations: Where the first of the two reports went, if one
        was made: who has the same C{rua} isn't told twice.
    @ivar until: The Unix second in which the period was closed, if that was
        before the day was over; else 0.
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

    @property
    def place(self) -> tuple[date, Domain, Domain, bool, int]:
        """
        By which results are told apart, and ordered.
        """
        return (
            self.day,
            self.policyDomain,
            self.recipientDomain,
            self.isHost,
            self.until,
        )


def mergeTallies(tallies: Iterable[PolicyTally]) -> list[PolicyTally]:
    """
    Combine tallies so that each policy, and each failure under it, is left
    once.

    The order of C{tallies} decides only the order of the result, never its
    numbers, so a store may merge on write, on read, or both.

    RFC 8460 4.4 has one entry in C{policies} per policy applied; a domain
    that changed its MTA-STS policy at noon therefore keeps two.

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
