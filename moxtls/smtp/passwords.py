# -*- test-case-name: tests.smtp.test_sasl -*-
"""
Password hashes: Argon2 for PLAIN and LOGIN, and SCRAM-SHA-256 keys.  No I/O.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from dataclasses import dataclass

from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import Type, hash_secret, verify_secret

#: RFC 7677 4 requires 4096 at least.
SCRAM_ITERATIONS = 15_000
MIN_ITERATIONS = 4096
#: In octets; half of it is for each kind of hash.
SALT_LENGTH = 32
#: Characters of a user name or password.
MAX_SECRET_LENGTH = 1024

# RFC 9106 4 allows trading memory for passes.  A mail server checks several
# passwords at a time, so each uses little memory.
_ARGON_MEMORY = 19 * 1024  # KiB
_ARGON_PASSES = 2
_ARGON_LANES = 1
_ARGON_LENGTH = 32

#: No password has this hash; checking against it takes the usual time.
DUMMY_HASH = (
    f"$argon2id$v=19$m={_ARGON_MEMORY},t={_ARGON_PASSES},p={_ARGON_LANES}"
    f"${'A' * 22}${'A' * 43}"
)

_STORED = re.compile(
    r"(\$argon2id\$[!-~]+) SCRAM-SHA-256"
    r"\$([0-9]{1,7}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)\Z"
)


class InvalidPassword(ValueError):
    """
    A text is not a valid stored password, or not a valid password.
    """


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """
    The keys that a server stores for SCRAM (RFC 5802 3).
    """

    salt: bytes
    iterations: int
    storedKey: bytes
    serverKey: bytes

    @classmethod
    def derive(
        cls, password: str, salt: bytes, iterations: int = SCRAM_ITERATIONS
    ) -> ScramKeys:
        """
        Derive the keys from a password.

        @raise InvalidPassword: C{password} is not valid.
        """
        salted = saltedPassword(password, salt, iterations)
        storedKey = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        return cls(salt, iterations, storedKey, _hmac(salted, b"Server Key"))

    def __str__(self) -> str:
        """
        The format of RFC 5803 2.
        """
        salt, stored, server = map(_base64, (self.salt, self.storedKey, self.serverKey))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """
    The hashes of a password, which allow checking it but not recovering it.

    @ivar argon: For PLAIN and LOGIN, in the PHC string format.
    @ivar scram: For SCRAM-SHA-256.
    """

    argon: str
    scram: ScramKeys

    @classmethod
    def make(cls, password: str, salt: bytes) -> StoredPassword:
        """
        Hash a password.

        @param salt: C{SALT_LENGTH} random octets.

        @raise InvalidPassword: C{password} is not valid.
        """
        half = len(salt) // 2
        argon = hash_secret(
            preparedPassword(password),
            salt[:half],
            time_cost=_ARGON_PASSES,
            memory_cost=_ARGON_MEMORY,
            parallelism=_ARGON_LANES,
            hash_len=_ARGON_LENGTH,
            type=Type.ID,
        )
        scram = ScramKeys.derive(password, salt[half:])
        return cls(argon.decode("ascii"), scram)

    @classmethod
    def parse(cls, text: str) -> StoredPassword:
        """
        Parse the format of C{str}.

        @raise InvalidPassword: C{text} is malformed.
        """
        found = _STORED.match(text)
        if found is None or int(found[2]) < MIN_ITERATIONS:
            raise InvalidPassword("not a stored password")
        try:
            salt, stored, server = (
                b64decode(found[n], validate=True) for n in (3, 4, 5)
            )
        except ValueError:
            raise InvalidPassword("not a stored password") from None
        return cls(found[1], ScramKeys(salt, int(found[2]), stored, server))

    def verify(self, password: str) -> bool:
        """
        True if C{password} is correct.  Takes tens of milliseconds: not for the
        reactor's thread.
        """
        try:
            return verify_secret(
                self.argon.encode("ascii"), preparedPassword(password), Type.ID
            )
        except (Argon2Error, InvalidHashError, InvalidPassword):
            return False

    def __str__(self) -> str:
        return f"{self.argon} {self.scram}"


def hashPassword(password: str, salt: bytes) -> str:
    """
    Hash a password for a password file.

    @param salt: C{SALT_LENGTH} random octets.

    @return: One line for a password file.

    @raise InvalidPassword: C{password} is not valid.
    """
    return str(StoredPassword.make(password, salt))


def saslprep(text: str) -> str:
    """
    Normalize a password (RFC 4013).

    @raise InvalidPassword: C{text} has prohibited characters.
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if any(_isProhibited(char) for char in prepared) or not _isOneWay(prepared):
        raise InvalidPassword("prohibited characters in a password")
    return prepared


def _isProhibited(char: str) -> bool:
    # RFC 4013 2.3.
    return (
        stringprep.in_table_c12(char)
        or stringprep.in_table_c21_c22(char)
        or stringprep.in_table_c3(char)
        or stringprep.in_table_c4(char)
        or stringprep.in_table_c5(char)
        or stringprep.in_table_c6(char)
        or stringprep.in_table_c7(char)
        or stringprep.in_table_c8(char)
        or stringprep.in_table_c9(char)
    )


def _isOneWay(text: str) -> bool:
    # RFC 3454 6.
    if not any(map(stringprep.in_table_d1, text)):
        return True
    inside = not any(map(stringprep.in_table_d2, text))
    return inside and all(map(stringprep.in_table_d1, (text[0], text[-1])))


def preparedPassword(password: str) -> bytes:
    """
    Normalize and encode a password.

    @raise InvalidPassword: C{password} is not valid.
    """
    prepared = saslprep(password)
    if not prepared or len(prepared) > MAX_SECRET_LENGTH:
        raise InvalidPassword("an empty or too long password")
    return prepared.encode("utf-8")


def saltedPassword(password: str, salt: bytes, iterations: int) -> bytes:
    """
    RFC 5802 3: Hi(Normalize(password), salt, i).

    @raise InvalidPassword: C{password} is not valid.
    """
    return hashlib.pbkdf2_hmac("sha256", preparedPassword(password), salt, iterations)


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
