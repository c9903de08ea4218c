# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
Limits on errors and unproductive commands in an SMTP session.  No I/O.
"""

from __future__ import annotations

from moxtls.smtp.server.events import ServerSettings
from moxtls.smtp.types import Reply

#: Transactions with the maximum of recipients that may end without a message.
RECIPIENTS_FACTOR = 2


class SessionLimits:
    """
    Counters of one session.  Each method counts an action, and returns the reply
    to close the connection with if its limit is exceeded.
    """

    __slots__ = (
        "_authFailures",
        "_errors",
        "_idleCommands",
        "_recipients",
        "_refusals",
        "_settings",
        "_transactions",
    )

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._errors = 0
        self._authFailures = 0
        self._refusals = 0
        self._idleCommands = 0
        self._recipients = 0
        self._transactions = 0

    def error(self) -> Reply | None:
        self._errors += 1
        return _limitReply(self._errors > self._settings.maxErrors, "errors")

    def failedLogin(self) -> Reply | None:
        self._authFailures += 1
        isOver = self._authFailures >= self._settings.maxAuthFailures
        return _limitReply(isOver, "failed logins")

    def refusal(self) -> Reply | None:
        """
        A recipient was refused by the server's policy.
        """
        self._refusals += 1
        isOver = self._refusals > self._settings.maxRefusals
        return _limitReply(isOver, "recipients refused")

    def recipient(self) -> Reply | None:
        """
        A recipient was accepted, perhaps repeatedly, or exceeded the maximum of a
        transaction.
        """
        self._recipients += 1
        isOver = self._recipients > RECIPIENTS_FACTOR * self._settings.maxRecipients
        return _limitReply(isOver, "recipients without mail")

    def idleCommand(self) -> Reply | None:
        """
        A command didn't make progress towards a message.
        """
        self._idleCommands += 1
        isOver = self._idleCommands > self._settings.maxIdleCommands
        return _limitReply(isOver, "commands without mail")

    def transaction(self) -> Reply | None:
        """
        A transaction began (RFC 9422 MAILMAX).
        """
        self._transactions += 1
        isOver = self._transactions > self._settings.maxTransactions
        return _limitReply(isOver, "messages in one connection")

    def madeProgress(self) -> None:
        """
        A message was accepted, or the client authenticated: reset the counters of
        unproductive commands.
        """
        self._idleCommands = 0
        self._recipients = 0


def _limitReply(isOver: bool, what: str) -> Reply | None:
    return Reply(421, "4.7.0", f"Too many {what}") if isOver else None
