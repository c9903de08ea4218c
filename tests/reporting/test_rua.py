"""
Tests for L{moxtls.reporting.rua}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Address
from moxtls.reporting.rua import (
    MAX_DESTINATIONS,
    MAX_REASONS,
    InvalidDestination,
    canonicalURI,
    chooseDestinations,
    parseDestination,
)


class ParseDestinationTests(SynchronousTestCase):
    """
    Tests for L{parseDestination} and L{canonicalURI}.
    """

    def test_canonical(self) -> None:
        """
        Spellings of one destination are equal: case of scheme and host, IDNs
        in either form, percent-encoding, default port; a local part's case is
        its own (RFC 5321 2.4).
        """
        for text, expected in [
            ("mailto:Tls@Example.ORG", "mailto:Tls@example.org"),
            ("MAILTO:tls@bücher.example", "mailto:tls@xn--bcher-kva.example"),
            ("mailto:tls@XN--BCHER-KVA.example.", "mailto:tls@xn--bcher-kva.example"),
            ("mailto:tls%2Brpt%40example.org", "mailto:tls+rpt@example.org"),
            ("mailto:a@b.example?subject=x%0d%0aBcc:c", "mailto:a@b.example"),
            ("mailto:%22a b%22@b.example", "mailto:%22a%20b%22@b.example"),
            ("HTTPS://Example.ORG:443", "https://example.org/"),
            ("https://example.org:8443/A?b=c#d", "https://example.org:8443/A?b=c"),
            ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
            ("https://a_b.example/", "https://a_b.example/"),
            ("mailto:a..b@c_d.example", "mailto:a..b@c_d.example"),
            (f"mailto:{'x' * 65}@c.example", f"mailto:{'x' * 65}@c.example"),
        ]:
            self.assertEqual(canonicalURI(text), expected)
            self.assertEqual(canonicalURI(expected), expected)

    def test_address(self) -> None:
        """
        Only C{mailto:} has an address.
        """
        to = parseDestination("mailto:Tls%2Ba@example.org").address
        self.assertEqual(to, Address.parse("Tls+a@example.org"))
        self.assertIsNone(parseDestination("https://example.org/").address)

    def test_refused(self) -> None:
        """
        Refused destinations: other schemes, several addresses in one URI,
        credentials, and addresses in private networks.
        """
        for text in [
            "tls@example.org",
            "http://example.org/",
            "ftp://example.org/",
            "mailto:",
            "mailto:a@b.example,c@d.example",
            "mailto:a@b.example%0d%0aBcc:c@d.example",
            "mailto:a@[127.0.0.1]",
            "mailto:%ff@example.org",
            "mailto:böse@example.org",
            "https:",
            "https://",
            "https:///path",
            "https://user:secret@example.org/",
            "https://user@example.org/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://example.org:0/",
            "https://example.org:65536/",
            "https://example.org/a b",
            "https://example.org/\r\nHost: x",
            "https://a-.example/",
            "https://example.org/" + "a" * 2000,
        ]:
            with self.assertRaises(InvalidDestination, msg=text):
                parseDestination(text)

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(["", "mailto:", "https://", "https://a.example/"]), st.text()
    )
    def test_hostile(self, start: str, rest: str) -> None:
        """
        Any URI is valid or raises the documented exception; the canonical form is
        ASCII and stable.
        """
        try:
            uri = parseDestination(start + rest).uri
        except InvalidDestination:
            return
        self.assertTrue(uri.isascii() and uri.isprintable(), uri)
        self.assertEqual(canonicalURI(uri), uri)


class ChooseTests(SynchronousTestCase):
    """
    Tests for L{chooseDestinations}.
    """

    def test_distinct(self) -> None:
        """
        Each destination is there once; refused ones have a reason and don't affect
        others.
        """
        chosen, reasons = chooseDestinations(
            ["mailto:a@b.example", "ftp://c.example/", "mailto:a@B.example?x=y"]
        )
        self.assertEqual([each.uri for each in chosen], ["mailto:a@b.example"])
        self.assertEqual(reasons, ("reports are not sent to 'ftp' URIs",))

    def test_capped(self) -> None:
        """
        The number of destinations in a record is limited.
        """
        uris = [f"mailto:a{number}@b.example" for number in range(1000)]
        chosen, reasons = chooseDestinations(uris)
        self.assertEqual([each.uri for each in chosen], uris[:MAX_DESTINATIONS])
        self.assertEqual(len(reasons), 1)

    def test_reasonsAreBounded(self) -> None:
        """
        Thousands of invalid URIs yield a bounded reason.
        """
        chosen, reasons = chooseDestinations(
            ["ftp://c.example/"] * 5000 + ["mailto:a@b.example"]
        )
        self.assertEqual(len(chosen), 1)
        self.assertEqual(len(reasons), MAX_REASONS)
