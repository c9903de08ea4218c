"""
Tests for L{moxtls.twistedmail.client}: clients of C{twisted.mail.smtp}, with real TLS
at both ends, in memory.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import _producer_helpers, ssl
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Cooperator
from twisted.internet.testing import MemoryReactorClock
from twisted.mail.smtp import ESMTPSenderFactory, SMTPSenderFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.api import makeOutcomeRecorder
from moxtls.domain import Domain
from moxtls.interfaces import ISessionObserver
from moxtls.ledger.ledger import MemoryLedger
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    TLSPolicy,
)
from moxtls.twistedmail.client import recordTLS
from tests.certificates import Identity, good, root, selfSigned, trusting
from tests.smtp.scripted import Scripted
from tests.starttls import CLIENT_IP, SERVER_IP, Link, ServerTLSCreator


@implementer(ISessionObserver)
class RecordingObserver:
    """
    Records TLS sessions.
    """

    def __init__(self, answer: Exception | None = None) -> None:
        self.outcomes: list[SessionOutcome] = []
        self._answer = answer

    def sessionEnded(self, outcome: SessionOutcome) -> Deferred[None]:
        self.outcomes.append(outcome)
        return fail(self._answer) if self._answer else succeed(None)


def verifying(host: str = "mx.example", *roots: Identity) -> Any:
    """
    Options of an application that verifies certificates.
    """
    trusted = [
        ssl.Certificate(X509.from_cryptography(each.certificate))
        for each in roots or (root(),)
    ]
    return ssl.optionsForClientTLS(host, ssl.trustRootFromCertificates(trusted))


class CaptureCase(SynchronousTestCase):
    """
    Sends mail through a wrapped factory.

    @ivar saysHELO: Whether applications send HELO if EHLO is refused.
    """

    saysHELO = True

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        # By which Twisted's TLS pulls from a FileSender: else on the reactor.
        cooperator = Cooperator(scheduler=lambda go: self.clock.callLater(0, go))
        self.patch(_producer_helpers, "cooperate", cooperator.cooperate)
        self.told = RecordingObserver()

    def stock(self, contextFactory: Any, sent: Deferred[Any]) -> Any:
        """
        A factory as applications make them.
        """
        factory: Any = ESMTPSenderFactory(
            None,
            None,
            "a@us.example",
            "b@example.org",
            BytesIO(b"Subject: hi\n\nhi\n"),
            sent,
            retries=0,
            contextFactory=contextFactory,
            heloFallback=self.saysHELO,
            requireAuthentication=False,
            requireTransportSecurity=False,
        )
        factory.noisy = False
        return factory

    def send(
        self, server: Scripted, contextFactory: Any, wrap: bool = True, **choices: Any
    ) -> Deferred[Any]:
        """
        Send a message as far as possible without further input.
        """
        sent: Deferred[Any] = Deferred()
        factory = self.stock(contextFactory, sent)
        if wrap:
            factory = recordTLS(
                factory, self.told, "example.org", "mx.example", **choices
            )
        client = factory.buildProtocol(IPv4Address("TCP", SERVER_IP, 25))
        self.link = Link(client, server, self.clock)
        self.link.flush()
        if not self.link.open:
            factory.clientConnectionLost(None, server.lost)
        return sent

    def outcome(self) -> SessionOutcome:
        (outcome,) = self.told.outcomes
        return outcome

    def details(self, tally: PolicyTally) -> list[tuple[str, str]]:
        return [(each.resultType, each.reasonCode) for each in tally.failures]

    def assertCounted(
        self,
        succeeded: int,
        failed: int,
        recipient: list[tuple[str, str]],
        host: list[tuple[str, str]],
    ) -> None:
        outcome = self.outcome()
        assert outcome.recipient is not None
        (hostTally,) = outcome.hosts
        for tally, details in ((outcome.recipient, recipient), (hostTally, host)):
            self.assertEqual((tally.succeeded, tally.failed), (succeeded, failed))
            self.assertEqual(self.details(tally), details)


class OutcomeTests(CaptureCase):
    """
    Outcomes reported to the observer.
    """

    def test_good(self) -> None:
        """
        TLS that went well: one success for the recipient domain and one for
        the host, and the mail is delivered.
        """
        verifyObject(ISessionObserver, self.told)
        server = Scripted(good().context())
        sent = self.send(server, verifying())
        self.assertEqual(self.successResultOf(sent)[0], 1)
        self.assertEqual(len(server.messages), 1)
        none = PolicyType.NO_POLICY
        self.assertEqual(
            self.outcome(),
            SessionOutcome(
                Domain("example.org"),
                PolicyTally(TLSPolicy(none, Domain("example.org")), 1),
                (PolicyTally(TLSPolicy(none, Domain("mx.example")), 1),),
            ),
        )

    def test_policies(self) -> None:
        """
        An application that applied policies can report them.
        """
        policies = (
            TLSPolicy(PolicyType.STS, Domain("example.org"), ("version: STSv1",)),
            TLSPolicy(PolicyType.TLSA, Domain("mx.example"), ("3 1 1 00",)),
        )
        self.send(
            Scripted(good().context()),
            verifying(),
            policies=policies,
            sendReport=False,
        )
        outcome = self.outcome()
        assert outcome.recipient is not None
        self.assertEqual((outcome.recipient.policy, outcome.hosts[0].policy), policies)
        self.assertFalse(outcome.sendReport)

    def test_verifyingApplication(self) -> None:
        """
        If the application rejects a certificate, no mail is sent, and the reason is
        reported: expired, untrusted, wrong name.
        """
        for identity, resultType in (
            (root().issue("mx.example", days=-1), ResultType.CERTIFICATE_EXPIRED),
            (selfSigned("mx.example"), ResultType.CERTIFICATE_NOT_TRUSTED),
            (good("other.example"), ResultType.CERTIFICATE_HOST_MISMATCH),
        ):
            for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                self.told = RecordingObserver()
                context = identity.context()
                context.set_max_proto_version(version)
                server = Scripted(context)
                sent = self.send(server, verifying())
                self.failureResultOf(sent)
                self.assertEqual(server.messages, [])
                self.assertNotIn(b"MAIL", server.heard)
                self.assertCounted(0, 1, [(resultType, "")], [])

    def test_carelessApplication(self) -> None:
        """
        If the application accepts an invalid certificate, the error is reported
        beside the success.
        """
        for contextFactory in (ssl.ClientContextFactory(), ssl.CertificateOptions()):
            self.told = RecordingObserver()
            sent = self.send(
                Scripted(selfSigned("mx.example").context()),
                contextFactory,
                trust=trusting(root()),
            )
            self.successResultOf(sent)
            self.assertCounted(1, 0, [(ResultType.CERTIFICATE_NOT_TRUSTED, "")], [])

    def test_systemRoots(self) -> None:
        """
        If the application verifies nothing, the system's roots are used for the
        record.
        """
        sent = self.send(Scripted(good().context()), ssl.CertificateOptions())
        self.successResultOf(sent)
        recipient = self.outcome().recipient
        assert recipient is not None
        ((kind, _),) = self.details(recipient)
        self.assertEqual(kind, ResultType.CERTIFICATE_NOT_TRUSTED)

    def test_pinningApplication(self) -> None:
        """
        An application that rejects an otherwise valid certificate.
        """
        context = trusting(root()).context
        context.set_verify(SSL.VERIFY_PEER, lambda *_: False)
        sent = self.send(Scripted(good().context()), ServerTLSCreator(context))
        self.failureResultOf(sent)
        self.assertCounted(
            0, 1, [(ResultType.VALIDATION_FAILURE, "openssl-verify-error-1")], []
        )

    def test_details(self) -> None:
        """
        A failure has the addresses and names of both sides.
        """
        self.send(
            Scripted(selfSigned("mx.example").context()),
            ssl.CertificateOptions(),
            trust=trusting(root()),
        )
        recipient = self.outcome().recipient
        assert recipient is not None
        self.assertEqual(
            list(recipient.failures),
            [
                FailureDetail(
                    ResultType.CERTIFICATE_NOT_TRUSTED,
                    sendingIP=CLIENT_IP,
                    mxHostname="mx.example",
                    mxHELO="mx.example",
                    receivingIP=SERVER_IP,
                )
            ],
        )

    def test_notOffered(self) -> None:
        """
        A server without STARTTLS: reported, not counted.
        """
        sent = self.send(Scripted(), verifying())
        self.successResultOf(sent)
        detail = (ResultType.STARTTLS_NOT_SUPPORTED, "")
        self.assertCounted(0, 0, [detail], [detail])

    def test_heloAfterEHLO(self) -> None:
        """
        RFC 5321 4.1.1.1, 3.2: a server that knows no EHLO has no STARTTLS.
        """
        for said in ("500 what", "502 5.5.1 no", "554 no"):
            self.told.outcomes.clear()
            sent = self.send(Scripted(replies={"EHLO": said}), verifying())
            self.successResultOf(sent)
            detail = (ResultType.STARTTLS_NOT_SUPPORTED, "")
            self.assertCounted(0, 0, [detail], [detail])

    def test_unknownExtensions(self) -> None:
        """
        RFC 8460 4.3.1: if the client didn't ask for extensions, or the server
        didn't reply, nothing is reported about STARTTLS.
        """
        for self.saysHELO, reply in (
            (True, "421 busy"),
            (True, "450 later"),
            (False, "421 busy"),
            (False, "554 go away"),
        ):
            sent = self.send(Scripted(replies={"EHLO": reply}), verifying())
            sent.addErrback(lambda failure: None)
            self.assertEqual(self.told.outcomes, [], (self.saysHELO, reply))

    def test_heloAlone(self) -> None:
        """
        The same if the application sends HELO of its own accord.
        """
        sent: Deferred[Any] = Deferred()
        message = BytesIO(b"Subject: hi\n\nhi\n")
        factory: Any = SMTPSenderFactory(
            "a@us.example", "b@example.org", message, sent, retries=0
        )
        factory.noisy = False
        captured = recordTLS(factory, self.told, "example.org", "mx.example")
        client = captured.buildProtocol(IPv4Address("TCP", SERVER_IP, 25))
        server = Scripted(good().context())
        Link(client, server, self.clock).flush()
        self.successResultOf(sent)
        self.assertIn("HELO", server.commands[0])
        self.assertEqual(self.told.outcomes, [])

    def test_unanswered(self) -> None:
        """
        STARTTLS without a reply is a failure; but not if the application disconnects.
        """
        for said, reason in (
            ("", "connection-closed-during-starttls"),
            ("yes", "malformed-reply-to-starttls"),
        ):
            self.told.outcomes.clear()
            server = Scripted(good().context(), {"STARTTLS": said})
            sent = self.send(server, verifying())
            if not said:
                self.link.hangUp()
                self.link.flush()
            sent.addErrback(lambda failure: None)
            detail = (ResultType.VALIDATION_FAILURE, reason)
            self.assertCounted(0, 1, [detail], [detail])
        self.told.outcomes.clear()
        self.send(Scripted(good().context(), {"STARTTLS": ""}), verifying())
        client: Any = self.link.client.protocol
        client.loseConnection()
        self.link.flush()
        self.assertFalse(self.link.open)
        self.assertEqual(self.told.outcomes, [])

    def test_spelling(self) -> None:
        """
        RFC 8460 4.4: the host is reported in A-labels, and omitted if it isn't a
        host name.
        """
        for host, told in (
            ("mx.Bücher.example", "mx.xn--bcher-kva.example"),
            ("the relay", ""),
            ("192.0.2.1", ""),
        ):
            self.told.outcomes.clear()
            factory = recordTLS(
                self.stock(verifying(), Deferred()), self.told, "example.org", host
            )
            client = factory.buildProtocol(IPv4Address("TCP", SERVER_IP, 25))
            Link(client, Scripted(), self.clock).flush()
            outcome = self.outcome()
            assert outcome.recipient is not None
            (failure,) = outcome.recipient.failures
            self.assertEqual(failure.mxHostname, told)
            self.assertEqual(
                [each.policy.domain.ascii for each in outcome.hosts],
                [told] if told else [],
            )

    def test_refused(self) -> None:
        """
        STARTTLS offered, and then refused.
        """
        server = Scripted(good().context(), {"STARTTLS": "454 4.7.0 not now"})
        self.failureResultOf(self.send(server, verifying()))
        detail = (
            ResultType.STARTTLS_NOT_SUPPORTED,
            "smtp-starttls-reply-code-454",
        )
        self.assertCounted(0, 1, [detail], [detail])

    def test_oldVersion(self) -> None:
        """
        A handshake refused by the server.
        """
        context = good().context()
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        self.failureResultOf(self.send(Scripted(context), verifying()))
        detail = (
            ResultType.VALIDATION_FAILURE,
            "tls-remote-alert-70-protocol-version-not-supported",
        )
        self.assertCounted(0, 1, [detail], [detail])

    def test_hangUp(self) -> None:
        """
        The server disconnects during the handshake.
        """
        server = Scripted(None, {"EHLO": "250 hi\n250 STARTTLS"}, behindStartTLS=b"")
        self.send(server, verifying())
        self.assertEqual(self.told.outcomes, [])
        self.link.hangUp()
        detail = (
            ResultType.VALIDATION_FAILURE,
            "connection-closed-during-handshake",
        )
        self.assertCounted(0, 1, [detail], [detail])

    def test_alertBehindHandshake(self) -> None:
        """
        A TLS 1.3 server that wants a certificate of the application's.
        """
        context = good().context()
        context.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True
        )
        self.failureResultOf(self.send(Scripted(context), verifying()))
        detail = (
            ResultType.VALIDATION_FAILURE,
            "tls-remote-alert-116-certificate-required",
        )
        self.assertCounted(0, 1, [detail], [detail])

    def test_noTLSWanted(self) -> None:
        """
        A session that ends before STARTTLS isn't reported.
        """
        self.failureResultOf(self.send(Scripted(greeting="554 no"), verifying()))
        self.assertEqual(self.told.outcomes, [])

    def test_observerFails(self) -> None:
        """
        An observer that fails is logged, and keeps no mail.
        """
        self.told = RecordingObserver(OSError("disk full"))
        sent = self.send(Scripted(good().context()), verifying())
        self.successResultOf(sent)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


# Replies that a man in the middle could inject.
INJECTED = b"250-mx.example\r\n250 AUTH PLAIN\r\n"


class InjectionTests(CaptureCase):
    """
    Plaintext behind the reply to STARTTLS (RFC 3207 6; CVE-2011-0411).
    """

    def server(self, behind: bytes) -> Scripted:
        server = Scripted(good().context())
        say = server._write

        def write(data: bytes) -> None:
            say(data + behind if data.startswith(b"220 go") else data)

        server._write = write  # type: ignore[method-assign]
        return server

    def test_hole(self) -> None:
        """
        Without the wrapper, a client of C{twisted.mail.smtp} accepts plaintext
        replies as replies over TLS.
        """
        server = self.server(INJECTED)
        server.replies["EHLO"] = ["250 hi\n250 STARTTLS", ""]
        self.send(server, verifying(), wrap=False)
        # Nobody answered the EHLO behind the handshake.
        self.assertIn(b"MAIL", server.heard.partition(b"<TLS>\r\nEHLO")[2])

    def test_closed(self) -> None:
        """
        With the wrapper the connection ends there, which is reported.
        """
        for behind in (INJECTED, b"2"):
            self.told = RecordingObserver()
            server = self.server(behind)
            self.failureResultOf(self.send(server, verifying()))
            self.assertNotIn(b"MAIL", server.heard)
            self.assertEqual(server.heard.count(b"EHLO"), 1)
            detail = (
                ResultType.VALIDATION_FAILURE,
                "starttls-plaintext-injection",
            )
            self.assertCounted(0, 1, [detail], [detail])

    def test_inPieces(self) -> None:
        """
        Replies that arrive in pieces are put together first.
        """
        factory = recordTLS(
            self.stock(verifying(), Deferred()), self.told, "example.org"
        )
        client = factory.buildProtocol(IPv4Address("TCP", SERVER_IP, 25))
        link = Link(client, Scripted(greeting=""), self.clock)
        for said, heard in (
            (b"220 mx.example\r\n", b"EHLO"),
            (b"250-mx.example\r\n250 STARTTLS\r\n", b"STARTTLS"),
        ):
            for index in range(len(said)):
                self.assertEqual(link.client.below.written, [])
                client.dataReceived(said[index : index + 1])
            self.assertTrue(link.client.below.take().startswith(heard))

    def test_inAdvance(self) -> None:
        """
        A reply received before STARTTLS was sent isn't its reply.
        """
        server = Scripted(
            good().context(), {"EHLO": ["250 hi\n250 STARTTLS\r\n220 go"]}
        )
        self.failureResultOf(self.send(server, verifying()))
        self.assertNotIn(b"MAIL", server.heard)

    def test_malformed(self) -> None:
        """
        A line that only some would take for two ends the connection.
        """
        server = Scripted(good().context(), {"EHLO": "250 hi"})
        say = server._write
        server._write = (  # type: ignore[method-assign]
            lambda data: say(data.replace(b"hi\r\n", b"hi\n250 STARTTLS\r\n"))
        )
        self.failureResultOf(self.send(server, verifying()))
        self.assertEqual(self.told.outcomes, [])


class RecorderTests(CaptureCase):
    """
    Outcomes recorded in a ledger.
    """

    def test_recorded(self) -> None:
        """
        RFC 8460 3: a success for the recipient domain, and one for the host.
        """
        ledger, sent = MemoryLedger(), Deferred[Any]()
        observer = makeOutcomeRecorder(self.clock, ledger)
        stock = self.stock(verifying(), sent)
        factory = recordTLS(stock, observer, "example.org", "mx.example")
        client = factory.buildProtocol(IPv4Address("TCP", SERVER_IP, 25))
        Link(client, Scripted(good().context()), self.clock).flush()
        self.assertEqual(self.successResultOf(sent)[0], 1)
        results = self.successResultOf(ledger.outcomes.results())
        self.assertEqual(
            [(each.policyDomain.ascii, each.tallies[0].succeeded) for each in results],
            [("example.org", 1), ("mx.example", 1)],
        )
