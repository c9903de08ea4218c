"""
Tests for L{moxtls.queue.local}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.interfaces import ICourier
from moxtls.queue.local import LocalCourier
from moxtls.queue.values import Batch, Ending, Parcel, Result
from tests.queue.couriers import FakeMailbox


class LocalCourierTests(SynchronousTestCase):
    """
    Tests for L{LocalCourier}.
    """

    def setUp(self) -> None:
        self.mailbox = FakeMailbox()
        self.courier = LocalCourier(
            self.mailbox, {"postmaster@here.example": "Postmaster"}.get
        )
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"Subject: a\r\n\r\n")

    def deliver(self, recipient: str) -> Result:
        parcel = Parcel("m1", "us@there.example", (recipient,), self.path, 14)
        batch = Batch("here.example", (parcel,))
        (result,) = self.successResultOf(self.courier.deliver(batch))
        return result

    def test_delivered(self) -> None:
        """
        A message for somebody here is put into the mailbox, unread, with its
        reverse-path on top.  RFC 5321 4.4
        """
        verifyObject(ICourier, self.courier)
        result = self.deliver("postmaster@here.example")
        self.assertEqual((result.messageID, result.ending), ("m1", Ending.DELIVERED))
        self.assertEqual(
            self.mailbox.kept,
            [
                (
                    "Postmaster",
                    b"Return-Path: <us@there.example>\r\nSubject: a\r\n\r\n",
                    False,
                )
            ],
        )

    def test_unknown(self) -> None:
        """
        Somebody who isn't here will not be here later.
        """
        result = self.deliver("nobody@here.example")
        self.assertEqual((result.ending, result.status), (Ending.PERMANENT, "5.1.1"))

    def test_broken(self) -> None:
        """
        A mailbox that can't be written to is tried again.
        """
        self.mailbox.broken = True
        result = self.deliver("postmaster@here.example")
        self.assertEqual(result.ending, Ending.TEMPORARY)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
