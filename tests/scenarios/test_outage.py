"""
A server with its ledger in PostgreSQL, during an outage of the database.
"""

from __future__ import annotations

import time
from smtplib import SMTP

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from moxtls import outages
from moxtls.app.service import Server
from moxtls.dns.types import RRType
from tests.postgres import StoppableServer
from tests.servers import RECEPTION, SUBMISSION, ServerCase

MESSAGE = b"From: Anna <anna@a.example>\r\nSubject: hi\r\n\r\nhi\r\n"
ACCOUNT = """
[Domains."our.example"]
[Accounts.bob.Destinations]
"bob@our.example" = {}
"""
COUNT = 40


class OutageTests(ServerCase):
    """
    Mail is still accepted, and its evaluations are recorded later.
    """

    def setUp(self) -> None:
        super().setUp()
        self.postgres = StoppableServer()
        self.addCleanup(self.postgres.close)
        record = '"v=DMARC1; p=none; rua=mailto:reports@a.example"'
        self.dns.zone.put("_dmarc.a.example", RRType.TXT, record)
        self.patch(outages, "RETRY", 0.2)

    def receive(self, client: SMTP) -> int:
        """
        @return: The number of acknowledged messages.
        """
        for _ in range(COUNT):
            client.sendmail("anna@a.example", ["bob@our.example"], MESSAGE)
        return COUNT

    def submit(self, client: SMTP) -> None:
        client.sendmail("bob@our.example", ["anna@a.example"], MESSAGE)

    async def evaluated(self, server: Server) -> int:
        stored = await server.ledger.evaluations.evaluations()
        return sum(each.count for each in stored)

    async def test_away(self) -> None:
        """
        During an outage mail is accepted, and its evaluations wait; outgoing mail
        waits, with the true reason. The log has one or two lines about it.
        """
        ledger = f'Ledger = "{self.postgres.url}"\n'
        server = self.started(ledger + SUBMISSION + RECEPTION + ACCOUNT)
        port, submission = server.ports["reception"], server.ports["submission"]
        self.dns.zone.put("a.example", RRType.A, "127.0.0.1")
        await self.talk(port, self.receive)
        self.postgres.stop()
        began = time.monotonic()
        with capturedLogs() as events:
            await self.talk(port, self.receive)
            await self.talk(submission, self.submit)
            await self.until(lambda: self.attempted(server))
        minutes = int((time.monotonic() - began) / 60)
        lines = [formatEvent(each) for each in events]
        about = [line for line in lines if "ledger" in line and "queue" not in line]
        self.assertIn(len(about) - minutes, (1, 2), about)
        self.assertFalse(any(each.get("log_failure") for each in events), lines)
        [waiting] = await server.queue.messages()
        result = waiting.recipients[0].lastResult
        assert result is not None
        self.assertIn("ledger unavailable", result.text)
        self.postgres.start()
        await self.until(lambda: self.allEvaluated(server))
        folder = self.folder / "data" / "accounts" / "bob" / "new"
        self.assertEqual(len(list(folder.iterdir())), 2 * COUNT)
        await server.stopService()

    def attempted(self, server: Server) -> Deferred[bool]:
        async def attempted() -> bool:
            messages = await server.queue.messages()
            return any(each.recipients[0].lastResult for each in messages)

        return Deferred.fromCoroutine(attempted())

    def allEvaluated(self, server: Server) -> Deferred[bool]:
        async def all() -> bool:
            return await self.evaluated(server) == 2 * COUNT

        return Deferred.fromCoroutine(all())

    async def test_stopped(self) -> None:
        """
        A server stopped during an outage logs how many evaluations are lost.
        """
        ledger = f'Ledger = "{self.postgres.url}"\n'
        server = self.started(ledger + RECEPTION + ACCOUNT)
        self.postgres.stop()
        await self.talk(server.ports["reception"], self.receive)
        with capturedLogs() as events:
            await server.stopService()
        lines = [formatEvent(each) for each in events]
        self.assertTrue(any(f"{COUNT} evaluations are lost" in line for line in lines))
