# -*- test-case-name: tests.outbound.test_outcome -*-
"""
The outcome of one attempt, as it is gathered.  No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from moxtls.domain import Domain
from moxtls.policy.mtasts import Mode, STSLookup
from moxtls.queue.values import ReportKind
from moxtls.tlsrpt.results import (
    Failure,
    Policy,
    PolicyTally,
    PolicyType,
    SessionOutcome,
)


@dataclass(slots=True)
class Tallying:
    """
    The count against one policy while an attempt is under way.

    @ivar policy: May become a better known one before anything is counted.
    """

    policy: Policy
    succeeded: int = 0
    failed: int = 0
    failures: Counter[Failure] = field(default_factory=Counter)

    def saw(self, failures: Iterable[Failure], times: int = 1) -> None:
        """
        Note failures, each seen in C{times} sessions.
        """
        for each in failures:
            self.failures[each] += times

    def tally(self) -> PolicyTally:
        return PolicyTally(
            self.policy, self.succeeded, self.failed, Counter(self.failures)
        )


def recipientTallying(lookup: STSLookup) -> Tallying:
    """
    Begin the count for a recipient domain, with what its MTA-STS lookup says.

    A policy of mode "none" is the way to have no policy (RFC 8461 5), so it
    is told as one; what became of the records behind it is of no interest.
    """
    policy = lookup.policy
    if policy is not None and policy.mode is not Mode.NONE:
        sts = Policy(PolicyType.STS, lookup.domain, policy.lines, policy.mx)
        tallying = Tallying(sts)
    elif policy is None and lookup.failure is not None:
        tallying = Tallying(Policy(PolicyType.STS, lookup.domain))
    else:
        return Tallying(Policy(PolicyType.NO_POLICY, lookup.domain))
    if lookup.failure is not None:
        tallying.saw([lookup.failure])
    return tallying


def sessionOutcome(
    domain: Domain,
    recipient: Tallying | None,
    hosts: Iterable[Tallying],
    report: ReportKind | None,
) -> SessionOutcome:
    """
    What an attempt leaves behind.

    Deliveries of TLS reports never cause a report, those of DMARC reports
    only if TLS failed: else two hosts would report on each other's reports
    for ever.
    """
    tallies = tuple(each.tally() for each in hosts)
    own = recipient.tally() if recipient is not None else None
    failed = any(each.failed for each in (*tallies, *([own] if own else [])))
    mayCause = report is None or (report is ReportKind.DMARC and failed)
    return SessionOutcome(domain, own, tallies, mayCause)
