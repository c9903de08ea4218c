"""
A SCRAM-SHA-256 client (RFC 5802, RFC 7677), to test servers with.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode

from moxtls.smtp.passwords import MIN_ITERATIONS, preparedPassword, saltedPassword

MAX_ITERATIONS = 1_000_000

_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+\Z")  # RFC 5802 7: printable, no comma


class ScramClient:
    """
    Runs SCRAM-SHA-256 (RFC 5802 5) without channel binding.

    @ivar satisfied: True once the server has proved that it knows the password:
        before that, its success reply isn't to be trusted.
    """

    def __init__(self, user: str, password: str, nonce: str) -> None:
        """
        @param nonce: Random printable ASCII without commas.

        @raise InvalidPassword: C{password} is not valid.
        """
        name = user.replace("=", "=3D").replace(",", "=2C")
        self._password = password
        self._nonce = nonce
        self._bare = f"n={name},r={nonce}"
        self._signature: bytes | None = None
        self.satisfied = False
        preparedPassword(password)

    def initial(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def respond(self, challenge: bytes) -> bytes | None:
        """
        @return: C{None} to cancel the exchange: the challenge is malformed or
            the server's signature is wrong.
        """
        text = challenge.decode("utf-8", "replace")
        if self._signature is None:
            return self._prove(text)
        theirs = _unbase64(text.removeprefix("v=").partition(",")[0])
        if not text.startswith("v=") or theirs is None:
            return None
        self.satisfied = hmac.compare_digest(theirs, self._signature)
        return b"" if self.satisfied else None

    def _prove(self, text: str) -> bytes | None:
        asked = _serverFirst(text)
        if asked is None or not asked[0].startswith(self._nonce):
            return None
        nonce, salt, iterations = asked
        final = f"c={_base64(b'n,,')},r={nonce}"
        signed = f"{self._bare},{text},{final}".encode()
        salted = saltedPassword(self._password, salt, iterations)
        clientKey = _hmac(salted, b"Client Key")
        proof = _xor(clientKey, _hmac(hashlib.sha256(clientKey).digest(), signed))
        self._signature = _hmac(_hmac(salted, b"Server Key"), signed)
        return f"{final},p={_base64(proof)}".encode("ascii")


def _serverFirst(text: str) -> tuple[str, bytes, int] | None:
    found = re.match(r"r=([^,]+),s=([^,]+),i=([0-9]{1,7})(?:,|\Z)", text)
    salt = _unbase64(found[2]) if found else None
    if found is None or not salt or not _NONCE.match(found[1]):
        return None
    iterations = int(found[3])
    if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        return None
    return found[1], salt, iterations


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _unbase64(text: str) -> bytes | None:
    try:
        return b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        return None
