"""
Tests for L{moxtls.dmarc.discovery}; what it finds is in
L{tests.dmarc.test_discovery}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.discovery import printable, walk
from moxtls.domain import Domain


class WalkTests(SynchronousTestCase):
    """
    Tests for L{walk}.
    """

    def test_names(self) -> None:
        """
        From the start up to the top level, with a jump that leaves seven
        labels (RFC 9989 4.10 steps 3 to 7).
        """
        for start, names in [
            ("com", ["com"]),
            ("example.com", ["example.com", "com"]),
            (
                "a.b.c.d.e.f.example.com",
                [
                    "a.b.c.d.e.f.example.com",
                    "b.c.d.e.f.example.com",
                    "c.d.e.f.example.com",
                    "d.e.f.example.com",
                    "e.f.example.com",
                    "f.example.com",
                    "example.com",
                    "com",
                ],
            ),
            (
                "x.a.b.c.d.e.f.example.com",
                [
                    "x.a.b.c.d.e.f.example.com",
                    "b.c.d.e.f.example.com",
                    "c.d.e.f.example.com",
                    "d.e.f.example.com",
                    "e.f.example.com",
                    "f.example.com",
                    "example.com",
                    "com",
                ],
            ),
        ]:
            self.assertEqual([each.ascii for each in walk(Domain(start))], names)


class PrintableTests(SynchronousTestCase):
    """
    Tests for L{printable}.
    """

    def test_line(self) -> None:
        """
        One line of plain ASCII.
        """
        self.assertEqual(printable("a\r\nb\x7fü"), "a??b??")
