# -*- test-case-name: tests.mtasts.test_rules -*-
"""
Rules that decide which MTA-STS policy applies, from the cache, the TXT record and
the fetched policy (RFC 8461 3.3, 5.1, 6).  No I/O.
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

#: RFC 8461 3.3: seconds without another fetch after a failed one.
BACKOFF = 5 * 60
#: Seconds after which an entry that no delivery has used is removed.
MAX_UNUSED = 180 * DAY
#: Seconds: entries fetched more recently are not refreshed.
MIN_REFRESH_AGE = 12 * HOUR
#: Seconds over which the refreshes of a day are spread.
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
    @ivar temporary: The lookup failed, so that there might be one.
    """

    reasonCode: str
    temporary: bool = False

    @property
    def gone(self) -> bool:
        """
        True if the domain certainly has no record.
        """
        return self.reasonCode == STSRecordError.NONE

    @property
    def failure(self) -> FailureDetail:
        return FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, self.reasonCode)


def recordFromAnswer(answer: Answer) -> STSRecord | NoRecord:
    """
    The record in the answer for TXT records at C{_mta-sts}.
    """
    if answer.failed:
        error = answer.dnssecError
        return NoRecord(error.reasonCode if error else LOOKUP_FAILED, True)
    record = parseSTSRecords(answer.texts)
    return record if isinstance(record, STSRecord) else NoRecord(str(record))


def isValid(entry: CachedPolicy | None, now: float) -> bool:
    """
    True if a cache entry, a policy or a back-off, is still valid.
    """
    return entry is not None and entry.validEnd > now


def lookupWithoutFetch(
    domain: Domain,
    record: STSRecord | NoRecord,
    entry: CachedPolicy | None,
    failedID: str | None,
) -> STSLookup | STSRecord:
    """
    The lookup's result, if no fetch is needed for it; else the record of the policy
    to fetch.

    @param entry: A valid entry that has a policy, or C{None}.
    @param failedID: The record C{id} with which a fetch failed recently, if any.
    """
    policy = entry.policy if entry else None
    if isinstance(record, NoRecord):
        if policy is not None:
            return cachedLookup(
                domain, policy, record.failure, modeWithoutRecord=policy.mode
            )
        # RFC 8461 3.1: no policy is available.  The absence of a record is no
        # failure; a defective record is one.
        failure = None if record.gone else record.failure
        return STSLookup(domain, None, failure, record.temporary)
    if policy is None or entry is None:
        return record
    if record.id == entry.recordID:
        return STSLookup(domain, policy)
    if record.id == failedID:
        return cachedLookup(domain, policy, BACKOFF_FAILURE)
    return record


def cachedLookup(
    domain: Domain,
    policy: STSPolicy,
    failure: FailureDetail,
    modeWithoutRecord: Mode | None = None,
) -> STSLookup:
    """
    The result with a cached policy, which applies after any failure (RFC 8461 3.3).

    @param modeWithoutRecord: The cached mode, if the record may be absent: RFC 8461 6
        and 8.3 let a domain remove its record once its policy has mode C{none}.
    """
    if modeWithoutRecord is Mode.NONE:
        return STSLookup(domain, policy)
    reason = failure.reasonCode + FALLBACK_SUFFIX
    return STSLookup(domain, policy, replace(failure, reasonCode=reason))


def lookupAfterFetch(
    domain: Domain, result: STSPolicy | FailureDetail, entry: CachedPolicy | None
) -> STSLookup:
    """
    The result after a fetch.

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
    The new cache entry after a fetch.

    @param policy: The fetched policy; C{None} if the fetch failed, to back off.
    @param earlier: The entry before.
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
    True if an entry is to be removed, as no mail is sent to its domain.
    """
    return entry.lastUse < now - MAX_UNUSED


def isStale(entry: CachedPolicy, now: float) -> bool:
    """
    True if an entry is to be refreshed, as a back-off always is.
    """
    return entry.policy is None or entry.fetched < now - MIN_REFRESH_AGE


def isObsolete(entry: CachedPolicy, record: STSRecord | NoRecord, now: float) -> bool:
    """
    True if a domain has stopped using MTA-STS (RFC 8461 8.3), so that its entry is
    to be removed.
    """
    if isinstance(record, STSRecord) or not record.gone:
        return False
    policy = entry.policy
    return policy is None or policy.mode is Mode.NONE or not isValid(entry, now)


def refreshTimes(
    count: int, jitter: Callable[[], float], spread: float = REFRESH_SPREAD
) -> tuple[float, ...]:
    """
    The times to refresh C{count} entries, in seconds from now, ascending: the first
    at once, the others evenly, each moved by up to half an interval.
    """
    step = spread / max(1, count - 1)
    moved = (step * (each + jitter() - 0.5) for each in range(1, count))
    return tuple(sorted([0.0, *moved][:count]))


def shuffled(
    entries: Iterable[CachedPolicy], jitter: Callable[[], float]
) -> tuple[CachedPolicy, ...]:
    """
    The entries in random order, so that no domain is always first or last.
    """
    return tuple(sorted(entries, key=lambda _: jitter()))
