"""
Tests for L{moxtls.twistedmail.verdicts} and L{moxtls.reception.acceptor}: the same
verdicts for servers of C{twisted.mail} as for our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.mail import smtp
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.authentication.check import (
    MAX_WAIT,
    MessageAuthentication,
    MessageAuthenticator,
)
from moxtls.authentication.results import AuthResult
from moxtls.dmarc.evaluation import WRITE_INTERVAL, EvaluationRecorder
from moxtls.dmarc.types import Disposition, DMARCPolicy, FinalDisposition
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.dns.types import Answer, RRType
from moxtls.domain import Domain
from moxtls.ledger.ledger import MemoryLedger
from moxtls.message.header import MAX_HEADER, ClientInfo
from moxtls.message.spooled import MAX_IN_MEMORY
from moxtls.reception.delivery import VerdictDispatcher
from moxtls.reception.reportaddresses import ReportAddresses
from moxtls.twistedmail.messages import IFilteredMessage, IMessageFilter
from moxtls.twistedmail.server import filterServer
from moxtls.twistedmail.verdicts import MessageFilter
from tests.reception.receiving import HOSTNAME, NOW, RecordingObserver
from tests.reception.signed import HOST, OTHER_CLIENT, RELAY, message, resolver
from tests.smtp.stock import (
    Connection,
    Delivery,
    FailingObserver,
    KeptMessage,
    stockFactory,
)

OK = ["250 Delivery in progress"]
FORGED = (
    f"Authentication-Results: {HOSTNAME}; dmarc=pass header.from=bank.example\r\n"
).encode()


class MessageFilterCase(SynchronousTestCase):
    """
    A stock server whose mail is judged.
    """

    enforce = True

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.dns = resolver()
        self.ledger = MemoryLedger()
        self.listening = RecordingObserver()
        self.delivery = Delivery()
        self.checks = MessageAuthenticator(
            self.clock,
            self.dns,
            LocalPolicy(),
            HOSTNAME,
            lambda f: execute(f),
            lambda: 0,
        )
        recorder = EvaluationRecorder(self.clock, self.ledger.evaluations)
        observers = (self.listening, recorder)
        dispatcher = VerdictDispatcher(self.clock, observers, self.ledger.history)
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.filter = MessageFilter(self.checks, dispatcher, folder, self.enforce)

    def connection(self, client: ClientInfo = HOST) -> Connection:
        stock = stockFactory(delivery=self.delivery)
        factory = filterServer(self.clock, stock, self.filter)
        return Connection(factory, client.address, client.helo)

    def send(
        self,
        text: bytes,
        *recipients: str,
        client: ClientInfo = HOST,
        sender: str = "x@a.example",
    ) -> list[str]:
        """
        @return: The last reply.
        """
        connection = self.connection(client)
        connection.begin(sender, *(recipients or ("anna",)))
        return connection.send(text)

    def kept(self, name: str = "anna") -> KeptMessage:
        """
        The lines that the application has of one recipient's latest message.
        """
        return self.delivery.mail[name][-1]

    def header(self, name: str, field: str) -> list[str]:
        """
        The unfolded values of fields in the delivered message.
        """
        header = self.kept(name).text.decode().partition("\n\n")[0]
        found = re.findall(rf"(?m)^{field}: (.*(?:\n[ \t].*)*)", header)
        return [each.replace("\n\t", " ") for each in found]

    def results(self, name: str = "anna") -> str:
        """
        The one Authentication-Results of the application's message.
        """
        (results,) = self.header(name, "Authentication-Results")
        return results


class VerdictTests(MessageFilterCase):
    """
    Verdicts, and their observers.
    """

    def test_interfaces(self) -> None:
        """
        The filter provides its interface.
        """
        verifyObject(IMessageFilter, self.filter)
        verifyObject(IFilteredMessage, self.filter.message(HOST, ""))

    def test_pass(self) -> None:
        """
        Authenticated mail is passed on with the results on top, above the server's
        own fields (RFC 8601 4), for each recipient.
        """
        text = message("x@a.example", "a.example")
        self.assertEqual(self.send(text, "anna", "bob"), OK)
        for name in ("anna", "bob"):
            lines = self.kept(name).lines
            self.assertEqual(lines[0], f"Authentication-Results: {HOSTNAME};".encode())
            results = self.results(name)
            for word in ("iprev=pass", "spf=pass", "dkim=pass", "dmarc=pass"):
                self.assertIn(word, results)
            (spf,) = self.header(name, "Received-SPF")
            self.assertEqual(spf[:5], "pass ")
            kept = self.kept(name).text
            self.assertLess(kept.index(b"Received-SPF"), kept.index(b"Received:"))
            self.assertTrue(kept.endswith(text.replace(b"\r\n", b"\n")))

    def test_observers(self) -> None:
        """
        Observers are notified once for each RCPT, before the application gets the
        message.
        """
        self.send(message("x@a.example", "a.example"), "anna", "bob")
        told = self.listening.events
        self.assertEqual(
            [(each.sender, each.recipient, each.finalDisposition) for each in told],
            [
                ("x@a.example", "anna@our.example", FinalDisposition.ACCEPTED),
                ("x@a.example", "bob@our.example", FinalDisposition.ACCEPTED),
            ],
        )
        self.assertEqual(told[0].authentication.address, HOST.address)
        self.assertEqual(told[0].verdict.status, AuthResult.PASS)
        self.assertIn(b"Subject: hello\r\n", told[0].header)
        self.assertFalse(told[0].isForReports)

    def test_becauseOfReports(self) -> None:
        """
        Mail to an address for reports, and to the envelope sender of a report, is
        marked as such.
        """
        self.dns.put(
            "_dmarc.our.example",
            RRType.TXT,
            "v=DMARC1; p=none; rua=mailto:anna@our.example",
        )
        domains = [Domain("our.example")]
        addresses = ReportAddresses(self.clock, self.dns, domains)
        self.filter.reportAddresses = addresses
        self.send(message("x@a.example", "a.example"), "anna", "bob")
        told = [each.isForReports for each in self.listening.events]
        self.assertEqual(told, [True, False])
        subject = b"Subject: Report Domain: b.example Submitter: a.example Report-ID: 1"
        report = subject + b"\r\n" + message("x@a.example")
        self.send(report, "bob")
        self.assertTrue(self.listening.events[-1].isForReports)

    def test_evaluations(self) -> None:
        """
        Evaluations for aggregate reports are recorded (RFC 9990 3.1.1.7).
        """
        self.send(message("x@a.example", "a.example"))
        self.send(message("x@a.example"), client=OTHER_CLIENT)
        self.clock.advance(WRITE_INTERVAL)
        stored = self.successResultOf(self.ledger.evaluations.evaluations())
        found = {
            each.evaluation.row.sourceIP: each.evaluation.row.disposition
            for each in stored
        }
        expected = {
            HOST.address: Disposition.PASS,
            OTHER_CLIENT.address: Disposition.REJECT,
        }
        self.assertEqual(found, expected)
        self.flushLoggedErrors(smtp.SMTPServerError)

    def test_history(self) -> None:
        """
        An authenticated author domain becomes known to the recipient, which matters
        when it is forged later.
        """
        spoofed = message("x@a.example")
        self.send(spoofed, client=OTHER_CLIENT)
        self.send(message("x@a.example", "a.example"), "Anna")
        self.send(spoofed, "anna", client=OTHER_CLIENT)
        known = [each.isKnown for each in self.listening.events]
        self.assertEqual(known, [False, True, True])
        self.flushLoggedErrors(smtp.SMTPServerError)

    def test_curious(self) -> None:
        """
        A message of the application that implements IVerdictObserver gets its
        verdict; an error there changes nothing.
        """
        self.delivery.make = FailingObserver
        self.assertEqual(self.send(message("x@a.example"), "anna", "bob"), OK)
        for name in ("anna", "bob"):
            kept: Any = self.kept(name)
            (event,) = kept.events
            self.assertEqual(event.recipient, f"{name}@our.example")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_null(self) -> None:
        """
        A DSN is checked by HELO (RFC 7208 2.4).
        """
        text = message("x@relay.example", "relay.example")
        self.assertEqual(self.send(text, client=RELAY, sender=""), OK)
        self.assertIn("smtp.helo=relay.example", self.results())

    def test_expected(self) -> None:
        """
        SPF lookups start at MAIL.
        """
        connection = self.connection()
        connection.say("MAIL FROM:<x@a.example>")
        self.assertIn(("a.example", RRType.TXT), self.dns.asked)

    def test_forged(self) -> None:
        """
        Results in our name that came with the message are none (RFC 8601 5),
        however they are hidden.
        """
        others = b"Authentication-Results: else.example; spf=pass\r\n"
        hidden = b"X: y\n" + FORGED + b"X: z\r" + FORGED + others + FORGED
        for fields in (FORGED, hidden):
            self.assertEqual(self.send(message("x@n.example", fields=fields)), OK)
            self.assertNotIn(b"bank.example", self.kept().text)
        self.assertIn(others.strip(), self.kept().lines)

    def test_large(self) -> None:
        """
        A message on disk is checked and passed on like any other.
        """
        body = b"." + b"x" * 70 + b"\r\n"
        body *= 2 * MAX_IN_MEMORY // len(body)
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        connection.send(message("x@a.example", "a.example", body=body))
        self.clock.pump([0] * 20)
        self.assertEqual(connection.replies(), OK)
        self.assertIn("dkim=pass", self.results())
        self.assertTrue(self.kept().text.endswith(body.replace(b"\r\n", b"\n")))


class EnforcingTests(MessageFilterCase):
    """
    DMARC policies are enforced.
    """

    def test_reject(self) -> None:
        """
        The reply is 550 5.7.1 with the word DMARC (RFC 9989 7.2); no recipient gets
        anything.
        """
        replies = self.send(message("x@a.example"), "anna", "bob", client=OTHER_CLIENT)
        self.assertTrue(replies[0].startswith("550-5.7.1 "))
        self.assertIn("the DMARC policy of a.example", replies[0])
        self.assertEqual(len(self.flushLoggedErrors(smtp.SMTPServerError)), 1)
        for name in ("anna", "bob"):
            self.assertEqual((self.kept(name).lines, self.kept(name).lost), ([], 1))
        dispositions = [each.finalDisposition for each in self.listening.events]
        self.assertEqual(dispositions, [FinalDisposition.REJECTED_BY_DMARC] * 2)

    def test_quarantine(self) -> None:
        """
        The header of a message shows that its policy asks for quarantine.
        """
        text = message("x@q.example")
        replies = self.send(text, client=OTHER_CLIENT, sender="x@stranger.example")
        self.assertEqual(replies, OK)
        self.assertIn("dmarc=fail (disposition quarantine)", self.results())
        (event,) = self.listening.events
        self.assertEqual(event.finalDisposition, FinalDisposition.JUNK)

    def test_noAuthor(self) -> None:
        """
        Mail without an author is refused, as by our own server.
        """
        replies = self.send(b"Subject: hi\r\n\r\nhi\r\n")
        self.assertTrue(replies[0].startswith("550 5.6.0 "))
        self.assertEqual(len(self.flushLoggedErrors(smtp.SMTPServerError)), 1)

    def test_headerTooLong(self) -> None:
        """
        A message with a too long header is refused.
        """
        fields = b"X: " + b"y" * 900 + b"\r\n"
        text = fields * (MAX_HEADER // len(fields) + 2) + FORGED
        replies = self.send(text)
        self.assertTrue(replies[0].startswith("552 5.3.4 "))
        self.assertEqual(len(self.flushLoggedErrors(smtp.SMTPServerError)), 1)


class AnnotatingTests(MessageFilterCase):
    """
    The result is only added to the header.
    """

    enforce = False

    def test_reject(self) -> None:
        """
        The application gets mail that fails C{p=reject}, with the results; reports
        have a local policy as the reason (RFC 9990 3.1.6).
        """
        self.assertEqual(self.send(message("x@a.example"), client=OTHER_CLIENT), OK)
        self.assertIn("dmarc=fail (disposition reject)", self.results())
        (event,) = self.listening.events
        self.assertEqual(event.finalDisposition, FinalDisposition.ACCEPTED)
        self.assertEqual(event.verdict.disposition, DMARCPolicy.REJECT)
        (stored,) = self.successResultOf(self.ledger.evaluations.evaluations())
        self.assertEqual(stored.evaluation.row.disposition, Disposition.NONE)
        self.assertEqual(stored.evaluation.row.reasons[0].kind, "local_policy")

    def test_noHeader(self) -> None:
        """
        Any message is passed on, with an intact header.
        """
        self.assertEqual(self.send(b"no header\r\nat all\r\n"), OK)
        self.assertIn("dmarc=none", self.results())
        self.assertEqual(self.kept().lines[-3:], [b"", b"no header", b"at all"])


class ErrorTests(MessageFilterCase):
    """
    Messages that can't be evaluated.
    """

    def breaking(self, name: str) -> None:
        def broken(*what: Any) -> Any:
            raise RuntimeError("a mistake")

        self.patch(MessageAuthentication, name, broken)

    def test_broken(self) -> None:
        """
        Mail isn't lost by an internal error: it is passed on, without results.
        """
        for name in ("begin", "finish"):
            self.breaking(name)
            text = message("x@a.example", fields=FORGED)
            self.assertEqual(self.send(text, client=OTHER_CLIENT), OK)
            self.assertEqual(
                self.results(),
                f"{HOSTNAME}; spf=temperror; dkim=temperror; dmarc=temperror",
            )
            self.assertEqual(self.header("anna", "Received-SPF"), [])
            self.assertTrue(self.kept().text.endswith(b"\n\nhello\n"))
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.listening.events, [])

    def test_observerFails(self) -> None:
        """
        Mail isn't lost by an error of an observer either.
        """
        self.listening.answer = execute(self.fail_)
        self.assertEqual(self.send(message("x@a.example")), OK)
        self.assertIn("dmarc=pass", self.results())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def fail_(self) -> None:
        raise RuntimeError("no database")

    def test_overdue(self) -> None:
        """
        Lookups time out, and mail isn't refused permanently for it (RFC 9989 7.2).
        """
        self.dns.hang("_dmarc.a.example", RRType.TXT)
        connection = self.connection(OTHER_CLIENT)
        connection.begin("x@a.example", "anna")
        self.assertEqual(connection.send(message("x@a.example")), [])
        self.clock.advance(MAX_WAIT)
        (reply,) = connection.replies()
        self.assertTrue(reply.startswith("451 "), reply)
        self.assertEqual(len(self.flushLoggedErrors(smtp.SMTPServerError)), 1)

    def test_hungUp(self) -> None:
        """
        Lookups are cancelled when the client disconnects.
        """
        asked: list[Deferred[Answer]] = []
        lookup: Callable[[str, RRType], Deferred[Answer]] = self.dns.lookup

        def looking(name: str, kind: RRType) -> Deferred[Answer]:
            asked.append(lookup(name, kind))
            return asked[-1]

        self.patch(self.dns, "lookup", looking)
        for name in ("a.example", "_dmarc.a.example"):
            self.dns.hang(name, RRType.TXT)
        connection = self.connection()
        connection.begin("x@a.example", "anna")
        connection.protocol.dataReceived(message("x@a.example", "a.example"))
        self.assertEqual(len([each for each in asked if not each.called]), 2)
        connection.hangUp()
        self.assertEqual([each for each in asked if not each.called], [])
        self.assertEqual(self.kept().lost, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
