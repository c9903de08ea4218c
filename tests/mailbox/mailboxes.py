"""
Contract tests for L{IMailbox}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.interfaces import IMailbox
from moxtls.mailbox.names import InvalidMailbox


class MailboxMixin(SynchronousTestCase):
    """
    Tests for L{IMailbox}.
    """

    def makeMailbox(self) -> IMailbox:
        """
        An empty one.
        """
        raise NotImplementedError

    def contents(self, *parts: str) -> list[tuple[bytes, bool]]:
        """
        Messages and whether they are seen, in any order.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        self.mailbox = self.makeMailbox()

    def test_interface(self) -> None:
        """
        The store provides its interface.
        """
        verifyObject(IMailbox, self.mailbox)

    def test_deliver(self) -> None:
        """
        Messages end up where they belong, whole.
        """
        for name, message, seen in (
            ("Inbox", (b"one", b"\r\n"), False),
            ("Postmaster/tlsrpt", (b"two\r\n",), True),
            ("Postmaster/tlsrpt", (b"three\r\n",), False),
            ("Postmaster", (), False),
        ):
            self.successResultOf(self.mailbox.deliver(name, message, seen))
        self.assertEqual(self.contents(), [(b"one\r\n", False)])
        self.assertEqual(
            sorted(self.contents("Postmaster", "tlsrpt")),
            [(b"three\r\n", False), (b"two\r\n", True)],
        )
        self.assertEqual(self.contents("Postmaster"), [(b"", False)])

    def test_names(self) -> None:
        """
        No name leads anywhere else.
        """
        for name in (
            "",
            "/",
            "/etc",
            "..",
            "a/../b",
            "a//b",
            "a/",
            "a.b",
            ".a",
            "a\0b",
            "a\nb",
            "a\n",
            "\u00e9",
            "~",
            " ",
            "a" * 300,
        ):
            delivery = self.mailbox.deliver(name, (b"x",))
            self.failureResultOf(delivery, InvalidMailbox)
