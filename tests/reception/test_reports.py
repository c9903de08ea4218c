"""
Tests for L{moxtls.reception.reports}.
"""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import patch

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from moxtls.config import Config
from moxtls.interfaces import StoreUnavailable
from moxtls.message.header import ClientInfo
from moxtls.message.spooled import MAX_IN_MEMORY
from moxtls.received.intake.intake import IntakeResult, ReportIntake, ReportReader
from moxtls.received.interfaces import IReceivedReportStore
from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    Channel,
    Origin,
    RefusedReport,
)
from moxtls.reception import reports as module
from moxtls.reception.policy import TRY_LATER
from moxtls.reception.reports import MailedReports, describeResults, reportField
from moxtls.workers.process import NoWorker, Worker
from tests.received.intake.fakes import InlineWorker, RecordingStore, readWords
from tests.received.intake.test_authenticity import dmarcReport, tlsReport
from tests.reception.receiving import (
    CONFIG,
    HOSTNAME,
    MailboxFull,
    MailboxRefused,
    ReceptionCase,
)
from tests.reception.signed import OTHER_CLIENT, message

#: Signed, and allowed by SPF.
REPORT = message("x@a.example", "a.example", body=b"one two\r\n")
HOST_ADDRESS = f"tlsreports@{HOSTNAME}"
FIELD = b"X-Moxtls-Report: "


class Busy:
    """
    A worker that doesn't exist.
    """

    def call(self, function: object, argument: object) -> Deferred[Any]:
        return fail(NoWorker("gone"))


