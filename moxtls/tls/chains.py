# -*- test-case-name: tests.tls.test_chains -*-
"""
Builds and checks certificate paths from a leaf to a trust anchor in TLSA records
(RFC 7671 5.2, RFC 7672 3.1.2).  No I/O.

This is not the Web PKI: the anchor is the only root, and may be anywhere in the
chain that the server sent.  Extensions are checked as in RFC 5280 4.2, names as in
RFC 7672 3.2.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import Certificate, Extensions
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from moxtls.domain import Domain

# RFC 5280 4.2: a certificate with another critical extension must be refused.
_KNOWN = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
#: Names of a leaf: ten times as many as public authorities allow.
MAX_NAMES = 1000
#: Comparisons of names with the constraints of one authority.  There may be dozens
#: of paths from leaf to anchor, each with a dozen authorities.
MAX_COMPARISONS = 5000
_FOR_SERVERS = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)

T = TypeVar("T", bound=x509.ExtensionType)


class ChainError(Exception):
    """
    A certificate path is not valid.
    """


def extensionsOf(certificate: Certificate) -> Extensions:
    """
    The extensions of a certificate.

    @raise ChainError: They can't be read, or an unknown one is critical.
    """
    try:
        extensions = certificate.extensions
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        raise ChainError("malformed extensions") from None
    for extension in extensions:
        if extension.critical and extension.oid not in _KNOWN:
            raise ChainError("unknown critical extension")
    return extensions


def checkIssuer(issuer: Certificate, below: Sequence[Certificate]) -> None:
    """
    Check that C{issuer} may be above C{below} in a path (RFC 5280 6.1.4).

    @param below: Leaf first.

    @raise ChainError: It may not.
    """
    extensions = extensionsOf(issuer)
    basic = _get(extensions, x509.BasicConstraints)
    usage = _get(extensions, x509.KeyUsage)
    if basic is None or not basic.ca or (usage and not usage.key_cert_sign):
        raise ChainError("not authorized to sign")
    between = [each for each in below[1:] if each.subject != each.issuer]
    if basic.path_length is not None and len(between) > basic.path_length:
        raise ChainError("too many intermediates")
    constraints = _get(extensions, x509.NameConstraints)
    if constraints is not None:
        _checkConstraints(constraints, dnsNames(below[0]))


def checkLeaf(leaf: Certificate, names: Iterable[Domain]) -> None:
    """
    Check that C{leaf} is for a server with one of C{names}.

    @raise ChainError: It may not.
    """
    extended = _get(extensionsOf(leaf), x509.ExtendedKeyUsage)
    if extended and not any(purpose in extended for purpose in _FOR_SERVERS):
        raise ChainError("not for servers")
    presented = dnsNames(leaf)
    if not any(_matches(pattern, name) for pattern in presented for name in names):
        raise ChainError("for another name")


def dnsNames(leaf: Certificate) -> tuple[str, ...]:
    """
    The DNS-IDs of C{leaf}; its CN-IDs if there are none (RFC 7672 3.2.3).

    The Web PKI no longer uses the CN (RFC 9525 2), but the RFC for DANE with SMTP
    does, and the anchors here are often private and old.

    @raise ChainError: They can't be read, or are too many.
    """
    alternative = _get(extensionsOf(leaf), x509.SubjectAlternativeName)
    found = alternative.get_values_for_type(x509.DNSName) if alternative else []
    if not found:
        attributes = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        found = [str(attribute.value) for attribute in attributes]
    if len(found) > MAX_NAMES:
        raise ChainError("too many names")
    return tuple(name.lower().removesuffix(".") for name in found)


def _matches(pattern: str, name: Domain) -> bool:
    # RFC 7672 3.2.3: a wildcard is the whole first label, and stands for one.
    _, dot, rest = name.ascii.partition(".")
    return pattern == name.ascii or (bool(dot) and pattern == f"*.{rest}")


def _checkConstraints(constraints: x509.NameConstraints, names: Sequence[str]) -> None:
    """
    RFC 5280 4.2.1.10, for names of hosts.
    """
    permitted = _subtrees(constraints.permitted_subtrees)
    excluded = _subtrees(constraints.excluded_subtrees)
    if len(names) * (len(permitted) + len(excluded)) > MAX_COMPARISONS:
        raise ChainError("too many constraints")
    for name in names:
        if any(_isWithin(name, tree) for tree in excluded) or (
            permitted and not any(_isWithin(name, tree) for tree in permitted)
        ):
            raise ChainError("issuer not authorized for this name")


def _subtrees(trees: Iterable[x509.GeneralName] | None) -> list[str]:
    return [
        tree.value.lower().removeprefix(".")
        for tree in trees or ()
        if isinstance(tree, x509.DNSName)
    ]


def _isWithin(name: str, tree: str) -> bool:
    return not tree or name == tree or name.endswith(f".{tree}")


def _get(extensions: Extensions, kind: type[T]) -> T | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


#: Real chains have two to five; a server may send some that are not needed.
MAX_CERTIFICATES = 15
#: Limits the work on certificates that all might have issued one another.
MAX_SIGNATURES = 60

# DER tags, and where subjectPublicKeyInfo is in RFC 5280 4.1 TBSCertificate
# behind the version.
_EXPLICIT_VERSION = 0xA0
_SPKI_POSITION = 5


class AnchorNotReached(ChainError):
    """
    No certificates lead from the leaf to the anchor.
    """


class PathBuilder:
    """
    Searches for paths from one leaf to anchors.

    Limits the signatures that it checks, so that each handshake needs its own.
    """

    def __init__(
        self, chain: Sequence[Certificate], names: Sequence[Domain], now: float
    ) -> None:
        """
        @param chain: As sent, leaf first, not empty.
        @param names: The names of which the leaf needs one.
        @param now: Unix seconds.
        """
        self.chain = tuple(chain[:MAX_CERTIFICATES])
        self._names = tuple(names)
        self._now = now
        self._left = MAX_SIGNATURES

    def checkUnder(self, anchor: Certificate) -> None:
        """
        Check that a path leads from the leaf to C{anchor}.

        @raise ChainError: There is no valid path.
        """
        self._search(self.chain[:1], (anchor,), lambda top: top == anchor)

    def checkUnderKey(self, key: bytes) -> bool:
        """
        Check that a path leads from the leaf to a certificate signed by C{key}.

        @param key: SubjectPublicKeyInfo.

        @return: False if the key has signed no certificate of the chain.

        @raise ChainError: It has signed one, but there is no valid path.
        """
        try:
            self._search(self.chain[:1], (), lambda top: self._isSignedBy(top, key))
        except AnchorNotReached:
            return False
        return True

    def _search(
        self,
        path: tuple[Certificate, ...],
        anchors: tuple[Certificate, ...],
        reached: Callable[[Certificate], bool],
    ) -> None:
        if reached(path[-1]):
            self._countSignature()
            self._checkPath(path)
            return
        failure: ChainError = AnchorNotReached("no way to the anchor")
        for issuer in (*anchors, *self.chain[1:]):
            if issuer in path or not self._hasIssued(issuer, path[-1]):
                continue
            try:
                self._search((*path, issuer), anchors, reached)
            except AnchorNotReached:
                continue
            except ChainError as error:
                failure = error
            else:
                return
        raise failure

    def _checkPath(self, path: tuple[Certificate, ...]) -> None:
        for certificate in path:
            begin = certificate.not_valid_before_utc.timestamp()
            end = certificate.not_valid_after_utc.timestamp()
            if not begin <= self._now <= end:
                raise ChainError("not valid now")
        for position in range(1, len(path)):
            checkIssuer(path[position], path[:position])
        checkLeaf(path[0], self._names)

    def _hasIssued(self, issuer: Certificate, certificate: Certificate) -> bool:
        if issuer.subject != certificate.issuer:
            return False
        self._countSignature()
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True

    def _isSignedBy(self, certificate: Certificate, key: bytes) -> bool:
        self._countSignature()
        try:
            return _verifies(certificate, key)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False

    def _countSignature(self) -> None:
        if self._left == 0:
            raise ChainError("too many signatures to check")
        self._left -= 1


def spki(certificate: Certificate) -> bytes:
    """
    The C{subjectPublicKeyInfo} of a certificate, as encoded in it.

    To load the key and encode it again fails for unknown algorithms, and could
    change the encoding of the parameters.
    """
    [content] = _elements(certificate.tbs_certificate_bytes)
    fields = list(_elements(content[1]))
    if fields[0][0] == _EXPLICIT_VERSION:
        fields.pop(0)
    return fields[_SPKI_POSITION][2]


def _elements(der: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """
    The tag, the content and the whole encoding of each element.
    """
    at = 0
    while at < len(der):
        length, start = der[at + 1], at + 2
        if length >= 0x80:
            octets = length - 0x80
            length = int.from_bytes(der[start : start + octets], "big")
            start += octets
        yield der[at], der[start : start + length], der[at : start + length]
        at = start + length


def _verifies(certificate: Certificate, der: bytes) -> bool:
    """
    True if a key verifies a certificate's signature.

    @raise Exception: One of those in L{PathBuilder._isSignedBy}: it doesn't.
    """
    key = load_der_public_key(der)
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    parameters = certificate.signature_algorithm_parameters
    digest = certificate.signature_hash_algorithm
    if isinstance(key, rsa.RSAPublicKey):
        if digest is None or not isinstance(
            parameters, (padding.PKCS1v15, padding.PSS)
        ):
            return False
        key.verify(signature, signed, parameters, digest)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(parameters, ec.ECDSA):
            return False
        key.verify(signature, signed, parameters)
    elif isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
        key.verify(signature, signed)
    else:
        return False
    return True
