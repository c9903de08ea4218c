"""
Tests for L{moxtls.received.analysis.answers}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.analysis.answers import (
    Conclusion,
    Verdict,
    answerDMARC,
    answerTLS,
    dayName,
    failureReasons,
    percentage,
)
from moxtls.received.analysis.sources import SourceGroup, SourceKind
from moxtls.received.types import (
    DMARCDay,
    Reporter,
    RowOutcome,
    TLSDay,
    TLSFailureGroup,
)

#: 27 Nov 2026.
DAY = 20784
GOOGLE = Reporter("google.com", 30, 1000, 10, DAY - 29, DAY)
FINE, LOOK = Verdict.FINE, Verdict.LOOK
BROKEN, NO_DATA = Verdict.BROKEN, Verdict.NO_DATA


def failures(
    sessions: int,
    last: int = DAY,
    kind: str = "certificate-expired",
    host: str = "mx2.example.org",
    code: str = "",
) -> TLSFailureGroup:
    """
    Failures at a host.
    """
    return TLSFailureGroup(
        "sts", kind, code, host, "", sessions, last - 1, last, ("google.com",), (7,)
    )


def tls(
    counts: Sequence[tuple[int, int]], groups: Sequence[TLSFailureGroup] = ()
) -> Conclusion:
    """
    The conclusion from succeeded and failed sessions of days, of which the latest is
    C{DAY}.
    """
    first = DAY - len(counts) + 1
    days = [TLSDay(first + n, "sts", *each) for n, each in enumerate(counts)]
    reasons = failureReasons(groups)
    answer = answerTLS("example.org", first, DAY, days, reasons, [GOOGLE])
    return answer.conclusion


class TLSTests(SynchronousTestCase):
    """
    Tests for L{answerTLS}.
    """

    def test_verdicts(self) -> None:
        """
        The verdict depends on the share of failures, and on whether they are over.
        """
        week = [(1000, 0)] * 7
        table = [
            (tls([]), NO_DATA, "no TLS report about these days"),
            (tls([(0, 0)]), FINE, "reports without sessions"),
            (tls([(1, 0)]), FINE, "1 session safe (1 reporter)"),
            (tls(week), FINE, "all 7,000 sessions safe (1 reporter)"),
            (
                tls([*week, (969, 31)], [failures(31)]),
                LOOK,
                "31 of 8,000 sessions failed: certificate expired at mx2.example.org",
            ),
            # Broken since today, whatever the share in the whole span.
            (
                tls([*week, (0, 500)], [failures(500)]),
                BROKEN,
                "500 of 7,500 sessions failed: certificate expired at mx2.example.org",
            ),
            # One of two is no share to speak of.
            (
                tls([(1, 1)], [failures(1)]),
                LOOK,
                "1 of 2 sessions failed: certificate expired at mx2.example.org",
            ),
            (
                tls([(969, 31), *week], [failures(31, DAY - 7)]),
                FINE,
                "31 of 8,000 sessions failed, the last on 20 Nov 2026",
            ),
            (
                tls([*week, (999, 1)], [failures(1)]),
                FINE,
                "1 of 8,000 sessions failed, which is normal",
            ),
            # RFC 8460 4.3: without an enforced policy it is reported, too.
            (
                tls([(1000, 0)], [failures(20)]),
                LOOK,
                "20 sessions had a defect, though mail was delivered: certificate "
                "expired at mx2.example.org",
            ),
            (
                tls([(90, 10)]),
                BROKEN,
                "10 of 100 sessions failed, for no stated reason",
            ),
        ]
        for conclusion, verdict, sentence in table:
            self.assertEqual(conclusion.sentence, sentence)
            self.assertEqual(conclusion.verdict, verdict, sentence)

    def test_remedy(self) -> None:
        """
        What is wrong has a first day, and a remedy.
        """
        found = tls([(900, 50), (900, 50)], [failures(100)])
        self.assertEqual(found.since, DAY - 1)
        self.assertIn("Renew the certificate", found.remedy)
        self.assertEqual(tls([(900, 0)]).remedy, "")
        self.assertEqual(tls([(90, 0), (90, 10)]).since, DAY)

    def test_sparse(self) -> None:
        """
        Failures are over three days before the latest report, even if the reports about
        these days are few.
        """
        days = [
            TLSDay(DAY - ago, "sts", 50, failed) for ago, failed in ((8, 50), (4, 0))
        ]
        days.append(TLSDay(DAY, "sts", 50, 0))
        reasons = failureReasons([failures(50, DAY - 8)])
        found = answerTLS("example.org", DAY - 29, DAY, days, reasons, [GOOGLE])
        self.assertEqual(
            found.conclusion,
            Conclusion(FINE, "50 of 200 sessions failed, the last on 19 Nov 2026"),
        )

    def test_since(self) -> None:
        """
        What is wrong now began after the failures that were over before; a gap without
        reports doesn't end them.
        """
        old, new = failures(50, DAY - 9), replace(failures(50), firstDay=DAY - 10)
        good, bad = (50, 0), (0, 50)
        for counts, ago in (
            ([bad, *[good] * 6, bad, bad], 1),
            ([bad, good, good, bad, good], 4),
        ):
            self.assertEqual(tls(counts, [old, new]).since, DAY - ago)
        days = [TLSDay(DAY - ago, "sts", *bad) for ago in (10, 0)]
        reasons = failureReasons([old, new])
        found = answerTLS("example.org", DAY - 29, DAY, days, reasons, [GOOGLE])
        self.assertEqual(found.conclusion.since, DAY - 10)

    def test_mainReason(self) -> None:
        """
        Since when is that of the reason in the sentence, whatever else fails now and
        then.
        """
        other = replace(failures(2, kind="validation-failure"), firstDay=DAY - 3)
        found = tls(
            [(999, 1), (1000, 0), (500, 500), (499, 501)], [failures(1000), other]
        )
        self.assertEqual(found.since, DAY - 1)

    def test_reasons(self) -> None:
        """
        Failures with one explanation are one reason, however senders call it; its
        hosts, reporters and reports are listed once.
        """
        groups = [
            failures(3, code="self signed certificate", kind="certificate-not-trusted"),
            failures(
                5,
                DAY - 4,
                "certificate-not-trusted",
                "mx.example.org",
                "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT",
            ),
            failures(9, kind="starttls-not-supported"),
        ]
        other, signed = failureReasons(groups)
        self.assertEqual((other.sessions, other.codes), (9, ()))
        self.assertEqual(signed.sessions, 8)
        self.assertEqual(signed.hosts, ("mx2.example.org", "mx.example.org"))
        self.assertEqual((signed.firstDay, signed.lastDay), (DAY - 5, DAY))
        self.assertEqual((signed.reporters, signed.reports), (("google.com",), (7,)))


def group(
    kind: SourceKind, failed: int, passed: int = 0, last: int = DAY
) -> SourceGroup:
    """
    Messages from one source.
    """
    found = SourceGroup(kind, str(kind).title(), "", "192.0.2.1")
    found.messages, found.failed = failed + passed, failed
    if failed:
        found.firstFailure, found.lastFailure = last - 2, last
    return found


def dmarc(
    *groups: SourceGroup,
    isEnforced: bool = False,
    recent: Sequence[SourceGroup] | None = None,
) -> Conclusion:
    """
    The conclusion about one day with messages of C{groups}.

    @param recent: Those of the latest days, if they are others.
    """
    days = [
        DMARCDay(DAY, RowOutcome.DKIM, sum(each.passed for each in groups)),
        DMARCDay(DAY, RowOutcome.NONE, sum(each.failed for each in groups)),
    ]
    days = [each for each in days if each.messages]
    answer = answerDMARC(
        "example.org",
        DAY,
        DAY,
        days,
        groups,
        groups if recent is None else recent,
        [GOOGLE],
        isEnforced,
    )
    return answer.conclusion


class DMARCTests(SynchronousTestCase):
    """
    Tests for L{answerDMARC}.
    """

    def test_noMessages(self) -> None:
        """
        Reports may have no messages.
        """
        days = [DMARCDay(DAY, RowOutcome.NONE, 0)]
        found = answerDMARC("example.org", DAY, DAY, days, [], [], [GOOGLE])
        self.assertEqual(found.conclusion, Conclusion(FINE, "reports without messages"))

    def test_verdicts(self) -> None:
        """
        Failures of own senders count; those of strangers only while nothing keeps them
        out; those of forwarders never.
        """
        ours, service = SourceKind.OURS, SourceKind.SERVICE
        unknown, forwarder = SourceKind.UNKNOWN, SourceKind.FORWARDER
        table = [
            (dmarc(), NO_DATA, "no DMARC report about these days"),
            (
                dmarc(group(ours, 0, 4298)),
                FINE,
                "all 4,298 messages from 1 source passed DMARC",
            ),
            (
                dmarc(group(ours, 0, 1)),
                FINE,
                "1 message from 1 source passed DMARC",
            ),
            (
                dmarc(group(ours, 12, 4298)),
                LOOK,
                "12 of 4,310 messages failed DMARC: own Ours",
            ),
            (
                dmarc(group(ours, 500, 500)),
                BROKEN,
                "500 of 1,000 messages failed DMARC: own Ours",
            ),
            (
                dmarc(group(service, 12, 8), group(ours, 0, 80)),
                BROKEN,
                "12 of 100 messages failed DMARC: service Service",
            ),
            # Broken lately, whatever the share in the whole span.
            (
                dmarc(group(ours, 50, 4950), recent=[group(ours, 50, 50)]),
                BROKEN,
                "50 of 5,000 messages failed DMARC: own Ours",
            ),
            (
                dmarc(group(service, 50, 50), recent=[group(service, 50)]),
                BROKEN,
                "50 of 100 messages failed DMARC: service Service",
            ),
            # Perhaps somebody else's.
            (
                dmarc(group(service, 50), group(ours, 0, 50)),
                LOOK,
                "50 of 100 messages failed DMARC: service Service",
            ),
            (
                dmarc(group(unknown, 50), group(ours, 0, 50)),
                LOOK,
                "50 of 100 messages failed DMARC: unknown Unknown",
            ),
            (
                dmarc(group(unknown, 50), group(ours, 0, 50), isEnforced=True),
                FINE,
                "50 of 100 messages failed DMARC, none of them from your own senders",
            ),
            # Its mail may be lost.
            (
                dmarc(group(service, 50), group(ours, 0, 50), isEnforced=True),
                LOOK,
                "50 of 100 messages failed DMARC: service Service",
            ),
            (
                dmarc(group(forwarder, 50), group(ours, 0, 50)),
                FINE,
                "50 of 100 messages failed DMARC, none of them from your own senders",
            ),
            (
                dmarc(group(ours, 50, 50, DAY - 20), recent=[group(ours, 0, 9)]),
                FINE,
                "50 of 100 messages failed DMARC, none of them lately",
            ),
        ]
        for conclusion, verdict, sentence in table:
            self.assertEqual(conclusion.sentence, sentence)
            self.assertEqual(conclusion.verdict, verdict, sentence)

    def test_days(self) -> None:
        """
        Alignment and disposition are counted for each day.
        """
        days = [
            DMARCDay(DAY, RowOutcome.DKIM | RowOutcome.SPF, 5),
            DMARCDay(DAY - 1, RowOutcome.DKIM | RowOutcome.PASS, 7),
            DMARCDay(DAY, RowOutcome.REJECT, 2),
            DMARCDay(DAY, RowOutcome.NONE, 1),
        ]
        answer = answerDMARC("example.org", DAY - 1, DAY, days, [], [], [])
        self.assertEqual((answer.total, answer.failed), (15, 3))
        before, today = answer.days
        self.assertEqual((before.day, before.total, before.dkim), (DAY - 1, 7, 7))
        self.assertEqual((today.dkim, today.spf, today.refused), (5, 5, 2))

    def test_since(self) -> None:
        """
        What is wrong has a first day, and advice.
        """
        found = dmarc(group(SourceKind.OURS, 500, 500))
        self.assertEqual(found.since, DAY - 2)
        self.assertIn("DKIM as example.org", found.remedy)


class WordTests(SynchronousTestCase):
    """
    Tests for L{percentage} and L{dayName}.
    """

    @given(st.integers(0, 10**12), st.integers(0, 10**12))
    def test_percentage(self, one: int, other: int) -> None:
        """
        A share is 100.0 % or 0.0 % only if it is exactly that.
        """
        part, whole = sorted((one, other))
        text = percentage(part, whole)
        self.assertEqual(text == "100.0 %", bool(whole) and part == whole)
        self.assertEqual(text == "0.0 %", bool(whole) and part == 0)

    def test_percentages(self) -> None:
        """
        It has one decimal; without anything there is no share.
        """
        for part, whole, text in [
            (2, 3, "66.6 %"),
            (99_999, 100_000, "99.9 %"),
            (1, 100_000, "0.1 %"),
            (0, 0, "-"),
        ]:
            self.assertEqual(percentage(part, whole), text)

    def test_days(self) -> None:
        """
        Any number is a day: reports come from anybody.
        """
        self.assertEqual(dayName(DAY), "27 Nov 2026")
        self.assertEqual(dayName(-5), "1 Jan 1970")
        self.assertEqual(dayName(10**12), "31 Dec 9999")