class MailedReportsTests(ReceptionCase):
    """
    Tests for L{MailedReports}, through the reception of messages.
    """

    config = CONFIG.replace(
        '[Domains."own.example"]\n',
        '[Domains."our.example".TLSRPT]\nAccount = "anna"\n'
        '[Domains."our.example".DMARC]\n[Domains."own.example"]\n',
    )

    def mailedReports(self, config: Config) -> MailedReports:
        self.store = RecordingStore()
        self.worker = InlineWorker()
        reader = ReportReader(self.clock, [cast(Worker, self.worker)], readWords)
        intake = ReportIntake(cast(IReceivedReportStore, self.store), reader)
        return MailedReports(self.clock, intake, config)

    def fields(self, account: str = "anna", mailbox: str = "TLSRPT") -> list[bytes]:
        """
        The texts of the fields about reports in the messages of a mailbox.
        """
        return [
            line.removeprefix(FIELD)
            for each in self.stored(account, mailbox)
            for line in each.replace(b"\r\n\t", b" ").split(b"\r\n")
            if line.startswith(FIELD)
        ]

    def seen(self, account: str = "anna", mailbox: str = "TLSRPT") -> list[bool]:
        """
        Whether the messages of a mailbox are marked as seen.
        """
        return [each.seen for each in self.mail[account].messages[(mailbox,)]]

    def test_accepted(self) -> None:
        """
        Accepted reports are stored with what authenticates them; the message is
        delivered to its mailbox, seen, and says so.
        """
        got = self.receive(REPORT, "TLSreports+x@our.example")
        self.assertEqual(got.reply.code, 250)
        self.assertEqual(self.store.ids, ["one", "two"])
        now = self.clock.seconds()
        expected = Origin(Channel.MAIL, "a.example", "DKIM a.example", now)
        self.assertEqual({each.origin for each in self.store.stored}, {expected})
        self.assertEqual(self.fields(), [b"accepted, 2 TLS reports"])
        self.assertEqual(self.seen(), [True])

    def test_refused(self) -> None:
        """
        A report that isn't accepted is delivered, unseen, with the reason, which is
        stored, too.
        """
        for text, reason in [
            (
                message("x@n.example", "relay.example", body=b"one\r\n"),
                "there is no DKIM signature of n.example: it is signed by "
                "relay.example",
            ),
            (message("x@a.example", "a.example", body=b"bad\r\n"), "it is bad"),
            (message("x@a.example"), "there is no DKIM signature of a.example"),
        ]:
            self.setUp()
            self.receive(text, "tlsreports@our.example")
            self.assertEqual(self.fields(), [f"refused, {reason}".encode()])
            self.assertEqual(self.store.ids, [reason])
            self.assertEqual(self.seen(), [False])

    def test_quarantined(self) -> None:
        """
        What DMARC quarantines goes to the junk mailbox, and says what became of it.
        """
        text = message("x@q.example", "relay.example", body=b"one\r\n")
        self.receive(text, "tlsreports@our.example", client=OTHER_CLIENT)
        [field] = self.fields(mailbox="Junk")
        self.assertIn(b"refused, there is no DKIM signature of q.example", field)
        self.assertEqual(self.seen(mailbox="Junk"), [False])

    def test_dmarcReject(self) -> None:
        """
        Ordinary gates come first: what DMARC rejects isn't read, nor stored.
        """
        text = message("x@a.example", "relay.example", body=b"one\r\n")
        got = self.receive(text, "tlsreports@our.example", client=OTHER_CLIENT)
        self.assertEqual(got.reply.code, 550)
        self.assertEqual((self.store.stored, self.stored("anna", "TLSRPT")), ([], []))

    def test_otherRecipients(self) -> None:
        """
        Other recipients of the same message get it unseen and without the field; so
        do those of other messages, without any field that the sender made up.
        """
        forged = b"x-moxtls-REPORT: accepted,\r\n 1 TLS report\r\n"
        self.receive(forged + REPORT, "tlsreports@our.example", "bob@our.example")
        self.assertEqual(self.fields(), [b"accepted, 2 TLS reports"])
        [copy] = self.stored("bob")
        self.assertNotIn(b"moxtls-report", copy.lower())
        self.assertEqual([each.seen for each in self.mail["bob"].messages[()]], [False])

    def test_hostAddress(self) -> None:
        """
        Several addresses in one message take its reports in once.
        """
        self.receive(REPORT, HOST_ADDRESS, "tlsreports@our.example")
        self.assertEqual(self.store.ids, ["one", "two"])
        self.assertEqual(self.fields("", "TLSRPT"), self.fields())
        self.assertEqual(self.seen("", "TLSRPT"), [True])

    def test_withoutAddress(self) -> None:
        """
        Mail to other addresses isn't read, whatever is in it.
        """
        self.receive(REPORT, "anna@our.example")
        self.assertEqual(self.store.stored, [])

    def test_localUsers(self) -> None:
        """
        Mail of local users isn't read.
        """
        client = ClientInfo("192.0.2.1", "mail.a.example", user="anna")
        self.receive(REPORT, "tlsreports@our.example", client=client)
        self.assertEqual((self.store.stored, self.fields()), ([], []))
        self.assertEqual(len(self.stored("anna", "TLSRPT")), 1)

    def test_unchecked(self) -> None:
        """
        A listener without checks can't accept reports, which forgers could send.
        """
        self.reception = self.made(None)
        self.receive(REPORT, "tlsreports@our.example")
        expected = b"refused, the message was not authenticated (and 1 other)"
        self.assertEqual(self.fields(), [expected])

    def test_ledgerUnavailable(self) -> None:
        """
        While the ledger is unavailable, the message is deferred, and not delivered.
        """
        self.store.failure = StoreUnavailable("away")
        got = self.receive(REPORT, "tlsreports@our.example")
        self.assertEqual(got.reply, TRY_LATER)
        self.assertEqual(self.stored("anna", "TLSRPT"), [])
        self.store.failure = None
        self.receive(REPORT, "tlsreports@our.example")
        self.assertEqual(self.store.ids, ["one", "two"])

    def test_noWorker(self) -> None:
        """
        While no process can read reports, the message is deferred.
        """
        self.patch(self.worker, "call", Busy().call)
        got = self.receive(REPORT, "tlsreports@our.example")
        self.assertEqual(got.reply, TRY_LATER)

    def test_mailboxFails(self) -> None:
        """
        If the message can't be stored in its mailbox, the client sends it again, and
        its reports are duplicates, which are accepted.
        """
        self.mail["anna"].error = OSError("full")
        got = self.receive(REPORT, "tlsreports@our.example")
        self.assertEqual(got.reply, TRY_LATER)
        self.flushLoggedErrors(OSError)
        self.mail["anna"].error = None
        got = self.receive(REPORT, "tlsreports@our.example")
        self.assertEqual(got.reply.code, 250)
        self.assertEqual(self.store.ids, ["one", "two"])
        self.assertEqual(self.fields(), [b"accepted, 2 TLS reports, 2 known before"])
        self.assertEqual(self.seen(), [True])

    def test_mailboxFull(self) -> None:
        """
        A full mailbox doesn't return accepted reports to their sender, but it does
        return other messages.
        """
        mailbox = self.mail["anna"]
        mailbox.room = 0
        for error in (MailboxFull(), MailboxRefused("no")):
            mailbox.error = error
            got = self.receive(REPORT, "tlsreports@our.example", size=1000)
            self.assertEqual((got.rcpt, got.reply.code), ([250], 250))
            got = self.receive(message("x@n.example"), "tlsreports@our.example")
            self.assertIn(got.reply.code, (550, 552))
        self.assertEqual(self.store.ids[:2], ["one", "two"])

    def test_large(self) -> None:
        """
        A report in a file is read as one in memory; a message above the limit is
        delivered, and its report refused.
        """
        body = b"one" + b" " * 2 * MAX_IN_MEMORY + b"\r\n"
        text = message("x@a.example", "a.example", body=body)
        self.receive(text, "tlsreports@our.example")
        with patch.object(module, "MAX_INPUT", len(text) - 1):
            self.receive(text, "tlsreports@our.example")
        self.assertEqual(self.store.ids, ["one", module.TOO_LARGE])
        expected = [b"accepted, 1 TLS report", f"refused, {module.TOO_LARGE}".encode()]
        self.assertEqual(self.fields(), expected)
        self.assertEqual(self.seen(), [True, False])

    def test_notReported(self) -> None:
        """
        Mail to these addresses, whatever is in it, causes no report of ours: two hosts
        would report on each other's reports for ever.
        """
        plain = message("x@a.example", "a.example", body=b"hello\r\n")
        addresses = ("tlsreports@our.example", "dmarcreports+x@our.example")
        for address in (*addresses, HOST_ADDRESS, "anna@our.example"):
            self.receive(plain, address)
        found = [each.isForReports for each in self.listening.events]
        self.assertEqual(found, [True, True, True, False])


