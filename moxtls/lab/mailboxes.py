# -*- test-case-name: tests.lab.test_mailboxes -*-
"""
Looks into people's Maildirs, as their mail programs would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from moxtls.lab.letters import INBOX

_RESULT = re.compile(r"(\w+)=(\w+)")
_DOMAIN = re.compile(r"header\.d=([^\s;]+)")
_DISPOSITION = re.compile(r"\(disposition (\w+)")
# What a refusal says of the checks, where there is nothing else to see.
_REFUSED_SPF = re.compile(r"\(SPF (\w+)")
_REFUSED_DKIM = re.compile(r"(\w+) for ([^\s,;)]+)")


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """
    What is written on a message about where it is from.

    @ivar dkim: The result of each signature, by its domain.
    """

    spf: str = ""
    dkim: tuple[tuple[str, str], ...] = ()
    dmarc: str = ""
    disposition: str = "none"


def findMessage(maildir: Path, messageID: str) -> tuple[str, Message] | None:
    """
    @param maildir: Of one account (Maildir++).

    @return: The name of the mailbox it is in, and the message; C{None} if it
        is nowhere.
    """
    for path in _files(maildir):
        message = message_from_bytes(path.read_bytes())
        if message["Message-ID"] == messageID:
            folder = path.parent.parent
            name = INBOX if folder == maildir else folder.name[1:].replace(".", "/")
            return name, message
    return None


def seenOn(message: Message) -> FoundMessage:
    """
    What its C{Authentication-Results} say, those on top (RFC 8601).
    """
    spf = dmarc = ""
    signatures: list[tuple[str, str]] = []
    disposition = "none"
    for group in re.split(r";\r?\n", message["Authentication-Results"] or ""):
        found = _RESULT.search(group)
        if found is None:
            continue
        method, result = found.groups()
        if method == "spf":
            spf = spf or result
        elif method == "dmarc":
            dmarc = result
            done = _DISPOSITION.search(group)
            disposition = done[1] if done else disposition
        elif method == "dkim" and (domain := _DOMAIN.search(group)):
            signatures.append((domain[1], result))
    return FoundMessage(spf, tuple(signatures), dmarc, disposition)


def seenIn(refusal: str) -> FoundMessage:
    """
    What a refusal because of DMARC says.
    """
    text = refusal.replace("\n", " ")
    spf, _, signatures = text.partition("; DKIM ")
    found = _REFUSED_SPF.search(spf)
    dkim = tuple(
        (domain, result) for result, domain in _REFUSED_DKIM.findall(signatures)
    )
    isRefused = found is not None and "DMARC" in text
    return FoundMessage(
        found[1] if found else "",
        dkim,
        "fail" if isRefused else "",
        "reject" if isRefused else "none",
    )


def _files(maildir: Path) -> Iterator[Path]:
    for folder in (maildir, *sorted(maildir.glob(".*"))):
        for place in ("new", "cur"):
            yield from sorted((folder / place).glob("*"))
