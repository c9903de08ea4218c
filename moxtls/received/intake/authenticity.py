# -*- test-case-name: tests.received.intake.test_authenticity -*-
"""
Decides whether a received report is accepted: by what authenticates the message that it
came in, and by the domains and the period that it is about.  No I/O.

The kind of a report is that of its content, whatever the address it was sent to, and
each kind has its own rule: a TLS report needs a DKIM signature of its submitter (RFC
8460 3), a DMARC report a message that passes DMARC (RFC 9990 3.5.2, RFC 9991 4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dates import DAY, MINUTE, rfc3339
from moxtls.domain import Domain
from moxtls.message.addresses import FromField
from moxtls.received.reading.parsed import canonicalName
from moxtls.received.types import (
    AcceptedReport,
    Origin,
    ParsedReport,
    ReceivedKind,
    RefusedReport,
)

#: Seconds that the end of a report's period may be in the future.  Some TLS reports
#: give the end of the current day; DMARC reports are made after their period.
MAX_FUTURE = {
    ReceivedKind.TLS: DAY,
    ReceivedKind.DMARC: MINUTE,
    ReceivedKind.FAILURE: DAY,
}
#: Signatures and domains that a reason names.
MAX_NAMED = 3


class AuthenticationUnavailable(Exception):
    """
    A DNS lookup failed on which it depends whether a report is accepted: a later
    attempt may succeed.
    """


def judgeMailed(
    report: ParsedReport,
    origin: Origin,
    outcome: AuthenticationOutcome | None,
    ours: Collection[str],
    reported: str = "",
) -> AcceptedReport | RefusedReport:
    """
    Decide about a report that came by mail.

    @param origin: Its C{authentication} is filled in.
    @param outcome: Of the message; C{None} if it wasn't authenticated.
    @param ours: As for L{judge}.
    @param reported: As for L{judge}.

    @raise AuthenticationUnavailable: It can't be decided now.
    """
    if outcome is None:
        return _refused(report, origin, "the message was not authenticated")
    if report.kind is ReceivedKind.TLS:
        found = _submitter(outcome)
    else:
        found = _dmarcAuthor(outcome)
    if isinstance(found, str):
        return _refused(report, origin, found)
    method = "DKIM" if report.kind is ReceivedKind.TLS else "DMARC"
    origin = replace(origin, authentication=f"{method} {found}")
    return judge(report, origin, ours, reported)


def judge(
    report: ParsedReport,
    origin: Origin,
    ours: Collection[str] | None,
    reported: str = "",
) -> AcceptedReport | RefusedReport:
    """
    Decide about a report by its content alone, whatever way it came.

    @param ours: The domains, in A-labels, reports about which are accepted: the local
        ones, those of which only reports are collected, and the name of this host.
        C{None}: all, and TLS reports that name none, which are not counted.
    @param reported: The domain that policies without one are about, unless the report
        says it; empty if unknown.
    """
    if report.end > origin.received + MAX_FUTURE[report.kind]:
        reason = f"its period ends in the future, at {rfc3339(report.end)}"
        return _refused(report, origin, reason)
    if report.kind is ReceivedKind.TLS:
        return _judgeTLS(report, origin, ours, reported)
    if ours is not None and not _isOurs(report, ours):
        return _refused(report, origin, _notOurs([report.domain]))
    return AcceptedReport(report, origin)


def _isOurs(report: ParsedReport, ours: Collection[str]) -> bool:
    # Reported-Domain of a failure report is the author domain, to which the policy of
    # a parent may apply (RFC 9991 4); other reports are about the policy's domain.
    names = [report.domain]
    if report.kind is ReceivedKind.FAILURE:
        names += _parents(report.domain)
    return any(each in ours for each in names)


def _judgeTLS(
    report: ParsedReport,
    origin: Origin,
    ours: Collection[str] | None,
    reported: str,
) -> AcceptedReport | RefusedReport:
    default = report.domainHint or reported
    policies = tuple(
        replace(each, domain=each.domain or default) for each in report.policies
    )
    report = replace(report, policies=policies)
    counted = frozenset(each for each in report.domains if ours is None or each in ours)
    named = [each.domain for each in policies if each.domain]
    if not counted and (named or ours is not None):
        isAbout = report.domains or not named
        reason = _notOurs(report.domains) if isAbout else f"{named[0]} is no domain"
        return _refused(report, origin, reason)
    return AcceptedReport(report, origin, counted)


def withoutRepeated(
    judged: AcceptedReport | RefusedReport,
    host: str,
    separate: Collection[str],
    reported: str = "",
) -> AcceptedReport | RefusedReport:
    """
    Leave uncounted what a TLS report about an MX host repeats of reports about
    recipient domains.

    Beyond RFC 8460 4.4, some reporters, moxtls among them, send the results of a host
    also to the host itself, with the recipient domains as policy domains and the host
    as C{mx-host}.

    @param host: The name of this host.
    @param separate: The domains that get TLS reports of their own.
    @param reported: As for L{judge}.
    """
    if isinstance(judged, RefusedReport) or judged.domains is None:
        return judged
    if (judged.report.domainHint or reported) != host:
        return judged
    repeated = {
        each.domain
        for each in judged.report.policies
        if tuple(map(canonicalName, each.mxHosts)) == (host,)
        and each.domain != host
        and each.domain in separate
    }
    return replace(judged, domains=judged.domains - repeated)


def _notOurs(domains: Collection[str]) -> str:
    named = ", ".join(filter(None, tuple(domains)[:MAX_NAMED]))
    if not named:
        return "it names no policy domain"
    more = " and others" if len(domains) > MAX_NAMED else ""
    return f"it is about {named}{more}, none of the domains of this host"


def _refused(report: ParsedReport, origin: Origin, reason: str) -> RefusedReport:
    return RefusedReport(origin, reason, report.kind, report)


# --- authentication ------------------------------------------------------------------


def _dmarcAuthor(outcome: AuthenticationOutcome) -> Domain | str:
    """
    The author domain if the message passes DMARC, or the reason why it isn't accepted.
    """
    verdict = outcome.verdict
    if verdict.author is None:
        return f"DMARC can't be checked: {_noAuthor(outcome)}"
    if verdict.status is AuthResult.PASS:
        return verdict.author
    if verdict.status is AuthResult.TEMPERROR:
        raise AuthenticationUnavailable(f"DMARC of {verdict.author} can't be checked")
    if verdict.status is AuthResult.NONE:
        return f"{verdict.author} has no DMARC policy, so the message doesn't pass"
    why = f": {verdict.problem}" if verdict.problem else ""
    result = "fails" if verdict.status is AuthResult.FAIL else f"is {verdict.status}"
    return f"DMARC {result} for {verdict.author}{why}"


def _submitter(outcome: AuthenticationOutcome) -> Domain | str:
    """
    The signing domain of an acceptable DKIM signature, or the reason why there is none
    (RFC 8460 3).

    Reading of RFC 8460 3: "the domain of the From" may have a parent sign for it, as in
    DMARC, but not one beyond its organizational domain.
    """
    author = outcome.verdict.author
    if author is None:
        return f"there is no submitter: {_noAuthor(outcome)}"
    signers = frozenset(_signers(outcome, author))
    results = [each for each in outcome.authentication.dkim if each.domain in signers]
    for result in results:
        if not _problem(result):
            return result.domain
    if _isUncertain(outcome, results):
        raise AuthenticationUnavailable(f"the signer of {author} can't be checked")
    if not results:
        others = [str(each.domain) for each in outcome.authentication.dkim]
        named = f": it is signed by {', '.join(others[:MAX_NAMED])}" if others else ""
        return f"there is no DKIM signature of {author}{named}"
    problems = "; ".join(
        f"{each.selector}: {_problem(each)}" for each in results[:MAX_NAMED]
    )
    return f"no DKIM signature of {author} is acceptable: {problems}"


def _noAuthor(outcome: AuthenticationOutcome) -> str:
    """
    The reason why the verdict is about no author domain.
    """
    state = outcome.authors.state
    return outcome.verdict.problem if state is FromField.READ else str(state)


def _isUncertain(outcome: AuthenticationOutcome, results: Sequence[DKIMResult]) -> bool:
    """
    True if a failed lookup may hide an acceptable signature.

    @param results: Of the signatures by domains that are known to be acceptable.
    """
    discovery = outcome.verdict.discovery
    isUnknown = discovery is not None and discovery.temporary
    return any(each.status is AuthResult.TEMPERROR for each in results) or (
        isUnknown and len(results) < len(outcome.authentication.dkim)
    )


def _problem(result: DKIMResult) -> str:
    """
    The reason why a signature isn't acceptable; empty if it is.
    """
    if result.hasLength and (
        result.passesForTLSRPT or result.status is AuthResult.PASS
    ):
        return "it has l="
    if result.passesForTLSRPT or result.status is AuthResult.PASS:
        return ""
    return result.problem or str(result.status)


def _signers(outcome: AuthenticationOutcome, author: Domain) -> Iterator[Domain]:
    """
    The author domain, and its parents up to its organizational domain.
    """
    yield author
    discovery = outcome.verdict.discovery
    if discovery is None or discovery.organizational == author:
        return
    for parent in _parents(author.ascii):
        yield Domain(parent)
        if parent == discovery.organizational.ascii:
            return


def _parents(domain: str) -> Iterator[str]:
    """
    The domains above C{domain}, without the top-level domain.
    """
    labels = domain.split(".")
    for start in range(1, len(labels) - 1):
        yield ".".join(labels[start:])
