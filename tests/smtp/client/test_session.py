"""
Tests for L{moxtls.smtp.client.session}, with real TLS at both ends, in memory.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.types import TLSA
from moxtls.smtp.client.connection import (
    ClientSettings,
    ConnectFailed,
    SessionError,
    SessionFailed,
    TLSFailed,
    TransactionsExhausted,
    addressEndpoint,
)
from moxtls.smtp.client.session import ClientSession, openSession
from moxtls.smtp.types import (
    Credentials,
    RecipientReply,
    Timeouts,
    TLSMode,
    Transaction,
)
from moxtls.tls.dane import DANEVerdict
from moxtls.tls.openssl import tlsErrorOf
from moxtls.tls.session import SessionRecord, STARTTLSResult, TLSError
from tests.certificates import Identity, good, root, selfSigned, trusting
from tests.smtp.scripted import Scripted
from tests.starttls import BUFFER, CLIENT_IP, SERVER_IP, Failing, Reaching

TRUST = trusting(root())
Kind = TLSError.Kind


def matching(identity: Identity) -> TLSA:
    """
    A DANE-EE record for a certificate.
    """
    return TLSA(3, 1, 1, hashlib.sha256(identity.spki).digest())


MISMATCH = TLSA(3, 1, 1, bytes(32))


class SessionCase(SynchronousTestCase):
    """
    Opens sessions to servers in memory.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        # For the dates in certificates.
        self.clock.rightNow = time.time()
        self.settings = ClientSettings("us.example", TRUST, names=("mx.example",))

    def opening(
        self, server: Scripted, settings: ClientSettings
    ) -> Deferred[ClientSession]:
        """
        Open a session as far as possible without further input.
        """
        endpoint = Reaching(server, self.clock)
        opening = Deferred.fromCoroutine(openSession(self.clock, endpoint, settings))
        self.link = endpoint.link
        self.link.flush()
        return opening

    def opened(self, server: Scripted, **choices: object) -> ClientSession:
        settings = replace(self.settings, **choices)  # type: ignore[arg-type]
        return self.successResultOf(self.opening(server, settings))

    def refused(
        self,
        server: Scripted,
        kind: type[SessionError] = TLSFailed,
        **choices: object,
    ) -> SessionError:
        settings = replace(self.settings, **choices)  # type: ignore[arg-type]
        failure = self.failureResultOf(self.opening(server, settings), kind)
        assert isinstance(failure.value, SessionError)
        return failure.value

    def message(self, content: bytes) -> Path:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return path

    def transaction(self, content: bytes, *recipients: str) -> Transaction:
        return Transaction(
            "a@us.example",
            recipients or ("b@example.org",),
            self.message(content),
            len(content),
        )

    def delivered(
        self, session: ClientSession, transaction: Transaction
    ) -> tuple[RecipientReply, ...]:
        delivery = session.deliver(transaction)
        self.link.flush()
        return self.successResultOf(delivery)

    def assertClosed(self) -> None:
        """
        The connection is closed, without delayed calls.
        """
        self.link.flush()
        self.assertFalse(self.link.open)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assertNoMail(self, server: Scripted) -> None:
        """
        No command was sent since the handshake except QUIT (RFC 3207 4.1), and not
        even that if the server hasn't greeted.
        """
        before, tls, after = server.heard.partition(b"<TLS>\r\n")
        reply = b"QUIT\r\n" if before else b""
        self.assertEqual((tls, after), (b"<TLS>\r\n", reply))
        self.assertNotIn(b"MAIL", before)


