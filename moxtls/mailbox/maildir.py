# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Mailboxes as Maildir++, which IMAP servers and mail readers know.

The mailboxes of all accounts, in Maildirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from moxtls.interfaces import IMailbox
from moxtls.mailbox.executor import IMailWriter, InlineWriter
from moxtls.mailbox.files import removeStaleTemp
from moxtls.mailbox.names import HOST_ACCOUNT, InvalidMailbox, splitMailbox
from moxtls.mailbox.quota import QuotaUsage
from moxtls.mailbox.write import MaildirWrite


@implementer(IMailbox)
class Maildir:
    """
    One person's mailboxes: the inbox in a folder, each of the others in a
    folder within it whose name begins with a dot.

    A message is written under C{tmp} and moved when it is complete, so that
    readers never see half of one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        root: Path,
        hostname: str,
        newID: Callable[[], str],
        quota: int = 0,
        desk: IMailWriter | None = None,
    ) -> None:
        """
        @param root: Made if it isn't there.
        @param newID: Letters and digits, never the same twice.
        @param quota: Of all its messages, in octets; 0 for none.
        @param desk: Does the waiting; without one, whoever calls does.
        """
        self._clock = clock
        self._root = root
        # What the Maildir format does with these two.
        self._host = hostname.replace("/", r"\057").replace(":", r"\072")
        self._newID = newID
        self._quota = quota
        self._desk = desk or InlineWriter()

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        """
        Store a message.
        """
        try:
            parts = splitMailbox(mailbox)
        except InvalidMailbox:
            return fail()
        now = self._clock.seconds()
        unique = f"{int(now)}.{self._newID()}.{self._host}"
        letter = MaildirWrite(
            self._root, parts, message, seen, unique, self._quota, now
        )
        return self._desk.post(letter)

    def hasRoom(self, size: int) -> Deferred[bool]:
        """
        By the quota, if there is one.
        """
        if not self._quota:
            return succeed(True)
        allowance = QuotaUsage(self._root, self._quota, self._clock.seconds())
        return self._desk.run(lambda: allowance.has(size))


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
