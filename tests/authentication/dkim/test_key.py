"""
Tests for L{moxtls.authentication.dkim.verify}: key records.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.dkim.sign import Algorithm
from moxtls.authentication.dkim.verify import PublicKey, UnusableKey, parseKeyRecord
from moxtls.authentication.results import AuthResult
from tests.authentication.dkim.samples import publicKey
from tests.reporting.support import ED25519, RSA

P = RSA.key.public
E = ED25519.key.public


def modulus(bits: int) -> int:
    """
    A modulus without known factors, which verification doesn't need.
    """
    return (1 << (bits - 1)) + 1


class ParseKeyRecordTests(SynchronousTestCase):
    """
    Tests for L{parseKeyRecord}.
    """

    def refused(self, text: str) -> tuple[str, AuthResult]:
        error = self.assertRaises(UnusableKey, parseKeyRecord, text.encode())
        return error.problem, error.status

    def test_kinds(self) -> None:
        """
        Both types of key; RSA is the default, and is published as
        SubjectPublicKeyInfo or as RFC 6376 3.6.1 says (RFC 8463 4.2).
        """
        public = load_der_public_key(base64.b64decode(P))
        assert isinstance(public, RSAPublicKey)
        bare = public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
        short = base64.b64encode(bare).decode()
        for text in (RSA.record, f"p={P}", f"k=RSA;p={P};", f"v=DKIM1; p={short}"):
            key = parseKeyRecord(text.encode())
            self.assertEqual((key.algorithm, key.size), (Algorithm.RSA, 1024))
            self.assertEqual((key.testing, key.isStrict), (False, False))
        key = parseKeyRecord(ED25519.record.encode())
        self.assertEqual((key.algorithm, key.size), (Algorithm.ED25519, 256))

    def test_tags(self) -> None:
        """
        Flags, hashes and services are lists in which there may be something
        unknown, as among the tags (RFC 6376 3.6.1).
        """
        for text, flags in [
            ("t=y", (True, False)),
            ("t=s", (False, True)),
            ("t=z : s:y", (True, True)),
            ("h=sha1:sha256; s=email; n=hello=3B", (False, False)),
            ("s=tlsrpt:*; g=; x=1", (False, False)),
        ]:
            key = parseKeyRecord(f"v=DKIM1; {text}; p={P[:40]} \t{P[40:]}".encode())
            self.assertEqual((key.testing, key.isStrict), flags, text)

    def test_services(self) -> None:
        """
        A key with C{s=tlsrpt} and neither C{email} nor C{*} is for TLS reports only
        (RFC 8460 3).
        """
        for services, isForTLSRPT in [
            ("tlsrpt", True),
            ("other: TLSRPT", True),
            ("tlsrpt:email", False),
            ("*", False),
        ]:
            key = parseKeyRecord(f"v=DKIM1; s={services}; p={P}".encode())
            self.assertIs(key.isForTLSRPT, isForTLSRPT, services)

    def test_refused(self) -> None:
        """
        Records that aren't keys for mail are refused, each with its reason (RFC 6376
        3.6.1, 6.1.2).
        """
        for text, problem in [
            ("", "the key record has no key"),
            ("v=spf1 -all", "the key record is not of version DKIM1"),
            (f"v=DKIM1: g=*; k=rsa; p={P}", "the key record is not of version DKIM1"),
            (f"v=DKIM2; p={P}", "the key record is not of version DKIM1"),
            (f"v=dkim1; p={P}", "the key record is not of version DKIM1"),
            (f"p={P}; v=DKIM1", "the key record is not of version DKIM1"),
            (f"v=DKIM1; p={P}; p={P}", "the key record is malformed"),
            (f"v=DKIM1; p={P};; t=y", "the key record is malformed"),
            ("hello", "the key record is malformed"),
            ("v=DKIM1; p=", "the key is revoked"),
            ("v=DKIM1; k=rsa", "the key record has no key"),
            (f"v=DKIM1; k=dsa; p={P}", "the key is of an unknown type"),
            (f"v=DKIM1; h=sha1; p={P}", "the key is not for SHA-256"),
            (f"v=DKIM1; s=other; p={P}", "the key is not for mail"),
            (f"v=DKIM1; s=; p={P}", "the key is not for mail"),
            ("v=DKIM1; p=&&&&", "the key is not base64"),
            (f"v=DKIM1; p={P[:-8]}", "the key is not an RSA key"),
            (f"v=DKIM1; p={E}", "the key is not an RSA key"),
            (f"v=DKIM1; k=ed25519; p={P}", "the key is not an Ed25519 key"),
        ]:
            self.assertEqual(self.refused(text), (problem, AuthResult.PERMERROR), text)

    def test_sizes(self) -> None:
        """
        RSA keys below 1024 bits are refused (RFC 8301 3.2), and absurdly large ones
        are refused before any computation.
        """
        for bits in (1024, 2048, 4096, 8192):
            self.assertEqual(
                parseKeyRecord(f"p={publicKey(modulus(bits), 65537)}".encode()).size,
                bits,
            )
        short = ("the RSA key is too short", AuthResult.POLICY)
        long = ("the RSA key is too long", AuthResult.POLICY)
        for bits, exponent, error in [
            (512, 3, short),
            (1023, 65537, short),
            (8200, 65537, long),
            (100_000, 65537, long),
            (2048, (1 << 32) + 1, long),
            (4096, (1 << 4000) + 1, long),
        ]:
            text = f"p={publicKey(modulus(bits), exponent)}"
            self.assertEqual(self.refused(text), error, (bits, exponent.bit_length()))

    def test_strange(self) -> None:
        """
        Numbers that are no RSA key are refused, or accept nothing.
        """
        for number, exponent in [
            (modulus(2048), 1),
            (modulus(2048), 2),
            (modulus(2048) - 1, 65537),
            (modulus(2048), 3),
            (0, 0),
        ]:
            try:
                key = parseKeyRecord(f"p={publicKey(number, exponent)}".encode())
            except UnusableKey:
                continue
            for proof in (b"", b"\0" * 256, b"\xff" * 256, b"\x01" * 1000):
                self.assertFalse(key.accepts(proof, bytes(32)))

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=40)
        | st.builds(
            lambda at, octet: b"p=%b" % base64.b64encode(_mutated(at, octet)),
            st.integers(0, 161),
            st.integers(0, 255),
        )
    )
    def test_anything(self, text: bytes) -> None:
        """
        Any record yields a key that can be used, or a reason.
        """
        try:
            key = parseKeyRecord(text)
        except UnusableKey as error:
            self.assertTrue(error.problem)
        else:
            self.assertIsInstance(key, PublicKey)
            self.assertFalse(key.accepts(bytes(128), bytes(32)))


def _mutated(at: int, octet: int) -> bytes:
    data = bytearray(base64.b64decode(P))
    data[at] = octet
    return bytes(data)
