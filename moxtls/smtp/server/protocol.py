# -*- test-case-name: tests.smtp.server.test_factory -*-
"""
SMTP server sessions over Twisted transports.

Most events are answered at once, so a session is a loop over received input rather
than a coroutine: the loop stops where it has to wait for a Deferred, and resumes
there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from OpenSSL import SSL
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
    ITLSTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from moxtls.message.header import ClientInfo
from moxtls.smtp.authenticator import Authenticator
from moxtls.smtp.rates import ClientNetwork
from moxtls.smtp.sasl import (
    Authenticated,
    Challenge,
    Postponed,
    SASLStep,
    ServerExchange,
)
from moxtls.smtp.server.conversation import ServerConversation
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery, ListenerSettings
from moxtls.smtp.server.state import (
    GO_AHEAD,
    AuthStep,
    BodyChunk,
    BodyEnd,
    BodyFailed,
    DataStart,
    MailFrom,
    RcptTo,
    ServerEvent,
    StartTLS,
)
from moxtls.smtp.server.transport import SessionTimeouts
from moxtls.smtp.types import Reply

#: Octets of input after an unanswered command at which reading pauses.
PAUSE_BACKLOG_LENGTH = 64 * 1024

_BROKEN = Reply(451, "4.3.0", "Internal error; try again later")
_LOGIN_BROKEN = Reply(454, "4.7.0", "Internal error; try again later")
_DENIED = Reply(535, "5.7.8", "Authentication credentials invalid")
# RFC 4954 6: the user isn't to be asked for another password.
_LATER = Reply(454, "4.7.0", "Too many failed logins; try again later")
_STOPPING = Reply(421, "4.3.2", "Shutting down")
_CROWDED = Reply(421, "4.3.2", "Too many connections; try again later")

T = TypeVar("T")


class IServerTransport(ITLSTransport, IPushProducer):
    """
    The transport of a session: L{moxtls.smtp.server.transport.ServerTransport}.
    """

    def end(data: bytes) -> None:
        """
        Write the last data, and close the connection.
        """


class IServerFactory(Interface):
    """
    The factory of a session, as the session uses it.
    """

    clock: IReactorTime = Attribute("For timeouts.")
    settings: ListenerSettings = Attribute("Of all sessions.")
    delivery: IMessageDelivery = Attribute("Accepts or refuses mail.")
    tls: IOpenSSLServerConnectionCreator | None = Attribute("For STARTTLS.")
    authenticator: Authenticator | None = Attribute("For AUTH.")

    def refuseMail(source: ClientNetwork) -> Reply | None:
        """
        Check the message rate of a client, and count a message.

        @return: The reply to MAIL if the rate is exceeded; the message isn't
            counted then.
        """

    def opened(session: ServerSession, source: ClientNetwork) -> None:
        """
        Called when a session begins.
        """

    def closed(session: ServerSession, source: ClientNetwork) -> None:
        """
        Called when a session has ended and released everything.
        """


class ServerSession(protocol.Protocol):
    """
    The session on one connection: carries out the events of a
    L{ServerConversation}.
    """

    log = Logger()
    transport: IServerTransport
    _timeouts: SessionTimeouts

    def __init__(self, factory: IServerFactory, source: ClientNetwork) -> None:
        """
        @param source: The client's address and network, for limits.
        """
        self._factory = factory
        self._source = source
        settings = factory.settings
        self._conversation = ServerConversation(settings.server, settings.immediateTLS)
        # True while the event loop runs; the time since which it waits.
        self._isRunning = False
        self._waitingSince: float | None = None
        self._cancelWait: Callable[[], None] | None = None
        self._closingReply: Reply | None = None
        self._lost = False
        self._isReading = True
        self._closing = False
        self._client: ClientInfo | None = None
        self._message: IMessage | None = None
        self._exchange: ServerExchange | None = None

    # --- Protocol ----------------------------------------------------------

    def connectionMade(self) -> None:
        # Replies are small, and the client waits for each.
        noDelay = getattr(self.transport, "setTcpNoDelay", None)
        if noDelay is not None:
            noDelay(True)
        self._timeouts = SessionTimeouts(
            self._factory.clock, self._factory.settings, self
        )
        self._factory.opened(self, self._source)
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        conversation = self._conversation
        conversation.receive(data)
        if conversation.inMessage:
            self._timeouts.received(len(data))
        if self.isBusy:
            self._regulate()
        else:
            self._handleEvents()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._timeouts.stop()
        if not self.isBusy:
            self._cleanUp()
        elif self._cancelWait is not None:
            self._cancelWait()

    # --- for the factory -------------------------------------------------------

    @property
    def lastActivity(self) -> float:
        """
        The time of the latest input or output.
        """
        return self._timeouts.lastActivity

    def stop(self) -> None:
        """
        Close the session on shutdown, once no event is in progress.
        """
        self.closeWith(_STOPPING)

    def evict(self) -> None:
        """
        Close the session to make room for another, once no event is in progress.
        """
        self.closeWith(_CROWDED)

    # --- for the timeouts ------------------------------------------------------

    @property
    def isBusy(self) -> bool:
        """
        True while an event is in progress.
        """
        return self._isRunning or self._waitingSince is not None

    @property
    def inMessage(self) -> bool:
        """
        True while a message is received.
        """
        return self._conversation.inMessage

    def closeWith(self, reply: Reply) -> None:
        """
        Send a last reply and close the connection, once no event is in progress.
        """
        self._closingReply = reply
        if self.isBusy:
            # A message that is being accepted still gets its reply.
            self._timeouts.startClosing()
        else:
            self._flushAndRegulate()

    def abort(self) -> None:
        """
        Close the connection at once.
        """
        if not self._lost:
            self.transport.abortConnection()

    # --- the event loop ------------------------------------------------------

    def _handleEvents(self) -> None:
        self._isRunning = True
        try:
            while (event := self._next()) is not None:
                _METHODS[type(event)](self, event)
        except Exception:
            self._logFailure("event loop")
            self.abort()
        finally:
            self._isRunning = False
        if self._waitingSince is not None:
            self._flush()
            self._regulate()
        elif self._lost:
            self._cleanUp()
        else:
            self._flushAndRegulate()

    def _next(self) -> ServerEvent | None:
        if (
            self._waitingSince is not None
            or self._lost
            or self._closingReply is not None
        ):
            return None
        return self._conversation.nextEvent()

    def _flushAndRegulate(self) -> None:
        if self._closingReply is not None:
            self._conversation.end(self._closingReply)
        self._flush()
        self._regulate()

    def _await(
        self,
        answer: Deferred[T],
        then: Callable[[T], None],
        broken: Callable[[], None],
        isCancelled: bool = True,
    ) -> None:
        """
        Stop the event loop until C{answer} fires, and pass its result to C{then}.

        @param broken: Called instead if it fails.
        @param isCancelled: Cancel C{answer} if the connection is lost.
        """
        self._waitingSince = self._factory.clock.seconds()
        self._cancelWait = answer.cancel if isCancelled else None
        answer.addCallbacks(
            self._resume, self._failed, callbackArgs=(then,), errbackArgs=(broken,)
        )

    def _resume(self, result: T, then: Callable[[T], None]) -> None:
        self._answered()
        then(result)
        if not self._isRunning:
            self._handleEvents()

    def _failed(self, failure: Failure, broken: Callable[[], None]) -> None:
        self._answered()
        if not (self._lost and failure.check(CancelledError)):
            self._logFailure("asynchronous operation", failure)
        broken()
        if not self._isRunning:
            self._handleEvents()

    def _answered(self) -> None:
        if self._waitingSince is not None and not self._isRunning:
            self._timeouts.excludeTime(
                self._factory.clock.seconds() - self._waitingSince
            )
        self._waitingSince = self._cancelWait = None

    # --- events ----------------------------------------------------------------

    def _decide(
        self, verb: str, ask: Callable[..., Deferred[Reply]], *arguments: object
    ) -> None:
        try:
            answer = ask(*arguments)
        except Exception:
            self._logFailure(f"policy decision for {verb}")
            self._fail()
            return
        self._reply(answer)

    def _reply(self, answer: Deferred[Reply], isCancelled: bool = True) -> None:
        if answer.called and not answer.paused and isinstance(answer.result, Reply):
            # The most frequent case: no callback is needed.
            self._conversation.reply(answer.result)
        else:
            then = self._conversation.reply
            self._await(answer, then, self._fail, isCancelled)

    def _fail(self) -> None:
        self._conversation.reply(_BROKEN)

    def _mailFrom(self, event: MailFrom) -> None:
        refusal = self._factory.refuseMail(self._source)
        if refusal is not None:
            self._conversation.reply(refusal)
            return
        ask = self._factory.delivery.mailFrom
        self._decide("MAIL", ask, self._clientInfo(), event.transaction)

    def _rcptTo(self, event: RcptTo) -> None:
        ask = self._factory.delivery.rcptTo
        client, transaction = self._clientInfo(), event.transaction
        self._decide("RCPT", ask, client, transaction, event.recipient)

    def _dataStart(self, event: DataStart) -> None:
        try:
            client, transaction = self._clientInfo(), event.transaction
            self._message = self._factory.delivery.message(client, transaction)
        except Exception:
            self._logFailure("beginning of a message")
            self._fail()
            return
        self._timeouts.messageBegins()
        self._conversation.reply(GO_AHEAD)

    def _bodyChunk(self, event: BodyChunk) -> None:
        if self._message is None:
            return
        try:
            full = self._message.write(event.data)
        except Exception:
            # The client gets a negative reply after the end of the data.
            self._logFailure("storing of message data")
            self._dropMessage()
            return
        if full is not None:
            self._await(full, lambda _: None, self._dropMessage)

    def _bodyFailed(self, event: BodyFailed) -> None:
        self._dropMessage()

    def _bodyEnd(self, event: BodyEnd) -> None:
        message, self._message = self._message, None
        if message is None:
            self._fail()
            return
        try:
            answer = message.finish()
        except Exception:
            self._logFailure("acceptance of a message")
            self._fail()
            return
        self._reply(answer, isCancelled=False)

    def _authStep(self, event: AuthStep) -> None:
        authenticator = self._factory.authenticator
        if authenticator is None:
            self._loginFailed()
            return
        checking = Deferred.fromCoroutine(self._checked(authenticator, event))
        self._await(checking, self._loginStepDone, self._loginFailed)

    async def _checked(self, authenticator: Authenticator, event: AuthStep) -> SASLStep:
        if event.first or self._exchange is None:
            self._exchange = authenticator.begin(event.mechanism)
        clock = self._factory.clock
        return await authenticator.step(
            clock, self._exchange, event.response, self._source
        )

    def _loginFailed(self) -> None:
        self._conversation.reply(_LOGIN_BROKEN)

    def _loginStepDone(self, step: SASLStep) -> None:
        match step:
            case Challenge():
                self._conversation.challenge(step.data)
            case Authenticated():
                self._conversation.authenticated(step.user)
            case Postponed():
                self._conversation.reply(_LATER)
            case _:
                host = self._clientInfo().address
                self.log.info("failed login from {host!r}", host=host)
                self._conversation.reply(_DENIED)

    def _startTLS(self, event: StartTLS) -> None:
        self._flush()
        self._dropMessage()
        self._exchange = None
        self._client = None
        if self._factory.tls is None:
            self._conversation.end(_BROKEN)
            return
        self.transport.startTLS(self._factory.tls)
        self._conversation.tlsStarted()

    # --- the connection --------------------------------------------------------

    def _clientInfo(self) -> ClientInfo:
        """
        The client's data; cached until they change.
        """
        known, state = self._client, self._conversation.state
        fields = (state.helo, state.extended, state.user)
        if known is None or (known.helo, known.extended, known.user) != fields:
            address = str(getattr(self.transport.getPeer(), "host", ""))
            known = self._client = ClientInfo(address, *fields, self._tls())
        return known

    def _tls(self) -> str:
        if not self._conversation.state.isSecure:
            return ""
        handle = getattr(self.transport, "getHandle", lambda: None)()
        if not isinstance(handle, SSL.Connection):
            return "TLS"
        return f"{handle.get_protocol_version_name()} {handle.get_cipher_name()}"

    def _flush(self) -> None:
        if self._lost:
            return
        output = self._conversation.takeOutput()
        if output:
            self._timeouts.active()
        if self._conversation.isClosed and not self._closing:
            self._closing = True
            self._timeouts.startClosing()
            # TLS waits for the other side's close_notify.
            self._read(True)
            self.transport.end(output)
        elif output:
            self.transport.write(output)

    def _regulate(self) -> None:
        """
        Pause reading while too much input waits to be processed.
        """
        if not self._lost and not self._conversation.isClosed:
            mayWait = (
                not self.isBusy or self._conversation.backlog <= PAUSE_BACKLOG_LENGTH
            )
            self._read(mayWait)

    def _read(self, isWanted: bool) -> None:
        if isWanted == self._isReading:
            return
        self._isReading = isWanted
        if isWanted:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def _logFailure(self, operation: str, failure: Failure | None = None) -> None:
        self.log.failure(
            "SMTP session with {peer!r}: {operation} failed",
            failure=failure,
            peer=self._source.address,
            operation=operation,
        )

    def _dropMessage(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            message.abort()

    def _cleanUp(self) -> None:
        self._dropMessage()
        self._factory.closed(self, self._source)
        # Breaks a reference cycle, which the garbage collector would have to find.
        del self._timeouts


_METHODS: dict[type[ServerEvent], Callable[[ServerSession, Any], None]] = {
    MailFrom: ServerSession._mailFrom,
    RcptTo: ServerSession._rcptTo,
    DataStart: ServerSession._dataStart,
    BodyChunk: ServerSession._bodyChunk,
    BodyFailed: ServerSession._bodyFailed,
    BodyEnd: ServerSession._bodyEnd,
    AuthStep: ServerSession._authStep,
    StartTLS: ServerSession._startTLS,
}
