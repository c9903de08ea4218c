# -*- test-case-name: tests.lab.test_letters -*-
"""
What can be said of mail that comes to us in the lab, and what can be expected
of it.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from moxtls.lab.conditions import SENDER

#: Who gets mail: one who never sees what was refused, and one who does.
ANNA = "anna"
OTTO = "otto"
#: Where the other one finds that.
REJECTS = "Rejects"

INBOX, JUNK, NOWHERE = "Inbox", "Junk", ""


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What has to become of a message, and what the report on it has to say.

    @ivar dkim: The result of each signature, by its domain; nothing if there
        is none.
    @ivar code: Of the reply to the message.
    @ivar mailbox: Where it is then; empty if nowhere.
    @ivar disposition: What was done because of DMARC.
    @ivar policy: The name of the sender whose policy applied, who is told of
        it if told of anything; empty if none applied.
    @ivar reported: C{disposition}, in the words of reports.
    @ivar aligned: C{dkim}, C{spf}, both or none.
    @ivar reasons: Types and comments.
    """

    spf: str
    dkim: tuple[tuple[str, str], ...]
    dmarc: str
    code: int = 250
    mailbox: str = INBOX
    disposition: str = "none"
    policy: str = ""
    reported: str = "none"
    aligned: tuple[str, ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LabMessage:
    """
    A message to somebody here.

    Senders are meant by their names.

    @ivar name: Of it.
    @ivar explanation: One line for people.
    @ivar author: The domain in From.
    @ivar client: Whose host brings it.
    @ivar envelope: The domain in MAIL FROM; empty for the null sender.
    @ivar signers: Who signs it as it was written.
    @ivar through: The list that changed it and signed it then.
    @ivar to: Whom it is for.
    """

    name: str
    explanation: str
    author: str
    client: str
    envelope: str
    expected: Expected
    signers: tuple[str, ...] = ()
    through: str = ""
    to: str = ANNA

    @property
    def recipient(self) -> str:
        return f"{self.to}@{SENDER}"
