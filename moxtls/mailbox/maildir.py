# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Mailboxes in Maildir++ format, which IMAP servers and mail readers use.
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
from moxtls.mailbox.names import HOST_ACCOUNT, InvalidMailbox, splitMailbox
from moxtls.mailbox.write import MaildirWrite, QuotaUsage, removeStaleTemp


@implementer(IMailbox)
class Maildir:
    """
    The mailboxes of one account: the inbox in a folder, each of the others in a
    subfolder whose name begins with a dot.

    A message is written under C{tmp} and moved when it is complete, so that
    readers never see part of one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        root: Path,
        hostname: str,
        newID: Callable[[], str],
        quota: int = 0,
        writer: IMailWriter | None = None,
    ) -> None:
        """
        @param root: Created if it doesn't exist.
        @param newID: Returns a unique string of letters and digits.
        @param quota: Limit on the octets of all messages; 0 for none.
        @param writer: Writes; without one, the caller waits for the disk.
        """
        self._clock = clock
        self._root = root
        # The Maildir format's escapes.
        self._host = hostname.replace("/", r"\057").replace(":", r"\072")
        self._newID = newID
        self._quota = quota
        self._writer = writer or InlineWriter()

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
        write = MaildirWrite(self._root, parts, message, seen, unique, self._quota, now)
        return self._writer.write(write)

    def hasRoom(self, size: int) -> Deferred[bool]:
        """
        Check the quota, if there is one.
        """
        if not self._quota:
            return succeed(True)
        usage = QuotaUsage(self._root, self._quota, self._clock.seconds())
        return self._writer.run(lambda: usage.has(size))


class MailStore:
    """
    The mailboxes of all accounts and of this host, with one writer.
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
        writer: IMailWriter | None = None,
    ) -> None:
        """
        @param host: The Maildir of this host.
        @param accounts: The directory with a Maildir for each account.
        @param quotas: The quota of each account in octets; 0 for none.
        @param newID: Returns a unique string of letters and digits.
        @param writer: Writes; without one, the caller waits for the disk.
        """
        self._clock = clock
        self._writer = writer or InlineWriter()
        roots = {name: accounts / name for name in quotas} | {HOST_ACCOUNT: host}
        self._roots = roots
        self._mailboxes = {
            name: Maildir(
                clock, root, hostname, newID, quotas.get(name, 0), self._writer
            )
            for name, root in roots.items()
        }

    def mailboxOf(self, account: str) -> IMailbox:
        """
        @param account: A name, or L{HOST_ACCOUNT}.

        @raise KeyError: There is no such account.
        """
        return self._mailboxes[account]

    def removeStaleTemp(self) -> Deferred[None]:
        """
        Remove incomplete messages that earlier processes left behind.  To be called at
        start; a failure is logged.
        """
        now, roots = self._clock.seconds(), list(self._roots.values())
        removed = self._writer.run(
            lambda: sum(removeStaleTemp(root, now) for root in roots)
        )
        return removed.addCallbacks(self._logRemoved, self._logFailure)

    def stop(self) -> Deferred[None]:
        """
        Accept no more messages.  Fires once all accepted ones are stored.
        """
        return self._writer.stop()

    def _logRemoved(self, count: int) -> None:
        if count:
            self.log.info(
                "Removed {count} incomplete messages from mailboxes", count=count
            )

    def _logFailure(self, why: Failure) -> None:
        self.log.failure("Removing incomplete messages from mailboxes failed", why)
