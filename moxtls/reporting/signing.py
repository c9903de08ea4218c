# -*- test-case-name: tests.reporting.test_signing -*-
"""
DKIM signatures of reports (RFC 6376, RFC 8463), and in whose name they are
sent.  No I/O.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import dkim
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from moxtls.domain import Domain

#: RFC 8301 3.2: verifiers refuse anything shorter.
SHORTEST_RSA_KEY = 1024

# RFC 6376 5.4.1, and RFC 8460 5.3 for what is a report's own.  Each is named
# once more than it occurs, so that none can be added (RFC 6376 5.4.2).
_SIGNED = (
    "from",
    "to",
    "cc",
    "reply-to",
    "sender",
    "subject",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "tls-required",
    "tls-report-domain",
    "tls-report-submitter",
)


class InvalidKey(ValueError):
    """
    Something is not a private key that DKIM has an algorithm for.
    """


class NoSubmitter(Exception):
    """
    There is no domain in whose name a report can be signed.
    """


class Algorithm(StrEnum):
    """
    RFC 8301 3, RFC 8463 3.
    """

    RSA = "rsa-sha256"
    ED25519 = "ed25519-sha256"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """
    @ivar secret: As dkimpy wants it: PKCS #1 in PEM, or the seed in base64.
    @ivar public: The C{p=} tag of the record (RFC 6376 3.6.1, RFC 8463 4).
    """

    algorithm: Algorithm
    secret: bytes = field(repr=False)
    public: str


@dataclass(frozen=True, slots=True)
class Signer:
    """
    One selector of a domain.

    @ivar service: Which reports this key may sign alone: C{tlsrpt} if the
        selector's record says so (RFC 8460 3); empty for any mail.
    """

    domain: Domain
    selector: str
    key: SigningKey
    service: str = ""

    @property
    def recordName(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        """
        What is to be published (RFC 6376 3.6.1).
        """
        type = "rsa" if self.key.algorithm is Algorithm.RSA else "ed25519"
        service = f" s={self.service};" if self.service else ""
        return f"v=DKIM1; k={type};{service} p={self.key.public}"


def loadKey(pem: bytes) -> SigningKey:
    """
    @param pem: An RSA or Ed25519 private key, not encrypted.

    @raise InvalidKey: It is none, or too short.
    """
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidKey("not an unencrypted private key in PEM") from None
    if isinstance(key, Ed25519PrivateKey):
        return _ed25519(key)
    if not isinstance(key, RSAPrivateKey):
        raise InvalidKey("neither an RSA nor an Ed25519 key")
    if key.key_size < SHORTEST_RSA_KEY:
        raise InvalidKey(f"an RSA key of {key.key_size} bits is too short")
    return _rsa(key)


def sign(message: bytes, signers: Iterable[Signer]) -> bytes:
    """
    C{message} with a DKIM-Signature field for each of C{signers} in front.

    @param message: CRLF line ends.
    """
    fields = [_signature(message, signer) for signer in signers]
    return b"".join([*fields, message])


def findSubmitter(
    hostname: Domain,
    signers: Mapping[Domain, Sequence[Signer]],
    disabled: Collection[Domain] = (),
) -> Domain:
    """
    In whose name reports go out: the nearest configured domain at or above
    C{hostname}.

    Reading of RFC 8460 3: the signature is "by the reporting domain", so
    From, C{d=} and the submitter are all exactly this domain.

    @param signers: Of every configured domain; none if it can't sign.

    @raise NoSubmitter: With the reason, for people.
    """
    domain: Domain | None = hostname
    while domain is not None and domain not in signers:
        domain = domain.parent
    if domain is None:
        raise NoSubmitter(f"neither {hostname} nor a parent of it is configured")
    if domain in disabled:
        raise NoSubmitter(f"{domain} is switched off")
    if not signers[domain]:
        raise NoSubmitter(f"{domain} has no DKIM selector to sign with")
    return domain


def _signature(message: bytes, signer: Signer) -> bytes:
    signature: bytes = dkim.sign(
        message,
        signer.selector.encode("ascii"),
        signer.domain.ascii.encode("ascii"),
        signer.key.secret,
        canonicalize=(b"relaxed", b"relaxed"),
        signature_algorithm=str(signer.key.algorithm).encode("ascii"),
        include_headers=_headers(message),
        tlsrpt=True,  # RFC 8460 3: never l=.
    )
    return signature


def _headers(message: bytes) -> list[bytes]:
    block = message.partition(b"\r\n\r\n")[0].lower()
    lines = block.split(b"\r\n")
    names = [line.partition(b":")[0].strip() for line in lines]
    signed = [name.encode("ascii") for name in _SIGNED]
    return [name for name in signed for _ in range(names.count(name) + 1)]


def _rsa(key: RSAPrivateKey) -> SigningKey:
    secret = key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    return SigningKey(Algorithm.RSA, secret, _published(key.public_key()))


def _ed25519(key: Ed25519PrivateKey) -> SigningKey:
    seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = _published(key.public_key())
    return SigningKey(Algorithm.ED25519, base64.b64encode(seed), public)


def _published(key: RSAPublicKey | Ed25519PublicKey) -> str:
    if isinstance(key, RSAPublicKey):
        data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        data = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(data).decode("ascii")
