"""
Tests for L{moxtls.lab.hosts}, over real sockets, with a mail client of
other people.
"""

from __future__ import annotations

import smtplib
import ssl

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from moxtls.lab.hosts import MailDestination
from moxtls.lab.keys import Identity
from moxtls.lab.plan import MailHost
from moxtls.lab.scenario import Certificate, Records
from tests import MAX_WAIT
from tests.lab.fixtures import LabTestCase

HOST = "mx.good.test"
MESSAGE = b"Subject: hello\r\n\r\n.dot\r\n"


class MailDestinationTests(LabTestCase):
    """
    Takes mail and keeps it.
    """

    def begin(self, identity: Identity | None) -> None:
        address = self.network.address(1)
        self.place = (address, self.network.smtpPort)
        host = MailHost(HOST, address, Certificate.GOOD, Records.NONE)
        server = MailDestination(
            reactor, host, self.network.smtpPort, identity, self.arrivals
        )
        server.startService()
        self.addCleanup(server.stopService)

    def send(self, startTLS: bool) -> bytes:
        """
        @return: The answer to EHLO.
        """
        client = smtplib.SMTP(*self.place, timeout=MAX_WAIT)
        if startTLS:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.load_verify_locations(
                cadata=self.ca.identity.certificatePEM().decode("ascii")
            )
            client.starttls(context=context)
        client.sendmail("alice@sender.test", ["bob@good.test"], MESSAGE)
        answer = client.ehlo_resp or b""
        client.quit()
        return answer

    def test_withTLS(self) -> Deferred[None]:
        """
        Mail over STARTTLS is kept as it was sent, with what is known of it.
        """

        def check(ehlo: bytes) -> None:
            self.assertTrue(ehlo.startswith(HOST.encode()))
            (arrival,) = self.arrivals.at("good.test")
            self.assertEqual(MESSAGE, arrival.content)
            self.assertEqual("alice@sender.test", arrival.sender)
            self.assertEqual(HOST, arrival.place)
            self.assertIn("TLSv1.3", arrival.tls)

        self.begin(self.ca.issue([HOST]))
        return deferToThread(self.send, True).addCallback(check)

    def test_withoutTLS(self) -> Deferred[None]:
        """
        Without a certificate there is no STARTTLS, and mail in the clear.
        """

        def check(ehlo: bytes) -> None:
            (arrival,) = self.arrivals.at("good.test")
            self.assertEqual("", arrival.tls)

        self.begin(None)
        return deferToThread(self.send, False).addCallback(check)

    def test_notOffered(self) -> Deferred[None]:
        """
        Who wants STARTTLS from a host without finds that it isn't there.
        """
        self.begin(None)
        sending = deferToThread(self.send, True)
        failure = self.assertFailure(sending, smtplib.SMTPNotSupportedError)
        return failure.addCallback(lambda error: None)
