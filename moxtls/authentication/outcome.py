# -*- test-case-name: tests.authentication.test_check -*-
"""
The outcome of all checks of a message, and its explanation.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moxtls.authentication.results import Authentication, AuthResult, SPFResult
from moxtls.dmarc.types import Discovery, Verdict
from moxtls.domain import Domain
from moxtls.message.addresses import Authors, FromField


@dataclass(frozen=True, slots=True)
class AuthenticationOutcome:
    """
    The results of all checks of a message.

    @ivar authentication: Of SPF, DKIM and the client's address.
    @ivar verdict: Of DMARC.
    @ivar authors: The author domains in C{From}.
    @ivar isOverdue: True if a check ran out of time that the verdict may depend on.
    """

    authentication: Authentication
    verdict: Verdict
    authors: Authors
    isOverdue: bool = False

    @property
    def froms(self) -> tuple[Domain, ...]:
        """
        The domains of all authors, each once.
        """
        return self.authors.domains

    @property
    def notes(self) -> tuple[str, ...]:
        """
        The explanation of the results, one line a step.  It has text from other
        hosts, which the caller has to make printable.
        """
        return tuple(_notes(self))


def _notes(outcome: AuthenticationOutcome) -> Iterator[str]:
    authentication = outcome.authentication
    iprev = authentication.iprev
    name = f" is {iprev.name}" if iprev.name else ""
    yield f"iprev: {iprev.status}: {authentication.address}{name}{_why(iprev.problem)}"
    yield _spf(authentication.helo)
    if authentication.spf.scope is not authentication.helo.scope:
        yield _spf(authentication.spf)
    for result in authentication.dkim:
        key = f", {result.keySize}-bit key" if result.keySize else ""
        what = f"d={result.domain} s={result.selector} a={result.algorithm}{key}"
        yield f"DKIM: {result.status}: {what}{_why(result.problem)}"
    for problem in authentication.unreadableDKIM:
        yield f"DKIM: {AuthResult.PERMERROR}{_why(problem)}"
    if not authentication.dkim and not authentication.unreadableDKIM:
        yield "DKIM: none: no signature"
    yield _from(outcome.authors)
    if outcome.verdict.discovery is not None:
        yield from _discovery(outcome.verdict.discovery)
    yield from _verdict(outcome)


def _spf(result: SPFResult) -> str:
    term = f" by {result.mechanism}" if result.mechanism else ""
    explanation = f': "{result.explanation}"' if result.explanation else ""
    outcome = f"{result.status}: {result.domain}{term}{_why(result.problem)}"
    return f"SPF ({result.scope}): {outcome}{explanation}"


def _from(authors: Authors) -> str:
    if authors.state is not FromField.READ:
        return f"From: {authors.state}"
    named = ", ".join(each.unicode for each in authors.domains)
    return f"From: {named or 'an address without a domain'}"


def _discovery(discovery: Discovery) -> Iterator[str]:
    for step in discovery.steps:
        yield f"DMARC: {step.name}: {step.found}"
    organizational = f"{discovery.organizational} ({discovery.method})"
    yield f"DMARC: the organizational domain is {organizational}"
    if discovery.policyDomain is not None:
        yield f"DMARC: the record of {discovery.policyDomain} applies"


def _verdict(outcome: AuthenticationOutcome) -> Iterator[str]:
    verdict, authentication = outcome.verdict, outcome.authentication
    for index in verdict.alignedDKIM:
        domain = authentication.dkim[index].domain
        yield f"DMARC: DKIM passes for {domain}, aligned"
    if verdict.spfAligned:
        yield f"DMARC: SPF passes for {authentication.spf.domain}, aligned"
    if verdict.status is AuthResult.FAIL:
        yield "DMARC: no aligned identifier passes"
    policy = f"policy {verdict.policy}, disposition {verdict.disposition}"
    yield f"DMARC: {verdict.status}: {policy}{_why(verdict.problem)}"
    for reason in verdict.reasons:
        yield f"DMARC: override {reason.kind}{_why(reason.comment)}"


def _why(problem: str) -> str:
    return f": {problem}" if problem else ""
