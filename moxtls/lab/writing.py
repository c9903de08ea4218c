# -*- test-case-name: tests.lab.test_writing -*-
"""
Messages as their authors write and sign them, and what lists make of them.
No I/O.

They are signed by somebody else's code, so that what checks them here isn't
what made them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from email.utils import formatdate

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from moxtls.lab.keys import DKIMKey
from moxtls.lab.letters import LabMessage
from moxtls.lab.senders import BY_NAME

#: By the name of a sender.
SenderKeys = Mapping[str, Sequence[DKIMKey]]


def writtenLetter(
    letter: LabMessage, keys: SenderKeys, now: float, token: str
) -> bytes:
    """
    A message as it comes in.

    @param now: Unix seconds.
    @param token: Makes it differ from others that are the same.
    """
    message = _written(letter, now, token)
    for name in letter.signers:
        message = _signed(message, name, keys[name])
    if letter.through:
        message = _listed(message, letter.through)
        message = _signed(message, letter.through, keys[letter.through])
    return message


def messageID(letter: LabMessage, token: str) -> str:
    """
    What it can be found by.
    """
    return f"<{letter.name}.{token}@{letter.author}>"


def _written(letter: LabMessage, now: float, token: str) -> bytes:
    lines = (
        f"From: Somebody <somebody@{letter.author}>",
        f"To: {letter.to.capitalize()} <{letter.recipient}>",
        f"Subject: {letter.explanation}",
        f"Date: {formatdate(now)}",
        f"Message-ID: {messageID(letter, token)}",
        "",
        f"Hello {letter.to.capitalize()},",
        "",
        f"what DMARC has to say of this message is: {letter.expected.dmarc}.",
        "",
    )
    return "\r\n".join(lines).encode("ascii")


def _listed(message: bytes, name: str) -> bytes:
    """
    What lists do: a mark of theirs, and some words below.
    """
    domain = BY_NAME[name].domain
    footer = f"-- \r\nYou get this since you are on the list announce@{domain}.\r\n"
    mark = f"List-Id: Announcements <announce.{domain}>\r\n"
    return mark.encode("ascii") + message + footer.encode("ascii")


def _signed(message: bytes, name: str, keys: Sequence[DKIMKey]) -> bytes:
    """
    With the signatures of all C{keys}, the last on top.
    """
    domain = BY_NAME[name].domain.encode("ascii")
    signatures = [
        dkim.sign(
            message,
            key.selector.encode("ascii"),
            domain,
            _secret(key),
            signature_algorithm=key.algorithm.encode("ascii"),
        )
        for key in keys
    ]
    return b"".join(reversed(signatures)) + message


def _secret(key: DKIMKey) -> bytes:
    """
    As C{dkimpy} takes it.
    """
    loaded = load_pem_private_key(key.pem, None)
    if isinstance(loaded, Ed25519PrivateKey):
        return base64.b64encode(loaded.private_bytes_raw())
    return key.pem
