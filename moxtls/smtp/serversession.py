# -*- test-case-name: tests.smtp.test_listener -*-
"""
One connection to a listener: carries out what the conversation comes to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from moxtls.smtp.acceptor import (
    Authenticator,
    IAcceptor,
    IMessageSink,
    ListenerSettings,
)
from moxtls.smtp.events import (
    GO_AHEAD,
    AuthStep,
    BodyChunk,
    BodyEnd,
    BodyFailed,
    DataStart,
    Event,
    MailFrom,
    RcptTo,
    StartTLS,
)
from moxtls.smtp.received import Client
from moxtls.smtp.sasl import Challenge, Claim, Proven, ServerExchange, Step
from moxtls.smtp.server import ServerConversation
from moxtls.smtp.values import Reply

#: Input behind an unanswered command, from where on nothing more is read.
FULL_BACKLOG = 64 * 1024
#: Seconds for a connection to go away by itself once it was closed.
FAREWELL = 10

_BROKEN = Reply(451, "4.3.0", "Something is wrong here; try again later")
_DENIED = Reply(535, "5.7.8", "Authentication credentials invalid")
_STOPPING = Reply(421, "4.3.2", "Going down")
_IDLE = Reply(421, "4.4.2", "Nothing heard for too long")
_TOO_LONG = Reply(421, "4.4.2", "This has taken too long")

T = TypeVar("T")


class IWire(ITLSTransport, IPushProducer):
    """
    What TCP transports are.
    """


class IListener(Interface):
    """
    What a session belongs to.
    """

    clock: IReactorTime = Attribute("For time limits.")
    settings: ListenerSettings = Attribute("For all sessions.")
    acceptor: IAcceptor = Attribute("Decides.")
    tls: IOpenSSLServerConnectionCreator | None = Attribute("For STARTTLS.")
    authenticator: Authenticator | None = Attribute("For AUTH.")

    def opened(session: ServerSession, neighbourhood: str) -> None:
        """
        A session begins.
        """

    def closed(session: ServerSession, neighbourhood: str) -> None:
        """
        Nothing is left of a session.
        """


class ServerSession(Protocol):
    """
    One connection.
    """

    log = Logger()
    transport: IWire

    def __init__(self, listener: IListener, neighbourhood: str) -> None:
        """
        @param neighbourhood: What counts as the same client.
        """
        self._listener = listener
        self._settings = listener.settings
        self._neighbourhood = neighbourhood
        self._conversation = ServerConversation(
            self._settings.server, self._settings.immediateTLS
        )
        self._busy = False
        self._goodbye: Reply | None = None
        self._lost = False
        self._isReading = True
        self._closing = False
        self._giveUp: Callable[[], None] | None = None
        self._sink: IMessageSink | None = None
        self._exchange: ServerExchange | None = None
        self._timers: dict[str, IDelayedCall] = {}

    # --- what the transport says -------------------------------------------

    def connectionMade(self) -> None:
        self._listener.opened(self, self._neighbourhood)
        self._after("idle", self._settings.idle, self._idle)
        self._after("longest", self._settings.longest, self._tooLong)
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        self._conversation.receive(data)
        if not self._busy:
            self._proceed()
        self._regulate()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if not self._busy:
            self._bury()
        elif self._giveUp is not None:
            self._giveUp()

    # --- what the listener says ----------------------------------------------

    def stop(self) -> None:
        """
        Close the connection as soon as nothing of it is half done.
        """
        self._leave(_STOPPING)

    # --- one event after the other -------------------------------------------

    def _proceed(self) -> None:
        self._busy = True
        Deferred.fromCoroutine(self._converse()).addErrback(self._crashed)

    async def _converse(self) -> None:
        try:
            while (event := self._next()) is not None:
                await self._carryOut(event)
        except CancelledError:
            pass  # the connection is lost
        finally:
            self._busy = False
            if self._lost:
                self._bury()
            else:
                self._settle()

    def _next(self) -> Event | None:
        if self._lost or self._goodbye is not None:
            return None
        return self._conversation.nextEvent()

    def _settle(self) -> None:
        if self._goodbye is not None:
            self._conversation.end(self._goodbye)
        self._flush()
        self._regulate()

    async def _carryOut(self, event: Event) -> None:
        match event:
            case MailFrom() | RcptTo() | DataStart() | BodyEnd():
                self._conversation.reply(await self._decision(event))
            case BodyChunk():
                self._heard()
                await self._store(event.data)
            case BodyFailed():
                self._dropMessage()
            case AuthStep():
                await self._authenticate(event)
            case StartTLS():
                self._startTLS()

    async def _decision(self, event: MailFrom | RcptTo | DataStart | BodyEnd) -> Reply:
        try:
            return await self._ask(event)
        except CancelledError:
            raise
        except Exception:
            self.log.failure("deciding on {event}", event=type(event).__name__)
            return _BROKEN

    async def _ask(self, event: MailFrom | RcptTo | DataStart | BodyEnd) -> Reply:
        acceptor, client = self._listener.acceptor, self._client()
        match event:
            case MailFrom():
                return await self._wait(acceptor.mailFrom(client, event.incoming))
            case RcptTo():
                return await self._wait(
                    acceptor.rcptTo(client, event.incoming, event.recipient)
                )
            case DataStart():
                self._sink = acceptor.message(client, event.incoming)
                return GO_AHEAD
            case BodyEnd():
                return await self._finish()

    async def _wait(self, answer: Deferred[T]) -> T:
        """
        Wait for something that is given up if the connection is lost.
        """
        if not answer.called:
            self._flush()
        self._giveUp = answer.cancel
        try:
            return await answer
        finally:
            self._giveUp = None

    async def _store(self, chunk: bytes) -> None:
        if self._sink is None:
            return
        try:
            full = self._sink.write(chunk)
            if full is not None:
                await self._wait(full)
        except CancelledError:
            raise
        except Exception:
            # The client hears of it when it has sent everything.
            self.log.failure("keeping a message")
            self._dropMessage()

    async def _finish(self) -> Reply:
        sink, self._sink = self._sink, None
        return _BROKEN if sink is None else await sink.finish()

    async def _authenticate(self, event: AuthStep) -> None:
        step = await self._authStep(event)
        match step:
            case Challenge():
                self._conversation.challenge(step.data)
            case Proven():
                self._conversation.authenticated(step.user)
            case Reply():
                self._conversation.reply(step)
            case _:
                self.log.info("failed login from {host!r}", host=self._client().address)
                self._conversation.reply(_DENIED)

    async def _authStep(self, event: AuthStep) -> Step | Reply:
        authenticator = self._listener.authenticator
        if authenticator is None:
            return Reply(454, "4.7.0", "Authentication is not set up")
        try:
            if event.first or self._exchange is None:
                self._exchange = authenticator.begin(event.mechanism)
            step = self._exchange.step(event.response)
            if isinstance(step, Claim):
                checking = Deferred.fromCoroutine(authenticator.check(step))
                step = await self._wait(checking)
            return step
        except CancelledError:
            raise
        except Exception:
            self.log.failure("authenticating")
            return Reply(454, "4.7.0", "Something is wrong here; try again later")

    def _startTLS(self) -> None:
        self._flush()
        self._dropMessage()
        self._exchange = None
        if self._listener.tls is None:
            self._conversation.end(_BROKEN)
            return
        self.transport.startTLS(self._listener.tls)
        self._conversation.tlsStarted()

    # --- the connection --------------------------------------------------------

    def _client(self) -> Client:
        conversation = self._conversation
        handle = None
        if conversation.isSecure:
            handle = getattr(self.transport, "getHandle", lambda: None)()
        tls = "TLS" if conversation.isSecure else ""
        if isinstance(handle, SSL.Connection):
            tls = f"{handle.get_protocol_version_name()} {handle.get_cipher_name()}"
        address = str(getattr(self.transport.getPeer(), "host", ""))
        return Client(
            address, conversation.helo, conversation.extended, conversation.user, tls
        )

    def _flush(self) -> None:
        if self._lost:
            return
        output = self._conversation.takeOutput()
        if output:
            self._heard()
            self.transport.write(output)
        if self._conversation.isClosed and not self._closing:
            self._closing = True
            self._farewell()
            # TLS ends with a word of the other side too.
            self._read(True)
            self.transport.loseConnection()

    def _regulate(self) -> None:
        """
        Read no more than there is room for.
        """
        if self._lost or self._conversation.isClosed:
            return
        self._read(not (self._busy and self._conversation.backlog > FULL_BACKLOG))

    def _read(self, wanted: bool) -> None:
        if wanted == self._isReading:
            return
        self._isReading = wanted
        if wanted:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()

    def _dropMessage(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()

    def _bury(self) -> None:
        self._dropMessage()
        self._listener.closed(self, self._neighbourhood)

    def _crashed(self, failure: Failure) -> None:
        self.log.failure("a mistake in the listener", failure=failure)
        self._abort()

    # --- time --------------------------------------------------------------------

    def _after(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        def due() -> None:
            del self._timers[name]
            then()

        self._timers[name] = self._listener.clock.callLater(seconds, due)

    def _farewell(self) -> None:
        if "farewell" not in self._timers:
            self._after("farewell", FAREWELL, self._abort)

    def _heard(self) -> None:
        timer = self._timers.get("idle")
        if timer is not None:
            timer.reset(self._settings.idle)

    def _idle(self) -> None:
        if self._busy:
            # It is we who take long.
            self._after("idle", self._settings.idle, self._idle)
        else:
            self._leave(_IDLE)

    def _tooLong(self) -> None:
        self._leave(_TOO_LONG)

    def _leave(self, goodbye: Reply) -> None:
        self._goodbye = goodbye
        if self._busy:
            # What is being accepted still is, and the client should hear so.
            self._farewell()
        else:
            self._settle()

    def _abort(self) -> None:
        if not self._lost:
            self.transport.abortConnection()
