# -*- test-case-name: tests.authentication.dkim.test_verify -*-
"""
DKIM signatures of a message, checked (RFC 6376 6.1).  No I/O.

Three steps, as each has another place to run: L{signatureClaims} is quick, L{lookUpKeys}
waits for the DNS, L{verify} takes as long as the message is large and is to be
called elsewhere, such as in a thread::

    claims = claimsOf(splitHeader(header))
    checks = await conduct(resolver, findKeys(claims))
    results = await deferToThread(verify, header, body, checks, now)

They are not left to dkimpy, which takes the whole message at once, several
times as long, and holds the interpreter's lock for all of it.

What is left to do about the signatures of a message once their keys are there,
for wherever there is time for it: another thread, or another process.  No I/O.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter
from typing import Any

from moxtls.authentication.dkim.canonical import (
    BodyHash,
    BodyScope,
    Fields,
    canonicalFields,
    hashBody,
    headerHash,
)
from moxtls.authentication.dkim.key import PublicKey, UnusableKey, parseKeyRecord
from moxtls.authentication.dkim.signature import (
    InvalidSignatureField,
    Signature,
    SignatureClaim,
    parseSignature,
    parseSignatureClaim,
)
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dns.query import LookupGenerator, LookupQuestion
from moxtls.dns.types import Answer, RRType
from moxtls.domain import Domain
from moxtls.message.header import Header

#: Signatures that are verified (RFC 6376 8.4).  Each hop that signs adds one, so
#: real mail has up to five.
MAX_SIGNATURES = 8
#: Records of one selector that are prepared at.  There should be one (RFC 6376
#: 3.6.2.2); each may take the time of a job.
MAX_KEY_RECORDS = 4

_NAME = b"dkim-signature"


@dataclass(frozen=True, slots=True)
class DKIMCheck:
    """
    What is left to do about a signature.

    @ivar records: Of its key: what the DNS has at C{claim.keyName}.
    @ivar problem: Why they aren't known, for now.
    """

    claim: SignatureClaim
    records: tuple[bytes, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Verifiable:
    """
    @ivar keys: At least one: those of its selector that are made for it.
    """

    signature: Signature
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True)
class Signatures:
    """
    The DKIM-Signature fields of a message, from the top.

    @ivar claims: Those to be verified.
    @ivar problems: Of each of the others that it can't be told whose it is.  Both
        together are at most L{MAX_SIGNATURES}.
    """

    claims: tuple[SignatureClaim, ...]
    problems: tuple[str, ...] = ()


def signatureClaims(header: Header) -> tuple[SignatureClaim, ...]:
    """
    Those of L{findSignatures}, whoever the author is.
    """
    return findSignatures(header).claims


def findSignatures(header: Header, authors: Sequence[Domain] = ()) -> Signatures:
    """
    @param authors: The domains in From.  Their signatures come first where there are
        too many: anybody on the way can add some.
    """
    readable = []
    problems = []
    for place, field in enumerate(header.called(_NAME)):
        try:
            readable.append(parseSignatureClaim(field, place))
        except InvalidSignatureField as error:
            problems.append(str(error))
    if len(readable) > MAX_SIGNATURES:
        readable.sort(key=lambda each: _priority(each.domain, authors))
        readable = sorted(readable[:MAX_SIGNATURES], key=lambda each: each.index)
    left = MAX_SIGNATURES - len(readable)
    return Signatures(tuple(readable), tuple(problems[:left]))


def _priority(signer: Domain, authors: Sequence[Domain]) -> tuple[int, int]:
    """
    The less, the likelier it is that a signer is aligned with an author (RFC 9989
    4.4): by the labels that they have in common, and those that the signer has
    beyond them.
    """
    labels = signer.ascii.split(".")
    common = max((_commonLabels(labels, each) for each in authors), default=0)
    # A top level is common to whoever has nothing to do with each other.
    return (-common, len(labels)) if common > 1 else (0, 0)


def _commonLabels(labels: list[str], author: Domain) -> int:
    pairs = zip(reversed(labels), reversed(author.ascii.split(".")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def lookUpKeys(
    claims: Sequence[SignatureClaim],
) -> LookupGenerator[tuple[DKIMCheck, ...]]:
    """
    Ask for the keys of all signatures at once.
    """
    names = tuple(dict.fromkeys(each.keyName for each in claims))
    answers: dict[str, Answer] = {}
    if names:
        found = yield tuple(LookupQuestion(name, RRType.TXT) for name in names)
        answers.update(zip(names, found, strict=True))
    return tuple(withKey(each, answers[each.keyName]) for each in claims)


def withKey(claim: SignatureClaim, answer: Answer) -> DKIMCheck:
    """
    @param answer: About C{claim.keyName}, of kind TXT.
    """
    if answer.failed:
        return DKIMCheck(claim, (), "the key could not be looked up")
    return DKIMCheck(claim, answer.texts[:MAX_KEY_RECORDS])


def verify(
    header: bytes, body: Iterable[bytes], checks: Iterable[DKIMCheck], now: float
) -> tuple[DKIMResult, ...]:
    """
    Do what is left to do; the results are in the order of C{checks}.

    @param header: C{data} of what L{signatureClaims} was given.
    @param body: What is behind the empty line, in chunks of any size.  Gone
        through once, or not at all if there is nothing to do.
    @param now: When the message was received, in Unix seconds.
    """
    prepared = tuple([_prepared(each, now) for each in checks])
    signatures = [each.signature for each in prepared if isinstance(each, _Verifiable)]
    if not signatures:
        return tuple(each for each in prepared if isinstance(each, DKIMResult))
    hashes = hashBody(body, {each.body for each in signatures})
    fields = {
        how: canonicalFields(header, how) for how in {each.how for each in signatures}
    }
    return tuple(
        _verified(each, hashes, fields[each.signature.how])
        if isinstance(each, _Verifiable)
        else each
        for each in prepared
    )


def _prepared(check: DKIMCheck, now: float) -> _Verifiable | DKIMResult:
    """
    RFC 6376 6.1.1, 6.1.2.
    """
    signature = parseSignature(check.claim, now)
    if isinstance(signature, DKIMResult):
        return signature
    if check.problem:
        return signature.result(AuthResult.TEMPERROR, check.problem)
    keys = []
    problems = []
    for record in check.records:
        try:
            keys.append(_keyFor(signature, record))
        except UnusableKey as error:
            problems.append(error)
    if keys:
        return _Verifiable(signature, tuple(keys))
    if problems:
        return signature.result(problems[0].status, problems[0].problem)
    return signature.result(AuthResult.PERMERROR, "there is no key record")


def _keyFor(signature: Signature, text: bytes) -> PublicKey:
    key = parseKeyRecord(text)
    if key.algorithm is not signature.algorithm:
        raise UnusableKey("the key is for another algorithm")
    # RFC 6376 3.6.1: t=s.
    if key.isStrict and signature.identityDomain != signature.domain:
        raise UnusableKey("the key is not for subdomains")
    return key


def _verified(
    check: _Verifiable, hashes: Mapping[BodyScope, BodyHash], fields: Fields
) -> DKIMResult:
    """
    RFC 6376 6.1.3.
    """
    signature = check.signature
    body = hashes[signature.body]
    digest = _headerHash(signature, fields)
    key = next(
        (each for each in check.keys if each.accepts(signature.signatureData, digest)),
        None,
    )
    status, problem = AuthResult.FAIL, ""
    if not body.digest:
        problem = "the body is shorter than l="
    elif body.digest != signature.bodyHash:
        problem = "the body was changed"
    elif key is None:
        problem = "the signature is not that of the header"
    elif body.uncovered:
        # Reading of RFC 6376 8.2: anything may stand behind, and hide what was
        # signed; so it counts for nothing, though nobody made a mistake.
        status, problem = AuthResult.POLICY, "l= leaves a part of the body unsigned"
    else:
        status = AuthResult.PASS
    used = key or check.keys[0]
    return signature.result(status, problem, used.size, used.testing)


def _headerHash(signature: Signature, fields: Fields) -> bytes:
    if _NAME in signature.names:
        # Other signatures may be signed; a signature can't sign itself (RFC 6376
        # 3.5).
        others = list(fields.get(_NAME, ()))
        del others[signature.index : signature.index + 1]
        fields = {**fields, _NAME: others}
    return headerHash(fields, signature.names, signature.field, signature.how)


DKIMResults = tuple[DKIMResult, ...]
_Plain = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class DKIMJob:
    """
    To be called.

    @ivar header: As L{verify} wants it, as all of these.
    """

    header: bytes
    body: Sequence[bytes]
    checks: tuple[DKIMCheck, ...]
    now: float

    def __call__(self) -> DKIMResults:
        return verify(self.header, self.body, self.checks, self.now)

    def failed(self, problem: str) -> DKIMResults:
        """
        What it comes to if it can't be done.
        """
        return tuple(
            DKIMResult(
                each.claim.domain, each.claim.selector, AuthResult.TEMPERROR, problem
            )
            for each in self.checks
        )


def verifyAll(jobs: Sequence[DKIMJob]) -> list[DKIMResults | Exception]:
    """
    Several messages, one after the other.
    """
    return [_resultsOf(each) for each in jobs]


def _resultsOf(job: DKIMJob) -> DKIMResults | Exception:
    try:
        return job()
    except Exception as error:
        # The others shall not suffer from it.
        return error


# --- how they are pickled -----------------------------------------------------------
# Each value within that isn't plain takes a call in Python, and those are what takes
# time.

_CHECK = attrgetter(
    "claim.index",
    "claim.domain.ascii",
    "claim.selector",
    "claim.field",
    "records",
    "problem",
)
_RESULT = attrgetter(
    "domain.ascii",
    "selector",
    "status.value",
    "problem",
    "identity",
    "algorithm",
    "signature",
    "keySize",
    "testing",
)


def _reduced(job: DKIMJob) -> tuple[Callable[..., DKIMJob], _Plain]:
    checks = tuple(map(_CHECK, job.checks))
    return _restored, (job.header, job.body, checks, job.now)


def _restored(
    header: bytes, body: Sequence[bytes], checks: tuple[Any, ...], now: float
) -> DKIMJob:
    return DKIMJob(
        header,
        body,
        tuple(
            DKIMCheck(
                SignatureClaim(place, Domain(name), selector, field), records, problem
            )
            for place, name, selector, field, records, problem in checks
        ),
        now,
    )


def _reducedResult(result: DKIMResult) -> tuple[Callable[..., DKIMResult], _Plain]:
    return _restoredResult, _RESULT(result)


def _restoredResult(name: str, selector: str, status: str, *rest: Any) -> DKIMResult:
    return DKIMResult(Domain(name), selector, AuthResult(status), *rest)


copyreg.pickle(DKIMJob, _reduced)
copyreg.pickle(DKIMResult, _reducedResult)
