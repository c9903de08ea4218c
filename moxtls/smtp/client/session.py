# -*- test-case-name: tests.smtp.client.test_session -*-
"""
SMTP client sessions over Twisted transports: TLS, authentication, transactions and
timeouts.

This is the only place that accepts or rejects a certificate, as the settings say:
L{RecordingVerifier} only records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from cryptography.x509 import Certificate
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    IReactorTime,
    IStreamClientEndpoint,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.domain import Domain, InvalidDomain
from moxtls.ipaddresses import canonicalIP
from moxtls.smtp.client.connection import (
    BodySender,
    ClientSettings,
    SessionError,
    SessionFailed,
    TLSFailed,
    TransactionCancelled,
    TransactionsExhausted,
    connect,
    timeoutFor,
)
from moxtls.smtp.client.conversation import (
    Awaiting,
    ClientConversation,
    ClientEvent,
    EndCause,
    Ended,
    Ready,
    Send,
    SendBody,
    StartHandshake,
    Transferred,
)
from moxtls.smtp.client.replies import Extensions, splitByLimits
from moxtls.smtp.types import RecipientReply, TLSMode, Transaction
from moxtls.tasks import Timeout
from moxtls.tls.dane import DANEVerdict, verifyDANE
from moxtls.tls.openssl import RecordingVerifier, tlsErrorOf
from moxtls.tls.session import (
    CLOSE_NOTIFY,
    SessionRecord,
    STARTTLSResult,
    TLSError,
    certificateFailure,
)

_MISMATCHES = (DANEVerdict.NO_MATCH, DANEVerdict.NO_MATCH_WITH_ERRORS)


class _ITransport(ITLSTransport, IConsumer):
    """
    The interfaces of a reactor's transport that a session uses.
    """


@implementer(IHandshakeListener)
class ClientSession(Protocol):
    """
    The session on one connection.  Made by L{openSession}.
    """

    def __init__(self, clock: IReactorTime, settings: ClientSettings) -> None:
        self._clock = clock
        self._settings = settings
        self._conversation = ClientConversation(
            settings.ehlo, settings.mode, settings.credentials, isLMTP=settings.isLMTP
        )
        serverName = "".join(settings.names[:1])
        webNames = settings.webNames or settings.names
        self._verifier = RecordingVerifier(settings.trust, webNames, serverName)
        self._record = SessionRecord(host=serverName)
        self._starttls: STARTTLSResult | None = None
        self._hasReceived = False
        self._isUnanswered = False
        self._over = False
        self._failure: SessionError | None = None
        self._opening: Deferred[None] | None = None
        self._pending: Deferred[tuple[RecipientReply, ...]] | None = None
        self._ready: Deferred[None] | None = None
        self._maxFinish: float = 0
        self._message: BinaryIO | None = None
        self._sender: BodySender | None = None
        self._connection: _ITransport | None = None
        self._closing: list[Deferred[None]] = []
        self._stepTimeout = Timeout(clock, self._stepTimedOut)
        self._sessionTimeout = Timeout(clock, self._timedOut)

    # --- public interface --------------------------------------------------

    @property
    def record(self) -> SessionRecord:
        """
        The TLS record so far.
        """
        conversation = self._conversation
        starttls = self._starttls or conversation.starttls
        return replace(
            self._record,
            helo=conversation.helo,
            starttls=starttls,
            code=conversation.code,
        )

    @property
    def secure(self) -> bool:
        """
        True if TLS is in use.
        """
        return self._conversation.secure

    @property
    def extensions(self) -> Extensions:
        return self._conversation.extensions

    @property
    def usable(self) -> bool:
        """
        True if C{deliver} can be called.
        """
        return not self._over and self._conversation.usable

    def deliver(
        self,
        transaction: Transaction,
        ready: Deferred[None] | None = None,
        message: BinaryIO | None = None,
        maxFinish: float = 0,
    ) -> Deferred[tuple[RecipientReply, ...]]:
        """
        Send one message.

        @param ready: No message data is sent before this has fired.
        @param message: Read instead of the file C{transaction.path}, and closed
            at the end.
        @param maxFinish: Seconds to wait for the replies of a server that has the
            whole message, and may deliver it, when the transaction is cancelled.

        @return: Fires with a reply for each recipient, in any order.  Fails
            with L{TransactionsExhausted} if the remaining recipients need another
            connection, with L{SessionFailed} if this one ended before all
            recipients had a reply, and with C{OSError} if the message can't be
            read.  Cancelling aborts the connection; after C{maxFinish}, if that
            applies, or fails with L{TransactionCancelled}.
        """
        self._ready = ready
        self._maxFinish = maxFinish
        return Deferred.fromCoroutine(self._deliver(transaction, message))

    def quit(self) -> Deferred[None]:
        """
        Send QUIT and close the connection.  In the middle of a transaction, abort.

        @return: Fires when the connection is closed.  Cancelling aborts it.
        """
        if self._conversation.awaiting is Awaiting.NOTHING and not self._over:
            self._handleEvents(self._conversation.quit())
        elif not self._over:
            self.abort()
        return self._closed()

    def stop(self) -> Deferred[None]:
        """
        Like L{quit}, for a session that other code uses: a transaction that is under
        way fails.
        """
        if self._conversation.awaiting is not Awaiting.NOTHING and not self._over:
            self._failPending(SessionFailed(self.record, "connection aborted"))
        return self.quit()

    def abort(self) -> None:
        """
        Close the connection at once.  A transaction that is under way never ends.
        """
        self._finish()
        if self._connection is not None:
            self._connection.abortConnection()

    async def open(self, endpoint: IStreamClientEndpoint) -> None:
        """
        Connect, and wait until transactions may begin.  Cancelling aborts the
        connection.

        @raise SessionError: The session can't be opened.
        """
        opening = self._opening = Deferred(self._cancelled)
        seconds = self._settings.timeouts.connect
        try:
            await connect(self._clock, endpoint, self, self.record, seconds)
        except (CancelledError, SessionError):
            # A connection that is made nevertheless is then closed at once.
            self._opening = None
            self.abort()
            raise
        await opening

    # --- Protocol --------------------------------------------------------------

    def connectionMade(self) -> None:
        connection: _ITransport = self.transport  # type: ignore[assignment]  # all are
        self._connection = connection
        self._record = replace(
            self._record,
            sendingIP=_ip(connection.getHost()),
            receivingIP=_ip(connection.getPeer()),
        )
        if self._over:
            self.abort()
            return
        # Every write is complete: there is nothing to wait for.
        if isinstance(connection.getPeer(), (IPv4Address, IPv6Address)):
            connection.setTcpNoDelay(True)
        self._sessionTimeout.set(self._settings.timeouts.session)
        if self._settings.mode is TLSMode.IMMEDIATE:
            self._startTLS()
        self._wait()

    def dataReceived(self, data: bytes) -> None:
        if not self._over:
            self._hasReceived = True
            self._isUnanswered = False
            self._handleEvents(self._conversation.receive(data))

    def handshakeCompleted(self) -> None:
        """
        Accept or reject the certificate.  Nothing has been sent over TLS yet.
        """
        if self._over:
            return
        verification = self._verifier.verification()
        dane = self._verifyDANE(verification.chain)
        mismatch = dane in _MISMATCHES
        isUntrusted = self._settings.enforcePKIX and not verification.ok
        enforced = (mismatch or isUntrusted) and not self._settings.ignoreVerifyErrors
        self._starttls = STARTTLSResult.COMPLETED
        self._hasReceived = False
        self._record = replace(
            self._record, verification=verification, dane=dane, enforced=enforced
        )
        if enforced:
            words = certificateFailure(verification) or ()
            why = " ".join(["refused:", *filter(None, words)])
            if mismatch:
                why = "certificate: DANE doesn't match"
            if (
                self._connection is not None
                and self._settings.mode is not TLSMode.IMMEDIATE
            ):
                # RFC 3207 4.1: send QUIT rather than just close the connection.
                self._connection.write(b"QUIT\r\n")
            self._failWith(TLSFailed(self.record, why))
        else:
            self._handleEvents(self._conversation.secured())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connection = None
        if not self._over:
            self._failWith(self._connectionLostError(reason))
        self._stepTimeout.set(None)
        closing, self._closing = self._closing, []
        for each in closing:
            each.callback(None)

    # --- TLS -------------------------------------------------------------------

    def _startTLS(self) -> None:
        assert self._connection is not None
        self._connection.startTLS(self._verifier)

    def _verifyDANE(self, chain: Sequence[Certificate]) -> DANEVerdict:
        if not self._settings.dane:
            return DANEVerdict.NOT_ASKED
        names = [name for each in self._settings.names for name in _domain(each)]
        now = self._clock.seconds()
        return verifyDANE(self._settings.dane, chain, names, now)

    def _connectionLostError(self, reason: Failure) -> SessionError:
        """
        The reason why the other side or the network closed the connection.
        """
        error = tlsErrorOf(reason, self._verifier.alert)
        if self._conversation.awaiting is Awaiting.HANDSHAKE:
            return self._handshakeFailed(error)
        if self._conversation.awaiting is Awaiting.STARTTLS:
            self._unanswered(error)
        if (
            self.secure
            and not self._hasReceived
            and error.kind is TLSError.Kind.REMOTE_ALERT
            and error.alert != CLOSE_NOTIFY
        ):
            # In TLS 1.3 a server can only reject the client after the handshake.
            self._record = replace(self._record, error=error)
            return TLSFailed(self.record, f"after the handshake: {_describe(error)}")
        why = reason.getErrorMessage()
        return SessionFailed(
            self.record,
            f"connection lost: {why}",
            None,
            self._conversation.partialReplies(),
            self._isUnanswered,
        )

    def _handshakeFailed(self, error: TLSError) -> TLSFailed:
        self._starttls = STARTTLSResult.BROKEN
        self._record = replace(self._record, error=error)
        return TLSFailed(self.record, f"handshake: {_describe(error)}")

    def _unanswered(self, error: TLSError) -> None:
        """
        Record that STARTTLS got no reply.
        """
        self._starttls = STARTTLSResult.UNANSWERED
        self._record = replace(self._record, error=error)

    # --- transactions ----------------------------------------------------------

    async def _deliver(
        self, transaction: Transaction, source: BinaryIO | None
    ) -> tuple[RecipientReply, ...]:
        replies: tuple[RecipientReply, ...] = ()
        with source or open(transaction.path, "rb") as message:
            for part in splitByLimits(transaction, self.extensions):
                if replies and not self._over and not self.usable:
                    why = "no more transactions in this session"
                    raise TransactionsExhausted(self.record, why, None, replies)
                try:
                    if replies:
                        message.seek(0)
                    replies += await self._transact(part, message)
                except SessionFailed as why:
                    why.decided = replies + why.decided
                    raise
                except OSError as why:
                    if not replies:
                        raise
                    # Recipients with a reply keep it; the rest is tried again.
                    reason = f"the message can't be read: {why.strerror}"
                    raise SessionFailed(self.record, reason, None, replies) from why
        return replies

    async def _transact(
        self, transaction: Transaction, message: BinaryIO
    ) -> tuple[RecipientReply, ...]:
        if not self.usable:
            why = self._failure.reason if self._failure else "no more transactions"
            raise SessionFailed(self.record, f"session not usable: {why}")
        self._message = message
        self._isUnanswered = True
        pending = self._pending = Deferred(self._cancelled)
        self._handleEvents(self._conversation.begin(transaction))
        try:
            return await pending
        except CancelledError:
            if self._over:
                raise
        # The server has the whole message.
        last = self._pending = Deferred(self._cancelled)
        self._sessionTimeout.set(self._maxFinish)
        self._maxFinish = 0
        try:
            replies = await last
        except SessionFailed:
            raise CancelledError() from None
        raise TransactionCancelled(replies)

    def _sendBody(self) -> None:
        ready, pending = self._ready, self._pending
        if ready is None or ready.called:
            self._startBody()
            return

        def start(result: None) -> None:
            # The transaction may have ended in the meantime.
            if self._pending is pending and not self._over:
                self._startBody()

        ready.addCallback(start)

    def _startBody(self) -> None:
        assert self._connection is not None and self._message is not None
        self._sender = BodySender(
            self._message, self._connection, self._wait, self._bodySent
        )
        self._sender.start()

    def _bodySent(self, why: OSError | None) -> None:
        self._sender = None
        if why is None:
            self._conversation.finish()
            self._wait()
            return
        # Only closing the connection prevents the delivery of half a message.
        pending, self._pending = self._pending, None
        self.abort()
        if pending is not None:
            pending.errback(Failure(why))

    def _transferred(self, replies: tuple[RecipientReply, ...]) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.callback(replies)

    # --- events of the conversation --------------------------------------------

    def _handleEvents(self, events: Sequence[ClientEvent]) -> None:
        for event in events:
            self._handleEvent(event)
        self._wait()

    def _handleEvent(self, event: ClientEvent) -> None:
        match event:
            case Send(data):
                assert self._connection is not None
                self._connection.write(data)
            case StartHandshake():
                self._startTLS()
            case SendBody():
                self._sendBody()
            case Transferred(replies):
                self._transferred(replies)
            case Ready():
                opening, self._opening = self._opening, None
                if opening is not None:
                    opening.callback(None)
            case Ended():
                self._ended(event)

    def _ended(self, event: Ended) -> None:
        if self._conversation.starttls is STARTTLSResult.UNANSWERED:
            self._unanswered(TLSError(TLSError.Kind.NOT_SMTP))
        if event.cause in (EndCause.NO_TLS, EndCause.INJECTED):
            self._failWith(TLSFailed(self.record, event.reason, event.reply))
        elif event.cause is not EndCause.QUIT:
            decided = self._conversation.partialReplies()
            self._failWith(
                SessionFailed(self.record, event.reason, event.reply, decided)
            )
        else:
            self._finish()
            self._close()

    # --- timeouts and closing --------------------------------------------------

    def _wait(self) -> None:
        """
        Start the timeout for the server's next action.
        """
        if not self._over:
            self._stepTimeout.set(
                timeoutFor(self._settings.timeouts, self._conversation.awaiting)
            )

    def _stepTimedOut(self) -> None:
        if self._conversation.awaiting is Awaiting.NOTHING and not self._over:
            self.quit()
        else:
            self._timedOut()

    def _timedOut(self) -> None:
        awaiting = self._conversation.awaiting
        error = TLSError(TLSError.Kind.TIMEOUT)
        if self._over:
            self.abort()
        elif awaiting is Awaiting.HANDSHAKE:
            self._failWith(self._handshakeFailed(error), graceful=False)
        else:
            if awaiting is Awaiting.STARTTLS:
                self._unanswered(error)
            why = f"too slow: {awaiting.name}"
            decided = self._conversation.partialReplies()
            failed = SessionFailed(self.record, why, None, decided)
            self._failWith(failed, graceful=False)

    def _finish(self) -> None:
        """
        End the session, except for closing the connection.
        """
        self._over = True
        self._stepTimeout.set(None)
        self._sessionTimeout.set(None)
        if self._sender is not None:
            self._sender.stop()
            self._sender = None

    def _failWith(self, why: SessionError, graceful: bool = True) -> None:
        self._finish()
        self._failure = why
        if graceful:
            self._close()
        else:
            self.abort()
        self._failPending(why)

    def _failPending(self, why: SessionError) -> None:
        opening, self._opening = self._opening, None
        pending, self._pending = self._pending, None
        if opening is not None:
            opening.errback(Failure(why))
        if pending is not None:
            pending.errback(Failure(why))

    def _cancelled(self, waiting: object) -> None:
        # Twisted makes the cancelled Deferred fail.
        self._opening = self._pending = None
        if not (self._maxFinish and self._conversation.awaiting is Awaiting.END):
            self.abort()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.loseConnection()
            # TLS waits for the other side's close_notify.
            self._stepTimeout.set(self._settings.timeouts.quit)

    def _closed(self) -> Deferred[None]:
        closed: Deferred[None] = Deferred(lambda _: self.abort())
        if self._connection is None:
            closed.callback(None)
        else:
            self._closing.append(closed)
        return closed


def _describe(error: TLSError) -> str:
    kind = error.kind.name.lower().replace("_", " ")
    return f"{kind} ({error.reason})" if error.reason else kind


def _ip(address: object) -> str:
    if isinstance(address, (IPv4Address, IPv6Address)):
        return canonicalIP(address.host)
    return ""


def _domain(name: str) -> list[Domain]:
    try:
        return [Domain.parse(name)]
    except InvalidDomain:
        return []


async def openSession(
    reactor: IReactorTime, endpoint: IStreamClientEndpoint, settings: ClientSettings
) -> ClientSession:
    """
    Connect, start TLS and log in as C{settings} say.  Cancelling aborts the
    connection.

    @raise SessionError: The session can't be opened.
    """
    session = ClientSession(reactor, settings)
    await session.open(endpoint)
    return session
