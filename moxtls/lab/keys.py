# -*- test-case-name: tests.lab.test_runner -*-
"""
The keys and certificates of the lab: DKIM keys of senders, and certification
authorities with valid and invalid certificates of hosts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions, TLSVersion

from moxtls.lab.plan import MailHost, Publication
from moxtls.lab.scenario import Certificate, Records
from moxtls.lab.senders import SENDERS, KeyRecords

RSA_BITS = 2048
RSA_SELECTOR = "lab-rsa"
ED25519_SELECTOR = "lab-ed25519"


@dataclass(frozen=True, slots=True)
class DKIMKey:
    """
    A DKIM key pair.

    @ivar algorithm: As in the configuration.
    @ivar pem: The private key.
    @ivar record: The contents of the key record (RFC 6376 3.6.1).
    """

    selector: str
    algorithm: str
    pem: bytes
    record: str


@dataclass(frozen=True, slots=True)
class KeyRing:
    """
    All keys and certificates.

    @ivar identities: By host; C{None} for one without TLS.
    """

    ca: LabCA
    identities: dict[str, Identity | None]
    dkim: tuple[DKIMKey, ...]
    publication: Publication


def makeKeys(hosts: Sequence[MailHost], now: float) -> KeyRing:
    """
    @param now: Unix seconds.
    """
    ca = LabCA.make("moxtls lab CA", now)
    other = LabCA.make("unknown to all but DANE", now)
    identities = {
        host.name: identityFor(host.certificate, host.name, ca, other) for host in hosts
    }
    dkim = (rsaKey(), ed25519Key())
    tlsa = {
        host.name: _records(host.tlsa, identities[host.name])
        for host in hosts
        if host.tlsa is not Records.NONE
    }
    publication = Publication(tlsa, {each.selector: each.record for each in dkim})
    return KeyRing(ca, identities, dkim, publication)


def makeSenderKeys() -> dict[str, tuple[DKIMKey, ...]]:
    """
    The DKIM keys of each sender, by its name.
    """
    return {
        each.name: (rsaKey(), ed25519Key()) if each.signsTwice else (ed25519Key(),)
        for each in SENDERS
    }


def publishedKeys(keys: Mapping[str, Sequence[DKIMKey]]) -> KeyRecords:
    """
    The key records of senders.
    """
    return {
        name: {each.selector: each.record for each in some}
        for name, some in keys.items()
    }


def _records(wanted: Records, identity: Identity | None) -> tuple[str, ...]:
    """
    TLSA records for a host (RFC 6698 2.1).
    """
    assert identity is not None
    key = identity.leaf.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    leafKey = hashlib.sha256(spki).hexdigest()
    issuer = hashlib.sha256(identity.chain[-1].public_bytes(Encoding.DER)).hexdigest()
    match wanted:
        case Records.NONE:
            return ()
        case Records.EE:
            return (f"3 1 1 {leafKey}",)
        case Records.TA:
            return (f"2 0 1 {issuer}",)
        case Records.MISMATCH:
            return (f"3 1 1 {hashlib.sha256(b'another key').hexdigest()}",)
        case Records.UNUSABLE:
            # RFC 7672 3.1.3: these two usages make no sense in SMTP.
            return (f"0 0 1 {issuer}", f"1 1 1 {leafKey}")


def rsaKey() -> DKIMKey:
    key = rsa.generate_private_key(65537, RSA_BITS)
    spki = key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    record = f"v=DKIM1; k=rsa; p={base64.b64encode(spki).decode('ascii')}"
    return DKIMKey(RSA_SELECTOR, "rsa-sha256", _pem(key), record)


def ed25519Key() -> DKIMKey:
    # RFC 8463 4: the bare key, without the ASN.1 around it.
    key = ed25519.Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    record = f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode('ascii')}"
    return DKIMKey(ED25519_SELECTOR, "ed25519-sha256", _pem(key), record)


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


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
        The context factory of a TLS server.
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
        The chain as PEM.
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

    @ivar now: Unix seconds, the reference for validity periods.
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
        Issue a certificate.

        @param lifetime: From now; negative for an expired one.
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
    A self-signed certificate.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder([name], name, key, key, now, _LIFETIME)
    builder = builder.add_extension(_alternativeNames([name]), critical=False)
    return Identity(key, (builder.sign(key, hashes.SHA256()),))


def identityFor(
    condition: Certificate, host: str, ca: LabCA, otherCA: LabCA
) -> Identity | None:
    """
    The certificate of C{host} for C{condition}.
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
