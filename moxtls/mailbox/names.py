# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Names of mailboxes.  No I/O.
"""

from __future__ import annotations

import re

from moxtls.smtp.types import Reply

#: Deeper or longer is a mistake, and file systems end at 255 bytes.
MAX_NAME = 200
#: What the mailbox of a user is called (RFC 9051 5.1), in any case.
INBOX = "inbox"
#: Stands for this host itself, whose mail no account has.
HOST_ACCOUNT = ""

# Plain ASCII: IMAP servers disagree on the encoding of anything else in
# Maildir++.  No dots: they separate names there.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ +@-]*\Z")


class InvalidMailbox(ValueError):
    """
    A text can't be the name of a mailbox.
    """


class MailboxFull(Exception):
    """
    There is no room for a message: a quota is used up.
    """


class MailboxRefused(Exception):
    """
    A message isn't wanted by whoever keeps the mailbox, now or later.

    @ivar reason: For people; may be a stranger's words.
    @ivar reply: That of a server, if C{reason} is one.
    """

    def __init__(self, reason: str, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class MailboxUnavailable(Exception):
    """
    A message can't be stored now, for a reason that is known.

    @ivar reason: For people; may be a stranger's words.
    @ivar reply: That of a server, if C{reason} is one.
    """

    def __init__(self, reason: str, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


def splitMailbox(name: str) -> tuple[str, ...]:
    """
    @param name: Names separated by C{/}.

    @return: The names; none for the inbox.

    @raise InvalidMailbox: One of them is empty, or has other characters than
        letters, digits, spaces and C{_+@-}.
    """
    parts = tuple(name.split("/"))
    if len(name) > MAX_NAME or not all(map(_PART.match, parts)):
        raise InvalidMailbox(f"{name[:MAX_NAME]!r} can't be a mailbox")
    return () if name.lower() == INBOX else parts
