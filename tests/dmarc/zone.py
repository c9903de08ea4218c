"""
A small DNS, and messages as SPF and DKIM saw them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from moxtls.authentication.results import (
    Authentication,
    AuthResult,
    DKIMResult,
    IPRevResult,
    SPFResult,
    SPFScope,
)
from moxtls.dns.types import (
    TXT,
    Answer,
    LookupGenerator,
    LookupQuestion,
    LookupStatus,
    RRType,
    runWithAnswers,
)
from moxtls.domain import Domain

T = TypeVar("T")


class Zone:
    """
    Answers from TXT records by name, and records of queries. A name exists if it, or
    one below it, is in C{records} or C{hosts}.
    """

    def __init__(
        self,
        records: Mapping[str, str | tuple[str, ...]],
        failing: Collection[str] = (),
        hosts: Collection[str] = (),
    ) -> None:
        self.records = records
        self.failing = failing
        self.hosts = hosts
        self.asked: list[str] = []
        self.rounds: list[int] = []

    def answer(self, question: LookupQuestion) -> Answer:
        """
        A resolver's answer.
        """
        name, kind = question.name, question.kind
        assert len(name) <= 253, name
        self.asked.append(name if kind is RRType.TXT else f"{name} {kind}")
        if name in self.failing:
            return Answer(name, kind, LookupStatus.FAILED, reason="no answer")
        found = self.records.get(name, ())
        texts = (found,) if isinstance(found, str) else found
        if texts and kind is RRType.TXT:
            records = tuple(TXT(text.encode()) for text in texts)
            return Answer(name, kind, LookupStatus.RECORDS, records)
        known = (*self.records, *self.hosts)
        isThere = any(each == name or each.endswith("." + name) for each in known)
        return Answer(
            name, kind, LookupStatus.NO_RECORDS if isThere else LookupStatus.NO_NAME
        )

    def find(self, lookups: LookupGenerator[T]) -> T:
        """
        The result of C{lookups}.
        """

        def counting() -> LookupGenerator[T]:
            answers = None
            try:
                questions = next(lookups)
                while True:
                    self.rounds.append(len(questions))
                    answers = yield questions
                    questions = lookups.send(answers)
            except StopIteration as end:
                found: T = end.value
                return found

        return runWithAnswers(counting(), self.answer)


PASS, FAIL = AuthResult.PASS, AuthResult.FAIL


def signature(
    domain: str, status: AuthResult = PASS, selector: str = "s"
) -> DKIMResult:
    """
    The result of a DKIM signature.
    """
    return DKIMResult(Domain(domain), selector, status)


def checked(
    *dkim: DKIMResult,
    spf: str = "client.example",
    status: AuthResult = FAIL,
    scope: SPFScope = SPFScope.MAIL_FROM,
    helo: AuthResult = AuthResult.NONE,
    iprev: str = "",
) -> Authentication:
    """
    The results for a message from 192.0.2.1, whose HELO name is mail.client.example.
    """
    return Authentication(
        "192.0.2.1",
        IPRevResult(PASS if iprev else FAIL, iprev),
        SPFResult(SPFScope.HELO, "mail.client.example", helo),
        SPFResult(scope, spf, status),
        dkim,
    )
