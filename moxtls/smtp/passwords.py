# -*- test-case-name: tests.smtp.test_sasl -*-
"""
Passwords as they are kept: enough to check one, too little to use it.  No I/O.
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

#: RFC 7677 4 wants 4096 at least.
SCRAM_ITERATIONS = 15_000
MIN_ITERATIONS = 4096
#: Half of it goes to either kind of hash.
SALT_LENGTH = 32
#: Longer words are nobody's name or password.
MAX_SECRET_LENGTH = 1024

# RFC 9106 4 allows trading memory for passes; a mail server checks several
# passwords at a time, so it's a little memory each.
_ARGON_MEMORY = 19 * 1024  # KiB
_ARGON_PASSES = 2
_ARGON_LANES = 1
_ARGON_LENGTH = 32

#: No password has this hash; finding that out takes as long as ever.
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
    A text is not a stored password, or can't be a password at all.
    """


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """
    What a server keeps for SCRAM (RFC 5802 3).
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
        @raise InvalidPassword: C{password} can't be one.
        """
        salted = saltedPassword(password, salt, iterations)
        storedKey = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        return cls(salt, iterations, storedKey, _hmac(salted, b"Server Key"))

    def __str__(self) -> str:
        """
        As RFC 5803 2 writes it.
        """
        salt, stored, server = map(_base64, (self.salt, self.storedKey, self.serverKey))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """
    A password as it is kept: enough to check it, too little to use it.

    @ivar argon: For PLAIN and LOGIN, in the PHC string format.
    @ivar scram: For SCRAM-SHA-256.
    """

    argon: str
    scram: ScramKeys

    @classmethod
    def make(cls, password: str, salt: bytes) -> StoredPassword:
        """
        @param salt: C{SALT_LENGTH} bytes of chance.

        @raise InvalidPassword: C{password} can't be one.
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
        @raise InvalidPassword: C{text} is not what C{str} made.
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
        Whether C{password} is the one.  Takes tens of milliseconds: not for
        the reactor's thread.
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
    @param salt: C{SALT_LENGTH} bytes of chance.

    @return: One line for a password file.

    @raise InvalidPassword: C{password} can't be one.
    """
    return str(StoredPassword.make(password, salt))


def saslprep(text: str) -> str:
    """
    One form for each password, however it was typed (RFC 4013).

    @raise InvalidPassword: C{text} has characters that no password has.
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
        raise InvalidPassword("characters that can't be in a password")
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
    @raise InvalidPassword: C{password} can't be one.
    """
    prepared = saslprep(password)
    if not prepared or len(prepared) > MAX_SECRET_LENGTH:
        raise InvalidPassword("an empty or endless password")
    return prepared.encode("utf-8")


def saltedPassword(password: str, salt: bytes, iterations: int) -> bytes:
    """
    RFC 5802 3: Hi(Normalize(password), salt, i).

    @raise InvalidPassword: C{password} can't be one.
    """
    return hashlib.pbkdf2_hmac("sha256", preparedPassword(password), salt, iterations)


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
