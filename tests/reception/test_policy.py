"""
Tests for L{moxtls.reception.policy}.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.authentication.results import AuthResult
from moxtls.config import Account, Destination
from moxtls.dmarc.types import (
    Discovery,
    DiscoveryMethod,
    DMARCPolicy,
    FinalDisposition,
    Verdict,
)
from moxtls.domain import Address, Domain
from moxtls.message.addresses import Authors, FromField
from moxtls.reception.policy import (
    DMARC_UNAVAILABLE,
    TRY_LATER,
    Decision,
    MailboxCopy,
    Recipient,
    StoreResult,
    authenticatedOrganization,
    decide,
    planCopies,
    replyFor,
    undelivered,
)
from moxtls.reception.recipients import Role, Target
from tests.authentication.test_outcome import FOUND, PASSED

A = Domain("a.example")
READ = Authors(FromField.READ, (A,))
REJECT = replace(
    PASSED,
    status=AuthResult.FAIL,
    disposition=DMARCPolicy.REJECT,
    alignedDKIM=(),
    spfAligned=False,
)
ANNA = Address.parse("anna@our.example")
ACCOUNTS = {
    "anna": Account({"anna@our.example": Destination()}, rejectsMailbox="Rejects"),
    "bob": Account({"bob@our.example": Destination()}),
}


def outcome(verdict: Verdict, authors: Authors = READ) -> AuthenticationOutcome:
    return AuthenticationOutcome(FOUND, verdict, authors)


class DecideTests(SynchronousTestCase):
    """
    Tests for L{decide} and L{authenticatedOrganization}.
    """

    def test_dispositions(self) -> None:
        """
        The disposition of DMARC is applied (RFC 9989 7).
        """
        for disposition, finalDisposition in (
            (DMARCPolicy.NONE, FinalDisposition.ACCEPTED),
            (DMARCPolicy.QUARANTINE, FinalDisposition.JUNK),
            (DMARCPolicy.REJECT, FinalDisposition.REJECTED_BY_DMARC),
        ):
            found = outcome(replace(REJECT, disposition=disposition))
            decision = decide(found, "x@a.example")
            self.assertEqual(decision.finalDisposition, finalDisposition)
            self.assertEqual(
                decision.refusal is None,
                finalDisposition is not FinalDisposition.REJECTED_BY_DMARC,
            )

    def test_unknown(self) -> None:
        """
        Temporary errors are accepted (RFC 9989 5.3.6), except after a time-out: then
        the message is refused temporarily (RFC 9989 7.2).
        """
        verdict = replace(
            REJECT, status=AuthResult.TEMPERROR, disposition=DMARCPolicy.NONE
        )
        self.assertEqual(
            decide(outcome(verdict), "").finalDisposition, FinalDisposition.ACCEPTED
        )
        found = replace(outcome(verdict), isOverdue=True)
        self.assertEqual(
            decide(found, ""), Decision(FinalDisposition.REJECTED, DMARC_UNAVAILABLE)
        )
        found = replace(
            outcome(replace(verdict, policy=DMARCPolicy.NONE)), isOverdue=True
        )
        self.assertEqual(decide(found, "").finalDisposition, FinalDisposition.ACCEPTED)
        found = replace(outcome(replace(verdict, discovery=None)), isOverdue=True)
        self.assertEqual(decide(found, "").refusal, DMARC_UNAVAILABLE)
        found = replace(outcome(REJECT), isOverdue=True)
        self.assertEqual(
            decide(found, "").finalDisposition, FinalDisposition.REJECTED_BY_DMARC
        )
        found = replace(outcome(PASSED), isOverdue=True)
        self.assertEqual(decide(found, "").finalDisposition, FinalDisposition.ACCEPTED)

    def test_words(self) -> None:
        """
        The reply names the policy: the domain's or the local one.
        """
        for policy, words in (
            (DMARCPolicy.REJECT, "the DMARC policy of a.example"),
            (DMARCPolicy.NONE, "what this host does about DMARC failures of a.example"),
        ):
            reply = decide(outcome(replace(REJECT, policy=policy)), "").refusal
            self.assertIsNotNone(reply)
            self.assertIn(words, reply.text if reply else "")

    def test_from(self) -> None:
        """
        A message without a readable author is refused (RFC 5322 3.6), except DSNs.
        """
        nothing = Verdict(AuthResult.NONE)
        for state, sender in product(FromField, ("x@a.example", "")):
            finalDisposition = decide(
                outcome(nothing, Authors(state)), sender
            ).finalDisposition
            expected = FinalDisposition.REJECTED if sender else FinalDisposition.JUNK
            if state is FromField.REPEATED:
                expected = FinalDisposition.REJECTED
            if state is FromField.READ:
                expected = FinalDisposition.ACCEPTED
            self.assertEqual(finalDisposition, expected, (state, sender))

    def test_proven(self) -> None:
        """
        A message is evidence for a domain only if it passes DMARC, and isn't junk.
        """
        for verdict, proven in (
            (PASSED, True),
            (replace(PASSED, spfAligned=False), True),
            (replace(PASSED, alignedDKIM=()), True),
            (replace(PASSED, alignedDKIM=(), spfAligned=False), False),
            (replace(PASSED, disposition=DMARCPolicy.QUARANTINE), False),
        ):
            found = outcome(verdict)
            domain = authenticatedOrganization(found, decide(found, "x@a.example"))
            self.assertEqual(domain, A if proven else None)

    def test_organization(self) -> None:
        """
        History has the organizational domain, if it is known.
        """
        below = Domain("x.a.example")
        found = Discovery(below, A, DiscoveryMethod.TREE_WALK)
        for discovery, expected in (
            (found, A),
            (replace(found, temporary=True), below),
        ):
            verdict = replace(PASSED, author=below, discovery=discovery)
            domain = authenticatedOrganization(
                outcome(verdict), Decision(FinalDisposition.ACCEPTED)
            )
            self.assertEqual(domain, expected)


class PlanCopiesTests(SynchronousTestCase):
    """
    Tests for L{planCopies}.
    """

    def mailboxes(
        self, finalDisposition: FinalDisposition, *targets: Target
    ) -> list[tuple[str, str]]:
        found = planCopies([Recipient(ANNA, targets)], finalDisposition, ACCOUNTS)
        return [(each.account, each.mailbox) for each in found]

    def test_mailboxes(self) -> None:
        """
        Each account has its own mailboxes; the host stores no rejected mail.
        """
        anna = Target("anna", "Inbox", ANNA)
        bob = Target("bob", "Work", ANNA)
        host = Target("", "Postmaster", ANNA, Role.POSTMASTER)
        for finalDisposition, expected in (
            (
                FinalDisposition.ACCEPTED,
                [("anna", "Inbox"), ("bob", "Work"), ("", "Postmaster")],
            ),
            (FinalDisposition.JUNK, [("anna", "Junk"), ("bob", "Junk"), ("", "Junk")]),
            (FinalDisposition.REJECTED_BY_DMARC, [("anna", "Rejects")]),
            (FinalDisposition.REJECTED, []),
        ):
            self.assertEqual(
                self.mailboxes(finalDisposition, anna, bob, host), expected
            )

    def test_once(self) -> None:
        """
        One mailbox gets one copy, for the first recipient.
        """
        other = Address.parse("other@our.example")
        found = planCopies(
            [
                Recipient(ANNA, (Target("anna", "Inbox", ANNA),)),
                Recipient(other, (Target("anna", "Inbox", other),)),
            ],
            FinalDisposition.ACCEPTED,
            ACCOUNTS,
        )
        self.assertEqual(found, (MailboxCopy("anna", "Inbox", ANNA),))


class ReplyForTests(SynchronousTestCase):
    """
    Tests for L{replyFor} and L{undelivered}.
    """

    def test_consistent(self) -> None:
        """
        After acceptance every copy is stored, queued, or junk; otherwise the client
        tries again.
        """
        each = MailboxCopy("anna", "Inbox", ANNA)
        for outcomes in product(StoreResult, repeat=3):
            reply = replyFor(outcomes, FinalDisposition.ACCEPTED)
            left = undelivered([each] * 3, outcomes, FinalDisposition.ACCEPTED)
            isThere = StoreResult.STORED in outcomes
            self.assertEqual(reply.accepted, isThere)
            missing = sum(outcome is not StoreResult.STORED for outcome in outcomes)
            self.assertEqual(len(left), missing if isThere else 0)
            if not isThere:
                self.assertEqual(reply == TRY_LATER, StoreResult.LATER in outcomes)
            self.assertEqual(
                undelivered([each] * 3, outcomes, FinalDisposition.JUNK), ()
            )
