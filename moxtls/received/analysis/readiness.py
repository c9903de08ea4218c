# -*- test-case-name: tests.received.analysis.test_readiness -*-
"""
Decides from received reports whether a domain is ready for MTA-STS C{enforce}, for
C{p=quarantine} and for C{p=reject}, with the evidence.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moxtls.dmarc.types import DMARCPolicy, DMARCRecord
from moxtls.domain import Domain
from moxtls.mtasts.policy import Mode, STSPolicy, matchesPolicy
from moxtls.received.analysis.answers import (
    NORMAL_SHARE,
    DMARCAnswer,
    FailureReason,
    TLSAnswer,
    count,
    isOwn,
    percentage,
)
from moxtls.received.analysis.sources import SourceGroup, SourceKind, advice
from moxtls.tlsrpt.types import PolicyType, ResultType

#: Days that are looked at, and days with reports that are needed for MTA-STS: two weeks
#: have each weekday twice.
STS_SPAN = 14
MIN_STS_DAYS = 10
#: Sessions: with fewer, a failure of one in a hundred may not have been seen.
MIN_SESSIONS = 100
#: RFC 9989 7.4: C{p=none} for at least a month, then C{p=quarantine} for as long; mail
#: such as invoices is sent once a month.
DMARC_SPAN = 31
#: Not every domain sends mail, or gets reports, each day.
MIN_QUARANTINE_DAYS = 14
MIN_REJECT_DAYS = 25
#: Messages: as L{MIN_SESSIONS}.
MIN_MESSAGES = 100
#: A single reporter sees only its own customers, and only its own network path.
MIN_REPORTERS = 2
#: The share of own messages that may fail: some fail whatever is done, such as those
#: with a signature broken by a filter on the way.
MAX_OWN_FAILURES = 0.005
#: The same for C{p=reject}, where they don't even reach a junk folder.
MAX_OWN_REJECTED = 0.001
#: The share of messages that forwarders break; they would be refused.
MAX_FORWARDED = 0.01
#: The share of own messages without a valid DKIM signature.
MAX_UNSIGNED = 0.01
UNKNOWN = "what is published now could not be looked up"
#: Blockers that are listed.
MAX_BLOCKERS = 10

# What MTA-STS enforces.  A policy that can't be fetched stops no mail; but then senders
# don't enforce it, either (RFC 8461 5.1).
_DANE_TYPES = frozenset(
    {ResultType.TLSA_INVALID, ResultType.DNSSEC_INVALID, ResultType.DANE_REQUIRED}
)


class Ready(StrEnum):
    """
    The answer to whether a step can be taken.
    """

    DONE = "done"
    YES = "yes"
    NOT_YET = "not yet"
    NO_DATA = "no data"


@dataclass(frozen=True, slots=True)
class Blocker:
    """
    Something that has to be mended before, or that the step would break.

    @ivar perDay: Sessions or messages a day that would be lost; 0 if not countable.
    """

    name: str
    problem: str
    perDay: float = 0
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """
    A step, and whether it can be taken.

    @ivar name: Such as C{p=reject}.
    @ivar now: What is published now.
    @ivar sentence: The answer in a sentence, without a full stop.
    @ivar evidence: The numbers that it is based on.
    """

    name: str
    ready: Ready
    now: str
    sentence: str
    evidence: tuple[str, ...] = ()
    blockers: tuple[Blocker, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedRecords:
    """
    The records and the MTA-STS policy that a domain publishes now.

    @ivar isKnown: False if nothing could be looked up.
    @ivar sts: C{None} without a valid policy.
    @ivar stsProblem: Why there is none.
    @ivar mxHosts: The hosts in its MX records.
    @ivar dmarc: The record that applies; C{None} without a valid one.
    @ivar requested: The policy in it for this domain, which may be a subdomain.
    @ivar dmarcProblem: Why there is none.
    @ivar dmarcName: The name of the record that applies or that was looked for.
    @ivar tlsrpt: The URIs in its TLSRPT record.
    @ivar tlsrptProblem: Why there is none.
    """

    domain: Domain
    sts: STSPolicy | None = None
    stsProblem: str = ""
    mxHosts: tuple[Domain, ...] = ()
    dmarc: DMARCRecord | None = None
    requested: DMARCPolicy = DMARCPolicy.NONE
    dmarcProblem: str = ""
    dmarcName: str = ""
    tlsrpt: tuple[str, ...] = ()
    tlsrptProblem: str = ""
    isKnown: bool = True

    @property
    def policy(self) -> DMARCPolicy | None:
        """
        The policy that receivers apply to the domain's mail (RFC 9989 4.7: testing
        lowers it by one step).
        """
        if self.dmarc is None:
            return None
        if not self.dmarc.testing:
            return self.requested
        lowered = {DMARCPolicy.REJECT: DMARCPolicy.QUARANTINE}
        return lowered.get(self.requested, DMARCPolicy.NONE)

    @property
    def isEnforced(self) -> bool:
        """
        True if receivers are asked to quarantine or reject mail that fails.
        """
        return self.policy not in (None, DMARCPolicy.NONE)


def steps(
    published: PublishedRecords, tls: TLSAnswer, dmarc: DMARCAnswer
) -> tuple[Step, ...]:
    """
    All steps.

    @param tls: The answer about the latest L{STS_SPAN} days.
    @param dmarc: The answer about the latest L{DMARC_SPAN} days.
    """
    return (
        enforceStep(published, tls),
        quarantineStep(published, dmarc),
        rejectStep(published, dmarc),
    )


# --- MTA-STS --------------------------------------------------------------------------


def enforceStep(published: PublishedRecords, tls: TLSAnswer) -> Step:
    """
    MTA-STS mode C{enforce} (RFC 8461 5).
    """
    name, policy = "MTA-STS enforce", published.sts
    now = f"mode {policy.mode}" if policy else f"no policy: {published.stsProblem}"
    lacking = tuple(_lackingSTS(published, tls))
    blockers = tuple(_stsBlockers(published, tls))[:MAX_BLOCKERS]
    evidence = (
        f"{count(len(tls.days), 'day')} of {STS_SPAN} with reports, by "
        f"{count(len(tls.reporters), 'reporter')}",
        f"{count(tls.total, 'session')}, {percentage(tls.failed, tls.total)} failed",
    )
    if policy is not None and policy.mode is Mode.ENFORCE:
        sentence = "enforced already"
        if blockers:
            sentence += (
                f", while {count(len(blockers), 'problem')} lose mail or protection"
            )
        return Step(name, Ready.DONE, now, sentence, evidence, blockers)
    if not tls.total:
        return Step(name, Ready.NO_DATA, now, _noReports(published), evidence, blockers)
    if blockers or lacking:
        sentence = _obstacles(blockers, lacking)
        return Step(name, Ready.NOT_YET, now, sentence, evidence, blockers)
    sentence = "set mode: enforce in the policy, and a new id in its record"
    return Step(name, Ready.YES, now, sentence, evidence)


def _obstacles(blockers: Sequence[Blocker], lacking: Sequence[str]) -> str:
    mend = [f"{count(len(blockers), 'problem')} to mend first"] if blockers else []
    return "; ".join([*mend, *lacking])


def _lackingSTS(published: PublishedRecords, tls: TLSAnswer) -> Iterator[str]:
    if not published.isKnown:
        yield UNKNOWN
    elif published.sts is None or published.sts.mode is Mode.NONE:
        yield "publish a policy with mode: testing first"
    yield from _lacking(len(tls.days), MIN_STS_DAYS, tls.total, MIN_SESSIONS, "session")
    if len(tls.reporters) < MIN_REPORTERS:
        yield f"reports of {count(MIN_REPORTERS, 'organization')} are needed"


def _lacking(
    days: int, minDays: int, total: int, minTotal: int, noun: str
) -> Iterator[str]:
    if days < minDays:
        yield f"reports about {count(minDays, 'day')} are needed, there are {days}"
    if total < minTotal:
        yield f"{count(minTotal, noun)} are needed, there are {total:,}"


def _stsBlockers(published: PublishedRecords, tls: TLSAnswer) -> Iterator[Blocker]:
    policy = published.sts
    if policy is not None and policy.mode is not Mode.NONE:
        for host in published.mxHosts:
            if not matchesPolicy(policy, host):
                yield Blocker(
                    host.ascii,
                    "an MX host that the policy doesn't list",
                    0,
                    "Add it to the policy, and change the id in its record.",
                )
    reasons = list(filter(_isForSTS, tls.reasons))
    if sum(each.sessions for each in reasons) <= NORMAL_SHARE * tls.total:
        return
    days = max(1, len(tls.days))
    for reason in reasons:
        yield Blocker(
            ", ".join(reason.hosts[:3]) or tls.domain,
            reason.explanation.title,
            reason.sessions / days,
            reason.explanation.remedy,
        )


def _isForSTS(reason: FailureReason) -> bool:
    """
    True if MTA-STS has a part in a failure.
    """
    onlyDANE = set(reason.policyTypes) == {str(PolicyType.TLSA)}
    return not onlyDANE and reason.resultType not in _DANE_TYPES


def _noReports(published: PublishedRecords) -> str:
    if published.tlsrpt:
        return "no TLS report about these days"
    return f"no TLS reports come: {published.tlsrptProblem}"


# --- DMARC ----------------------------------------------------------------------------


def quarantineStep(published: PublishedRecords, dmarc: DMARCAnswer) -> Step:
    """
    The policy C{p=quarantine} (RFC 9989 4.7).
    """
    blockers = tuple(_ownFailures(dmarc, MAX_OWN_FAILURES))
    lacking = tuple(_lackingDMARC(published, dmarc, MIN_QUARANTINE_DAYS))
    done = (DMARCPolicy.QUARANTINE, DMARCPolicy.REJECT)
    return _dmarcStep("p=quarantine", done, published, dmarc, blockers, lacking)


def rejectStep(published: PublishedRecords, dmarc: DMARCAnswer) -> Step:
    """
    The policy C{p=reject} (RFC 9989 4.7, 7.4).
    """
    blockers = (
        *_ownFailures(dmarc, MAX_OWN_REJECTED),
        *_unsigned(dmarc),
        *_forwarded(dmarc),
    )
    lacking = list(_lackingDMARC(published, dmarc, MIN_REJECT_DAYS))
    if published.isKnown and published.policy is not DMARCPolicy.QUARANTINE:
        lacking.insert(0, "publish p=quarantine for a month first")
    done = (DMARCPolicy.REJECT,)
    return _dmarcStep("p=reject", done, published, dmarc, blockers, lacking)


def _dmarcStep(
    name: str,
    done: Sequence[DMARCPolicy],
    published: PublishedRecords,
    dmarc: DMARCAnswer,
    blockers: Sequence[Blocker],
    lacking: Sequence[str],
) -> Step:
    record, listed = published.dmarc, tuple(blockers[:MAX_BLOCKERS])
    now = f"no record: {published.dmarcProblem}"
    # RFC 9989 4.7: "sp" is for subdomains.
    ownName = f"_dmarc.{published.domain}"
    where = published.dmarcName or ownName
    tag = "p" if record is None or where == ownName else "sp"
    if record is not None:
        now = f"{tag}={published.requested}" + (" t=y" if record.testing else "")
    evidence = tuple(_dmarcEvidence(dmarc))
    if published.policy in done:
        sentence = "published already"
        if listed:
            sentence += f", while {count(len(blockers), 'problem')} lose mail"
        return Step(name, Ready.DONE, now, sentence, evidence, listed)
    if not dmarc.total:
        sentence = "no DMARC report about these days"
        if record is None or not record.rua:
            problem = published.dmarcProblem or "its record has no rua"
            sentence = f"no DMARC reports come: {problem}"
        return Step(name, Ready.NO_DATA, now, sentence, evidence, listed)
    if listed or lacking:
        sentence = _obstacles(blockers, lacking)
        return Step(name, Ready.NOT_YET, now, sentence, evidence, listed)
    sentence = f"set {tag}{name[1:]} in {where}"
    if record is not None and record.testing and name == f"p={published.requested}":
        sentence = f"remove t=y from {where}"
    return Step(name, Ready.YES, now, sentence, evidence)


def _lackingDMARC(
    published: PublishedRecords, dmarc: DMARCAnswer, minDays: int
) -> Iterator[str]:
    if not published.isKnown:
        yield UNKNOWN
    yield from _lacking(len(dmarc.days), minDays, dmarc.total, MIN_MESSAGES, "message")
    if len(dmarc.reporters) < MIN_REPORTERS:
        yield f"reports of {count(MIN_REPORTERS, 'organization')} are needed"


def _dmarcEvidence(dmarc: DMARCAnswer) -> Iterator[str]:
    own = [each for each in dmarc.sources if isOwn(each)]
    sent, failed = _sum(own)
    yield (
        f"{count(len(dmarc.days), 'day')} of {DMARC_SPAN} with reports, by "
        f"{count(len(dmarc.reporters), 'reporter')}"
    )
    yield (
        f"{count(sent, 'message')} of {count(len(own), 'own source')}, "
        f"{percentage(failed, sent)} failed"
    )
    rest = dmarc.failed - failed
    if rest > 0:
        yield f"{count(rest, 'message')} of others failed, and would be kept out"


def _sum(groups: Iterable[SourceGroup]) -> tuple[int, int]:
    listed = tuple(groups)
    return sum(each.messages for each in listed), sum(each.failed for each in listed)


def _ownFailures(dmarc: DMARCAnswer, maxShare: float) -> Iterator[Blocker]:
    """
    Own sources whose mail would not arrive.  Services that never pass are among them:
    they may be the domain's own, without having been set up.
    """
    sent, failed = _sum(each for each in dmarc.sources if isOwn(each))
    days = max(1, len(dmarc.days))
    for each in dmarc.sources:
        # Own sources are added up: many that lose few lose as much as one.
        lost = failed if isOwn(each) else each.failed
        mayBeOwn = each.kind in (SourceKind.OURS, SourceKind.SERVICE)
        if mayBeOwn and each.failed and lost > maxShare * sent:
            yield Blocker(
                each.name,
                f"{percentage(each.failed, each.messages)} of its mail fails",
                each.failed / days,
                advice(each, dmarc.domain),
            )


def _unsigned(dmarc: DMARCAnswer) -> Iterator[Blocker]:
    """
    RFC 9989 7.4: domains with C{p=reject} must not rely solely on SPF.
    """
    own = [each for each in dmarc.sources if isOwn(each)]
    if sum(map(_unsignedOf, own)) <= MAX_UNSIGNED * _sum(own)[0]:
        return
    days = max(1, len(dmarc.days))
    for each in own:
        unsigned = _unsignedOf(each)
        if unsigned:
            yield Blocker(
                each.name,
                f"{percentage(unsigned, each.messages)} of its mail has no valid "
                "signature, and fails when it is forwarded",
                unsigned / days,
                f"Sign its mail with DKIM as {dmarc.domain}.",
            )


def _unsignedOf(group: SourceGroup) -> int:
    """
    The messages that passed by SPF alone.
    """
    return group.passed - group.dkim


def _forwarded(dmarc: DMARCAnswer) -> Iterator[Blocker]:
    """
    RFC 9989 7.4: mail through mailing lists that change messages would be refused.
    """
    lists = [each for each in dmarc.sources if each.kind is SourceKind.FORWARDER]
    _, failed = _sum(lists)
    if failed > MAX_FORWARDED * dmarc.total:
        names = ", ".join(each.name for each in lists if each.failed)
        yield Blocker(
            names[:200],
            "forwarders and mailing lists break signatures",
            failed / max(1, len(dmarc.days)),
            "Keep p=quarantine if users write to mailing lists (RFC 9989 7.4).",
        )


# --- what to expect -------------------------------------------------------------------


def expectedTLS(published: PublishedRecords) -> str:
    """
    A sentence with the reason why there is no TLS report yet, or what to expect.
    """
    name = f"_smtp._tls.{published.domain}"
    if not published.tlsrpt:
        return f"no TLS report yet: {name}: {published.tlsrptProblem}"
    return (
        f"no TLS report yet, though {name} asks for them at "
        f"{', '.join(published.tlsrpt)}: large providers send one each day for the "
        "day before, if they have sent mail here"
    )


def expectedDMARC(published: PublishedRecords) -> str:
    """
    The same for DMARC reports.
    """
    name = published.dmarcName or f"_dmarc.{published.domain}"
    if published.dmarc is None:
        return f"no DMARC report yet: {name}: {published.dmarcProblem}"
    if not published.dmarc.rua:
        return f"no DMARC report yet: the record at {name} has no rua"
    addresses = ", ".join(each.uri for each in published.dmarc.rua)
    return (
        f"no DMARC report yet, though {name} asks for them at {addresses}: receivers "
        "send one each day for the day before, if the domain has sent mail"
    )
