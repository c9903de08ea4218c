"""
Tests for L{moxtls.received.analysis.readiness}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.record import parseDMARCRecord
from moxtls.dmarc.types import DMARCPolicy, DMARCRecord
from moxtls.domain import Domain
from moxtls.mtasts.policy import STSPolicy, parsePolicy
from moxtls.received.analysis.answers import (
    DMARCAnswer,
    TLSAnswer,
    answerDMARC,
    answerTLS,
    failureReasons,
)
from moxtls.received.analysis.readiness import (
    PublishedRecords,
    Ready,
    enforceStep,
    expectedDMARC,
    expectedTLS,
    quarantineStep,
    rejectStep,
    steps,
)
from moxtls.received.analysis.sources import SourceGroup, SourceKind
from moxtls.received.types import (
    DMARCDay,
    Reporter,
    RowOutcome,
    TLSDay,
    TLSFailureGroup,
)

DOMAIN = Domain("example.org")
REPORTERS = [Reporter(name, 9, 9, 0, 1, 9) for name in ("google.com", "Microsoft")]


def sts(mode: str = "testing", mx: str = "mx.example.org") -> STSPolicy:
    """
    A policy.
    """
    found = parsePolicy(
        f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n".encode()
    )
    assert isinstance(found, STSPolicy)
    return found


def published(
    record: str = "p=none", policy: STSPolicy | None = None
) -> PublishedRecords:
    """
    What a domain publishes.
    """
    found = parseDMARCRecord(f"v=DMARC1; {record}; rua=mailto:d@example.org".encode())
    assert isinstance(found, DMARCRecord)
    return PublishedRecords(
        DOMAIN,
        sts() if policy is None else policy,
        mxHosts=(Domain("mx.example.org"),),
        dmarc=found,
        requested=found.p,
        dmarcName="_dmarc.example.org",
        tlsrpt=("mailto:t@example.org",),
    )


def tls(
    days: int = 14,
    sessions: int = 100,
    *groups: TLSFailureGroup,
    reporters: int = 2,
) -> TLSAnswer:
    """
    Days with as many sessions each.
    """
    found = [TLSDay(n, "sts", sessions, 0) for n in range(days)]
    reasons = failureReasons(groups)
    return answerTLS("example.org", 0, 13, found, reasons, REPORTERS[:reporters])


def group(sessions: int, kind: str, policyType: str = "sts") -> TLSFailureGroup:
    """
    Failures at mx2.
    """
    return TLSFailureGroup(
        policyType, kind, "", "mx2.example.org", "", sessions, 1, 9, ("x",), (1,)
    )


def source(
    kind: SourceKind, passed: int, failed: int = 0, dkim: int = -1
) -> SourceGroup:
    """
    Messages from one source; signed if they passed.
    """
    found = SourceGroup(kind, f"{kind}.example", "", "192.0.2.1")
    found.messages, found.failed = passed + failed, failed
    found.dkim = passed if dkim < 0 else dkim
    if failed:
        found.firstFailure = found.lastFailure = 9
    return found


def dmarc(*groups: SourceGroup, days: int = 31, reporters: int = 2) -> DMARCAnswer:
    """
    Messages of C{groups}, spread over some days.
    """
    passed = sum(each.passed for each in groups)
    counts = [
        DMARCDay(n, RowOutcome.DKIM, passed if n == 0 else 0) for n in range(days)
    ]
    counts.append(DMARCDay(0, RowOutcome.NONE, sum(each.failed for each in groups)))
    return answerDMARC(
        "example.org", 0, 30, counts, groups, groups, REPORTERS[:reporters]
    )


class EnforceTests(SynchronousTestCase):
    """
    Tests for L{enforceStep}.
    """

    def test_answers(self) -> None:
        """
        Enough days, sessions and reporters without failures are needed, and a policy in
        mode testing that lists every MX host (RFC 8461 5, 4.1).
        """
        here = published()
        none = replace(here, sts=None, stsProblem="no record at _mta-sts")
        other = published(policy=sts(mx="*.example.net"))
        enforced = published(policy=sts("enforce"))
        bad = group(50, "certificate-expired")
        table = [
            (here, tls(), Ready.YES, "set mode: enforce in the policy, and a new id"),
            (here, tls(0), Ready.NO_DATA, "no TLS report about these days"),
            (here, tls(5), Ready.NOT_YET, "reports about 10 days are needed"),
            (here, tls(14, 5), Ready.NOT_YET, "100 sessions are needed, there are 70"),
            (here, tls(reporters=1), Ready.NOT_YET, "reports of 2 organizations"),
            (none, tls(), Ready.NOT_YET, "publish a policy with mode: testing first"),
            (
                published(policy=sts("none")),
                tls(),
                Ready.NOT_YET,
                "publish a policy with mode: testing first",
            ),
            (other, tls(), Ready.NOT_YET, "1 problem to mend first"),
            (here, tls(14, 100, bad), Ready.NOT_YET, "1 problem to mend first"),
            (
                none,
                tls(14, 100, bad),
                Ready.NOT_YET,
                "1 problem to mend first; publish a policy with mode: testing first",
            ),
            (enforced, tls(), Ready.DONE, "enforced already"),
            (enforced, tls(14, 100, bad), Ready.DONE, "while 1 problem"),
            # What is normal, and what MTA-STS has no part in.
            (here, tls(14, 100, group(1, "validation-failure")), Ready.YES, ""),
            (here, tls(14, 100, group(50, "tlsa-invalid")), Ready.YES, ""),
            (
                here,
                tls(14, 100, group(50, "validation-failure", "tlsa")),
                Ready.YES,
                "",
            ),
        ]
        for records, answer, ready, sentence in table:
            step = enforceStep(records, answer)
            self.assertEqual(step.ready, ready, step)
            self.assertIn(sentence, step.sentence)

    def test_blockers(self) -> None:
        """
        A blocker names the host, what is wrong, how much a day, and the remedy.
        """
        step = enforceStep(published(), tls(14, 100, group(70, "certificate-expired")))
        [blocker] = step.blockers
        self.assertEqual(blocker.name, "mx2.example.org")
        self.assertEqual((blocker.problem, blocker.perDay), ("certificate expired", 5))
        self.assertIn("Renew", blocker.remedy)
        self.assertEqual(step.now, "mode testing")
        self.assertIn("14 days of 14 with reports, by 2 reporters", step.evidence)


class DMARCTests(SynchronousTestCase):
    """
    Tests for L{quarantineStep} and L{rejectStep}.
    """

    def test_quarantine(self) -> None:
        """
        Enough days, messages and reporters are needed, and own mail that passes;
        failures of strangers and forwarders are no obstacle.
        """
        ours = source(SourceKind.OURS, 1000)
        here = published()
        table = [
            (here, dmarc(ours), Ready.YES, "set p=quarantine in _dmarc.example.org"),
            (here, dmarc(days=0), Ready.NO_DATA, "no DMARC report"),
            (here, dmarc(ours, days=5), Ready.NOT_YET, "14 days are needed"),
            (here, dmarc(ours, reporters=1), Ready.NOT_YET, "2 organizations"),
            (
                here,
                dmarc(source(SourceKind.OURS, 9)),
                Ready.NOT_YET,
                "100 messages are needed",
            ),
            (
                here,
                dmarc(source(SourceKind.OURS, 900, 100)),
                Ready.NOT_YET,
                "1 problem",
            ),
            # Perhaps it is in use, but was never set up.
            (
                here,
                dmarc(ours, source(SourceKind.SERVICE, 0, 50)),
                Ready.NOT_YET,
                "1 problem",
            ),
            (here, dmarc(ours, source(SourceKind.UNKNOWN, 0, 999)), Ready.YES, ""),
            (here, dmarc(ours, source(SourceKind.FORWARDER, 0, 99)), Ready.YES, ""),
            (published("p=reject"), dmarc(ours), Ready.DONE, "published already"),
            (
                published("p=quarantine"),
                dmarc(source(SourceKind.OURS, 900, 100)),
                Ready.DONE,
                "while 1 problem",
            ),
            # RFC 9989 4.7: testing lowers the policy by one step.
            (published("p=quarantine; t=y"), dmarc(ours), Ready.YES, "remove t=y from"),
            (published("p=reject; t=y"), dmarc(ours), Ready.DONE, ""),
        ]
        for records, answer, ready, sentence in table:
            step = quarantineStep(records, answer)
            self.assertEqual(step.ready, ready, step)
            self.assertIn(sentence, step.sentence)

    def test_reject(self) -> None:
        """
        RFC 9989 7.4: p=quarantine for a month first, signatures on all mail, and few
        messages that forwarders break.
        """
        ours = source(SourceKind.OURS, 1000)
        here = published("p=quarantine")
        table = [
            (here, dmarc(ours), Ready.YES, "set p=reject in _dmarc.example.org"),
            (published("p=reject; t=y"), dmarc(ours), Ready.YES, "remove t=y from"),
            (
                published(),
                dmarc(ours),
                Ready.NOT_YET,
                "publish p=quarantine for a month",
            ),
            (here, dmarc(ours, days=20), Ready.NOT_YET, "25 days are needed"),
            (
                here,
                dmarc(source(SourceKind.OURS, 1000, 4)),
                Ready.NOT_YET,
                "1 problem",
            ),
            (
                here,
                dmarc(source(SourceKind.OURS, 1000, 0, 500)),
                Ready.NOT_YET,
                "1 problem",
            ),
            (
                here,
                dmarc(ours, source(SourceKind.FORWARDER, 0, 50)),
                Ready.NOT_YET,
                "1 problem",
            ),
            (here, dmarc(ours, source(SourceKind.UNKNOWN, 0, 999)), Ready.YES, ""),
        ]
        for records, answer, ready, sentence in table:
            step = rejectStep(records, answer)
            self.assertEqual(step.ready, ready, step)
            self.assertIn(sentence, step.sentence)

    def test_subdomain(self) -> None:
        """
        RFC 9989 4.7: the policy for a subdomain without a record of its own is the
        C{sp} of the organizational domain.
        """
        records = replace(
            published("p=reject; sp=none"), domain=Domain("a.example.org")
        )
        records = replace(records, requested=DMARCPolicy.NONE)
        step = quarantineStep(records, dmarc(source(SourceKind.OURS, 1000)))
        self.assertEqual(step.now, "sp=none")
        self.assertEqual(step.sentence, "set sp=quarantine in _dmarc.example.org")

    def test_addedUp(self) -> None:
        """
        The shares are those of all sessions, or all messages of own senders: many
        causes that lose few lose as much as one, and one message of a source that sends
        few is no obstacle.
        """
        groups = [group(1, f"certificate-{n}") for n in ("expired", "not-trusted")]
        step = enforceStep(published(), tls(14, 100, *groups))
        self.assertEqual((step.ready, len(step.blockers)), (Ready.NOT_YET, 2))

        def own(name: str, passed: int, failed: int, unsigned: int = 0) -> SourceGroup:
            found = source(SourceKind.OURS, passed, failed, passed - unsigned)
            found.name = name
            return found

        table = [
            ((own("a", 996, 4), own("b", 996, 4)), Ready.YES, Ready.NOT_YET, 2),
            ((own("a", 996, 4), own("b", 990, 10)), Ready.NOT_YET, Ready.NOT_YET, 2),
            ((own("a", 9999, 0), own("b", 0, 1)), Ready.YES, Ready.YES, 0),
            ((own("a", 999, 0, 9), own("b", 9, 0, 9)), Ready.YES, Ready.NOT_YET, 2),
            ((own("a", 9999, 0), own("b", 9, 0, 9)), Ready.YES, Ready.YES, 0),
        ]
        for sources, quarantine, reject, blockers in table:
            answer = dmarc(*sources)
            self.assertEqual(quarantineStep(published(), answer).ready, quarantine)
            step = rejectStep(published("p=quarantine"), answer)
            self.assertEqual((step.ready, len(step.blockers)), (reject, blockers))

    def test_evidence(self) -> None:
        """
        The numbers that the answer is based on, and what would be kept out.
        """
        answer = dmarc(
            source(SourceKind.OURS, 990, 10), source(SourceKind.UNKNOWN, 0, 7)
        )
        step = quarantineStep(published(), answer)
        self.assertEqual(
            step.evidence,
            (
                "31 days of 31 with reports, by 2 reporters",
                "1,000 messages of 1 own source, 1.0 % failed",
                "7 messages of others failed, and would be kept out",
            ),
        )
        [blocker] = step.blockers
        self.assertEqual(blocker.problem, "1.0 % of its mail fails")
        self.assertAlmostEqual(blocker.perDay, 10 / 31)

    def test_nothing(self) -> None:
        """
        A domain that publishes nothing learns what is missing.
        """
        bare = PublishedRecords(
            DOMAIN,
            stsProblem="no MTA-STS",
            dmarcProblem="no DMARC record",
            tlsrptProblem="no record",
        )
        for step in steps(bare, tls(0), dmarc(days=0)):
            self.assertEqual(step.ready, Ready.NO_DATA)
            self.assertIn(": no ", step.now + step.sentence)


class ExpectationTests(SynchronousTestCase):
    """
    Tests for L{expectedTLS} and L{expectedDMARC}.
    """

    def test_expected(self) -> None:
        """
        Without reports, the record that asks for them is named, or its error.
        """
        here = published()
        self.assertIn("asks for them at mailto:t@example.org", expectedTLS(here))
        self.assertIn("asks for them at mailto:d@example.org", expectedDMARC(here))
        bare = PublishedRecords(DOMAIN, dmarcProblem="none", tlsrptProblem="no record")
        self.assertEqual(
            expectedTLS(bare), "no TLS report yet: _smtp._tls.example.org: no record"
        )
        self.assertEqual(
            expectedDMARC(bare), "no DMARC report yet: _dmarc.example.org: none"
        )
        silent = replace(here, dmarc=DMARCRecord(DMARCPolicy.REJECT))
        self.assertIn("has no rua", expectedDMARC(silent))
