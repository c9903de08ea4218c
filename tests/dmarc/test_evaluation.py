"""
Tests for L{moxtls.dmarc.evaluation}.

Tests for L{moxtls.dmarc.evaluation}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.authentication.results import AuthResult, DKIMResult, SPFScope
from moxtls.dmarc.evaluation import (
    MAX_ADDRESSES,
    MAX_SIGNATURES,
    WRITE_INTERVAL,
    EvaluationRecorder,
    evaluationOf,
    reportingHours,
)
from moxtls.dmarc.types import (
    Alignment,
    Discovery,
    DiscoveryMethod,
    Disposition,
    DMARCPolicy,
    DMARCRecord,
    Evaluation,
    FinalDisposition,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
    ReportURI,
    Verdict,
    VerdictEvent,
)
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore, IVerdictObserver
from tests.dmarc.zone import FAIL, PASS, checked, signature

AUTHOR = Domain("news.example.com")
ORGANIZATION = Domain("example.com")
RECORD = DMARCRecord(DMARCPolicy.REJECT, rua=(ReportURI("mailto:dmarc@example.com"),))
DISCOVERY = Discovery(
    AUTHOR, ORGANIZATION, DiscoveryMethod.TREE_WALK, ORGANIZATION, RECORD
)
PASSED = Verdict(
    PASS, AUTHOR, DISCOVERY, DMARCPolicy.REJECT, alignedDKIM=(0,), spfAligned=False
)
FAILED = Verdict(FAIL, AUTHOR, DISCOVERY, DMARCPolicy.REJECT, DMARCPolicy.REJECT)
GOOD = VerdictEvent(
    checked(signature("example.com"), spf="bounce.example.net", status=PASS),
    PASSED,
    FinalDisposition.ACCEPTED,
    "someone@bounce.example.net",
    "anna@bücher.example",
)
FORGED = VerdictEvent(
    checked(),
    FAILED,
    FinalDisposition.REJECTED_BY_DMARC,
    "",
    "anna@our.example",
    isKnown=False,
)


class EvaluationTestCase(SynchronousTestCase):
    """
    Expects evaluations.
    """

    def evaluation(self, event: VerdictEvent) -> Evaluation:
        found = evaluationOf(event)
        assert found is not None
        return found

    def row(self, event: VerdictEvent) -> ReportRow:
        return self.evaluation(event).row

    def ofRecord(self, record: DMARCRecord | None) -> VerdictEvent:
        """
        L{GOOD} under another record.
        """
        return self.of(replace(DISCOVERY, record=record))

    def of(self, discovery: Discovery) -> VerdictEvent:
        """
        L{GOOD} with another authentication outcome.
        """
        return replace(GOOD, verdict=replace(PASSED, discovery=discovery))


class EvaluationOfTests(EvaluationTestCase):
    """
    Tests for L{evaluationOf}.
    """

    def test_whole(self) -> None:
        """
        The evaluation of a message, with domains as A-labels.
        """
        record = DMARCRecord(
            DMARCPolicy.REJECT,
            DMARCPolicy.QUARANTINE,
            adkim=Alignment.STRICT,
            testing=True,
            rua=(ReportURI("mailto:a@b.example", 10), ReportURI("https://c.example")),
            fo=("1", "d"),
            percent=50,
            interval=7200,
        )
        self.assertEqual(
            self.evaluation(self.ofRecord(record)),
            Evaluation(
                PublishedPolicy(
                    ORGANIZATION,
                    DMARCPolicy.REJECT,
                    DMARCPolicy.QUARANTINE,
                    None,
                    Alignment.STRICT,
                    Alignment.RELAXED,
                    True,
                    ("1", "d"),
                    50,
                ),
                ReportRow(
                    "192.0.2.1",
                    Disposition.PASS,
                    True,
                    False,
                    (),
                    "news.example.com",
                    "bounce.example.net",
                    "xn--bcher-kva.example",
                    (ReportedSignature("example.com", "s", PASS),),
                    ReportedSPF("bounce.example.net", "mfrom", PASS),
                ),
                2,
                ("mailto:a@b.example!10", "https://c.example"),
                False,
                True,
            ),
        )

    def test_nothing(self) -> None:
        """
        No evaluation is recorded if no report is requested, or if the policy domain
        is undecided.
        """
        several = Verdict(AuthResult.NONE, disposition=DMARCPolicy.QUARANTINE)
        for event in (
            self.ofRecord(None),
            self.ofRecord(DMARCRecord(DMARCPolicy.REJECT)),
            self.of(replace(DISCOVERY, temporary=True)),
            replace(GOOD, verdict=several),
            replace(GOOD, verdict=Verdict(AuthResult.NONE, AUTHOR)),
        ):
            self.assertIsNone(evaluationOf(event))
        known = self.of(replace(DISCOVERY, temporary=True, policyDomain=AUTHOR))
        self.assertIsNotNone(evaluationOf(known))

    def test_finalDispositions(self) -> None:
        """
        Mail refused for other reasons isn't counted, nor mail accepted only for the
        mailbox of rejected mail.
        """
        for finalDisposition in FinalDisposition:
            counted = finalDisposition not in (
                FinalDisposition.REJECTED,
                FinalDisposition.ACCEPTED_REJECT,
            )
            found = evaluationOf(replace(GOOD, finalDisposition=finalDisposition))
            self.assertEqual(found is not None, counted, finalDisposition)

    def test_optional(self) -> None:
        """
        Reports cause no reports, nor do forgeries from nowhere.
        """
        quarantined = replace(
            FORGED,
            finalDisposition=FinalDisposition.JUNK,
            verdict=replace(FAILED, disposition=DMARCPolicy.QUARANTINE),
        )
        spam = replace(GOOD, finalDisposition=FinalDisposition.JUNK, isKnown=False)
        for event, optional in [
            (GOOD, False),
            (replace(GOOD, isForReports=True), True),
            (replace(GOOD, isKnown=False), False),
            (FORGED, True),
            (replace(FORGED, isKnown=True), False),
            (quarantined, True),
            (replace(quarantined, isKnown=True), False),
            (spam, False),
        ]:
            self.assertEqual(self.evaluation(event).optional, optional)

    def test_wanted(self) -> None:
        """
        Accepted, and authentic.
        """
        failed = replace(FORGED, finalDisposition=FinalDisposition.ACCEPTED)
        for event, wanted in [
            (GOOD, True),
            (replace(GOOD, finalDisposition=FinalDisposition.JUNK), False),
            (failed, False),
            (FORGED, False),
        ]:
            self.assertEqual(self.evaluation(event).wanted, wanted)

    def test_disposition(self) -> None:
        """
        The disposition by DMARC; C{pass} if an enforced policy was passed (RFC 9990
        3.1.1.9).
        """
        lax = replace(PASSED, policy=DMARCPolicy.NONE)
        quarantine = replace(FAILED, disposition=DMARCPolicy.QUARANTINE)
        tolerated = replace(FAILED, disposition=DMARCPolicy.NONE)
        for event, disposition in [
            (GOOD, Disposition.PASS),
            (replace(GOOD, finalDisposition=FinalDisposition.JUNK), Disposition.PASS),
            (replace(GOOD, verdict=lax), Disposition.NONE),
            (FORGED, Disposition.REJECT),
            (
                replace(
                    FORGED, verdict=quarantine, finalDisposition=FinalDisposition.JUNK
                ),
                Disposition.QUARANTINE,
            ),
            (
                replace(
                    FORGED, verdict=tolerated, finalDisposition=FinalDisposition.JUNK
                ),
                Disposition.NONE,
            ),
            (
                replace(
                    FORGED,
                    verdict=tolerated,
                    finalDisposition=FinalDisposition.ACCEPTED,
                ),
                Disposition.NONE,
            ),
        ]:
            self.assertEqual(self.row(event).disposition, disposition)

    def test_reasons(self) -> None:
        """
        The override reasons of the verdict, and one more if a recipient's policy
        differs (RFC 9990 3.1.1.9).
        """
        tested = Override(OverrideKind.POLICY_TEST_MODE)
        verdict = replace(FAILED, disposition=DMARCPolicy.QUARANTINE, reasons=(tested,))
        for finalDisposition, kinds in [
            (FinalDisposition.JUNK, ["policy_test_mode"]),
            (FinalDisposition.ACCEPTED, ["policy_test_mode", "local_policy"]),
        ]:
            row = self.row(
                replace(FORGED, verdict=verdict, finalDisposition=finalDisposition)
            )
            self.assertEqual([str(each.kind) for each in row.reasons], kinds)
        row = self.row(replace(FORGED, finalDisposition=FinalDisposition.JUNK))
        self.assertEqual(row.disposition, Disposition.QUARANTINE)
        self.assertEqual(len(row.reasons), 1)

    def test_addresses(self) -> None:
        """
        Texts with addresses are truncated.
        """
        record = replace(RECORD, rua=RECORD.rua * 50)
        found = self.evaluation(self.ofRecord(record))
        self.assertEqual(len(found.addresses), MAX_ADDRESSES)

    def test_envelope(self) -> None:
        """
        The domain of MAIL FROM; empty for the null reverse-path.
        """
        for sender, domain in [
            ("", ""),
            ("a@[192.0.2.1]", "[192.0.2.1]"),
            ('"a@b"@Example.ORG', "example.org"),
            ("a@b c", ""),
        ]:
            self.assertEqual(
                self.row(replace(GOOD, sender=sender)).envelopeFrom, domain
            )


class SignatureTests(EvaluationTestCase):
    """
    Reported signatures and their order (RFC 9990 3.1.3).
    """

    def rows(self, *signed: DKIMResult, aligned: tuple[int, ...] = ()) -> list[str]:
        """
        Their selectors.
        """
        verdict = replace(PASSED, alignedDKIM=aligned)
        event = replace(GOOD, authentication=checked(*signed))
        row = self.row(replace(event, verdict=verdict))
        return [each.selector for each in row.dkim]

    def test_order(self) -> None:
        """
        The best signatures come first: strictly aligned, aligned, passing, failing;
        those of other domains too (RFC 9990 3.1.1.11), but none without a selector.
        """
        found = self.rows(
            signature("example.com", FAIL, "failing"),
            signature("x.example.com", PASS, "passing"),
            signature("other.example", PASS, "other"),
            signature("example.com", PASS, "aligned"),
            signature("example.com", PASS, ""),
            signature("news.example.com", PASS, "strict"),
            aligned=(3, 5),
        )
        self.assertEqual(found, ["strict", "aligned", "passing", "other", "failing"])

    def test_many(self) -> None:
        """
        A hundred, not those at the end of the order.
        """
        many = [signature("example.com", FAIL, f"s{n}") for n in range(150)]
        found = self.rows(*many, signature("news.example.com", PASS, "last"))
        self.assertEqual(len(found), MAX_SIGNATURES)
        self.assertEqual(found[0], "last")

    def test_problem(self) -> None:
        """
        Why it failed, in a line.
        """
        broken = replace(signature("example.com", FAIL), problem="bad\r\n" + "x" * 999)
        event = replace(GOOD, authentication=checked(broken))
        (told,) = self.row(event).dkim
        self.assertEqual(told.problem[:6], "bad??x")
        self.assertLess(len(told.problem), 300)


class SPFTests(EvaluationTestCase):
    """
    The one SPF result (RFC 9990 3.1.1.13).
    """

    def test_scopes(self) -> None:
        """
        Scopes by MAIL FROM or HELO, with any name; none if there was neither.
        """
        for domain, scope, told in [
            ("a.example", SPFScope.MAIL_FROM, ReportedSPF("a.example", "mfrom", FAIL)),
            ("[192.0.2.1]", SPFScope.HELO, ReportedSPF("[192.0.2.1]", "helo", FAIL)),
            ("x\n", SPFScope.HELO, ReportedSPF("x?", "helo", FAIL)),
            ("", SPFScope.HELO, None),
        ]:
            message = checked(spf=domain, scope=scope)
            self.assertEqual(self.row(replace(GOOD, authentication=message)).spf, told)


class ReportingHoursTests(SynchronousTestCase):
    """
    Tests for L{reportingHours}.
    """

    def test_divisors(self) -> None:
        """
        Intervals are whole divisors of a day, not longer than requested.
        """
        for asked, hours in [
            (0, 1),
            (1, 1),
            (3600, 1),
            (3601, 2),
            (5 * 3600, 4),
            (7 * 3600, 6),
            (12 * 3600, 12),
            (23 * 3600, 12),
            (86400, 24),
            (30 * 3600, 24),
            (2**32 - 1, 24),
        ]:
            self.assertEqual(reportingHours(asked), hours, asked)


HOUR = 1_795_000_000 // 3600 * 3600


class Recording:
    """
    A partial L{IEvaluationStore} that records calls.
    """

    def __init__(self) -> None:
        self.recorded: list[tuple[int, Evaluation, int]] = []
        self.answers: list[Deferred[None]] = []

    def record(
        self, hour: int, evaluation: Evaluation, count: int = 1
    ) -> Deferred[None]:
        self.recorded.append((hour, evaluation, count))
        return self.answers.pop(0) if self.answers else succeed(None)


class EvaluationRecorderTests(SynchronousTestCase):
    """
    Tests for L{EvaluationRecorder}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(HOUR + 3599.9)
        self.store = Recording()

    def recorder(
        self, enabled: bool = True, silent: frozenset[Domain] = frozenset()
    ) -> EvaluationRecorder:
        store = cast(IEvaluationStore, self.store)
        return EvaluationRecorder(self.clock, store, enabled, silent)

    def test_hour(self) -> None:
        """
        An evaluation counts for the UTC hour in which it is made.
        """
        recorder = self.recorder()
        verifyObject(IVerdictObserver, recorder)
        for _ in range(2):
            self.successResultOf(recorder.verdictGiven(GOOD))
            self.clock.advance(0.1)
        evaluation = evaluationOf(GOOD)
        self.assertEqual(
            self.store.recorded, [(HOUR, evaluation, 1), (HOUR + 3600, evaluation, 1)]
        )

    def test_gathered(self) -> None:
        """
        Evaluations shortly after one another are written together, equal ones as one;
        each Deferred fires when that is done, or fails.
        """
        recorder = self.recorder()
        other = replace(GOOD, sender="other@elsewhere.example")
        self.successResultOf(recorder.verdictGiven(GOOD))
        waiting = [recorder.verdictGiven(each) for each in (GOOD, other, GOOD)]
        self.assertEqual(len(self.store.recorded), 1)
        written: Deferred[None] = Deferred()
        self.store.answers = [written, fail(OSError())]
        self.clock.advance(WRITE_INTERVAL)
        counts = [(evaluationOf(GOOD), 2), (evaluationOf(other), 1)]
        self.assertEqual([each[1:] for each in self.store.recorded[1:]], counts)
        self.assertNoResult(waiting[0])
        written.callback(None)
        for each in (waiting[0], waiting[2]):
            self.successResultOf(each)
        self.failureResultOf(waiting[1], OSError)

    def test_flush(self) -> None:
        """
        Flushing writes everything at once.
        """
        recorder = self.recorder()
        recorder.flush()
        told = [recorder.verdictGiven(GOOD) for _ in range(3)]
        recorder.flush()
        self.assertEqual([each[2] for each in self.store.recorded], [1, 2])
        for each in told:
            self.successResultOf(each)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing(self) -> None:
        """
        Nothing is recorded if recording is off, for all or for mail to a domain, or
        if there is nothing to report.
        """
        silent = frozenset({Domain.parse("bücher.example")})
        for recorder, event in [
            (self.recorder(enabled=False), GOOD),
            (self.recorder(silent=silent), GOOD),
            (
                self.recorder(),
                replace(GOOD, finalDisposition=FinalDisposition.REJECTED),
            ),
        ]:
            self.successResultOf(recorder.verdictGiven(event))
        self.assertEqual(self.store.recorded, [])
