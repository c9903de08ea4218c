"""
Tests for L{moxtls.delivery.probe}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from moxtls.delivery.probe import ProbeResult, probe
from moxtls.delivery.results import DeliveryError
from moxtls.dns.types import ExtendedError, RRType
from moxtls.mtasts.policy import Mode, STSLookup
from moxtls.smtp.types import TLSMode
from moxtls.tls.session import STARTTLSResult
from moxtls.tlsrpt.types import FailureDetail, ResultType
from tests.certificates import good, selfSigned
from tests.delivery.deliveries import (
    EXAMPLE,
    IP4,
    MISMATCHING,
    MX,
    SECOND,
    SECOND_IP,
    DeliveryCase,
    outdated,
)


class ProbeTests(DeliveryCase):
    """
    Tests for L{probe}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.secondHost()

    def found(self) -> ProbeResult:
        surveying = Deferred.fromCoroutine(probe(self.context, EXAMPLE))
        self.network.flush()
        result = self.successResultOf(surveying)
        self.assertTidy()
        return result

    def test_everyHost(self) -> None:
        """
        Each host is probed, even if the first one is fine; no mail is sent, and no
        outcome recorded.
        """
        servers = [
            self.serve(self.goodContext()),
            self.serve(selfSigned(SECOND).context(), ip=SECOND_IP),
        ]
        found = self.found()
        self.assertEqual(
            [(each.attempt.host, each.record.receivingIP) for each in found.hosts],
            [(MX, IP4), (SECOND, SECOND_IP)],
        )
        for server in servers:
            self.assertIn("QUIT", server.commands)
            self.assertNotIn(b"MAIL", server.heard)
        self.assertEqual(found.errors, ())
        self.assertEqual(self.observer.outcomes, [])

    def test_outcome(self) -> None:
        """
        The outcome is that of a delivery that meets the same.
        """
        self.resolver.put("example.com", RRType.MX, f"10 {MX}")
        self.secure(MISMATCHING)
        self.publish(Mode.ENFORCE)
        self.serve(selfSigned(MX).context())
        found = self.found()
        self.serve(selfSigned(MX).context())
        self.deliver()
        self.assertEqual(found.outcome, self.outcome)
        (error,) = found.errors
        self.assertEqual((error.status, error.host), ("4.7.5", MX))

    def test_plaintext(self) -> None:
        """
        A host without TLS that works would take the mail: that is no error.
        It is connected to as a delivery would.
        """
        self.serve(outdated(good(MX)), self.server())
        self.serve(ip=SECOND_IP)
        found = self.found()
        self.assertEqual(
            [
                (each.attempt.settings.mode, each.record.starttls, each.ready)
                for each in found.hosts
            ],
            [
                (TLSMode.OPPORTUNISTIC, STARTTLSResult.BROKEN, False),
                (TLSMode.SKIP, STARTTLSResult.NOT_TRIED, True),
                (TLSMode.OPPORTUNISTIC, STARTTLSResult.NOT_OFFERED, True),
            ],
        )
        self.assertEqual(found.errors, ())
        assert found.outcome.recipient is not None
        self.assertEqual(found.outcome.recipient.failed, 1)

    def test_errors(self) -> None:
        """
        The reasons why hosts would refuse mail are reported, each with its host.
        """
        self.serve(greeting="554 go away")
        found = self.found()
        self.assertEqual(
            [(each.host, each.status) for each in found.errors],
            [(MX, "5.0.0"), (SECOND, "4.4.1")],
        )
        # No connection, no record of one.
        self.assertEqual(
            [(each.attempt.host, each.ready) for each in found.hosts], [(MX, False)]
        )

    def test_nowhere(self) -> None:
        """
        The reason why a domain has no hosts is reported.
        """
        self.resolver.fail("example.com", RRType.MX, ExtendedError(6))
        found = self.found()
        self.assertEqual([each.status for each in found.errors], ["4.4.3"])
        self.assertEqual(found.hosts, ())
        assert found.outcome.recipient is not None
        self.assertEqual(found.outcome.recipient.failed, 1)

    def test_temporary(self) -> None:
        """
        If MTA-STS would defer mail, no host is probed.
        """
        failure = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, "dns-lookup")
        self.policies.lookup = STSLookup(EXAMPLE, None, failure, temporary=True)
        found = self.found()
        self.assertEqual(
            found.errors, (DeliveryError("4.4.3", "MTA-STS lookup failed"),)
        )
        self.assertEqual(self.network.dialed, [])
