# -*- test-case-name: tests.inbound.test_spf -*-
"""
What SPF asks the DNS, and how much of it (RFC 7208 4.6.4).  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moxtls.authentication import AuthResult
from moxtls.dns.answers import Answer, RRType
from moxtls.dns.inquiry import Answers, LookupGenerator, LookupQuestion
from moxtls.dns.wire import normalName
from moxtls.inbound.spfclient import SPFClient
from moxtls.inbound.spfterms import DomainSpec

#: RFC 7208 4.6.4: terms that need the DNS, in all records together; those of
#: them for which it may have nothing; MX hosts, and names of the client.
MAX_TERMS = 10
MAX_VOID_TERMS = 2
MAX_HOSTS = 10
MAX_NAMES = 10
#: So that there is room for what is wrong with it.
_MAX_TERM_LENGTH = 80


class EvaluationStopped(Exception):
    """
    There is no going on (RFC 7208 2.6.6, 2.6.7).

    @ivar status: C{TEMPERROR} or C{PERMERROR}.
    @ivar problem: What is wrong, and where: has strangers' words in it.
    """

    def __init__(self, status: AuthResult, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class SPFContext:
    """
    Where evaluation is.

    @ivar domain: Whose record.
    @ivar term: As published.
    """

    domain: str
    term: str

    def __str__(self) -> str:
        return f"{self.domain}: {self.term[:_MAX_TERM_LENGTH]}"

    def broken(self, problem: str) -> EvaluationStopped:
        """
        Only the domain's owner can mend it.
        """
        return EvaluationStopped(AuthResult.PERMERROR, f"{self}: {problem}")


class SPFLookups:
    """
    Those of one check, in all its records.
    """

    def __init__(self, client: SPFClient) -> None:
        self._client = client
        self._terms = 0
        self._voids = 0
        self._names: tuple[str, ...] | None = None

    def spend(self, spec: DomainSpec | None, place: SPFContext) -> None:
        """
        Count a term that needs the DNS, and another one for the client's name
        if it is needed for the first time.

        @raise Stopped: There were enough of them.
        """
        needsName = spec is not None and "p" in spec.letters
        self._terms += 2 if needsName and self._names is None else 1
        if self._terms > MAX_TERMS:
            raise place.broken(f"more than {MAX_TERMS} terms that need the DNS")

    def one(
        self, name: str, kind: RRType, place: SPFContext
    ) -> LookupGenerator[Answers]:
        """
        What a term is about: one answer, or none if there can't be such a
        name, which doesn't count as anything.

        @raise Stopped: The look-up failed, or it was one void look-up too many.
        """
        answers = yield from lookUp((escaped(name),), kind)
        self._note(answers, place)
        return answers

    def exchanges(self, name: str, place: SPFContext) -> LookupGenerator[Answers]:
        """
        The addresses of the MX hosts of C{name}.  Some may have failed, which
        doesn't matter if another one has the client's address: else, see
        C{settle}.

        @raise Stopped: See C{one}; or there are too many hosts.
        """
        found = yield from self.one(name, RRType.MX, place)
        hosts = [host.exchange for each in found for host in each.mx]
        if len(hosts) > MAX_HOSTS:
            raise place.broken(f"more than {MAX_HOSTS} MX hosts")
        return (yield from lookUp(hosts, self._client.kind))

    def settle(self, answers: Answers, place: SPFContext) -> None:
        """
        Let C{answers}, where none was of use, be what a term came to.

        @raise Stopped: See C{one}.
        """
        self._note(answers, place)

    def clientNames(
        self, place: SPFContext | None = None
    ) -> LookupGenerator[tuple[str, ...]]:
        """
        The names of the client that have its address (RFC 7208 5.5); what
        fails is as good as not there.

        @param place: The term that wants to know, if it counts.

        @raise Stopped: It was one void look-up too many.
        """
        if self._names is None:
            ip = self._client.ip
            found = yield from lookUp((ip.reverse_pointer,), RRType.PTR)
            names = [name for each in found for name in each.names][:MAX_NAMES]
            answers = yield from lookUp(names, self._client.kind)
            self._names = tuple(
                each.name
                for each in answers
                if self._client.isNear(each.addresses, ip.max_prefixlen)
            )
            if place is not None:
                self._note(tuple(each for each in found if not each.failed), place)
        return self._names

    def _note(self, answers: Answers, place: SPFContext) -> None:
        """
        RFC 7208 5, 4.6.4: a term whose look-up failed, or found nothing.
        """
        for each in answers:
            if each.failed:
                raise unanswered(str(place), each)
        if answers and not any(each.records for each in answers):
            self._voids += 1
        if self._voids > MAX_VOID_TERMS:
            raise place.broken(
                f"more than {MAX_VOID_TERMS} terms with nothing in the DNS"
            )


def lookUp(names: Iterable[str], kind: RRType) -> LookupGenerator[Answers]:
    """
    All at once, each once.  About what can't be in the DNS there is no answer.

    @param names: As in zone files: special characters are escaped.
    """
    normal = dict.fromkeys(map(normalName, names))
    questions = tuple(LookupQuestion(each, kind) for each in normal if each)
    if not questions:
        return ()
    return (yield questions)


def escaped(name: str) -> str:
    """
    What macros come to, for a look-up (RFC 7208 4.8): not even a backslash
    keeps a dot in it from being one between labels, or else the sender's
    local part could say of which domain it is a part.
    """
    return name.replace("\\", "\\\\")


def unanswered(where: str, answer: Answer) -> EvaluationStopped:
    """
    Without that look-up, nothing can be said now.
    """
    return EvaluationStopped(
        AuthResult.TEMPERROR,
        f"{where}: look-up of {answer.kind} at {answer.name} failed: {answer.reason}",
    )
