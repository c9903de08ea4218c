"""
Certificates for chains that are in order, or not in just one respect.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
)
from cryptography.x509.oid import NameOID

from moxtls.dns.types import TLSA
from tests.certificates import HasCertificate

#: When all of this happens.
NOW = 1_800_000_000.0
DAY = 86400.0


@dataclass(frozen=True)
class Made(HasCertificate):
    """
    A certificate and its key.
    """

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    def record(self, usage: int, selector: int, matching: int) -> TLSA:
        """
        The TLSA record that is about this certificate.
        """
        data = self.spki if selector else self.der
        if matching:
            name = {1: "sha256", 2: "sha512"}[matching]
            data = hashlib.new(name, data).digest()
        return TLSA(usage, selector, matching, data)


@dataclass(frozen=True)
class Traits:
    """
    The properties of a certificate, apart from its issuer.

    @ivar days: Begin and end of validity, in days from L{NOW}.
    @ivar ca: C{None} for no basicConstraints at all.
    """

    name: str
    hosts: tuple[str, ...] = ()
    days: tuple[float, float] = (-10, 10)
    ca: bool | None = False
    pathLength: int | None = None
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    key: str = "ec"


def make(traits: Traits, issuer: Made | None = None, keyOf: Made | None = None) -> Made:
    """
    @param issuer: C{None} for a self-signed certificate.
    @param keyOf: The certificate whose key to use; C{None} for a new one.
    """
    key = keyOf.key if keyOf else _key(traits.key)
    begin, end = (
        datetime.fromtimestamp(NOW, UTC) + timedelta(days=each) for each in traits.days
    )
    subject = _name(traits.name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension, critical in (*_standard(traits), *traits.extensions):
        builder = builder.add_extension(extension, critical)
    signer = issuer.key if issuer else key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Made(builder.sign(signer, digest), key)


def authority(name: str, issuer: Made | None = None, key: str = "ec") -> Made:
    """
    A certificate authority.
    """
    return make(Traits(name, ca=True, key=key), issuer)


def leaf(host: str, issuer: Made | None = None) -> Made:
    """
    A server's certificate.
    """
    return make(Traits(host, (host,)), issuer)


def _standard(traits: Traits) -> list[tuple[x509.ExtensionType, bool]]:
    found: list[tuple[x509.ExtensionType, bool]] = []
    if traits.ca is not None:
        found.append((x509.BasicConstraints(traits.ca, traits.pathLength), True))
    if traits.hosts:
        names = [x509.DNSName(host) for host in traits.hosts]
        found.append((x509.SubjectAlternativeName(names), False))
    return found


def _key(kind: str) -> CertificateIssuerPrivateKeyTypes:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
