# -*- test-case-name: tests.dmarc.test_externaldestinations -*-
"""
Verification of external report destinations (RFC 9990 4; RFC 7489 7.1): a destination
in another organization has to confirm that it wants the reports.  No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moxtls.dmarc.discovery import PublicSuffixes, organizationalDomain, printable
from moxtls.dmarc.record import parseTags, parseURIs
from moxtls.dmarc.types import ReportURI
from moxtls.dns.query import LookupGenerator, LookupQuestion, parallel
from moxtls.dns.types import Answer, RRType
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain
from moxtls.reporting.rua import (
    MAX_DESTINATIONS,
    MAX_REASONS,
    InvalidDestination,
    parseDestination,
)

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
