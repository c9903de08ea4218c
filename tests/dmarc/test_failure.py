"""
Tests for L{moxtls.dmarc.failure}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import AuthResult
from moxtls.dmarc.failure import (
    FailureReporting,
    MessageFailure,
    failedSignature,
    isAllowed,
    isWanted,
    messageFailure,
    spfRecord,
)
from moxtls.dmarc.types import PSD, DMARCRecord, FinalDisposition, VerdictEvent
from moxtls.domain import Domain
from tests.dmarc.failures import (
    AUTHOR,
    DISCOVERY,
    HEADER,
    ORGANIZATION,
    RECORD,
    RUF,
    failed,
)
from tests.dmarc.zone import FAIL, PASS, Zone, signature

TEMPERROR, NONE = AuthResult.TEMPERROR, AuthResult.NONE
OTHER = Domain("a.example")


def asking(record: DMARCRecord, judgement: VerdictEvent) -> VerdictEvent:
    """
    The same under another record.
    """
    discovery = replace(DISCOVERY, record=record)
    verdict = replace(judgement.verdict, discovery=discovery)
    return replace(judgement, verdict=verdict)


def options(judgement: VerdictEvent) -> str:
    """
    Which values of C{fo} a report is made for.
    """
    return "".join(
        each
        for each in "01ds"
        if isWanted(asking(DMARCRecord(ruf=(RUF,), fo=(each,)), judgement))
    )


def passed(judgement: VerdictEvent, dkim: bool, spf: bool) -> VerdictEvent:
    verdict = replace(
        judgement.verdict,
        status=PASS,
        alignedDKIM=(0,) if dkim else (),
        spfAligned=spf,
    )
    return replace(judgement, verdict=verdict)


class WantedTests(SynchronousTestCase):
    """
    Tests for L{isWanted}.
    """

    def test_options(self) -> None:
        """
        Each option has a condition of its own (RFC 9989 4.7 C{fo}): nothing
        that passes is aligned; something isn't; a signature failed; SPF did.
        """
        good, bad = signature("example.com"), signature("example.com", FAIL)
        other = signature("b.example", FAIL)
        for judgement, expected in [
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
            self.assertEqual(options(judgement), expected, judgement.authentication)

    def test_several(self) -> None:
        """
        One of several options is enough.
        """
        judgement = passed(failed(signature("b.example", FAIL)), False, True)
        for fo, expected in [(("0", "d"), True), (("0",), False), (("x",), False)]:
            record = replace(RECORD, fo=fo)
            self.assertEqual(isWanted(asking(record, judgement)), expected)

    def test_temporary(self) -> None:
        """
        What may be found out later has not failed.
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
        Nobody gets what he doesn't ask for, and no public suffix does
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
        Reports, bounces, and whatever else nobody wrote are not answered by
        reports (RFC 9991 5.1); nor is what can't be told apart from them.
        """
        judgement = failed()
        self.assertTrue(isWanted(judgement))
        self.assertFalse(isWanted(replace(judgement, sender="")))
        self.assertFalse(isWanted(replace(judgement, isForReports=True)))
        self.assertFalse(isWanted(replace(judgement, header=b"")))
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

    def test_fate(self) -> None:
        """
        What was refused for another reason than DMARC isn't reported.
        """
        for fate in FinalDisposition:
            wanted = isWanted(replace(failed(), fate=fate))
            self.assertEqual(wanted, fate is not FinalDisposition.REJECTED)


class AllowedTests(SynchronousTestCase):
    """
    Tests for L{isAllowed}.
    """

    def allowed(self, judgement: VerdictEvent | None = None, **chosen: object) -> bool:
        settings = FailureReporting(enabled=True, submitter=OTHER)
        found = messageFailure(judgement or failed())
        assert found is not None
        return isAllowed(found, replace(settings, **chosen))  # type: ignore[arg-type]

    def test_off(self) -> None:
        """
        Nothing is sent by default, nor in nobody's name.
        """
        self.assertTrue(self.allowed())
        self.assertFalse(self.allowed(enabled=False))
        self.assertFalse(self.allowed(submitter=None))
        self.assertFalse(FailureReporting().enabled)

    def test_lists(self) -> None:
        """
        A list of those that get reports holds for all others; one of those
        that get none goes before it.
        """
        ours = frozenset({ORGANIZATION})
        self.assertTrue(self.allowed(allow=ours))
        self.assertFalse(self.allowed(allow=frozenset({AUTHOR, OTHER})))
        self.assertFalse(self.allowed(notTo=ours))
        self.assertFalse(self.allowed(notTo=ours, allow=ours))

    def test_silent(self) -> None:
        """
        Domains of ours may have no reports made of their mail.
        """
        silent = frozenset({Domain("our.example")})
        self.assertFalse(self.allowed(silent=silent))
        elsewhere = replace(failed(), recipient="anna@other.example")
        self.assertTrue(self.allowed(elsewhere, silent=silent))
        literal = replace(failed(), recipient="anna@[192.0.2.1]")
        self.assertTrue(self.allowed(literal, silent=silent))

    def test_strangers(self) -> None:
        """
        Who sends spam isn't told what becomes of it, unless that is meant.
        """
        stranger = replace(failed(), isKnown=False)
        self.assertFalse(self.allowed(stranger))
        self.assertTrue(self.allowed(stranger, strangers=True))
        self.assertTrue(self.allowed(stranger, allow=frozenset({ORGANIZATION})))


class FailureTests(SynchronousTestCase):
    """
    Tests for L{MessageFailure}, and what is known of it.
    """

    def failure(self, judgement: VerdictEvent) -> MessageFailure:
        found = messageFailure(judgement)
        assert found is not None
        return found

    def test_id(self) -> None:
        """
        It is the same message for all its recipients.
        """
        one = failed()
        ids = [
            self.failure(each).id
            for each in [
                one,
                replace(
                    one, recipient="bert@our.example", fate=FinalDisposition.ACCEPTED
                ),
                replace(one, sender="b@example.com"),
                replace(one, header=HEADER + b"X: y\r\n"),
            ]
        ]
        self.assertEqual(ids[0], ids[1])
        self.assertEqual(len(set(ids)), 3)

    def test_signature(self) -> None:
        """
        Of several signatures, one is told of that failed in the name of the
        author's domain, or else of its organization (RFC 9991 4).
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
        for judgement, expected in [
            (failed(), "V=spf1 ip4:192.0.2.9 -all"),
            (failed(status=PASS), ""),
            (failed(status=NONE), ""),
            (failed(spf="example.net"), ""),
            (failed(spf="news.example.com"), ""),
            (failed(spf="not a domain"), ""),
        ]:
            found = zone.find(spfRecord(self.failure(judgement)))
            self.assertEqual(found, expected)
        self.assertEqual(zone.asked, ["bounce.example.com", "news.example.com"])
        failing = Zone({}, failing=["bounce.example.com"])
        self.assertEqual(failing.find(spfRecord(self.failure(failed()))), "")
