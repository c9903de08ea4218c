"""
Tests for L{moxtls.reception.acceptor}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred, fail
from zope.interface.verify import verifyObject

from moxtls.authentication.check import MAX_WAIT
from moxtls.authentication.results import AuthResult
from moxtls.dmarc.evaluation import WRITE_INTERVAL
from moxtls.dmarc.types import DMARCPolicy, FinalDisposition
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.message.header import MAX_HEADER, MAX_HOPS
from moxtls.message.spooled import MAX_IN_MEMORY
from moxtls.reporting.types import ReportState
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery
from moxtls.smtp.server.state import TransactionState
from tests.ledger.values import file, report
from tests.reception.receiving import (
    HOSTNAME,
    MailboxFull,
    MailboxRefused,
    ReceptionCase,
)
from tests.reception.signed import HOST, OTHER_CLIENT, message

PLAIN = message("x@a.example")
DSN = b"""\
From: <>\r
Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r
\r
--b\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; mx.example.org\r
\r
Final-Recipient: rfc822; tlsrpt@example.org\r
Action: failed\r
Status: 5.1.1\r
--b--\r
"""


class RecipientTests(ReceptionCase):
    """
    Recipients for which mail is accepted.
    """

    def code(self, recipient: str, size: int = 0) -> int:
        return self.receive(PLAIN, recipient, size=size).rcpt[0]

    def test_interface(self) -> None:
        """
        The delivery and its messages provide their interfaces.
        """
        verifyObject(IMessageDelivery, self.reception)
        sink = self.reception.message(HOST, TransactionState("x@a.example"))
        verifyObject(IMessage, sink)
        sink.abort()

    def test_addresses(self) -> None:
        """
        Only local recipients are accepted: this is no relay (RFC 5321 3.6.2). The
        postmaster always exists (RFC 5321 4.5.1), and addresses may be in UTF-8 (RFC
        6531).
        """
        for recipient, code in (
            ("ANNA@our.example", 250),
            ("anna+x@our.example", 250),
            ("all@our.example", 250),
            ("anybody@own.example", 250),
            ("\u00fc@our.example", 250),
            ("postmaster", 250),
            ("Postmaster@own.example", 250),
            (f"postmaster@{HOSTNAME}", 250),
            (f"tlsreports@{HOSTNAME}", 250),
            ("nobody@our.example", 550),
            (f"anna@{HOSTNAME}", 550),
            ("x@elsewhere.example", 550),
            ("anna@[192.0.2.1]", 550),
        ):
            self.assertEqual(self.code(recipient), code, recipient)

    def test_words(self) -> None:
        """
        The reply tells the reason (RFC 3463 3.2, 3.8).
        """
        for recipient, status in (
            ("nobody@our.example", "5.1.1"),
            ("x@elsewhere.example", "5.7.1"),
        ):
            transaction = TransactionState("x@a.example")
            asked = self.reception.rcptTo(HOST, transaction, recipient)
            self.assertEqual(self.successResultOf(asked).enhanced, status)

    def test_room(self) -> None:
        """
        A recipient without room for the announced size (RFC 1870 6.1) is refused
        temporarily; an alias needs one member with room.
        """
        self.mail["anna"].room = 1000
        self.assertEqual(self.code("anna@our.example", 1000), 250)
        self.assertEqual(self.code("anna@our.example", 1001), 452)
        self.assertEqual(self.code("all@our.example", 1001), 250)
        self.mail["bob"].room = 0
        self.assertEqual(self.code("all@our.example", 1001), 452)


class StoredMessageTests(ReceptionCase):
    """
    The messages in mailboxes.
    """

    def test_trace(self) -> None:
        """
        A copy has the trace fields (RFC 5321 4.4), the results (RFC 8601, RFC 7208
        9.1), and the unchanged message.
        """
        text = message("x@a.example", "a.example")
        received = self.receive(text)
        self.assertEqual(received.reply.code, 250)
        [stored] = self.stored("anna")
        self.assertTrue(stored.endswith(text))
        trace = stored[: -len(text)].decode()
        lines = trace.replace("\r\n\t", " ").split("\r\n")
        names = [line.partition(":")[0] for line in lines]
        self.assertEqual(
            names,
            [
                "Return-Path",
                "Delivered-To",
                "Authentication-Results",
                "Received-SPF",
                "Received",
                "",
            ],
        )
        self.assertEqual(lines[0], "Return-Path: <x@a.example>")
        self.assertEqual(lines[1], "Delivered-To: anna@our.example")
        self.assertIn("dmarc=pass", lines[2])
        self.assertIn("spf=pass", lines[2])
        self.assertIn("for <anna@our.example>;", lines[4])

    def test_forged(self) -> None:
        """
        Results in the name of this host are removed, everything else is unchanged
        (RFC 8601 5).
        """
        forged = f"Authentication-Results: {HOSTNAME}; dmarc=pass\r\n".encode()
        other = b"Authentication-Results: a.example; none\r\n"
        text = message("x@a.example", "a.example")
        for body in (b"", b"x" * MAX_IN_MEMORY):
            whole = other + forged + text + body
            self.assertEqual(self.receive(whole).reply.code, 250)
            stored = self.stored("anna")[-1]
            self.assertTrue(stored.endswith(b"\r\n" + other + text + body))
            self.assertNotIn(forged, stored)

    def test_unchecked(self) -> None:
        """
        Without authentication nothing is looked up, observed or added; forged results
        are still removed.
        """
        self.reception = self.made(None)
        forged = f"Authentication-Results: {HOSTNAME}; dmarc=pass\r\n".encode()
        self.assertEqual(self.receive(forged + b"A: b\r\n\r\n").reply.code, 250)
        [stored] = self.stored("anna")
        self.assertNotIn(b"Authentication-Results", stored)
        self.assertTrue(stored.endswith(b"\r\nA: b\r\n\r\n"))
        self.assertEqual(self.dns.asked, [])
        self.assertEqual(self.listening.events, [])

    def test_user(self) -> None:
        """
        Mail of an authenticated user isn't checked.
        """
        client = replace(OTHER_CLIENT, user="anna")
        self.assertEqual(self.receive(PLAIN, client=client).reply.code, 250)
        self.assertEqual(self.mailboxes(), {("anna",)})
        self.assertEqual(self.dns.asked, [])

    def test_for(self) -> None:
        """
        A single recipient is named in full.
        """
        self.receive(PLAIN, "postmaster")
        [stored] = self.stored("", "Postmaster")
        self.assertIn(f"for <postmaster@{HOSTNAME}>;".encode(), stored)

    def test_everybody(self) -> None:
        """
        Each recipient has a copy of its own, each mailbox one, and no
        recipient learns of others (RFC 5321 7.6).
        """
        received = self.receive(
            PLAIN,
            "all@our.example",
            "anna@our.example",
            "lists@our.example",
            "x@own.example",
            "postmaster",
        )
        self.assertEqual(received.reply.code, 250)
        expected = {("anna",), ("bob",), ("anna", "Lists"), ("bob", "Rest")}
        self.assertEqual(self.mailboxes(), expected | {("", "Postmaster")})
        [stored] = self.stored("anna")
        self.assertNotIn(b"bob", stored)
        [stored] = self.stored("bob", "Rest")
        self.assertIn(b"Delivered-To: x@own.example\r\n", stored)

    def test_whole(self) -> None:
        """
        Messages without a body, or without a header, come to something too.
        """
        for text, code in (
            (b"From: x@a.example\r\n", 250),
            (b"From: x@a.example\r\n\r\n", 250),
            (b"\r\nhello\r\n", 550),
            (b"", 550),
        ):
            self.assertEqual(self.receive(text).reply.code, code, text)

    def test_pieces(self) -> None:
        """
        Chunk boundaries don't matter (RFC 3030).
        """
        self.receive(PLAIN)
        sink = self.reception.message(
            HOST, TransactionState("x@a.example", recipients=("anna@our.example",))
        )
        for place in range(len(PLAIN)):
            sink.write(PLAIN[place : place + 1])
        self.assertEqual(self.successResultOf(sink.finish()).code, 250)
        first, second = self.stored("anna")
        self.assertEqual(first.replace(b"UTF8SMTP", b"ESMTP"), second)


class MalformedTests(ReceptionCase):
    """
    Messages that are refused because of their header.
    """

    def refused(self, text: bytes, sender: str = "x@a.example") -> tuple[int, str]:
        reply = self.receive(text, sender=sender).reply
        return reply.code, reply.enhanced

    def test_from(self) -> None:
        """
        Exactly one readable From is needed (RFC 5322 3.6).
        """
        for header in (
            b"To: y@b.example\r\n",
            b"From: x@a.example\r\nFrom: x@b.example\r\n",
            b"From: x\r\n",
        ):
            found = self.refused(header + b"\r\nhello\r\n")
            self.assertEqual(found, (550, "5.6.0"), header)
        self.assertEqual(self.mailboxes(), set())
        dispositions = {each.finalDisposition for each in self.listening.events}
        self.assertEqual(dispositions, {FinalDisposition.REJECTED})

    def test_bounces(self) -> None:
        """
        DSNs with an unusable From field are accepted, as junk.
        """
        self.assertEqual(self.refused(b"From: x\r\n\r\n", "")[0], 250)
        self.assertEqual(self.mailboxes(), {("anna", "Junk")})

    def test_unled(self) -> None:
        """
        The message's header can't continue a field put in front of it (RFC 5322
        2.2.3).
        """
        for white in (b" ", b"\t"):
            found = self.refused(white + b"(authenticated)\r\n" + PLAIN)
            self.assertEqual(found, (550, "5.6.0"))

    def test_loop(self) -> None:
        """
        A message with too many Received fields is refused (RFC 5321 6.3).
        """
        hops = b"Received: from x by y; z\r\n"
        found = self.refused(hops * (MAX_HOPS + 1) + PLAIN)
        self.assertEqual(found, (554, "5.4.6"))
        self.assertEqual(self.refused(hops * MAX_HOPS + PLAIN)[0], 250)

    def test_long(self) -> None:
        """
        A header is held in memory, so there is an end to it.
        """
        field = b"A: " + b"x" * 900 + b"\r\n"
        text = field * (MAX_HEADER // len(field) + 1) + PLAIN
        self.assertEqual(self.refused(text), (552, "5.3.4"))


class DecidedTests(ReceptionCase):
    """
    The effects of DMARC verdicts on recipients.
    """

    def test_rejected(self) -> None:
        """
        A message is refused for all recipients, with the reason (RFC 9989 7.2);
        accounts that want it get it unread.
        """
        to = ("all@our.example", "postmaster")
        received = self.receive(PLAIN, *to, client=OTHER_CLIENT)
        self.assertEqual((received.reply.code, received.reply.enhanced), (550, "5.7.1"))
        self.assertIn("DMARC policy of a.example", received.reply.text)
        self.assertIn("SPF fail for a.example", received.reply.text)
        self.assertEqual(self.mailboxes(), {("anna", "Rejects")})
        [stored] = self.mail["anna"].messages["Rejects",]
        self.assertFalse(stored.seen)
        self.assertIn(b"dmarc=fail", stored.message)
        dispositions = [each.finalDisposition for each in self.listening.events]
        self.assertEqual(dispositions, [FinalDisposition.REJECTED_BY_DMARC] * 2)

    def test_notKept(self) -> None:
        """
        A failure to store rejected mail doesn't change the refusal.
        """
        self.mail["anna"].error = OSError("disk")
        self.assertEqual(self.receive(PLAIN, client=OTHER_CLIENT).reply.code, 550)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_quarantined(self) -> None:
        """
        Suspicious mail is where each account has it; that of the host too.
        """
        text = message("x@q.example")
        to = ("all@our.example", "lists@our.example", "postmaster")
        received = self.receive(text, *to, client=OTHER_CLIENT, sender="x@q.example")
        self.assertEqual(received.reply.code, 250)
        expected = {("anna", "Junk"), ("bob", "Spam"), ("", "Junk")}
        self.assertEqual(self.mailboxes(), expected)
        dispositions = {each.finalDisposition for each in self.listening.events}
        self.assertEqual(dispositions, {FinalDisposition.JUNK})

    def test_temporary(self) -> None:
        """
        A message with a temporary error is accepted (RFC 9989 5.3.6), as its sender
        can't help it.
        """
        self.dns.fail("_dmarc.a.example", RRType.TXT)
        self.assertEqual(self.receive(PLAIN, client=OTHER_CLIENT).reply.code, 250)
        [event] = self.listening.events
        self.assertEqual(event.verdict.status, AuthResult.TEMPERROR)
        self.assertEqual(event.finalDisposition, FinalDisposition.ACCEPTED)
        self.assertEqual(self.mailboxes(), {("anna",)})


class ObserverTests(ReceptionCase):
    """
    Observers are notified of verdicts.
    """

    def test_each(self) -> None:
        """
        There is one event for each RCPT, an alias or not, with the data for reports.
        """
        to = ("all@our.example", "bob@our.example", f"tlsreports@{HOSTNAME}")
        self.receive(message("x@a.example", "a.example"), *to)
        events = self.listening.events
        self.assertEqual([each.recipient for each in events], list(to))
        self.assertEqual([each.isForReports for each in events], [0, 0, 1])
        first = events[0]
        self.assertEqual(first.sender, "x@a.example")
        self.assertEqual(first.verdict.policy, DMARCPolicy.REJECT)
        self.clock.advance(WRITE_INTERVAL)
        stored = self.ledger.evaluations.evaluations()
        self.assertEqual(sum(each.count for each in self.successResultOf(stored)), 3)

    def test_becauseOfReports(self) -> None:
        """
        Mail to an address in a local domain's record (RFC 9989 4.7), and possible
        responses to reports, are evaluated, but never cause a report; other mail to
        the postmaster may.
        """
        self.dns.put(
            "_dmarc.our.example",
            RRType.TXT,
            "v=DMARC1; p=none; rua=mailto:lists@our.example",
        )
        text = message("x@a.example", "a.example")
        answer = text.replace(b"Subject:", b"Auto-Submitted: auto-replied\r\nSubject:")
        postmaster = f"postmaster@{HOSTNAME}"
        for each, to, sender, isForReports in (
            (text, "lists@our.example", "x@a.example", True),
            (text, "lists+1@our.example", "x@a.example", True),
            (text, f"postmaster+abc@{HOSTNAME}", "x@a.example", True),
            (text, postmaster, "x@a.example", False),
            (answer, postmaster, "x@a.example", True),
            (text, postmaster, "", True),
            (answer, "anna@our.example", "x@a.example", False),
            (text, "anna@our.example", "", False),
        ):
            self.receive(each, to, sender=sender)
            event = self.listening.events[-1]
            self.assertIs(event.isForReports, isForReports, (to, sender))
        self.clock.advance(WRITE_INTERVAL)
        stored = self.successResultOf(self.ledger.evaluations.evaluations())
        optional = sum(each.count for each in stored if each.evaluation.optional)
        self.assertEqual((optional, sum(each.count for each in stored)), (5, 8))

    def test_answersWithoutAWord(self) -> None:
        """
        Answers to a report never cause a report, even without the fields of RFC 3834:
        otherwise a program that answers each report would get another one.
        """
        text = message("x@a.example", "a.example")
        postmaster = f"postmaster@{HOSTNAME}"
        for field in (
            b"In-Reply-To: <1@mail.example.org>",
            b"References: <0@a.example>\r\n <1@mail.example.org>",
            b"Precedence: auto_reply",
            b"X-Autoreply: yes",
            b"X-Auto-Response-Suppress: All",
            b"Subject: [#1] Re: Report Domain: a.example\r\n Submitter: our.example",
            b"Subject: Re: Report\r\n Domain: a.example Submitter: our.example",
            b"Subject: Re: DMARC failure report for a.example",
        ):
            for to, isForReports in ((postmaster, True), ("anna@our.example", False)):
                self.receive(field + b"\r\n" + text, to)
                event = self.listening.events[-1]
                self.assertIs(event.isForReports, isForReports, (field, to))

    def test_forwardedReports(self) -> None:
        """
        A report that passes DMARC never causes a report, whatever its recipient: if
        reports are forwarded here by others, no configuration and no local record has
        that address. A report that fails may be a forgery, to be reported to its
        domain.
        """
        text = message("x@a.example")
        for field in (
            b"Subject: Report Domain: b.example\r\n Submitter: a.example Report-ID: 1",
            b"Subject: Fwd: Report domain: b.example Submitter: a.example Report-ID: 1",
            b"TLS-Report-Domain: b.example",
            b'Content-Type: multipart/report; report-type="feedback-report"',
        ):
            for client, isForReports in ((HOST, True), (OTHER_CLIENT, False)):
                self.receive(field + b"\r\n" + text, "anna@our.example", client=client)
                event = self.listening.events[-1]
                self.assertIs(event.isForReports, isForReports, (field, client))
        for field in (b"Subject: Report Domain", b"Content-Type: multipart/report"):
            self.receive(field + b"\r\n" + text, "anna@our.example")
            self.assertFalse(self.listening.events[-1].isForReports, field)

    def test_notHeldUp(self) -> None:
        """
        Mail doesn't wait for observers, and isn't affected by their failures.
        """
        self.listening.answer = Deferred()
        self.assertEqual(self.receive(PLAIN).reply.code, 250)
        settled = Deferred.fromCoroutine(self.dispatcher.finished())
        self.assertNoResult(settled)
        self.listening.answer.errback(OSError("observer"))
        self.successResultOf(settled)
        self.listening.answer = fail(OSError("observer"))
        self.assertEqual(self.receive(PLAIN).reply.code, 250)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_history(self) -> None:
        """
        Authenticated mail that isn't junk is recorded in the history of its
        recipient.
        """
        self.receive(message("x@a.example"), "all@our.example", client=OTHER_CLIENT)
        self.assertFalse(self.isKnown("anna", "a.example"))
        self.receive(message("x@a.example"), "all@our.example", "postmaster")
        for account in ("anna", "bob", ""):
            self.assertTrue(self.isKnown(account, "a.example"))
        self.receive(message("x@none.example"), client=OTHER_CLIENT)
        self.assertFalse(self.isKnown("anna", "none.example"))

    def test_known(self) -> None:
        """
        The sender history is consulted where DMARC was enforced; one member of an
        alias suffices.
        """

        def known(to: str) -> bool:
            self.receive(PLAIN, to, client=OTHER_CLIENT)
            return self.listening.events[-1].isKnown

        self.assertFalse(known("all@our.example"))
        self.ledger.history.sent("bob", Domain("mail.a.example"), 0)
        self.assertTrue(known("all@our.example"))
        self.assertFalse(known("anna@our.example"))

    def test_failures(self) -> None:
        """
        With failure reports (RFC 9991), it is also consulted before one is sent.
        """
        record = "v=DMARC1; p=none; ruf=mailto:failures@n.example"
        self.dns.put("_dmarc.n.example", RRType.TXT, record)
        text = message("x@n.example")
        for reports in (False, True):
            self.dispatcher.reportsFailures = reports
            self.receive(text, client=OTHER_CLIENT)
            event = self.listening.events[-1]
            self.assertEqual(event.isKnown, not reports)
            self.assertTrue(text.startswith(event.header))


class FailureTests(ReceptionCase):
    """
    Mailboxes that don't take it.
    """

    BOTH = ("anna@our.example", "bob@our.example")

    def code(self, *errors: Exception | None) -> tuple[int, str]:
        """
        The reply code with these results for anna and bob.
        """
        for account, error in zip(("anna", "bob"), errors, strict=False):
            self.mail[account].error = error
        reply = self.receive(PLAIN, *self.BOTH[: len(errors)]).reply
        self.flushLoggedErrors(OSError)
        return reply.code, reply.enhanced

    def test_nobody(self) -> None:
        """
        If no copy was stored, the reply is the worst result (RFC 5321 4.2.5).
        """
        later, full, no = OSError("x"), MailboxFull(), MailboxRefused("no")
        for errors, expected in (
            ((later,), (451, "4.3.0")),
            ((full,), (552, "5.2.2")),
            ((no,), (550, "5.7.1")),
            ((full, later), (451, "4.3.0")),
            ((no, full), (552, "5.2.2")),
            ((no, no), (550, "5.7.1")),
        ):
            self.assertEqual(self.code(*errors), expected, errors)
        self.assertEqual(self.queue.envelopes, [])

    def test_some(self) -> None:
        """
        If a copy was stored, the others are queued, so that nothing is delivered
        twice and failures are bounced.
        """
        for error in (OSError("x"), MailboxFull(), MailboxRefused("no")):
            self.assertEqual(self.code(None, error)[0], 250)
            envelope = self.queue.envelopes[-1]
            self.assertEqual(envelope.sender, "x@a.example")
            self.assertEqual(envelope.recipients, ("bob@our.example",))
        body = self.queue.bodies["q1"]
        self.assertTrue(body.startswith(b"Authentication-Results: "))
        self.assertTrue(body.endswith(PLAIN))

    def test_queueBroken(self) -> None:
        """
        If the queue doesn't take it either, the client tries again.
        """
        self.queue.submit = (  # type: ignore[method-assign]
            lambda envelope, body: fail(OSError("spool"))
        )
        self.assertEqual(self.code(None, OSError("x")), (451, "4.3.0"))

    def test_junk(self) -> None:
        """
        Junk is neither bounced nor queued, as the queue would deliver it to the
        inbox.
        """
        text = message("x@q.example")
        for error, code in ((OSError("x"), 451), (MailboxFull(), 250)):
            self.mail["bob"].error = error
            received = self.receive(
                text, *self.BOTH, client=OTHER_CLIENT, sender="x@q.example"
            )
            self.assertEqual(received.reply.code, code)
        self.assertEqual(self.queue.envelopes, [])
        self.flushLoggedErrors(OSError)


class TimeTests(ReceptionCase):
    """
    Lookups and observers that a reply waits for.
    """

    def test_gone(self) -> None:
        """
        When the client disconnects, lookups are cancelled and the message is
        discarded.
        """
        self.dns.hang("_dmarc.a.example", RRType.TXT)
        sink = self.reception.message(HOST, TransactionState("x@a.example"))
        sink.write(PLAIN)
        sink.abort()
        self.dns.release("_dmarc.a.example", RRType.TXT)
        self.assertEqual(self.mailboxes(), set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wait(self) -> None:
        """
        The reply comes once all lookups are done, or have timed out: then it is
        temporary (RFC 9989 7.2), and nothing is stored.
        """
        self.dns.hang("_dmarc.a.example", RRType.TXT)
        transaction = TransactionState("x@a.example", recipients=("anna@our.example",))
        sink = self.reception.message(OTHER_CLIENT, transaction)
        sink.write(PLAIN)
        waiting = sink.finish()
        self.assertNoResult(waiting)
        self.clock.advance(MAX_WAIT)
        self.assertEqual(self.successResultOf(waiting).code, 451)
        self.assertEqual(self.mailboxes(), set())


class NoticeTests(ReceptionCase):
    """
    DSNs about our reports.
    """

    TOKEN = f"postmaster+0a1b@{HOSTNAME}"

    def setUp(self) -> None:
        super().setUp()
        self.report = replace(report(), sender=self.TOKEN)
        file(self.ledger, self.report)

    def test_failed(self) -> None:
        """
        A DSN about a report is stored in a quiet mailbox, and the report's
        destination suppressed (RFC 8460 5.3).
        """
        received = self.receive(DSN, self.TOKEN, sender="", client=OTHER_CLIENT)
        self.assertEqual(received.reply.code, 250)
        self.assertEqual(self.mailboxes(), {("", "Postmaster", "tlsrpt")})
        [stored] = self.mail[""].messages["Postmaster", "tlsrpt"]
        self.assertTrue(stored.seen)
        found = self.ledger.archive.find(str(self.report.key))
        known = self.successResultOf(found)
        self.assertIs(known and known.state, ReportState.FAILED)
        entries = self.successResultOf(self.ledger.suppressions.entries())
        self.assertEqual(len(entries), 1)

    def test_notStored(self) -> None:
        """
        If it can't be kept it comes again.
        """
        self.mail[""].error = OSError("disk")
        received = self.receive(DSN, self.TOKEN, sender="", client=OTHER_CLIENT)
        self.assertEqual(received.reply.code, 451)
        self.flushLoggedErrors(OSError)

    def test_others(self) -> None:
        """
        Anything else for that address is for the postmaster.
        """
        self.receive(PLAIN, self.TOKEN)
        self.receive(DSN, f"postmaster@{HOSTNAME}", sender="")
        self.assertEqual(self.mailboxes(), {("", "Postmaster"), ("", "Junk")})
