# -*- test-case-name: tests.mtasts.test_policy -*-
"""
MTA-STS records and policies, and the rules that decide which policy applies (RFC
8461).  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from moxtls.dates import DAY, HOUR
from moxtls.dns.types import LOOKUP_FAILED, Answer
from moxtls.domain import Domain, InvalidDomain
from moxtls.taglist import splitTagSpecs
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


class Mode(StrEnum):
    """
    RFC 8461 3.2, 5.
    """

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class STSPolicy:
    """
    RFC 8461 3.2.

    @ivar maxAge: Seconds.
    @ivar mx: Patterns: a host in A-labels and lower case, or C{*.} before
        one.
    @ivar lines: The policy as it was served, line by line, for reports.
    """

    mode: Mode
    maxAge: int
    mx: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CachedPolicy:
    """
    The cache entry for the MTA-STS policy of a domain.

    @ivar policy: C{None} if the last fetch failed and no earlier policy is
        valid: nothing is fetched again before C{validEnd} (back-off).
    @ivar recordID: The C{id} of the TXT record under which it was fetched.
    @ivar fetched: Unix seconds of the last successful check or fetch.
    @ivar validEnd: Unix seconds; C{fetched} and the policy's C{max_age}.
    @ivar lastUse: Unix seconds of the last delivery that asked for it.
    """

    domain: Domain
    policy: STSPolicy | None
    recordID: str
    inserted: float
    fetched: float
    validEnd: float
    lastUse: float


@dataclass(frozen=True, slots=True)
class STSLookup:
    """
    The MTA-STS policy for a delivery to C{domain}, now.

    Without a policy there is neither C{policy} nor C{failure}; a defective policy
    has a C{failure}; an unknown one is C{temporary} too.

    @ivar policy: The policy to apply, fetched or cached; also one of mode "none".
    @ivar failure: The failure to report, also where a cached policy applies.
    @ivar temporary: The domain might have a policy that is enforced, so that the
        delivery has to wait for some time (RFC 8461 5.1).  Without a C{failure} the
        fault is ours.
    @ivar unavailable: The fault is that the ledger, with the cache, can't be read.
    """

    domain: Domain
    policy: STSPolicy | None = None
    failure: FailureDetail | None = None
    temporary: bool = False
    unavailable: bool = False


#: RFC 8461 3.2: the most that max_age can be, a year.
MAX_AGE = 31557600

# RFC 8461 3.1: "records which do not begin with v=STSv1; are discarded".  The
# delimiter is *WSP ";" *WSP, so blanks may come before the semicolon.
_STS = re.compile(rb"v=STSv1(?=[ \t]*;)")
# RFC 8461 3.1, 3.2: sts-ext-name, which the known names are examples of.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"
# RFC 8461 3.1: sts-extension = sts-ext-name "=" sts-ext-value.
_FIELD = re.compile(rf"({_NAME})=([\x21-\x3a\x3c\x3e-\x7e]+)\Z")
# RFC 8461 3.1: sts-id = "id=" 1*32(ALPHA / DIGIT).
_ID = re.compile(r"[A-Za-z0-9]{1,32}\Z")
# RFC 8461 3.2: sts-policy-ext-name ":" *WSP sts-policy-ext-value *WSP.  The
# value has no blanks around it, and no controls.
_VALUE = r"[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?"
_LINE = re.compile(rf"({_NAME}):[ \t]*({_VALUE})[ \t]*\Z")
# RFC 8461 3.2: sts-policy-max-age-value = 1*10(DIGIT).
_MAX_AGE = re.compile(r"[0-9]{1,10}\Z")


@dataclass(frozen=True, slots=True)
class STSRecord:
    """
    The TXT record at C{_mta-sts} (RFC 8461 3.1).

    @ivar id: Changes whenever the policy does.
    """

    id: str


class STSRecordError(StrEnum):
    """
    The reason why there is no L{STSRecord}, as a RFC 8460 failure-reason-code.
    """

    NONE = "no-mta-sts-dns-txt-record"
    MULTIPLE = "multiple-mta-sts-records"
    SYNTAX = "record-syntax-error"


@dataclass(frozen=True, slots=True)
class STSPolicyError:
    """
    A syntax error in a policy, for the log.

    @ivar line: Counted from 1; 0 for the whole policy.
    """

    reason: str
    line: int = 0

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line else self.reason


def stsRecordName(domain: Domain) -> str:
    """
    The name of the TXT record of C{domain} (RFC 8461 3.1).
    """
    return f"_mta-sts.{domain}"


def stsPolicyHost(domain: Domain) -> str:
    """
    The host that serves the policy of C{domain} (RFC 8461 3.2).
    """
    return f"mta-sts.{domain}"


def parseSTSRecords(texts: Iterable[bytes]) -> STSRecord | STSRecordError:
    """
    The one MTA-STS record among the TXT records at a name.

    @param texts: Each with its character-strings joined.
    """
    found = [text for text in texts if _STS.match(text)]
    if not found:
        return STSRecordError.NONE
    if len(found) > 1:
        return STSRecordError.MULTIPLE
    return _parseRecord(found[0])


def parsePolicy(body: bytes) -> STSPolicy | STSPolicyError:
    """
    Read the resource of RFC 8461 3.2.

    Lines may end either way, and blank ones at the end are overlooked.
    C{max_age} is never more than L{MAX_AGE}.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return STSPolicyError("not UTF-8")
    split = text.rstrip(" \t\r\n").split("\n")
    lines = tuple(line.removesuffix("\r") for line in split)
    patterns: list[str] = []
    fields: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        field = _LINE.match(line)
        if field is None:
            return STSPolicyError("not a key and a value", number)
        name, value = field[1], field[2]
        if name != "mx":
            # RFC 8461 3.2: of a field that isn't repeated the first counts.
            fields.setdefault(name, value)
        elif _isPattern(value):
            patterns.append(value.lower())
        else:
            return STSPolicyError("not a host or pattern in A-labels", number)
    return _policyOf(fields, tuple(dict.fromkeys(patterns)), lines)


