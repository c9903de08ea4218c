"""
Contracts that every implementation of a store fulfils, as mixins: a subclass makes an
empty ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dates import DAY as ONE_DAY
from moxtls.domain import Domain
from moxtls.interfaces import (
    IEvaluationStore,
    ILeases,
    IOutcomeStore,
    IPolicyStore,
    IReportArchive,
    ISenderHistory,
    ISuppressions,
)
from moxtls.ledger.bounds import MAX_FAILURES, MAX_NAME_LENGTH
from moxtls.queue.types import ReportKind
from moxtls.received.interfaces import IListenerHistory, IReceivedReportStore
from moxtls.reporting.types import (
    OutgoingReport,
    ReportKey,
    ReportPeriod,
    ReportState,
    Suppression,
)
from moxtls.tlsrpt.types import PolicyTally, SessionOutcome, StoredResult, TLSPolicy
from tests.ledger.values import (
    EXPIRED,
    MIDNIGHT,
    MONDAY,
    MX,
    NET,
    ORG,
    TUESDAY,
    UNUSABLE,
    WEDNESDAY,
    bad,
    cached,
    good,
    noPolicy,
    report,
    sts,
    tlsa,
)

T = TypeVar("T")


class Stores(Protocol):
    """
    The shape that all ledgers have.
    """

    @property
    def identifier(self) -> str: ...
    @property
    def outcomes(self) -> IOutcomeStore: ...
    @property
    def policies(self) -> IPolicyStore: ...
    @property
    def archive(self) -> IReportArchive: ...
    @property
    def suppressions(self) -> ISuppressions: ...
    @property
    def leases(self) -> ILeases: ...
    @property
    def evaluations(self) -> IEvaluationStore: ...
    @property
    def history(self) -> ISenderHistory: ...
    @property
    def received(self) -> IReceivedReportStore: ...
    @property
    def listenerHistory(self) -> IListenerHistory: ...


if TYPE_CHECKING:
    _TestCase = SynchronousTestCase
else:
    _TestCase = object


KINDS = (ReportKind.TLS, ReportKind.DMARC)


class Contract(_TestCase):
    """
    Base class of the mixins.
    """

    def makeLedger(self) -> Stores:
        """
        An empty ledger, whose Deferreds have fired when they are returned.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        self.ledger = self.makeLedger()

    def got(self, deferred: Deferred[T]) -> T:
        """
        The result of C{deferred}, which has fired.
        """
        return self.successResultOf(deferred)

    def paged(self, load: Callable[[T | None, int], Deferred[tuple[T, ...]]]) -> None:
        """
        Pages of any size contain what C{load} returns at once, in the same order.
        """
        whole = self.pages(load, 1000)
        self.assertGreater(len(whole), 3)
        for limit in (1, 2, 3):
            self.assertEqual(self.pages(load, limit), whole)

    def pages(
        self, load: Callable[[T | None, int], Deferred[tuple[T, ...]]], limit: int
    ) -> tuple[T, ...]:
        last: T | None = None
        pages: list[T] = []
        while found := self.got(load(last, limit)):
            pages += found
            last = found[-1]
        return tuple(pages)


