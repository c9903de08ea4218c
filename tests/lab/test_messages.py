"""
Tests for L{moxtls.lab.messages}.

Tests for L{moxtls.lab.messages}.
"""

from __future__ import annotations

from email import message_from_bytes
from functools import cache

import dkim
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.types import Disposition, DMARCPolicy, OverrideKind
from moxtls.lab.arrivals import checkedSignatures
from moxtls.lab.keys import DKIMKey, makeSenderKeys
from moxtls.lab.messages import (
    ANNA,
    MESSAGES,
    OTTO,
    LabMessage,
    messageID,
    writtenMessage,
)
from moxtls.lab.received import REPORTS
from moxtls.lab.senders import BY_NAME, SENDERS
from tests.lab.grove import NOON


class MessagesTests(SynchronousTestCase):
    """
    The table is complete, and fits that of senders.
    """

    def test_names(self) -> None:
        """
        Names are unique, and descriptions are one line.
        """
        self.assertEqual(len(MESSAGES), len({each.name for each in MESSAGES}))
        for each in MESSAGES:
            self.assertTrue(each.explanation)
            self.assertNotIn("\n", each.explanation)

    def test_known(self) -> None:
        """
        All senders of messages are in the table of senders, and all of these send
        messages or reports.
        """
        needed = {
            name
            for each in MESSAGES
            for name in (each.client, *each.signers, each.through)
            if name
        }
        authors = {
            sender.name
            for sender in SENDERS
            for each in MESSAGES
            if f".{each.author}".endswith(f".{sender.domain}")
        }
        reporters = {each.author for each in REPORTS}
        self.assertEqual(set(BY_NAME), needed | authors | reporters)

    def test_outcomes(self) -> None:
        """
        Every disposition occurs (RFC 9989 5.3.6, RFC 9990 3.1.1.9), and every local
        policy applies to a message.
        """
        expected = [each.expected for each in MESSAGES]
        self.assertEqual({250, 550}, {each.code for each in expected})
        self.assertEqual(
            {"Inbox", "Junk", "Rejects", ""}, {each.mailbox for each in expected}
        )
        self.assertEqual(set(DMARCPolicy), {each.disposition for each in expected})
        self.assertEqual(set(Disposition), {each.reported for each in expected})
        self.assertEqual(
            {"pass", "fail", "none", "temperror"}, {each.dmarc for each in expected}
        )
        self.assertEqual(
            {OverrideKind.MAILING_LIST, OverrideKind.POLICY_TEST_MODE},
            {kind for each in expected for kind, _ in each.reasons},
        )
        self.assertEqual({ANNA, OTTO}, {each.to for each in MESSAGES})

    def test_consistent(self) -> None:
        """
        Messages that pass are aligned, those that fail are not; rejected ones are in
        no mailbox except that for rejects.
        """
        for each in MESSAGES:
            expected = each.expected
            self.assertEqual(
                expected.dmarc == "pass", bool(expected.aligned), each.name
            )
            self.assertEqual(expected.code, 550 if self.isRefused(each) else 250)

    def isRefused(self, labMessage: LabMessage) -> bool:
        return labMessage.expected.mailbox in ("", "Rejects")


@cache
def keys() -> dict[str, tuple[DKIMKey, ...]]:
    return makeSenderKeys()


def labMessage(name: str) -> LabMessage:
    (found,) = (each for each in MESSAGES if each.name == name)
    return found


def written(name: str) -> bytes:
    return writtenMessage(labMessage(name), keys(), NOON, "1")


class WrittenMessageTests(SynchronousTestCase):
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
        The visible header fields, with CRLF at the end of each line (RFC 5322 2.1).
        """
        message = message_from_bytes(written("monitor-notice"))
        self.assertEqual("Sender <sender@monitor.test>", message["From"])
        self.assertEqual("Anna <anna@sender.test>", message["To"])
        self.assertEqual("<monitor-notice.1@monitor.test>", message["Message-ID"])
        self.assertNotIn("DKIM-Signature", message)
        self.assertNotIn(b"\n", written("monitor-notice").replace(b"\r\n", b""))

    def test_token(self) -> None:
        """
        Repeated messages have different tokens.
        """
        one = labMessage("aligned-1")
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
        A list identifies itself (RFC 2919), adds text, which breaks the author's
        signature, and signs the result.
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
