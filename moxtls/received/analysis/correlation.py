# -*- test-case-name: tests.received.analysis.test_correlation -*-
"""
Relates failures in received TLS reports to this host's own failed handshakes and
certificates of that time.  No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from moxtls.dates import DAY
from moxtls.received.analysis.answers import FailureReason, count, dayName
from moxtls.received.analysis.explanations import explain
from moxtls.received.types import CertificateSeen, HandshakeFailures, dayOf
from moxtls.tlsrpt.types import ResultType

#: Sentences about one reason.
MAX_EVENTS = 4
#: Listeners that are looked at; there are as many as the configuration has.
MAX_LISTENERS = 100

_CERTIFICATE_TYPES = frozenset(
    {
        ResultType.CERTIFICATE_EXPIRED,
        ResultType.CERTIFICATE_NOT_TRUSTED,
        ResultType.CERTIFICATE_HOST_MISMATCH,
        ResultType.VALIDATION_FAILURE,
    }
)
# The alerts of clients that don't tell what is wrong with a certificate.
_REJECTED = "certificate rejected"


def listenerKey(node: str, listener: str) -> str:
    """
    The name of a listener in the history, which nodes share.
    """
    return f"{node}/{listener}"


def localListener(key: str, node: str, listeners: Collection[str]) -> str | None:
    """
    The inverse of L{listenerKey}: the listener, perhaps with C{/} and the name of a
    certificate for SNI; C{None} if it is none of C{listeners} of C{node}.
    """
    start = listenerKey(node, "")
    listener = key.removeprefix(start)
    isLocal = key.startswith(start) and listener.partition("/")[0] in listeners
    return listener if isLocal else None


@dataclass(frozen=True, slots=True)
class _Use:
    """
    The time for which a listener used a certificate.

    @ivar until: Unix seconds; C{None} if it is still in use.
    """

    certificate: CertificateSeen
    until: float | None


def correlate(
    reason: FailureReason,
    handshakes: Sequence[HandshakeFailures],
    certificates: Sequence[CertificateSeen],
    ownHosts: frozenset[str],
) -> tuple[str, ...]:
    """
    Sentences, without full stops, about own events that may explain C{reason}.

    @param handshakes: Those of the days of C{reason}; others are ignored.
    @param certificates: By the time since which they are in use.
    @param ownHosts: Names and IP addresses of this host.  There are no sentences about
        failures at other hosts.
    """
    if reason.resultType not in _CERTIFICATE_TYPES:
        return ()
    if reason.hosts and ownHosts.isdisjoint(reason.hosts):
        return ()
    start, end = reason.firstDay * DAY, (reason.lastDay + 1) * DAY
    uses = [
        each
        for each in _uses(certificates)
        if each.certificate.since < end and (each.until is None or each.until > start)
    ]
    events = (
        *_expired(uses, start, end),
        *_otherNames(reason, uses, ownHosts),
        *_replaced(reason, uses, start),
        *_failed(reason, handshakes, start, end),
    )
    return events[:MAX_EVENTS]


def _uses(certificates: Iterable[CertificateSeen]) -> Iterator[_Use]:
    byListener: dict[str, list[CertificateSeen]] = {}
    for each in certificates:
        if each.listener in byListener or len(byListener) < MAX_LISTENERS:
            byListener.setdefault(each.listener, []).append(each)
    for seen in byListener.values():
        ordered = sorted(seen, key=lambda each: each.since)
        ends = [each.since for each in ordered[1:]]
        yield from map(_Use, ordered, (*ends, None))


def _expired(uses: Iterable[_Use], start: float, end: float) -> Iterator[str]:
    for use in uses:
        seen = use.certificate
        if use.until is None and "/" in seen.listener:
            # One for SNI, which may have been removed from the configuration.
            continue
        until = end if use.until is None else use.until
        if max(seen.notAfter, start) < min(until, end):
            expired = dayName(dayOf(seen.notAfter))
            used = (
                "is still in use"
                if use.until is None
                else f"was in use until {dayName(dayOf(use.until))}"
            )
            yield (
                f"the certificate of listener {seen.listener} that expired on "
                f"{expired} {used}"
            )


def _otherNames(
    reason: FailureReason, uses: Sequence[_Use], ownHosts: frozenset[str]
) -> Iterator[str]:
    if reason.resultType != ResultType.CERTIFICATE_HOST_MISMATCH or not uses:
        return
    for host in reason.hosts:
        isName = host in ownHosts and not host.replace(".", "").isdigit()
        if not isName or ":" in host:
            continue
        if not any(_covers(use.certificate.names, host) for use in uses):
            yield f"none of the certificates in use was for {host}"


def _covers(names: Iterable[str], host: str) -> bool:
    # RFC 9525 6.3: a wildcard matches one whole label.
    return host in names or f"*.{host.partition('.')[2]}" in names


def _replaced(
    reason: FailureReason, uses: Iterable[_Use], start: float
) -> Iterator[str]:
    if reason.resultType == ResultType.CERTIFICATE_EXPIRED:
        return
    for use in uses:
        seen = use.certificate
        # The day of the first failure, or the one before.
        if start - DAY <= seen.since < start + DAY:
            when = dayName(dayOf(seen.since))
            yield f"listener {seen.listener} began to use another certificate on {when}"


def _failed(
    reason: FailureReason,
    handshakes: Iterable[HandshakeFailures],
    start: float,
    end: float,
) -> Iterator[str]:
    counts: Counter[tuple[str, str]] = Counter()
    for each in handshakes:
        if start <= each.hour < end and _fits(reason, each.reason):
            counts[each.listener, each.reason] += each.count
    for (listener, why), failed in counts.most_common(MAX_EVENTS):
        yield f"{count(failed, 'handshake')} failed on listener {listener}: {why}"


def _fits(reason: FailureReason, why: str) -> bool:
    """
    True if a failed handshake may be one of those reported.

    @param why: A reason code of this program.
    """
    title = explain(ResultType.VALIDATION_FAILURE, why).title
    if title == reason.explanation.title:
        return True
    isCertificate = reason.resultType.startswith("certificate-")
    return title == _REJECTED and isCertificate
