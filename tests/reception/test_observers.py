"""
Tests for L{moxtls.reception.observers}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from moxtls.domain import Domain
from moxtls.queue.types import Envelope
from moxtls.reception.observers import MAX_PENDING, HistoryRecorder, VerdictDispatcher
from tests.reception.receiving import ReceptionCase
from tests.reception.signed import OTHER_CLIENT, message


class VerdictDispatcherTests(ReceptionCase):
    """
    Tests for L{VerdictDispatcher}.
    """

    def test_bounded(self) -> None:
        """
        With too many notifications in progress, mail waits.
        """
        history = self.ledger.history
        pending: list[Deferred[None]] = []

        def received(account: str, domain: Domain, now: float) -> Deferred[None]:
            pending.append(Deferred())
            return pending[-1]

        history.received = received  # type: ignore[method-assign]
        dispatcher = VerdictDispatcher(self.clock, [], history)

        def arrived() -> Deferred[None]:
            return Deferred.fromCoroutine(
                dispatcher.recordReceived("anna", Domain("a.example"))
            )

        for _ in range(MAX_PENDING - 1):
            self.successResultOf(arrived())
        waiting = arrived()
        self.assertNoResult(waiting)
        pending[0].callback(None)
        self.successResultOf(waiting)
        for each in pending[1:]:
            each.callback(None)
        self.successResultOf(Deferred.fromCoroutine(dispatcher.finished()))

    def test_unknown(self) -> None:
        """
        If the history can't be read, the domain counts as known.
        """
        self.ledger.history.isKnown = (  # type: ignore[method-assign]
            lambda account, organizational: fail(OSError("database"))
        )
        asked = self.dispatcher.isKnown(["anna"], Domain("a.example"))
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(asked)))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class HistoryRecorderTests(ReceptionCase):
    """
    Tests for L{HistoryRecorder}.
    """

    def submitted(self, user: str, sender: str, *to: str) -> None:
        accounts = self.reception.accounts
        noted = HistoryRecorder(self.directory, accounts, self.dispatcher)
        sent = noted.submitted(user, Envelope(sender, to))
        self.successResultOf(Deferred.fromCoroutine(sent))

    def test_account(self) -> None:
        """
        The history is that of the account that has logged in, else of the account
        with that address, else none.
        """
        for number, (user, sender, account) in enumerate(
            (
                ("anna", "bob@our.example", "anna"),
                ("", "BOB+x@our.example", "bob"),
                ("program", "bob@our.example", "bob"),
                ("", "all@our.example", ""),
                ("", "x@elsewhere.example", ""),
                ("", "", ""),
            )
        ):
            domain = f"n{number}.example"
            self.submitted(user, sender, f"x@{domain}")
            known = [each for each in ("", "anna", "bob") if self.isKnown(each, domain)]
            self.assertEqual(known, [account], (user, sender))

    def test_outside(self) -> None:
        """
        Each external recipient is recorded; local ones aren't.
        """
        to = ("bob@our.example", "x@a.example", "y@sub.b.example", "z@[192.0.2.1]")
        self.submitted("anna", "anna@our.example", *to)
        self.assertTrue(self.isKnown("anna", "a.example"))
        self.assertTrue(self.isKnown("anna", "b.example"))
        self.assertFalse(self.isKnown("anna", "our.example"))

    def test_loop(self) -> None:
        """
        Domains to which a user writes are known afterwards.
        """
        self.submitted("anna", "anna@our.example", "x@a.example")
        self.receive(message("x@a.example"), client=OTHER_CLIENT)
        self.assertTrue(self.listening.events[-1].isKnown)
