"""
Tests for L{moxtls.lab.network}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.network import Arrival, Arrivals


def arrival(recipient: str, content: bytes = b"text") -> Arrival:
    return Arrival(recipient, "alice@sender.test", "mx.good.test", "", content)


class ArrivalsTests(SynchronousTestCase):
    """
    What has arrived is kept.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.arrivals = Arrivals(self.directory)

    def test_files(self) -> None:
        """
        Everything is in a file, too.
        """
        self.arrivals.add(arrival("bob@Good.test", b"one"))
        self.arrivals.add(arrival("https://intake.test:8443/tlsrpt"), "json.gz")
        files = sorted(self.directory.rglob("*.*"))
        relative = [
            str(each.relative_to(self.directory)) for each in files if each.is_file()
        ]
        self.assertEqual(
            ["good.test/0001.eml", "intake.test8443/0002.json.gz"], relative
        )
        self.assertEqual(b"one", (self.directory / relative[0]).read_bytes())
        self.assertEqual(1, len(self.arrivals.at("good.test")))

    def test_strangeNames(self) -> None:
        """
        Whatever recipients are called, files stay within the directory.
        """
        for recipient in ("a@..", "a@../../etc", "postmaster", "a@", "/x", "a@[::1]"):
            self.arrivals.add(arrival(recipient))
        outside = self.directory.resolve().parent
        kept = [each for each in self.directory.rglob("*.eml")]
        self.assertEqual(6, len(kept))
        self.assertEqual([], list(outside.glob("*.eml")))

    def test_until(self) -> None:
        """
        One can wait for what is to come, or give up on it.
        """
        self.successResultOf(self.arrivals.until(lambda: True))
        one = self.arrivals.until(lambda: len(self.arrivals.all) >= 1)
        two = self.arrivals.until(lambda: len(self.arrivals.all) >= 2)
        self.arrivals.add(arrival("a@b.test"))
        self.successResultOf(one)
        self.assertNoResult(two)
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.arrivals.add(arrival("a@b.test"))
