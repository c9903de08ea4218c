"""
Tests for L{moxtls.lab.keys}.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.keys import Identity, LabCA, identityFor, makeKeys
from moxtls.lab.plan import MailHost
from moxtls.lab.scenario import Certificate, Records
from tests.lab.grove import NOON

HOST = "mx.good.test"


def verify(identity: Identity, ca: LabCA) -> None:
    """
    Verify a chain as the Web PKI does.

    @raise VerificationError: The chain is invalid.
    """
    builder = PolicyBuilder().store(Store([ca.certificate]))
    verifier = builder.time(datetime.fromtimestamp(NOON, UTC).replace(tzinfo=None))
    leaf, *others = identity.chain
    verifier.build_server_verifier(x509.DNSName(HOST)).verify(leaf, others)


class IdentityForTests(SynchronousTestCase):
    """
    Each certificate is valid, or invalid as specified.
    """

    def setUp(self) -> None:
        self.ca = LabCA.make("lab", NOON)
        self.other = LabCA.make("other", NOON)

    def identity(self, condition: Certificate) -> Identity:
        identity = identityFor(condition, HOST, self.ca, self.other)
        assert identity is not None
        return identity

    def assertRefused(self, condition: Certificate, why: str) -> None:
        with self.assertRaisesRegex(VerificationError, why):
            verify(self.identity(condition), self.ca)

    def test_good(self) -> None:
        """
        A good certificate verifies.
        """
        verify(self.identity(Certificate.GOOD), self.ca)

    def test_bad(self) -> None:
        """
        The others aren't, each for its reason.
        """
        self.assertRefused(Certificate.EXPIRED, "not valid at validation time")
        self.assertRefused(Certificate.WRONG_NAME, "subjectAltName")
        self.assertRefused(Certificate.SELF_SIGNED, "candidates exhausted|issuer")
        self.assertRefused(Certificate.OTHER_CA, "candidates exhausted|issuer")

    def test_otherAuthority(self) -> None:
        """
        A chain unknown to the Web PKI is valid once its authority is known, which the
        chain contains (RFC 7671 5.2.2).
        """
        identity = self.identity(Certificate.OTHER_CA)
        verify(identity, self.other)
        self.assertEqual(self.other.certificate, identity.chain[-1])

    def test_none(self) -> None:
        """
        A host without STARTTLS needs no certificate.
        """
        self.assertIsNone(identityFor(Certificate.NONE, HOST, self.ca, self.other))


class MakeKeysTests(SynchronousTestCase):
    """
    Tests for published keys.
    """

    def records(self, tlsa: Records) -> tuple[tuple[str, ...], Identity]:
        host = MailHost(HOST, "127.0.25.1", Certificate.OTHER_CA, tlsa)
        ring = makeKeys([host], NOON)
        identity = ring.identities[HOST]
        assert identity is not None
        return ring.publication.tlsa[HOST], identity

    def test_tlsa(self) -> None:
        """
        Records match the key or the authority (RFC 6698 2.1), or don't.
        """
        (record,), identity = self.records(Records.EE)
        spki = identity.leaf.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        self.assertEqual(f"3 1 1 {hashlib.sha256(spki).hexdigest()}", record)
        (record,), identity = self.records(Records.TA)
        der = identity.chain[1].public_bytes(Encoding.DER)
        self.assertEqual(f"2 0 1 {hashlib.sha256(der).hexdigest()}", record)
        (record,), identity = self.records(Records.MISMATCH)
        self.assertTrue(record.startswith("3 1 1 "))
        self.assertNotIn(hashlib.sha256(spki).hexdigest(), record)

    def test_unusable(self) -> None:
        """
        RFC 7672 3.1.3: usages 0 and 1 can't be used.
        """
        records, _ = self.records(Records.UNUSABLE)
        self.assertEqual({"0", "1"}, {each[0] for each in records})

    def test_dkim(self) -> None:
        """
        There is a key for each algorithm.
        """
        ring = makeKeys([], NOON)
        self.assertEqual(
            ["rsa-sha256", "ed25519-sha256"], [each.algorithm for each in ring.dkim]
        )
        self.assertEqual(
            {each.selector: each.record for each in ring.dkim}, ring.publication.dkim
        )
