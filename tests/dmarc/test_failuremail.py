"""
Tests for L{moxtls.dmarc.failure}.
"""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import AuthResult
from moxtls.dates import midnight
from moxtls.dmarc.failure import (
    MAX_FAILURE_SIZE,
    FailureDetails,
    composeFailureReport,
    messageFailure,
)
from moxtls.dmarc.parse import FeedbackReport, readFeedback
from moxtls.dmarc.redaction import Redaction
from moxtls.dmarc.types import DMARCPolicy, FinalDisposition, VerdictEvent
from moxtls.domain import Address, Domain
from moxtls.message.mime import MessageStamp, leafParts
from tests.dmarc.failures import DISCOVERY, HEADER, RECORD, SIGNATURE, failed
from tests.dmarc.zone import FAIL, PASS, signature
from tests.reporting.support import DAY, HOSTNAME, SUBMITTER

STAMP = MessageStamp(HOSTNAME, "token", midnight(DAY) + 3600)
REDACTION = Redaction(b"k" * 32)
JOHN = REDACTION.token("john.doe")
TO = [Address.parse("ruf@example.com"), Address.parse("ruf@b.example")]
PARTICULARS = FailureDetails(SUBMITTER, REDACTION, midnight(DAY))


def composed(
    judgement: VerdictEvent | None = None, spfRecord: str = "", incidents: int = 1
) -> bytes:
    failure = messageFailure(judgement or failed(SIGNATURE))
    assert failure is not None
    about = replace(PARTICULARS, spfRecord=spfRecord, incidents=incidents)
    return composeFailureReport(failure, about, TO, STAMP)


def parsed(message: bytes) -> EmailMessage:
    found = message_from_bytes(message, policy=SMTP)
    assert isinstance(found, EmailMessage)
    return found


def read(message: bytes) -> FeedbackReport:
    """
    As anybody reads it.
    """
    report = readFeedback(message)
    assert report is not None
    return report