class EnforcementTests(SessionCase):
    """
    Certificates are verified before any command is sent.
    """

    def test_enforcedMeansNothingIsSent(self) -> None:
        """
        Under an enforced policy, only QUIT follows a handshake with any fault (RFC
        7672 2.2, RFC 8461 4.1, RFC 3207 4.1).
        """
        other = good("other.example")
        untrusted = selfSigned("mx.example")
        expired = root().issue("mx.example", days=-1)
        pkix = {"enforcePKIX": True}
        dane = {"dane": (MISMATCH,)}
        both = {"enforcePKIX": True, "dane": (matching(untrusted),)}
        for identity, choices in (
            (other, pkix),
            (untrusted, pkix),
            (expired, pkix),
            (good(), dane),
            (untrusted, both),
            (good(), {"dane": (MISMATCH,), "enforcePKIX": True}),
        ):
            for mode in (TLSMode.REQUIRED, TLSMode.OPPORTUNISTIC, TLSMode.IMMEDIATE):
                immediate = mode is TLSMode.IMMEDIATE
                server = Scripted(identity.context(), immediate=immediate)
                why = self.refused(server, mode=mode, **choices)
                self.assertNoMail(server)
                self.assertTrue(why.record.enforced)
                self.assertIs(why.record.starttls, STARTTLSResult.COMPLETED)
                self.assertIsNotNone(server.lost)

    def test_noRoots(self) -> None:
        """
        Without trusted roots an enforced policy is not met.
        """
        server = Scripted(good().context())
        why = self.refused(server, trust=trusting(), enforcePKIX=True)
        assert why.record.verification is not None
        self.assertTrue(why.record.verification.noRoots)
        self.assertNoMail(server)

    def test_enforcedAndGood(self) -> None:
        """
        A certificate that pleases both DANE and the Web PKI is no obstacle.
        """
        server = Scripted(good().context())
        session = self.opened(server, enforcePKIX=True, dane=(matching(good()),))
        self.assertTrue(session.usable)
        self.assertTrue(session.secure)
        self.assertFalse(session.record.enforced)
        self.assertIs(session.record.dane, DANEVerdict.MATCHED)

    def test_daneAnchor(self) -> None:
        """
        DANE-TA: an otherwise untrusted root is accepted if the server sends it and
        the name matches (RFC 7672 3.1.2).
        """
        private = selfSigned(name="Private Root", authority=True)
        record = TLSA(2, 0, 1, hashlib.sha256(private.der).digest())
        identity = private.issue("mx.example").withRoot(private)
        session = self.opened(Scripted(identity.context()), dane=(record,))
        self.assertIs(session.record.dane, DANEVerdict.MATCHED)
        other = private.issue("other.example").withRoot(private)
        self.refused(Scripted(other.context()), dane=(record,))

    def test_unusableRecords(self) -> None:
        """
        Records that are all unusable require no authentication (RFC 7672 2.2).
        """
        session = self.opened(
            Scripted(good().context()), dane=(TLSA(1, 1, 1, bytes(32)),)
        )
        self.assertIs(session.record.dane, DANEVerdict.NOT_ASKED)

    def test_ignored(self) -> None:
        """
        Ignored errors are in the record all the same (TLS-Required: No, RFC 8689 3).
        """
        session = self.opened(
            Scripted(good("other.example").context()),
            enforcePKIX=True,
            dane=(MISMATCH,),
            ignoreVerifyErrors=True,
        )
        self.assertIs(session.record.dane, DANEVerdict.NO_MATCH)
        assert session.record.verification is not None
        self.assertFalse(session.record.verification.nameMatches)
        self.assertFalse(session.record.enforced)

    def test_notEnforced(self) -> None:
        """
        Without a policy any certificate is accepted; its faults are in the record
        (RFC 7435).
        """
        session = self.opened(Scripted(selfSigned("mx.example").context()))
        assert session.record.verification is not None
        self.assertEqual(session.record.verification.verifyErrors, ((18, 0),))
        self.assertTrue(session.usable)

    def test_anyOfTheNames(self) -> None:
        """
        The certificate may be for any of the names (RFC 7672 3.2.2).
        """
        identity = good("example.org")
        names = ("mx.example", "example.org")
        session = self.opened(
            Scripted(identity.context()), names=names, enforcePKIX=True
        )
        self.assertEqual(session.record.host, "mx.example")


