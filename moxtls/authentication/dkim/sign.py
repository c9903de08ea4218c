# -*- test-case-name: tests.authentication.dkim.test_sign -*-
"""
Signs reports with DKIM (RFC 6376, RFC 8463), and chooses the domain that submits
them.  No I/O.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from moxtls.authentication.dkim.canonical import (
    BodyScope,
    Canonicalization,
    Fields,
    canonicalFields,
    hashBody,
    headerHash,
)
from moxtls.domain import Domain
from moxtls.message.header import splitMessage

#: RFC 8301 3.2: verifiers refuse shorter keys.
MIN_RSA_KEY_BITS = 1024

# RFC 6376 5.4.1, and RFC 8460 5.3 for the fields of TLS reports.  Each name is listed
# once more than the field occurs, so that none can be added (RFC 6376 5.4.2).
_SIGNED = (
    b"from",
    b"to",
    b"cc",
    b"reply-to",
    b"sender",
    b"subject",
    b"date",
    b"message-id",
    b"in-reply-to",
    b"references",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"tls-required",
    b"tls-report-domain",
    b"tls-report-submitter",
)
_NAME = b"DKIM-Signature"
#: RFC 5322 2.1.1
_LINE = 78
_BODY = BodyScope(Canonicalization.RELAXED)


class InvalidKey(ValueError):
    """
    No private key of an algorithm that DKIM has.
    """


class NoSubmitter(Exception):
    """
    No domain in whose name a report can be signed.
    """


class Algorithm(StrEnum):
    """
    The values of C{a=} (RFC 8301 3, RFC 8463 3).
    """

    RSA = "rsa-sha256"
    ED25519 = "ed25519-sha256"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """
    @ivar public: The C{p=} tag of the record (RFC 6376 3.6.1, RFC 8463 4).
    """

    algorithm: Algorithm
    secret: RSAPrivateKey | Ed25519PrivateKey = field(repr=False)
    public: str

    def sign(self, digest: bytes) -> bytes:
        """
        @param digest: SHA-256 (RFC 8463 3: Ed25519 signs the digest, too).
        """
        if isinstance(self.secret, RSAPrivateKey):
            return self.secret.sign(digest, PKCS1v15(), Prehashed(SHA256()))
        return self.secret.sign(digest)


@dataclass(frozen=True, slots=True)
class Signer:
    """
    A selector of a domain, with its key.

    @ivar service: C{tlsrpt} if the key is for TLS reports only (C{s=} of its record,
        RFC 8460 3); empty for any mail.
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
        The key record to be published (RFC 6376 3.6.1).
        """
        type = "rsa" if self.key.algorithm is Algorithm.RSA else "ed25519"
        service = f" s={self.service};" if self.service else ""
        return f"v=DKIM1; k={type};{service} p={self.key.public}"


def loadKey(pem: bytes) -> SigningKey:
    """
    @param pem: An unencrypted RSA or Ed25519 private key.

    @raise InvalidKey: With the reason, for people.
    """
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        # cryptography raises this for encrypted keys.
        raise InvalidKey("a private key without a passphrase is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKey("not an unencrypted private key in PEM") from None
    if isinstance(key, Ed25519PrivateKey):
        return SigningKey(Algorithm.ED25519, key, _published(key.public_key()))
    if not isinstance(key, RSAPrivateKey):
        raise InvalidKey("neither an RSA nor an Ed25519 key")
    if key.key_size < MIN_RSA_KEY_BITS:
        raise InvalidKey(f"an RSA key of {key.key_size} bits is too short")
    return SigningKey(Algorithm.RSA, key, _published(key.public_key()))


def sign(message: bytes, signers: Iterable[Signer]) -> bytes:
    """
    C{message} with a DKIM-Signature field for each of C{signers} prepended.

    @param message: With CRLF line ends.
    """
    header, body = splitMessage(message)
    fields = canonicalFields(header, Canonicalization.RELAXED)
    names = [each for each in _SIGNED for _ in range(len(fields.get(each, ())) + 1)]
    digest = hashBody([body], {_BODY})[_BODY].digest
    signatures = [_signature(each, fields, names, digest) for each in signers]
    return b"".join([*signatures, message])


def findSubmitter(
    hostname: Domain,
    signers: Mapping[Domain, Sequence[Signer]],
    disabled: Collection[Domain] = (),
) -> Domain:
    """
    The domain that submits reports: the nearest configured domain at or above
    C{hostname}.

    Reading of RFC 8460 3: the signature is "by the reporting domain", so From, C{d=}
    and the submitter are all exactly this domain.

    @param signers: Of every configured domain; empty for domains without a key.

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


def _signature(
    signer: Signer, fields: Fields, names: Sequence[bytes], bodyHash: bytes
) -> bytes:
    """
    One DKIM-Signature field with its CRLF.

    @param fields: The header, canonicalized.
    @param names: C{h=}.
    @param bodyHash: SHA-256 of the canonicalized body.
    """
    # Without l= (RFC 8460 3), and without t=: Date is signed and gives the time.
    field = b"%b:%b" % (
        _NAME,
        _folded(
            b"v=1;",
            b"a=%b;" % str(signer.key.algorithm).encode("ascii"),
            b"c=relaxed/relaxed;",
            b"d=%b;" % signer.domain.ascii.encode("ascii"),
            b"s=%b;" % signer.selector.encode("ascii"),
            *(b"h=%b;" % b": ".join(names)).split(b" "),
            b"bh=%b;" % base64.b64encode(bodyHash),
            b"b=",
        ),
    )
    digest = headerHash(fields, names, field, Canonicalization.RELAXED)
    proof = base64.b64encode(signer.key.sign(digest))
    width = _LINE - 1
    lines = [proof[start : start + width] for start in range(0, len(proof), width)]
    return b"%b\r\n %b\r\n" % (field, b"\r\n ".join(lines))


def _folded(*words: bytes) -> bytes:
    """
    The value of a DKIM-Signature field, folded between C{words}.
    """
    lines = [b""]
    room = _LINE - len(_NAME) - 1
    for word in words:
        if len(lines[-1]) + 1 + len(word) > room:
            lines.append(b"")
            room = _LINE
        lines[-1] += b" %b" % word
    return b"\r\n".join(lines)


def _published(key: RSAPublicKey | Ed25519PublicKey) -> str:
    if isinstance(key, RSAPublicKey):
        data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        data = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(data).decode("ascii")
