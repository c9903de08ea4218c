"""
Incoming mail, from the greeting of a client to mailboxes and reports.
"""

from __future__ import annotations

from dataclasses import replace
from gzip import decompress
from ipaddress import ip_network

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from moxtls.dates import DAY
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.evaluation import WRITE_INTERVAL
from moxtls.dmarc.parse import parseAggregateReport
from moxtls.dmarc.source import DMARCReportSource
from moxtls.dmarc.types import (
    Disposition,
    DMARCPolicy,
    OverrideKind,
    ReportRow,
    StoredEvaluation,
)
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.message.header import ClientInfo
from moxtls.reception.acceptor import Reception
from moxtls.reporting.types import NoReport, ReportDraft
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.smtp.server.state import ServerSettings
from tests.reception.receiving import HOSTNAME, ReceptionCase
from tests.reception.signed import HOST, OTHER_CLIENT, RELAY, message, signer

ANNA = "anna@our.example"
LIST = b"List-Id: <talk.relay.example>\r\n"


class MailCase(ReceptionCase):
    """
    A host, and clients that speak SMTP to it.
    """

    def say(
        self,
        text: bytes,
        *to: str,
        client: ClientInfo = HOST,
        sender: str = "x@a.example",
        inChunks: bool = False,
    ) -> list[int]:
        """
        Send one message on one connection.

        @return: The codes of the replies to RCPT, and to the message.
        """
        factory = SMTPServerFactory(
            self.clock, ListenerSettings(ServerSettings(HOSTNAME)), self.reception
        )
        address = IPv4Address("TCP", client.address, 4321)
        protocol = factory.buildProtocol(address)
        assert protocol is not None
        transport = StringTransport(peerAddress=address)
        protocol.makeConnection(transport)
        recipients = to or (ANNA,)
        commands = [f"EHLO {client.helo}", f"MAIL FROM:<{sender}>"]
        commands += [f"RCPT TO:<{each}>" for each in recipients]
        for command in commands:
            protocol.dataReceived(command.encode() + b"\r\n")
        if inChunks:
            half = len(text) // 2
            protocol.dataReceived(b"BDAT %d\r\n%b" % (half, text[:half]))
            rest = text[half:]
            protocol.dataReceived(b"BDAT %d LAST\r\n%b" % (len(rest), rest))
        else:
            protocol.dataReceived(b"DATA\r\n")
            protocol.dataReceived(text.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        protocol.dataReceived(b"QUIT\r\n")
        lines = transport.value().decode().split("\r\n")
        codes = [int(line[:3]) for line in lines if line[3:4] == " "]
        # Greeting, EHLO, MAIL, RCPT..., 354 or 250, the message, QUIT.
        return [*codes[3 : 3 + len(recipients)], codes[-2]]

    def evaluations(self) -> tuple[StoredEvaluation, ...]:
        """
        The evaluations of messages, once written.
        """
        self.clock.advance(WRITE_INTERVAL)
        return self.successResultOf(self.ledger.evaluations.evaluations())

    def rows(self) -> list[ReportRow]:
        """
        The rows to be reported.
        """
        stored = self.evaluations()
        return [each.evaluation.row for each in stored for _ in range(each.count)]

    def row(self) -> ReportRow:
        [row] = self.rows()
        return row

    def kinds(self) -> list[OverrideKind]:
        return [each.kind for each in self.row().reasons]

    def trusting(self, localPolicy: LocalPolicy) -> Reception:
        """
        The same host with another local policy.
        """
        self.localPolicy = localPolicy
        return self.made(self.checks())


class VerdictTests(MailCase):
    """
    Authentication and disposition of mail from several kinds of senders.
    """

    def test_aligned(self) -> None:
        """
        An author's own mail, signed and sent by his host, passes by DKIM and SPF (RFC
        9989 4.4), and is reported as such.
        """
        self.assertEqual(self.say(message("x@a.example", "a.example")), [250, 250])
        self.assertEqual(self.mailboxes(), {("anna",)})
        row = self.row()
        self.assertEqual(row.disposition, Disposition.PASS)
        self.assertTrue(row.dkimAligned and row.spfAligned)
        self.assertEqual(row.sourceIP, HOST.address)
        self.assertEqual(row.envelopeTo, "our.example")
        self.assertTrue(self.isKnown("anna", "a.example"))

    def test_underscores(self) -> None:
        """
        Underscores in a client's names neither refuse mail nor invalidate its
        signature; such names authenticate like others (RFC 9989 4.4).
        """
        domain = "my_host.a.example"
        key = signer(domain)
        self.dns.put(key.recordName, RRType.TXT, key.record)
        self.dns.put(domain, RRType.TXT, "v=spf1 ip4:192.0.2.1 -all")
        text = message(f"root@{domain}", domain)
        self.assertEqual(self.say(text, sender=f"a..b@{domain}"), [250, 250])
        row = self.row()
        self.assertEqual((row.headerFrom, row.envelopeFrom), (domain, domain))
        self.assertTrue(row.dkimAligned and row.spfAligned)

    def test_unaligned(self) -> None:
        """
        Authentication of another domain doesn't align with the author's (RFC 9989
        4.4); under C{p=none} the mail is accepted (RFC 9989 4.7).
        """
        text = message("x@n.example", "stranger.example")
        codes = self.say(text, client=OTHER_CLIENT, sender="x@stranger.example")
        self.assertEqual(codes, [250, 250])
        row = self.row()
        self.assertEqual(row.disposition, Disposition.NONE)
        self.assertFalse(row.dkimAligned or row.spfAligned)
        self.assertFalse(self.isKnown("anna", "n.example"))
        self.assertIn(b"dmarc=fail", self.stored("anna")[0])

    def test_spoofed(self) -> None:
        """
        Spoofed mail of a domain with C{p=reject} is refused and reported, and stored
        in the mailbox for rejected mail of accounts that have one.
        """
        text = message("x@a.example", "stranger.example")
        codes = self.say(text, client=OTHER_CLIENT, sender="x@stranger.example")
        self.assertEqual(codes, [250, 550])
        self.assertEqual(self.mailboxes(), {("anna", "Rejects")})
        self.assertEqual(self.row().disposition, Disposition.REJECT)

    def test_quarantine(self) -> None:
        """
        Spoofed mail of a domain with C{p=quarantine} goes to Junk.
        """
        text = message("x@q.example")
        codes = self.say(text, "bob@our.example", client=OTHER_CLIENT)
        self.assertEqual(codes, [250, 250])
        self.assertEqual(self.mailboxes(), {("bob", "Spam")})
        self.assertEqual(self.row().disposition, Disposition.QUARANTINE)

    def test_forwarded(self) -> None:
        """
        An author's signature survives forwarding, so that DMARC passes.
        """
        text = message("x@a.example", "a.example")
        codes = self.say(text, client=RELAY, sender="x@a.example")
        self.assertEqual(codes, [250, 250])
        row = self.row()
        self.assertEqual(row.disposition, Disposition.PASS)
        self.assertFalse(row.spfAligned)

    def test_trustedForwarder(self) -> None:
        """
        Mail of a trusted forwarder that breaks the signature is accepted (RFC 9990
        3.1.6).
        """
        network = ip_network("198.51.100.0/24")
        self.reception = self.trusting(LocalPolicy(forwarderNetworks=(network,)))
        self.assertEqual(self.say(message("x@a.example"), client=RELAY), [250, 250])
        self.assertEqual(self.mailboxes(), {("anna",)})
        self.assertEqual(self.kinds(), [OverrideKind.TRUSTED_FORWARDER])

    def test_list(self) -> None:
        """
        A mailing list breaks signatures and has its own envelope sender: its mail
        isn't refused for C{p=reject} alone (RFC 9989 7.4), and accepted if the list
        is known.
        """
        text = LIST + message("x@a.example", "relay.example")
        sender = "talk-bounces@relay.example"
        codes = self.say(text, client=RELAY, sender=sender)
        self.assertEqual(codes, [250, 250])
        self.assertEqual(self.mailboxes(), {("anna", "Junk")})
        self.assertEqual(self.kinds(), [OverrideKind.MAILING_LIST])
        lists = frozenset([Domain("relay.example")])
        self.reception = self.trusting(LocalPolicy(mailingLists=lists))
        self.assertEqual(self.say(text, client=RELAY, sender=sender), [250, 250])
        self.assertEqual(len(self.stored("anna")), 1)

    def test_enforcement(self) -> None:
        """
        A local policy can be to monitor only (RFC 9989 5.3.6), which is reported.
        """
        self.reception = self.trusting(LocalPolicy(enforcement=DMARCPolicy.NONE))
        self.assertEqual(
            self.say(message("x@a.example"), client=OTHER_CLIENT), [250, 250]
        )
        self.assertEqual(self.mailboxes(), {("anna",)})
        self.assertEqual(self.kinds(), [OverrideKind.LOCAL_POLICY])

    def test_temporary(self) -> None:
        """
        While DMARC has a temporary error mail is accepted, and not reported.
        """
        self.dns.fail("_dmarc.a.example", RRType.TXT)
        self.assertEqual(
            self.say(message("x@a.example"), client=OTHER_CLIENT), [250, 250]
        )
        self.assertIn(b"dmarc=temperror", self.stored("anna")[0])
        self.assertEqual(self.rows(), [])

    def test_severalFields(self) -> None:
        """
        A message with two From fields is refused: mail programs would show different
        authors (RFC 5322 3.6).
        """
        text = b"From: ceo@a.example\r\n" + message("x@stranger.example")
        codes = self.say(text, client=OTHER_CLIENT, sender="x@stranger.example")
        self.assertEqual(codes, [250, 550])
        self.assertEqual(self.mailboxes(), set())

    def test_ambiguousAuthor(self) -> None:
        """
        A From field in which mail programs find another author than the one that
        DMARC would evaluate is refused (RFC 5322 3.6.2).
        """
        for author in (
            "ceo@a.example (x <x@stranger.example>",
            'ceo@a.example " <x@stranger.example>',
            "ceo@a.example <x@stranger.example>",
            "x@stranger.example\r\n\x0b <ceo@a.example>",
        ):
            text = message(author, "stranger.example")
            codes = self.say(text, client=OTHER_CLIENT, sender="x@stranger.example")
            self.assertEqual(codes, [250, 550], author)
        self.assertEqual(self.mailboxes(), set())

    def test_signatureWithoutKey(self) -> None:
        """
        A signature without a key is no evidence that the author sent a message which
        came through a list (RFC 9989 7.4).
        """
        forged = (
            b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=none; h=from;"
            b" bh=YQ==; b=QUJD\r\n"
        )
        text = forged + message("ceo@a.example", "stranger.example")
        codes = self.say(text, client=OTHER_CLIENT, sender="x@stranger.example")
        self.assertEqual(codes, [250, 550])
        # One that a list or a forwarder broke.
        text = message("x@a.example", "a.example").replace(b"hello", b"[talk] hello")
        codes = self.say(text, client=RELAY, sender="x@relay.example")
        self.assertEqual(codes, [250, 250])
        self.assertEqual(self.mailboxes(), {("anna", "Rejects"), ("anna", "Junk")})

    def test_signaturesInFront(self) -> None:
        """
        The author's signature is verified however many others precede it (RFC 6376
        8.4, RFC 9989 4.4.1).
        """
        other = (
            b"DKIM-Signature: v=1; a=rsa-sha256; d=b%d.example; s=s; h=from;"
            b" bh=YQ==; b=QUJD\r\n"
        )
        padding = b"".join(other % number for number in range(20))
        text = padding + message("x@a.example", "a.example")
        codes = self.say(text, client=RELAY, sender="x@relay.example")
        self.assertEqual(codes, [250, 250])
        self.assertEqual(self.mailboxes(), {("anna",)})
        self.assertEqual(self.row().disposition, Disposition.PASS)

    def test_unreadableSignature(self) -> None:
        """
        A signature with an unreadable domain is a C{permerror}, not C{none} (RFC 8601
        2.7.1).
        """
        text = b"DKIM-Signature: eeee\r\n" + message("x@n.example")
        self.assertEqual(self.say(text, client=OTHER_CLIENT), [250, 250])
        [stored] = self.stored("anna")
        self.assertIn(b'dkim=permerror reason="d= is not a domain"', stored)
        self.assertNotIn(b"dkim=none", stored)

    def test_withoutPolicy(self) -> None:
        """
        Without C{p}, C{sp} is void too: subdomains have no policy (RFC 9989 4.10.1).
        """
        for record, result in (
            ("v=DMARC1; sp=reject", b"dmarc=permerror"),
            ("v=DMARC1; sp=reject; rua=mailto:r@o.example", b"dmarc=fail"),
        ):
            self.setUp()
            self.dns.put("_dmarc.o.example", RRType.TXT, record)
            self.dns.put("sub.o.example", RRType.A, "192.0.2.9")
            codes = self.say(message("x@sub.o.example"), client=OTHER_CLIENT)
            self.assertEqual(codes, [250, 250])
            self.assertEqual(self.mailboxes(), {("anna",)})
            self.assertIn(result, self.stored("anna")[0])

    def test_severalAuthors(self) -> None:
        """
        Authors of several domains don't evade the policy of any (RFC 9989 11.5).
        """
        text = message("ceo@a.example, x@stranger.example", "stranger.example")
        codes = self.say(text, client=OTHER_CLIENT, sender="x@stranger.example")
        self.assertEqual(codes, [250, 250])
        self.assertEqual(self.mailboxes(), {("anna", "Junk")})


class ReportTests(MailCase):
    """
    Aggregate reports on incoming mail.
    """

    def drafts(self, settings: DMARCReporting) -> list[ReportDraft | NoReport]:
        """
        The reports due a day later.
        """
        self.clock.advance(WRITE_INTERVAL + DAY)
        self.dns.put("our.example", RRType.A, "192.0.2.25")
        ledger = self.ledger
        source = DMARCReportSource(
            self.dns, ledger.evaluations, ledger.history, settings, "ab12"
        )
        periods = source.periods(0, self.clock.seconds(), None, 10)
        found = self.successResultOf(periods)
        due = [each for each in found if each.sendable]
        return [self.successResultOf(source.draft(each)) for each in due]

    def test_monitoring(self) -> None:
        """
        A domain with C{p=none}, all of whose mail fails, gets a report on it (RFC
        9989 5.1.5), unless reports are restricted to known domains.
        """
        self.say(message("x@n.example"), client=OTHER_CLIENT)
        settings = DMARCReporting(Domain("our.example"))
        [refusal] = self.drafts(replace(settings, strangers=False))
        assert isinstance(refusal, NoReport)
        self.assertIn("unknown domain", refusal.reason)
        [draft] = self.drafts(settings)
        assert isinstance(draft, ReportDraft)
        self.assertEqual(draft.destinations, ("mailto:reports@n.example",))

    def test_forged(self) -> None:
        """
        Mail that was refused or filed as junk causes no report to an unknown domain,
        but is in one that has another cause (RFC 9990 8).
        """
        self.say(message("x@a.example"), client=OTHER_CLIENT)
        self.say(message("x@q.example"), client=OTHER_CLIENT)
        settings = DMARCReporting(Domain("our.example"))
        self.assertEqual(self.drafts(settings), [])
        self.say(message("x@a.example"), client=OTHER_CLIENT)
        self.say(message("x@a.example", "a.example"))
        [draft] = self.drafts(settings)
        assert isinstance(draft, ReportDraft)
        report = parseAggregateReport(decompress(draft.document))
        self.assertEqual(report.messages, 3)


class DeliveryTests(MailCase):
    """
    Delivery to mailboxes.
    """

    def test_recipients(self) -> None:
        """
        Aliases, separators, catch-all addresses, the postmaster, and unknown
        recipients.
        """
        codes = self.say(
            message("x@a.example", "a.example"),
            "all@our.example",
            "lists+x@our.example",
            "whoever@own.example",
            "postmaster",
            "nobody@our.example",
            "x@elsewhere.example",
        )
        self.assertEqual(codes, [250, 250, 250, 250, 550, 550, 250])
        expected = {("anna",), ("bob",), ("anna", "Lists"), ("bob", "Rest")}
        self.assertEqual(self.mailboxes(), expected | {("", "Postmaster")})
        # One for each RCPT that was taken.
        self.assertEqual(len(self.rows()), 4)

    def test_chunks(self) -> None:
        """
        A message in chunks (RFC 3030) is stored unchanged, dots included.
        """
        text = message("x@a.example", "a.example", body=b".\r\n..\r\nx\r\n")
        for inChunks in (False, True):
            codes = self.say(text, inChunks=inChunks)
            self.assertEqual(codes, [250, 250])
            self.assertTrue(self.stored("anna")[-1].endswith(text))
        self.assertEqual([row.dkimAligned for row in self.rows()], [True, True])

    def test_quota(self) -> None:
        """
        A recipient over quota gets 4xx, and other recipients aren't affected.
        """
        self.mail["anna"].room = -1
        to = (ANNA, "bob@our.example")
        self.assertEqual(self.say(message("x@a.example"), *to), [452, 250, 250])
        self.assertEqual(self.mailboxes(), {("bob",)})

    def test_flood(self) -> None:
        """
        Repeated forgeries are one row, with a count; as long as the domain is
        unknown, they cause no report.
        """
        for _ in range(5):
            self.say(message("x@a.example"), client=OTHER_CLIENT)
        self.assertEqual(self.counts(), {True: 5})
        self.ledger.history.sent("anna", Domain("a.example"), 0)
        self.say(message("x@a.example"), client=OTHER_CLIENT)
        self.assertEqual(self.counts(), {True: 5, False: 1})

    def counts(self) -> dict[bool, int]:
        """
        The numbers of optional and other evaluations.
        """
        return {each.evaluation.optional: each.count for each in self.evaluations()}

    def test_stopping(self) -> None:
        """
        A listener that stops waits for a message that is being stored, and replies to
        its client.
        """
        self.dns.hang("_dmarc.a.example", RRType.TXT)
        factory = SMTPServerFactory(
            self.clock, ListenerSettings(ServerSettings(HOSTNAME)), self.reception
        )
        address = IPv4Address("TCP", HOST.address, 4321)
        protocol = factory.buildProtocol(address)
        assert protocol is not None
        transport = StringTransport(peerAddress=address)
        protocol.makeConnection(transport)
        commands = f"EHLO x\r\nMAIL FROM:<x@a.example>\r\nRCPT TO:<{ANNA}>\r\nDATA\r\n"
        protocol.dataReceived(commands.encode())
        protocol.dataReceived(message("x@a.example") + b".\r\n")
        stopped = factory.stop()
        self.assertNoResult(stopped)
        self.assertEqual(self.mailboxes(), set())
        self.dns.release("_dmarc.a.example", RRType.TXT)
        self.assertEqual(self.mailboxes(), {("anna",)})
        self.assertIn(b"\r\n250 2.0.0 ", transport.value())
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(stopped)
