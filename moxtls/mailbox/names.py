# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Names of mailboxes, and reasons why one can't store a message.  No I/O.
"""

from __future__ import annotations

import re

from moxtls.smtp.types import Reply

#: Bytes of a mailbox's name; file systems limit file names to 255.
MAX_NAME = 200
#: The name of an account's default mailbox (RFC 9051 5.1), in upper or lower case.
INBOX = "inbox"
#: The account name that stands for this host, for mail that belongs to no account.
HOST_ACCOUNT = ""

# Plain ASCII: IMAP servers disagree on the encoding of anything else in
# Maildir++.  No dots: they separate names there.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ +@-]*\Z")


class InvalidMailbox(ValueError):
    """
    A text isn't a valid mailbox name.
    """


class MailboxFull(Exception):
    """
    A message exceeds a quota.
    """


class MailboxError(Exception):
    """
    A mailbox doesn't take a message.

    @ivar reason: For people; may be the text of a remote server.
    @ivar reply: The server's reply, if there was one.
    """

    def __init__(self, reason: str, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class MailboxRefused(MailboxError):
    """
    A mailbox rejects a message permanently.
    """


class MailboxUnavailable(MailboxError):
    """
    A message can't be stored now, for a known reason.
    """


def splitMailbox(name: str) -> tuple[str, ...]:
    """
    Split a mailbox name into its parts.

    @param name: Parts separated by C{/}.

    @return: The parts; none for the inbox.

    @raise InvalidMailbox: A part is empty, or has other characters than letters,
        digits, spaces and C{_+@-}.
    """
    parts = tuple(name.split("/"))
    if len(name) > MAX_NAME or not all(map(_PART.match, parts)):
        raise InvalidMailbox(f"{name[:MAX_NAME]!r} isn't a valid mailbox name")
    return () if name.lower() == INBOX else parts
