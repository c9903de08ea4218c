"""
Tests for the example of a server in docs/embedding.rst; C{tests.test_examples} has
those in files.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.testing import MemoryReactorClock
from twisted.mail import smtp
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

import moxtls
from moxtls import api
from moxtls.dates import DAY, HOUR
from moxtls.dns.types import RRType
from moxtls.interfaces import IReportSubmitter, IVerdictObserver
from moxtls.ledger.ledger import MemoryLedger
from moxtls.message.mime import leafParts
from tests.configs import ed25519Key
from tests.dmarc.reports import parsed, texts
from tests.reception.signed import HOST, OTHER_CLIENT, message, resolver
from tests.smtp.stock import Connection, Delivery

GUIDE = Path(moxtls.__file__).parents[1] / "docs" / "embedding.rst"
BLOCK = re.compile(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)")


class PoolReactor(MemoryReactorClock):
    """
    A reactor with an empty thread pool.
    """

    def getThreadPool(self) -> None:
        pass


class ServerGuideTests(SynchronousTestCase):
    """
    The example of a server.
    """

    def setUp(self) -> None:
        if not GUIDE.exists():
            raise SkipTest(f"no {GUIDE}")
        self.clock = PoolReactor()
        self.clock.advance(20_833 * DAY)
        self.dns = resolver()
        self.dns.put("our.example", RRType.MX, "10 mx.our.example")
        self.delivery = Delivery()
        self.printed: list[tuple[Any, ...]] = []
        self.sent: list[tuple[Any, ...]] = []
        self.patch(api, "sendmail", self.sendmail)
        # Threads would need a real reactor.
        alsoProvides(self.clock, IReactorThreads)
        self.patch(api, "deferToThreadPool", self.call)

    def sendmail(self, *what: Any, port: int) -> Deferred[None]:
        self.sent.append(what)
        return succeed(None)

    def call(
        self, reactor: object, pool: object, call: Callable[[], Any]
    ) -> Deferred[Any]:
        return execute(call)

    def example(self) -> dict[str, Any]:
        """
        The names in it, once it has run.
        """
        [code] = BLOCK.findall(GUIDE.read_text())
        names: dict[str, Any] = {
            "reactor": self.clock,
            "resolver": self.dns,
            "ledger": MemoryLedger(),
            "delivery": self.delivery,
            "key": ed25519Key(),
            "print": lambda *what: self.printed.append(what),
        }
        exec(textwrap.dedent(code), names)
        return names

    def test_interfaces(self) -> None:
        """
        The example implements the whole interfaces.
        """
        names = self.example()
        verifyObject(IVerdictObserver, names["Printer"]())
        verifyObject(IReportSubmitter, names["smarthost"])

    def test_mail(self) -> None:
        """
        Authenticated mail is accepted and forged mail refused, verdicts are printed,
        and after the day a report on both is sent (RFC 9990 3).
        """
        names = self.example()
        port, factory = self.clock.tcpServers[0][:2]
        self.assertEqual(port, 25)
        replies = []
        for client, signers in ((HOST, ["a.example"]), (OTHER_CLIENT, [])):
            connection = Connection(factory, client.address, client.helo)
            connection.begin("x@a.example", "anna")
            replies.append(connection.send(message("x@a.example", *signers)))
        self.assertEqual(replies[0], ["250 Delivery in progress"])
        self.assertIn("DMARC", replies[1][0])
        self.assertEqual(len(self.flushLoggedErrors(smtp.SMTPServerError)), 1)
        self.assertIn(b"dmarc=pass", self.delivery.mail["anna"][0].text)
        self.assertEqual(
            [tuple(map(str, each)) for each in self.printed],
            [
                ("anna@our.example", "pass", "accepted"),
                ("anna@our.example", "fail", "rejected by DMARC"),
            ],
        )
        self.clock.pump([HOUR / 4] * 4 * 26)
        self.assertReported()
        self.successResultOf(names["reports"].stopService())

    def assertReported(self) -> None:
        ((host, sender, recipients, text),) = self.sent
        self.assertEqual((host, recipients), ("smarthost", ["reports@a.example"]))
        self.assertTrue(sender.endswith("@our.example"))
        report = parsed(list(leafParts(text))[1].content)
        found = zip(
            texts(report, "record/row/source_ip"),
            texts(report, "record/row/policy_evaluated/disposition"),
            strict=True,
        )
        expected = {(HOST.address, "pass"), (OTHER_CLIENT.address, "reject")}
        self.assertEqual(set(found), expected)
