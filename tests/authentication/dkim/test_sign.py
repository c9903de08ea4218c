"""
Tests for L{moxtls.authentication.dkim.sign}.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import (
    generate_private_key as generateEC,
)
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.dkim.sign import (
    Algorithm,
    InvalidKey,
    NoSubmitter,
    findSubmitter,
    loadKey,
    sign,
)
from moxtls.domain import Domain
from tests.reporting.support import (
    ED25519,
    ED25519_PEM,
    RSA,
    RSA_PEM,
    SUBMITTER,
    TLSRPT,
    pem,
    signatures,
)

MESSAGE = (
    b"From: <postmaster@sender.example>\r\nTo: <tls@a.example>\r\n"
    b"Subject: Report Domain: a.example\r\n Submitter: sender.example\r\n"
    b"TLS-Report-Domain: a.example\r\nTLS-Report-Submitter: sender.example\r\n"
    b"Date: Wed, 25 Nov 2026 00:05:00 +0000\r\n\r\nbody\r\n"
)


class SignTests(SynchronousTestCase):
    """
    Tests for L{sign}.
    """

    def test_algorithms(self) -> None:
        """
        Both algorithms verify (RFC 6376, RFC 8463), also with a key whose
        record says that it is for TLS reports (RFC 8460 3).
        """
        signers = (RSA, ED25519, TLSRPT)
        signed = sign(MESSAGE, signers)
        self.assertTrue(signed.endswith(MESSAGE))
        self.assertEqual(signatures(signed, *signers), [True, True, True])
        for line in signed.split(b"\r\n"):
            self.assertLessEqual(len(line), 998)

    def test_changed(self) -> None:
        """
        A change to the body, a header field of a report, or another one of
        its kind is noticed (RFC 6376 5.4.2, RFC 8460 5.3).
        """
        signed = sign(MESSAGE, [ED25519])
        for old, new in [
            (b"body", b"body!"),
            (b"Domain: a.example\r\nTLS", b"Domain: b.example\r\nTLS"),
            (b"\r\nTo:", b"\r\nFrom: <x@y.example>\r\nTo:"),
            (b"\r\nTo:", b"\r\nReply-To: <x@y.example>\r\nTo:"),
            (b"\r\nTo:", b"\r\nTLS-Report-Submitter: y.example\r\nTo:"),
            (b"Date:", b"Content-Type: text/html\r\nDate:"),
        ]:
            self.assertIn(old, signed)
            changed = signed.replace(old, new, 1)
            self.assertEqual(signatures(changed, ED25519), [False], new)

    def test_noLength(self) -> None:
        """
        The signature covers the whole body (RFC 8460 3: no C{l=}).
        """
        header = sign(MESSAGE, [RSA]).partition(b"bh=")[0]
        self.assertNotIn(b"l=", header.replace(b"rsl=", b""))


class LoadKeyTests(SynchronousTestCase):
    """
    Tests for L{loadKey}.
    """

    def test_algorithm(self) -> None:
        """
        The key says what it is for; what is secret isn't shown.
        """
        for text, algorithm in [
            (RSA_PEM, Algorithm.RSA),
            (ED25519_PEM, Algorithm.ED25519),
        ]:
            key = loadKey(text)
            self.assertIs(key.algorithm, algorithm)
            self.assertNotIn("secret", repr(key))

    def test_refused(self) -> None:
        """
        Anything else is refused.
        """
        curve = pem(generateEC(SECP256R1()))
        for text in (b"", b"nonsense", curve, RSA_PEM[:100]):
            self.assertRaises(InvalidKey, loadKey, text)

    def test_record(self) -> None:
        """
        RFC 6376 3.6.1, RFC 8460 3.
        """
        self.assertEqual(TLSRPT.recordName, "t._domainkey.sender.example")
        self.assertEqual(
            TLSRPT.record, f"v=DKIM1; k=ed25519; s=tlsrpt; p={TLSRPT.key.public}"
        )
        self.assertTrue(RSA.record.startswith("v=DKIM1; k=rsa; p=MI"))


class FindSubmitterTests(SynchronousTestCase):
    """
    Tests for L{findSubmitter}.
    """

    HOST = Domain("a.mail.sender.example")

    def test_nearest(self) -> None:
        """
        It is the nearest domain at or above the host's name.
        """
        signers = {SUBMITTER: [RSA], Domain("other.example"): [RSA]}
        self.assertEqual(findSubmitter(self.HOST, signers), SUBMITTER)
        signers[self.HOST] = [ED25519]
        self.assertEqual(findSubmitter(self.HOST, signers), self.HOST)

    def test_none(self) -> None:
        """
        The nearest configured domain decides, also if it can't sign.
        """
        mail = Domain("mail.sender.example")
        for signers, disabled, reason in [
            ({}, (), "nor a parent of it is configured"),
            ({SUBMITTER: [RSA], mail: []}, (), "mail.sender.example has no DKIM"),
            ({SUBMITTER: [RSA]}, (SUBMITTER,), "sender.example is switched off"),
        ]:
            with self.assertRaises(NoSubmitter) as caught:
                findSubmitter(self.HOST, signers, disabled)
            self.assertIn(reason, str(caught.exception))
