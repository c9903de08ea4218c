"""
Several nodes with one ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR
from moxtls.domain import Domain
from moxtls.ledger.evaluationcounters import partOfEvaluation
from moxtls.ledger.ledger import Ledger
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import ReportPeriod, ReportState
from tests.ledger.contracts import Contract
from tests.ledger.test_ledger import emptied
from tests.ledger.threads import Inbox, race
from tests.ledger.values import (
    EXPIRED,
    MIDNIGHT,
    MONDAY,
    ORG,
    PUBLISHED,
    bad,
    evaluation,
    report,
)

T = TypeVar("T")

#: As many nodes as race.
NODES = 3
#: The part of the report that the evaluations below belong to.
PART = partOfEvaluation(evaluation())
#: Outcomes that each of them records.
OUTCOMES = 300


class Sharing(Contract):
    """
    Nodes on any database.
    """

    def makeURL(self) -> str:
        """
        The URL of an empty ledger.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        url = self.makeURL()
        self.nodes: list[tuple[Inbox, Ledger]] = []
        for _ in range(NODES):
            inbox = Inbox()
            ledger = Ledger(inbox, url)
            self.nodes.append((inbox, ledger))
            self.addCleanup(self.stop, inbox, ledger)

    def stop(self, inbox: Inbox, ledger: Ledger) -> None:
        inbox.waitFor(ledger.stop())

    def all(self, do: Callable[[Inbox, Ledger, str], T]) -> list[T]:
        """
        Call C{do} for all nodes at the same time, and return the results by name.
        """
        return race(
            [
                partial(do, inbox, ledger, str(number))
                for number, (inbox, ledger) in enumerate(self.nodes)
            ]
        )


