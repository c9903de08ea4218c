# -*- test-case-name: tests.authentication.dkim.test_signature -*-
"""
Parses DKIM-Signature fields (RFC 6376 3.5).  No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from moxtls.authentication.dkim.canonical import BodyScope, Canonicalization
from moxtls.authentication.dkim.sign import Algorithm
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.domain import Domain, InvalidDomain
from moxtls.taglist import (
    WSP,
    TagList,
    colonList,
    decodeBase64,
    parseTagList,
    removeWSP,
    unfoldTags,
)

#: Names in C{h=}.  Mail has some twenty; each takes a lookup.
MAX_SIGNED_FIELDS = 500
#: Octets of C{i=}.  It looks like an address, encoded with up to three characters for
#: each octet.
MAX_IDENTITY_LENGTH = 3 * 320
#: RFC 1035 2.3.4, without the final dot.
MAX_NAME = 253
#: Seconds by which the clocks of signers may differ from this host's (RFC 6376 3.5).
MAX_CLOCK_SKEW = 300
#: Seconds by which C{t=} may be in the future.  It only reveals made-up times; a clock
#: in another time zone does no harm.
MAX_TIME_IN_FUTURE = 24 * 3600

#: The tags that are the same in most signatures of a signer are cached: entries, and
#: characters of C{h=} in an entry.
MAX_CACHED = 500
MAX_CACHED_NAMES_LENGTH = 1000

_REQUIRED = ("v", "a", "b", "bh", "d", "h", "s")
_HISTORIC = "rsa-sha1"
_ALGORITHMS = frozenset(Algorithm)
_WAYS = frozenset(Canonicalization)
# Patterns of a tag at the beginning and behind another tag.  They are separate, as the
# first would be tried at every octet in a search.
_TAGS = {
    name: (
        re.compile(rb"[ \t\r\n]*%b[ \t\r\n]*=([^;]*)" % name),
        re.compile(rb";[ \t\r\n]*%b[ \t\r\n]*=([^;]*)" % name),
    )
    for name in (b"b", b"d", b"s")
}
# RFC 6376 3.5: sig-a-tag-alg, x-sig-a-tag-alg, of a reasonable length.
_ALGORITHM = re.compile(r"[a-z][a-z0-9]{0,31}-[a-z][a-z0-9]{0,31}\Z")
# RFC 6376 3.1: selector = sub-domain *( "." sub-domain ).  It excludes "_", which
# selectors in use have, and the DNS allows.
_SELECTOR = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")
# RFC 5322 3.6.8: ftext.
_FIELD = re.compile(r"[!-9;-~]+\Z")
_TIME = re.compile(r"[0-9]{1,12}\Z")
_LIMIT = re.compile(r"[0-9]{1,76}\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")
_HEX_OCTET = re.compile(rb"=([0-9A-F]{2})")


class InvalidSignatureField(ValueError):
    """
    A field without a readable domain or selector.
    """


class _Rejected(Exception):
    """
    The signature is invalid or refused, whatever the message.
    """

    def __init__(self, problem: str, status: AuthResult = AuthResult.PERMERROR) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status


@dataclass(frozen=True, slots=True)
class SignatureClaim:
    """
    The domain and selector of a signature field: enough to look up the key.

    @ivar index: The number of DKIM-Signature fields above it.
    @ivar field: The whole field, without its CRLF.
    """

    index: int
    domain: Domain
    selector: str
    field: bytes

    @property
    def keyName(self) -> str:
        """
        RFC 6376 3.6.2.1.
        """
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class Signature:
    """
    A signature field that is valid in itself.

    @ivar index: As in L{SignatureClaim}.
    @ivar identityDomain: The domain in C{i=}: that in C{d=}, or below it.
    @ivar how: The canonicalization of the header.
    @ivar body: The part of the body it covers.
    @ivar names: C{h=}, in lower case.
    @ivar bodyHash: C{bh=}.
    @ivar signatureData: C{b=}.
    @ivar field: The whole field with an empty C{b=} (RFC 6376 3.7), without its CRLF.
    @ivar prefix: As in L{DKIMResult.signature}.
    """

    index: int
    domain: Domain
    selector: str
    identity: str
    identityDomain: Domain
    algorithm: Algorithm
    how: Canonicalization
    body: BodyScope
    names: tuple[bytes, ...]
    bodyHash: bytes
    signatureData: bytes
    field: bytes
    prefix: str

    def result(
        self,
        status: AuthResult,
        problem: str = "",
        keySize: int = 0,
        testing: bool = False,
        passesForTLSRPT: bool = False,
    ) -> DKIMResult:
        return DKIMResult(
            self.domain,
            self.selector,
            status,
            problem,
            self.identity,
            self.algorithm.value,
            self.prefix,
            keySize,
            testing,
            self.body.limit is not None,
            passesForTLSRPT,
        )


@dataclass(frozen=True, slots=True)
class _Parameters:
    """
    The tags that are the same in most signatures of a signer, as in L{Signature}.
    """

    identity: str
    identityDomain: Domain
    algorithm: Algorithm
    how: Canonicalization
    body: BodyScope
    names: tuple[bytes, ...]


def parseSignatureClaim(field: bytes, index: int) -> SignatureClaim:
    """
    The domain and selector of a field; the other tags are left to L{parseSignature}.

    @param field: A DKIM-Signature field, without its CRLF.

    @raise InvalidSignatureField: The domain or selector can't be read.
    """
    value = field.partition(b":")[2]
    domain = _domain(_tagText(value, b"d"))
    return SignatureClaim(
        index, domain, _selector(_tagText(value, b"s"), domain), field
    )


def parseSignature(claim: SignatureClaim, now: float) -> Signature | DKIMResult:
    """
    @param now: The time of reception, in Unix seconds.

    @return: The signature to be verified, or the result if there is an error.
    """
    domain, selector = claim.domain, claim.selector
    name, _, value = claim.field.partition(b":")
    tags = parseTagList(value)
    try:
        _checkForm(tags)
        _checkTime(tags, now)
        parameters = _parameters(tags, domain)
        return Signature(
            claim.index,
            domain,
            selector,
            parameters.identity,
            parameters.identityDomain,
            parameters.algorithm,
            parameters.how,
            parameters.body,
            parameters.names,
            _data(tags, "bh"),
            _data(tags, "b"),
            b"%b:%b" % (name, _withoutSignatureData(value)),
            _prefix(tags),
        )
    except _Rejected as reason:
        stated = tags.get("a").lower()
        return DKIMResult(
            domain,
            selector,
            reason.status,
            reason.problem,
            algorithm=stated if _ALGORITHM.match(stated) else "",
            signature=_prefix(tags),
        )


def _findTag(value: bytes, name: bytes) -> re.Match[bytes] | None:
    """
    The position of a tag in a field; the first if it is repeated.
    """
    first, behind = _TAGS[name]
    return first.match(value) or behind.search(value)


def _tagText(value: bytes, name: bytes) -> str:
    found = _findTag(value, name)
    return unfoldTags(found[1]).strip(WSP) if found else ""


def _domain(text: str) -> Domain:
    """
    The domain, perhaps with U-labels if the header is in UTF-8 (RFC 8616 5).
    """
    try:
        return Domain.parse(text)
    except InvalidDomain:
        raise InvalidSignatureField("d= is not a domain") from None


def _selector(text: str, domain: Domain) -> str:
    selector = text.lower()
    if not selector.isascii():
        try:
            selector = Domain.parse(text).ascii
        except InvalidDomain:
            selector = ""
    longest = MAX_NAME - len(f"._domainkey.{domain}")
    if len(selector) > longest or not _SELECTOR.match(selector):
        raise InvalidSignatureField("s= is not a selector")
    return selector


def _require(
    isGood: object, problem: str, status: AuthResult = AuthResult.PERMERROR
) -> None:
    if not isGood:
        raise _Rejected(problem, status)


def _checkForm(tags: TagList) -> None:
    """
    RFC 6376 6.1.1: "meticulously".
    """
    _require(not tags.problem, tags.problem)
    if not all(map(tags.get, _REQUIRED)):
        missing = next(name for name in _REQUIRED if not tags.get(name))
        raise _Rejected(f"{missing}= is missing")
    _require(tags.get("v") == "1", "v= is not 1")
    # RFC 6376 3.5: sub-domain 1*("." sub-domain): mail isn't signed by "com".
    domain = tags.get("d")
    _require("." in domain and domain[-1] != ".", "d= is not a domain for mail")
    if "q" in tags.values:
        _require("dns/txt" in colonList(tags.get("q")), "q= is not dns/txt")


def _checkTime(tags: TagList, now: float) -> None:
    signed, expires = _time(tags, "t"), _time(tags, "x")
    _require(
        signed - now <= MAX_TIME_IN_FUTURE, "signed in the future", AuthResult.POLICY
    )
    if "x" in tags.values:
        _require(expires > signed, "x= is not after t=")
        _require(
            expires + MAX_CLOCK_SKEW >= now, "the signature expired", AuthResult.POLICY
        )


def _time(tags: TagList, name: str) -> int:
    text = tags.get(name, "0")
    if not _TIME.match(text):
        raise _Rejected(f"{name}= is not a time")
    return int(text)


def _parameters(tags: TagList, domain: Domain) -> _Parameters:
    stated = map(tags.values.get, ("i", "a", "c", "l"))
    names = tags.get("h")
    read = (
        _cachedParameters if len(names) <= MAX_CACHED_NAMES_LENGTH else _parseParameters
    )
    return read(domain, names, *stated)


def _parseParameters(
    domain: Domain,
    names: str,
    identity: str | None,
    algorithm: str | None,
    ways: str | None,
    limit: str | None,
) -> _Parameters:
    """
    @param names: C{h=}; the following parameters are C{None} for missing tags.
    """
    what, below = _identity(identity, domain)
    how, bodyHow = _canonicalizations(ways)
    extent = BodyScope(bodyHow, _limit(limit))
    return _Parameters(what, below, _algorithm(algorithm), how, extent, _names(names))


_cachedParameters = lru_cache(MAX_CACHED)(_parseParameters)


def _identity(stated: str | None, domain: Domain) -> tuple[str, Domain]:
    """
    RFC 6376 2.11, 3.5.
    """
    if stated is None:
        return f"@{domain}", domain
    identity = removeWSP(stated)
    _require(len(identity) <= MAX_IDENTITY_LENGTH, "i= is too long")
    octets = identity.encode("utf-8")
    plain = _HEX_OCTET.sub(lambda octet: bytes.fromhex(octet[1].decode()), octets)
    _, at, part = plain.decode("utf-8", "replace").rpartition("@")
    try:
        _require(at, "i= has no @")
        below = Domain.parse(part)
    except InvalidDomain:
        raise _Rejected("i= has no domain") from None
    _require(below.isUnder(domain), "i= is not in the domain of d=")
    return identity, below


def _algorithm(stated: str | None) -> Algorithm:
    stated = (stated or "").lower()
    # RFC 8301 3.1: permanently failed.
    _require(stated != _HISTORIC, f"{_HISTORIC} is historic", AuthResult.POLICY)
    _require(stated in _ALGORITHMS, "a= is not an algorithm that is known")
    return Algorithm(stated)


def _canonicalizations(
    stated: str | None,
) -> tuple[Canonicalization, Canonicalization]:
    if stated is None:
        stated = "simple/simple"
    header, slash, body = stated.lower().partition("/")
    pair = (header, body if slash else "simple")
    _require(_WAYS.issuperset(pair), "c= is not a canonicalization that is known")
    return Canonicalization(pair[0]), Canonicalization(pair[1])


def _limit(stated: str | None) -> int | None:
    if stated is None:
        return None
    _require(_LIMIT.match(stated), "l= is not a number")
    return int(stated)


def _names(stated: str) -> tuple[bytes, ...]:
    names = colonList(stated, MAX_SIGNED_FIELDS)
    _require(len(names) <= MAX_SIGNED_FIELDS, "h= is too long")
    _require(all(map(_FIELD.match, names)), "h= is not a list of fields")
    _require("from" in names, "From is not signed")
    return tuple(each.encode("ascii") for each in names)


def _data(tags: TagList, name: str) -> bytes:
    try:
        return decodeBase64(tags.get(name))
    except ValueError:
        raise _Rejected(f"{name}= is not base64") from None


def _withoutSignatureData(value: bytes) -> bytes:
    """
    RFC 6376 3.7.
    """
    signatureData = _findTag(value, b"b")
    return (
        value[: signatureData.start(1)] + value[signatureData.end() :]
        if signatureData
        else value
    )


def _prefix(tags: TagList) -> str:
    signatureData = removeWSP(tags.get("b"))
    return signatureData[:8] if _BASE64.match(signatureData) else ""
