# -*- test-case-name: tests.dns.test_memory -*-
"""
Resolver over a dict, for tests and for embedding.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from moxtls.dns.types import (
    IP,
    MX,
    TLSA,
    TXT,
    Answer,
    CNAMELink,
    ExtendedError,
    LookupStatus,
    NameRecord,
    Record,
    RRType,
)
from moxtls.dns.wire import (
    MAX_CHAIN,
    Question,
    failedAnswer,
    invalidNameAnswer,
    makeQuestion,
)
from moxtls.interfaces import IResolver

#: A record, or its presentation in a zone file: C{"10 mx.example.com"}.
Content = Record | str


@implementer(IResolver)
class MemoryResolver:
    """
    Answers from a dict::

        MemoryResolver(
            {
                ("example.com", RRType.MX): [MX(10, "mx.example.com")],
                ("mx.example.com", RRType.A): ["192.0.2.1"],
                ("_25._tcp.mx.example.com", RRType.TLSA): [TLSA(3, 1, 1, digest)],
                ("www.example.com", RRType.CNAME): ["web.example.net"],
            },
            authentic={"example.com"},
            failing={("broken.example", RRType.TXT): ExtendedError(6)},
        )

    Names are spelled in any case, with or without a final dot.  In place of a
    record there may be a C{str} as in a zone file; that of a TXT record is
    its text, without quotes.

    A name exists if it, or one below it, has an entry; an empty list will do.
    CNAMEs are followed, unless they are asked for.

    The authenticity of a record depends on the name it is at, so that each
    step of a chain may be or not: what counts is the longest of the names in
    C{authentic} and C{inauthentic} that it is at or under.  C{"."} stands for
    everything.  At first nothing is authentic.

    @ivar asked: Each lookup that was made, in order: normal name, and kind.
    @ivar validating: May be set; nothing is authentic while it is false.
    @ivar ttl: That of each answer that didn't fail.
    """

    def __init__(
        self,
        records: Mapping[tuple[str, RRType], Iterable[Content]] | None = None,
        authentic: Collection[str] = (),
        inauthentic: Collection[str] = (),
        failing: Mapping[tuple[str, RRType], ExtendedError | None] | None = None,
        validating: bool = True,
    ) -> None:
        self.validating = validating
        self.asked: list[tuple[str, RRType]] = []
        self.ttl = 300
        self._records: dict[Question, tuple[Record, ...]] = {}
        self._failing: dict[Question, ExtendedError | None] = {}
        self._hanging: dict[Question, list[Deferred[Answer]]] = {}
        self._authentic: dict[str, bool] = {}
        for (name, kind), contents in (records or {}).items():
            self.put(name, kind, *contents)
        for (name, kind), error in (failing or {}).items():
            self.fail(name, kind, error)
        self.trust(*authentic)
        self.distrust(*inauthentic)

    def put(self, name: str, kind: RRType, *contents: Content) -> None:
        """
        Replace what is at C{name} by C{contents}; a lookup of it doesn't fail
        or hang any more.
        """
        key = _question(name, kind)
        self._records[key] = tuple(_record(kind, each) for each in contents)
        self._failing.pop(key, None)
        self.release(name, kind)

    def remove(self, name: str, kind: RRType) -> None:
        """
        Remove the records at C{name}, which may not exist any more then.
        """
        self._records.pop(_question(name, kind), None)

    def fail(self, name: str, kind: RRType, error: ExtendedError | None = None) -> None:
        """
        Make lookups of C{kind} that lead to C{name} fail, as with SERVFAIL.
        """
        self._failing[_question(name, kind)] = error

    def hang(self, name: str, kind: RRType) -> None:
        """
        Make lookups wait until C{release}.
        """
        self._hanging.setdefault(_question(name, kind), [])

    def release(self, name: str, kind: RRType) -> None:
        """
        Answer the waiting lookups.
        """
        asked = _question(name, kind)
        for waiting in self._hanging.pop(asked, []):
            waiting.callback(self._answer(asked))

    def trust(self, *names: str) -> None:
        """
        Make everything at or under C{names} authentic.
        """
        self._authentic.update({_question(each, RRType.A).name: True for each in names})

    def distrust(self, *names: str) -> None:
        """
        Make everything at or under C{names} not authentic.
        """
        self._authentic.update(
            {_question(each, RRType.A).name: False for each in names}
        )

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        asked = makeQuestion(name, kind)
        if asked is None:
            return succeed(invalidNameAnswer(name, kind))
        self.asked.append((asked.name, kind))
        if asked not in self._hanging:
            return succeed(self._answer(asked))
        hanging = self._hanging[asked]
        waiting: Deferred[Answer] = Deferred(hanging.remove)
        hanging.append(waiting)
        return waiting

    def _answer(self, asked: Question) -> Answer:
        chain = self._chain(asked)
        end = Question(chain[-1].target if chain else asked.name, asked.kind)
        if end in self._failing:
            error = self._failing[end]
            return failedAnswer(asked, "SERVFAIL", (error,) if error else ())
        if len(chain) > MAX_CHAIN:
            return failedAnswer(asked, "CNAME loop, or chain too long")
        endAuthentic = self._isAuthentic(end.name)
        answer = Answer(
            asked.name,
            asked.kind,
            self._found(end),
            self._records.get(end, ()),
            chain,
            authentic=endAuthentic and all(each.authentic for each in chain),
            endAuthentic=endAuthentic,
        )
        return replace(answer, ttl=self.ttl)

    def _chain(self, asked: Question) -> tuple[CNAMELink, ...]:
        """
        The CNAMEs to follow, at most one more than is allowed.
        """
        chain: list[CNAMELink] = []
        name = asked.name
        while asked.kind is not RRType.CNAME and len(chain) <= MAX_CHAIN:
            step = self._records.get(Question(name, RRType.CNAME), ())
            target = next(
                (each.target for each in step if isinstance(each, NameRecord)), ""
            )
            if not target or Question(name, asked.kind) in self._failing:
                break
            chain.append(CNAMELink(name, target, self._isAuthentic(name)))
            name = target
        return tuple(chain)

    def _found(self, end: Question) -> LookupStatus:
        if self._records.get(end):
            return LookupStatus.RECORDS
        known = {each.name for each in (*self._records, *self._failing)}
        below = "." + end.name if end.name else ""
        if any(each == end.name or each.endswith(below) for each in known):
            return LookupStatus.NO_RECORDS
        return LookupStatus.NO_NAME

    def _isAuthentic(self, name: str) -> bool:
        while name and name not in self._authentic:
            _, _, name = name.partition(".")
        return self.validating and self._authentic.get(name, False)


def _question(name: str, kind: RRType) -> Question:
    asked = makeQuestion(name, kind)
    if asked is None:
        raise ValueError(f"{name!r} can't be in the DNS")
    return asked


def _record(kind: RRType, content: Content) -> Record:
    if not isinstance(content, str):
        return content
    match kind:
        case RRType.A | RRType.AAAA:
            return IP(str(ipaddress.ip_address(content)))
        case RRType.MX:
            preference, exchange = content.split()
            return MX(int(preference), _question(exchange, kind).name)
        case RRType.TLSA:
            usage, selector, matching, data = content.split()
            return TLSA(int(usage), int(selector), int(matching), bytes.fromhex(data))
        case RRType.TXT:
            return TXT(content.encode())
        case _:
            return NameRecord(_question(content, kind).name)
