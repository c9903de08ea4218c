"""
Tests for L{moxtls.app.service}.
"""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from smtplib import SMTP
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs

from moxtls.app import mail
from moxtls.app.ports import BoundPort
from moxtls.app.service import Server, bindPorts, openStores
from moxtls.config import InvalidConfig
from moxtls.dates import DAY
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.ledger.ledger import Ledger
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.reporting.types import ReportPeriod, ReportState
from moxtls.smtp import authenticator
from moxtls.smtp.logins import MAX_FAILURES
from moxtls.smtp.passwords import hashPassword
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import ListenerSettings
from moxtls.workers.process import WorkerLost
from tests import MAX_WAIT
from tests.configs import HOSTNAME, writeConfig
from tests.dns.server import Deviation
from tests.ledger.values import MONDAY, ORG, report
from tests.network import AcceptingDelivery
from tests.servers import (
    RECEPTION,
    SUBMISSION,
    ServerCase,
    children,
    closedPort,
    reactor,
)
from tests.smtp.pem import writeCertificate
from tests.smtp.scramclient import ScramClient

MESSAGE = b"From: x@a.example\r\nSubject: hello\r\n\r\nhello\r\n"
DSN = b"""\
From: MAILER-DAEMON@mx.example.org\r
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
Diagnostic-Code: smtp; 550 no such user\r
--b--\r
"""


ACCOUNT = """
[Accounts.anna.Destinations]
"anna@example.com" = {}
"""


