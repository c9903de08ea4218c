"""
Tests for L{moxtls.reporting.types}.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import Span, spanOfDay
from moxtls.domain import Domain
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import ReportPeriod, filename, reportID
from tests.reporting.support import DAY, SUBMITTER, A, report


class ReportKeyTests(SynchronousTestCase):
    """
    Tests for L{ReportKey<moxtls.reporting.types.ReportKey>}.
    """

    def test_distinct(self) -> None:
        """
        Reports that differ in anything that makes them two have other keys
        for the queue.
        """
        key = report().key
        keys = {
            str(key),
            str(replace(key, kind=ReportKind.DMARC)),
            str(replace(key, domain=Domain("b.example"))),
            str(replace(key, start=key.start - 86400)),
            str(replace(key, end=key.end + 1)),
            str(replace(key, destination="https://a.example/")),
            str(replace(key, phase=1)),
        }
        self.assertEqual(len(keys), 7)
        self.assertEqual(str(key), str(report(sender="other@sender.example").key))


class ReportPeriodTests(SynchronousTestCase):
    """
    Tests for L{ReportPeriod}.
    """

    def test_order(self) -> None:
        """
        Subjects are in order of phase, day and domain.
        """
        ordered = [
            ReportPeriod(0, DAY, Domain("b.example")),
            ReportPeriod(0, DAY + timedelta(days=1), Domain("a.example")),
            ReportPeriod(0, DAY + timedelta(days=1), Domain("c.example")),
            ReportPeriod(1, DAY, Domain("a.example")),
        ]
        self.assertEqual(sorted(reversed(ordered)), ordered)


SPAN = spanOfDay(DAY)
B = Domain("b.example")


class ReportIDTests(SynchronousTestCase):
    """
    Tests for L{reportID}.
    """

    def test_letters(self) -> None:
        """
        Letters and digits only, as it is the C{unique-id} of the file name too
        (RFC 9990 3.1.4, 3.5.2; RFC 8460 5.1).
        """
        period = ReportPeriod(0, DAY, Domain.parse("bücher.example"), part="ab12")
        found = reportID("L1", ReportKind.DMARC, SUBMITTER, period, SPAN)
        self.assertRegex(found, r"\A[0-9a-z]{32}\Z")

    def test_unique(self) -> None:
        """
        Another one for another ledger, kind, submitter, phase, domain, policy
        or period (RFC 9990 3.5.1); the same one for the same report.
        """
        day = date(2026, 11, 25)
        every = product(
            ("L1", "L2"),
            ReportKind,
            (SUBMITTER, A),
            (ReportPeriod(0, DAY, A), ReportPeriod(1, DAY, A), ReportPeriod(0, DAY, B)),
            (SPAN, spanOfDay(day), Span(SPAN.start, SPAN.start + 3600)),
        )
        found = [reportID(*each) for each in every]
        part = ReportPeriod(0, DAY, A, part="ab12")
        found.append(reportID("L1", ReportKind.DMARC, SUBMITTER, part, SPAN))
        self.assertEqual(len(set(found)), len(found))
        self.assertEqual(
            found[-1], reportID("L1", ReportKind.DMARC, SUBMITTER, part, SPAN)
        )


class FilenameTests(SynchronousTestCase):
    """
    Tests for L{filename}.
    """

    def test_filename(self) -> None:
        """
        RFC 9990 3.5.2, RFC 8460 5.1: the end is the last second, as in the
        report.
        """
        period = "1795478400!1795564799"
        for kind, extension in (
            (ReportKind.TLS, "json.gz"),
            (ReportKind.DMARC, "xml.gz"),
        ):
            self.assertEqual(
                filename(kind, SUBMITTER, A, SPAN, "1a2b"),
                f"sender.example!a.example!{period}!1a2b.{extension}",
            )