def matchesPolicy(policy: STSPolicy, host: Domain) -> bool:
    """
    True if C{policy} allows C{host} as a mail exchange (RFC 8461 4.1).

    A wildcard stands for exactly one label, the leftmost.
    """
    _, dot, rest = host.ascii.partition(".")
    return host.ascii in policy.mx or (bool(dot) and f"*.{rest}" in policy.mx)


def _parseRecord(text: bytes) -> STSRecord | STSRecordError:
    try:
        # RFC 8461 3.1: sts-field-delim = *WSP ";" *WSP.
        _, *fields = splitTagSpecs(text.decode("ascii"))
    except UnicodeDecodeError:
        return STSRecordError.SYNTAX
    parsed = [_FIELD.match(field) for field in fields]
    ids = [field[2] for field in parsed if field and field[1] == "id"]
    # RFC 8461 3.2: of duplicates all but the first are ignored.
    if not all(parsed) or not ids or not _ID.match(ids[0]):
        return STSRecordError.SYNTAX
    return STSRecord(ids[0])


def _policyOf(
    fields: dict[str, str], patterns: tuple[str, ...], lines: tuple[str, ...]
) -> STSPolicy | STSPolicyError:
    if fields.get("version") != "STSv1":
        return STSPolicyError("version is not STSv1")
    try:
        mode = Mode(fields.get("mode", ""))
    except ValueError:
        return STSPolicyError("mode is none of enforce, testing and none")
    age = fields.get("max_age", "")
    if not _MAX_AGE.match(age):
        return STSPolicyError("max_age is not a number of seconds")
    if not patterns and mode is not Mode.NONE:
        return STSPolicyError("no mx")
    # Reading of RFC 8461 3.2: a value above the maximum means the maximum.  To
    # refuse the policy would remove the domain's protection for a harmless mistake.
    return STSPolicy(mode, min(int(age), MAX_AGE), patterns, lines)


def _isPattern(value: str) -> bool:
    # RFC 8461 3.2: sts-policy-mx-value = ["*."] Domain, and no U-labels.
    host = value.removeprefix("*.")
    if not host.isascii() or host.endswith("."):
        return False
    try:
        Domain.parse(host)
    except InvalidDomain:
        return False
    return True


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