class FieldTests(SynchronousTestCase):
    """
    Tests for L{describeResults} and L{reportField}.
    """

    origin = Origin(Channel.MAIL, "a.example", "", 0)

    def accepted(
        self, result: AddResult = AddResult.STORED, isTLS: bool = True
    ) -> IntakeResult:
        """
        The result of an accepted report.
        """
        report = tlsReport("our.example") if isTLS else dmarcReport()
        return IntakeResult(AcceptedReport(report, self.origin), result)

    def refused(self, reason: str) -> IntakeResult:
        """
        The result of a refused report.
        """
        return IntakeResult(RefusedReport(self.origin, reason), None)

    def test_texts(self) -> None:
        """
        Reports are counted by kind, and the first reason is given, in printable ASCII.
        """
        for results, expected in [
            ([self.accepted()], "accepted, 1 TLS report"),
            (
                [self.accepted(AddResult.VARIANT), self.accepted(isTLS=False)],
                "accepted, 1 TLS report, 1 DMARC report",
            ),
            (
                [self.accepted(), self.refused("no"), self.refused("never")],
                "accepted, 1 TLS report; refused, no (and 1 other)",
            ),
            ([self.refused("a\r\nb\x1b[\u202e\u00e9")], "refused, a??b?[??"),
        ]:
            self.assertEqual(describeResults(results), expected)

    def test_folded(self) -> None:
        """
        The field is folded at spaces into lines of at most 78 characters where it can
        be, and no text ends it (RFC 5322 2.1.1, 2.2.3).
        """
        long = "x" * 300
        text = describeResults([self.refused(f"{'word ' * 60}{long}")])
        field = reportField(text)
        self.assertTrue(field.endswith(b"\r\n"))
        lines = field.decode().split("\r\n")[:-1]
        self.assertEqual(
            " ".join(line.strip("\t") for line in lines), f"X-Moxtls-Report: {text}"
        )
        self.assertTrue(all(line.startswith("\t") for line in lines[1:]))
        self.assertTrue(all(len(line) <= 78 or long[:90] in line for line in lines))
