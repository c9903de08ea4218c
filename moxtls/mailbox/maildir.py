# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Mailboxes as Maildir++, which IMAP servers and mail readers know.

Writes on the reactor's thread: what comes here are bounces of reports and
mail to the postmaster, a few a day, each small and written in milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from moxtls.interfaces import IMailbox
from moxtls.mailbox.names import splitMailbox

_FOLDER = 0o700
_FILE = 0o600


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
    ) -> None:
        """
        @param root: Made if it isn't there.
        @param newID: Letters and digits, never the same twice.
        """
        self._clock = clock
        self._root = root
        # What the Maildir format does with these two.
        self._host = hostname.replace("/", r"\057").replace(":", r"\072")
        self._newID = newID

    def deliver(
        self, mailbox: str, message: Sequence[bytes], seen: bool = False
    ) -> Deferred[None]:
        """
        Store a message.
        """
        return execute(self._deliver, mailbox, message, seen)

    def hasRoom(self, size: int) -> Deferred[bool]:
        """
        There is no limit but the disk's.
        """
        return succeed(True)

    def _deliver(self, mailbox: str, message: Sequence[bytes], seen: bool) -> None:
        folder = self._made(splitMailbox(mailbox))
        unique = f"{int(self._clock.seconds())}.{self._newID()}.{self._host}"
        temporary = folder / "tmp" / unique
        try:
            size = _writeThrough(temporary, message)
            # The size in the name saves readers from looking (Maildir++).
            name = f"{unique},S={size}"
            place = folder / "cur" / f"{name}:2,S" if seen else folder / "new" / name
            temporary.rename(place)
        finally:
            temporary.unlink(missing_ok=True)
        _syncFolder(place.parent)

    def _made(self, parts: tuple[str, ...]) -> Path:
        """
        The folder of a mailbox, made if need be.
        """
        self._root.mkdir(_FOLDER, parents=True, exist_ok=True)
        folder = self._root / ".".join(("", *parts)) if parts else self._root
        if (folder / "cur").is_dir():
            return folder
        # "cur" comes last: where it is, all of it is.
        for each in (folder, folder / "tmp", folder / "new", folder / "cur"):
            each.mkdir(_FOLDER, exist_ok=True)
        if parts:
            # Maildir++: this is a folder, and not somebody's whole mail.
            (folder / "maildirfolder").touch(_FILE)
        _syncFolder(folder)
        _syncFolder(folder.parent)
        return folder


def _writeThrough(path: Path, message: Sequence[bytes]) -> int:
    """
    Write a file that isn't there yet, to the disk.

    @return: Its size.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path, flags, _FILE), "wb") as file:
        size = sum(map(file.write, message))
        file.flush()
        os.fsync(file.fileno())
    return size


def _syncFolder(folder: Path) -> None:
    """
    Names are safe only when the folder is on the disk as well.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
