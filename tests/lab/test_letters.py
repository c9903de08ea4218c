"""
Tests for L{moxtls.lab.messages} and L{moxtls.lab.messages}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.types import Disposition, DMARCPolicy, OverrideKind
from moxtls.lab.messages import ANNA, MESSAGES, OTTO, LabMessage
from moxtls.lab.senders import BY_NAME, SENDERS


class LettersTests(SynchronousTestCase):
    """
    The table is complete, and fits that of senders.
    """

    def test_names(self) -> None:
        """
        No two are the same, and each says in a line what it is.
        """
        self.assertEqual(len(MESSAGES), len({each.name for each in MESSAGES}))
        for each in MESSAGES:
            self.assertTrue(each.explanation)
            self.assertNotIn("\n", each.explanation)

    def test_known(self) -> None:
        """
        Whoever has to do with one is in the table of senders, and everybody
        there has to do with one.
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
        self.assertEqual(set(BY_NAME), needed | authors)

    def test_outcomes(self) -> None:
        """
        Everything that can become of a message does (RFC 9989 5.3.6, RFC 9990
        3.1.1.9), and what we have policies for applies to somebody.
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
        What passes is aligned in some way and what fails in none; what is
        refused is in no mailbox but that for such mail.
        """
        for each in MESSAGES:
            expected = each.expected
            self.assertEqual(
                expected.dmarc == "pass", bool(expected.aligned), each.name
            )
            self.assertEqual(expected.code, 550 if self.isRefused(each) else 250)

    def isRefused(self, letter: LabMessage) -> bool:
        return letter.expected.mailbox in ("", "Rejects")
