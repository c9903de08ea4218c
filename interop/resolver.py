"""
Compares unbound with the lab's own resolver, and the answers that moxtls gets from
both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import dns.exception
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from interop.checks import Checks, InteropError
from interop.environment import Environment
from interop.unbound import Question, ResolverAnswer, ask, questions
from moxtls.app.build import IReactor
from moxtls.dns.resolver import Resolver
from moxtls.dns.transport import DNSTransport
from moxtls.dns.types import Answer, ExtendedError, NameServer, RRType
from moxtls.dns.validation import Diagnosis, ServerStatus
from moxtls.tasks import gather

T = TypeVar("T")

Endpoint = tuple[str, int]

#: Kinds of answers that have to occur, or the comparison shows nothing: status,
#: AD, and extended errors (RFC 8914 4: bogus, expired, no key).
KINDS_OF_ANSWERS = (
    ("NOERROR", True, ()),
    ("NOERROR", False, ()),
    ("NXDOMAIN", True, ()),
    ("NXDOMAIN", False, ()),
    ("SERVFAIL", False, (6,)),
    ("SERVFAIL", False, (7,)),
    ("SERVFAIL", False, (9,)),
)

_BOGUS = ExtendedError(6)


def checkResolver(
    checks: Checks, reactor: IReactor, environment: Environment, unbound: Endpoint
) -> None:
    """
    Ask both resolvers all questions, and compare.
    """
    asked = list(dict.fromkeys(questions(environment.network)))
    theirs = _asked(unbound, asked)
    _compare(checks, "unbound answers", theirs, _asked(environment.resolver, asked))
    seen = {(each.status, each.authentic, each.errors) for each in theirs.values()}
    for kind in KINDS_OF_ANSWERS:
        status, authentic, errors = kind
        words = [status, "AD" if authentic else "no AD", *(f"EDE {e}" for e in errors)]
        checks.holds(f"answers include {', '.join(words)}", kind in seen)
    _checkMoxtls(checks, reactor, environment, unbound, asked)


def _asked(
    endpoint: Endpoint, asked: Sequence[Question]
) -> dict[Question, ResolverAnswer]:
    try:
        return {question: ask(endpoint, question) for question in asked}
    except dns.exception.Timeout as error:
        raise InteropError(f"{endpoint[0]}:{endpoint[1]}: {error}") from None


def _compare(
    checks: Checks,
    what: str,
    theirs: Mapping[Question, object],
    ours: Mapping[Question, object],
) -> None:
    """
    Report each difference, and the number of equal answers.
    """
    differing = [each for each in theirs if theirs[each] != ours[each]]
    for name, kind in differing:
        is_, should = theirs[name, kind], ours[name, kind]
        checks.holds(f"{name} {kind}", False, f"{is_}, the lab's resolver has {should}")
    count = f"{len(theirs) - len(differing)} of {len(theirs)}"
    checks.holds(f"{what} {count} questions as the lab's resolver", not differing)


def _checkMoxtls(
    checks: Checks,
    reactor: IReactor,
    environment: Environment,
    unbound: Endpoint,
    asked: Sequence[Question],
) -> None:
    """
    The stub resolver of moxtls gets the same answers from unbound as from the lab's
    resolver.
    """
    viaUnbound = _resolver(reactor, unbound)
    _checkProbe(checks, "unbound", _probe(reactor, viaUnbound), ServerStatus.VALIDATING)
    authority = (environment.network.authority, environment.network.dnsPort)
    found = _probe(reactor, _resolver(reactor, authority))
    _checkProbe(checks, "the lab's authority", found, ServerStatus.NOT_VALIDATING)
    viaLab = _resolver(reactor, environment.resolver)
    _probe(reactor, viaLab)
    theirs = _lookedUp(reactor, viaUnbound, asked)
    _compare(checks, "moxtls understands", theirs, _lookedUp(reactor, viaLab, asked))
    _checkAliases(checks, theirs)


def _checkProbe(
    checks: Checks, whom: str, found: Diagnosis, expected: ServerStatus
) -> None:
    statuses = [each.status for each in found.reports]
    checks.same(f"moxtls' probe of {whom}: {expected.value}", statuses, [expected])


def _checkAliases(checks: Checks, theirs: Mapping[Question, Answer]) -> None:
    """
    Each step of a CNAME chain has its own authenticity, on which RFC 7672 2.2.2
    depends.
    """
    for name, step, end in (
        ("secure.alias.test", True, True),
        ("insecure.alias.test", True, False),
    ):
        answer = theirs[name, "A"]
        found = [(each.authentic, answer.endAuthentic) for each in answer.chain]
        words = f"the alias {'' if step else 'not '}authentic, what it leads to "
        what = f"{name}: {words}{'as well' if end else 'not'}"
        checks.same(what, found, [(step, end)])
    broken = theirs["broken.alias.test", "A"]
    checks.holds("broken.alias.test: no answer", broken.failed, broken)


def _resolver(reactor: IReactor, endpoint: Endpoint) -> Resolver:
    return Resolver(reactor, [NameServer(*endpoint)], DNSTransport(reactor).ask)


def _probe(reactor: IReactor, resolver: Resolver) -> Diagnosis:
    return _blockingCall(reactor, resolver.probe)


def _lookedUp(
    reactor: IReactor, resolver: Resolver, asked: Sequence[Question]
) -> dict[Question, Answer]:
    def begin() -> Deferred[list[Answer]]:
        lookups = [resolver.lookup(name, RRType(kind)) for name, kind in asked]
        return Deferred.fromCoroutine(gather(lookups))

    answers = _blockingCall(reactor, begin)
    return dict(zip(asked, map(_comparable, answers), strict=True))


def _blockingCall(reactor: IReactor, begin: Callable[[], Deferred[T]]) -> T:
    """
    Call C{begin} in the reactor's thread, and wait for its result.
    """
    # mypy takes the Deferred for the result.
    found: T = blockingCallFromThread(reactor, begin)  # type: ignore[arg-type]
    return found


def _comparable(answer: Answer) -> Answer:
    """
    An answer without what may differ between servers: TTLs, texts, and the order of
    records.

    unbound caches bogus answers without the details: asked again, it says 6 (DNSSEC
    Bogus) instead of 7 or 9.
    """
    errors = {_BOGUS if each.isDNSSEC else each for each in answer.errors}
    codes = sorted(each.code for each in errors)
    return replace(
        answer,
        records=tuple(sorted(answer.records, key=repr)),
        errors=tuple(map(ExtendedError, codes)),
        reason="",
        ttl=0,
    )
