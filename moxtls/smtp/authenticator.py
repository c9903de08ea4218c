# -*- test-case-name: tests.smtp.test_authenticator -*-
"""
Logins: runs SASL exchanges, checks passwords in turn, and limits failures.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.smtp.logins import Attempt, LoginLimit, LoginLimits
from moxtls.smtp.sasl import (
    Authenticated,
    CredentialsChecker,
    PasswordAttempt,
    Postponed,
    Rejected,
    ServerExchange,
    Step,
)
from moxtls.smtp.server.limits import ClientNetwork, Notices

#: Passwords checked at a time: each takes 20 MB and a processor.
MAX_CHECKS = 2
#: Checks that wait for clients of one network: some seconds of work.
MAX_WAITING = 100

Offload = Callable[[Callable[[], bool]], Deferred[bool]]


class TooManyWaiting(Exception):
    """
    There are too many waiting of one kind.
    """


class FairSemaphore:
    """
    Lets so many run at a time.  Each who waits does so under a key, and keys take
    turns, so that the many of one key don't hold up the few of another.
    """

    def __init__(self, tokens: int, maxWaiting: int) -> None:
        """
        @param maxWaiting: For one key.
        """
        self._tokens = tokens
        self._maxWaiting = maxWaiting
        self._isReleasing = False
        self._waiting: OrderedDict[str, OrderedDict[Deferred[None], None]]
        self._waiting = OrderedDict()

    def acquire(self, key: str) -> Deferred[None]:
        """
        Fires when it is this one's turn.  Cancelling gives the turn up.

        @raise TooManyWaiting: There is no room for one more.
        """
        if self._tokens:
            self._tokens -= 1
            return succeed(None)
        turns = self._waiting.setdefault(key, OrderedDict())
        if len(turns) >= self._maxWaiting:
            raise TooManyWaiting(key)
        turn: Deferred[None] = Deferred(lambda turn: self._leave(key, turn))
        turns[turn] = None
        return turn

    def release(self) -> None:
        """
        One is done.
        """
        self._tokens += 1
        # Whoever is done at once releases within this loop, and not within itself.
        if self._isReleasing:
            return
        self._isReleasing = True
        while self._tokens and self._waiting:
            self._tokens -= 1
            self._next().callback(None)
        self._isReleasing = False

    def _next(self) -> Deferred[None]:
        key, turns = self._waiting.popitem(last=False)
        turn, _ = turns.popitem(last=False)
        if turns:
            self._waiting[key] = turns
        return turn

    def _leave(self, key: str, turn: Deferred[None]) -> None:
        turns = self._waiting[key]
        del turns[turn]
        if not turns:
            del self._waiting[key]


class Authenticator:
    """
    Runs SASL exchanges against L{CredentialsChecker}.  One serves all listeners,
    which then
    share its limits.

    @param newNonce: Chance: printable ASCII without commas.
    @param offload: Runs a function where it doesn't hold up the reactor.
    @param limits: Those that begin with nothing known, if not given.
    """

    log = Logger()

    def __init__(
        self,
        accounts: CredentialsChecker,
        newNonce: Callable[[], str],
        offload: Offload,
        limits: LoginLimits | None = None,
    ) -> None:
        self._accounts = accounts
        self._newNonce = newNonce
        self._offload = offload
        self._limits = limits or LoginLimits()
        self._slots = FairSemaphore(MAX_CHECKS, MAX_WAITING)
        self._notices = Notices()

    def begin(self, mechanism: str) -> ServerExchange:
        return self._accounts.begin(mechanism, self._newNonce())

    async def step(
        self,
        clock: IReactorTime,
        exchange: ServerExchange,
        response: bytes | None,
        place: ClientNetwork,
    ) -> Step:
        """
        What a client's response comes to: a challenge, or how the exchange ends.
        Answers to failures are held back if there were many from C{place}.

        @param clock: Measures durations.
        """
        now = clock.seconds()
        # Of mechanisms that name the user before they prove anything.
        if exchange.user and self._isOver(exchange.user, place, now):
            return Postponed()
        step = exchange.step(response)
        if isinstance(step, PasswordAttempt):
            step = await self._checked(clock, step, place)
        elif isinstance(step, Rejected | Authenticated) and exchange.user:
            attempt = self._limits.begin(exchange.user, place, now)
            if isinstance(step, Authenticated):
                self._limits.succeeded(attempt)
        if isinstance(step, Rejected):
            delay = self._limits.delay(place, clock.seconds())
            if delay:
                await deferLater(clock, delay)
        return step

    async def _checked(
        self, clock: IReactorTime, claim: PasswordAttempt, place: ClientNetwork
    ) -> Step:
        now = clock.seconds()
        if self._isOver(claim.user, place, now):
            return Postponed()
        try:
            await self._slots.acquire(place.network)
        except TooManyWaiting:
            self._notice(LoginLimit.WAITING, place, now)
            return Postponed()
        # Others may have failed meanwhile.
        now = clock.seconds()
        if self._isOver(claim.user, place, now):
            self._slots.release()
            return Postponed()
        attempt = self._limits.begin(claim.user, place, now)
        right = await self._run(claim, attempt)
        return Authenticated(claim.user) if right else Rejected()

    def _run(self, claim: PasswordAttempt, attempt: Attempt) -> Deferred[bool]:
        """
        Check a claim.  What was begun goes on if the client leaves, and keeps its
        slot: else a client could have any number begun.
        """
        told: Deferred[bool] = Deferred()

        def done(right: bool) -> bool:
            if right:
                self._limits.succeeded(attempt)
            return right

        def broken(failure: Failure) -> Failure:
            self._limits.giveBack(attempt)
            return failure

        def ended(result: bool | Failure) -> None:
            self._slots.release()
            told.callback(result)

        running = maybeDeferred(self._offload, lambda: self._accounts.check(claim))
        running.addCallbacks(done, broken)
        running.addBoth(ended)
        return told

    def _isOver(self, user: str, place: ClientNetwork, now: float) -> bool:
        limit = self._limits.exceeded(user, place, now)
        if limit is None:
            return False
        self._notice(limit, place, now)
        return True

    def _notice(self, limit: LoginLimit, place: ClientNetwork, now: float) -> None:
        count = self._notices.due(limit, now)
        if count:
            self.log.warn(
                "refusing logins, too many {limit}: {count} so far, now {host!r}",
                limit=limit.value,
                count=count,
                host=place.address,
            )
