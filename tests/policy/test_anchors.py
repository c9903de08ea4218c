"""
Tests for L{moxtls.tls.chains}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.tls.chains import (
    MAX_CERTIFICATES,
    ChainError,
    NotReached,
    PathBuilder,
    spki,
)
from tests.policy.chains import DAY, NOW, Made, Traits, authority, leaf, make

HOST = Domain("mx.example")


def search(*chain: Made, now: float = NOW) -> PathBuilder:
    """
    What a server at L{HOST} has presented.
    """
    return PathBuilder([each.certificate for each in chain], (HOST,), now)


class SearchTests(SynchronousTestCase):
    """
    Tests for L{PathBuilder}.
    """

    def setUp(self) -> None:
        self.root = authority("Root")
        self.middle = authority("Middle", self.root)
        self.leaf = leaf("mx.example", self.middle)

    def test_anywhere(self) -> None:
        """
        RFC 7672 3.1.2: the anchor may be at any place of the chain, in any
        order, and what is above it or beside the way doesn't count.
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
            self.assertRaises(NotReached, found.checkUnder, anchor.certificate)

    def test_dates(self) -> None:
        """
        RFC 7672 3.1.2: all on the way have to be valid.
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
        RFC 5280 6.1.4: a certificate for a server can't sign others, and one
        that doesn't say can't either.
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
        If one way to the anchor is not in order, another is taken: here the
        same authority with an old and a new certificate.
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
        RFC 7671 5.2.3: a bare key vouches for what it has signed, whatever
        kind of key it is.
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
        A stranger's pile of certificates that all signed one another is given
        up on.
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
                except NotReached:
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