class OutcomeContract(Contract):
    """
    L{IOutcomeStore}.
    """

    def record(self, *outcomes: SessionOutcome, day: date = MONDAY) -> None:
        for outcome in outcomes:
            self.got(self.ledger.outcomes.record(day, outcome))

    def results(
        self,
        day: date | None = None,
        policyDomain: Domain | None = None,
        recipientDomain: Domain | None = None,
    ) -> tuple[StoredResult, ...]:
        outcomes = self.ledger.outcomes
        return self.got(outcomes.results(day, policyDomain, recipientDomain))

    def test_resultPages(self) -> None:
        """
        Results come a page at a time, by day, policy domain and recipient domain,
        all of them or those of one domain.
        """
        for day in (MONDAY, TUESDAY):
            for domain in (ORG, NET):
                self.record(good(domain), bad(domain), day=day)
        results = self.ledger.outcomes.results
        self.paged(lambda last, most: results(None, None, None, last, most))
        self.paged(lambda last, most: results(MONDAY, None, None, last, most))
        self.paged(lambda last, most: results(None, MX, None, last, most))
        self.paged(lambda last, most: results(None, None, ORG, last, most))
        whole = self.pages(lambda last, most: results(None, None, None, last, most), 9)
        self.assertEqual(whole, self.got(results()))

    def periods(
        self,
        phase: int,
        before: date = TUESDAY,
        after: ReportPeriod | None = None,
        limit: int = 100,
    ) -> tuple[ReportPeriod, ...]:
        outcomes = self.ledger.outcomes
        return self.got(outcomes.periods(phase, before, after, limit))

    def settle(
        self,
        phase: int,
        domain: Domain,
        *reports: OutgoingReport,
        destinations: tuple[str, ...] = (),
        day: date = MONDAY,
    ) -> int:
        period = ReportPeriod(phase, day, domain)
        return self.got(self.ledger.outcomes.settle(period, destinations, reports))

    def test_interface(self) -> None:
        """
        The store provides L{IOutcomeStore}.
        """
        verifyObject(IOutcomeStore, self.ledger.outcomes)

    def test_empty(self) -> None:
        """
        An empty store has no results, periods or closings.
        """
        outcomes = self.ledger.outcomes
        self.assertEqual(self.results(), ())
        self.assertEqual(self.periods(0), ())
        self.assertEqual(self.got(outcomes.count(1, TUESDAY)), 0)
        self.assertEqual(self.got(outcomes.remove(ORG)), 0)
        self.assertEqual(self.got(outcomes.prune(WEDNESDAY)), 0)
        self.assertEqual(self.settle(0, ORG), 0)

    def test_closed(self) -> None:
        """
        Results stored when their period is closed are due at once; those recorded later
        are due when the day is over, and settled separately.
        """
        outcomes, noon = self.ledger.outcomes, MIDNIGHT + 43200
        self.assertEqual(self.got(outcomes.close(None, noon)), 0)
        self.record(bad(), bad(NET))
        self.assertEqual(self.periods(0, MONDAY), ())
        # As recipient domain: of itself, and of its host.
        self.assertEqual(self.got(outcomes.close(ORG, noon)), 2)
        self.assertEqual(self.got(outcomes.close(ORG, noon)), 0)
        self.record(bad(), bad())
        early = ReportPeriod(0, MONDAY, ORG, True, str(noon), noon)
        self.assertEqual(self.periods(0, MONDAY), (early,))
        host = ReportPeriod(1, MONDAY, MX, True, str(noon), noon)
        self.assertEqual(self.periods(1, MONDAY), (host,))
        late = (ReportPeriod(0, MONDAY, NET), ReportPeriod(0, MONDAY, ORG))
        self.assertEqual(self.periods(0), (early, *late))
        self.assertEqual(self.periods(0, after=early), late)
        self.assertEqual(self.periods(0, after=late[0]), late[1:])
        counted = {
            each.until: each.tallies[0].failures for each in self.results(MONDAY, ORG)
        }
        expected = {noon: Counter({EXPIRED: 1}), 0: Counter({EXPIRED: 2})}
        self.assertEqual(counted, expected)
        self.got(outcomes.settle(early, (), ()))
        self.assertEqual(self.periods(0), late)
        self.assertEqual({each.until for each in self.results(MONDAY, ORG)}, {0})
        self.assertEqual(self.periods(1, MONDAY), (host,))
        self.got(outcomes.settle(host, (), ()))
        self.assertEqual({each.until for each in self.results()}, {0})

    def test_closings(self) -> None:
        """
        The time at which the period of a domain was last closed is known, closed
        alone or with those of all others; no two are closed in the same second.
        """
        outcomes, noon = self.ledger.outcomes, MIDNIGHT + 43200
        for domain in (ORG, None, None):
            self.record(bad(), bad(NET))
            self.got(outcomes.close(domain, noon))
        found = [
            self.got(outcomes.lastClosing(domain, before))
            for domain in (ORG, NET)
            for before in (noon, noon + 1, noon + 2, noon + ONE_DAY)
        ]
        ends = [0, noon, noon + 1, noon + 2, 0, 0, noon + 1, noon + 2]
        self.assertEqual(found, ends)
        self.assertEqual(len(self.periods(0, MONDAY)), 5)
        self.got(outcomes.prune(TUESDAY))
        self.assertEqual(self.got(outcomes.lastClosing(ORG, noon + ONE_DAY)), 0)

    def test_closedHost(self) -> None:
        """
        Results of a host whose period is closed are still reported to recipient
        domains.
        """
        self.record(bad(), bad(NET))
        self.assertEqual(self.got(self.ledger.outcomes.close(MX, MIDNIGHT + 1)), 2)
        found = [(each.domain, each.sendable) for each in self.periods(0, MONDAY)]
        self.assertEqual(found, [(NET, True), (ORG, True)])

    def test_closedMany(self) -> None:
        """
        Closing many results closes each exactly once.
        """
        domains = [Domain(f"d{number}.example") for number in range(1500)]
        self.record(*map(bad, domains))
        closed = self.got(self.ledger.outcomes.close(None, MIDNIGHT + 1))
        self.assertEqual(closed, 3000)
        periods = self.periods(0, MONDAY, limit=2000)
        self.assertEqual({each.domain for each in periods}, set(domains))

    def test_bothKinds(self) -> None:
        """
        An outcome is counted for the recipient domain and for each host
        (RFC 8460 3).
        """
        self.record(bad())
        own = PolicyTally(sts(ORG), failed=1, failures=Counter({EXPIRED: 1}))
        host = PolicyTally(tlsa(MX), failed=1)
        self.assertEqual(
            self.results(),
            (
                StoredResult(MONDAY, ORG, ORG, False, True, (own,)),
                StoredResult(MONDAY, MX, ORG, True, True, (host,)),
            ),
        )

    def test_sums(self) -> None:
        """
        Outcomes of the same policy, domains and day are added up, and so is each
        failure under it.
        """
        other = replace(EXPIRED, receivingIP="192.0.2.7")
        self.record(good(), bad(), bad(), bad(failure=other), good())
        (own,) = self.results(policyDomain=ORG)[0].tallies
        self.assertEqual((own.succeeded, own.failed), (2, 3))
        self.assertEqual(own.failures, {EXPIRED: 2, other: 1})

    def test_nothingKnown(self) -> None:
        """
        Without a recipient tally only the hosts are counted.
        """
        self.record(SessionOutcome(ORG, None, (PolicyTally(tlsa(MX), failed=1),)))
        self.assertEqual([each.policyDomain for each in self.results()], [MX])

    def test_seenInNone(self) -> None:
        """
        A failure without sessions is kept with a count of 0 (RFC 7672 2.2: unusable
        records are worth reporting).
        """
        tally = PolicyTally(tlsa(MX), succeeded=1, failures=Counter({UNUSABLE: 0}))
        self.record(SessionOutcome(ORG, None, (tally, tally)))
        (kept,) = self.results()[0].tallies
        self.assertEqual(dict(kept.failures), {UNUSABLE: 0})
        self.assertEqual(kept.succeeded, 2)

    def test_neverNegative(self) -> None:
        """
        Negative counts are ignored.
        """
        tally = PolicyTally(sts(ORG), -1, -1, Counter({EXPIRED: -1}))
        self.record(good(), SessionOutcome(ORG, tally))
        (kept,) = self.results(policyDomain=ORG)[0].tallies
        self.assertEqual((kept.succeeded, kept.failed), (1, 0))
        self.assertEqual(dict(kept.failures), {EXPIRED: 0})

    def test_policies(self) -> None:
        """
        A domain that changed its policy during the day keeps two (RFC 8460
        4.4); the order of their lines matters.
        """
        first, second = sts(ORG), sts(ORG, 5)
        third = replace(first, strings=first.strings[::-1])
        for policy in (first, second, third, second):
            self.record(SessionOutcome(ORG, PolicyTally(policy, succeeded=1)))
        (stored,) = self.results()
        self.assertEqual(
            {tally.policy: tally.succeeded for tally in stored.tallies},
            {first: 1, second: 2, third: 1},
        )

    def test_hostOfTheSameName(self) -> None:
        """
        A domain without MX is its own host; its results as a host are kept apart.
        """
        self.record(
            SessionOutcome(
                ORG,
                PolicyTally(noPolicy(ORG), succeeded=1),
                (PolicyTally(noPolicy(ORG), failed=1),),
            )
        )
        own, host = self.results(MONDAY, ORG, ORG)
        self.assertEqual((own.isHost, own.tallies[0].succeeded), (False, 1))
        self.assertEqual((host.isHost, host.tallies[0].failed), (True, 1))

    def test_sendReportStays(self) -> None:
        """
        A result stays sendable once one outcome made it so, in either order.
        """
        self.record(good(sendReport=False))
        self.assertEqual([each.sendReport for each in self.results()], [False] * 2)
        self.record(good())
        self.record(good(sendReport=False))
        self.assertEqual([each.sendReport for each in self.results()], [True] * 2)

    def test_filters(self) -> None:
        """
        Results are found by day, policy domain, recipient domain and any of
        these together, in this order.
        """
        self.record(good(NET), good(ORG))
        self.record(good(ORG), day=TUESDAY)
        found = [
            (each.day, each.policyDomain, each.recipientDomain)
            for each in self.results()
        ]
        self.assertEqual(len(found), 6)
        self.assertEqual(found, sorted(found))
        self.assertEqual(len(self.results(MONDAY)), 4)
        self.assertEqual(len(self.results(policyDomain=MX)), 3)
        self.assertEqual(len(self.results(recipientDomain=ORG)), 4)
        self.assertEqual(len(self.results(TUESDAY, MX, ORG)), 1)
        self.assertEqual(self.results(TUESDAY, MX, NET), ())

    def test_remove(self) -> None:
        """
        Removal is by policy domain, and by day where one is given.
        """
        self.record(bad(ORG), bad(NET))
        self.record(bad(ORG), day=TUESDAY)
        outcomes = self.ledger.outcomes
        self.assertEqual(self.got(outcomes.remove(MX, MONDAY)), 2)
        self.assertEqual(self.results(MONDAY, MX), ())
        self.assertEqual(self.got(outcomes.remove(ORG)), 2)
        self.assertEqual(
            [(each.day, each.policyDomain) for each in self.results()],
            [(MONDAY, NET), (TUESDAY, MX)],
        )
        self.assertEqual(self.periods(0)[0].domain, NET)
        self.record(good(ORG))
        self.assertEqual(self.results(MONDAY, ORG)[0].tallies[0].failures, {})

    def test_prune(self) -> None:
        """
        Pruning removes results before a day, not those of the day.
        """
        self.record(bad(), bad(NET))
        self.record(bad(), day=TUESDAY)
        self.assertEqual(self.got(self.ledger.outcomes.prune(TUESDAY)), 4)
        self.assertEqual({each.day for each in self.results()}, {TUESDAY})

    def test_recipientSubjects(self) -> None:
        """
        Phase 0 has every recipient domain of days gone by; only its own
        result can make it sendable.
        """
        self.record(good(ORG))
        self.record(SessionOutcome(NET, None, (PolicyTally(tlsa(MX), 1),)))
        self.record(good(ORG, sendReport=False), day=TUESDAY)
        self.assertEqual(
            self.periods(0, WEDNESDAY),
            (
                ReportPeriod(0, MONDAY, NET, False),
                ReportPeriod(0, MONDAY, ORG, True),
                ReportPeriod(0, TUESDAY, ORG, False),
            ),
        )
        self.assertEqual(self.got(self.ledger.outcomes.count(0, WEDNESDAY)), 1)
        self.assertEqual(self.periods(0, MONDAY), ())

    def test_hostSubjects(self) -> None:
        """
        Phase 1 has the policy domains of hosts; mail to the host's own domain
        doesn't make it one of them.
        """
        other = Domain("mx.example.net")
        self.record(good(ORG, sendReport=False), good(NET))
        self.record(good(ORG, other, sendReport=False))
        self.record(SessionOutcome(other, PolicyTally(noPolicy(other), 1)))
        self.assertEqual(
            self.periods(1),
            (ReportPeriod(1, MONDAY, MX, True), ReportPeriod(1, MONDAY, other, False)),
        )
        self.assertEqual(self.got(self.ledger.outcomes.count(1, TUESDAY)), 1)

    def test_pages(self) -> None:
        """
        Pages of any size give every period once, by day and domain, in the
        order of their octets.
        """
        names = ("b.example", "a-b.example", "a.example", "xn--a.example", "0.example")
        for day in (MONDAY, TUESDAY):
            for name in names:
                self.record(good(Domain(name)), day=day)
        whole = self.periods(0, WEDNESDAY)
        self.assertEqual(len(whole), 10)
        self.assertEqual(list(whole), sorted(whole))
        for limit in (1, 3, 10):
            pages: list[ReportPeriod] = []
            while page := self.periods(
                0, WEDNESDAY, pages[-1] if pages else None, limit
            ):
                self.assertTrue(len(page) <= limit)
                pages += page
            self.assertEqual(tuple(pages), whole)

    def test_settleRecipient(self) -> None:
        """
        Settling a recipient domain files the reports, removes its own result,
        and marks those of its hosts with where the report went.
        """
        self.record(bad(ORG), good(NET))
        to = ("mailto:b@example.org", "mailto:a@example.org")
        self.assertEqual(self.settle(0, ORG, report(), destinations=to), 1)
        self.assertEqual(self.results(policyDomain=ORG), ())
        host, other = self.results(policyDomain=MX)[::-1]
        self.assertEqual((host.recipientDomain, host.reportedToRecipient), (ORG, True))
        self.assertEqual(host.reportedDestinations, tuple(sorted(to)))
        self.assertFalse(host.reportedToHost)
        self.assertEqual(
            (other.reportedToRecipient, other.reportedDestinations), (False, ())
        )
        self.assertEqual([each.domain for each in self.periods(0)], [NET])
        self.assertEqual([each.domain for each in self.periods(1)], [MX])
        found = self.got(self.ledger.archive.reports())
        self.assertEqual(found, (report(),))

    def test_settleHost(self) -> None:
        """
        A host's results are removed once both sides have reports, in either order;
        the second can see the destinations of the first.
        """
        self.record(bad(ORG), bad(NET))
        self.settle(0, ORG)
        self.settle(1, MX, destinations=("mailto:b@example.com",))
        (waiting,) = self.results(policyDomain=MX)
        self.assertEqual((waiting.recipientDomain, waiting.reportedToHost), (NET, True))
        self.assertEqual(waiting.reportedDestinations, ("mailto:b@example.com",))
        self.assertEqual(self.periods(1), ())
        self.settle(0, NET)
        self.assertEqual(self.results(), ())

    def test_settleOwnHost(self) -> None:
        """
        A domain that is its own host is reported to in phase 0; phase 1 of the same
        name is about mail to others.
        """
        self.record(
            SessionOutcome(
                ORG,
                PolicyTally(sts(ORG), 1),
                (PolicyTally(tlsa(ORG), 1),),
            ),
            good(NET, ORG),
        )
        self.settle(1, ORG)
        self.assertEqual(
            [
                (each.recipientDomain, each.reportedToHost)
                for each in self.results(MONDAY, ORG)
            ],
            [(NET, True), (ORG, False), (ORG, False)],
        )
        self.settle(0, ORG)
        self.assertEqual(
            [each.recipientDomain for each in self.results(policyDomain=ORG)], [NET]
        )

    def test_settleOneDay(self) -> None:
        """
        A report is about its own day (RFC 8460 4.1); others stay as they are.
        """
        self.record(good())
        self.record(good(), day=TUESDAY)
        self.settle(0, ORG)
        self.settle(1, MX)
        self.assertEqual({each.day for each in self.results()}, {TUESDAY})

    def test_settleAgain(self) -> None:
        """
        Settling again files nothing twice: a known key is skipped, and the report
        keeps its state.
        """
        self.record(good())
        first, second = report(), report(destination="https://example.org/r")
        self.assertEqual(self.settle(0, ORG, first), 1)
        self.got(self.ledger.archive.mark(first.key, ReportState.DELIVERED, 5.0))
        self.assertEqual(self.settle(0, ORG, first, second, second), 1)
        kept = self.got(self.ledger.archive.find(str(first.key)))
        assert kept is not None
        self.assertEqual(kept.state, ReportState.DELIVERED)

    def test_settleBothPhases(self) -> None:
        """
        A domain with results in both phases gets a report in each.
        """
        self.record(good(), good(NET, ORG))
        first = report()
        second = replace(first, key=replace(first.key, phase=1), sender="other@x")
        self.assertEqual(self.settle(0, ORG, first), 1)
        self.assertEqual(self.settle(1, ORG, second), 1)
        for each in (first, second):
            found = self.got(self.ledger.archive.find(str(each.key)))
            self.assertEqual(found, each)

    def test_settleAllOrNothing(self) -> None:
        """
        If the reports can't be filed, nothing is marked as reported.
        """
        self.record(good())
        self.settle(0, NET, report(NET))
        taken = replace(report(), sender=report(NET).sender.upper())
        deferred = self.ledger.outcomes.settle(
            ReportPeriod(0, MONDAY, ORG), ("mailto:x@example.org",), (taken,)
        )
        self.failureResultOf(deferred)
        self.assertEqual(len(self.results()), 2)
        self.assertEqual(
            [each.reportedToRecipient for each in self.results()], [False] * 2
        )
        self.assertEqual(len(self.got(self.ledger.archive.reports())), 1)

    def test_late(self) -> None:
        """
        An outcome of a settled day makes a new period, to be removed: unreported
        results are never taken for reported ones.
        """
        self.record(good())
        self.settle(0, ORG, report())
        self.record(bad())
        self.assertEqual(self.periods(0), (ReportPeriod(0, MONDAY, ORG, True),))
        self.assertEqual(self.settle(0, ORG, report()), 0)
        self.assertEqual(self.periods(0), ())

    def test_untrustedText(self) -> None:
        """
        Text that databases refuse is stored in a bounded, encoded form.
        """
        nasty = replace(
            EXPIRED, mxHELO="a\0b\udc80\n" + "x" * 5000, additional="\U0001f4a9" * 5000
        )
        lines = ("mode: \0", "\udcff", "it's; %s :x ?")
        policy = TLSPolicy(sts(ORG).type, ORG, lines, ("*.\0",))
        tally = PolicyTally(policy, failed=1, failures=Counter({nasty: 1}))
        self.record(SessionOutcome(ORG, tally, (tally,)))
        self.record(SessionOutcome(ORG, tally))
        (kept,) = self.results()[0].tallies
        (failure,) = kept.failures
        self.assertEqual(failure.mxHELO[:6], "a\ufffdb?\nx")
        self.assertEqual(len(failure.mxHELO), MAX_NAME_LENGTH)
        self.assertEqual(kept.failures[failure], 2)
        self.assertEqual(kept.policy.strings[2], lines[2])

    def test_manyFailures(self) -> None:
        """
        A host that greets every session by another name fills no ledger; no
        session is left out of the counts for that.
        """
        names = [str(number) for number in range(MAX_FAILURES + 50)]
        failures = [replace(EXPIRED, mxHELO=name) for name in names]
        for start in range(0, len(failures), 100):
            some = Counter({each: 1 for each in failures[start : start + 100]})
            tally = PolicyTally(sts(ORG), failed=100, failures=some)
            self.record(SessionOutcome(ORG, tally))
        self.record(bad(failure=failures[0]))
        (kept,) = self.results(policyDomain=ORG)[0].tallies
        folded = replace(EXPIRED, mxHELO="", sendingIP="", receivingIP="")
        self.assertEqual(len(kept.failures), MAX_FAILURES + 1)
        self.assertEqual(kept.failures[folded], 50)
        self.assertEqual(kept.failures[failures[0]], 2)


