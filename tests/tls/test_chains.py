"""
Tests for L{moxtls.tls.chains}.

Tests for L{moxtls.tls.chains}.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.tls.chains import (
    MAX_CERTIFICATES,
    MAX_COMPARISONS,
    MAX_NAMES,
    AnchorNotReached,
    ChainError,
    PathBuilder,
    checkIssuer,
    checkLeaf,
    spki,
)
from tests.tls.chains import DAY, NOW, Made, Traits, authority, leaf, make

HOST = Domain("mx.example")


def search(*chain: Made, now: float = NOW) -> PathBuilder:
    """
    A path search for the chain that L{HOST} presented.
    """
    return PathBuilder([each.certificate for each in chain], (HOST,), now)


class PathBuilderTests(SynchronousTestCase):
    """
    Tests for L{PathBuilder}.
    """

    def setUp(self) -> None:
        self.root = authority("Root")
        self.middle = authority("Middle", self.root)
        self.leaf = leaf("mx.example", self.middle)

    def test_anywhere(self) -> None:
        """
        RFC 7672 3.1.2: the anchor may be at any position of the chain, in any order;
        certificates above it or outside the path don't count.
        """
        other = authority("Other")
        for anchor in (self.leaf, self.middle, self.root):
            for rest in (
                (self.middle, self.root),
                (self.root, self.middle),
                (other, self.middle, other, self.root),
            ):
                found = search(self.leaf, *rest)
                found.checkUnder(anchor.certificate)

    def test_notSent(self) -> None:
        """
        RFC 7671 5.2.2: an anchor known from the DNS need not be sent.
        """
        found = search(self.leaf, self.middle)
        found.checkUnder(self.root.certificate)

    def test_noWay(self) -> None:
        """
        Being in the chain is not enough: signatures must lead there, and a
        name that is the same is no signature.
        """
        impostor = authority("Middle")
        found = search(self.leaf, impostor, self.root)
        for anchor in (impostor, self.root):
            self.assertRaises(AnchorNotReached, found.checkUnder, anchor.certificate)

    def test_dates(self) -> None:
        """
        RFC 7672 3.1.2: all certificates of the path have to be valid.
        """
        chain = (self.leaf, self.middle, self.root)
        for now in (NOW - 11 * DAY, NOW + 11 * DAY):
            found = search(*chain, now=now)
            anchor = self.root.certificate
            self.assertRaises(ChainError, found.checkUnder, anchor)
        short = make(Traits("mx.example", ("mx.example",), (-2, -1)), self.middle)
        found = search(short, self.middle)
        self.assertRaises(ChainError, found.checkUnder, self.middle.certificate)

    def test_notAuthorized(self) -> None:
        """
        RFC 5280 6.1.4: a server's certificate can't sign others, nor can one without
        basicConstraints.
        """
        for ca in (False, None):
            middle = make(Traits("Middle", ca=ca), self.root)
            found = search(leaf("mx.example", middle), middle, self.root)
            for anchor in (middle, self.root):
                self.assertRaises(ChainError, found.checkUnder, anchor.certificate)

    def test_pathLength(self) -> None:
        """
        RFC 7671 5.2.1: path lengths of the anchor are heeded.
        """
        root = make(Traits("Root", ca=True, pathLength=0))
        middle = authority("Middle", root)
        found = search(leaf("mx.example", middle), middle, root)
        self.assertRaises(ChainError, found.checkUnder, root.certificate)
        found = search(leaf("mx.example", root), root)
        found.checkUnder(root.certificate)

    def test_otherWay(self) -> None:
        """
        If one path to the anchor is invalid, another is used: here the same authority
        with an old and a new certificate.
        """
        traits = Traits("Middle", ca=True, days=(-9, -8))
        expired = make(traits, self.root, keyOf=self.middle)
        for chain in ((expired, self.middle), (self.middle, expired)):
            found = search(self.leaf, *chain)
            found.checkUnder(self.root.certificate)
        found = search(self.leaf, expired)
        self.assertRaises(ChainError, found.checkUnder, self.root.certificate)

    def test_otherName(self) -> None:
        """
        RFC 7672 3.2.2: the leaf has to be for the host, also if it is its own
        anchor.
        """
        wrong = leaf("other.example", self.middle)
        found = search(wrong, self.middle)
        for anchor in (wrong, self.middle):
            self.assertRaises(ChainError, found.checkUnder, anchor.certificate)

    def test_key(self) -> None:
        """
        RFC 7671 5.2.3: a bare key as an anchor authenticates the certificates it
        signed, for any kind of key.
        """
        for kind in ("ec", "ed25519", "rsa"):
            root = authority("Root", key=kind)
            middle = authority("Middle", root)
            chain = (leaf("mx.example", middle), middle)
            self.assertTrue(search(*chain).checkUnderKey(root.spki), kind)
            self.assertTrue(search(*chain[:1]).checkUnderKey(middle.spki), kind)
            self.assertFalse(search(*chain).checkUnderKey(self.root.spki), kind)
            self.assertFalse(search(*chain[:1]).checkUnderKey(root.spki), kind)

    def test_keyNotInOrder(self) -> None:
        """
        RFC 7671 5.2.3: "provided the rest of the chain passes validation,
        including leaf certificate name checks".
        """
        found = search(leaf("other.example", self.middle), self.middle)
        self.assertRaises(ChainError, found.checkUnderKey, self.root.spki)

    def test_bounded(self) -> None:
        """
        A set of certificates that all signed one another is given up on.
        """
        name = Traits("Same", ca=True)
        first = make(name)
        pile = [make(name, first) for _ in range(MAX_CERTIFICATES * 2)]
        found = search(make(Traits("Same", ("mx.example",)), first), *pile)
        self.assertEqual(len(found.chain), MAX_CERTIFICATES)
        with self.assertRaises(ChainError) as caught:
            for each in pile:
                try:
                    found.checkUnder(each.certificate)
                except AnchorNotReached:
                    continue
        self.assertEqual(str(caught.exception), "too many signatures to check")


class SPKITests(SynchronousTestCase):
    """
    Tests for L{spki}.
    """

    def test_kinds(self) -> None:
        """
        RFC 6698 2.1.2: it is the subjectPublicKeyInfo, with its algorithm, of
        any kind of key.
        """
        for kind in ("ec", "ed25519", "rsa"):
            made = authority("Any", key=kind)
            self.assertEqual(spki(made.certificate), made.spki)


NAMES = (Domain("mx.example"), Domain("example.com"))


def signing(allowed: bool) -> x509.KeyUsage:
    """
    A key usage with or without the right to sign certificates.
    """
    no = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=True, key_cert_sign=allowed, **no)


class LeafTests(SynchronousTestCase):
    """
    Tests for L{checkLeaf}.
    """

    def matchesName(self, made: Made) -> bool:
        """
        Whether it is for one of L{NAMES}.
        """
        try:
            checkLeaf(made.certificate, NAMES)
        except ChainError:
            return False
        return True

    def test_names(self) -> None:
        """
        RFC 7672 3.2.3: any DNS-ID may match any reference identifier; a
        wildcard is the whole first label and stands for one.
        """
        for hosts, expected in (
            (("mx.example",), True),
            (("MX.Example",), True),
            (("other.example", "example.com"), True),
            (("*.example",), True),
            (("*.com",), True),
            (("m*.example",), False),
            (("*mx.example",), False),
            (("*",), False),
            (("*.*",), False),
            (("*.mx.example",), False),
            (("mx.*",), False),
            (("other.example",), False),
        ):
            made = make(Traits("Any", hosts))
            self.assertEqual(self.matchesName(made), expected, hosts)

    def test_commonName(self) -> None:
        """
        RFC 7672 3.2.3: "The CN-ID is only considered when no DNS-IDs are
        present".
        """
        self.assertTrue(self.matchesName(make(Traits("mx.example"))))
        self.assertTrue(self.matchesName(make(Traits("*.example"))))
        self.assertFalse(
            self.matchesName(make(Traits("mx.example", ("other.example",))))
        )
        mail = x509.SubjectAlternativeName([x509.RFC822Name("a@mx.example")])
        made = make(Traits("mx.example", extensions=((mail, False),)))
        self.assertTrue(self.matchesName(made))

    def test_purpose(self) -> None:
        """
        RFC 5280 4.2.1.12: an extended key usage has to include servers.
        """
        for purpose, expected in (
            (ExtendedKeyUsageOID.SERVER_AUTH, True),
            (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, True),
            (ExtendedKeyUsageOID.CLIENT_AUTH, False),
        ):
            usage = x509.ExtendedKeyUsage([purpose])
            extensions = ((usage, False),)
            made = make(Traits("mx.example", ("mx.example",), extensions=extensions))
            self.assertEqual(self.matchesName(made), expected, purpose)

    def test_critical(self) -> None:
        """
        RFC 5280 4.2: unknown critical extensions are refused; others are ignored.
        """
        unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.1"), b"x")
        for critical in (True, False):
            extensions = ((unknown, critical),)
            made = make(Traits("mx.example", ("mx.example",), extensions=extensions))
            self.assertEqual(self.matchesName(made), not critical)

    def test_malformed(self) -> None:
        """
        Extensions that are nonsense are a reason to refuse, not to fail.
        """
        san = x509.UnrecognizedExtension(
            x509.SubjectAlternativeName.oid, b"\x30\x03\x82\x01"
        )
        made = make(Traits("mx.example", extensions=((san, False),)))
        self.assertFalse(self.matchesName(made))

    def test_manyNames(self) -> None:
        """
        Names that would take long to compare are not compared.
        """
        for count, expected in ((MAX_NAMES - 1, True), (MAX_NAMES, False)):
            others = tuple(f"{each}.example" for each in range(count))
            made = make(Traits("Many", ("mx.example", *others)))
            self.assertEqual(self.matchesName(made), expected, count)


class IssuerTests(SynchronousTestCase):
    """
    Tests for L{checkIssuer}.
    """

    def mayIssue(self, issuer: Made, *below: Made) -> bool:
        """
        Whether C{issuer} may stand above C{below}.
        """
        try:
            checkIssuer(issuer.certificate, [each.certificate for each in below])
        except ChainError:
            return False
        return True

    def test_keyUsage(self) -> None:
        """
        RFC 5280 4.2.1.3: a key usage without keyCertSign forbids signing.
        """
        for allowed in (True, False):
            extensions = ((signing(allowed), True),)
            made = make(Traits("Root", ca=True, extensions=extensions))
            found = self.mayIssue(made, leaf("mx.example", made))
            self.assertEqual(found, allowed)

    def test_pathLength(self) -> None:
        """
        RFC 5280 4.2.1.9: only intermediates count, and of those only the ones
        that aren't self-issued.
        """
        root = make(Traits("Root", ca=True, pathLength=0))
        renewed = authority("Root", root)
        middle = authority("Middle", root)
        host = leaf("mx.example", middle)
        self.assertTrue(self.mayIssue(root, host))
        self.assertTrue(self.mayIssue(root, host, renewed))
        self.assertFalse(self.mayIssue(root, host, middle))

    def test_nameConstraints(self) -> None:
        """
        RFC 5280 4.2.1.10: an authority may be for some domains only, or for
        all but some.
        """
        for permitted, excluded, hosts, expected in (
            (("example.com",), (), ("mx.example.com",), True),
            (("example.com",), (), ("example.com",), True),
            (("example.com",), (), ("mx.example",), False),
            (("example.com",), (), ("badexample.com",), False),
            (("example.com",), (), ("mx.example.com", "mx.example"), False),
            ((), ("example.com",), ("mx.example.com",), False),
            ((), ("example.com",), ("mx.example",), True),
            ((), ("",), ("mx.example",), False),
        ):
            constraints = x509.NameConstraints(
                [x509.DNSName(each) for each in permitted] or None,
                [x509.DNSName(each) for each in excluded] or None,
            )
            root = make(Traits("Root", ca=True, extensions=((constraints, True),)))
            found = self.mayIssue(root, make(Traits("Any", hosts), root))
            self.assertEqual(found, expected, (permitted, excluded, hosts))

    def test_manyConstraints(self) -> None:
        """
        RFC 5280 4.2.1.10 doesn't limit them, but we do.
        """
        for count, expected in (
            (MAX_COMPARISONS, True),
            (MAX_COMPARISONS + 1, False),
        ):
            trees = [x509.DNSName(f"{each}.test") for each in range(count)]
            constraints = x509.NameConstraints(None, trees)
            root = make(Traits("Root", ca=True, extensions=((constraints, True),)))
            found = self.mayIssue(root, leaf("mx.example", root))
            self.assertEqual(found, expected, count)
