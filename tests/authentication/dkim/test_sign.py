"""
Tests for L{moxtls.authentication.dkim.sign}.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import (
    generate_private_key as generateEC,
)
from dkim.canonicalization import Relaxed
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.dkim.sign import (
    Algorithm,
    InvalidKey,
    NoSubmitter,
    Signer,
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

#: Pieces of header field values and of bodies in which white space, folding and
#: line ends meet in all ways.
_VALUES = st.lists(
    st.sampled_from(["a", "Bc,", " ", "\t", "\r\n ", "\r\n\t", ":", "=", "<x@y>"]),
    max_size=12,
).map("".join)
_NAMES = st.sampled_from(
    ["To", "Cc", "SUBJECT", "Reply-To", "Received", "X-A", "DKIM-Signature"]
)
_BODIES = st.lists(
    st.sampled_from(["a", ".", " ", "\t", "\r\n", "\r\n\r\n", "--b"]), max_size=30
).map("".join)


def signedWithDKIMPy(message: bytes, signers: Sequence[Signer]) -> bytes:
    """
    C{message} with the signatures that L{sign} makes, computed from dkimpy's
    canonical forms.
    """
    header, _, body = message.partition(b"\r\n\r\n")
    lines = re.split(rb"\r\n(?![ \t])", header)
    raw = [(name, value) for name, _, value in (each.partition(b":") for each in lines)]
    fields = Relaxed.canonicalize_headers(raw)
    bodyHash = base64.b64encode(sha256(Relaxed.canonicalize_body(body)).digest())
    signatures = []
    for ours, signer in zip(_ownSignatures(message, signers), signers, strict=True):
        # The tags before b= are those of L{sign}; bh= and b= are computed here.
        value = ours[: ours.rindex(b"b=") + 2].partition(b":")[2]
        value = re.sub(rb"bh=[^;]*;", b"bh=%b;" % bodyHash, value)
        names = re.search(rb"h=([^;]*);", value)
        assert names is not None
        left = list(fields)
        content = b""
        for name in (each.strip() for each in names[1].split(b":")):
            found = [each for each in left if each[0] == name]
            if found:
                content += b"%b:%b" % found[-1]
                del left[len(left) - 1 - left[::-1].index(found[-1])]
        ((own, canonical),) = Relaxed.canonicalize_headers([(b"DKIM-Signature", value)])
        content += b"%b:%b" % (own, canonical.rstrip())
        proof = base64.b64encode(signer.key.sign(sha256(content).digest()))
        folded = [proof[start : start + 77] for start in range(0, len(proof), 77)]
        signatures.append(
            b"DKIM-Signature:%b\r\n %b\r\n" % (value, b"\r\n ".join(folded))
        )
    return b"".join([*signatures, message])


def _ownSignatures(message: bytes, signers: Sequence[Signer]) -> list[bytes]:
    added = sign(message, signers).removesuffix(message)
    return re.split(rb"(?<=\r\n)(?![ \t])", added)[: len(signers)]


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

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.tuples(_NAMES, _VALUES), max_size=6), _BODIES)
    def test_dkimpy(self, fields: list[tuple[str, str]], body: str) -> None:
        """
        Signatures are, octet for octet, those over dkimpy's canonical forms, and
        dkimpy verifies them.
        """
        header = "".join(f"{name}: {value}\r\n" for name, value in fields)
        text = f"{header}From: <a@sender.example>\r\n\r\n{body}"
        if not text.endswith("\r\n"):
            text += "\r\n"
        message = text.encode("ascii")
        signers = (RSA, ED25519)
        signed = sign(message, signers)
        self.assertEqual(signed, signedWithDKIMPy(message, signers))
        self.assertEqual(signatures(signed, *signers)[:2], [True, True])

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
        The key determines the algorithm; its repr has no secrets.
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
        The submitter is the nearest domain at or above the host's name.
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
