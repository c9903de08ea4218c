# -*- test-case-name: tests.dmarc.test_verdict -*-
"""
What DMARC makes of a message (RFC 9989 5.3, 5.4, 7.4, 11.5).  No I/O.

Reading of RFC 9989 7.4: a message isn't refused for C{p=reject} alone, and
without other knowledge it is quarantined.  The knowledge we have is what else
came with it.  Mail that went through a list or a forwarder has traces of it:
the fields of a list, or the author's signature, now broken, with a key that is there
(one without a key is no trace of the author: anybody can write it); and somebody who
answers for the message by SPF or DKIM, and isn't the author.  Where both are
there, the message may have been sent by its author, and is quarantined; where
one is missing, nothing says that anybody but the client is behind it, and it is
refused.  What a host's operator says of an author domain goes before that.

Reading of RFC 9989 11.5: mail by authors of several domains gets no verdict, as
no one policy applies, and nothing is looked up for it.  It would otherwise be the
way around any policy, so it is quarantined, be there policies or not: hardly any
is wanted, but it isn't malformed, so it isn't refused.

What is done about a message, on the way from what was asked for.  No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from moxtls.authentication.results import Authentication, AuthResult, DKIMResult
from moxtls.dmarc.alignment import (
    Aligned,
    clientNames,
    firstUnder,
    isWithin,
    verifiedDomains,
)
from moxtls.dmarc.discovery import PublicSuffixes, requestedPolicy
from moxtls.dmarc.types import (
    Discovery,
    DiscoveryMethod,
    DMARCPolicy,
    Override,
    OverrideKind,
    Verdict,
)
from moxtls.domain import Domain
from moxtls.ipaddresses import IPNetwork


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """
    How this host goes about DMARC.

    @ivar suffixes: C{None} for RFC 9989; who asks L{moxtls.dmarc.discovery}
        and L{moxtls.dmarc.alignment} hands it on to them.
    @ivar enforcement: The most that is done.
    @ivar mailingLists: Domains whose lists are accepted; their subdomains too.
    @ivar forwarderNetworks: Clients that forward mail.
    @ivar forwarderDomains: The same by name; their subdomains too.
    @ivar localPolicies: In place of what is published, by author domain or
        its organizational domain.
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
    What else is known of a message.

    @ivar isFromList: It has fields of a mailing list (RFC 2369, RFC 2919).
    @ivar chance: From 0 to less than 1, for C{pct} (RFC 7489 6.6.4).
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
    @param froms: The domains of all addresses in From.
    @param discovery: About the one of them; C{None} if nothing was looked up.
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
    builder = DispositionBuilder(policy).atMost(
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
    What couldn't be found out, of what would decide; empty if it is all there.
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


# --- what is done about a fail ------------------------------------------------------


def _requestedDisposition(
    verdict: Verdict,
    discovery: Discovery,
    context: MessageContext,
    localPolicy: LocalPolicy,
) -> DispositionBuilder:
    """
    What is asked for, by us or by the domain: a policy of ours isn't tested or
    sampled.
    """
    builder = DispositionBuilder(verdict.policy)
    for domain in (discovery.author, discovery.organizational):
        local = localPolicy.localPolicies.get(domain)
        if local is not None:
            ours = replace(builder, isOurs=True)
            if local is builder.disposition:
                return ours
            return ours.instead(
                local, OverrideKind.LOCAL_POLICY, "a policy of ours for this domain"
            )
    record = discovery.record
    # RFC 7489 6.3 has no C{t}, and ignores what it doesn't know.
    isTested = discovery.method is not DiscoveryMethod.PSL
    if record is not None and record.testing and isTested:
        builder = builder.lowered(OverrideKind.POLICY_TEST_MODE, "")
    percent = 100 if record is None else record.percent
    if discovery.method is DiscoveryMethod.PSL and context.chance * 100 >= percent:
        # RFC 7489 6.6.4: what is not rejected is quarantined.
        builder = builder.lowered(OverrideKind.SAMPLED_OUT, "")
    return builder


def _trusted(
    builder: DispositionBuilder,
    authentication: Authentication,
    localPolicy: LocalPolicy,
) -> DispositionBuilder:
    """
    Accepted because of somebody we know.
    """
    override = _trustOverride(authentication, localPolicy)
    if override is None:
        return builder
    return builder.atMost(DMARCPolicy.NONE, override.kind, override.comment)


def _trustOverride(
    authentication: Authentication, localPolicy: LocalPolicy
) -> Override | None:
    """
    Who accounts for the message, if it is somebody that the operator trusts.
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
    RFC 9989 7.4, as above.
    """
    speaking = verifiedDomains(authentication)
    if all(domain.isUnder(discovery.organizational) for domain in speaking):
        return builder
    # The comments name nobody: whoever forges mail in many names shall not make
    # as many rows of a report.
    if context.isFromList:
        comment = "looks like mail through a list"
        return builder.instead(
            DMARCPolicy.QUARANTINE, OverrideKind.MAILING_LIST, comment
        )
    pairs = zip(authentication.dkim, aligned.dkim if aligned else (), strict=False)
    if any(isAligned and _wasOnceValid(signature) for signature, isAligned in pairs):
        comment = "the author's signature is broken, and another domain passes"
        return builder.instead(
            DMARCPolicy.QUARANTINE, OverrideKind.LOCAL_POLICY, comment
        )
    return builder


def _wasOnceValid(signature: DKIMResult) -> bool:
    """
    Whether a signature that doesn't pass was once made with a key of its domain, as
    far as can be told.  Anybody can write one for which there is no key, or which
    nobody could verify.
    """
    isChecked = signature.status is AuthResult.POLICY and signature.keySize > 0
    return signature.status is AuthResult.FAIL or isChecked


def _limited(
    builder: DispositionBuilder, localPolicy: LocalPolicy
) -> DispositionBuilder:
    comment = "no more is done about any domain"
    return builder.atMost(localPolicy.enforcement, OverrideKind.LOCAL_POLICY, comment)


_LEVELS = (DMARCPolicy.NONE, DMARCPolicy.QUARANTINE, DMARCPolicy.REJECT)


@dataclass(frozen=True, slots=True)
class DispositionBuilder:
    """
    What is to be done so far, and why that isn't what was asked for.

    @ivar isOurs: It comes from a local policy.
    """

    disposition: DMARCPolicy
    reasons: tuple[Override, ...] = ()
    isOurs: bool = False

    def instead(
        self, disposition: DMARCPolicy, kind: OverrideKind, comment: str
    ) -> DispositionBuilder:
        reasons = (*self.reasons, Override(kind, comment))
        return replace(self, disposition=disposition, reasons=reasons)

    def atMost(
        self, most: DMARCPolicy, kind: OverrideKind, comment: str
    ) -> DispositionBuilder:
        """
        The same, if it isn't more than C{most}.
        """
        if _LEVELS.index(self.disposition) <= _LEVELS.index(most):
            return self
        return self.instead(most, kind, comment)

    def lowered(self, kind: OverrideKind, comment: str) -> DispositionBuilder:
        """
        One level less.
        """
        lower = max(_LEVELS.index(self.disposition) - 1, 0)
        return self.atMost(_LEVELS[lower], kind, comment)
