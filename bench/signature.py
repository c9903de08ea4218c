"""
The sender of the messages sent to servers, and its DKIM key: RSA-2048, as most have.
"""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from moxtls.authentication.dkim.sign import Signer, loadKey
from moxtls.domain import Domain

DOMAIN = "client.bench.example"
SELECTOR = "s"


@cache
def signer() -> Signer:
    """
    A signer with one key for the life of this process.
    """
    key = generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    return Signer(Domain(DOMAIN), SELECTOR, loadKey(key))