class SubmissionTests(ServerCase):
    """
    Tests for listeners that take mail for the queue.
    """

    BOTH = f'[Domains."example.com"]\n{SUBMISSION}{RECEPTION}'

    async def test_loopback(self) -> None:
        """
        Clients on this host need not log in; accepted messages are in the queue.
        """
        self.dns.zone.put("a.example", RRType.A, "127.0.0.1")
        server = self.started(SUBMISSION)

        def send(client: SMTP) -> dict[str, tuple[int, bytes]]:
            return client.sendmail("us@our.example", ["x@a.example"], MESSAGE)

        refused = await self.talk(server.ports["submission"], send)
        self.assertEqual(refused, {})
        [message] = await server.queue.messages()
        self.assertEqual(message.envelope.sender, "us@our.example")
        body = message.path.read_bytes()
        self.assertTrue(body.endswith(MESSAGE))
        self.assertIn(f"by {HOSTNAME} with".encode(), body)

    async def test_bareAddresses(self) -> None:
        """
        RFC 6409 8: a submission listener takes addresses without angle brackets,
        with parameters behind them; RFC 5321 4.1.2: other listeners don't.
        """
        server = self.started(self.BOTH)

        def say(client: SMTP) -> list[int]:
            client.ehlo()
            lines = (
                "MAIL FROM: scan@us.test SIZE=10",
                "RCPT TO:x@a.example",
                "RSET",
                "MAIL FROM:",
                "MAIL FROM:<scan@us.test> x@a.example",
                "MAIL FROM:scan@us.test>",
            )
            return [client.docmd(each)[0] for each in lines]

        codes = await self.talk(server.ports["submission"], say)
        self.assertEqual(codes, [250, 250, 250, 501, 555, 501])
        [code, *_] = await self.talk(server.ports["reception"], say)
        self.assertEqual(code, 501)

    async def test_delivered(self) -> None:
        """
        If the DNS server doesn't validate, a warning is logged, DANE is off, and mail
        is delivered.
        """
        self.validates(False)
        self.dns.zone.put("a.example", RRType.MX, "1 mx.a.example.")
        self.dns.zone.put("mx.a.example", RRType.A, "127.0.0.1")
        # Nobody's certificate: it would keep mail away if it were believed.
        self.dns.zone.put("_25._tcp.mx.a.example", RRType.TLSA, "3 1 1 " + "00" * 32)
        postbox = AcceptingDelivery()
        port = self.mailHost(postbox)
        with capturedLogs() as logs:
            server = self.started(SUBMISSION, port)

            def send(client: SMTP) -> None:
                client.sendmail("us@our.example", ["x@a.example"], MESSAGE)

            await self.talk(server.ports["submission"], send)
            await self.until(lambda: succeed(bool(postbox.received)))
        loud = [each for each in logs if each["log_level"] is LogLevel.critical]
        self.assertEqual(len(loud), 1)
        self.assertIn("DANE IS OFF", loud[0]["diagnosis"])
        self.assertFalse(server.base.resolver.validating)
        [(incoming, body)] = postbox.received
        self.assertEqual(incoming.recipients, ("x@a.example",))
        self.assertTrue(body.endswith(MESSAGE))

        async def recorded() -> bool:
            return bool(await server.ledger.outcomes.results())

        await self.until(lambda: Deferred.fromCoroutine(recorded()))

    async def test_administrative(self) -> None:
        """
        Mail from local programs to root, and DSNs that can't be delivered, go to the
        postmaster's mailbox; accepted mail is never lost.
        """
        server = self.started(SUBMISSION)

        def send(client: SMTP) -> None:
            client.sendmail(f"root@{HOSTNAME}", [f"root@{HOSTNAME}"], MESSAGE)
            client.sendmail("", [f"nobody@{HOSTNAME}"], MESSAGE)
            client.sendmail(f"cron@{HOSTNAME}", [f"no@{HOSTNAME}"], MESSAGE)

        await self.talk(server.ports["submission"], send)
        await self.until(lambda: succeed(len(self.delivered("Postmaster")) == 3))
        texts = sorted(
            (each.read_bytes() for each in self.delivered("Postmaster")), key=len
        )
        for text in texts[:2]:
            self.assertIn(b"hello\r\n\r\nhello\r\n", text)
        # The third is about the DSN to cron, which has its recipient in it.
        self.assertIn(f"rfc822; cron@{HOSTNAME}".encode(), texts[2])
        self.assertIn(f"rfc822; no@{HOSTNAME}".encode(), texts[2])

    async def test_loop(self) -> None:
        """
        Mail for a domain that isn't local, but whose mail host is this one, fails at
        once without a connection (RFC 5321 5.1).
        """
        self.dns.zone.put("a.example", RRType.MX, "1 mx.a.example.", "2 c.example.")
        self.dns.zone.put("mx.a.example", RRType.A, "127.0.0.1")
        self.dns.zone.put("b.example", RRType.MX, f"1 {HOSTNAME}.")
        self.dns.zone.put("c.example", RRType.MX, "1 mx.c.example.")
        self.dns.zone.put("mx.c.example", RRType.AAAA, "::1")
        postbox = AcceptingDelivery()
        port = self.mailHost(postbox)
        server = self.started(SUBMISSION, port, allowOwnHosts=False)

        def send(client: SMTP) -> None:
            for domain in ("a.example", "b.example", "c.example", "[127.0.0.1]"):
                client.sendmail(f"root@{HOSTNAME}", [f"x@{domain}"], MESSAGE)

        await self.talk(server.ports["submission"], send)
        await self.until(lambda: succeed(len(self.delivered("Postmaster")) == 4))
        for each in self.delivered("Postmaster"):
            self.assertIn("Status: 5.4.6", each.read_text())
        self.assertEqual(postbox.received, [])


