"""
Tests for L{moxtls.lab.hosts} and L{moxtls.lab.hosts}, over real sockets,
with an HTTP client of other people.
"""

from __future__ import annotations

import http.client
import socket
import ssl

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from moxtls.lab.hosts import MAX_REPORT, POLICY_PATH, WebHost
from moxtls.lab.plan import policyText
from moxtls.lab.scenario import DESTINATIONS
from tests import MAX_WAIT
from tests.lab.fixtures import LabTestCase

Answer = tuple[int, bytes]


class _Connection(http.client.HTTPSConnection):
    """
    To an address that isn't in the system's DNS.
    """

    def __init__(self, place: tuple[str, int], name: str, roots: str) -> None:
        self._context_ = ssl.create_default_context(cadata=roots)
        super().__init__(name, place[1], timeout=MAX_WAIT)
        self._place = place

    def connect(self) -> None:
        plain = socket.create_connection(self._place, timeout=MAX_WAIT)
        self.sock = self._context_.wrap_socket(plain, server_hostname=self.host)


class WebHostTests(LabTestCase):
    """
    Policies, and a place for reports.
    """

    def setUp(self) -> None:
        super().setUp()
        self.place = (self.network.webHost, self.network.httpsPort)
        host = WebHost(reactor, self.place, DESTINATIONS, self.ca, self.arrivals)
        host.startService()
        self.addCleanup(host.stopService)

    def ask(
        self, name: str, path: str, content: bytes | None = None
    ) -> Deferred[Answer]:
        def blocking() -> Answer:
            roots = self.ca.identity.certificatePEM().decode("ascii")
            client = _Connection(self.place, name, roots)
            try:
                method = "GET" if content is None else "POST"
                headers = {"Content-Type": "application/tlsrpt+gzip"}
                client.request(method, path, content, headers)
                response = client.getresponse()
                return response.status, response.read()
            finally:
                client.close()

        return deferToThread(blocking)

    async def check(
        self, expected: Answer, name: str, path: str, content: bytes | None = None
    ) -> None:
        self.assertEqual(expected, await self.ask(name, path, content))

    async def test_policies(self) -> None:
        """
        Policies are served by name (RFC 8461 3.3), with a certificate for it;
        some aren't there, and some hosts are broken.
        """
        good = next(each for each in DESTINATIONS if each.name == "good")
        await self.check(
            (200, policyText(good) or b""), "mta-sts.good.test", POLICY_PATH
        )
        await self.check((404, b""), "mta-sts.no-policy.test", POLICY_PATH)
        await self.check((500, b""), "mta-sts.fetch-error.test", POLICY_PATH)
        await self.check((404, b""), "mta-sts.good.test", "/")

    async def test_badCertificate(self) -> None:
        """
        One presents a certificate that nobody vouches for.
        """
        asking = self.ask("mta-sts.policy-cert.test", POLICY_PATH)
        await self.assertFailure(asking, ssl.SSLCertVerificationError)

    async def test_reports(self) -> None:
        """
        Reports are taken at one place (RFC 8460 5.4), and not elsewhere.
        """
        await self.check(
            (200, b""), "intake.reports.test", "/tlsrpt/good.test", b"report"
        )
        await self.check((404, b""), "intake.reports.test", "/other", b"report")
        await self.check(
            (404, b""), "mta-sts.good.test", "/tlsrpt/good.test", b"report"
        )
        (arrival,) = self.arrivals.all
        self.assertEqual(b"report", arrival.content)
        self.assertEqual("application/tlsrpt+gzip", arrival.contentType)
        self.assertEqual(
            "https://intake.reports.test/tlsrpt/good.test", arrival.recipient
        )

    async def test_tooLarge(self) -> None:
        """
        What can be no report is refused.
        """
        huge = bytes(MAX_REPORT + 1)
        await self.check((413, b""), "intake.reports.test", "/tlsrpt/good.test", huge)
        self.assertEqual((), self.arrivals.all)
