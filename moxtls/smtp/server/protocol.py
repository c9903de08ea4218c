# -*- test-case-name: tests.smtp.server.test_factory -*-
"""
One connection to a listener: carries out what the conversation comes to.

Most answers are there at once, so this is one loop over what was received
and no coroutine: it stops where something has to be waited for, and goes on
from there.

The time limits of one connection to a listener.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from OpenSSL import SSL
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
    ITLSTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from moxtls.message.trace import ClientInfo
from moxtls.smtp.authenticator import Authenticator
from moxtls.smtp.sasl import (
    Authenticated,
    Challenge,
    Postponed,
    SASLStep,
    ServerExchange,
)
from moxtls.smtp.server.conversation import ServerConversation
from moxtls.smtp.server.events import (
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
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery, ListenerSettings
from moxtls.smtp.server.limits import ClientNetwork
from moxtls.smtp.types import Reply

#: Input behind an unanswered command, from where on nothing more is read.
PAUSE_BACKLOG_LENGTH = 64 * 1024

_BROKEN = Reply(451, "4.3.0", "Something is wrong here; try again later")
_LOGIN_BROKEN = Reply(454, "4.7.0", "Something is wrong here; try again later")
_DENIED = Reply(535, "5.7.8", "Authentication credentials invalid")
# RFC 4954 6: the user isn't to be asked for another password.
_LATER = Reply(454, "4.7.0", "Too many failed logins; try again later")
_STOPPING = Reply(421, "4.3.2", "Going down")
_CROWDED = Reply(421, "4.3.2", "Too many connections; come again")

#: Seconds for a connection to go away by itself once it was closed.
CLOSE_TIMEOUT = 10

_IDLE = Reply(421, "4.4.2", "Nothing heard for too long")

_TOO_LONG = Reply(421, "4.4.2", "This has taken too long")

_TOO_SLOW = Reply(421, "4.4.2", "The message comes too slowly")

T = TypeVar("T")


class IServerTransport(ITLSTransport, IPushProducer):
    """
    What a L{moxtls.smtp.server.transport.Line} is.
    """

    def end(lastWords: bytes) -> None:
        """
        Write C{lastWords}, and close the connection.
        """


class IServerFactory(Interface):
    """
    What a session belongs to.
    """

    clock: IReactorTime = Attribute("For time limits.")
    settings: ListenerSettings = Attribute("For all sessions.")
    delivery: IMessageDelivery = Attribute("Decides.")
    tls: IOpenSSLServerConnectionCreator | None = Attribute("For STARTTLS.")
    authenticator: Authenticator | None = Attribute("For AUTH.")

    def refuseMail(source: ClientNetwork) -> Reply | None:
        """
        One more message, which counts if it isn't refused.
        """

    def opened(session: ServerSession, source: ClientNetwork) -> None:
        """
        A session begins.
        """

    def closed(session: ServerSession, source: ClientNetwork) -> None:
        """
        Nothing is left of a session.
        """


class TimedSession(Protocol):
    """
    What is session.
    """

    @property
    def isBusy(self) -> bool:
        """
        Whether it is we who take long.
        """

    @property
    def inMessage(self) -> bool:
        """
        Whether part of a message has come, and not all.
        """

    def closeWith(self, reply: Reply) -> None:
        """
        It is over: say C{reply} once nothing is half done.
        """

    def abort(self) -> None:
        """
        It is over, whatever is half done.
        """


class SessionTimeouts:
    """
    Has one timer, which looks what is due and then waits for the next that
    may be: what happens with each command only takes down the time.
    """

    def __init__(
        self, clock: IReactorTime, settings: ListenerSettings, session: TimedSession
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._session = session
        self._since = self._heard = self._began = clock.seconds()
        self._size = 0
        self._end: float | None = None
        self._timer: IDelayedCall | None = None
        self._sleep(min(settings.idleTimeout, settings.sessionTimeout))

    @property
    def lastHeard(self) -> float:
        """
        When the client last said something, or was told something.
        """
        return self._heard

    def heard(self) -> None:
        """
        The client said something, or was told something.
        """
        self._heard = self._clock.seconds()

    def messageBegins(self) -> None:
        self._began = self._clock.seconds()
        self._size = 0

    def received(self, size: int) -> None:
        """
        Part of a message came.
        """
        self._size += size
        self._heard = self._clock.seconds()

    def excludeTime(self, seconds: float) -> None:
        """
        So much of the time of a message was our own doing.
        """
        self._began += seconds

    def startClosing(self) -> None:
        """
        It is over soon, if need be by force.
        """
        if self._end is None:
            self._end = self._clock.seconds() + CLOSE_TIMEOUT
            self.stop()
            self._sleep(CLOSE_TIMEOUT)

    def stop(self) -> None:
        """
        It is over.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _sleep(self, seconds: float) -> None:
        self._timer = self._clock.callLater(max(0, seconds), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if self._end is not None:
            self._session.abort()
            return
        limits = list(self._limits(now))
        over = [reply for at, reply in limits if at <= now]
        if over:
            self._session.closeWith(over[0])
        else:
            self._sleep(min(at for at, _ in limits) - now)

    def _limits(self, now: float) -> list[tuple[float, Reply]]:
        settings, limits = self._settings, []
        limits.append((self._since + settings.sessionTimeout, _TOO_LONG))
        if self._session.isBusy:
            # Look again later: the client is to be blamed only for the time
            # that it takes itself.
            limits.append((now + settings.idleTimeout, _IDLE))
            return limits
        limits.append((self._heard + settings.idleTimeout, _IDLE))
        if self._session.inMessage and settings.minBodyRate:
            patience = settings.bodyGrace + self._size / settings.minBodyRate
            limits.append((self._began + patience, _TOO_SLOW))
        return limits


class ServerSession(protocol.Protocol):
    """
    One connection.
    """

    log = Logger()
    transport: IServerTransport
    _timeouts: SessionTimeouts

    def __init__(self, factory: IServerFactory, source: ClientNetwork) -> None:
        """
        @param source: What counts as the same client.
        """
        self._factory = factory
        self._source = source
        settings = factory.settings
        self._conversation = ServerConversation(settings.server, settings.immediateTLS)
        # Whether the loop is running, and since when it waits for an answer.
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

    # --- what the transport says -------------------------------------------

    def connectionMade(self) -> None:
        # Replies are small, and each is waited for.
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

    # --- what the listener asks and says ---------------------------------------

    @property
    def lastHeard(self) -> float:
        """
        When the client last said something, or was told something.
        """
        return self._timeouts.lastHeard

    def stop(self) -> None:
        """
        Close the connection as soon as nothing of it is half done.
        """
        self.closeWith(_STOPPING)

    def evict(self) -> None:
        """
        The same, for others who come.
        """
        self.closeWith(_CROWDED)

    # --- what the vigil asks and says ------------------------------------------

    @property
    def isBusy(self) -> bool:
        """
        Whether an event is being carried out.
        """
        return self._isRunning or self._waitingSince is not None

    @property
    def inMessage(self) -> bool:
        """
        Whether part of a message has come, and not all.
        """
        return self._conversation.inMessage

    def closeWith(self, reply: Reply) -> None:
        """
        Close the connection, with C{reply} as the last word.
        """
        self._closingReply = reply
        if self.isBusy:
            # What is being accepted still is, and the client should hear so.
            self._timeouts.startClosing()
        else:
            self._flushAndRegulate()

    def abort(self) -> None:
        """
        Cut it off.
        """
        if not self._lost:
            self.transport.abortConnection()

    # --- one event after the other -------------------------------------------

    def _handleEvents(self) -> None:
        self._isRunning = True
        try:
            while (event := self._next()) is not None:
                _METHODS[type(event)](self, event)
        except Exception:
            self.log.failure("a mistake in the listener")
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
        Go on with C{answer} once it is there; no event is carried out before.

        @param broken: What is done instead if it fails.
        @param isCancelled: Whether it is given up if the connection is lost.
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
            self.log.failure("deciding, or keeping a message", failure=failure)
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

    def _decide(self, ask: Callable[..., Deferred[Reply]], *about: object) -> None:
        try:
            answer = ask(*about)
        except Exception:
            self.log.failure("deciding")
            self._fail()
            return
        self._reply(answer)

    def _reply(self, answer: Deferred[Reply], isCancelled: bool = True) -> None:
        if answer.called and not answer.paused and isinstance(answer.result, Reply):
            # As mostly; and so without more ado.
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
        self._decide(ask, self._clientInfo(), event.transaction)

    def _rcptTo(self, event: RcptTo) -> None:
        ask = self._factory.delivery.rcptTo
        self._decide(ask, self._clientInfo(), event.transaction, event.recipient)

    def _dataStart(self, event: DataStart) -> None:
        try:
            client, transaction = self._clientInfo(), event.transaction
            self._message = self._factory.delivery.message(client, transaction)
        except Exception:
            self.log.failure("beginning a message")
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
            # The client hears of it when it has sent everything.
            self.log.failure("keeping a message")
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
            self.log.failure("accepting a message")
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
        What is known, kept as long as it is.
        """
        known, state = self._client, self._conversation.state
        said = (state.helo, state.extended, state.user)
        if known is None or (known.helo, known.extended, known.user) != said:
            address = str(getattr(self.transport.getPeer(), "host", ""))
            known = self._client = ClientInfo(address, *said, self._tls())
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
            self._timeouts.heard()
        if self._conversation.isClosed and not self._closing:
            self._closing = True
            self._timeouts.startClosing()
            # TLS ends with a word of the other side too.
            self._read(True)
            self.transport.end(output)
        elif output:
            self.transport.write(output)

    def _regulate(self) -> None:
        """
        Read no more than there is room for.
        """
        if not self._lost and not self._conversation.isClosed:
            mayWait = (
                not self.isBusy or self._conversation.backlog <= PAUSE_BACKLOG_LENGTH
            )
            self._read(mayWait)

    def _read(self, wanted: bool) -> None:
        if wanted == self._isReading:
            return
        self._isReading = wanted
        if wanted:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def _dropMessage(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            message.abort()

    def _cleanUp(self) -> None:
        self._dropMessage()
        self._factory.closed(self, self._source)
        # It refers to this, and both would be left to the garbage collector.
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
