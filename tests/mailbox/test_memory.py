"""
Tests for L{moxtls.mailbox.memory}.
"""

from __future__ import annotations

from moxtls.interfaces import IMailbox
from moxtls.mailbox.memory import MemoryMailbox
from tests.mailbox import mailboxes


class MemoryMailboxTests(mailboxes.MailboxMixin):
    """
    Tests for L{MemoryMailbox}.
    """

    def makeMailbox(self) -> IMailbox:
        self.memory = MemoryMailbox()
        return self.memory

    def contents(self, *parts: str) -> list[tuple[bytes, bool]]:
        return [(each.message, each.seen) for each in self.memory.messages[parts]]
