# -*- test-case-name: tests.smtp.test_authenticator -*-
"""
Authenticates the clients of SMTP servers: runs SASL exchanges, limits the number of
simultaneous password checks and of failures.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.smtp.logins import LoginAttempt, LoginLimit, LoginLimits
from moxtls.smtp.rates import ClientNetwork, LogLimiter
from moxtls.smtp.sasl import (
    Authenticated,
    CredentialsChecker,
    PasswordAttempt,
    Postponed,
    Rejected,
    SASLStep,
    ServerExchange,
)
from moxtls.tasks import FairSemaphore, TooManyWaiting

#: Simultaneous password checks: each takes 20 MB and a processor.
MAX_CHECKS = 2
#: Waiting checks for clients of one network: some seconds of work.
MAX_WAITING = 100

Offload = Callable[[Callable[[], bool]], Deferred[bool]]


class Authenticator:
    """
    Runs SASL exchanges against a L{CredentialsChecker}.  All listeners share one
    authenticator, and thus its limits.

    @param newNonce: Returns random printable ASCII without commas.
    @param offload: Runs a function without blocking the reactor.
    @param limits: By default, limits without a login history.
    """

    log = Logger()

    def __init__(
        self,
        checker: CredentialsChecker,
        newNonce: Callable[[], str],
        offload: Offload,
        limits: LoginLimits | None = None,
    ) -> None:
        self._checker = checker
        self._newNonce = newNonce
        self._offload = offload
        self._limits = limits or LoginLimits()
        self._slots = FairSemaphore(MAX_CHECKS, MAX_WAITING)
        self._logLimiter = LogLimiter()

    def begin(self, mechanism: str) -> ServerExchange:
        return self._checker.begin(mechanism, self._newNonce())

    async def step(
        self,
        clock: IReactorTime,
        exchange: ServerExchange,
        response: bytes | None,
        source: ClientNetwork,
    ) -> SASLStep:
        """
        Process a client's response: returns a challenge or the result of the
        exchange.  Results of failures are delayed if there were many from
        C{source}.

        @param clock: Measures durations.
        """
        now = clock.seconds()
        # For mechanisms that name the user before the proof.
        if exchange.user and self._isOver(exchange.user, source, now):
            return Postponed()
        step = exchange.step(response)
        if isinstance(step, PasswordAttempt):
            step = await self._checkPassword(clock, step, source)
        elif isinstance(step, Rejected | Authenticated) and exchange.user:
            attempt = self._limits.begin(exchange.user, source, now)
            if isinstance(step, Authenticated):
                self._limits.succeeded(attempt)
        if isinstance(step, Rejected):
            delay = self._limits.delay(source, clock.seconds())
            if delay:
                await deferLater(clock, delay)
        return step

    async def _checkPassword(
        self, clock: IReactorTime, password: PasswordAttempt, source: ClientNetwork
    ) -> SASLStep:
        now = clock.seconds()
        user = password.user
        if self._isOver(user, source, now):
            return Postponed()
        try:
            await self._slots.acquire(source.network)
        except TooManyWaiting:
            self._logRefusal(LoginLimit.WAITING, source, now)
            return Postponed()
        # Other attempts may have failed meanwhile.
        now = clock.seconds()
        if self._isOver(user, source, now):
            self._slots.release()
            return Postponed()
        attempt = self._limits.begin(user, source, now)
        isRight = await self._run(password, attempt)
        return Authenticated(user) if isRight else Rejected()

    def _run(self, password: PasswordAttempt, attempt: LoginAttempt) -> Deferred[bool]:
        """
        Check a password.  A check that was started continues if the client
        disconnects, and keeps its slot: otherwise a client could start any number
        of them.
        """
        result: Deferred[bool] = Deferred()

        def checked(isRight: bool) -> bool:
            if isRight:
                self._limits.succeeded(attempt)
            return isRight

        def failed(failure: Failure) -> Failure:
            self._limits.giveBack(attempt)
            return failure

        def ended(outcome: bool | Failure) -> None:
            self._slots.release()
            result.callback(outcome)

        running = maybeDeferred(self._offload, lambda: self._checker.check(password))
        running.addCallbacks(checked, failed)
        running.addBoth(ended)
        return result

    def _isOver(self, user: str, source: ClientNetwork, now: float) -> bool:
        limit = self._limits.exceeded(user, source, now)
        if limit is None:
            return False
        self._logRefusal(limit, source, now)
        return True

    def _logRefusal(self, limit: LoginLimit, source: ClientNetwork, now: float) -> None:
        count = self._logLimiter.due(limit, now)
        if count:
            self.log.warn(
                "refusing logins, too many {limit}: {count} refused, the latest from "
                "{host!r}",
                limit=limit.value,
                count=count,
                host=source.address,
            )