class ArchiveContract(Contract):
    """
    L{IReportArchive}.
    """

    def file(self, *reports: OutgoingReport) -> None:
        period = ReportPeriod(0, MONDAY, ORG)
        self.got(self.ledger.outcomes.settle(period, (), reports))

    def take(self, node: str = "a") -> OutgoingReport | None:
        taken = self.got(self.ledger.archive.take(ReportKind.TLS, node, 1))
        return taken[0] if taken else None

    def state(self, one: OutgoingReport) -> ReportState:
        found = self.got(self.ledger.archive.find(str(one.key)))
        assert found is not None
        return found.state

    def test_interface(self) -> None:
        """
        The store provides L{IReportArchive}.
        """
        verifyObject(IReportArchive, self.ledger.archive)

    def test_kept(self) -> None:
        """
        A report comes back as it was filed, octet for octet.
        """
        one = replace(report(), detail="d", updated=3.5, node="x")
        self.file(one)
        self.assertEqual(self.got(self.ledger.archive.find(str(one.key))), one)
        self.assertIsNone(self.got(self.ledger.archive.find("report \0")))

    def test_parts(self) -> None:
        """
        Reports to a domain about the same span are distinguished by their parts (RFC
        9990 3.1.1.4), which are kept.
        """
        one = report()
        other = replace(
            one, key=replace(one.key, part="abc"), sender="DMARC+abc@example.com"
        )
        self.file(one, other)
        self.assertEqual(self.got(self.ledger.archive.find(str(one.key))), one)
        self.assertEqual(self.got(self.ledger.archive.find(str(other.key))), other)

    def test_take(self) -> None:
        """
        A report is given to one node only, repeatedly until that has marked it.
        """
        self.file(report())
        taken = self.take("a")
        expected = replace(report(), state=ReportState.HANDING, node="a")
        self.assertEqual(taken, expected)
        self.assertIsNone(self.take("b"))
        self.assertEqual(self.take("a"), expected)
        self.got(self.ledger.archive.mark(report().key, ReportState.QUEUED, 7.0, "q"))
        self.assertIsNone(self.take("a"))
        self.assertEqual(
            self.got(self.ledger.archive.find(str(report().key))),
            replace(expected, state=ReportState.QUEUED, updated=7.0, detail="q"),
        )

    def test_takeEach(self) -> None:
        """
        Each report is taken once, the oldest first; other kinds, and reports not to
        be sent, aren't.
        """
        reports = [report(Domain(f"{n}.example"), composed=n) for n in range(5)]
        self.file(
            report(NET, state=ReportState.SUPPRESSED),
            report(NET, kind=ReportKind.DMARC),
            *reports,
        )
        order = []
        for node in "abcde":
            taken = self.take(node)
            assert taken is not None
            order.append(taken.key)
        self.assertEqual(order, [each.key for each in reports])
        self.assertIsNone(self.take("f"))

    def test_takeSeveral(self) -> None:
        """
        Several reports are taken at once, the oldest first; more only when none of
        these is left.
        """
        reports = [report(Domain(f"{n}.example"), composed=n) for n in range(5)]
        self.file(*reports)

        def take(most: int) -> list[ReportKey]:
            taken = self.got(self.ledger.archive.take(ReportKind.TLS, "a", most))
            return [each.key for each in taken]

        keys = [each.key for each in reports]
        self.assertEqual(take(3), keys[:3])
        self.assertEqual(take(2), keys[:2])
        self.got(self.ledger.archive.mark(keys[0], ReportState.QUEUED, 1.0))
        self.assertEqual(take(9), keys[1:3])
        for key in keys[1:3]:
            self.got(self.ledger.archive.mark(key, ReportState.QUEUED, 1.0))
        self.assertEqual(take(9), keys[3:])

    def test_takeFailed(self) -> None:
        """
        Reports that a node failed to hand over come last, the one tried longest ago
        first.
        """
        reports = [report(Domain(f"{n}.example"), composed=n) for n in range(3)]
        self.file(*reports)
        order = []
        for now in range(7):
            taken = self.take()
            assert taken is not None
            order.append([each.key for each in reports].index(taken.key))
            mark = self.ledger.archive.mark
            self.got(mark(taken.key, ReportState.HANDING, 9.0 + now, "disk full"))
        self.assertEqual(order, [0, 1, 2, 0, 1, 2, 0])
        self.assertIsNone(self.take("b"))
        later = report(Domain("later.example"))
        self.file(later)
        taken = self.take()
        assert taken is not None
        self.assertEqual(taken.key, later.key)

    def test_noWayBack(self) -> None:
        """
        A state is never gone back on; a DSN after delivery is news.
        """
        mark = self.ledger.archive.mark
        self.file(report())
        states = ReportState
        for new, kept in (
            (states.QUEUED, states.QUEUED),
            (states.COMPOSED, states.QUEUED),
            (states.HANDING, states.QUEUED),
            (states.SUPPRESSED, states.QUEUED),
            (states.DELIVERED, states.DELIVERED),
            (states.QUEUED, states.DELIVERED),
            (states.FAILED, states.FAILED),
            (states.DELIVERED, states.FAILED),
            (states.QUEUED, states.FAILED),
        ):
            self.got(mark(report().key, new, 1.0))
            self.assertEqual(self.state(report()), kept)

    def test_suppressedStays(self) -> None:
        """
        A suppressed report never changes its state.
        """
        one = report(state=ReportState.SUPPRESSED)
        self.file(one)
        self.got(self.ledger.archive.mark(one.key, ReportState.DELIVERED, 1.0))
        self.assertEqual(self.state(one), ReportState.SUPPRESSED)

    def test_markUnknown(self) -> None:
        """
        Marking a report that was pruned meanwhile changes nothing.
        """
        self.got(self.ledger.archive.mark(report().key, ReportState.QUEUED, 1.0))
        self.assertEqual(self.got(self.ledger.archive.reports()), ())

    def test_detail(self) -> None:
        """
        Details from a remote host are truncated.
        """
        self.file(report())
        words = "550 \0\udc80" + "x" * 100_000
        self.got(self.ledger.archive.mark(report().key, ReportState.FAILED, 1.0, words))
        (kept,) = self.got(self.ledger.archive.reports())
        self.assertTrue(kept.detail.startswith("550 \ufffd?x"))
        self.assertTrue(len(kept.detail) <= 1000)

    def test_pages(self) -> None:
        """
        Reports are listed a page at a time, also those of the same time.
        """
        for number in range(6):
            domain = Domain(f"d{number}.example")
            self.file(
                *(report(domain, composed=number // 3, kind=kind) for kind in KINDS)
            )
        reports = self.ledger.archive.reports
        self.paged(lambda last, most: reports(None, None, None, most, last))

    def test_reports(self) -> None:
        """
        Reports are found by kind, domain and state, latest first.
        """
        first, second = report(ORG, composed=1), report(NET, composed=2)
        third = report(NET, composed=3, kind=ReportKind.DMARC)
        self.file(first, second, third)
        self.got(self.ledger.archive.mark(second.key, ReportState.QUEUED, 1.0))
        archive = self.ledger.archive

        def keys(
            kind: ReportKind | None = None,
            domain: Domain | None = None,
            state: ReportState | None = None,
            limit: int = 1000,
        ) -> list[ReportKey]:
            found = self.got(archive.reports(kind, domain, state, limit))
            return [each.key for each in found]

        self.assertEqual(keys(), [third.key, second.key, first.key])
        self.assertEqual(keys(limit=2), [third.key, second.key])
        self.assertEqual(keys(kind=ReportKind.TLS), [second.key, first.key])
        self.assertEqual(keys(domain=NET), [third.key, second.key])
        self.assertEqual(keys(state=ReportState.QUEUED), [second.key])
        self.assertEqual(keys(state=ReportState.QUEUED, domain=ORG), [])

    def test_bySender(self) -> None:
        """
        A DSN's recipient leads to the report, in any case (RFC 5321 4.1.2
        lets hosts change it); the empty sender leads nowhere.
        """
        posted = replace(report(destination="https://example.org/"), sender="")
        other = replace(report(NET, destination="https://example.net/"), sender="")
        self.file(report(), posted, other)
        bySender = self.ledger.archive.bySender
        self.assertEqual(self.got(bySender(report().sender.lower())), report())
        self.assertEqual(self.got(bySender(report().sender.upper())), report())
        self.assertIsNone(self.got(bySender("")))
        self.assertIsNone(self.got(bySender("nobody\0@example.com")))

    def test_prune(self) -> None:
        """
        Old reports go, but none that is still to be sent.
        """
        waiting = report(Domain("a.example"), composed=1)
        sent = report(Domain("b.example"), composed=1)
        recent = report(Domain("c.example"), composed=10)
        self.file(waiting, sent, recent)
        for each in (sent, recent):
            self.got(self.ledger.archive.mark(each.key, ReportState.DELIVERED, 99))
        self.assertEqual(self.got(self.ledger.archive.prune(10)), 1)
        self.assertIsNone(self.got(self.ledger.archive.bySender(sent.sender)))
        self.assertEqual(
            {each.key for each in self.got(self.ledger.archive.reports())},
            {waiting.key, recent.key},
        )
        self.take()
        self.assertEqual(self.got(self.ledger.archive.prune(10)), 0)

    def test_longDestination(self) -> None:
        """
        A URI that is longer than an index entry may be is no trouble.
        """
        long = [
            report(destination="https://example.org/" + "x" * 9000 + n) for n in "ab"
        ]
        self.file(*long)
        self.assertEqual(len(self.got(self.ledger.archive.reports())), 2)


class SuppressionContract(Contract):
    """
    L{ISuppressions}.
    """

    TO = "mailto:tlsrpt@example.org"

    def put(
        self, kind: ReportKind | None, until: float, created: float = 1.0
    ) -> Suppression:
        entry = Suppression(self.TO, kind, until, created, "why", 3)
        self.got(self.ledger.suppressions.put(entry))
        return entry

    def active(
        self, now: float, kind: ReportKind = ReportKind.TLS
    ) -> Suppression | None:
        return self.got(self.ledger.suppressions.active(self.TO, kind, now))

    def test_interface(self) -> None:
        """
        The store provides L{ISuppressions}.
        """
        verifyObject(ISuppressions, self.ledger.suppressions)

    def test_active(self) -> None:
        """
        An entry suppresses reports of its kind until it expires.
        """
        entry = self.put(ReportKind.TLS, 10.5)
        self.assertEqual(self.active(10.25), entry)
        self.assertIsNone(self.active(10.5))
        self.assertIsNone(self.active(1, ReportKind.DMARC))

    def test_everyKind(self) -> None:
        """
        An entry without a kind is for all of them; of two, the longer counts.
        """
        whole = self.put(None, 20)
        self.assertEqual(self.active(1, ReportKind.DMARC), whole)
        self.put(ReportKind.TLS, 10)
        self.assertEqual(self.active(1), whole)
        longer = self.put(ReportKind.TLS, 30)
        self.assertEqual(self.active(1), longer)

    def test_replaced(self) -> None:
        """
        There is one entry per destination and kind.
        """
        self.put(None, 10)
        second = self.put(None, 20, 2.0)
        self.assertEqual(self.got(self.ledger.suppressions.entries()), (second,))

    def test_get(self) -> None:
        """
        An entry is found after its time, but only for exactly its kind.
        """
        entry = self.put(None, 1)
        get = self.ledger.suppressions.get
        self.assertEqual(self.got(get(self.TO, None)), entry)
        self.assertIsNone(self.got(get(self.TO, ReportKind.TLS)))

    def test_pages(self) -> None:
        """
        Entries are listed a page at a time, also those of the same time.
        """
        for number in range(6):
            for kind in (None, ReportKind.TLS):
                entry = Suppression(f"mailto:{number}@a.example", kind, 5, number // 3)
                self.got(self.ledger.suppressions.put(entry))
        self.paged(self.ledger.suppressions.entries)

    def test_entries(self) -> None:
        """
        All entries are listed, the latest first.
        """
        first, second = self.put(None, 5, 1.0), self.put(ReportKind.TLS, 5, 2.0)
        self.assertEqual(self.got(self.ledger.suppressions.entries()), (second, first))

    def test_remove(self) -> None:
        """
        Only the entry of exactly that kind is removed.
        """
        self.put(None, 5)
        remove = self.ledger.suppressions.remove
        self.assertFalse(self.got(remove(self.TO, ReportKind.TLS)))
        self.assertTrue(self.got(remove(self.TO, None)))
        self.assertFalse(self.got(remove(self.TO, None)))
        self.assertEqual(self.got(self.ledger.suppressions.entries()), ())


class PolicyContract(Contract):
    """
    L{IPolicyStore}.
    """

    def test_interface(self) -> None:
        """
        The store provides L{IPolicyStore}.
        """
        verifyObject(IPolicyStore, self.ledger.policies)

    def test_saved(self) -> None:
        """
        A policy comes back as it was saved; so does that there is none.
        """
        policies = self.ledger.policies
        nothing = replace(cached(NET), policy=None)
        self.got(policies.save(cached()))
        self.got(policies.save(nothing))
        self.assertEqual(self.got(policies.load(ORG)), cached())
        self.assertEqual(self.got(policies.load(NET)), nothing)
        self.assertIsNone(self.got(policies.load(MX)))

    def test_replaced(self) -> None:
        """
        Saving a policy replaces all of the stored entry.
        """
        policies = self.ledger.policies
        second = replace(cached(), policy=None, recordID="2", validEnd=7.0)
        self.got(policies.save(cached()))
        self.got(policies.save(second))
        self.assertEqual(self.got(policies.entries()), (second,))

    def test_used(self) -> None:
        """
        Use is recorded for cached policies only.
        """
        policies = self.ledger.policies
        self.got(policies.save(cached()))
        self.got(policies.used(ORG, 77.25))
        self.got(policies.used(NET, 77.25))
        self.assertEqual(self.got(policies.entries()), (cached(lastUse=77.25),))

    def test_entries(self) -> None:
        """
        Policies are listed by last use, the latest first.
        """
        policies = self.ledger.policies
        for domain, lastUse in ((ORG, 1.0), (MX, 3.0), (NET, 2.0)):
            self.got(policies.save(cached(domain, lastUse)))
        order = [entry.domain for entry in self.got(policies.entries())]
        self.assertEqual(order, [MX, NET, ORG])

    def test_pages(self) -> None:
        """
        Policies are listed a page at a time, also those last used at the same time.
        """
        for number in range(6):
            entry = cached(Domain(f"d{number}.example"), number // 3)
            self.got(self.ledger.policies.save(entry))
        self.paged(self.ledger.policies.entries)

    def test_drop(self) -> None:
        """
        Dropping returns whether there was a policy.
        """
        policies = self.ledger.policies
        self.got(policies.save(cached()))
        self.assertTrue(self.got(policies.drop(ORG)))
        self.assertFalse(self.got(policies.drop(ORG)))
        self.assertIsNone(self.got(policies.load(ORG)))


class LeaseContract(Contract):
    """
    L{ILeases}.
    """

    def acquire(self, holder: str, until: float, now: float) -> bool:
        return self.got(self.ledger.leases.acquire("report", holder, until, now))

    def test_interface(self) -> None:
        """
        The store provides L{ILeases}.
        """
        verifyObject(ILeases, self.ledger.leases)

    def test_one(self) -> None:
        """
        One holder has a lease until it expires, and can prolong it.
        """
        self.assertTrue(self.acquire("a", 10, 0))
        self.assertFalse(self.acquire("b", 20, 9.5))
        self.assertTrue(self.acquire("a", 15, 9.5))
        self.assertFalse(self.acquire("b", 20, 14))
        self.assertTrue(self.acquire("b", 20, 15))
        self.assertFalse(self.acquire("a", 30, 16))

    def test_release(self) -> None:
        """
        Only the holder can release a lease; then any node can acquire it.
        """
        self.acquire("a", 10, 0)
        self.got(self.ledger.leases.release("report", "b"))
        self.assertFalse(self.acquire("b", 10, 0))
        self.got(self.ledger.leases.release("report", "a"))
        self.assertTrue(self.acquire("b", 10, 0))

    def test_names(self) -> None:
        """
        Leases of different names are independent.
        """
        self.acquire("a", 10, 0)
        self.assertTrue(self.got(self.ledger.leases.acquire("other", "b", 10, 0)))
