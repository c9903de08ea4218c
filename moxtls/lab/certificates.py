# -*- test-case-name: tests.lab.test_certificates -*-
"""
The lab's certification authorities, and good and bad certificates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions, TLSVersion

from moxtls.lab.conditions import Certificate

_LIFETIME = timedelta(days=90)
# For clocks that differ a little.
_LEEWAY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """
    A private key, and the chain that goes with it, leaf first.
    """

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    def options(self) -> CertificateOptions:
        """
        To serve TLS with.
        """
        first, *others = map(crypto.X509.from_cryptography, self.chain)
        return CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(self.key),
            certificate=first,
            extraCertChain=others,
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )

    def context(self) -> SSL.Context:
        context: SSL.Context = self.options().getContext()
        return context

    def certificatePEM(self) -> bytes:
        """
        The chain, as it is kept in files.
        """
        pem = serialization.Encoding.PEM
        return b"".join(each.public_bytes(pem) for each in self.chain)

    def keyPEM(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


@dataclass(frozen=True, slots=True)
class LabCA:
    """
    A certification authority.

    @ivar now: Unix seconds: what is valid now and what isn't.
    """

    identity: Identity
    now: float

    @classmethod
    def make(cls, name: str, now: float) -> LabCA:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder([name], name, key, key, now, _LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
        builder = builder.add_extension(_CERTIFY, critical=True)
        return cls(Identity(key, (builder.sign(key, hashes.SHA256()),)), now)

    @property
    def certificate(self) -> x509.Certificate:
        return self.identity.leaf

    def issue(self, names: Sequence[str], lifetime: timedelta = _LIFETIME) -> Identity:
        """
        @param lifetime: From now; negative for what has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(issuer[0].value)
        signing = self.identity.key
        builder = _builder(names, name, key, signing, self.now, lifetime)
        builder = builder.add_extension(_alternativeNames(names), critical=False)
        leaf = builder.sign(signing, hashes.SHA256())
        return Identity(key, (leaf, self.certificate))


_CERTIFY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _alternativeNames(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(each) for each in names])


def selfSigned(name: str, now: float) -> Identity:
    """
    What nobody vouches for.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder([name], name, key, key, now, _LIFETIME)
    builder = builder.add_extension(_alternativeNames([name]), critical=False)
    return Identity(key, (builder.sign(key, hashes.SHA256()),))


def identityFor(
    condition: Certificate, host: str, ca: LabCA, otherCA: LabCA
) -> Identity | None:
    """
    What C{host} presents under C{condition}.
    """
    match condition:
        case Certificate.GOOD:
            return ca.issue([host])
        case Certificate.SELF_SIGNED:
            return selfSigned(host, ca.now)
        case Certificate.EXPIRED:
            return ca.issue([host], -timedelta(days=1))
        case Certificate.WRONG_NAME:
            return ca.issue([f"other.{host}"])
        case Certificate.OTHER_CA:
            return otherCA.issue([host])
        case Certificate.NONE:
            return None


def _builder(
    names: Sequence[str],
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    signing: ec.EllipticCurvePrivateKey,
    now: float,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(int(now), UTC)
    until = moment + lifetime
    return (
        x509.CertificateBuilder()
        .subject_name(_name(names[0]))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(moment, until - _LIFETIME) - _LEEWAY)
        .not_valid_after(until)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            False,
        )
    )


def _name(text: str) -> x509.Name:
    # X.520: a common name has at most 64 characters.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])