class AuthenticationTests(ServerCase):
    """
    Tests for listeners that want clients to log in.
    """

    def listening(self, tls: str) -> int:
        writeCertificate(self.folder, HOSTNAME)
        self.running = self.started(
            f'[Users]\nalice = "{hashPassword("sesame", bytes(32))}"\n'
            f'[Listeners.a]\nPort = 0\nAddress = "0.0.0.0"\nAuthentication = true\n'
            f'TLS = "{tls}"\nCertificateFile = "cert.pem"\nKeyFile = "key.pem"\n'
        )
        return self.running.ports["a"]

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "cert.pem"))

    def secure(self, client: SMTP) -> None:
        client._host = HOSTNAME  # type: ignore[attr-defined]  # for SNI
        client.starttls(context=self.context())
        client.ehlo()

    async def test_notBefore(self) -> None:
        """
        Before TLS no mechanism is offered, none works, and no mail is taken
        (RFC 4954 4, RFC 6409 4.3).
        """

        def early(client: SMTP) -> list[int]:
            client.ehlo()
            self.assertNotIn("auth", client.esmtp_features)
            self.assertIn("starttls", client.esmtp_features)
            plain = client.docmd("AUTH", "PLAIN AGFsaWNlAHNlc2FtZQ==")
            return [plain[0], client.mail("a@b.example")[0]]

        codes = await self.talk(self.listening("starttls"), early)
        self.assertEqual(codes, [538, 530])

    async def test_cleartext(self) -> None:
        """
        PLAIN and LOGIN work behind STARTTLS, with the right password only.
        """
        port = self.listening("starttls")
        for mechanism in ("auth_plain", "auth_login"):

            def login(client: SMTP, mechanism: str = mechanism) -> list[int]:
                self.secure(client)
                codes = [client.mail("a@b.example")[0]]
                client.user, client.password = "alice", "wrong"
                name = mechanism.removeprefix("auth_").upper()
                for client.password in ("wrong", "sesame"):
                    try:
                        codes.append(client.auth(name, getattr(client, mechanism))[0])
                    except smtplib.SMTPAuthenticationError as error:
                        codes.append(error.smtp_code)
                return [*codes, client.mail("a@b.example")[0]]

            codes = await self.talk(port, login)
            self.assertEqual(codes, [530, 535, 235, 250], mechanism)

    async def test_scram(self) -> None:
        """
        SCRAM-SHA-256 (RFC 7677), which authenticates the server too, is accepted; the
        message that follows is queued.
        """

        def login(client: SMTP) -> tuple[int, bool]:
            self.secure(client)
            self.assertIn("SCRAM-SHA-256", client.esmtp_features["auth"])
            scram = ScramClient("alice", "sesame", "nonce")
            first = b64encode(scram.initial()).decode()
            code, said = client.docmd("AUTH", f"SCRAM-SHA-256 {first}")
            while code == 334:
                answer = scram.respond(b64decode(said))
                code, said = client.docmd(b64encode(answer or b"").decode())
            client.sendmail("alice@our.example", ["x@a.example"], MESSAGE)
            return code, scram.satisfied

        self.dns.zone.put("a.example", RRType.A, "127.0.0.1")
        found = await self.talk(self.listening("starttls"), login)
        self.assertEqual(found, (235, True))
        [message] = await self.running.queue.messages()
        self.assertIn(b" with ESMTPSA (TLS", message.path.read_bytes())

    async def test_immediate(self) -> None:
        """
        With immediate TLS (RFC 8314 3.3) there is no STARTTLS, and AUTH is available
        at once.
        """
        port = self.listening("immediate")

        def hold() -> set[str]:
            with socket.create_connection(("127.0.0.1", port), 15) as plain:
                secured = self.context().wrap_socket(plain, server_hostname=HOSTNAME)
                client = SMTP(local_hostname="client.example")
                client.sock = secured
                client.getreply()
                client.ehlo()
                features = set(client.esmtp_features)
                client.quit()
                return features

        features = await deferToThread(hold)
        self.assertIn("auth", features)
        self.assertNotIn("starttls", features)

    async def test_handshakes(self) -> None:
        """
        Handshakes that clients abort, and the certificate in use, are in the ledger
        after the stop.
        """
        port = self.listening("starttls")

        def reject(client: SMTP) -> None:
            # It doesn't know the authority.
            with self.assertRaises(ssl.SSLCertVerificationError):
                client.starttls(context=ssl.create_default_context())
            client.close()

        await self.talk(port, reject)
        await self.running.stopService()
        ledger = Ledger(None, f"sqlite:///{self.folder}/data/ledger.sqlite")
        history, now = ledger.listenerHistory, reactor.seconds()
        [seen] = await history.certificates(0, now + DAY)
        [failed] = await history.failures(0, now + DAY)
        await ledger.stop()
        self.assertEqual((seen.listener, seen.names), (f"{HOSTNAME}/a", (HOSTNAME,)))
        self.assertEqual((failed.listener, failed.count), (f"{HOSTNAME}/a", 1))
        reason = "tls-remote-alert-48-unknown-certificate-authority"
        self.assertEqual(failed.reason, reason)

    async def test_shared(self) -> None:
        """
        All listeners share counters of failed logins and at most two threads for
        passwords, which end with the server. The networks of successful logins
        survive a restart.
        """
        writeCertificate(self.folder, HOSTNAME)
        tables = "".join(
            f'[Listeners.{name}]\nPort = 0\nAddress = "0.0.0.0"\n'
            'Authentication = true\nTLS = "starttls"\n'
            'CertificateFile = "cert.pem"\nKeyFile = "key.pem"\n'
            for name in "ab"
        )
        users = "".join(
            f'{name} = "{hashPassword("sesame", bytes(32))}"\n'
            for name in ("alice", "bob")
        )
        server = self.started(f"[Users]\n{users}{tables}")

        def login(user: str, password: str) -> Callable[[SMTP], int]:
            def login(client: SMTP) -> int:
                self.secure(client)
                response = b64encode(f"\0{user}\0{password}".encode()).decode()
                return client.docmd("AUTH", f"PLAIN {response}")[0]

            return login

        async def codes(user: str, *passwords: str) -> list[int]:
            ports = list(server.ports.values())
            return [
                await self.talk(ports[n % 2], login(user, password))
                for n, password in enumerate(passwords)
            ]

        self.assertEqual(await codes("alice", "sesame"), [235])
        names = [each.name for each in threading.enumerate()]
        self.assertIn(sum("passwords" in name for name in names), (1, 2))
        await server.stopService()
        names = [each.name for each in threading.enumerate()]
        self.assertEqual([name for name in names if "passwords" in name], [])
        server.privilegedStartService()
        server.startService()
        self.patch(authenticator, "deferLater", lambda clock, delay: succeed(None))
        guesses = ["wrong"] * MAX_FAILURES
        self.assertEqual(
            await codes("alice", *guesses, "sesame"), [535] * MAX_FAILURES + [454]
        )
        self.assertEqual(await codes("bob", "sesame"), [235])
        await server.stopService()


