# -*- test-case-name: tests.mailbox.test_accounts -*-
"""
The mailboxes of all accounts, in Maildirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from moxtls.interfaces import IMailbox
from moxtls.mailbox.desk import IMailWriter, InlineWriter
from moxtls.mailbox.folders import removeStaleTemp
from moxtls.mailbox.maildir import Maildir
from moxtls.mailbox.names import HOST_ACCOUNT


class MailStore:
    """
    Says whose mailboxes are where; one desk writes to all of them.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        host: Path,
        accounts: Path,
        quotas: Mapping[str, int],
        hostname: str,
        newID: Callable[[], str],
        desk: IMailWriter | None = None,
    ) -> None:
        """
        @param host: The Maildir of this host.
        @param accounts: Where each account has a Maildir of its name.
        @param quotas: Of each account there is, in octets; 0 for none.
        @param newID: Letters and digits, never the same twice.
        @param desk: Writes; without one, whoever calls waits.
        """
        self._clock = clock
        self._desk = desk or InlineWriter()
        roots = {name: accounts / name for name in quotas} | {HOST_ACCOUNT: host}
        self._roots = roots
        self._mailboxes = {
            name: Maildir(clock, root, hostname, newID, quotas.get(name, 0), self._desk)
            for name, root in roots.items()
        }

    def mailboxOf(self, account: str) -> IMailbox:
        """
        @param account: A name, or L{HOST_ACCOUNT}.

        @raise KeyError: There is no such account.
        """
        return self._mailboxes[account]

    def sweep(self) -> Deferred[None]:
        """
        Remove what was begun long ago and never finished, when the process
        died.  To be called at start; a failure is logged.
        """
        now, roots = self._clock.seconds(), list(self._roots.values())
        swept = self._desk.run(
            lambda: sum(removeStaleTemp(root, now) for root in roots)
        )
        return swept.addCallbacks(self._swept, self._notSwept)

    def stop(self) -> Deferred[None]:
        """
        Take no more.  Fires once all that was taken is answered.
        """
        return self._desk.stop()

    def _swept(self, count: int) -> None:
        if count:
            self.log.info("removed {count} unfinished files of mailboxes", count=count)

    def _notSwept(self, why: Failure) -> None:
        self.log.failure("removing unfinished files of mailboxes", why)