class ComposeTests(SynchronousTestCase):
    """
    Tests for L{composeFailureReport}.
    """

    def test_structure(self) -> None:
        """
        Words for people, for machines, and of the message (RFC 5965 2), in a
        message that nobody answers (RFC 3834 5).
        """
        message = parsed(composed())
        self.assertEqual(message.defects, [])
        self.assertEqual(message.get_content_type(), "multipart/report")
        params = message["Content-Type"].params
        self.assertEqual(params["report-type"], "feedback-report")
        self.assertEqual(message["From"], "postmaster@sender.example")
        self.assertEqual(message["To"], "ruf@example.com, ruf@b.example")
        self.assertEqual(
            message["Subject"], "DMARC failure report for news.example.com"
        )
        self.assertEqual(message["Auto-Submitted"], "auto-generated")
        types = [each.type for each in leafParts(composed())]
        expected = ["text/plain", "message/feedback-report", "text/rfc822-headers"]
        self.assertEqual(types, expected)

    def test_fields(self) -> None:
        """
        All that RFC 5965 3, RFC 6591 3.1 and RFC 9991 4 require, once each.
        """
        report = read(composed(spfRecord="v=spf1 ip4:192.0.2.9  -all"))
        self.assertEqual(
            [each for each in report.fields if each[0] != "User-Agent"],
            [
                ("Feedback-Type", "auth-failure"),
                ("Version", "1"),
                ("Auth-Failure", "dmarc"),
                ("Identity-Alignment", "dkim,spf"),
                (
                    "Authentication-Results",
                    "mail.sender.example; dmarc=fail (policy reject, disposition "
                    "quarantine) header.from=news.example.com",
                ),
                ("Reported-Domain", "news.example.com"),
                ("Source-IP", "192.0.2.1"),
                ("Arrival-Date", "Tue, 24 Nov 2026 00:00:00 +0000"),
                ("Reporting-MTA", "dns; mail.sender.example"),
                ("Original-Mail-From", f"<{JOHN}@bounce.example.com>"),
                ("Delivery-Result", "spam"),
                ("DKIM-Domain", "example.com"),
                ("DKIM-Identity", f"{JOHN}@example.com"),
                ("DKIM-Selector", "epsilon"),
                ("SPF-DNS", 'txt : bounce.example.com : "v=spf1 ip4:192.0.2.9 -all"'),
            ],
        )
        self.assertRegex(report.get("User-Agent"), r"\Amoxtls/[0-9.]+\Z")

    def test_alignment(self) -> None:
        """
        What didn't authenticate an aligned identity is named; C{none} if
        there is no such thing (RFC 9991 4).
        """
        for aligned, spf, expected in [
            ((), False, "dkim,spf"),
            ((0,), False, "spf"),
            ((), True, "dkim"),
            ((0,), True, "none"),
        ]:
            record = replace(RECORD, fo=("d",))
            judgement = failed(
                signature("example.com"),
                signature("b.example", FAIL),
                discovery=replace(DISCOVERY, record=record),
            )
            status = PASS if aligned or spf else FAIL
            verdict = replace(
                judgement.verdict, status=status, alignedDKIM=aligned, spfAligned=spf
            )
            report = read(composed(replace(judgement, verdict=verdict)))
            self.assertEqual(report.get("Identity-Alignment"), expected)
            self.assertIn(f"dmarc={status} ", report.get("Authentication-Results"))

    def test_delivery(self) -> None:
        """
        What became of the message (RFC 6591 3.2.2).
        """
        judgement = failed()
        kept = replace(judgement.verdict, disposition=DMARCPolicy.NONE)
        for each, expected in [
            (replace(judgement, fate=FinalDisposition.ACCEPTED), "delivered"),
            (replace(judgement, fate=FinalDisposition.JUNK), "spam"),
            (replace(judgement, fate=FinalDisposition.REJECTED_BY_DMARC), "reject"),
            (replace(judgement, fate=FinalDisposition.ACCEPTED_REJECT), "policy"),
            (
                replace(judgement, fate=FinalDisposition.ACCEPTED_REJECT, verdict=kept),
                "other",
            ),
        ]:
            self.assertEqual(read(composed(each)).get("Delivery-Result"), expected)

    def test_strange(self) -> None:
        """
        Where there is no aligned signature or SPF domain that failed, there
        are no fields on one; nor is a sender shown that is no address, or a
        client that has none.
        """
        judgement = failed(signature("b.example", FAIL), spf="b.example")
        unknown = replace(judgement.authentication, address="")
        judgement = replace(judgement, sender="john.doe", authentication=unknown)
        report = read(composed(judgement))
        self.assertNotIn("", [value for _, value in report.fields])
        names = {name for name, _ in report.fields}
        absent = {
            "DKIM-Domain",
            "SPF-DNS",
            "Original-Mail-From",
            "Source-IP",
            "Incidents",
        }
        self.assertEqual(names & absent, set())

    def test_incidents(self) -> None:
        """
        Several messages may be told of in one report (RFC 5965 3.2).
        """
        message = composed(incidents=12)
        self.assertEqual(read(message).get("Incidents"), "12")
        text = next(leafParts(message)).content
        self.assertIn(b"This stands for 12 such messages.", text)
        most = read(composed(incidents=2**40)).get("Incidents")
        self.assertEqual(most, str(2**32 - 1))

    def test_redacted(self) -> None:
        """
        Nobody is named, neither who wrote nor who got it; no subject, no trace
        (RFC 9991 7.1).
        """
        message = composed(spfRecord="v=spf1 -all")
        for word in [b"john", b"John", b"anna", b"secret", b"Received", b"our.example"]:
            self.assertNotIn(word, message)
        *_, original = leafParts(message)
        names = [line.partition(b":")[0] for line in original.content.splitlines()]
        for name in [b"From", b"Date", b"Message-ID", b"DKIM-Signature"]:
            self.assertIn(name, names)
        self.assertIn(f"<{JOHN}@news.example.com>".encode(), original.content)

    def test_text(self) -> None:
        """
        People are told why they get it, and what was found.
        """
        text = next(leafParts(composed())).content.decode()
        for line in [
            "because the TXT record at _dmarc.example.com",
            "Author Domain: news.example.com",
            "Source: 192.0.2.1",
            "DMARC: fail, policy reject, disposition quarantine",
            "SPF (mfrom): softfail, bounce.example.com",
            "DKIM: fail, d=example.com s=epsilon, the body was changed",
        ]:
            self.assertIn(line, text.splitlines())

    @settings(max_examples=60, deadline=None)
    @given(
        st.text(max_size=80) | st.sampled_from(["x\r\n--=_token--\r\n", '"\\" ' * 99]),
        st.binary(max_size=80) | st.just(b"--=_token\r\n\r\n.\r\n"),
    )
    def test_strangers(self, word: str, raw: bytes) -> None:
        """
        Whatever strangers say, it is ASCII in lines that anybody takes, and
        three parts in the fields of which nothing is added.
        """
        dkim = replace(SIGNATURE, selector=f"s{word}", problem=word, identity=word)
        judgement = replace(
            failed(dkim, header=HEADER + b"Date: " + raw + b"\r\n"), sender=f"x{word}@a"
        )
        spf = replace(judgement.authentication.spf, domain=word)
        authentication = replace(judgement.authentication, spf=spf, address=word)
        for each in [judgement, replace(judgement, authentication=authentication)]:
            if messageFailure(each) is not None:
                self.check(composed(each, spfRecord=f"v=spf1 {word}"))

    def check(self, message: bytes) -> None:
        self.assertTrue(message.isascii())
        self.assertLess(len(message), MAX_FAILURE_SIZE)
        for line in message.split(b"\r\n"):
            self.assertNotRegex(line, rb"[\r\n\0]")
            self.assertLessEqual(len(line), 998)
        _, fields, _ = leafParts(message)
        names = [each.partition(b":")[0] for each in fields.content.splitlines()]
        outer = [each for each in names if not each.startswith(b" ")]
        self.assertEqual(len(outer), len(set(outer)))
        self.assertLessEqual(len(read(message).fields), 17)
        self.assertEqual(len(list(parsed(message).iter_parts())), 3)

    def test_large(self) -> None:
        """
        A large header makes no large report, nor do many signatures.
        """
        long = Domain(".".join(["a" * 60] * 4))
        line = (
            b"DKIM-Signature: " + b"h=" + b"a:" * 450 + b"; b=" + b"x" * 5000 + b"\r\n"
        )
        many = [replace(SIGNATURE, domain=long, problem="x" * 999)] * 100
        judgement = failed(*many, header=HEADER + line * 1000)
        self.check(composed(judgement, spfRecord="v=spf1 " + "x" * 9000))

    def test_noDomain(self) -> None:
        """
        What SPF was about may be no domain.
        """
        judgement = failed(spf="no domain\x1b", status=AuthResult.NONE)
        text = next(leafParts(composed(judgement))).content
        self.assertIn(b"SPF (mfrom): none, no domain?", text)
