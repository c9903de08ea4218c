"""
Certificates made on the spot.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from moxtls.tls.openssl import TrustStore, trustStoreOf

_DAY = timedelta(days=1)


class HasCertificate:
    """
    The encoded forms of a certificate that TLSA records have.
    """

    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki(self) -> bytes:
        public = self.certificate.public_key()
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Identity(HasCertificate):
    """
    A certificate, its key, and its chain.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    issuers: tuple[x509.Certificate, ...] = ()

    def issue(self, *hosts: str, days: int = 30, authority: bool = False) -> Identity:
        """
        A certificate signed by this one.

        @param days: For how long it is valid; negative if it has expired.
        """
        certificate, key = _make(hosts, days, authority, self)
        roots = self.certificate.issuer == self.certificate.subject
        return Identity(
            certificate, key, () if roots else (self.certificate, *self.issuers)
        )

    def withRoot(self, root: Identity) -> Self:
        """
        The same identity with the root appended to its chain, as DANE-TA requires.
        """
        issuers = (*self.issuers, root.certificate)
        return type(self)(self.certificate, self.key, issuers)

    @property
    def pem(self) -> bytes:
        """
        Key and certificates.
        """
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = (self.certificate, *self.issuers)
        return key + b"".join(each.public_bytes(Encoding.PEM) for each in chain)

    def context(self) -> SSL.Context:
        """
        For a server that presents this.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        for each in self.issuers:
            context.add_extra_chain_cert(each)
        return context


def selfSigned(
    *hosts: str, days: int = 30, authority: bool = False, name: str = ""
) -> Identity:
    """
    A certificate that vouches for itself.
    """
    certificate, key = _make(hosts, days, authority, None, name)
    return Identity(certificate, key)


@functools.cache
def root() -> Identity:
    """
    The authority that tests trust.
    """
    return selfSigned(name="Root of Tests", authority=True)


@functools.cache
def good(host: str = "mx.example") -> Identity:
    """
    A certificate for C{host} that is trusted.
    """
    return root().issue(host)


def trusting(*roots: Identity) -> TrustStore:
    """
    For clients to which only C{roots} are authorities.
    """
    return trustStoreOf(each.certificate for each in roots)


def _make(
    hosts: tuple[str, ...],
    days: int,
    authority: bool,
    issuer: Identity | None,
    name: str = "",
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name or "".join(hosts[:1]))
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 90 * _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.BasicConstraints(authority, None), True)
    )
    if hosts:
        names = [x509.DNSName(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    signer = issuer.key if issuer else key
    return builder.sign(signer, hashes.SHA256()), key


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