class SharingContract(Sharing):
    """
    Stores of results, reports and leases on several nodes.
    """

    def test_record(self) -> None:
        """
        No count is lost, and no node fails, when all record the same at once.
        """
        domains = [Domain(f"{n}.example") for n in range(40)]
        failures = [replace(EXPIRED, mxHELO=str(n)) for n in range(7)]

        def record(inbox: Inbox, ledger: Ledger, name: str) -> None:
            for start in range(0, OUTCOMES, 100):
                recorded = [
                    ledger.outcomes.record(
                        MONDAY, bad(domains[n % 40], failure=failures[n % 7])
                    )
                    for n in range(start, start + 100)
                ]
                for each in recorded:
                    inbox.waitFor(each)

        self.all(record)
        inbox, ledger = self.nodes[0]
        tallies = [
            (each.isHost, tally)
            for each in inbox.waitFor(ledger.outcomes.results())
            for tally in each.tallies
        ]
        whole = NODES * OUTCOMES
        self.assertEqual(sum(t.failed for isHost, t in tallies if not isHost), whole)
        self.assertEqual(sum(t.failed for isHost, t in tallies if isHost), whole)
        seen = sum((tally.failures for _, tally in tallies), Counter[object]())
        self.assertEqual(sum(seen.values()), whole)

    def test_take(self) -> None:
        """
        Each report is given to exactly one node.
        """
        inbox, ledger = self.nodes[0]
        reports = [report(Domain(f"{n}.example"), composed=n) for n in range(30)]
        period = ReportPeriod(0, MONDAY, ORG)
        inbox.waitFor(ledger.outcomes.settle(period, (), reports))

        def take(inbox: Inbox, ledger: Ledger, name: str) -> list[str]:
            taken = []
            while some := inbox.waitFor(ledger.archive.take(ReportKind.TLS, name, 3)):
                for one in some:
                    taken.append(str(one.key))
                    mark = ledger.archive.mark(one.key, ReportState.QUEUED, 1.0)
                    inbox.waitFor(mark)
            return taken

        taken = [key for each in self.all(take) for key in each]
        self.assertEqual(sorted(taken), sorted(str(each.key) for each in reports))

    def test_acquire(self) -> None:
        """
        One of several nodes gets a lease.
        """

        def acquire(inbox: Inbox, ledger: Ledger, name: str) -> list[bool]:
            return [
                inbox.waitFor(ledger.leases.acquire(f"lease{n}", name, 10, 0))
                for n in range(10)
            ]

        for winners in zip(*self.all(acquire), strict=True):
            self.assertEqual(sum(winners), 1)

    def test_settle(self) -> None:
        """
        A report that all make at once is filed once.
        """
        inbox, ledger = self.nodes[0]
        inbox.waitFor(ledger.outcomes.record(MONDAY, bad()))

        def settle(inbox: Inbox, ledger: Ledger, name: str) -> int:
            period = ReportPeriod(0, MONDAY, ORG)
            one = replace(report(), reportID=name)
            return inbox.waitFor(ledger.outcomes.settle(period, ("x",), [one]))

        self.assertEqual(sum(self.all(settle)), 1)
        self.assertEqual(len(inbox.waitFor(ledger.archive.reports())), 1)

    def test_settleWhileRecording(self) -> None:
        """
        Outcomes recorded while a result is settled are removed with it or kept with
        their failures, never one without the other.
        """

        def work(inbox: Inbox, ledger: Ledger, name: str) -> None:
            for number in range(30):
                if name == "0":
                    period = ReportPeriod(0, MONDAY, ORG)
                    inbox.waitFor(ledger.outcomes.settle(period, (), ()))
                else:
                    failure = replace(EXPIRED, mxHELO=f"{name}.{number}")
                    one = bad(failure=failure)
                    inbox.waitFor(ledger.outcomes.record(MONDAY, one))

        self.all(work)
        inbox, ledger = self.nodes[0]
        for result in inbox.waitFor(ledger.outcomes.results(policyDomain=ORG)):
            for tally in result.tallies:
                self.assertEqual(sum(tally.failures.values()), tally.failed)
        inbox.waitFor(ledger.outcomes.remove(ORG))
        inbox.waitFor(ledger.outcomes.record(MONDAY, bad()))
        (own,) = inbox.waitFor(ledger.outcomes.results(policyDomain=ORG))
        self.assertEqual(own.tallies[0].failures, {EXPIRED: 1})

    def test_evaluations(self) -> None:
        """
        No evaluation is lost, and no node fails, when all record the same at once.
        """
        policies = [
            replace(PUBLISHED, domain=Domain(f"{n}.example")) for n in range(10)
        ]

        def record(inbox: Inbox, ledger: Ledger, name: str) -> None:
            recorded = [
                ledger.evaluations.record(MIDNIGHT, evaluation(n % 7, policies[n % 10]))
                for n in range(OUTCOMES)
            ]
            for each in recorded:
                inbox.waitFor(each)

        self.all(record)
        inbox, ledger = self.nodes[0]
        summaries = inbox.waitFor(ledger.evaluations.summaries())
        self.assertEqual(
            [each.count for each in summaries], [NODES * OUTCOMES / 10] * 10
        )
        stored = inbox.waitFor(ledger.evaluations.evaluations())
        self.assertEqual(sum(each.count for each in stored), NODES * OUTCOMES)
        self.assertEqual(len(stored), 70)

    def test_settleEvaluations(self) -> None:
        """
        Evaluations recorded while a period is settled are removed or kept: the tally
        and its rows, never one without the other.
        """
        period = ReportPeriod(0, MONDAY, ORG, True, PART, MIDNIGHT + DAY)

        def work(inbox: Inbox, ledger: Ledger, name: str) -> None:
            for number in range(40):
                if name == "0":
                    done = ledger.evaluations.settle(period, (), ())
                    inbox.waitFor(done.addCallback(lambda new: None))
                else:
                    hour = MIDNIGHT + number % 5 * HOUR
                    one = evaluation(number % 3)
                    inbox.waitFor(ledger.evaluations.record(hour, one))

        self.all(work)
        inbox, ledger = self.nodes[0]
        inbox.waitFor(ledger.evaluations.record(MIDNIGHT, evaluation()))
        summary = inbox.waitFor(ledger.evaluations.summary(period))
        assert summary is not None
        rows = inbox.waitFor(ledger.evaluations.rows(period, b"", 100))
        self.assertEqual(sum(count for _, _, count in rows), summary.messages)
        self.assertEqual(len(rows), summary.rows)
        stored = inbox.waitFor(ledger.evaluations.evaluations())
        self.assertEqual(sum(each.count for each in stored), summary.messages)

    def test_history(self) -> None:
        """
        All nodes see the history that one recorded.
        """

        def sent(inbox: Inbox, ledger: Ledger, name: str) -> None:
            for number in range(30):
                domain = Domain(f"{number}.example")
                inbox.waitFor(ledger.history.sent("mjl", domain, 1.0))

        self.all(sent)
        inbox, ledger = self.nodes[-1]
        known = ledger.history.isKnown("mjl", Domain("29.example"))
        self.assertTrue(inbox.waitFor(known))
        self.assertEqual(inbox.waitFor(ledger.history.prune(2 * DAY)), 30)


class SQLiteSharingTests(SharingContract, SynchronousTestCase):
    """
    Several processes on one host.
    """

    def makeURL(self) -> str:
        return f"sqlite:///{Path(self.mktemp())}"


class PostgresSharingTests(SharingContract, SynchronousTestCase):
    """
    Several hosts.
    """

    def makeURL(self) -> str:
        return emptied()