class ReceptionTests(ServerCase):
    """
    Tests for listeners that take mail from outside.
    """

    CONFIG = f'[HostTLSRPT]\n[Domains."example.com"]\n{RECEPTION}'

    async def deliver(self, server: Server, message: bytes, *to: str) -> list[int]:
        """
        @return: The replies to each RCPT, and to the message.
        """

        def send(client: SMTP) -> list[int]:
            client.ehlo()
            client.mail("")
            codes = [client.rcpt(each)[0] for each in to]
            return [*codes, client.data(message)[0]]

        return await self.talk(server.ports["reception"], send)

    async def test_recipients(self) -> None:
        """
        Mail is accepted for the postmaster of this host and of local domains, for
        root of this host, for envelope senders of reports, and for addresses of
        reports about this host; for no other recipient.
        """
        server = self.started(self.CONFIG)
        yes = [
            "postmaster",
            f"PostMaster@{HOSTNAME}",
            "postmaster@example.com",
            f"postmaster+0a1b@{HOSTNAME}",
            "postmaster+0a1b@Example.COM",
            f"tlsreports@{HOSTNAME}",
            f"root@{HOSTNAME}",
        ]
        no = [
            "root@example.com",
            "tlsreports@example.com",
            "postmaster@example.net",
            "postmaster@sub.example.com",
            "postmaster@[127.0.0.1]",
        ]
        codes = await self.deliver(server, MESSAGE, *yes, *no)
        self.assertEqual(codes, [250] * len(yes) + [550] * len(no) + [250])

    async def test_families(self) -> None:
        """
        One port accepts IPv4 and IPv6. An IPv4 client has an IPv4 address everywhere:
        in trace fields (RFC 5321 4.4), for iprev, and in reports (RFC 9990 3.1.1.2).
        """
        record = '"v=DMARC1; p=none; rua=mailto:reports@a.example"'
        self.dns.zone.put("_dmarc.a.example", RRType.TXT, record)
        address = 'Address = ["0.0.0.0", "::"]\n'
        server = self.started(self.CONFIG + address + ACCOUNT)
        port = server.ports["reception"]

        def send(host: str) -> int:
            with SMTP(host, port, "client.example", timeout=15) as client:
                client.ehlo()
                client.mail("")
                client.rcpt("anna@example.com")
                code: int = client.data(MESSAGE)[0]
                return code

        folder = self.folder / "data" / "accounts" / "anna" / "new"
        for host, shown in (("127.0.0.1", "[127.0.0.1]"), ("::1", "[IPv6:::1]")):
            self.assertEqual(await deferToThread(send, host), 250)
            [file] = folder.iterdir()
            text = file.read_text()
            self.assertIn(f"Received: from client.example ({shown})", text)
            self.assertIn(f"policy.iprev={host}", text.replace('"', ""))
            self.assertNotIn("ffff", text)
            file.unlink()
        await server.incoming.stop()
        stored = await server.ledger.evaluations.evaluations()
        addresses = {each.evaluation.row.sourceIP for each in stored}
        self.assertEqual(addresses, {"127.0.0.1", "::1"})
        await server.stopService()

    async def test_onlyIPv6(self) -> None:
        """
        C{::} alone causes a warning that there is no IPv4, unless another listener
        has that port.
        """
        port = closedPort()
        v6 = f'[Listeners.a]\nPort = {port}\nAddress = "::"\nService = "reception"\n'
        v4 = f'[Listeners.b]\nPort = {port}\nService = "reception"\n'
        for text, count in ((v6, 1), (v6 + v4, 0)):
            with capturedLogs() as events:
                server = self.started(text)
            await server.stopService()
            warned = [
                each
                for each in events
                if "listening on IPv6 only" in (each.get("log_format") or "")
            ]
            self.assertEqual([each["name"] for each in warned], ["a"] * count)

    async def test_private(self) -> None:
        """
        Mail and its data is readable by the server's user only, whatever the umask
        and the owner of the data directory; databases of earlier versions become
        private, too.
        """
        data = self.folder / "data"
        data.mkdir()
        data.chmod(0o755)
        (data / "ledger.sqlite").touch()
        (data / "ledger.sqlite").chmod(0o644)
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.dns.zone.put("x.example", RRType.A, "127.0.0.1")
        server = self.started(self.CONFIG + SUBMISSION + ACCOUNT)
        await self.deliver(server, MESSAGE, "postmaster", "anna@example.com")

        def submit(client: SMTP) -> None:
            client.sendmail("anna@example.com", ["a@x.example"], MESSAGE)

        await self.talk(server.ports["submission"], submit)
        everything = list(data.rglob("*"))
        names = {each.name for each in everything}
        self.assertLess(
            {"ledger.sqlite-wal", "ledger.sqlite-shm", "index.sqlite-wal", "lock"},
            names,
        )
        modes = {
            str(each): each.stat().st_mode & 0o777
            for each in everything
            if each.stat().st_mode & 0o777 != (0o700 if each.is_dir() else 0o600)
        }
        self.assertEqual(modes, {})
        await server.stopService()

    async def test_postmaster(self) -> None:
        """
        Mail to the postmaster is delivered to the postmaster's mailbox, unseen, once
        for each address; a response to a report too.
        """
        server = self.started(self.CONFIG)
        await self.deliver(server, MESSAGE, f"postmaster+0a1b@{HOSTNAME}")
        [file] = self.delivered("Postmaster")
        self.assertEqual(file.parent.name, "new")
        self.assertTrue(file.read_bytes().endswith(MESSAGE))
        self.assertTrue(file.read_bytes().startswith(b"Return-Path: <>\r\n"))

    async def test_workersKilled(self) -> None:
        """
        After a worker process is killed, acknowledged mail is stored (RFC 5321 6.1),
        and the next message gets a new worker.
        """
        server = self.started(self.CONFIG)

        async def send(mark: int) -> bool:
            text = b"X-Mark: %d\r\n" % mark + MESSAGE
            [_, code] = await self.deliver(server, text, "postmaster")
            self.assertIn(code, (250, 451))
            return code == 250

        self.assertTrue(await send(0))
        taken = [0]
        for mark in range(1, 4):
            sending = Deferred.fromCoroutine(send(mark))
            for process in children():
                os.kill(process, signal.SIGKILL)
            if await sending:
                taken.append(mark)
        self.assertTrue(await send(4))
        texts = [each.read_bytes() for each in self.delivered("Postmaster")]
        for mark in (*taken, 4):
            self.assertTrue(any(b"X-Mark: %d\r" % mark in text for text in texts))
        self.flushLoggedErrors(WorkerLost)

    async def test_workerStopped(self) -> None:
        """
        A worker process that hangs is replaced after a timeout; the client repeats
        its message (RFC 5321 4.2.1), and the next one is accepted.
        """
        self.patch(mail, "MAX_SILENCE", 1)
        server = self.started(self.CONFIG)
        codes = await self.deliver(server, MESSAGE, "postmaster")
        for process in children():
            os.kill(process, signal.SIGSTOP)
        codes += await self.deliver(server, MESSAGE, "postmaster")
        codes += await self.deliver(server, MESSAGE, "postmaster")
        self.assertEqual(codes, [250, 250, 250, 451, 250, 250])
        self.assertEqual(len(self.delivered("Postmaster")), 2)
        self.flushLoggedErrors(WorkerLost)

    async def test_reports(self) -> None:
        """
        Reports about this host land in their own mailbox.
        """
        server = self.started(self.CONFIG)
        await self.deliver(server, MESSAGE, f"tlsreports@{HOSTNAME}")
        self.assertEqual(len(self.delivered("TLSRPT")), 1)
        self.assertEqual(self.delivered("Postmaster"), [])

    async def test_bounce(self) -> None:
        """
        A DSN about a report is stored, as read, in the postmaster's mailbox for them,
        and suppresses the report's destination for a while.
        """
        server = self.started(self.CONFIG)
        ours = replace(
            report(composed=reactor.seconds(), state=ReportState.DELIVERED),
            sender="postmaster+0a1b@example.com",
        )
        await server.ledger.outcomes.settle(ReportPeriod(0, MONDAY, ORG), [], [ours])
        await self.deliver(server, DSN, "postmaster@example.com")
        self.assertEqual(await server.ledger.suppressions.entries(), ())
        self.assertEqual(len(self.delivered("Postmaster")), 1)
        await self.deliver(server, DSN, "Postmaster+0A1B@Example.com")
        [entry] = await server.ledger.suppressions.entries()
        self.assertEqual(entry.destination, ours.key.destination)
        self.assertEqual(entry.comment, "5.1.1 550 no such user")
        [kept] = await server.ledger.archive.reports()
        self.assertIs(kept.state, ReportState.FAILED)
        [file] = self.delivered("Postmaster.tlsrpt")
        self.assertEqual(file.parent.name, "cur")
        self.assertTrue(file.name.endswith(":2,S"))
        self.assertEqual(len(self.delivered("Postmaster")), 1)

    async def test_account(self) -> None:
        """
        Mail for an account is checked, and in its Maildir before the reply; its
        evaluation is recorded.
        """
        record = '"v=DMARC1; p=none; rua=mailto:reports@a.example"'
        self.dns.zone.put("_dmarc.a.example", RRType.TXT, record)
        server = self.started(self.CONFIG + ACCOUNT)
        codes = await self.deliver(server, MESSAGE, "anna@example.com")
        self.assertEqual(codes, [250, 250])
        folder = self.folder / "data" / "accounts" / "anna" / "new"
        [file] = folder.iterdir()
        message = file.read_bytes()
        self.assertIn(b"\r\nAuthentication-Results: mail.example.org;\r\n", message)
        self.assertIn(b"dmarc=fail", message)
        self.assertTrue(message.endswith(MESSAGE))
        await server.incoming.stop()
        [stored] = await server.ledger.evaluations.evaluations()
        self.assertEqual(stored.evaluation.published.domain.ascii, "a.example")
        await server.stopService()

    async def test_unchecked(self) -> None:
        """
        Listeners can do without checks.
        """
        server = self.started(self.CONFIG + "Checks = false\n" + ACCOUNT)
        await self.deliver(server, MESSAGE, "anna@example.com")
        folder = self.folder / "data" / "accounts" / "anna" / "new"
        [file] = folder.iterdir()
        self.assertNotIn(b"Authentication-Results", file.read_bytes())

    async def test_correspondents(self) -> None:
        """
        Recipients of submitted mail are recorded in the sender's history; mail
        between local accounts stays local.
        """
        self.dns.zone.put("a.example", RRType.A, "127.0.0.1")
        server = self.started(self.CONFIG + SUBMISSION + ACCOUNT)

        def send(client: SMTP) -> None:
            to = ["x@a.example", "anna@example.com"]
            client.sendmail("anna@example.com", to, MESSAGE)

        await self.talk(server.ports["submission"], send)
        await server.incoming.stop()
        known = await server.ledger.history.isKnown("anna", Domain("a.example"))
        self.assertTrue(known)
        folder = self.folder / "data" / "accounts" / "anna" / "new"
        await self.until(lambda: succeed(folder.is_dir() and any(folder.iterdir())))

    def test_limits(self) -> None:
        """
        A listener has the limits of its table.
        """
        text = "MaxConnectionsPerNetwork = 7\nMaxConnectionRate = 8\n"
        text += "MaxMessageRate = 9\nMaxConnectionsPerAddress = 6\n"
        made: list[ListenerSettings] = []
        factory = SMTPServerFactory.__init__

        def noted(self: SMTPServerFactory, *given: Any) -> None:
            made.append(given[1])
            factory(self, *given)

        self.patch(SMTPServerFactory, "__init__", noted)
        self.started(RECEPTION + text)
        [limits] = made
        self.assertEqual(
            (
                limits.maxConnectionsPerAddress,
                limits.maxConnectionsPerNetwork,
                limits.maxConnectionRate,
            ),
            (6, 7, 8),
        )
        self.assertEqual(limits.maxMessageRate, 9)

    async def test_warned(self) -> None:
        """
        A warning is logged if no domain can sign DMARC reports, where there would be
        any.
        """
        for text, count in ((RECEPTION, 1), (RECEPTION + "Checks = false\n", 0)):
            with capturedLogs() as logs:
                server = self.started(text)
            kinds = [each.get("kind") for each in logs]
            self.assertEqual(kinds.count("DMARC"), count)
            await server.stopService()


