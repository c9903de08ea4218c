"""
Tests for L{moxtls.app.build}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.build import newID


class NewIDTests(SynchronousTestCase):
    """
    Tests for L{newID}.
    """

    def test_fit(self) -> None:
        """
        Ids are never the same, can't be guessed, and have nothing in them
        that a file name or a local part can't have.
        """
        ids = {newID() for _ in range(1000)}
        self.assertEqual(len(ids), 1000)
        for each in ids:
            self.assertRegex(each, r"\A[0-9a-f]{24}\Z")