class HandshakeTests(SessionCase):
    """
    Successful and failed starts of TLS.
    """

    def test_record(self) -> None:
        """
        The record has both addresses, the SNI name, and the first word of the
        greeting.
        """
        record = self.opened(Scripted(good().context())).record
        self.assertEqual(
            (record.sendingIP, record.receivingIP, record.host, record.helo),
            (CLIENT_IP, SERVER_IP, "mx.example", "mx.example"),
        )
        self.assertIs(record.starttls, STARTTLSResult.COMPLETED)
        self.assertIsNone(record.error)

    def test_sni(self) -> None:
        """
        The first name is sent in SNI; an address never is (RFC 6066 3).
        """
        for name, said in (("mx.example", b"mx.example"), ("192.0.2.2", None)):
            names: list[bytes | None] = []
            context = good().context()
            context.set_tlsext_servername_callback(
                lambda connection, names=names: names.append(  # type: ignore[misc]
                    connection.get_servername()
                )
            )
            self.opened(Scripted(context), names=(name,))
            self.assertEqual(names, [said])

    def test_notOffered(self) -> None:
        """
        Opportunistic: no offer, no TLS; that is in the record.
        """
        session = self.opened(Scripted())
        self.assertIs(session.record.starttls, STARTTLSResult.NOT_OFFERED)
        self.assertFalse(session.secure)

    def test_skip(self) -> None:
        """
        C{SKIP}: no TLS even if it is offered.
        """
        server = Scripted(good().context())
        session = self.opened(server, mode=TLSMode.SKIP)
        self.assertIs(session.record.starttls, STARTTLSResult.NOT_TRIED)
        self.assertNotIn("STARTTLS", server.commands)

    def test_refused(self) -> None:
        """
        A reply other than 220 to STARTTLS, sent though not offered.
        """
        server = Scripted()
        why = self.refused(server, mode=TLSMode.REQUIRED)
        self.assertIs(why.record.starttls, STARTTLSResult.REFUSED)
        self.assertEqual(why.record.code, 502)
        self.assertEqual(server.commands[-2:], ["STARTTLS", "QUIT"])

    def test_injected(self) -> None:
        """
        Plaintext behind the 220 ends the session, and no handshake begins
        (RFC 3207 6; CVE-2011-0411).
        """
        server = Scripted(behindStartTLS=b"250-PIPELINING\r\n250 ok\r\n")
        why = self.refused(server, mode=TLSMode.REQUIRED)
        self.assertIs(why.record.starttls, STARTTLSResult.INJECTED)
        self.assertEqual(server.commands[-1], "STARTTLS")

    def test_injectedEmptyLine(self) -> None:
        """
        An empty line is plaintext too, and so is half of one: empty lines tolerated
        between replies aren't after this one.
        """
        for behind in (b"\r\n", b"\n", b"\r"):
            server = Scripted(behindStartTLS=behind)
            why = self.refused(server, mode=TLSMode.REQUIRED)
            self.assertIs(why.record.starttls, STARTTLSResult.INJECTED)
            self.assertEqual(server.commands[-1], "STARTTLS")

    def test_notTLS(self) -> None:
        """
        A server that continues in plaintext after its 220 reply.
        """
        server = Scripted(behindStartTLS=b"")
        opening = self.opening(server, replace(self.settings, mode=TLSMode.REQUIRED))
        server._write(b"454 TLS not available, sorry\r\n")
        self.link.flush()
        record = self.recordOf(opening)
        self.assertIs(record.starttls, STARTTLSResult.BROKEN)
        assert record.error is not None
        self.assertIs(record.error.kind, Kind.NOT_TLS)

    def test_alerts(self) -> None:
        """
        RFC 8446 6: an alert is recorded by its number, known or not; also
        close_notify during a handshake.
        """
        for level, number in ((2, 40), (2, 121), (2, 200), (1, 0)):
            server = Scripted(behindStartTLS=b"")
            settings = replace(self.settings, mode=TLSMode.REQUIRED)
            opening = self.opening(server, settings)
            server._write(bytes((0x15, 3, 3, 0, 2, level, number)))
            self.link.flush()
            record = self.recordOf(opening)
            self.assertIs(record.starttls, STARTTLSResult.BROKEN)
            assert record.error is not None
            self.assertEqual(
                (record.error.kind, record.error.alert),
                (Kind.REMOTE_ALERT, number),
            )

    def test_ourAlert(self) -> None:
        """
        An alert sent by this side is recorded by its number too (RFC 8446 6.2).
        """
        server = Scripted(behindStartTLS=b"")
        opening = self.opening(server, replace(self.settings, mode=TLSMode.REQUIRED))
        # A handshake message that isn't to come from a server.
        server._write(bytes((0x16, 3, 3, 0, 4, 1, 0, 0, 0)))
        self.link.flush()
        record = self.recordOf(opening)
        assert record.error is not None
        self.assertEqual(
            (record.error.kind, record.error.alert), (Kind.LOCAL_ALERT, 10)
        )

    def test_goodbye(self) -> None:
        """
        RFC 8446 6.1: behind the handshake, reply isn't an objection to it.
        """
        server = Scripted(good().context(), {"EHLO": ["250 hi\n250 STARTTLS", ""]})
        opening = self.opening(server, self.settings)
        self.link.server.loseConnection()
        self.link.flush()
        why = self.failureResultOf(opening, SessionFailed).value
        assert isinstance(why, SessionFailed)
        self.assertIs(why.record.starttls, STARTTLSResult.COMPLETED)
        self.assertIsNone(why.record.error)

    def recordOf(self, opening: Deferred[ClientSession]) -> SessionRecord:
        value = self.failureResultOf(opening, TLSFailed).value
        assert isinstance(value, TLSFailed)
        return value.record

    def test_hangUp(self) -> None:
        """
        The server disconnects in the middle of the handshake.
        """
        server = Scripted(behindStartTLS=b"")
        opening = self.opening(server, replace(self.settings, mode=TLSMode.REQUIRED))
        self.link.hangUp()
        record = self.recordOf(opening)
        self.assertIs(record.starttls, STARTTLSResult.BROKEN)
        assert record.error is not None
        self.assertIs(record.error.kind, Kind.CLOSED)

    def test_timeout(self) -> None:
        """
        A server that doesn't go on with the handshake.
        """
        server = Scripted(behindStartTLS=b"")
        opening = self.opening(server, replace(self.settings, mode=TLSMode.REQUIRED))
        self.clock.advance(59)
        self.assertNoResult(opening)
        self.clock.advance(1)
        record = self.recordOf(opening)
        self.assertEqual(record.error, TLSError(Kind.TIMEOUT))
        self.assertClosed()

    def assertAlert(
        self, record: SessionRecord, starttls: STARTTLSResult, alert: int
    ) -> None:
        """
        The host sent an alert.
        """
        self.assertIs(record.starttls, starttls)
        assert record.error is not None
        found = record.error.kind, record.error.alert
        self.assertEqual(found, (Kind.REMOTE_ALERT, alert))

    def test_oldVersion(self) -> None:
        """
        A server with nothing newer than TLS 1.1 is refused by an alert of its own:
        RFC 8996.
        """
        context = good().context()
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        why = self.refused(Scripted(context))
        self.assertAlert(why.record, STARTTLSResult.BROKEN, 70)

    def test_alertBehindHandshake(self) -> None:
        """
        A TLS 1.3 server that requires a client certificate alerts after the client's
        handshake is complete; the session failed.
        """
        context = good().context()
        context.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True
        )
        why = self.refused(Scripted(context))
        self.assertAlert(why.record, STARTTLSResult.COMPLETED, 116)

    def test_alertLater(self) -> None:
        """
        An alert after data was received isn't a TLS failure.
        """
        server = Scripted(good().context())
        session = self.opened(server)
        server._transport.loseConnection()
        self.link.flush()
        self.assertIsNone(session.record.error)
        self.assertFalse(session.usable)

    def test_immediate(self) -> None:
        """
        C{IMMEDIATE}: TLS comes before the greeting (RFC 8314 3).
        """
        server = Scripted(good().context(), immediate=True)
        session = self.opened(server, mode=TLSMode.IMMEDIATE)
        self.assertEqual(server.commands, ["<TLS>", "EHLO us.example"])
        self.assertEqual(session.record.helo, "mx.example")
        self.assertIs(session.record.starttls, STARTTLSResult.COMPLETED)

    def test_immediateBroken(self) -> None:
        """
        A server that speaks in the clear where TLS was expected.
        """
        why = self.refused(Scripted(), mode=TLSMode.IMMEDIATE)
        assert why.record.error is not None
        self.assertIs(why.record.error.kind, Kind.NOT_TLS)

    def test_forgotten(self) -> None:
        """
        Extensions announced before TLS are discarded (RFC 3207 4.2).
        """
        server = Scripted(
            good().context(), {"EHLO": ["250 hi\n250 STARTTLS\n250 SIZE"]}
        )
        server.extensions = ()
        session = self.opened(server)
        self.assertIsNone(session.extensions.size)
        self.assertEqual(
            server.commands,
            ["EHLO us.example", "STARTTLS", "<TLS>", "EHLO us.example"],
        )


