"""
Tests for L{moxtls.lab.mail}; L{tests.lab.test_run} has mail come in.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.mail import FoundMessage, LetterOutcome, SMTPAnswer
from moxtls.lab.messages import MESSAGES, LabMessage


def outcome(letter: LabMessage) -> LetterOutcome:
    """
    As it should be.
    """
    expected = letter.expected
    seen = FoundMessage(
        expected.spf, expected.dkim, expected.dmarc, expected.disposition
    )
    return LetterOutcome(letter, SMTPAnswer(expected.code, ""), expected.mailbox, seen)


class LetterOutcomeTests(SynchronousTestCase):
    """
    Whether a message became what it should.
    """

    def test_none(self) -> None:
        """
        All is as it should be.
        """
        for each in MESSAGES:
            self.assertEqual((), outcome(each).differences)

    def test_each(self) -> None:
        """
        Everything about it counts.
        """
        right = outcome(MESSAGES[0])
        for wrong, what in (
            (replace(right, answer=SMTPAnswer(451, "")), "reply is 451, not 250"),
            (replace(right, mailbox="Junk"), "mailbox is 'Junk', not 'Inbox'"),
            (self.seeing(right, spf="none"), "SPF is 'none', not 'pass'"),
            (self.seeing(right, dmarc="fail"), "DMARC is 'fail', not 'pass'"),
            (
                self.seeing(right, disposition="reject"),
                "disposition is 'reject', not 'none'",
            ),
        ):
            self.assertEqual((f"{right.letter.name}: {what}",), wrong.differences)
        self.assertEqual(1, len(self.seeing(right, dkim=()).differences))

    def seeing(self, right: LetterOutcome, **changes: object) -> LetterOutcome:
        seen = replace(right.seen, **changes)  # type: ignore[arg-type]
        return replace(right, seen=seen)
