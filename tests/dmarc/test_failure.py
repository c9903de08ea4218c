"""
Tests for L{moxtls.dmarc.failure}.

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
    FailureReporting,
    MessageFailure,
    composeFailureReport,
    failedSignature,
    isAllowed,
    isWanted,
    messageFailure,
    spfRecord,
)
from moxtls.dmarc.parse import FeedbackReport, readFeedbackReport
from moxtls.dmarc.redaction import Redaction
from moxtls.dmarc.types import (
    PSD,
    DMARCPolicy,
    DMARCRecord,
    FinalDisposition,
    VerdictEvent,
)
from moxtls.domain import Address, Domain
from moxtls.message.mime import MessageStamp, leafParts
from tests.dmarc.failures import (
    AUTHOR,
    DISCOVERY,
    HEADER,
    ORGANIZATION,
    RECORD,
    RUF,
    SIGNATURE,
    failed,
)
from tests.dmarc.zone import FAIL, PASS, Zone, signature
from tests.reporting.support import DAY, HOSTNAME, SUBMITTER

TEMPERROR, NONE = AuthResult.TEMPERROR, AuthResult.NONE
OTHER = Domain("a.example")


def asking(record: DMARCRecord, event: VerdictEvent) -> VerdictEvent:
    """
    The same event under another record.
    """
    discovery = replace(DISCOVERY, record=record)
    verdict = replace(event.verdict, discovery=discovery)
    return replace(event, verdict=verdict)


def options(event: VerdictEvent) -> str:
    """
    The values of C{fo} that cause a report.
    """
    return "".join(
        each
        for each in "01ds"
        if isWanted(asking(DMARCRecord(ruf=(RUF,), fo=(each,)), event))
    )


def passed(event: VerdictEvent, dkim: bool, spf: bool) -> VerdictEvent:
    verdict = replace(
        event.verdict,
        status=PASS,
        alignedDKIM=(0,) if dkim else (),
        spfAligned=spf,
    )
    return replace(event, verdict=verdict)


class WantedTests(SynchronousTestCase):
    """
    Tests for L{isWanted}.
    """

    def test_options(self) -> None:
        """
        Each value of C{fo} has a condition of its own (RFC 9989 4.7): no mechanism
        passed aligned; one didn't; a signature failed; SPF did.
        """
        good, bad = signature("example.com"), signature("example.com", FAIL)
        other = signature("b.example", FAIL)
        for event, expected in [
            (failed(), "01s"),
            (failed(bad), "01ds"),
            (failed(bad, status=NONE), "01d"),
            (failed(signature("b.example"), status=PASS), "01"),
            (failed(status=AuthResult.NEUTRAL), "01"),
            (passed(failed(good, status=PASS), True, True), ""),
            (passed(failed(good, status=PASS), True, False), "1"),
            (passed(failed(good), True, False), "1s"),
            (passed(failed(status=PASS), False, True), "1"),
            (passed(failed(bad, status=PASS), False, True), "1d"),
            (passed(failed(good, other, status=PASS), True, True), "d"),
        ]:
            self.assertEqual(options(event), expected, event.authentication)

    def test_several(self) -> None:
        """
        One of several options is enough.
        """
        event = passed(failed(signature("b.example", FAIL)), False, True)
        for fo, expected in [(("0", "d"), True), (("0",), False), (("x",), False)]:
            record = replace(RECORD, fo=fo)
            self.assertEqual(isWanted(asking(record, event)), expected)

    def test_temporary(self) -> None:
        """
        Temporary errors aren't failures.
        """
        open = signature("example.com", TEMPERROR)
        self.assertEqual(options(passed(failed(open, status=PASS), False, True)), "")
        good = signature("example.com")
        self.assertEqual(
            options(passed(failed(good, status=TEMPERROR), True, False)), ""
        )
        unknown = failed()
        verdict = replace(unknown.verdict, status=TEMPERROR)
        self.assertEqual(options(replace(unknown, verdict=verdict)), "")
        discovery = replace(DISCOVERY, temporary=True)
        self.assertFalse(isWanted(failed(discovery=discovery)))

    def test_record(self) -> None:
        """
        Only domains that request failure reports get them, and no public suffix does
        (RFC 9991 2).
        """
        self.assertTrue(isWanted(failed()))
        for record in [
            replace(RECORD, ruf=()),
            replace(RECORD, psd=PSD.YES),
            DMARCRecord(rua=(RUF,)),
        ]:
            self.assertFalse(isWanted(asking(record, failed())))
        self.assertFalse(isWanted(failed(discovery=replace(DISCOVERY, record=None))))
        unknown = failed()
        verdict = replace(unknown.verdict, discovery=None)
        self.assertFalse(isWanted(replace(unknown, verdict=verdict)))

    def test_loops(self) -> None:
        """
        Reports, bounces, and other automatic messages cause no reports (RFC 9991
        5.1), nor do messages that may be such.
        """
        event = failed()
        self.assertTrue(isWanted(event))
        self.assertFalse(isWanted(replace(event, sender="")))
        self.assertFalse(isWanted(replace(event, isForReports=True)))
        self.assertFalse(isWanted(replace(event, header=b"")))
        for line, expected in [
            (b"Auto-Submitted: auto-generated", False),
            (b"auto-submitted:\r\n Auto-Replied; x=y", False),
            (b"Auto-Submitted: no", True),
            (b"Auto-Submitted: NO; x=y", True),
            (b"Content-Type: Multipart/Report;\r\n report-type=feedback-report", False),
            (b"Content-Type: message/feedback-report", False),
            (b"Content-Type: multipart/mixed; boundary=x", True),
        ]:
            header = HEADER + line + b"\r\n"
            self.assertEqual(isWanted(failed(header=header)), expected, line)

    def test_finalDisposition(self) -> None:
        """
        Mail refused for another reason than DMARC isn't reported.
        """
        for finalDisposition in FinalDisposition:
            wanted = isWanted(replace(failed(), finalDisposition=finalDisposition))
            self.assertEqual(wanted, finalDisposition is not FinalDisposition.REJECTED)


class AllowedTests(SynchronousTestCase):
    """
    Tests for L{isAllowed}.
    """

    def allowed(self, event: VerdictEvent | None = None, **chosen: object) -> bool:
        settings = FailureReporting(enabled=True, submitter=OTHER)
        found = messageFailure(event or failed())
        assert found is not None
        return isAllowed(found, replace(settings, **chosen))  # type: ignore[arg-type]

    def test_off(self) -> None:
        """
        Failure reports are off by default, and need a submitter domain.
        """
        self.assertTrue(self.allowed())
        self.assertFalse(self.allowed(enabled=False))
        self.assertFalse(self.allowed(submitter=None))
        self.assertFalse(FailureReporting().enabled)

    def test_lists(self) -> None:
        """
        A list of allowed domains excludes all others; the list of excluded domains
        takes precedence.
        """
        ours = frozenset({ORGANIZATION})
        self.assertTrue(self.allowed(allow=ours))
        self.assertFalse(self.allowed(allow=frozenset({AUTHOR, OTHER})))
        self.assertFalse(self.allowed(notTo=ours))
        self.assertFalse(self.allowed(notTo=ours, allow=ours))

    def test_silent(self) -> None:
        """
        Local domains can be excluded from reports on their mail.
        """
        silent = frozenset({Domain("our.example")})
        self.assertFalse(self.allowed(silent=silent))
        elsewhere = replace(failed(), recipient="anna@other.example")
        self.assertTrue(self.allowed(elsewhere, silent=silent))
        literal = replace(failed(), recipient="anna@[192.0.2.1]")
        self.assertTrue(self.allowed(literal, silent=silent))

    def test_untrustedInput(self) -> None:
        """
        Domains without history get no failure reports, unless configured.
        """
        stranger = replace(failed(), isKnown=False)
        self.assertFalse(self.allowed(stranger))
        self.assertTrue(self.allowed(stranger, strangers=True))
        self.assertTrue(self.allowed(stranger, allow=frozenset({ORGANIZATION})))


class FailureTests(SynchronousTestCase):
    """
    Tests for L{MessageFailure} and its fields.
    """

    def failure(self, event: VerdictEvent) -> MessageFailure:
        found = messageFailure(event)
        assert found is not None
        return found

    def test_id(self) -> None:
        """
        The identifier is the same for all recipients of a message.
        """
        one = failed()
        ids = [
            self.failure(each).id
            for each in [
                one,
                replace(
                    one,
                    recipient="bert@our.example",
                    finalDisposition=FinalDisposition.ACCEPTED,
                ),
                replace(one, sender="b@example.com"),
                replace(one, header=HEADER + b"X: y\r\n"),
            ]
        ]
        self.assertEqual(ids[0], ids[1])
        self.assertEqual(len(set(ids)), 3)

    def test_signature(self) -> None:
        """
        One failed signature of the author's domain is reported, or else one of its
        organization (RFC 9991 4).
        """
        foreign, aligned = signature("b.example", FAIL), signature("example.com", FAIL)
        own = signature("news.example.com", FAIL)
        for dkim, expected in [
            ((foreign, aligned, own), own),
            ((foreign, aligned), aligned),
            ((foreign, signature("example.com")), None),
            ((signature("example.com", TEMPERROR),), None),
        ]:
            self.assertEqual(failedSignature(self.failure(failed(*dkim))), expected)

    def test_spfRecord(self) -> None:
        """
        The record of an aligned domain that failed is looked up, and no other
        one (RFC 6591 3.2.6).
        """
        zone = Zone(
            {
                "bounce.example.com": ("x", "V=spf1 ip4:192.0.2.9 -all"),
                "example.net": "v=spf1 -all",
                "news.example.com": "v=spf10",
            }
        )
        for event, expected in [
            (failed(), "V=spf1 ip4:192.0.2.9 -all"),
            (failed(status=PASS), ""),
            (failed(status=NONE), ""),
            (failed(spf="example.net"), ""),
            (failed(spf="news.example.com"), ""),
            (failed(spf="not a domain"), ""),
        ]:
            found = zone.find(spfRecord(self.failure(event)))
            self.assertEqual(found, expected)
        self.assertEqual(zone.asked, ["bounce.example.com", "news.example.com"])
        failing = Zone({}, failing=["bounce.example.com"])
        self.assertEqual(failing.find(spfRecord(self.failure(failed()))), "")


STAMP = MessageStamp(HOSTNAME, "token", midnight(DAY) + 3600)
REDACTION = Redaction(b"k" * 32)
JOHN = REDACTION.token("john.doe")
TO = [Address.parse("ruf@example.com"), Address.parse("ruf@b.example")]
DETAILS = FailureDetails(SUBMITTER, REDACTION, midnight(DAY))


def composed(
    event: VerdictEvent | None = None, spfRecord: str = "", incidents: int = 1
) -> bytes:
    failure = messageFailure(event or failed(SIGNATURE))
    assert failure is not None
    about = replace(DETAILS, spfRecord=spfRecord, incidents=incidents)
    return composeFailureReport(failure, about, TO, STAMP)


def parsed(message: bytes) -> EmailMessage:
    found = message_from_bytes(message, policy=SMTP)
    assert isinstance(found, EmailMessage)
    return found


def read(message: bytes) -> FeedbackReport:
    """
    The report as L{readFeedbackReport} reads it.
    """
    report = readFeedbackReport(message)
    assert report is not None
    return report


class ComposeTests(SynchronousTestCase):
    """
    Tests for L{composeFailureReport}.
    """

    def test_structure(self) -> None:
        """
        Three parts: text, fields, and the message's header (RFC 5965 2), in a message
        that forbids automatic responses (RFC 3834 5).
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
        Identity-Alignment names the mechanisms that failed to authenticate an aligned
        identity; C{none} if there are none (RFC 9991 4).
        """
        for aligned, spf, expected in [
            ((), False, "dkim,spf"),
            ((0,), False, "spf"),
            ((), True, "dkim"),
            ((0,), True, "none"),
        ]:
            record = replace(RECORD, fo=("d",))
            event = failed(
                signature("example.com"),
                signature("b.example", FAIL),
                discovery=replace(DISCOVERY, record=record),
            )
            status = PASS if aligned or spf else FAIL
            verdict = replace(
                event.verdict, status=status, alignedDKIM=aligned, spfAligned=spf
            )
            report = read(composed(replace(event, verdict=verdict)))
            self.assertEqual(report.get("Identity-Alignment"), expected)
            self.assertIn(f"dmarc={status} ", report.get("Authentication-Results"))

    def test_delivery(self) -> None:
        """
        Delivery-Result by the final disposition (RFC 6591 3.2.2).
        """
        event = failed()
        kept = replace(event.verdict, disposition=DMARCPolicy.NONE)
        for each, expected in [
            (replace(event, finalDisposition=FinalDisposition.ACCEPTED), "delivered"),
            (replace(event, finalDisposition=FinalDisposition.JUNK), "spam"),
            (
                replace(event, finalDisposition=FinalDisposition.REJECTED_BY_DMARC),
                "reject",
            ),
            (
                replace(event, finalDisposition=FinalDisposition.ACCEPTED_REJECT),
                "policy",
            ),
            (
                replace(
                    event,
                    finalDisposition=FinalDisposition.ACCEPTED_REJECT,
                    verdict=kept,
                ),
                "other",
            ),
        ]:
            self.assertEqual(read(composed(each)).get("Delivery-Result"), expected)

    def test_strange(self) -> None:
        """
        Without an aligned signature or SPF domain that failed, there are no fields
        about it; neither is there a sender that is no address, or a client without an
        address.
        """
        event = failed(signature("b.example", FAIL), spf="b.example")
        unknown = replace(event.authentication, address="")
        event = replace(event, sender="john.doe", authentication=unknown)
        report = read(composed(event))
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
        One report may count several messages (RFC 5965 3.2).
        """
        message = composed(incidents=12)
        self.assertEqual(read(message).get("Incidents"), "12")
        text = next(leafParts(message)).content
        self.assertIn(b"This report represents 12 such messages.", text)
        most = read(composed(incidents=2**40)).get("Incidents")
        self.assertEqual(most, str(2**32 - 1))

    def test_redacted(self) -> None:
        """
        Author and recipients are redacted; subject and trace are left out (RFC 9991
        7.1).
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
        The text explains the reason for the report, and the results.
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
    def test_untrustedInput(self, word: str, raw: bytes) -> None:
        """
        With any input, the report is ASCII in lines of valid length, with three parts
        and no injected fields.
        """
        dkim = replace(SIGNATURE, selector=f"s{word}", problem=word, identity=word)
        event = replace(
            failed(dkim, header=HEADER + b"Date: " + raw + b"\r\n"), sender=f"x{word}@a"
        )
        spf = replace(event.authentication.spf, domain=word)
        authentication = replace(event.authentication, spf=spf, address=word)
        for each in [event, replace(event, authentication=authentication)]:
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
        event = failed(*many, header=HEADER + line * 1000)
        self.check(composed(event, spfRecord="v=spf1 " + "x" * 9000))

    def test_noDomain(self) -> None:
        """
        The identity checked by SPF may be no domain.
        """
        event = failed(spf="no domain\x1b", status=AuthResult.NONE)
        text = next(leafParts(composed(event))).content
        self.assertIn(b"SPF (mfrom): none, no domain?", text)
