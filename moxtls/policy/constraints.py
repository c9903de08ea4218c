# -*- test-case-name: tests.policy.test_constraints -*-
"""
What a certificate may be used for by its own word (RFC 5280 4.2), and whom
it is for (RFC 7672 3.2.3).  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
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
#: Of names with the constraints of one authority.  There may be dozens of ways
#: from leaf to anchor, each with a dozen authorities.
MAX_COMPARISONS = 5000
_FOR_SERVERS = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)

T = TypeVar("T", bound=x509.ExtensionType)


class ChainError(Exception):
    """
    A chain of certificates doesn't lead where it should.
    """


def extensionsOf(certificate: Certificate) -> Extensions:
    """
    @raise ChainError: They can't be read, or mustn't be passed over.
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
    Whether C{issuer} may stand above C{below} in a chain (RFC 5280 6.1.4).

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
    Whether C{leaf} may be a server with one of C{names}.

    @raise ChainError: It may not.
    """
    extended = _get(extensionsOf(leaf), x509.ExtendedKeyUsage)
    if extended and not any(purpose in extended for purpose in _FOR_SERVERS):
        raise ChainError("not for servers")
    presented = dnsNames(leaf)
    if not any(_stands(pattern, name) for pattern in presented for name in names):
        raise ChainError("for another name")


def dnsNames(leaf: Certificate) -> tuple[str, ...]:
    """
    The DNS-IDs of C{leaf}; its CN-IDs if there are none (RFC 7672 3.2.3).

    The Web PKI has given up on CN (RFC 9525 2), but the anchors here are
    often private, and old; the RFC for DANE with SMTP still has it.

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


def _stands(pattern: str, name: Domain) -> bool:
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
