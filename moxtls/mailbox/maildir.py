# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Mailboxes as Maildir++, which IMAP servers and mail readers know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from moxtls.interfaces import IMailbox
from moxtls.mailbox.allowance import QuotaUsage
from moxtls.mailbox.desk import IMailWriter, InlineWriter
from moxtls.mailbox.names import InvalidMailbox, splitMailbox
from moxtls.mailbox.writing import MaildirWrite


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
