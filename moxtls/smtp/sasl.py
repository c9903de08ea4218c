# -*- test-case-name: tests.smtp.test_sasl -*-
"""
SASL mechanisms of a server: PLAIN (RFC 4616), LOGIN and SCRAM-SHA-256
(RFC 5802, RFC 7677).  No I/O.

Unknown user names get the same challenges, and take the same time to check, as
known ones: a client can't find out which checker exist.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from moxtls.smtp.passwords import (
    DUMMY_HASH,
    MAX_SECRET_LENGTH,
    SALT_LENGTH,
    SCRAM_ITERATIONS,
    ScramKeys,
    StoredPassword,
)

#: In order of preference.
MECHANISMS = ("SCRAM-SHA-256", "PLAIN", "LOGIN")

_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+\Z")  # RFC 5802 7: printable, no comma


@dataclass(frozen=True, slots=True)
class Challenge:
    """
    A challenge for the client to answer.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class PasswordAttempt:
    """
    A user name and a password, to be checked by L{CredentialsChecker.check}.
    """

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Authenticated:
    """
    The client is authenticated as C{user}.
    """

    user: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """
    Authentication failed, or the response is malformed.
    """


@dataclass(frozen=True, slots=True)
class Postponed:
    """
    The attempt wasn't checked, because of too many failures.
    """


SASLStep = Challenge | PasswordAttempt | Authenticated | Rejected | Postponed


class ServerExchange(Protocol):
    """
    One SASL exchange.

    @ivar user: The user name, once it was given in a response that was answered by
        a challenge; else empty.
    """

    user: str

    def step(self, response: bytes | None) -> SASLStep:
        """
        Process a response.

        @param response: C{None} if there was no initial response.
        """


class CredentialsChecker:
    """
    The accounts and their passwords.

    @param secret: Secret octets that stay the same between restarts, for the salts
        of unknown user names.
    """

    def __init__(self, users: Mapping[str, StoredPassword], secret: bytes) -> None:
        self._users = dict(users)
        self._secret = secret

    def check(self, attempt: PasswordAttempt) -> bool:
        """
        True if the password is correct.  Takes tens of milliseconds, for unknown
        users too: not for the reactor's thread.
        """
        stored = self._users.get(attempt.user)
        if stored is None:
            stored = StoredPassword(DUMMY_HASH, self._dummyKeys(attempt.user))
        return stored.verify(attempt.password) and attempt.user in self._users

    def scramKeys(self, user: str) -> ScramKeys:
        """
        The keys of C{user}; for unknown users, keys for which no proof exists.
        """
        stored = self._users.get(user)
        dummy = self._dummyKeys(user)
        return stored.scram if stored is not None else dummy

    def begin(self, mechanism: str, nonce: str) -> ServerExchange:
        """
        Start an exchange.

        @param mechanism: One of L{MECHANISMS}.
        @param nonce: For SCRAM: random printable ASCII without commas.
        """
        match mechanism:
            case "PLAIN":
                return _PlainServer()
            case "LOGIN":
                return _LoginServer()
            case _:
                return _ScramServer(self, nonce)

    def _dummyKeys(self, user: str) -> ScramKeys:
        seed = user.encode("utf-8", "surrogatepass")
        salt, stored, server = (
            _hmac(self._secret, label + seed) for label in (b"salt", b"stored", b"key")
        )
        return ScramKeys(salt[: SALT_LENGTH // 2], SCRAM_ITERATIONS, stored, server)


class _PlainServer:
    """
    RFC 4616.
    """

    user = ""

    def step(self, response: bytes | None) -> SASLStep:
        if response is None:
            return Challenge(b"")
        words = _text(response).split("\0")
        if len(words) != 3 or words[0] not in ("", words[1]):
            # RFC 4616 2: authorization as another user isn't supported.
            return Rejected()
        return _attempt(words[1], words[2])


class _LoginServer:
    """
    draft-murchison-sasl-login: never standardized, but widely used.
    """

    def __init__(self) -> None:
        self.user = ""
        self._isNamed = False

    def step(self, response: bytes | None) -> SASLStep:
        if response is None:
            return Challenge(b"Username:")
        if not self._isNamed:
            self._isNamed = True
            self.user = _text(response)
            return Challenge(b"Password:")
        return _attempt(self.user, _text(response))


class _ScramServer:
    """
    RFC 5802 5, without channel binding.
    """

    def __init__(self, checker: CredentialsChecker, nonce: str) -> None:
        self._checker = checker
        self._nonce = nonce
        self.user = ""
        self._header = ""
        self._messages = ""
        self._keys: ScramKeys | None = None
        self._proven = False

    def step(self, response: bytes | None) -> SASLStep:
        if response is None:
            return Challenge(b"")
        if self._proven:
            # RFC 4954 4: the client answers our signature with an empty response.
            return Rejected() if response else Authenticated(self.user)
        text = _text(response)
        return self._first(text) if self._keys is None else self._final(text)

    def _first(self, text: str) -> SASLStep:
        parts = text.split(",")
        # RFC 5802 6: "y" is a client that supports channel binding and believes that
        # the server doesn't, which is right.  "p" requires channel binding, "m" an
        # extension.
        if len(parts) < 4 or parts[0] not in ("n", "y"):
            return Rejected()
        flag, authzid, name, nonce = parts[:4]
        user = _unescaped(name.removeprefix("n=")) if name.startswith("n=") else None
        if user is None or authzid not in ("", f"a={name[2:]}"):
            return Rejected()
        if not nonce.startswith("r=") or not _NONCE.match(nonce[2:]):
            return Rejected()
        self.user, self._nonce = user, nonce[2:] + self._nonce
        self._header = f"{flag},{authzid},"
        self._keys = self._checker.scramKeys(user)
        salt = _base64(self._keys.salt)
        challenge = f"r={self._nonce},s={salt},i={self._keys.iterations}"
        self._messages = f"{text[len(self._header) :]},{challenge}"
        return Challenge(challenge.encode("ascii"))

    def _final(self, text: str) -> SASLStep:
        bare, _, proof = text.rpartition(",p=")
        binding = _base64(self._header.encode("utf-8"))
        expected = f"c={binding},r={self._nonce}"
        # RFC 5802 7: extensions may stand between the nonce and the proof.
        if bare != expected and not bare.startswith(expected + ","):
            return Rejected()
        signed = f"{self._messages},{bare}".encode()
        if self._keys is None or not _isProof(self._keys, signed, proof):
            return Rejected()
        self._proven = True
        signature = _base64(_hmac(self._keys.serverKey, signed))
        return Challenge(f"v={signature}".encode("ascii"))


def _attempt(user: str, password: str) -> PasswordAttempt | Rejected:
    if not user or not password or max(len(user), len(password)) > MAX_SECRET_LENGTH:
        return Rejected()
    return PasswordAttempt(user, password)


def _text(data: bytes) -> str:
    """
    Decode UTF-8; other input becomes an empty text, which authenticates nobody.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _unescaped(name: str) -> str | None:
    # RFC 5802 5.1: "," and "=" are escaped, and nothing else is.
    plain = name.replace("=2C", "").replace("=3D", "")
    if not name or "=" in plain or len(name) > MAX_SECRET_LENGTH:
        return None
    return name.replace("=2C", ",").replace("=3D", "=")


def _isProof(keys: ScramKeys, signed: bytes, proof: str) -> bool:
    given = _unbase64(proof) or b""
    if len(given) != len(keys.storedKey):
        return False
    clientKey = _xor(given, _hmac(keys.storedKey, signed))
    return hmac.compare_digest(hashlib.sha256(clientKey).digest(), keys.storedKey)


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
