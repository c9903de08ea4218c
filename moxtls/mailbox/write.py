# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Stores messages in Maildirs durably, in batches that share the waits for the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moxtls.mailbox.files import TempFile, makeFolder, syncFolder
from moxtls.mailbox.quota import QuotaUsage


@dataclass(frozen=True, slots=True)
class MaildirWrite:
    """
    A message to be stored in a mailbox.

    @ivar root: The Maildir of the account.
    @ivar parts: The parts of the mailbox's name; none for the inbox.
    @ivar content: The message, in chunks.
    @ivar seen: True to mark it as read.
    @ivar unique: A unique file name, without sizes and flags.
    @ivar quota: Limit on the octets in C{root}; 0 for none.
    @ivar when: Unix seconds.
    """

    root: Path
    parts: tuple[str, ...]
    content: Sequence[bytes]
    seen: bool
    unique: str
    quota: int
    when: float


class BatchContext:
    """
    Folders and quotas, looked up once for all messages of a batch.
    """

    def __init__(self) -> None:
        self.quotas: dict[tuple[Path, int], QuotaUsage] = {}
        self._folders: dict[tuple[Path, tuple[str, ...]], str] = {}

    def folderOf(self, message: MaildirWrite) -> str:
        """
        The folder of a message's mailbox, which is created if necessary.
        """
        key = (message.root, message.parts)
        if key not in self._folders:
            self._folders[key] = str(makeFolder(*key))
        return self._folders[key]

    def quotaOf(self, message: MaildirWrite) -> QuotaUsage:
        """
        The quota of a message's account.
        """
        key = (message.root, message.quota)
        if key not in self.quotas:
            self.quotas[key] = QuotaUsage(*key, message.when)
        return self.quotas[key]


class PendingWrite:
    """
    A message that is being stored.

    @ivar error: The reason if it isn't stored.
    """

    def __init__(self, message: MaildirWrite) -> None:
        self.message = message
        self.error: Exception | None = None
        self._temporary: TempFile | None = None
        self._folder = ""
        self._name = ""

    def write(self, context: BatchContext) -> None:
        """
        Write the message to C{tmp}.

        @raise MailboxFull: It exceeds the quota.
        """
        message = self.message
        # Strings instead of Path objects, whose joining takes longer than the write.
        folder = context.folderOf(message)
        temporary = self._temporary = TempFile.begin(f"{folder}/tmp/{message.unique}")
        temporary.write(message.content)
        context.quotaOf(message).take(temporary.size)
        self._folder = f"{folder}/{'cur' if message.seen else 'new'}"
        # Sizes in the name: readers need not look at the file (Maildir++).
        flags = ":2,S" if message.seen else ""
        self._name = (
            f"{message.unique},S={temporary.size},W={temporary.virtualSize}{flags}"
        )

    def sync(self, context: BatchContext) -> None:
        """
        Wait until the file is on disk.
        """
        assert self._temporary is not None
        try:
            self._temporary.sync()
        except OSError:
            context.quotaOf(self.message).giveBack(self._temporary.size)
            raise

    def publish(self) -> str:
        """
        Move the file to C{new} or C{cur}, where readers see it.

        @return: The folder, which has to be synced.
        """
        assert self._temporary is not None
        self._temporary.close()
        os.rename(self._temporary.path, f"{self._folder}/{self._name}")
        self._temporary = None
        return self._folder

    def drop(self, why: Exception) -> None:
        """
        Remove the file.
        """
        self.error = why
        if self._temporary is not None:
            self._temporary.drop()
            self._temporary = None


def writeBatch(messages: Sequence[MaildirWrite]) -> list[Exception | None]:
    """
    Store messages.  The waits for the disk are shared: all files are written before the
    first one is synced, and each folder is synced once.

    @return: For each message, C{None} if it would survive a power cut now, or the
        reason why it isn't stored.
    """
    writes = [PendingWrite(each) for each in messages]
    context = BatchContext()
    folders: dict[str, list[PendingWrite]] = {}
    _each(writes, lambda write: write.write(context))
    _each(writes, lambda write: write.sync(context))
    _count(writes, context)
    _each(writes, lambda write: folders.setdefault(write.publish(), []).append(write))
    for folder, inFolder in folders.items():
        try:
            syncFolder(folder)
        except OSError as why:
            for write in inFolder:
                write.drop(why)
    return [each.error for each in writes]


def _count(writes: Sequence[PendingWrite], context: BatchContext) -> None:
    """
    Record the new usage of quotas, and drop messages that could not be counted.
    """
    for quota in context.quotas.values():
        try:
            quota.write()
        except OSError as why:
            for write in writes:
                isCounted = context.quotaOf(write.message) is quota
                if write.error is None and isCounted:
                    write.drop(why)


def _each(writes: Sequence[PendingWrite], step: Callable[[PendingWrite], None]) -> None:
    """
    Do one step for all messages that haven't failed.
    """
    for write in writes:
        if write.error is None:
            try:
                step(write)
            except Exception as why:
                write.drop(why)
