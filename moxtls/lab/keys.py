# -*- test-case-name: tests.lab.test_run -*-
"""
The keys of the lab: of its hosts, of the domain that mail is sent from, and of
those that mail comes from.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from moxtls.lab.certificates import Identity, LabCA, identityFor
from moxtls.lab.conditions import Records
from moxtls.lab.plan import MailHost, Publication
from moxtls.lab.senders import SENDERS

RSA_BITS = 2048
RSA_SELECTOR = "lab-rsa"
ED25519_SELECTOR = "lab-ed25519"


@dataclass(frozen=True, slots=True)
class DKIMKey:
    """
    @ivar algorithm: As in the configuration.
    @ivar pem: The private key.
    @ivar record: What is published of it (RFC 6376 3.6.1).
    """

    selector: str
    algorithm: str
    pem: bytes
    record: str


@dataclass(frozen=True, slots=True)
class KeyRing:
    """
    @ivar identities: By host; C{None} for one without TLS.
    """

    ca: LabCA
    identities: dict[str, Identity | None]
    dkim: tuple[DKIMKey, ...]
    publication: Publication


def makeKeys(hosts: Sequence[MailHost], now: float) -> KeyRing:
    """
    @param now: Unix seconds.
    """
    ca = LabCA.make("moxtls lab CA", now)
    other = LabCA.make("unknown to all but DANE", now)
    identities = {
        host.name: identityFor(host.certificate, host.name, ca, other) for host in hosts
    }
    dkim = (rsaKey(), ed25519Key())
    tlsa = {
        host.name: _records(host.tlsa, identities[host.name])
        for host in hosts
        if host.tlsa is not Records.NONE
    }
    publication = Publication(tlsa, {each.selector: each.record for each in dkim})
    return KeyRing(ca, identities, dkim, publication)


def makeSenderKeys() -> dict[str, tuple[DKIMKey, ...]]:
    """
    The keys of each of those that send mail to us, by its name.
    """
    return {
        each.name: (rsaKey(), ed25519Key()) if each.signsTwice else (ed25519Key(),)
        for each in SENDERS
    }


def _records(wanted: Records, identity: Identity | None) -> tuple[str, ...]:
    """
    TLSA records for a host (RFC 6698 2.1).
    """
    assert identity is not None
    key = identity.leaf.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    leafKey = hashlib.sha256(spki).hexdigest()
    issuer = hashlib.sha256(identity.chain[-1].public_bytes(Encoding.DER)).hexdigest()
    match wanted:
        case Records.NONE:
            return ()
        case Records.EE:
            return (f"3 1 1 {leafKey}",)
        case Records.TA:
            return (f"2 0 1 {issuer}",)
        case Records.MISMATCH:
            return (f"3 1 1 {hashlib.sha256(b'another key').hexdigest()}",)
        case Records.UNUSABLE:
            # RFC 7672 3.1.3: these two usages make no sense in SMTP.
            return (f"0 0 1 {issuer}", f"1 1 1 {leafKey}")


def rsaKey() -> DKIMKey:
    key = rsa.generate_private_key(65537, RSA_BITS)
    spki = key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    record = f"v=DKIM1; k=rsa; p={base64.b64encode(spki).decode('ascii')}"
    return DKIMKey(RSA_SELECTOR, "rsa-sha256", _pem(key), record)


def ed25519Key() -> DKIMKey:
    # RFC 8463 4: the bare key, without the ASN.1 around it.
    key = ed25519.Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    record = f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode('ascii')}"
    return DKIMKey(ED25519_SELECTOR, "ed25519-sha256", _pem(key), record)


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
