# -*- test-case-name: tests.authentication.dkim.test_key -*-
"""
DKIM key records (RFC 6376 3.6, RFC 8463 4).  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from moxtls.authentication.dkim.sign import MIN_RSA_KEY_BITS, Algorithm
from moxtls.authentication.results import AuthResult
from moxtls.taglist import colonList, decodeBase64, parseTagList

#: Bits.  RFC 8301 3.2 requires 4096; keys of twice that exist, and take fifteen times
#: as long as 2048.
MAX_RSA_KEY = 8192
#: Octets of DER, with room for the ASN.1 structure.
_MAX_DER_LENGTH = MAX_RSA_KEY // 8 + 128
#: Bits of the public exponent.  Nearly all keys have 65537; the time of a verification
#: grows with it.
_MAX_EXPONENT_LENGTH = 32
#: Bits (RFC 8032 5.1.5).
_ED25519_SIZE = 256
#: Entries in the cache of keys.
MAX_CACHED = 500
#: C{k=} and its algorithm.
_ALGORITHMS = {"rsa": Algorithm.RSA, "ed25519": Algorithm.ED25519}

_PADDING = PKCS1v15()
_HASH = Prehashed(SHA256())


class UnusableKey(ValueError):
    """
    A key record without a usable key.
    """

    def __init__(self, problem: str, status: AuthResult = AuthResult.PERMERROR) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status


@dataclass(frozen=True, slots=True)
class PublicKey:
    """
    @ivar size: Bits.
    @ivar testing: C{t=y}.
    @ivar isStrict: C{t=s}: C{i=} has to have the same domain as C{d=}.
    """

    algorithm: Algorithm
    size: int
    public: RSAPublicKey | Ed25519PublicKey
    testing: bool = False
    isStrict: bool = False

    def accepts(self, proof: bytes, digest: bytes) -> bool:
        """
        True if C{proof} is a signature of C{digest} by this key.

        @param digest: SHA-256 (RFC 8463 3: Ed25519 signs the digest, too).
        """
        try:
            if isinstance(self.public, RSAPublicKey):
                self.public.verify(proof, digest, _PADDING, _HASH)
            else:
                self.public.verify(proof, digest)
        except InvalidSignature:
            return False
        return True


@lru_cache(MAX_CACHED)
def parseKeyRecord(text: bytes) -> PublicKey:
    """
    The key in a record.  Keys are cached: OpenSSL prepares a key at its first use, so
    that later ones are faster.

    @param text: A TXT record.

    @raise UnusableKey: With the reason, for people.
    """
    tags = parseTagList(text)
    if tags.problem:
        raise UnusableKey("the key record is malformed")
    # RFC 6376 3.6.1: the first tag, if it is there.
    if "v" in tags.values and next(iter(tags.values.items())) != ("v", "DKIM1"):
        raise UnusableKey("the key record is not of version DKIM1")
    algorithm = _ALGORITHMS.get(tags.get("k", "rsa").lower())
    if algorithm is None:
        raise UnusableKey("the key is of an unknown type")
    if "sha256" not in colonList(tags.get("h", "sha256")):
        raise UnusableKey("the key is not for SHA-256")
    if not {"email", "*"} & set(colonList(tags.get("s", "*"))):
        raise UnusableKey("the key is not for mail")
    flags = colonList(tags.get("t"))
    size, public = _load(algorithm, _data(tags.values))
    return PublicKey(algorithm, size, public, "y" in flags, "s" in flags)


def _data(values: dict[str, str]) -> bytes:
    if "p" not in values:
        raise UnusableKey("the key record has no key")
    if not values["p"]:
        raise UnusableKey("the key is revoked")
    try:
        return decodeBase64(values["p"])
    except ValueError:
        raise UnusableKey("the key is not base64") from None


def _load(
    algorithm: Algorithm, data: bytes
) -> tuple[int, RSAPublicKey | Ed25519PublicKey]:
    if algorithm is Algorithm.RSA:
        key = _loadRSA(data)
        return key.key_size, key
    try:
        return _ED25519_SIZE, Ed25519PublicKey.from_public_bytes(data)
    except ValueError:
        raise UnusableKey("the key is not an Ed25519 key") from None


def _loadRSA(data: bytes) -> RSAPublicKey:
    """
    @param data: SubjectPublicKeyInfo, as is usual, or RSAPublicKey, as in
        RFC 6376 3.6.1.
    """
    tooLong = UnusableKey("the RSA key is too long", AuthResult.POLICY)
    # Checked before any computation.
    if len(data) > _MAX_DER_LENGTH:
        raise tooLong
    try:
        key = load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey):
        raise UnusableKey("the key is not an RSA key")
    if key.key_size < MIN_RSA_KEY_BITS:
        # RFC 8301 3.2.
        raise UnusableKey("the RSA key is too short", AuthResult.POLICY)
    exponent = key.public_numbers().e
    if key.key_size > MAX_RSA_KEY or exponent.bit_length() > _MAX_EXPONENT_LENGTH:
        raise tooLong
    return key
