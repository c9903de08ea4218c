# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Writes messages to Maildirs, several at a time, to the disk.
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
    A message for a mailbox.

    @ivar root: The Maildir of whoever it is for.
    @ivar parts: Of the mailbox's name; none for the inbox.
    @ivar unique: A file name that no other has, without sizes and flags.
    @ivar quota: Of all in C{root}, in octets; 0 for none.
    @ivar when: Unix seconds.
    """

    root: Path
    parts: tuple[str, ...]
    message: Sequence[bytes]
    seen: bool
    unique: str
    quota: int
    when: float


class BatchContext:
    """
    What the letters of a group share: what is looked up for one holds for all.
    """

    def __init__(self) -> None:
        self.allowances: dict[tuple[Path, int], QuotaUsage] = {}
        self._folders: dict[tuple[Path, tuple[str, ...]], str] = {}

    def folderOf(self, letter: MaildirWrite) -> str:
        """
        Where the letter's mailbox is; made if need be.
        """
        key = (letter.root, letter.parts)
        if key not in self._folders:
            self._folders[key] = str(makeFolder(*key))
        return self._folders[key]

    def allowanceOf(self, letter: MaildirWrite) -> QuotaUsage:
        """
        What there may be in all mailboxes of whoever it is for.
        """
        key = (letter.root, letter.quota)
        if key not in self.allowances:
            self.allowances[key] = QuotaUsage(*key, letter.when)
        return self.allowances[key]


class PendingWrite:
    """
    A letter on its way into the mailbox.

    @ivar error: Why it doesn't get there.
    """

    def __init__(self, letter: MaildirWrite) -> None:
        self.letter = letter
        self.error: Exception | None = None
        self._draft: TempFile | None = None
        self._folder = ""
        self._name = ""

    def write(self, surroundings: BatchContext) -> None:
        """
        Write it down where nobody looks.

        @raise MailboxFull: There is no room for it.
        """
        letter = self.letter
        # Not paths as objects: to put them together takes longer than to write.
        folder = surroundings.folderOf(letter)
        draft = self._draft = TempFile.begin(f"{folder}/tmp/{letter.unique}")
        draft.write(letter.message)
        surroundings.allowanceOf(letter).take(draft.size)
        self._folder = f"{folder}/{'cur' if letter.seen else 'new'}"
        # The sizes in the name save readers from looking (Maildir++).
        flags = ":2,S" if letter.seen else ""
        self._name = f"{letter.unique},S={draft.size},W={draft.virtualSize}{flags}"

    def sync(self, surroundings: BatchContext) -> None:
        """
        Wait until it is on the disk.
        """
        assert self._draft is not None
        try:
            self._draft.sync()
        except OSError:
            surroundings.allowanceOf(self.letter).giveBack(self._draft.size)
            raise

    def show(self) -> str:
        """
        Put it where readers look.

        @return: The folder that has to be brought to the disk.
        """
        assert self._draft is not None
        self._draft.close()
        os.rename(self._draft.path, f"{self._folder}/{self._name}")
        self._draft = None
        return self._folder

    def drop(self, why: Exception) -> None:
        """
        Leave nothing behind.
        """
        self.error = why
        if self._draft is not None:
            self._draft.drop()
            self._draft = None


def writeBatch(letters: Sequence[MaildirWrite]) -> list[Exception | None]:
    """
    Put letters into their mailboxes.  The waits for the disk are shared:
    files go there together, and each folder once.

    @return: For each, C{None} once it would survive a power cut, or why it
        isn't there.
    """
    postings = [PendingWrite(each) for each in letters]
    surroundings = BatchContext()
    folders: dict[str, list[PendingWrite]] = {}
    _each(postings, lambda posting: posting.write(surroundings))
    _each(postings, lambda posting: posting.sync(surroundings))
    _count(postings, surroundings)
    _each(
        postings, lambda posting: folders.setdefault(posting.show(), []).append(posting)
    )
    for folder, those in folders.items():
        try:
            syncFolder(folder)
        except OSError as why:
            for posting in those:
                posting.drop(why)
    return [each.error for each in postings]


def _count(postings: Sequence[PendingWrite], surroundings: BatchContext) -> None:
    """
    Write down what allowances are used for, or drop what would not be counted.
    """
    for allowance in surroundings.allowances.values():
        try:
            allowance.write()
        except OSError as why:
            for posting in postings:
                isIts = surroundings.allowanceOf(posting.letter) is allowance
                if posting.error is None and isIts:
                    posting.drop(why)


def _each(
    postings: Sequence[PendingWrite], step: Callable[[PendingWrite], None]
) -> None:
    """
    Take a step with all that have come so far.
    """
    for posting in postings:
        if posting.error is None:
            try:
                step(posting)
            except Exception as why:
                posting.drop(why)
