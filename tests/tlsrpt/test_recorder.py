"""
Tests for L{moxtls.tlsrpt.recorder}.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dates import midnight
from moxtls.domain import Domain
from moxtls.interfaces import ISessionObserver
from moxtls.ledger.ledger import MemoryLedger
from moxtls.tlsrpt.recorder import (
    OutcomeRecorder,
    countedOnce,
    withoutContradiction,
)
from moxtls.tlsrpt.types import PolicyTally, PolicyType, SessionOutcome, TLSPolicy

DAY = date(2026, 11, 24)
DOMAIN = Domain("example.org")
HOST = Domain("mx.example.net")
NO_POLICY = PolicyTally(TLSPolicy(PolicyType.NO_POLICY, DOMAIN), succeeded=1)
TLSA = PolicyTally(TLSPolicy(PolicyType.TLSA, HOST, ("3 1 1 00",)), succeeded=1)
OUTCOME = SessionOutcome(DOMAIN, NO_POLICY, (TLSA,))


class OutcomeRecorderTests(SynchronousTestCase):
    """
    Tests for L{OutcomeRecorder}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(midnight(DAY) + 86399.9)
        self.store = MemoryLedger().outcomes

    def record(self, outcome: SessionOutcome, enabled: bool = True) -> None:
        recorder = OutcomeRecorder(self.clock, self.store, enabled)
        verifyObject(ISessionObserver, recorder)
        self.successResultOf(recorder.sessionEnded(outcome))

    def stored(self) -> list[tuple[date, Domain, PolicyType]]:
        return [
            (result.day, result.policyDomain, result.tallies[0].policy.type)
            for result in self.successResultOf(self.store.results())
        ]

    def test_report(self) -> None:
        """
        RFC 8460 3: a session that carries a TLS report is left out of the next; its
        outcome is logged.
        """
        with capturedLogs() as said:
            self.record(replace(OUTCOME, isTLSReport=True))
        self.assertEqual(self.stored(), [])
        self.assertEqual(
            [(each["of"], each["good"]) for each in said], [(DOMAIN, 1), (HOST, 1)]
        )

    def test_day(self) -> None:
        """
        An outcome counts for the UTC day in which the attempt ended (RFC 8460 4.1).
        """
        self.record(OUTCOME)
        self.clock.advance(0.1)
        self.record(OUTCOME)
        days = {day for day, _, _ in self.stored()}
        self.assertEqual(days, {DAY, date(2026, 11, 25)})

    def test_off(self) -> None:
        """
        Nothing is recorded if disabled.
        """
        self.record(OUTCOME, enabled=False)
        self.assertEqual(self.stored(), [])

    def test_address(self) -> None:
        """
        Results of IP addresses aren't recorded: reports about them can't be
        requested.
        """
        for ip in ("192.0.2.1", "2001:db8::1"):
            self.record(replace(OUTCOME, recipientDomain=Domain(ip)))
        self.assertEqual(self.stored(), [])

    def test_ownHost(self) -> None:
        """
        A domain that is its own mail host with TLSA records isn't recorded as without
        a policy too.
        """
        own = replace(TLSA, policy=replace(TLSA.policy, domain=DOMAIN))
        self.record(SessionOutcome(DOMAIN, NO_POLICY, (own,)))
        self.assertEqual(self.stored(), [(DAY, DOMAIN, PolicyType.TLSA)])

    def test_ownHostWithoutPolicy(self) -> None:
        """
        The same domain without a policy is recorded as such once.
        """
        self.record(SessionOutcome(DOMAIN, NO_POLICY, (NO_POLICY,)))
        self.assertEqual(self.stored(), [(DAY, DOMAIN, PolicyType.NO_POLICY)])


class CountedOnceTests(SynchronousTestCase):
    """
    Tests for L{countedOnce}.
    """

    def test_ownHost(self) -> None:
        """
        A session with a domain that is its own mail host, without a policy,
        is one session in its report (RFC 8460 4.4).
        """
        host = replace(NO_POLICY, failed=0)
        other = replace(TLSA, policy=TLSPolicy(PolicyType.NO_POLICY, HOST))
        outcome = SessionOutcome(DOMAIN, NO_POLICY, (host, other))
        self.assertEqual(
            countedOnce(outcome), SessionOutcome(DOMAIN, NO_POLICY, (other,))
        )

    def test_kept(self) -> None:
        """
        Other sessions count for the recipient domain and for the host (RFC 8460 3).
        """
        for each in (OUTCOME, SessionOutcome(DOMAIN, None, (TLSA,))):
            self.assertIs(countedOnce(each), each)


class WithoutContradictionTests(SynchronousTestCase):
    """
    Tests for L{withoutContradiction}.
    """

    def test_kept(self) -> None:
        """
        Another host's TLSA records, or an MTA-STS policy, contradict nothing;
        nor does an absence of both.
        """
        sts = replace(
            NO_POLICY, policy=TLSPolicy(PolicyType.STS, HOST, ("mode: none",))
        )
        none = replace(TLSA, policy=TLSPolicy(PolicyType.NO_POLICY, DOMAIN))
        for outcome in [
            OUTCOME,
            SessionOutcome(HOST, sts, (TLSA,)),
            SessionOutcome(DOMAIN, NO_POLICY, (none,)),
            SessionOutcome(DOMAIN, None, (TLSA,)),
        ]:
            self.assertIs(withoutContradiction(outcome), outcome)
