"""
Tests for L{moxtls.smtp.types}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.types import Credentials, Reply


class ReplyTests(SynchronousTestCase):
    """
    Tests for L{Reply}.
    """

    def test_classes(self) -> None:
        """
        RFC 5321 4.2.1: 2yz and 3yz are positive, 5yz is permanent.
        """
        for code, accepted, permanent in (
            (250, True, False),
            (354, True, False),
            (451, False, False),
            (550, False, True),
        ):
            reply = Reply(code)
            self.assertEqual(
                (reply.accepted, reply.permanent), (accepted, permanent), code
            )

    def test_str(self) -> None:
        """
        The text is one line, however many the reply had.
        """
        self.assertEqual(str(Reply(550, "5.1.1", "no\nwho?")), "550 5.1.1 no who?")
        self.assertEqual(str(Reply(250)), "250")


class CredentialsTests(SynchronousTestCase):
    """
    Tests for L{Credentials}.
    """

    def test_repr(self) -> None:
        """
        Passwords don't get into logs.
        """
        self.assertNotIn("secret", repr(Credentials("user", "secret")))
