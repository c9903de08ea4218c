"""
Tests for L{moxtls.tls.openssl}.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import DNSName, IssuerAlternativeName, load_der_x509_certificate
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.tls.openssl import (
    RecordingVerifier,
    TrustStore,
    loadTrustStore,
    matchesName,
    verifyChain,
)
from moxtls.tls.session import CertificateVerification
from tests.certificates import Identity, good, root, selfSigned, trusting
from tests.starttls import Link, ServerTLSCreator
from tests.tls.chains import Traits, make

SELF_SIGNED = 18
NO_ISSUER = 20
UNVERIFIED_LEAF = 21
EXPIRED = 10


class RecordingVerifierTests(SynchronousTestCase):
    """
    Tests for L{RecordingVerifier}.
    """

    def verification(
        self,
        presented: Identity,
        trust: TrustStore,
        names: tuple[str, ...] = ("mx.example",),
    ) -> CertificateVerification:
        """
        Make a handshake and return the recorded verification.
        """
        verifier = RecordingVerifier(trust, names)
        verifyObject(IOpenSSLClientConnectionCreator, verifier)
        link = Link(Protocol(), Protocol(), Clock())
        link.server.startTLS(ServerTLSCreator(presented.context()))
        link.client.startTLS(verifier)
        link.flush()
        self.assertTrue(link.open)
        return verifier.verification()

    def test_good(self) -> None:
        """
        A trusted certificate for the right host meets no objection.
        """
        seen = self.verification(good(), trusting(root()))
        self.assertTrue(seen.ok)
        self.assertEqual(seen.chain, (good().certificate,))

    def test_intermediate(self) -> None:
        """
        Intermediate certificates from the server are used, and recorded in the chain
        as sent.
        """
        middle = root().issue("Intermediate", authority=True)
        leaf = middle.issue("mx.example")
        seen = self.verification(leaf, trusting(root()))
        self.assertTrue(seen.ok)
        self.assertEqual(seen.chain, (leaf.certificate, middle.certificate))

    def test_untrusted(self) -> None:
        """
        A self-signed certificate is objected to, and the name is judged
        regardless.
        """
        seen = self.verification(selfSigned("mx.example"), trusting(root()))
        self.assertEqual(seen.verifyErrors, ((SELF_SIGNED, 0),))
        self.assertTrue(seen.nameMatches)
        self.assertFalse(seen.ok)

    def test_unknownAuthority(self) -> None:
        """
        A certificate from an authority that isn't trusted.
        """
        other = selfSigned(name="Another Root", authority=True)
        seen = self.verification(other.issue("mx.example"), trusting(root()))
        self.assertEqual(seen.verifyErrors, ((NO_ISSUER, 0), (UNVERIFIED_LEAF, 0)))

    def test_expired(self) -> None:
        """
        An expired certificate is different from an untrusted one.
        """
        seen = self.verification(root().issue("mx.example", days=-1), trusting(root()))
        self.assertEqual(seen.verifyErrors, ((EXPIRED, 0),))

    def test_otherName(self) -> None:
        """
        A trusted certificate for another host is just that.
        """
        seen = self.verification(good(), trusting(root()), ("smtp.example",))
        self.assertEqual((seen.verifyErrors, seen.nameMatches), ((), False))
        self.assertFalse(seen.ok)

    def test_noRoots(self) -> None:
        """
        The absence of roots is recorded.
        """
        self.assertTrue(self.verification(good(), trusting()).noRoots)


class LoadTrustStoreTests(SynchronousTestCase):
    """
    Tests for L{loadTrustStore}.
    """

    def test_file(self) -> None:
        """
        Roots come from a file of the operator's.
        """
        path = Path(self.mktemp())
        path.write_bytes(root().certificate.public_bytes(Encoding.PEM))
        trust = loadTrustStore(str(path))
        self.assertTrue(verifyChain(trust, ["mx.example"], [good().certificate]).ok)

    def test_badFile(self) -> None:
        """
        A file that isn't there, or has no certificates, is an error.
        """
        self.assertRaises(OSError, loadTrustStore, "/nonexistent")
        path = Path(self.mktemp())
        path.write_bytes(b"nothing")
        self.assertRaises(ValueError, loadTrustStore, str(path))

    def test_system(self) -> None:
        """
        The system's roots don't include that of these tests.
        """
        seen = verifyChain(loadTrustStore(), ["mx.example"], [good().certificate])
        self.assertTrue(seen.verifyErrors)

    def test_noOldTLS(self) -> None:
        """
        RFC 8996: handshakes with TLS 1.1 fail.
        """
        context = good().context()
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        link = Link(Protocol(), Protocol(), Clock())
        link.server.startTLS(ServerTLSCreator(context))
        link.client.startTLS(RecordingVerifier(trusting(root()), ["mx.example"]))
        link.flush()
        self.assertFalse(link.open)


class NameTests(SynchronousTestCase):
    """
    Tests for L{matchesName}.
    """

    def test_wildcard(self) -> None:
        """
        RFC 9525 6.3: a wildcard stands for one label.
        """
        leaf = selfSigned("*.mx.example").certificate
        self.assertTrue(matchesName(leaf, ["a.mx.example"]))
        self.assertFalse(matchesName(leaf, ["b.a.mx.example"]))

    def test_noNames(self) -> None:
        """
        RFC 9525 6.1: the subject's common name is no name of a host.
        """
        leaf = selfSigned(name="mx.example").certificate
        self.assertFalse(matchesName(leaf, ["mx.example"]))

    def test_strangeNames(self) -> None:
        """
        A name that can't be in any certificate doesn't match, and nor do no
        names at all.
        """
        leaf = good().certificate
        for names in ([], [""], ["no such name!"], ["192.0.2.1"], ["a_b.example"]):
            self.assertFalse(matchesName(leaf, names))

    def test_malformed(self) -> None:
        """
        RFC 5280 4.2: a certificate with repeated or unreadable name extensions
        matches no name, without an exception: the result of the verification decides.
        """
        leaf = good().certificate.public_bytes(Encoding.DER)
        name = b"\x82\x0amx.example"
        self.assertIn(name, leaf)
        x400 = leaf.replace(name, b"\xa3\x0amx.example")
        issuerAlternative, alternative = b"\x06\x03U\x1d\x12", b"\x06\x03U\x1d\x11"
        both = make(
            Traits(
                "mx.example",
                ("mx.example",),
                extensions=((IssuerAlternativeName([DNSName("mx.example")]), False),),
            )
        ).der
        twice = both.replace(issuerAlternative, alternative)
        for der in (x400, twice):
            malformed = load_der_x509_certificate(der)
            self.assertFalse(matchesName(malformed, ["mx.example"]))


class VerifyChainTests(SynchronousTestCase):
    """
    Tests for L{verifyChain}.
    """

    def test_verifyChain(self) -> None:
        """
        Chains are verified as L{RecordingVerifier} does it.
        """
        trust = trusting(root())
        expired = root().issue("mx.example", days=-1).certificate
        for certificate, error in (
            (good().certificate, None),
            (expired, EXPIRED),
            (selfSigned("mx.example").certificate, SELF_SIGNED),
        ):
            seen = verifyChain(trust, ["mx.example"], [certificate])
            self.assertTrue(seen.nameMatches)
            self.assertEqual(
                [each[0] for each in seen.verifyErrors][:1], [error][: bool(error)]
            )

    def test_nothing(self) -> None:
        """
        An empty chain is invalid.
        """
        self.assertFalse(verifyChain(trusting(root()), ["mx.example"], []).ok)
