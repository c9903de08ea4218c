# -*- test-case-name: tests.dmarc -*-
"""
The DMARC verdict on a message and its disposition (RFC 9989 5.3, 5.4, 7.4, 11.5), from
the alignment of its authenticated domains (RFC 9989 4.4, 4.10.2).  No I/O.

Reading of RFC 9989 7.4: C{p=reject} alone isn't enough to reject a message, and
without other knowledge it is quarantined.  The other knowledge is in the message.
Indirect mail, through a mailing list or a forwarder, has two signs: the header fields
of a list, or a broken signature of the author whose key exists (one without a key
proves nothing: anyone can write it); and a domain other than the author's that passes
SPF or DKIM.  A message with both signs may have been sent by its author, and is
quarantined; a message without them is rejected.  The operator's policy for an author
domain takes precedence.

Reading of RFC 9989 11.5: a message with author domains in several organizations gets
no verdict, since no single policy applies, and nothing is looked up for it.  As it
could otherwise be used to evade any policy, it is quarantined, with or without
policies: hardly any such message is legitimate, but it isn't malformed, so it isn't
rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from moxtls.authentication.results import Authentication, AuthResult, DKIMResult
from moxtls.dmarc.discovery import PublicSuffixes, organizationalDomain, requestedPolicy
from moxtls.dmarc.types import (
    Alignment,
    Discovery,
    DiscoveryMethod,
    DMARCPolicy,
    Override,
    OverrideKind,
    Verdict,
)
from moxtls.dns.types import LookupGenerator, parallel
from moxtls.domain import Domain, InvalidDomain
from moxtls.ipaddresses import IPNetwork, parseIP

_LEVELS = (DMARCPolicy.NONE, DMARCPolicy.QUARANTINE, DMARCPolicy.REJECT)


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """
    The operator's DMARC settings.

    @ivar suffixes: C{None} for RFC 9989; to be passed to L{moxtls.dmarc.discovery}
        and L{moxtls.dmarc.verdict}.
    @ivar enforcement: The strictest disposition that is applied.
    @ivar mailingLists: Domains of accepted mailing lists, including subdomains.
    @ivar forwarderNetworks: Networks of trusted forwarders.
    @ivar forwarderDomains: Domains of trusted forwarders, including subdomains.
    @ivar localPolicies: Policies that replace the published ones, by author domain
        or its organizational domain.
    """

    suffixes: PublicSuffixes | None = None
    enforcement: DMARCPolicy = DMARCPolicy.REJECT
    mailingLists: frozenset[Domain] = frozenset()
    forwarderNetworks: tuple[IPNetwork, ...] = ()
    forwarderDomains: frozenset[Domain] = frozenset()
    localPolicies: Mapping[Domain, DMARCPolicy] = field(
        default_factory=lambda: MappingProxyType({})
    )


@dataclass(frozen=True, slots=True)
class MessageContext:
    """
    Other properties of a message that affect its disposition.

    @ivar isFromList: True if it has header fields of a mailing list (RFC 2369,
        RFC 2919).
    @ivar chance: A random number, at least 0 and less than 1, for C{pct} (RFC 7489
        6.6.4).
    """

    isFromList: bool = False
    chance: float = 0.0


def evaluate(
    froms: Sequence[Domain],
    discovery: Discovery | None,
    aligned: Aligned | None,
    authentication: Authentication,
    context: MessageContext,
    localPolicy: LocalPolicy,
) -> Verdict:
    """
    Evaluate a message.

    @param froms: The domains of all addresses in From.
    @param discovery: For the only one of them; C{None} if nothing was looked up.
    @param aligned: C{None} if nothing was looked up.
    """
    authors = tuple(dict.fromkeys(froms))
    if len(authors) > 1:
        return _severalAuthors(authentication, localPolicy)
    if not authors:
        return Verdict(AuthResult.NONE, problem="no author domain")
    if discovery is None:
        return Verdict(AuthResult.NONE, authors[0], problem="not looked up")
    if discovery.record is None:
        return _withoutRecord(discovery)
    verdict = _fromRecord(discovery, aligned, authentication)
    if verdict.status is not AuthResult.FAIL:
        return verdict
    builder = _requestedDisposition(verdict, discovery, context, localPolicy)
    builder = _trusted(builder, authentication, localPolicy)
    if not builder.isOurs and builder.disposition is DMARCPolicy.REJECT:
        builder = _indirect(builder, discovery, aligned, authentication, context)
    builder = _limited(builder, localPolicy)
    return replace(verdict, disposition=builder.disposition, reasons=builder.reasons)


# --- pass, fail, or neither -------------------------------------------------------


def _severalAuthors(
    authentication: Authentication, localPolicy: LocalPolicy
) -> Verdict:
    builder = DispositionBuilder(DMARCPolicy.QUARANTINE)
    if _trustOverride(authentication, localPolicy) is not None:
        builder = DispositionBuilder(DMARCPolicy.NONE)
    return Verdict(
        AuthResult.NONE,
        disposition=_limited(builder, localPolicy).disposition,
        problem="authors of several domains",
    )


def _withoutRecord(discovery: Discovery) -> Verdict:
    if discovery.temporary:
        status = AuthResult.TEMPERROR
    elif discovery.unusable:
        # RFC 7489 11.2: "a syntactically incorrect DMARC record"
        status = AuthResult.PERMERROR
    else:
        status = AuthResult.NONE
    return Verdict(status, discovery.author, discovery, problem=discovery.problem)


def _fromRecord(
    discovery: Discovery, aligned: Aligned | None, authentication: Authentication
) -> Verdict:
    policy = requestedPolicy(discovery)
    known = Aligned(temporary=True) if aligned is None else aligned
    dkim = tuple(
        place
        for place, (result, isAligned) in enumerate(
            zip(authentication.dkim, known.dkim, strict=False)
        )
        if isAligned and result.status is AuthResult.PASS
    )
    spf = known.spf and authentication.spf.status is AuthResult.PASS
    verdict = Verdict(
        AuthResult.PASS if dkim or spf else AuthResult.FAIL,
        discovery.author,
        discovery,
        policy,
        alignedDKIM=dkim,
        spfAligned=spf,
        problem=discovery.problem,
    )
    if verdict.status is AuthResult.PASS:
        return verdict
    missing = _undecided(discovery, known, authentication)
    if not missing:
        return verdict
    # RFC 9989 5.3.6: neither pass nor fail, and no policy is applied.
    builder = DispositionBuilder(policy).limitTo(
        DMARCPolicy.NONE, OverrideKind.OTHER, missing
    )
    problem = discovery.problem or missing
    return replace(
        verdict,
        status=AuthResult.TEMPERROR,
        reasons=builder.reasons,
        problem=problem,
    )


def _undecided(
    discovery: Discovery, aligned: Aligned, authentication: Authentication
) -> str:
    """
    The missing result that would decide the verdict; empty if none is missing.
    """
    if discovery.temporary and discovery.policyDomain != discovery.author:
        return "the policy could not be looked up"
    if aligned.temporary:
        return "alignment could not be looked up"
    if aligned.spf and authentication.spf.status is AuthResult.TEMPERROR:
        return "SPF could not be checked"
    for result, isAligned in zip(authentication.dkim, aligned.dkim, strict=False):
        if isAligned and result.status is AuthResult.TEMPERROR:
            return "DKIM could not be checked"
    return ""


# --- disposition after a fail ------------------------------------------------------


def _requestedDisposition(
    verdict: Verdict,
    discovery: Discovery,
    context: MessageContext,
    localPolicy: LocalPolicy,
) -> DispositionBuilder:
    """
    The disposition requested by a local policy or by the domain; C{t} and C{pct}
    don't apply to local policies.
    """
    builder = DispositionBuilder(verdict.policy)
    for domain in (discovery.author, discovery.organizational):
        local = localPolicy.localPolicies.get(domain)
        if local is not None:
            ours = replace(builder, isOurs=True)
            if local is builder.disposition:
                return ours
            return ours.replaceWith(
                local, OverrideKind.LOCAL_POLICY, "a policy of ours for this domain"
            )
    record = discovery.record
    # RFC 7489 6.3 has no C{t}, and ignores unknown tags.
    isTested = discovery.method is not DiscoveryMethod.PSL
    if record is not None and record.testing and isTested:
        builder = builder.lower(OverrideKind.POLICY_TEST_MODE, "")
    percent = 100 if record is None else record.percent
    if discovery.method is DiscoveryMethod.PSL and context.chance * 100 >= percent:
        # RFC 7489 6.6.4: mail that is not rejected is quarantined.
        builder = builder.lower(OverrideKind.SAMPLED_OUT, "")
    return builder


def _trusted(
    builder: DispositionBuilder,
    authentication: Authentication,
    localPolicy: LocalPolicy,
) -> DispositionBuilder:
    """
    Accept mail from trusted mailing lists and forwarders.
    """
    override = _trustOverride(authentication, localPolicy)
    if override is None:
        return builder
    return builder.limitTo(DMARCPolicy.NONE, override.kind, override.comment)


def _trustOverride(
    authentication: Authentication, localPolicy: LocalPolicy
) -> Override | None:
    """
    The override for a trusted mailing list or forwarder that sent the message;
    C{None} if there is none.
    """
    lists = firstUnder(verifiedDomains(authentication), localPolicy.mailingLists)
    if lists is not None:
        return Override(OverrideKind.MAILING_LIST, f"verified as from {lists}")
    if isWithin(authentication.address, localPolicy.forwarderNetworks):
        return Override(OverrideKind.TRUSTED_FORWARDER, "from a network of a forwarder")
    names = (*verifiedDomains(authentication), *clientNames(authentication))
    forwarder = firstUnder(names, localPolicy.forwarderDomains)
    if forwarder is not None:
        comment = f"verified as from {forwarder}"
        return Override(OverrideKind.TRUSTED_FORWARDER, comment)
    return None


def _indirect(
    builder: DispositionBuilder,
    discovery: Discovery,
    aligned: Aligned | None,
    authentication: Authentication,
    context: MessageContext,
) -> DispositionBuilder:
    """
    Quarantine instead of rejecting if the message has the signs of indirect mail
    (RFC 9989 7.4, see the module's docstring).
    """
    authenticated = verifiedDomains(authentication)
    if all(domain.isUnder(discovery.organizational) for domain in authenticated):
        return builder
    # No domains in the comments: mail forged in the name of many domains must not
    # make as many rows in a report.
    if context.isFromList:
        comment = "looks like mail through a list"
        return builder.replaceWith(
            DMARCPolicy.QUARANTINE, OverrideKind.MAILING_LIST, comment
        )
    pairs = zip(authentication.dkim, aligned.dkim if aligned else (), strict=False)
    if any(isAligned and _wasOnceValid(signature) for signature, isAligned in pairs):
        comment = "the author's signature is broken, and another domain passes"
        return builder.replaceWith(
            DMARCPolicy.QUARANTINE, OverrideKind.LOCAL_POLICY, comment
        )
    return builder


def _wasOnceValid(signature: DKIMResult) -> bool:
    """
    True if a signature that doesn't pass was probably made with a key of its domain.
    Anyone can write one without a key, or one that can't be verified.
    """
    isChecked = signature.status is AuthResult.POLICY and signature.keySize > 0
    return signature.status is AuthResult.FAIL or isChecked


def _limited(
    builder: DispositionBuilder, localPolicy: LocalPolicy
) -> DispositionBuilder:
    comment = "no more is done about any domain"
    return builder.limitTo(localPolicy.enforcement, OverrideKind.LOCAL_POLICY, comment)


@dataclass(frozen=True, slots=True)
class DispositionBuilder:
    """
    A disposition under construction, with the reasons why it differs from the
    requested policy.

    @ivar isOurs: True if it comes from a local policy.
    """

    disposition: DMARCPolicy
    reasons: tuple[Override, ...] = ()
    isOurs: bool = False

    def replaceWith(
        self, disposition: DMARCPolicy, kind: OverrideKind, comment: str
    ) -> DispositionBuilder:
        """
        Replace the disposition, with a reason.
        """
        reasons = (*self.reasons, Override(kind, comment))
        return replace(self, disposition=disposition, reasons=reasons)

    def limitTo(
        self, most: DMARCPolicy, kind: OverrideKind, comment: str
    ) -> DispositionBuilder:
        """
        Limit the disposition to C{most}, with a reason if that changes it.
        """
        if _LEVELS.index(self.disposition) <= _LEVELS.index(most):
            return self
        return self.replaceWith(most, kind, comment)

    def lower(self, kind: OverrideKind, comment: str) -> DispositionBuilder:
        """
        Lower the disposition by one level, with a reason if that changes it.
        """
        lower = max(_LEVELS.index(self.disposition) - 1, 0)
        return self.limitTo(_LEVELS[lower], kind, comment)


# --- alignment ---

#: Distinct domains that are looked up, those that pass first: more than sign any
#: legitimate message, and few enough to bound the lookups.
MAX_WALKS = 20

#: Organizational domains by domain; C{None} if the lookup failed.
Organizations = dict[Domain, Domain | None]


@dataclass(frozen=True, slots=True)
class Aligned:
    """
    The alignment of identifiers, whether or not they pass.

    @ivar dkim: For each of C{Authentication.dkim}, true if it is aligned.
    @ivar spf: True if the domain of C{Authentication.spf} is aligned.
    @ivar temporary: True if a lookup failed on which the alignment of an identifier
        depends that passes, or may have passed.
    """

    dkim: tuple[bool, ...] = ()
    spf: bool = False
    temporary: bool = False


def align(
    discovery: Discovery,
    authentication: Authentication,
    suffixes: PublicSuffixes | None = None,
) -> LookupGenerator[Aligned]:
    """
    Determine the alignment of all identifiers.

    The tree walks of all domains are made in parallel.  None is made if its result
    can't matter: the organizational domain of a name is the name itself or above it, so
    domains that aren't under the author's organizational domain aren't aligned.  Ten
    signatures of unrelated domains cost no lookup.

    @param suffixes: The same as for C{discovery}.
    """
    sender = spfDomain(authentication)
    domains = _domainsToLookUp(discovery, authentication, sender)
    known: Organizations = {}
    if domains:
        found = yield from parallel(
            [organizationalDomain(d, suffixes) for d in domains]
        )
        known = dict(zip(domains, found, strict=True))
    return _alignedFrom(discovery, authentication, sender, known)


def alignWithoutLookups(
    discovery: Discovery, authentication: Authentication
) -> Aligned | None:
    """
    The result of L{align} if it needs no lookups, which is the common case; C{None}
    if it needs some.
    """
    sender = spfDomain(authentication)
    if _domainsToLookUp(discovery, authentication, sender):
        return None
    return _alignedFrom(discovery, authentication, sender, {})


def _domainsToLookUp(
    discovery: Discovery, authentication: Authentication, sender: Domain | None
) -> Sequence[Domain]:
    record = discovery.record
    if record is None or discovery.temporary:
        return ()
    signed = [
        each for each in authentication.dkim if _needsLookup(each.domain, discovery)
    ]
    signed.sort(key=lambda each: not _mayPass(each.status))
    domains = [each.domain for each in signed]
    mayHelp = record.aspf is not Alignment.STRICT and _mayPass(
        authentication.spf.status
    )
    if mayHelp and sender is not None and _needsLookup(sender, discovery):
        domains.insert(0, sender)
    return tuple(dict.fromkeys(domains))[:MAX_WALKS]


def _needsLookup(domain: Domain, discovery: Discovery) -> bool:
    isBelow = domain.isUnder(discovery.organizational)
    return isBelow and domain != discovery.author


def _alignedFrom(
    discovery: Discovery,
    authentication: Authentication,
    sender: Domain | None,
    known: Organizations,
) -> Aligned:
    record = discovery.record
    if record is None:
        return Aligned((False,) * len(authentication.dkim))
    dkim = [
        _isAligned(each.domain, record.adkim, discovery, known)
        for each in authentication.dkim
    ]
    spf = sender is not None and _isAligned(sender, record.aspf, discovery, known)
    undecided = [
        each.status
        for each, aligned in zip(authentication.dkim, dkim, strict=True)
        if aligned is None
    ]
    if spf is None:
        undecided.append(authentication.spf.status)
    temporary = any(map(_mayPass, undecided))
    return Aligned(tuple(map(bool, dkim)), bool(spf), temporary)


def _isAligned(
    domain: Domain, mode: Alignment, discovery: Discovery, known: Organizations
) -> bool | None:
    """
    C{None} if it depends on a lookup that failed.
    """
    # RFC 9989 4.10.2: the same domain is aligned, whatever its organization.
    if domain == discovery.author:
        return True
    if mode is Alignment.STRICT:
        return False
    if discovery.temporary:
        # The organizational domain may be any domain above the author domain, so
        # only a different top-level domain is certain not to be aligned.
        return None if _top(domain) == _top(discovery.author) else False
    if not domain.isUnder(discovery.organizational) or domain not in known:
        return False
    organizational = known[domain]
    if organizational is None:
        return None
    return organizational == discovery.organizational


def _top(domain: Domain) -> str:
    return domain.ascii.rpartition(".")[2]


def _mayPass(status: AuthResult) -> bool:
    return status in (AuthResult.PASS, AuthResult.TEMPERROR)


def spfDomain(authentication: Authentication) -> Domain | None:
    """
    The identifier that SPF authenticates: the domain of MAIL FROM, or of HELO if
    that is empty (RFC 9989 3.2.4, 4.4.2); C{None} if it isn't a valid domain.
    """
    try:
        return Domain.parse(authentication.spf.domain)
    except InvalidDomain:
        return None


def verifiedDomains(authentication: Authentication) -> tuple[Domain, ...]:
    """
    The domains that SPF or DKIM has authenticated.
    """
    domains = [d.domain for d in authentication.dkim if d.status is AuthResult.PASS]
    sender = spfDomain(authentication)
    if sender is not None and authentication.spf.status is AuthResult.PASS:
        domains.append(sender)
    return tuple(domains)


def clientNames(authentication: Authentication) -> tuple[Domain, ...]:
    """
    The verified names of the SMTP client.  They identify forwarders, most of which
    leave MAIL FROM unchanged.
    """
    names = []
    if authentication.helo.status is AuthResult.PASS:
        names.append(authentication.helo.domain)
    if authentication.iprev.status is AuthResult.PASS:
        names.append(authentication.iprev.name)
    return tuple(domain for name in names for domain in _parsed(name))


def _parsed(name: str) -> tuple[Domain, ...]:
    try:
        return (Domain.parse(name),)
    except InvalidDomain:
        return ()


def firstUnder(domains: Sequence[Domain], trusted: frozenset[Domain]) -> Domain | None:
    """
    The first domain of C{trusted}, in order, that one of C{domains} is equal to or
    under; C{None} if there is none.
    """
    return next(
        (each for each in sorted(trusted) if any(d.isUnder(each) for d in domains)),
        None,
    )


def isWithin(address: str, networks: Sequence[IPNetwork]) -> bool:
    """
    True if C{address} is an IP address in one of C{networks}.
    """
    ip = parseIP(address)
    return ip is not None and any(ip in network for network in networks)