class StoppingTests(ServerCase):
    """
    Tests for stopping in any state: trial checks that nothing is left in the reactor.
    """

    async def test_unstarted(self) -> None:
        """
        Before the start, and after ports are bound, which are released.
        """
        server = self.server(SUBMISSION)
        await server.stopService()
        server.privilegedStartService()
        port = server.ports["submission"]
        await server.stopService()
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))

    async def test_again(self) -> None:
        """
        A stopped server can be started again.
        """
        server = self.started(SUBMISSION)
        await server.stopService()
        server.startService()
        self.assertEqual(await server.queue.messages(), ())

    async def test_clients(self) -> None:
        """
        Clients in every state of a conversation, and one refused at the greeting.
        """
        server = self.started(SUBMISSION)
        where = ("127.0.0.1", server.ports["submission"])
        stages = [
            b"",
            b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\n",
            b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\n"
            b"RCPT TO:<c@d.example>\r\nDATA\r\nSubject: half",
        ]
        clients = [socket.create_connection(where, MAX_WAIT) for _ in stages]
        for client, said in zip(clients, stages, strict=True):
            self.addCleanup(client.close)
            client.sendall(said)
        await deferLater(reactor, 0.1)
        await server.stopService()

    async def test_deaf(self) -> None:
        """
        With clients of several listeners that don't close their connections,
        all of them are waited for at the same time.
        """
        server = self.started(SUBMISSION + RECEPTION)
        for port in server.ports.values():
            client = socket.create_connection(("127.0.0.1", port), MAX_WAIT)
            self.addCleanup(client.close)
        await deferLater(reactor, 0.1)
        began: list[Deferred[None]] = []
        ended: list[Deferred[None]] = []
        close = BoundPort.close

        def slowly(port: BoundPort) -> Deferred[None]:
            began.append(close(port))
            ended.append(Deferred())
            return ended[-1]

        self.patch(BoundPort, "close", slowly)
        stopped = server.stopService()
        self.assertEqual(len(began), 2)
        for each in ended:
            self.assertNoResult(stopped)
            each.callback(None)
        await stopped
        for each in began:
            await each

    async def test_busy(self) -> None:
        """
        While the DNS server is silent, so that a probe and a delivery wait;
        the message is still there afterwards.
        """
        self.dns.zone.deviations.extend([Deviation.DROP] * 20)
        server = self.started(SUBMISSION)

        def send(client: SMTP) -> None:
            client.sendmail("us@our.example", ["x@a.example"], MESSAGE)

        await self.talk(server.ports["submission"], send)
        await server.stopService()
        spool = InlineSpoolExecutor(self.folder / "data" / "queue")
        spool.open()
        queued = await spool.run(lambda spool: spool.index.messages())
        await spool.close()
        self.assertEqual(len(queued), 1)

    async def test_failed(self) -> None:
        """
        A failed start logs one line about the key that names the unusable file.
        """
        data = self.folder / "data"
        data.mkdir()
        (data / "ledger.sqlite").write_bytes(b"x" * 5000)
        server = self.server(SUBMISSION)
        error = self.assertRaises(InvalidConfig, server.startService)
        self.assertIn("DataDirectory: ledger sqlite:///", str(error))
        await server.stopService()
        (data / "ledger.sqlite").unlink()
        other = InlineSpoolExecutor(data / "queue")
        (data / "queue").mkdir(exist_ok=True)
        other.open(delivering=True)
        error = self.assertRaises(InvalidConfig, server.startService)
        self.assertIn("another process delivers from it", str(error))
        await server.stopService()
        await other.close()
        server.startService()


