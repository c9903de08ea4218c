"""
Tests for L{moxtls.dmarc.parse}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.parse import describeFeedback, readFeedback

MESSAGE = b"""\
From: reports@receiver.example
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

A message failed.
--b
Content-Type: message/feedback-report

Feedback-Type: auth-failure
User-Agent: Some/1.0 \x1b[2J
Version: 1
Auth-Failure: dmarc
Identity-Alignment: none
Authentication-Results: receiver.example;
 dmarc=fail header.from=example.org

--b
Content-Type: text/rfc822-headers

From: x@example.org
Received: from somewhere
Subject: hello

--b--
"""


class FeedbackTests(SynchronousTestCase):
    """
    Tests for L{readFeedback}.
    """

    def test_fields(self) -> None:
        """
        The machine-readable part is read, unfolded, and of the original what
        tells which it was (RFC 5965 3, RFC 9991 4).
        """
        report = readFeedback(MESSAGE)
        assert report is not None
        self.assertEqual(report.get("feedback-type"), "auth-failure")
        self.assertIn("header.from=example.org", report.get("Authentication-Results"))
        self.assertEqual(
            report.original, (("From", "x@example.org"), ("Subject", "hello"))
        )

    def test_described(self) -> None:
        """
        For people, without anything that moves their cursor.
        """
        report = readFeedback(MESSAGE)
        assert report is not None
        lines = describeFeedback(report)
        self.assertEqual(lines[0], "Feedback of type auth-failure by Some/1.0 \\x1b[2J")
        self.assertIn("Auth-Failure: dmarc", lines)
        self.assertTrue(all(line.isprintable() for line in lines))

    def test_none(self) -> None:
        """
        Other messages are none, whatever they are.
        """
        for message in (b"", b"From: x\n\nhello", MESSAGE.replace(b"feedback-r", b"r")):
            self.assertIsNone(readFeedback(message))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(MESSAGE)), st.binary(max_size=20))
    def test_anything(self, place: int, new: bytes) -> None:
        """
        Nothing in it can do more than be shown.
        """
        report = readFeedback(MESSAGE[:place] + new + MESSAGE[place:])
        if report is not None:
            self.assertTrue(
                all(each.isprintable() for each in describeFeedback(report))
            )
