# -*- test-case-name: tests.smtp.test_client -*-
"""
How a transaction stands for each of its recipients.  No I/O.
"""

from __future__ import annotations

from moxtls.smtp.extensions import Extensions, badRecipient, mailCommand
from moxtls.smtp.values import RecipientReply, Reply, Transaction


class TransactionReplies:
    """
    One transaction under way, from the client's side.

    @ivar askable: Indexes of the recipients that RCPT can be said for.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._replies = [badRecipient(each) for each in transaction.recipients]
        self.askable = tuple(
            index for index, reply in enumerate(self._replies) if reply is None
        )

    @property
    def open(self) -> bool:
        """
        Whether anything is still to be decided.
        """
        return None in self._replies

    def mailCommand(self, known: Extensions) -> str:
        return mailCommand(self._transaction, known)

    def decideOne(self, index: int, reply: Reply) -> None:
        """
        The first reply that decides is the one that counts.
        """
        if self._replies[index] is None:
            self._replies[index] = reply

    def decide(self, reply: Reply) -> None:
        """
        This is the answer for all that have none yet.
        """
        self._replies = [known or reply for known in self._replies]

    def replies(self, rest: Reply | None) -> tuple[RecipientReply, ...]:
        """
        @param rest: For those that have no answer yet.
        """
        if rest is not None:
            self.decide(rest)
        return self.decided()

    def decided(self) -> tuple[RecipientReply, ...]:
        """
        Of those that have an answer.
        """
        pairs = zip(self._transaction.recipients, self._replies, strict=True)
        return tuple(
            RecipientReply(recipient, reply)
            for recipient, reply in pairs
            if reply is not None
        )
