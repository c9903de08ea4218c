# -*- test-case-name: tests.reception.test_observers -*-
"""
Who is told of mail, without it being held up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.dmarc.types import VerdictEvent
from moxtls.domain import Address, Domain, InvalidAddress
from moxtls.interfaces import ISenderHistory, IVerdictObserver
from moxtls.outages import logUnlessOutage
from moxtls.queue.types import Envelope
from moxtls.reception.recipients import Directory
from moxtls.tasks import TaskGroup

#: What observers may have open before mail waits for them after all: else they
#: would take all memory where a database stands still.
MAX_PENDING = 1000


class VerdictDispatcher:
    """
    Observers, and the history of who writes to whom.

    @ivar reportsFailures: Whether one of them reports failures (RFC 9991).
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        observers: Iterable[IVerdictObserver],
        history: ISenderHistory,
        reportsFailures: bool = False,
    ) -> None:
        self.reportsFailures = reportsFailures
        self._clock = clock
        self._observers = tuple(observers)
        self._history = history
        self._pending = TaskGroup(MAX_PENDING)

    async def dispatch(self, event: VerdictEvent) -> None:
        """
        @return: Once observers know, not once they have written it down.
        """
        for observer in self._observers:
            await self._start(observer.verdictGiven, event)

    async def recordReceived(self, account: str, domain: Domain) -> None:
        """
        Mail that is really from C{domain} was taken for C{account}.
        """
        await self._start(self._history.received, account, domain, self._now())

    async def recordSent(self, account: str, domain: Domain) -> None:
        """
        C{account} sends mail to C{domain}.
        """
        await self._start(self._history.sent, account, domain, self._now())

    async def isKnown(self, accounts: Iterable[str], organization: Domain) -> bool:
        """
        Whether any of C{accounts} has heard from or written to
        C{organization}; so it is taken to be if that can't be found out.
        """
        for account in dict.fromkeys(accounts):
            try:
                if await self._history.isKnown(account, organization):
                    return True
            except CancelledError:
                raise
            except Exception:
                logUnlessOutage(
                    self.log, "looking for {domain}", domain=str(organization)
                )
                return True
        return False

    async def finished(self) -> None:
        """
        Wait until all have written it down.
        """
        await self._pending.finished()

    def _now(self) -> float:
        return self._clock.seconds()

    async def _start(self, told: Callable[..., Deferred[None]], *what: Any) -> None:
        try:
            telling = told(*what)
        except Exception:
            logUnlessOutage(self.log, "telling an observer of mail")
            return
        telling.addErrback(self._failed)
        if not telling.called:
            self._pending.add(telling)
            await self._pending.room()

    def _failed(self, failure: Failure) -> None:
        logUnlessOutage(self.log, "telling an observer of mail", failure)


class HistoryRecorder:
    """
    Notes to whom our people write.
    """

    log = Logger()

    def __init__(
        self,
        directory: Directory,
        accounts: Mapping[str, Any],
        dispatcher: VerdictDispatcher,
    ) -> None:
        """
        @param accounts: By name, all there are.
        """
        self._directory = directory
        self._accounts = accounts
        self._dispatcher = dispatcher

    async def submitted(self, user: str, envelope: Envelope) -> None:
        """
        A message is in the queue.  Never fails, as that can't be taken back.

        @param user: Who has logged in; empty if nobody had to.
        """
        try:
            await self._submitted(user, envelope)
        except CancelledError:
            raise
        except Exception:
            logUnlessOutage(self.log, "noting to whom {user!r} writes", user=user)

    async def _submitted(self, user: str, envelope: Envelope) -> None:
        domains = {
            address.domain
            for address in map(_address, envelope.recipients)
            if address is not None and isinstance(address.domain, Domain)
        }
        outside = [each for each in domains if not self._directory.isLocal(each)]
        account = self._accountOf(user, envelope.sender) if outside else ""
        for domain in sorted(outside):
            await self._dispatcher.recordSent(account, domain)

    def _accountOf(self, user: str, sender: str) -> str:
        if user in self._accounts:
            return user
        address = _address(sender)
        found = () if address is None else self._directory.find(address)
        if isinstance(found, tuple) and len(found) == 1:
            return found[0].account
        return ""


def _address(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except InvalidAddress:
        return None
