# -*- test-case-name: tests.dmarc.test_eligibility -*-
"""
Selects the domains and the destinations that may receive aggregate reports (abuse
prevention, RFC 9990 8, 4; RFC 7489 7.1).  No I/O.

An attacker can send mail in the name of a domain of his own that requests reports, and
so make every receiving host send mail to addresses of his choice, or learn which
addresses exist.  Therefore mail that was rejected or put into Junk because of DMARC
causes a report only to domains with which a local account has corresponded;
L{moxtls.dmarc.evaluation} marks other evaluations as optional.  Accepted mail always
causes a report: a domain that introduces authentication publishes C{p=none} in order
to get reports.  Operators may demand previous correspondence for all domains.

A destination in another organization has to confirm that it wants the reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moxtls.dmarc.aggregate import ReportFormat
from moxtls.dmarc.discovery import PublicSuffixes, organizationalDomain, printable
from moxtls.dmarc.record import parseTags, parseURIs
from moxtls.dmarc.types import PeriodSummary, ReportURI
from moxtls.dns.types import Answer, LookupGenerator, LookupQuestion, RRType, parallel
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain
from moxtls.reporting.destinations import (
    MAX_DESTINATIONS,
    MAX_REASONS,
    InvalidDestination,
    parseDestination,
)


@dataclass(frozen=True, slots=True)
class DMARCReporting:
    """
    The operator's settings for aggregate reports.

    @ivar submitter: The reporting domain; C{None} if no domain can sign reports.
    @ivar formats: Formats by the domain of the destination; others get C{format}.
    @ivar minimum: The minimum number of messages in a report.
    @ivar onlyTo: Policy domains that get reports; empty for all.
    @ivar notTo: Policy domains that get none.
    @ivar strangers: True to report on accepted mail even if none of it passed and no
        local account has corresponded with the domain.
    @ivar suffixes: If given, discovery as in RFC 7489.
    """

    submitter: Domain | None
    format: ReportFormat = ReportFormat.RFC9990
    formats: Mapping[Domain, ReportFormat] = field(default_factory=dict)
    minimum: int = 1
    onlyTo: frozenset[Domain] = frozenset()
    notTo: frozenset[Domain] = frozenset()
    strangers: bool = True
    suffixes: PublicSuffixes | None = None


def exclusionReason(
    domain: Domain, summary: PeriodSummary, settings: DMARCReporting
) -> str | None:
    """
    The reason why the settings exclude a report to C{domain}; C{None} if they don't.
    """
    if domain in settings.notTo:
        return "switched off for this domain"
    if settings.onlyTo and domain not in settings.onlyTo:
        return "not one of the domains that get reports"
    if summary.messages < settings.minimum:
        return f"fewer than {settings.minimum} messages"
    return None


def refusalReason(
    summary: PeriodSummary, hasHistory: bool, settings: DMARCReporting
) -> str | None:
    """
    The reason why there is no report; C{None} if there may be one.

    @param hasHistory: True if a local account has ever corresponded with the
        organizational domain.
    """
    refusal = exclusionReason(summary.published.domain, summary, settings)
    if refusal is not None:
        return refusal
    if settings.strangers or hasHistory or summary.wanted:
        return None
    return (
        "an unknown domain, all of whose mail was refused, junk or not authenticated "
        "(Strangers of DMARC is false)"
    )


def unreachableReason(domain: Domain) -> LookupGenerator[str]:
    """
    Look up whether C{domain} can receive mail, since many hosts refuse mail to which
    no reply is possible (RFC 5321 5.1, RFC 7505).

    @return: The reason why it can't; empty if it can.
    """
    (mx,) = yield (LookupQuestion(domain.ascii, RRType.MX),)
    if mx.failed:
        return f"the MX records of {domain} can't be looked up: {mx.reason}"
    if mx.mx:
        hosts = any(each.exchange for each in mx.mx)
        return "" if hosts else f"{domain} says that it takes no mail (RFC 7505)"
    kinds = (RRType.A, RRType.AAAA)
    addresses = yield tuple(LookupQuestion(domain.ascii, kind) for kind in kinds)
    if any(answer.addresses for answer in addresses):
        return ""
    failed = next((answer.reason for answer in addresses if answer.failed), None)
    if failed is not None:
        return f"the addresses of {domain} can't be looked up: {failed}"
    return f"{domain} can't receive mail: it has no MX and no address records"


# --- verification of external destinations ---

#: Characters of a text about one URI; all share one C{error} element.
MAX_REASON_LENGTH = 200


@dataclass(frozen=True, slots=True)
class VerifiedDestinations:
    """
    The result of verifying the destinations of a record.

    @ivar accepted: URIs in canonical form, each with its maximum number of octets (0
        for no limit).
    @ivar errors: The reasons why others aren't accepted, for the C{error} element of
        a report: printable ASCII.
    @ivar temporary: True if a lookup failed for some.
    """

    accepted: tuple[tuple[str, int], ...] = ()
    errors: tuple[str, ...] = ()
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class _Target:
    """
    A C{mailto:} URI in canonical form.
    """

    uri: str
    host: Domain
    limit: int


@dataclass(frozen=True, slots=True)
class _Relation:
    """
    The relation of a destination host to the policy domain.

    @ivar organizations: The organizational domains of the policy domain and of the
        host; C{None} if the lookup failed.
    @ivar confirmation: The answer for the confirmation record; C{None} if its name
        would be too long.
    """

    organizations: tuple[Domain | None, Domain | None]
    confirmation: Answer | None

    @property
    def isInternal(self) -> bool:
        ours, theirs = self.organizations
        return ours is not None and ours == theirs

    @property
    def isUnknown(self) -> bool:
        """
        True if a lookup failed, so that another attempt may succeed.
        """
        failed = self.confirmation is not None and self.confirmation.failed
        return failed or None in self.organizations


def verifyDestinations(
    policyDomain: Domain,
    uris: Sequence[ReportURI],
    suffixes: PublicSuffixes | None = None,
    tag: str = "rua",
) -> LookupGenerator[VerifiedDestinations]:
    """
    Verify the destinations of a record.

    All lookups are made in parallel, also those that may turn out to be unnecessary:
    organizational domains and confirmation records take equally long.

    @param policyDomain: The domain of the record, not its organizational domain,
        which isn't part of the confirmation (RFC 9990 4 step 3).
    @param tag: C{ruf} for failure reports (RFC 9991).
    """
    targets, errors = _targets(uris)
    hosts = tuple(dict.fromkeys(target.host for target in targets))
    relations = yield from parallel(
        [_lookUpRelation(policyDomain, host, suffixes) for host in hosts]
    )
    byHost = dict(zip(hosts, relations, strict=True))
    accepted: dict[str, int] = {}
    temporary = False
    for target in targets:
        found = _checked(target, policyDomain, byHost[target.host], tag)
        for uri, limit in found.accepted:
            accepted.setdefault(uri, limit)
        errors.extend(found.errors)
        temporary = temporary or found.temporary
    chosen = tuple(accepted.items())[:MAX_DESTINATIONS]
    return VerifiedDestinations(chosen, tuple(errors[:MAX_REASONS]), temporary)


def confirmationName(policyDomain: Domain, host: Domain) -> str:
    """
    The name of the record by which C{host} accepts reports about C{policyDomain}.
    """
    return f"{policyDomain}._report._dmarc.{host}"


def _targets(uris: Sequence[ReportURI]) -> tuple[list[_Target], list[str]]:
    """
    The valid C{mailto:} URIs, and errors in others.  Other schemes are ignored (RFC
    9989 4.7).
    """
    targets: dict[str, _Target] = {}
    errors = []
    for each in uris:
        if not each.isMail:
            continue
        target = _target(each)
        if isinstance(target, str):
            errors.append(target)
        elif len(targets) < MAX_DESTINATIONS:
            targets.setdefault(target.uri, target)
        elif target.uri not in targets:
            errors.append(f"more than {MAX_DESTINATIONS} destinations")
            break
    return list(targets.values()), errors


def _target(each: ReportURI) -> _Target | str:
    """
    Parse a URI; returns the reason if it is invalid.
    """
    try:
        destination = parseDestination(each.uri)
    except InvalidDestination as error:
        return _reason(str(error))
    address = destination.address
    if address is None or not isinstance(address.domain, Domain):
        return _reason(f"{each.uri}: not an address")
    return _Target(destination.uri, address.domain, each.limit)


def _lookUpRelation(
    policyDomain: Domain, host: Domain, suffixes: PublicSuffixes | None
) -> LookupGenerator[_Relation]:
    if host == policyDomain:
        return _Relation((host, host), None)
    asking: list[LookupGenerator[Domain | Answer | None]] = [
        organizationalDomain(policyDomain, suffixes),
        organizationalDomain(host, suffixes),
    ]
    name = confirmationName(policyDomain, host)
    # RFC 9990 4 step 4.
    if len(name) <= MAX_DOMAIN_LENGTH:
        asking.append(_confirmation(name))
    found = yield from parallel(asking)
    ours, theirs = (each if isinstance(each, Domain) else None for each in found[:2])
    answer = next((each for each in found if isinstance(each, Answer)), None)
    return _Relation((ours, theirs), answer)


def _confirmation(name: str) -> LookupGenerator[Answer]:
    (answer,) = yield (LookupQuestion(name, RRType.TXT),)
    return answer


def _checked(
    target: _Target, policyDomain: Domain, relation: _Relation, tag: str
) -> VerifiedDestinations:
    if relation.isInternal:
        return VerifiedDestinations(((target.uri, target.limit),))
    answer = relation.confirmation
    texts = () if answer is None else answer.texts
    records = [tags for text in texts if (tags := parseTags(text)) is not None]
    if records:
        wanted = [uri for tags in records for uri in parseURIs(tags.get(tag, ""))]
        return _replaced(target, wanted)
    if relation.isUnknown:
        error = f"{target.uri}: whether it wants reports could not be looked up"
        return VerifiedDestinations((), (_reason(error),), True)
    name = confirmationName(policyDomain, target.host)
    return VerifiedDestinations((), (_reason(f"{target.uri}: no v=DMARC1 at {name}"),))


def _replaced(target: _Target, wanted: Sequence[ReportURI]) -> VerifiedDestinations:
    """
    The confirmed destination, or its replacements in the confirmation record: at the
    same host only, without further confirmation.

    Reading of RFC 9990 4: a host that only names other hosts gets no reports; if it
    names an address of its own as well, that one is used.
    """
    own: list[tuple[str, int]] = []
    errors: list[str] = []
    for each in wanted:
        other = _target(each)
        if isinstance(other, str):
            # Invalid URIs are ignored (RFC 9989 4.8).
            continue
        if other.host == target.host:
            own.append((other.uri, other.limit))
        else:
            error = f"{target.uri}: replaced by {other.uri}, which is elsewhere"
            errors.append(_reason(error))
    if not own and not errors:
        own.append((target.uri, target.limit))
    return VerifiedDestinations(tuple(own), tuple(errors[:MAX_REASONS]))


def _reason(text: str) -> str:
    return printable(text)[:MAX_REASON_LENGTH]
