# -*- test-case-name: tests.authentication.test_outcome -*-
"""
The outcome of all checks of a message, with its explanation, and the results as header
fields (RFC 8601, RFC 7208 9.1).  No I/O.

In header fields, text from other hosts is quoted, so that it can't end a field, a
comment or a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from moxtls.authentication.results import (
    Authentication,
    AuthResult,
    DKIMResult,
    IPRevResult,
    SPFResult,
    SPFScope,
)
from moxtls.dmarc.types import Discovery, DMARCPolicy, Override, Verdict
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
    yield _spfNote(authentication.helo)
    if authentication.spf.scope is not authentication.helo.scope:
        yield _spfNote(authentication.spf)
    for result in authentication.dkim:
        key = f", {result.keySize}-bit key" if result.keySize else ""
        what = f"d={result.domain} s={result.selector} a={result.algorithm}{key}"
        yield f"DKIM: {result.status}: {what}{_why(result.problem)}"
    for problem in authentication.unreadableDKIM:
        yield f"DKIM: {AuthResult.PERMERROR}{_why(problem)}"
    if not authentication.dkim and not authentication.unreadableDKIM:
        yield "DKIM: none: no signature"
    yield _fromNote(outcome.authors)
    if outcome.verdict.discovery is not None:
        yield from _discoveryNotes(outcome.verdict.discovery)
    yield from _verdictNotes(outcome)


def _spfNote(result: SPFResult) -> str:
    term = f" by {result.mechanism}" if result.mechanism else ""
    explanation = f': "{result.explanation}"' if result.explanation else ""
    outcome = f"{result.status}: {result.domain}{term}{_why(result.problem)}"
    return f"SPF ({result.scope}): {outcome}{explanation}"


def _fromNote(authors: Authors) -> str:
    if authors.state is not FromField.READ:
        return f"From: {authors.state}"
    named = ", ".join(each.unicode for each in authors.domains)
    return f"From: {named or 'an address without a domain'}"


def _discoveryNotes(discovery: Discovery) -> Iterator[str]:
    for step in discovery.steps:
        yield f"DMARC: {step.name}: {step.found}"
    organizational = f"{discovery.organizational} ({discovery.method})"
    yield f"DMARC: the organizational domain is {organizational}"
    if discovery.policyDomain is not None:
        yield f"DMARC: the record of {discovery.policyDomain} applies"


def _verdictNotes(outcome: AuthenticationOutcome) -> Iterator[str]:
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


# --- header fields ---

#: RFC 5322 2.1.1, without CRLF.
LINE_LENGTH = 78
#: Characters of a value from another host: as long as an address can be.
MAX_WORD = 254
#: Entries in each cache of formatted results: clients, senders and signers vary less
#: than messages.
MAX_CACHED = 500

# RFC 2045 5.1: token; and what RFC 8601 2.2 allows as an address.
_TOKEN = r"[!#-'*+.0-9A-Z^-~-]+"
_PLAIN = re.compile(rf"{_TOKEN}(?:@{_TOKEN})?\Z")
# RFC 5322 3.2.3.
_ATEXT = r"[!#-'*+/-9=?A-Z^-~-]+"
_DOT_ATOM = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*\Z")
# RFC 5322 3.2.2, without characters that some readers take for the end of a comment or
# result.
_NOT_IN_COMMENT = re.compile(r"[^ !#-'*-:<-\[\]-~]")
#: Separates results, each on its own line.
_GROUP = ";\r\n\t"


def authenticationResults(
    hostname: str,
    authentication: Authentication,
    verdict: Verdict,
    sender: str,
) -> bytes:
    """
    The C{Authentication-Results} field, with its CRLF.

    @param hostname: The name of this host, C{authserv-id}.
    @param authentication: As in L{AuthenticationOutcome
        <moxtls.authentication.outcome.AuthenticationOutcome>}.
    @param verdict: As there.
    @param sender: MAIL FROM; empty for the null reverse-path.
    """
    origin = _origin(
        hostname,
        authentication.iprev,
        authentication.address,
        authentication.spf,
        authentication.helo,
        sender,
    )
    unreadable = authentication.unreadableDKIM
    signatures = map(_fold, _dkim(authentication.dkim, unreadable))
    discovery = verdict.discovery
    dmarc = _dmarc(
        verdict.status,
        verdict.problem,
        verdict.author,
        verdict.policy if discovery and discovery.record else None,
        verdict.disposition,
        verdict.reasons,
    )
    return _joinGroups([origin, *signatures, dmarc])


def receivedSPF(
    hostname: str, authentication: Authentication, sender: str, helo: str
) -> bytes:
    """
    The C{Received-SPF} field, with its CRLF.

    @param sender: MAIL FROM.
    @param helo: The name in HELO or EHLO.
    """
    return _receivedSPF(
        hostname, authentication.spf, authentication.address, sender, _ascii(helo)
    )


@lru_cache(MAX_CACHED)
def _receivedSPF(
    hostname: str, result: SPFResult, address: str, sender: str, helo: str
) -> bytes:
    isMailFrom = result.scope is SPFScope.MAIL_FROM
    about = sender if isMailFrom else helo
    pairs = {
        "receiver": hostname,
        "identity": "mailfrom" if isMailFrom else "helo",
        "client-ip": address,
        "envelope-from": sender or f"postmaster@{helo}",
        "helo": helo,
        "mechanism": result.mechanism,
        "problem": result.problem,
    }
    words = [f"{key}={_pair(value)}" for key, value in pairs.items() if value]
    comment = f"({_comment(hostname)}: {_spfText(result, address, about)})"
    first = f"Received-SPF: {result.status} {comment} {words[0]}"
    return _joinGroups([_fold(first.split(" ")), *words[1:]])


@lru_cache(MAX_CACHED)
def _origin(
    hostname: str,
    iprev: IPRevResult,
    address: str,
    spf: SPFResult,
    helo: SPFResult,
    sender: str,
) -> str:
    groups = [
        [f"Authentication-Results: {_value(hostname)}"],
        _iprev(iprev, address),
        *_spf(spf, helo, sender),
    ]
    return _GROUP.join(map(_fold, groups))


def _spfText(result: SPFResult, address: str, about: str) -> str:
    what = {
        AuthResult.PASS: "is permitted to send for",
        AuthResult.FAIL: "is not permitted to send for",
        AuthResult.SOFTFAIL: "is probably not permitted to send for",
    }.get(result.status, "may or may not send for")
    return _comment(f"{address} {what} {about}")


def _iprev(result: IPRevResult, address: str) -> list[str]:
    """
    RFC 8601 2.7.3.
    """
    words = [f"iprev={result.status}", *_reason(result.problem)]
    if result.name:
        words.append(f"({_comment(result.name)})")
    return [*words, *_property("policy.iprev", address)]


def _spf(spf: SPFResult, helo: SPFResult, sender: str) -> Iterator[list[str]]:
    """
    RFC 8601 2.7.2.
    """
    isMailFrom = spf.scope is SPFScope.MAIL_FROM
    for result in (spf, helo) if isMailFrom else (spf,):
        if result.scope is SPFScope.MAIL_FROM:
            identity = _property("smtp.mailfrom", sender)
        else:
            identity = _property("smtp.helo", _ascii(result.domain))
        yield [f"spf={result.status}", *_reason(result.problem), *identity]


def _dkim(
    results: Sequence[DKIMResult], unreadable: Sequence[str]
) -> Iterator[list[str]]:
    """
    RFC 8601 2.7.1, RFC 6008.
    """
    for result in results:
        words = _signer(
            result.status,
            result.problem,
            result.keySize,
            result.testing,
            result.domain.ascii,
            result.selector,
            result.algorithm,
        )
        yield [*words, *_property("header.b", result.signature)]
    for problem in unreadable:
        yield [f"dkim={AuthResult.PERMERROR}", *_reason(problem)]
    if not results and not unreadable:
        yield ["dkim=none"]


@lru_cache(MAX_CACHED)
def _dmarc(
    status: AuthResult,
    problem: str,
    author: Domain | None,
    policy: DMARCPolicy | None,
    disposition: DMARCPolicy,
    reasons: tuple[Override, ...],
) -> str:
    """
    RFC 9989 8.2 and the registry of RFC 8601: C{policy.dmarc} is the policy that
    applies; the disposition is in the comment.

    @param policy: C{None} without a record.
    """
    words = [f"dmarc={status}", *_reason(problem)]
    if policy is not None or disposition is not DMARCPolicy.NONE:
        comment = [f"disposition {disposition}"]
        comment += [f"override {each.kind}" for each in reasons]
        words.append(f"({_comment(', '.join(comment))})")
    if author is not None:
        words.append(f"header.from={_value(author.ascii)}")
    if policy is not None:
        words.append(f"policy.dmarc={policy}")
    return _fold(words)


@lru_cache(MAX_CACHED)
def _signer(
    status: AuthResult,
    problem: str,
    keySize: int,
    testing: bool,
    domain: str,
    selector: str,
    algorithm: str,
) -> tuple[str, ...]:
    """
    The result of a signature, without C{header.b}.
    """
    return (
        f"dkim={status}",
        *_keyComment(keySize, testing),
        *_reason(problem),
        f"header.d={_value(domain)}",
        *_property("header.s", selector),
        *_property("header.a", algorithm),
    )


def _keyComment(keySize: int, testing: bool) -> Iterator[str]:
    notes = [f"{keySize}-bit key"] if keySize else []
    if testing:
        notes.append("testing")
    if notes:
        yield f"({', '.join(notes)})"


def _reason(problem: str) -> Iterator[str]:
    return _property("reason", problem)


def _property(name: str, value: str) -> Iterator[str]:
    if value:
        yield f"{name}={_value(value)}"


def _value(text: str) -> str:
    """
    RFC 8601 2.2 pvalue.
    """
    return text if _isShort(text) and _PLAIN.match(text) else _quoted(text)


def _pair(text: str) -> str:
    """
    RFC 7208 9.1: C{dot-atom / quoted-string}.
    """
    return text if _isShort(text) and _DOT_ATOM.match(text) else _quoted(text)


def _isShort(text: str) -> bool:
    return len(text) <= MAX_WORD


def _ascii(text: str) -> str:
    """
    The text with characters beyond ASCII replaced: SMTPUTF8 covers addresses, not the
    name in HELO.
    """
    return text.encode("ascii", "replace").decode("ascii")


def _quoted(text: str) -> str:
    """
    RFC 5322 3.2.4, RFC 6532 3.2.
    """
    shown = "".join(each if each.isprintable() else "?" for each in text[:MAX_WORD])
    escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _comment(text: str) -> str:
    """
    The text with only characters that need no quoting in a comment.
    """
    return _NOT_IN_COMMENT.sub("?", text)[: 2 * MAX_WORD]


def _joinGroups(groups: Iterable[str]) -> bytes:
    return f"{_GROUP.join(groups)}\r\n".encode("utf-8", "replace")


def _fold(words: list[str]) -> str:
    """
    A group of words on one line, or folded onto several if it is too long.
    """
    lines = [words[0]]
    for word in words[1:]:
        # Room for the leading tab, a space and the semicolon behind the line.
        if len(lines[-1]) + len(word) + 3 > LINE_LENGTH:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\r\n\t".join(lines)