class PreflightTests(ServerCase):
    """
    Tests for L{bindPorts} and L{openStores}, by which twistd tries a start.
    """

    def test_ports(self) -> None:
        """
        A port that is in use is named with its listener; those before it are
        given back.
        """
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = taken.getsockname()[1]
            configFiles = writeConfig(
                self.folder, f"{SUBMISSION}[Listeners.b]\nPort = {number}\n"
            )
            error = self.assertRaises(InvalidConfig, bindPorts, configFiles)
        self.assertEqual(
            str(error),
            f"{configFiles.file}: [Listeners.b] Port = {number}: expected a free port "
            "of 127.0.0.1: Address already in use",
        )

    def test_allPorts(self) -> None:
        """
        All that are in use are named.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            with socket.create_server(("127.0.0.2", number)):
                tables = "".join(
                    f'[Listeners.{name}]\nPort = {number}\nAddress = "{address}"\n'
                    for name, address in (("a", "127.0.0.1"), ("b", "127.0.0.2"))
                )
                configFiles = writeConfig(self.folder, tables)
                error = self.assertRaises(InvalidConfig, bindPorts, configFiles)
        first, second = str(error).split("\n")
        self.assertIn("[Listeners.a] Port", first)
        self.assertIn("[Listeners.b] Port", second)

    def test_stores(self) -> None:
        """
        Stores are opened and closed again, so that a start can follow.
        """
        configFiles = writeConfig(self.folder)
        openStores(configFiles)
        openStores(configFiles)
        other = InlineSpoolExecutor(configFiles.spool)
        other.open(delivering=True)
        self.assertRaises(InvalidConfig, openStores, configFiles)
        self.successResultOf(other.close())
