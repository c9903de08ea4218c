"""
A certificate authority and a server certificate of the usual kind: ECDSA on P-256.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

#: The server's name.
HOST = "mx.bench.example"


@dataclass(frozen=True, slots=True)
class Certified:
    """
    Certificates; the server needs C{pem}, the clients C{root}.

    @ivar pem: The server's key and certificate.
    """

    root: x509.Certificate
    pem: bytes


def certify() -> Certified:
    """
    Make the authority and the server's certificate.
    """
    authority = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("Root of Benchmarks", authority, authority, True)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _certificate(HOST, key, authority, False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certified(root, private + leaf.public_bytes(Encoding.PEM))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: ec.EllipticCurvePrivateKey,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    issuerName = name if authority else "Root of Benchmarks"
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuerName))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(authority, None), True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), False)
        .sign(issuer, hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def serverContext(pem: bytes) -> SSL.Context:
    """
    A context of servers that never resume a session: each handshake is a full one.
    """
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(x509.load_pem_x509_certificate(pem))
    context.use_privatekey(key)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    return context