class OpeningTests(SessionCase):
    """
    Other failures before the first message.
    """

    def test_noConnection(self) -> None:
        """
        A refused connection.
        """
        endpoint = Failing(lambda: _failed(ConnectionRefusedError("no")))
        opening = Deferred.fromCoroutine(
            openSession(self.clock, endpoint, self.settings)
        )
        why = self.failureResultOf(opening, ConnectFailed).value
        assert isinstance(why, ConnectFailed)
        self.assertIs(why.record.starttls, STARTTLSResult.NOT_TRIED)
        self.assertIn("no", why.reason)

    def test_connectTimeout(self) -> None:
        """
        A connection that doesn't come about in 30 seconds.
        """
        opening = Deferred.fromCoroutine(
            openSession(self.clock, Failing(Deferred), self.settings)
        )
        self.clock.advance(29)
        self.assertNoResult(opening)
        self.clock.advance(1)
        self.failureResultOf(opening, ConnectFailed)

    def test_cancelledConnecting(self) -> None:
        """
        Cancellation cancels a connection in progress.
        """
        reactor = MemoryReactorClock()
        endpoint = addressEndpoint(reactor, "192.0.2.2", 25)
        opening = Deferred.fromCoroutine(openSession(reactor, endpoint, self.settings))
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertTrue(reactor.connectors[0].stoppedConnecting)

    def test_addresses(self) -> None:
        """
        Both families of addresses can be connected to, from a given one.
        """
        reactor = MemoryReactorClock()
        for address, local in (("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "")):
            endpoint = addressEndpoint(reactor, address, 25, local)
            Deferred.fromCoroutine(openSession(reactor, endpoint, self.settings))
        self.assertEqual(
            [(host, port, bind) for host, port, _, _, bind in reactor.tcpClients],
            [("192.0.2.2", 25, ("192.0.2.1", 0)), ("2001:db8::2", 25, None)],
        )

    def test_cancelled(self) -> None:
        """
        Cancelling while the server is idle aborts the connection.
        """
        opening = self.opening(Scripted(greeting=""), self.settings)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertClosed()

    def test_slowGreeting(self) -> None:
        """
        RFC 5321 4.5.3.2.1: five minutes for the greeting.
        """
        opening = self.opening(Scripted(greeting=""), self.settings)
        self.clock.advance(299)
        self.assertNoResult(opening)
        self.clock.advance(1)
        self.link.flush()
        self.failureResultOf(opening, SessionFailed)
        self.assertClosed()

    def test_wholeSession(self) -> None:
        """
        A server that sends slowly is cut off when the whole session has taken half an
        hour.
        """
        server = Scripted(greeting="")
        opening = self.opening(server, self.settings)
        for _ in range(30):
            self.assertNoResult(opening)
            self.clock.advance(60)
            server._write(b"2")
            self.link.flush()
        self.failureResultOf(opening, SessionFailed)

    def test_unwelcome(self) -> None:
        """
        A greeting other than 220 is the reply that ended the session.
        """
        why = self.refused(Scripted(greeting="554 go away"), SessionFailed)
        assert isinstance(why, SessionFailed) and why.reply is not None
        self.assertEqual(why.reply.code, 554)

    def test_nonsense(self) -> None:
        """
        A server that doesn't speak SMTP.
        """
        why = self.refused(Scripted(greeting="SSH-2.0-OpenSSH_9.9"), SessionFailed)
        self.assertIn("no reply", why.reason)

    def test_login(self) -> None:
        """
        Credentials are used over TLS, PLAIN before LOGIN (RFC 4954).
        """
        credentials = Credentials("user", "secret")
        server = Scripted(good().context(), {"AUTH": "235 ok"}, ("AUTH LOGIN PLAIN",))
        self.opened(server, credentials=credentials)
        self.assertEqual(server.commands[-1], "AUTH PLAIN AHVzZXIAc2VjcmV0")
        why = self.refused(
            Scripted(extensions=("AUTH PLAIN",)),
            SessionFailed,
            credentials=credentials,
        )
        self.assertIn("TLS", why.reason)


def _failed(why: Exception) -> Deferred[IProtocol]:
    failed: Deferred[IProtocol] = Deferred()
    failed.errback(Failure(why))
    return failed


class DeliveryTests(SessionCase):
    """
    Tests for L{ClientSession.deliver} and L{ClientSession.quit}.
    """

    def test_messages(self) -> None:
        """
        Several messages go through one session, each recipient with a reply.
        """
        server = Scripted(good().context(), {"RCPT": ["250 ok", "550 5.1.1 who?"]})
        session = self.opened(server)
        first = self.delivered(
            session, self.transaction(b"1\r\n", "b@example.org", "c@example.org")
        )
        self.assertEqual(
            [(each.recipient, str(each.reply)) for each in first],
            [
                ("b@example.org", "250 2.0.0 queued"),
                ("c@example.org", "550 5.1.1 who?"),
            ],
        )
        self.delivered(session, self.transaction(b"2\r\n"))
        self.assertEqual(server.messages, [b"1\r\n", b"2\r\n"])
        self.assertNotIn("RSET", server.commands)

    def test_flatMemory(self) -> None:
        """
        A large message is read at the pace of the connection.
        """
        content = (b".connection\r\n" + b"x" * 70 + b"\r\n") * 60000
        for context in (None, good().context()):
            server = Scripted(context, extensions=())
            session = self.opened(server)
            (reply,) = self.delivered(session, self.transaction(content))
            self.assertEqual(reply.reply.code, 250)
            self.assertEqual(server.messages, [content])
            self.assertLess(self.link.client.below.peak, 4 * BUFFER)

    def test_unreadable(self) -> None:
        """
        An unreadable message is a local error, and nothing is sent.
        """
        server = Scripted()
        session = self.opened(server)
        transaction = replace(self.transaction(b""), path=Path("/nonexistent"))
        self.failureResultOf(session.deliver(transaction), OSError)
        self.assertEqual(server.commands, ["EHLO us.example"])

    def test_slowTaker(self) -> None:
        """
        RFC 5321 4.5.3.2.5: three minutes for each part of a message.
        """
        server = Scripted(extensions=())
        session = self.opened(server)
        delivery = session.deliver(self.transaction(b"x" * 10 * BUFFER))
        while not self.link.client.below.paused:
            self.link._move(self.link.server, self.link.client)
            if not self.link.client.below.paused:
                self.link._move(self.link.client, self.link.server)
        self.clock.advance(179)
        self.assertNoResult(delivery)
        self.clock.advance(1)
        self.link.flush()
        self.failureResultOf(delivery, SessionFailed)
        self.assertClosed()

    def test_slowEnd(self) -> None:
        """
        RFC 5321 4.5.3.2.6: ten minutes for the reply to the final dot.
        """
        server = Scripted(None, {"END": ""})
        delivery = self.opened(server).deliver(self.transaction(b"x\r\n"))
        self.link.flush()
        self.clock.advance(599)
        self.assertNoResult(delivery)
        self.clock.advance(1)
        self.link.flush()
        self.failureResultOf(delivery, SessionFailed)

    def test_lost(self) -> None:
        """
        Replies received before the connection was lost are kept.
        """
        server = Scripted(None, {"RCPT": ["550 5.1.1 who?", "250 ok"], "END": ""})
        session = self.opened(server)
        delivery = session.deliver(
            self.transaction(b"x\r\n", "b@example.org", "c@example.org")
        )
        self.link.flush()
        self.link.hangUp()
        why = self.failureResultOf(delivery, SessionFailed).value
        assert isinstance(why, SessionFailed)
        self.assertEqual(
            [(each.recipient, each.reply.code) for each in why.decided],
            [("b@example.org", 550)],
        )
        self.assertFalse(session.usable)

    def test_closing(self) -> None:
        """
        RFC 5321 3.8: 421 is the answer for all that have none, and the end.
        """
        server = Scripted(None, {"MAIL": "421 4.3.2 going down"}, ())
        session = self.opened(server)
        (reply,) = self.delivered(session, self.transaction(b"x\r\n"))
        self.assertEqual(str(reply.reply), "421 4.3.2 going down")
        self.assertFalse(session.usable)
        self.failureResultOf(session.deliver(self.transaction(b"")), SessionFailed)

    def test_limits(self) -> None:
        """
        RFC 9422: no more recipients in a transaction, and no more
        transactions in a session, than the server announced.
        """
        server = Scripted(
            extensions=("PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=2 RCPTDOMAINMAX=9")
        )
        session = self.opened(server)
        recipients = tuple(f"{each}@example.org" for each in "abcde")
        delivery = session.deliver(self.transaction(b"x\r\n", *recipients))
        self.link.flush()
        why = self.failureResultOf(delivery, TransactionsExhausted).value
        assert isinstance(why, TransactionsExhausted)
        self.assertEqual([each.recipient for each in why.decided], list(recipients[:4]))
        self.assertEqual(len(server.messages), 2)
        self.assertFalse(session.usable)

    def test_earlyRefusal(self) -> None:
        """
        A reply in the middle of a message ends its transfer.
        """
        server = Scripted(extensions=())
        session = self.opened(server)
        delivery = session.deliver(self.transaction(b"x" * 10 * BUFFER))
        while not self.link.client.below.paused:
            self.link._move(self.link.server, self.link.client)
            if not self.link.client.below.paused:
                self.link._move(self.link.client, self.link.server)
        server._write(b"552 5.3.4 enough\r\n")
        self.link._move(self.link.server, self.link.client)
        (reply,) = self.successResultOf(delivery)
        self.assertEqual(reply.reply.code, 552)
        self.link.flush()
        self.assertEqual(server.messages, [])
        self.assertClosed()

    def test_cancelled(self) -> None:
        """
        Cancelling a delivery aborts the connection.
        """
        session = self.opened(Scripted(None, {"MAIL": ""}, ()))
        delivery = session.deliver(self.transaction(b""))
        self.link.flush()
        delivery.cancel()
        self.failureResultOf(delivery, CancelledError)
        self.assertClosed()

    def test_quit(self) -> None:
        """
        QUIT is sent, and the connection closed at both ends.
        """
        for context in (None, good().context()):
            server = Scripted(context)
            session = self.opened(server)
            closed = session.quit()
            self.link.flush()
            self.successResultOf(closed)
            self.assertEqual(server.commands[-1], "QUIT")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowQuit(self) -> None:
        """
        A server has five seconds to reply to QUIT and close the connection.
        """
        session = self.opened(Scripted(None, {"QUIT": ""}))
        closed = session.quit()
        self.assertNoResult(closed)
        self.link.flush()
        self.clock.advance(4)
        self.assertNoResult(closed)
        self.clock.advance(1)
        self.link.flush()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """
        A session whose server disconnects while it is idle is unusable.
        """
        session = self.opened(Scripted())
        self.link.hangUp()
        self.assertFalse(session.usable)
        self.failureResultOf(session.deliver(self.transaction(b"")), SessionFailed)
        self.successResultOf(session.quit())

    def test_timeouts(self) -> None:
        """
        The defaults are those of RFC 5321 4.5.3.2.
        """
        usual = Timeouts()
        self.assertEqual(
            (usual.greeting, usual.mail, usual.recipient, usual.data),
            (300, 300, 300, 120),
        )
        self.assertEqual((usual.block, usual.end), (180, 600))


class TLSErrorOfTests(SynchronousTestCase):
    """
    Tests for L{tlsErrorOf}.
    """

    def error(self, *reasons: str) -> tuple[Kind, int | None]:
        error = SSL.Error([("SSL routines", "", each) for each in reasons])
        seen = tlsErrorOf(Failure(error))
        return seen.kind, seen.alert

    def test_alerts(self) -> None:
        """
        Alerts are recognized in the spellings of OpenSSL 1.1, 3 and 4.
        """
        for words, number in (
            ("sslv3 alert handshake failure", 40),
            ("ssl/tls alert handshake failure", 40),
            ("tls alert handshake failure", 40),
            ("tlsv1 alert protocol version", 70),
            ("tlsv13 alert certificate required", 116),
            ("tlsv1 unrecognized name", 112),
        ):
            self.assertEqual(self.error(words), (Kind.REMOTE_ALERT, number))

    def test_unknownAlert(self) -> None:
        """
        OpenSSL has no text for unknown alerts.
        """
        self.assertEqual(self.error(""), (Kind.REMOTE_ALERT, None))

    def test_others(self) -> None:
        """
        Peers that don't speak TLS, local alerts, and other errors.
        """
        self.assertEqual(self.error("wrong version number"), (Kind.NOT_TLS, None))
        self.assertEqual(
            self.error("data length too long", "record layer failure"),
            (Kind.NOT_TLS, None),
        )
        self.assertEqual(self.error("unsupported protocol"), (Kind.LOCAL_ALERT, 70))
        self.assertEqual(
            self.error("unexpected eof while reading"), (Kind.CLOSED, None)
        )
        self.assertEqual(self.error("what's this"), (Kind.OTHER, None))
        self.assertEqual(tlsErrorOf(Failure(SSL.Error([]))).kind, Kind.CLOSED)
        self.assertEqual(tlsErrorOf(Failure(TimeoutError())).kind, Kind.TIMEOUT)
        self.assertEqual(tlsErrorOf(Failure(ValueError())).kind, Kind.OTHER)
