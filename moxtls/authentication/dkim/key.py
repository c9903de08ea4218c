# -*- test-case-name: tests.authentication.dkim.test_key -*-
"""
The keys that domains publish (RFC 6376 3.6, RFC 8463 4).  No I/O.
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

#: RFC 8301 3.2 wants 4096; twice that is seen, and takes fifteen times as long
#: as 2048.
MAX_RSA_KEY = 8192
#: Octets of DER, with room for what is around the numbers.
_MAX_DER_LENGTH = MAX_RSA_KEY // 8 + 128
#: Bits.  Nearly all have 65537; the time it takes grows with it.
_MAX_EXPONENT_LENGTH = 32
#: Bits (RFC 8032 5.1.5).
_ED25519_SIZE = 256
#: Records that are remembered as read: of who sends a lot.
MAX_CACHED = 500
#: k= and the algorithm it is for.
_ALGORITHMS = {"rsa": Algorithm.RSA, "ed25519": Algorithm.ED25519}

_PADDING = PKCS1v15()
_HASH = Prehashed(SHA256())


class UnusableKey(ValueError):
    """
    A record holds no key that a signature can be checked with.
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
    @ivar isStrict: C{t=s}: for identities in the very domain only.
    """

    algorithm: Algorithm
    size: int
    public: RSAPublicKey | Ed25519PublicKey
    testing: bool = False
    isStrict: bool = False

    def accepts(self, proof: bytes, digest: bytes) -> bool:
        """
        @param digest: SHA-256 (RFC 8463 3: Ed25519 signs it too, not what it
            is of).
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
    Those that can be used are remembered: a key that was used once is also
    quicker to use, as OpenSSL prepares it then.

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
    @param data: SubjectPublicKeyInfo as everybody publishes it, or
        RSAPublicKey as RFC 6376 3.6.1 says.
    """
    tooLong = UnusableKey("the RSA key is too long", AuthResult.POLICY)
    # Before anything is computed.
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
