"""
Tests for L{moxtls.received.analysis.describe}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.analysis.describe import describeTLSReport
from tests.reports import readTLSReport
from tests.tlsrpt.test_parse import OURS, changed


class DescribeTests(SynchronousTestCase):
    """
    Tests for L{describeTLSReport}.
    """

    def test_lines(self) -> None:
        """
        All that is in a report is shown.
        """
        self.assertEqual(
            describeTLSReport(OURS),
            [
                "Report 20261124.x@sender.example of sender.example "
                "(postmaster@sender.example)",
                "Period 2026-11-24T00:00:00Z to 2026-11-24T23:59:59Z",
                "xn--bcher-kva.example: sts, 5 succeeded, 2 failed",
                "  hosts: *.xn--bcher-kva.example",
                "  | version: STSv1",
                "  | mode: enforce",
                "  | mx: *.bücher.example",
                "  | max_age: 86400",
                "  2 x certificate-expired from 192.0.2.1 to mx.example.net "
                "2001:db8::1",
                "  1 x sts-policy-fetch-error (dns-lookup)",
            ],
        )

    def test_escaped(self) -> None:
        """
        Control characters are escaped.
        """
        report = readTLSReport(changed(("organization-name",), "a\x1b[2J\nb\u202e"))
        self.assertIn(r"of a\x1b[2J\nb\u202e (", describeTLSReport(report)[0])
