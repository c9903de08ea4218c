"""
Hosts that send each other reports of both kinds, which are answered by programs and
with DSNs.
"""

from __future__ import annotations

from collections import Counter
from datetime import date
from email import message_from_bytes
from pathlib import Path

from twisted.internet.defer import Deferred, execute, succeed
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.check import MessageAuthenticator
from moxtls.authentication.dkim.sign import Signer, loadKey
from moxtls.dates import DAY, HOUR
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.evaluation import EvaluationRecorder
from moxtls.dmarc.source import DMARCReportSource
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IVerdictObserver
from moxtls.queue.types import Envelope, ReportKind, isResponse
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.handover import QueueSubmitter
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from tests.network import OUR_IP
from tests.queue.killing import quickDirectory
from tests.reporting.support import ED25519_PEM
from tests.reporting.test_destinations import DSN
from tests.scenarios.support_hosts import CONFIG, Internet, MailHost

FIRST = date(2026, 11, 24)
A = Domain("a.example")
B = Domain("b.example")
MAIL = """\
From: user@{domain}\r
To: user@{to}\r
Subject: hello\r
Date: Tue, 24 Nov 2026 06:00:00 +0000\r
\r
hello\r
"""
#: An automatic answer.
ANSWER = """\
From: {account}@{domain}\r
To: {to}\r
Subject: Auto: thank you\r
Auto-Submitted: auto-replied\r
Date: Tue, 24 Nov 2026 06:00:00 +0000\r
\r
We have got your message.\r
"""


class AnsweringHost(MailHost):
    """
    A host that requests and sends reports of both kinds, and answers every message to
    its addresses.

    @ivar how: C{"null"}: to the envelope sender, with the null reverse-path (RFC 3834
        4). C{"author"}: to the author, with a reverse-path of its own. C{"bounce"}:
        with a DSN.
    @ivar answers: The number of answers.
    @ivar causes: The number of messages to each account.
    """

    config = (
        CONFIG
        + """
[Accounts.dmarc.Destinations]
"dmarc@{domain}" = {{}}
"""
    )

    def __init__(
        self, internet: Internet, domain: Domain, ip: str, folder: Path, how: str
    ) -> None:
        self.how = how
        self.answers = 0
        self.causes: Counter[str] = Counter()
        super().__init__(internet, domain, ip, folder)
        resolver = internet.resolver
        signer = Signer(domain, "e", loadKey(ED25519_PEM))
        spf = f"v=spf1 ip4:{OUR_IP} -all"
        for name, text in {
            str(domain): spf,
            str(self.hostname): spf,
            f"_dmarc.{domain}": f"v=DMARC1; p=reject; rua=mailto:dmarc@{domain}",
            signer.recordName: signer.record,
        }.items():
            resolver.put(name, RRType.TXT, text)
        clock, ledger = internet.clock, self.ledger
        self.dmarc = ReportService(
            clock,
            ReportPipeline(
                DMARCReportSource(
                    resolver,
                    ledger.evaluations,
                    ledger.history,
                    DMARCReporting(domain),
                    ledger.identifier,
                ),
                ledger.archive,
                ledger.leases,
                ReportComposer(
                    clock,
                    ledger.suppressions,
                    ReportIdentity(self.hostname, (signer,)),
                    self._newID,
                ),
                QueueSubmitter(self.queue),
            ),
            lambda: 0.5,
            ReportOptions(str(self.hostname), kept=365 * DAY),
        )
        self.dmarc.startService()

    def stop(self) -> list[Deferred[None]]:
        return [self.dmarc.stopService(), *super().stop()]

    def observers(self) -> tuple[IVerdictObserver, ...]:
        return (EvaluationRecorder(self._internet.clock, self.ledger.evaluations),)

    def checks(self) -> MessageAuthenticator:
        return MessageAuthenticator(
            self._internet.clock,
            self._internet.resolver,
            LocalPolicy(),
            self.hostname.ascii,
            lambda call: execute(call),
            lambda: 0,
        )

    def write(self, to: Domain) -> None:
        """
        Send a message from one user to another.
        """
        text = MAIL.format(domain=self.domain, to=to)
        envelope = Envelope(f"user@{self.domain}", (f"user@{to}",))
        self.queue.submit(envelope, [text.encode()])

    def arrived(self, account: str, message: bytes) -> Deferred[None]:
        self.causes[account] += 1
        sender = message.partition(b">")[0].rpartition(b"<")[2].decode()
        header = message.partition(b"\r\n\r\n")[0]
        # RFC 3834 2: programs don't answer answers.
        if not sender or b"auto-replied" in header:
            return succeed(None)
        self.answers += 1
        if self.how == "bounce":
            body = b"From: postmaster@%s\r\n" % str(self.domain).encode()
            body += DSN % (b"failed", b"5.1.1")
            envelope = Envelope("", (sender,), response=isResponse(body))
        else:
            to, reversePath = sender, ""
            if self.how == "author":
                to = str(message_from_bytes(message)["From"])
                reversePath = f"{account}@{self.domain}"
            answer = ANSWER.format(account=account, domain=self.domain, to=to)
            body = answer.encode()
            envelope = Envelope(reversePath, (to,), response=isResponse(body))
        return self.queue.submit(envelope, [body]).addCallback(lambda _: None)


class ResponseTests(SynchronousTestCase):
    """
    Mail that exists because of reports never causes a report.
    """

    def start(self, how: str) -> tuple[AnsweringHost, AnsweringHost]:
        self.internet = Internet(FIRST)
        a, b = (
            AnsweringHost(self.internet, domain, ip, quickDirectory(self), how)
            for domain, ip in ((A, "198.51.100.1"), (B, "198.51.100.2"))
        )
        self.addCleanup(self.stop, a, b)
        self.internet.advanceTime(6 * HOUR)
        return a, b

    def stop(self, *hosts: AnsweringHost) -> None:
        for host in hosts:
            for each in host.stop():
                self.internet.network.flush()
                self.successResultOf(each)

    def week(self, how: str) -> None:
        """
        Two users write to each other once, and a week passes. Each of the two
        messages causes one report of each kind, each of these is answered, and
        nothing follows.
        """
        a, b = self.start(how)
        a.write(B)
        b.write(A)
        for _ in range(7):
            self.internet.advanceTime(DAY)
        for host in (a, b):
            kinds = Counter(each.key.kind for each in host.sent())
            self.assertEqual(kinds, {ReportKind.TLS: 1, ReportKind.DMARC: 1})
            self.assertEqual(host.causes["dmarc"], 1)
            self.assertEqual(host.causes["tls"], 1)
            self.assertEqual(host.answers, 3)
            left = self.successResultOf(host.ledger.evaluations.evaluations())
            self.assertEqual(left, ())
            self.assertEqual(self.successResultOf(host.queue.messages()), ())

    def test_nullReversePath(self) -> None:
        """
        Answers of programs to the envelope sender (RFC 3834 4).
        """
        self.week("null")

    def test_toAuthor(self) -> None:
        """
        Answers to the author, which look like any mail except for Auto-Submitted.
        """
        self.week("author")

    def test_bounces(self) -> None:
        """
        DSNs about all mail.
        """
        self.week("bounce")
