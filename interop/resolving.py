"""
unbound and the lab's own resolver say the same, and moxtls makes the same of
both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import dns.exception
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from interop.checks import Checks, Trouble
from interop.unbound import Question, Said, ask, questions
from interop.world import World
from moxtls.app.build import IReactor
from moxtls.dns.resolvconf import NameServer
from moxtls.dns.resolver import Resolver
from moxtls.dns.transport import DNSTransport
from moxtls.dns.types import Answer, ExtendedError, RRType
from moxtls.dns.validation import Diagnosis, ServerStatus
from moxtls.tasks import gather

T = TypeVar("T")

Place = tuple[str, int]

#: Each of these has to be among what was seen, or nothing was shown: status,
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
    checks: Checks, reactor: IReactor, world: World, unbound: Place
) -> None:
    """
    Ask everybody everything.
    """
    asked = list(dict.fromkeys(questions(world.network)))
    theirs = _asked(unbound, asked)
    _compare(checks, "unbound answers", theirs, _asked(world.resolver, asked))
    seen = {(each.status, each.authentic, each.errors) for each in theirs.values()}
    for kind in KINDS_OF_ANSWERS:
        status, authentic, errors = kind
        words = [status, "AD" if authentic else "no AD", *(f"EDE {e}" for e in errors)]
        checks.holds(f"among them: {', '.join(words)}", kind in seen)
    _checkOurs(checks, reactor, world, unbound, asked)


def _asked(place: Place, asked: Sequence[Question]) -> dict[Question, Said]:
    try:
        return {question: ask(place, question) for question in asked}
    except dns.exception.Timeout as error:
        raise Trouble(f"{place[0]}:{place[1]}: {error}") from None


def _compare(
    checks: Checks,
    what: str,
    theirs: Mapping[Question, object],
    ours: Mapping[Question, object],
) -> None:
    """
    Tell each difference, and only how many are alike.
    """
    differing = [each for each in theirs if theirs[each] != ours[each]]
    for name, kind in differing:
        is_, should = theirs[name, kind], ours[name, kind]
        checks.holds(f"{name} {kind}", False, f"{is_}, and the lab's own: {should}")
    count = f"{len(theirs) - len(differing)} of {len(theirs)}"
    checks.holds(f"{what} {count} questions as the lab's resolver", not differing)


def _checkOurs(
    checks: Checks,
    reactor: IReactor,
    world: World,
    unbound: Place,
    asked: Sequence[Question],
) -> None:
    """
    moxtls' own resolver on top of unbound.
    """
    behind = _resolver(reactor, unbound)
    _checkProbe(checks, "unbound", _probe(reactor, behind), ServerStatus.VALIDATING)
    authority = (world.network.authority, world.network.dnsPort)
    found = _probe(reactor, _resolver(reactor, authority))
    _checkProbe(checks, "the lab's authority", found, ServerStatus.NOT_VALIDATING)
    ownBehind = _resolver(reactor, world.resolver)
    _probe(reactor, ownBehind)
    theirs = _lookedUp(reactor, behind, asked)
    _compare(checks, "moxtls understands", theirs, _lookedUp(reactor, ownBehind, asked))
    _checkChains(checks, theirs)


def _checkProbe(
    checks: Checks, whom: str, found: Diagnosis, standing: ServerStatus
) -> None:
    standings = [each.status for each in found.reports]
    checks.same(f"moxtls' probe of {whom}: {standing.value}", standings, [standing])


def _checkChains(checks: Checks, theirs: Mapping[Question, Answer]) -> None:
    """
    RFC 7672 2.2.2 depends on which steps of a chain are authentic.
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


def _resolver(reactor: IReactor, place: Place) -> Resolver:
    return Resolver(reactor, [NameServer(*place)], DNSTransport(reactor).ask)


def _probe(reactor: IReactor, resolver: Resolver) -> Diagnosis:
    return _waitedFor(reactor, resolver.probe)


def _lookedUp(
    reactor: IReactor, resolver: Resolver, asked: Sequence[Question]
) -> dict[Question, Answer]:
    def begin() -> Deferred[list[Answer]]:
        lookups = [resolver.lookup(name, RRType(kind)) for name, kind in asked]
        return Deferred.fromCoroutine(gather(lookups))

    answers = _waitedFor(reactor, begin)
    return dict(zip(asked, map(_essence, answers), strict=True))


def _waitedFor(reactor: IReactor, begin: Callable[[], Deferred[T]]) -> T:
    """
    What comes of something that is begun in the reactor's thread.
    """
    # mypy takes the Deferred for the result.
    found: T = blockingCallFromThread(reactor, begin)  # type: ignore[arg-type]
    return found


def _essence(answer: Answer) -> Answer:
    """
    An answer without what servers may put differently: the remaining time,
    words, and the order of records.

    Of what it has found bogus unbound keeps only that, not why: asked again,
    it says 6 (DNSSEC Bogus) instead of 7 or 9.
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
