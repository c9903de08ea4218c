# -*- test-case-name: tests.smtp.test_server -*-
"""
How often one client may do what leads nowhere.  No I/O.
"""

from __future__ import annotations

from moxtls.smtp.events import ServerSettings
from moxtls.smtp.values import Reply

#: Transactions with all the recipients there may be that may come to nothing.
SPARE_RECIPIENTS = 2


class SessionLimits:
    """
    Counts what a client does; each method says whether it was once too often,
    and if so with which words the connection ends.
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

    def mistake(self) -> Reply | None:
        self._errors += 1
        return _over(self._errors > self._settings.errors, "errors")

    def failedLogin(self) -> Reply | None:
        self._authFailures += 1
        isOver = self._authFailures >= self._settings.authFailures
        return _over(isOver, "failed logins")

    def refusal(self) -> Reply | None:
        """
        A recipient was refused for what it is.
        """
        self._refusals += 1
        isOver = self._refusals > self._settings.refusals
        return _over(isOver, "recipients refused")

    def recipient(self) -> Reply | None:
        """
        A recipient was accepted, perhaps not for the first time, or was beyond the
        most that one transaction takes.
        """
        self._recipients += 1
        isOver = self._recipients > SPARE_RECIPIENTS * self._settings.recipients
        return _over(isOver, "recipients without mail")

    def idleCommand(self) -> Reply | None:
        """
        There was a command that doesn't lead to mail.
        """
        self._idleCommands += 1
        isOver = self._idleCommands > self._settings.idleCommands
        return _over(isOver, "commands without mail")

    def transaction(self) -> Reply | None:
        """
        One more message (RFC 9422 MAILMAX).
        """
        self._transactions += 1
        isOver = self._transactions > self._settings.transactions
        return _over(isOver, "messages in one connection")

    def gotSomewhere(self) -> None:
        """
        What led nowhere is forgiven.
        """
        self._idleCommands = 0
        self._recipients = 0


def _over(isOver: bool, what: str) -> Reply | None:
    return Reply(421, "4.7.0", f"Too many {what}") if isOver else None
