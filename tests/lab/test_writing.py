"""
Tests for L{moxtls.lab.messages}.
"""

from __future__ import annotations

from email import message_from_bytes
from functools import cache

import dkim
from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.expectations import checkedSignatures
from moxtls.lab.keys import DKIMKey, makeSenderKeys
from moxtls.lab.messages import MESSAGES, LabMessage, messageID, writtenLetter
from tests.lab.grove import NOON


@cache
def keys() -> dict[str, tuple[DKIMKey, ...]]:
    return makeSenderKeys()


def letter(name: str) -> LabMessage:
    (found,) = (each for each in MESSAGES if each.name == name)
    return found


def written(name: str) -> bytes:
    return writtenLetter(letter(name), keys(), NOON, "1")


class WrittenLetterTests(SynchronousTestCase):
    """
    Messages as they come in.
    """

    def signatures(self, name: str, signer: str) -> dict[str, bool]:
        """
        @param signer: Whose keys are looked up.
        """
        records = {each.selector: each.record for each in keys()[signer]}
        return checkedSignatures(written(name), records)

    def test_header(self) -> None:
        """
        What everybody gets to see of it, with CRLF at the end of each line
        (RFC 5322 2.1).
        """
        message = message_from_bytes(written("monitor-notice"))
        self.assertEqual("Somebody <somebody@monitor.test>", message["From"])
        self.assertEqual("Anna <anna@sender.test>", message["To"])
        self.assertEqual("<monitor-notice.1@monitor.test>", message["Message-ID"])
        self.assertNotIn("DKIM-Signature", message)
        self.assertNotIn(b"\n", written("monitor-notice").replace(b"\r\n", b""))

    def test_token(self) -> None:
        """
        One that is sent again can be told from the first.
        """
        one = letter("aligned-1")
        self.assertNotEqual(messageID(one, "1"), messageID(one, "2"))

    def test_signed(self) -> None:
        """
        Signatures hold, those with Ed25519 (RFC 8463) and those with RSA.
        """
        self.assertEqual(
            {"lab-ed25519": True}, self.signatures("monitor-direct", "monitor")
        )
        self.assertEqual(
            {"lab-ed25519": True, "lab-rsa": True},
            self.signatures("aligned-1", "aligned"),
        )

    def test_listed(self) -> None:
        """
        A list says that it is one (RFC 2919), adds words of its own, which
        break the author's signature, and signs on top.
        """
        message = message_from_bytes(written("listed-lists"))
        self.assertIn("lists.test", message["List-Id"])
        domains = [
            dkim.util.parse_tag_value(each.replace("\r\n", "").encode())[b"d"]
            for each in message.get_all("DKIM-Signature", [])
        ]
        self.assertEqual([b"lists.test", b"listed.test"], domains)
        signed = dkim.DKIM(written("listed-lists"))
        records = {
            f"lab-ed25519._domainkey.{name}.test.": keys()[name][0].record
            for name in ("lists", "listed")
        }

        def lookup(name: bytes, timeout: float = 0) -> bytes:
            return records[name.decode()].encode()

        self.assertTrue(signed.verify(0, lookup))
        self.assertRaises(dkim.ValidationError, signed.verify, 1, lookup)
