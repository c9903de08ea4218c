# -*- test-case-name: tests.mailbox.test_memory -*-
"""
Mailboxes in memory, for tests and embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from moxtls.interfaces import IMailbox
from moxtls.mailbox.names import InvalidMailbox, splitMailbox


@dataclass(frozen=True, slots=True)
class MemoryMessage:
    """
    A message in a mailbox.
    """

    message: bytes
    seen: bool


@implementer(IMailbox)
class MemoryMailbox:
    """
    L{IMailbox} over lists.

    @ivar messages: By the parts of the mailbox's name, oldest first.
    """

    def __init__(self) -> None:
        self.messages: dict[tuple[str, ...], list[MemoryMessage]] = {}

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
        stored = MemoryMessage(b"".join(message), seen)
        self.messages.setdefault(parts, []).append(stored)
        return succeed(None)

    def hasRoom(self, size: int) -> Deferred[bool]:
        """
        Always true.
        """
        return succeed(True)
