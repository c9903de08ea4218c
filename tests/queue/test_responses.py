"""
Tests for L{moxtls.queue.responses}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.queue.responses import isResponse


class IsResponseTests(SynchronousTestCase):
    """
    Tests for L{isResponse}.
    """

    def test_responses(self) -> None:
        """
        What a program says in answer (RFC 3834 5), and reports (RFC 6522 3),
        however the field is written (RFC 5322 2.2.3, 3.2.2).
        """
        for field in (
            b"Auto-Submitted: auto-replied",
            b"auto-submitted:AUTO-REPLIED (vacation)",
            b"Auto-Submitted:\r\n\t(a program) auto-replied",
            b"Content-Type: multipart/report; report-type=tlsrpt",
            b"Content-Type:\r\n multipart/report;\r\n\treport-type=delivery-status",
        ):
            header = b"From: a@a.example\r\n" + field + b"\r\nTo: b@b.example\r\n"
            self.assertTrue(isResponse(header), field)

    def test_others(self) -> None:
        """
        Mail that a program sends of its own accord is none, nor is what only
        speaks of it.
        """
        for field in (
            b"Auto-Submitted: auto-generated",
            b"Auto-Submitted: no",
            b"Auto-Submitted: auto-repliedly-x",
            b"Subject: Auto-Submitted: auto-replied",
            b"Content-Type: multipart/reporting",
            b"Content-Type: text/plain; x=multipart/report",
            b"",
        ):
            header = b"From: a@a.example\r\n" + field + b"\r\nTo: b@b.example\r\n"
            self.assertFalse(isResponse(header), field)
