"""
Tests for L{moxtls.dmarc.discovery}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.discovery import Registered, Suffixes
from moxtls.domain import Domain


class SuffixesTests(SynchronousTestCase):
    """
    Tests for L{Suffixes}.
    """

    def test_packaged(self) -> None:
        """
        RFC 7489 3.2, with the list as it is: rules, wildcards, exceptions,
        domains of private registries, A-labels, and what isn't in the list.
        """
        suffixes = Suffixes()
        for name, organizational in [
            ("a.b.example.com", "example.com"),
            ("example.com", "example.com"),
            ("com", "com"),
            ("a.example.co.uk", "example.co.uk"),
            ("co.uk", "co.uk"),
            ("a.b.example.ck", "b.example.ck"),
            ("a.www.ck", "www.ck"),
            ("a.b.github.io", "b.github.io"),
            ("a.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
            ("a.example.unlisted", "example.unlisted"),
        ]:
            found = suffixes.organizational(Domain(name))
            self.assertEqual(found, Domain(organizational), name)

    def test_lazy(self) -> None:
        """
        The list is read once, and not before it is needed.
        """
        loads: list[str] = []

        def load() -> Registered:
            loads.append("load")
            return lambda name: name

        suffixes = Suffixes(load)
        self.assertEqual(loads, [])
        for _ in range(2):
            suffixes.organizational(Domain("example.org"))
        self.assertEqual(loads, ["load"])
