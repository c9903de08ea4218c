# -*- test-case-name: tests.authentication.dkim -*-
"""
Verifies the DKIM signatures of a message (RFC 6376 6.1) with the keys in the DNS (RFC
6376 3.6, RFC 8463 4).  No I/O.

In three steps, which run in different places: L{signatureClaims} is quick,
L{lookUpKeys} waits for the DNS, and the time of L{verify} grows with the message, so
it belongs in a thread or process::

    claims = signatureClaims(splitHeader(header))
    checks = await resolve(resolver, lookUpKeys(claims))
    results = await deferToThread(verify, header, body, checks, now)

dkimpy isn't used, as it takes the whole message at once, several times as long, and
holds the interpreter lock throughout.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from operator import attrgetter
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from moxtls.authentication.dkim.canonical import (
    BodyHash,
    BodyScope,
    Fields,
    canonicalFields,
    hashBody,
    headerHash,
)
from moxtls.authentication.dkim.sign import MIN_RSA_KEY_BITS, Algorithm
from moxtls.authentication.dkim.signature import (
    InvalidSignatureField,
    Signature,
    SignatureClaim,
    parseSignature,
    parseSignatureClaim,
)
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dns.types import Answer, LookupGenerator, LookupQuestion, RRType
from moxtls.domain import Domain
from moxtls.message.header import Header
from moxtls.taglist import colonList, decodeBase64, parseTagList

#: Signatures that are verified (RFC 6376 8.4).  Each signing hop adds one, so real mail
#: has up to five.
MAX_SIGNATURES = 8
#: Key records of one selector that are tried.  There should be one (RFC 6376 3.6.2.2);
#: each may take the time of a verification.
MAX_KEY_RECORDS = 4

#: The problem of a valid signature by a key with C{s=tlsrpt}.
FOR_TLSRPT = "the key is for TLS reports only"

_NAME = b"dkim-signature"


@dataclass(frozen=True, slots=True)
class DKIMCheck:
    """
    A signature to be verified, with its key records.

    @ivar records: The TXT records at C{claim.keyName}.
    @ivar problem: The reason if the lookup failed.
    """

    claim: SignatureClaim
    records: tuple[bytes, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Verifiable:
    """
    @ivar keys: The usable keys of its selector, at least one.
    """

    signature: Signature
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True)
class Signatures:
    """
    The DKIM-Signature fields of a message, from the top.

    @ivar claims: Those to be verified.
    @ivar problems: One for each of the fields without a readable domain or selector.
        Both together are at most L{MAX_SIGNATURES}.
    """

    claims: tuple[SignatureClaim, ...]
    problems: tuple[str, ...] = ()


def signatureClaims(header: Header) -> tuple[SignatureClaim, ...]:
    """
    The claims of L{findSignatures}, for any author.
    """
    return findSignatures(header).claims


def findSignatures(header: Header, authors: Sequence[Domain] = ()) -> Signatures:
    """
    @param authors: The author domains.  If there are too many signatures, those that
        may be aligned with an author come first, as any host on the way can add some.
    """
    readable = []
    problems = []
    for index, field in enumerate(header.called(_NAME)):
        try:
            readable.append(parseSignatureClaim(field, index))
        except InvalidSignatureField as error:
            problems.append(str(error))
    if len(readable) > MAX_SIGNATURES:
        readable.sort(key=lambda each: _priority(each.domain, authors))
        readable = sorted(readable[:MAX_SIGNATURES], key=lambda each: each.index)
    left = MAX_SIGNATURES - len(readable)
    return Signatures(tuple(readable), tuple(problems[:left]))


def _priority(signer: Domain, authors: Sequence[Domain]) -> tuple[int, int]:
    """
    Sort key: the lower, the likelier the signer is aligned with an author (RFC 9989
    4.4), by the number of labels they have in common and of labels the signer has
    beyond them.
    """
    labels = signer.ascii.split(".")
    common = max((_commonLabels(labels, each) for each in authors), default=0)
    # A common top-level domain means nothing.
    return (-common, len(labels)) if common > 1 else (0, 0)


def _commonLabels(labels: list[str], author: Domain) -> int:
    pairs = zip(reversed(labels), reversed(author.ascii.split(".")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def lookUpKeys(
    claims: Sequence[SignatureClaim],
) -> LookupGenerator[tuple[DKIMCheck, ...]]:
    """
    The checks of all signatures, with their keys looked up in parallel.
    """
    names = tuple(dict.fromkeys(each.keyName for each in claims))
    answers: dict[str, Answer] = {}
    if names:
        found = yield tuple(LookupQuestion(name, RRType.TXT) for name in names)
        answers.update(zip(names, found, strict=True))
    return tuple(withKey(each, answers[each.keyName]) for each in claims)


def withKey(claim: SignatureClaim, answer: Answer) -> DKIMCheck:
    """
    @param answer: For the TXT records at C{claim.keyName}.
    """
    if answer.failed:
        return DKIMCheck(claim, (), "the key could not be looked up")
    return DKIMCheck(claim, answer.texts[:MAX_KEY_RECORDS])


def verify(
    header: bytes, body: Iterable[bytes], checks: Iterable[DKIMCheck], now: float
) -> tuple[DKIMResult, ...]:
    """
    The results of C{checks}, in their order.

    @param header: C{data} of the header given to L{signatureClaims}.
    @param body: The body in chunks of any size.  Read once, or not at all if no
        signature can be verified.
    @param now: The time of reception, in Unix seconds.
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
        # One for mail is preferred to the same key for TLS reports only.
        keys.sort(key=lambda each: each.isForTLSRPT)
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
        problem = "the signature doesn't match the header"
    elif body.uncovered:
        # Reading of RFC 6376 8.2: unsigned content behind the signed part may hide it,
        # so the signature isn't accepted, though it is valid.
        status, problem = AuthResult.POLICY, "l= leaves a part of the body unsigned"
    else:
        status = AuthResult.PASS
    used = key or check.keys[0]
    passesForTLSRPT = used.isForTLSRPT and status is AuthResult.PASS
    if used.isForTLSRPT:
        # RFC 6376 3.6.1: for other mail there is no such key.
        status, problem = AuthResult.PERMERROR, problem or FOR_TLSRPT
    return signature.result(status, problem, used.size, used.testing, passesForTLSRPT)


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
    A call of L{verify}, to be run in a thread or process.

    @ivar header: This and the others are the parameters of L{verify}.
    """

    header: bytes
    body: Sequence[bytes]
    checks: tuple[DKIMCheck, ...]
    now: float

    def __call__(self) -> DKIMResults:
        return verify(self.header, self.body, self.checks, self.now)

    def failed(self, problem: str) -> DKIMResults:
        """
        The results if the job can't be run.
        """
        return tuple(
            DKIMResult(
                each.claim.domain, each.claim.selector, AuthResult.TEMPERROR, problem
            )
            for each in self.checks
        )


def verifyAll(jobs: Sequence[DKIMJob]) -> list[DKIMResults | Exception]:
    """
    The results of several jobs, or the exception of each that failed.
    """
    return [_resultsOf(each) for each in jobs]


def _resultsOf(job: DKIMJob) -> DKIMResults | Exception:
    try:
        return job()
    except Exception as error:
        # The other jobs must go on.
        return error


# Jobs and results are pickled as plain values: each value of another kind takes a call
# of Python code, which is most of the time of pickling.

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
    "hasLength",
    "passesForTLSRPT",
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
                SignatureClaim(index, Domain(name), selector, field), records, problem
            )
            for index, name, selector, field, records, problem in checks
        ),
        now,
    )


def _reducedResult(result: DKIMResult) -> tuple[Callable[..., DKIMResult], _Plain]:
    return _restoredResult, _RESULT(result)


def _restoredResult(name: str, selector: str, status: str, *rest: Any) -> DKIMResult:
    return DKIMResult(Domain(name), selector, AuthResult(status), *rest)


copyreg.pickle(DKIMJob, _reduced)
copyreg.pickle(DKIMResult, _reducedResult)


# --- key records ---

#: Bits.  RFC 8301 3.2 requires 4096; keys of twice that exist, and take fifteen times
#: as long as 2048.
MAX_RSA_KEY = 8192
#: Octets of DER, with room for the ASN.1 structure.
_MAX_DER_LENGTH = MAX_RSA_KEY // 8 + 128
#: Bits of the public exponent.  Nearly all keys have 65537; the time of a verification
#: grows with it.
_MAX_EXPONENT_LENGTH = 32
#: Bits (RFC 8032 5.1.5).
_ED25519_SIZE = 256
#: Entries in the cache of keys.
MAX_CACHED = 500
#: C{k=} and its algorithm.
_ALGORITHMS = {"rsa": Algorithm.RSA, "ed25519": Algorithm.ED25519}

_PADDING = PKCS1v15()
_HASH = Prehashed(SHA256())


class UnusableKey(ValueError):
    """
    A key record without a usable key.
    """

    def __init__(self, problem: str, status: AuthResult = AuthResult.PERMERROR) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status


@dataclass(frozen=True, slots=True)
class PublicKey:
    """
    @ivar size: Bits.
    @ivar testing: C{t=y}.
    @ivar isStrict: C{t=s}: C{i=} has to have the same domain as C{d=}.
    @ivar isForTLSRPT: C{s=tlsrpt}: for TLS reports only (RFC 8460 3).
    """

    algorithm: Algorithm
    size: int
    public: RSAPublicKey | Ed25519PublicKey
    testing: bool = False
    isStrict: bool = False
    isForTLSRPT: bool = False

    def accepts(self, proof: bytes, digest: bytes) -> bool:
        """
        True if C{proof} is a signature of C{digest} by this key.

        @param digest: SHA-256 (RFC 8463 3: Ed25519 signs the digest, too).
        """
        try:
            if isinstance(self.public, RSAPublicKey):
                self.public.verify(proof, digest, _PADDING, _HASH)
            else:
                self.public.verify(proof, digest)
        except InvalidSignature:
            return False
        return True


@lru_cache(MAX_CACHED)
def parseKeyRecord(text: bytes) -> PublicKey:
    """
    The key in a record.  Keys are cached: OpenSSL prepares a key at its first use, so
    that later ones are faster.

    @param text: A TXT record.

    @raise UnusableKey: With the reason, for people.
    """
    tags = parseTagList(text)
    if tags.problem:
        raise UnusableKey("the key record is malformed")
    # RFC 6376 3.6.1: the first tag, if it is there.
    if "v" in tags.values and next(iter(tags.values.items())) != ("v", "DKIM1"):
        raise UnusableKey("the key record is not of version DKIM1")
    algorithm = _ALGORITHMS.get(tags.get("k", "rsa").lower())
    if algorithm is None:
        raise UnusableKey("the key is of an unknown type")
    if "sha256" not in colonList(tags.get("h", "sha256")):
        raise UnusableKey("the key is not for SHA-256")
    services = set(colonList(tags.get("s", "*")))
    isForMail = bool({"email", "*"} & services)
    if not isForMail and "tlsrpt" not in services:
        raise UnusableKey("the key is not for mail")
    flags = colonList(tags.get("t"))
    size, public = _load(algorithm, _data(tags.values))
    return PublicKey(algorithm, size, public, "y" in flags, "s" in flags, not isForMail)


def _data(values: dict[str, str]) -> bytes:
    if "p" not in values:
        raise UnusableKey("the key record has no key")
    if not values["p"]:
        raise UnusableKey("the key is revoked")
    try:
        return decodeBase64(values["p"])
    except ValueError:
        raise UnusableKey("the key is not base64") from None


def _load(
    algorithm: Algorithm, data: bytes
) -> tuple[int, RSAPublicKey | Ed25519PublicKey]:
    if algorithm is Algorithm.RSA:
        key = _loadRSA(data)
        return key.key_size, key
    try:
        return _ED25519_SIZE, Ed25519PublicKey.from_public_bytes(data)
    except ValueError:
        raise UnusableKey("the key is not an Ed25519 key") from None


def _loadRSA(data: bytes) -> RSAPublicKey:
    """
    @param data: SubjectPublicKeyInfo, as is usual, or RSAPublicKey, as in
        RFC 6376 3.6.1.
    """
    tooLong = UnusableKey("the RSA key is too long", AuthResult.POLICY)
    # Checked before any computation.
    if len(data) > _MAX_DER_LENGTH:
        raise tooLong
    try:
        key = load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey):
        raise UnusableKey("the key is not an RSA key")
    if key.key_size < MIN_RSA_KEY_BITS:
        # RFC 8301 3.2.
        raise UnusableKey("the RSA key is too short", AuthResult.POLICY)
    exponent = key.public_numbers().e
    if key.key_size > MAX_RSA_KEY or exponent.bit_length() > _MAX_EXPONENT_LENGTH:
        raise tooLong
    return key
