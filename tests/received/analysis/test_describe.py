"""
Tests for L{moxtls.received.analysis.describe}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.parse import parseAggregateReport
from moxtls.received.analysis.describe import (
    describeAggregateReport,
    describeTLSReport,
)
from tests.received.reading.samples import aggregateReport, tlsReport
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

    def test_unnamed(self) -> None:
        """
        Values that a report doesn't give are said to be missing: an empty disposition
        is not "none".
        """
        head = aggregateReport().replace(b">none<", b"><")
        lines = describeAggregateReport(parseAggregateReport(head), showAll=True)
        (line,) = [each for each in lines if " x from " in each]
        self.assertIn(": no disposition, aligned", line)
        bare = readTLSReport(tlsReport(domain=None))
        self.assertIn("(no domain): sts, ", "\n".join(describeTLSReport(bare)))
        fine = replace(bare.policies[0], failed=0, failures=())
        last = describeTLSReport(replace(bare, policies=(fine,)))[-1]
        self.assertIn("without failures ((no domain): sts)", last)

    def test_escaped(self) -> None:
        """
        Control characters are escaped.
        """
        report = readTLSReport(changed(("organization-name",), "a\x1b[2J\nb\u202e"))
        self.assertIn(r"of a\x1b[2J\nb\u202e (", describeTLSReport(report)[0])
