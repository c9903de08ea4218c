# -*- test-case-name: tests.mtasts.test_rules -*-
"""
Which MTA-STS policy applies, given what is remembered and what can be found
(RFC 8461 3.3, 5.1, 6).  No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from moxtls.dates import DAY, HOUR
from moxtls.dns.types import LOOKUP_FAILED, Answer
from moxtls.domain import Domain
from moxtls.mtasts.policy import (
    CachedPolicy,
    Mode,
    STSLookup,
    STSPolicy,
    STSRecord,
    STSRecordError,
    parseSTSRecords,
)
from moxtls.tlsrpt.types import FailureDetail, ResultType

#: RFC 8461 3.3: how long to leave a policy host alone that failed.
BACKOFF = 5 * 60
#: After how long what no delivery asks for is forgotten.
MAX_UNUSED = 180 * DAY
#: What was fetched more recently is not refreshed.
MIN_REFRESH_AGE = 12 * HOUR
#: Over how long a round of refreshing is spread.
REFRESH_SPREAD = 3 * HOUR

FALLBACK_SUFFIX = "+fallback-to-cached-policy"
BACKOFF_FAILURE = FailureDetail(
    ResultType.STS_POLICY_FETCH_ERROR, "back-off-after-recent-fetch-error"
)


@dataclass(frozen=True, slots=True)
class NoRecord:
    """
    There is no usable TXT record.

    @ivar reasonCode: For RFC 8460 failure-reason-code.
    @ivar temporary: Nobody can say whether there is.
    """

    reasonCode: str
    temporary: bool = False

    @property
    def gone(self) -> bool:
        """
        Whether the domain has no record at all, for certain.
        """
        return self.reasonCode == STSRecordError.NONE

    @property
    def failure(self) -> FailureDetail:
        return FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, self.reasonCode)


def recordFromAnswer(answer: Answer) -> STSRecord | NoRecord:
    """
    What TXT records at C{_mta-sts} say.
    """
    if answer.failed:
        error = answer.dnssecError
        return NoRecord(error.reasonCode if error else LOOKUP_FAILED, True)
    record = parseSTSRecords(answer.texts)
    return record if isinstance(record, STSRecord) else NoRecord(str(record))


def isValid(entry: CachedPolicy | None, now: float) -> bool:
    """
    Whether what is remembered still counts, be it a policy or a back-off.
    """
    return entry is not None and entry.validEnd > now


def lookupWithoutFetch(
    domain: Domain,
    record: STSRecord | NoRecord,
    entry: CachedPolicy | None,
    resting: str | None,
) -> STSLookup | STSRecord:
    """
    What can be said without asking the policy host; else the record under
    which to ask.

    @param entry: A valid entry that has a policy, or C{None}.
    @param resting: The C{id} under which a fetch has failed just now, if one
        has.
    """
    policy = entry.policy if entry else None
    if isinstance(record, NoRecord):
        if policy is not None:
            return cachedLookup(domain, policy, record.failure, noted=policy.mode)
        # RFC 8461 3.1: no policy is available.  It is no failure not to have
        # one, but it is to have tried.
        failure = None if record.gone else record.failure
        return STSLookup(domain, None, failure, record.temporary)
    if policy is None or entry is None:
        return record
    if record.id == entry.recordID:
        return STSLookup(domain, policy)
    if record.id == resting:
        return cachedLookup(domain, policy, BACKOFF_FAILURE)
    return record


def cachedLookup(
    domain: Domain, policy: STSPolicy, failure: FailureDetail, noted: Mode | None = None
) -> STSLookup:
    """
    RFC 8461 3.3: what is remembered applies whatever went wrong.

    @param noted: The mode, if going without was all right: RFC 8461 6 and 8.3
        let a domain take its record away once its policy says C{none}.
    """
    if noted is Mode.NONE:
        return STSLookup(domain, policy)
    reason = failure.reasonCode + FALLBACK_SUFFIX
    return STSLookup(domain, policy, replace(failure, reasonCode=reason))


def lookupAfterFetch(
    domain: Domain, result: STSPolicy | FailureDetail, entry: CachedPolicy | None
) -> STSLookup:
    """
    What applies after the policy host was asked.

    @param entry: As in L{lookupWithoutFetch}.
    """
    if isinstance(result, STSPolicy):
        return STSLookup(domain, result)
    if entry is not None and entry.policy is not None:
        return cachedLookup(domain, entry.policy, result)
    return STSLookup(domain, None, result)


def cacheEntry(
    domain: Domain,
    policy: STSPolicy | None,
    recordID: str,
    earlier: CachedPolicy | None,
    now: float,
) -> CachedPolicy:
    """
    What to put in the cache.

    @param policy: As fetched; C{None} if that failed, to back off.
    @param earlier: What was there before.
    """
    fetched = now if policy else earlier.fetched if earlier else 0.0
    return CachedPolicy(
        domain,
        policy,
        recordID,
        inserted=earlier.inserted if earlier else now,
        fetched=fetched,
        validEnd=now + (policy.maxAge if policy else BACKOFF),
        lastUse=earlier.lastUse if earlier else now,
    )


def isUnused(entry: CachedPolicy, now: float) -> bool:
    """
    Whether to forget about a domain that gets no mail from here.
    """
    return entry.lastUse < now - MAX_UNUSED


def isStale(entry: CachedPolicy, now: float) -> bool:
    """
    Whether to refresh an entry.  One that only backs off always is.
    """
    return entry.policy is None or entry.fetched < now - MIN_REFRESH_AGE


def isObsolete(entry: CachedPolicy, record: STSRecord | NoRecord, now: float) -> bool:
    """
    Whether a domain has given up on MTA-STS (RFC 8461 8.3), so that there is
    nothing left to remember.
    """
    if isinstance(record, STSRecord) or not record.gone:
        return False
    policy = entry.policy
    return policy is None or policy.mode is Mode.NONE or not isValid(entry, now)


def refreshTimes(
    count: int, jitter: Callable[[], float], spread: float = REFRESH_SPREAD
) -> tuple[float, ...]:
    """
    When to refresh each of C{count} entries, in seconds from now, ascending:
    the first at once, the others evenly, each moved by up to half a step.
    """
    step = spread / max(1, count - 1)
    moved = (step * (each + jitter() - 0.5) for each in range(1, count))
    return tuple(sorted([0.0, *moved][:count]))


def shuffled(
    entries: Iterable[CachedPolicy], jitter: Callable[[], float]
) -> tuple[CachedPolicy, ...]:
    """
    So that no domain is always the first or the last.
    """
    return tuple(sorted(entries, key=lambda _: jitter()))
