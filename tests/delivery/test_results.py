"""
Tests for L{moxtls.delivery.results}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from moxtls.delivery.mx import HostAddresses, NextHopFailure
from moxtls.delivery.results import (
    MAX_TEXT,
    DeliveryError,
    RecipientResults,
    noNextHop,
    policyRefused,
    requireTLSNotOffered,
    smtpError,
    unreachableHost,
)
from moxtls.delivery.tls import PolicyRefusal
from moxtls.dns.types import ExtendedError
from moxtls.domain import Domain
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus, Result
from moxtls.smtp.types import RecipientReply, Reply

BATCH_MESSAGE = BatchMessage(
    "m1", "us@us.example", ("a@b.example", "c@b.example"), Path(), 1
)
OTHER = BatchMessage("m2", "us@us.example", ("a@b.example",), Path(), 1)
BATCH = Batch("b.example", (BATCH_MESSAGE, OTHER))
YES = Reply(250, "2.0.0", "ok")
LATER = Reply(450, "4.2.1", "full")
NEVER = Reply(550, "5.1.1", "who?")


def said(reply: Reply, recipient: str = "a@b.example") -> list[RecipientReply]:
    return [RecipientReply(recipient, reply)]


class DeliveryErrorTests(SynchronousTestCase):
    """
    Tests for errors of hosts and domains.
    """

    def test_permanent(self) -> None:
        """
        RFC 3463 2: the class of the status says whether the error is temporary.
        """
        self.assertTrue(DeliveryError("5.1.2", "").permanent)
        self.assertFalse(DeliveryError("4.1.2", "").permanent)
        self.assertEqual(
            DeliveryError("5.1.2", "x").asTemporary(), DeliveryError("4.1.2", "x")
        )

    def test_nowhere(self) -> None:
        """
        The status and text of the next hop's lookup are passed on.
        """
        failure = NextHopFailure(True, "5.1.10", "no mail", ExtendedError(6))
        self.assertEqual(noNextHop(failure), DeliveryError("5.1.10", "no mail"))

    def test_unreachable(self) -> None:
        """
        A host without an address, and one whose lookup failed (RFC 3463 3.5).
        """
        host = Domain("mx.example")
        found = HostAddresses(host, reason="none")
        self.assertEqual(
            unreachableHost(found), DeliveryError("4.4.4", "none", "mx.example")
        )
        found = HostAddresses(host, failed=True, reason="SERVFAIL")
        self.assertEqual(
            unreachableHost(found), DeliveryError("4.4.3", "SERVFAIL", "mx.example")
        )

    def test_refused(self) -> None:
        """
        RFC 8689 5: only REQUIRETLS is a reason to give up.
        """
        statuses = {
            each: policyRefused(each, "mx.example").status for each in PolicyRefusal
        }
        self.assertEqual(
            statuses,
            {
                PolicyRefusal.TLSA_LOOKUP: "4.7.5",
                PolicyRefusal.MX_MISMATCH: "4.7.5",
                PolicyRefusal.REQUIRETLS: "5.7.30",
            },
        )
        self.assertEqual(requireTLSNotOffered("mx.example").status, "5.7.30")

    def test_rejected(self) -> None:
        """
        RFC 3463 2: without an enhanced code, or with one of another class,
        the code decides.
        """
        for reply, status in (
            (Reply(554, "5.7.1", "no"), "5.7.1"),
            (Reply(554, "", "no"), "5.0.0"),
            (Reply(421, "", "bye"), "4.0.0"),
            (Reply(421, "5.7.1", "bye"), "4.0.0"),
        ):
            error = smtpError(reply, "mx.example")
            self.assertEqual((error.status, error.code), (status, reply.code))


class RecipientResultsTests(SynchronousTestCase):
    """
    Tests for L{RecipientResults}.
    """

    def setUp(self) -> None:
        self.results = RecipientResults(BATCH)

    def ended(self) -> dict[tuple[str, str], tuple[DeliveryStatus, str]]:
        """
        End it.
        """
        self.results.finish()
        self.assertTrue(self.results.complete)
        return {
            (each.messageID, each.recipient): (each.ending, each.status)
            for each in self.results.final()
        }

    def test_final(self) -> None:
        """
        Acceptance and permanent refusals are final; each message and recipient has
        its own result.
        """
        self.results.addReplies(BATCH_MESSAGE, said(YES), "mx")
        self.results.addReplies(BATCH_MESSAGE, said(NEVER, "c@b.example"), "mx")
        self.assertEqual(self.results.undecidedRecipients(BATCH_MESSAGE), ())
        self.assertEqual(self.results.undecidedRecipients(OTHER), ("a@b.example",))
        self.assertFalse(self.results.complete)
        self.results.addHostError(DeliveryError("4.4.2", "lost", "mx"))
        self.assertEqual(
            self.ended(),
            {
                ("m1", "a@b.example"): (DeliveryStatus.DELIVERED, "2.0.0"),
                ("m1", "c@b.example"): (DeliveryStatus.PERMANENT, "5.1.1"),
                ("m2", "a@b.example"): (DeliveryStatus.TEMPORARY, "4.4.2"),
            },
        )

    def test_result(self) -> None:
        """
        The result has the host's whole reply, with a bounded text.
        """
        self.results.addReplies(OTHER, said(Reply(550, "5.1.1", "x" * 9999)), "mx")
        (result,) = self.results.final()
        text = ("550 5.1.1 " + "x" * 9999)[:MAX_TEXT]
        self.assertEqual(
            result,
            Result(
                "m2", "a@b.example", DeliveryStatus.PERMANENT, "5.1.1", 550, text, "mx"
            ),
        )

    def test_passing(self) -> None:
        """
        A temporary refusal keeps the recipient open, and is the result only if no
        host has a better one.
        """
        self.results.addReplies(OTHER, said(LATER), "mx1")
        self.assertEqual(self.results.undecidedRecipients(OTHER), ("a@b.example",))
        self.assertEqual(self.results.final(), ())
        self.results.addHostError(DeliveryError("5.0.0", "go away", "mx2"))
        self.assertEqual(
            self.ended()["m2", "a@b.example"], (DeliveryStatus.TEMPORARY, "4.2.1")
        )

    def test_better(self) -> None:
        """
        A final reply replaces a temporary one.
        """
        self.results.addReplies(OTHER, said(LATER), "mx1")
        self.results.addReplies(OTHER, said(YES), "mx2")
        self.assertEqual(
            self.ended()["m2", "a@b.example"], (DeliveryStatus.DELIVERED, "2.0.0")
        )

    def test_lenient(self) -> None:
        """
        Policy refusals are temporary on request, others never.
        """
        policy = Reply(550, "5.7.26", "no")
        self.results.addReplies(OTHER, said(policy), "mx", lenient=True)
        self.results.addReplies(BATCH_MESSAGE, said(NEVER), "mx", lenient=True)
        self.results.addReplies(BATCH_MESSAGE, said(policy, "c@b.example"), "mx")
        self.assertEqual(
            self.ended(),
            {
                ("m1", "a@b.example"): (DeliveryStatus.PERMANENT, "5.1.1"),
                ("m1", "c@b.example"): (DeliveryStatus.PERMANENT, "5.7.26"),
                ("m2", "a@b.example"): (DeliveryStatus.TEMPORARY, "4.7.26"),
            },
        )

    def test_someHostsPass(self) -> None:
        """
        One temporary failure among the hosts is enough to try again; the last one
        gives the reason.
        """
        self.results.addHostError(DeliveryError("4.4.1", "refused", "mx1"))
        self.results.addHostError(DeliveryError("4.4.2", "lost", "mx2"))
        self.results.addHostError(DeliveryError("5.7.30", "REQUIRETLS", "mx3"))
        self.assertEqual(
            set(self.ended().values()), {(DeliveryStatus.TEMPORARY, "4.4.2")}
        )
        self.assertEqual({each.host for each in self.results.final()}, {"mx2"})

    def test_allHostsRefuse(self) -> None:
        """
        If all hosts refuse permanently, the result is permanent.
        """
        self.results.addHostError(DeliveryError("5.7.30", "REQUIRETLS", "mx1"))
        self.results.addHostError(DeliveryError("5.7.30", "REQUIRETLS", "mx2"))
        self.assertEqual(
            set(self.ended().values()), {(DeliveryStatus.PERMANENT, "5.7.30")}
        )

    def test_endAll(self) -> None:
        """
        Without hosts, that is the only reason.
        """
        self.results.failAll(DeliveryError("5.1.2", "no such domain"))
        self.assertEqual(
            set(self.ended().values()), {(DeliveryStatus.PERMANENT, "5.1.2")}
        )
        self.assertEqual(len(self.results.final()), 3)

    def test_messageFailed(self) -> None:
        """
        A message that can't be read is deferred, without another host being tried;
        earlier replies about it stay.
        """
        self.results.addReplies(BATCH_MESSAGE, said(YES), "mx")
        self.results.failMessage(BATCH_MESSAGE, DeliveryError("4.3.0", "unreadable"))
        self.assertEqual(self.results.undecidedRecipients(BATCH_MESSAGE), ())
        found = self.ended()
        self.assertEqual(
            found["m1", "a@b.example"], (DeliveryStatus.DELIVERED, "2.0.0")
        )
        self.assertEqual(
            found["m1", "c@b.example"], (DeliveryStatus.TEMPORARY, "4.3.0")
        )

    def test_errors(self) -> None:
        """
        Errors are kept in order, with bounded texts; ending adds none.
        """
        self.results.addHostError(DeliveryError("4.4.1", "x" * 9999, "mx1"))
        self.results.addHostError(DeliveryError("4.4.2", "lost", "mx2"))
        self.results.finish()
        self.assertEqual(
            self.results.errors,
            (
                DeliveryError("4.4.1", "x" * MAX_TEXT, "mx1"),
                DeliveryError("4.4.2", "lost", "mx2"),
            ),
        )
        nothing = RecipientResults(Batch("b.example", ()))
        nothing.finish()
        self.assertEqual(nothing.errors, ())
