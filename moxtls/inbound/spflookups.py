# -*- test-case-name: tests.inbound.test_spf -*-
"""
What SPF asks the DNS, and how much of it (RFC 7208 4.6.4).  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moxtls.authentication import AuthResult
from moxtls.dns.answers import Answer, Kind
from moxtls.dns.inquiry import Answers, Inquiry, Question
from moxtls.dns.wire import normalName
from moxtls.inbound.spfclient import Client
from moxtls.inbound.spfterms import DomainSpec

#: RFC 7208 4.6.4: terms that need the DNS, in all records together; those of
#: them for which it may have nothing; MX hosts, and names of the client.
MOST_TERMS = 10
MOST_VOID_TERMS = 2
MOST_HOSTS = 10
MOST_NAMES = 10
#: So that there is room for what is wrong with it.
_LONGEST_TERM = 80


class Stopped(Exception):
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
class Place:
    """
    Where evaluation is.

    @ivar domain: Whose record.
    @ivar term: As published.
    """

    domain: str
    term: str

    def __str__(self) -> str:
        return f"{self.domain}: {self.term[:_LONGEST_TERM]}"

    def broken(self, problem: str) -> Stopped:
        """
        Only the domain's owner can mend it.
        """
        return Stopped(AuthResult.PERMERROR, f"{self}: {problem}")


class Lookups:
    """
    Those of one check, in all its records.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._terms = 0
        self._voids = 0
        self._names: tuple[str, ...] | None = None

    def spend(self, spec: DomainSpec | None, place: Place) -> None:
        """
        Count a term that needs the DNS, and another one for the client's name
        if it is needed for the first time.

        @raise Stopped: There were enough of them.
        """
        needsName = spec is not None and "p" in spec.letters
        self._terms += 2 if needsName and self._names is None else 1
        if self._terms > MOST_TERMS:
            raise place.broken(f"more than {MOST_TERMS} terms that need the DNS")

    def one(self, name: str, kind: Kind, place: Place) -> Inquiry[Answers]:
        """
        What a term is about: one answer, or none if there can't be such a
        name, which doesn't count as anything.

        @raise Stopped: The look-up failed, or it was one void look-up too many.
        """
        answers = yield from ask((escaped(name),), kind)
        self._note(answers, place)
        return answers

    def exchanges(self, name: str, place: Place) -> Inquiry[Answers]:
        """
        The addresses of the MX hosts of C{name}.  Some may have failed, which
        doesn't matter if another one has the client's address: else, see
        C{settle}.

        @raise Stopped: See C{one}; or there are too many hosts.
        """
        found = yield from self.one(name, Kind.MX, place)
        hosts = [host.exchange for each in found for host in each.mx]
        if len(hosts) > MOST_HOSTS:
            raise place.broken(f"more than {MOST_HOSTS} MX hosts")
        return (yield from ask(hosts, self._client.kind))

    def settle(self, answers: Answers, place: Place) -> None:
        """
        Let C{answers}, where none was of use, be what a term came to.

        @raise Stopped: See C{one}.
        """
        self._note(answers, place)

    def clientNames(self, place: Place | None = None) -> Inquiry[tuple[str, ...]]:
        """
        The names of the client that have its address (RFC 7208 5.5); what
        fails is as good as not there.

        @param place: The term that wants to know, if it counts.

        @raise Stopped: It was one void look-up too many.
        """
        if self._names is None:
            ip = self._client.ip
            found = yield from ask((ip.reverse_pointer,), Kind.PTR)
            names = [name for each in found for name in each.names][:MOST_NAMES]
            answers = yield from ask(names, self._client.kind)
            self._names = tuple(
                each.name
                for each in answers
                if self._client.isNear(each.addresses, ip.max_prefixlen)
            )
            if place is not None:
                self._note(tuple(each for each in found if not each.failed), place)
        return self._names

    def _note(self, answers: Answers, place: Place) -> None:
        """
        RFC 7208 5, 4.6.4: a term whose look-up failed, or found nothing.
        """
        for each in answers:
            if each.failed:
                raise unanswered(str(place), each)
        if answers and not any(each.records for each in answers):
            self._voids += 1
        if self._voids > MOST_VOID_TERMS:
            raise place.broken(
                f"more than {MOST_VOID_TERMS} terms with nothing in the DNS"
            )


def ask(names: Iterable[str], kind: Kind) -> Inquiry[Answers]:
    """
    All at once, each once.  About what can't be in the DNS there is no answer.

    @param names: As in zone files: special characters are escaped.
    """
    normal = dict.fromkeys(map(normalName, names))
    questions = tuple(Question(each, kind) for each in normal if each)
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


def unanswered(where: str, answer: Answer) -> Stopped:
    """
    Without that look-up, nothing can be said now.
    """
    return Stopped(
        AuthResult.TEMPERROR,
        f"{where}: look-up of {answer.kind} at {answer.name} failed: {answer.reason}",
    )
