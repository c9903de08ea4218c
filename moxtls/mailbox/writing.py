# -*- test-case-name: tests.mailbox.test_maildir -*-
"""
Writes messages to Maildirs, several at a time, to the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moxtls.mailbox.allowance import Allowance
from moxtls.mailbox.folders import Draft, madeFolder, syncFolder


@dataclass(frozen=True, slots=True)
class Letter:
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


Allowances = dict[tuple[Path, int], Allowance]


class Posting:
    """
    A letter on its way into the mailbox.

    @ivar error: Why it doesn't get there.
    """

    def __init__(self, letter: Letter) -> None:
        self.letter = letter
        self.error: Exception | None = None
        self._draft: Draft | None = None
        self._place: Path | None = None

    def write(self, allowances: Allowances) -> None:
        """
        Write it down where nobody looks.

        @raise MailboxFull: There is no room for it.
        """
        letter = self.letter
        folder = madeFolder(letter.root, letter.parts)
        draft = self._draft = Draft.begin(folder / "tmp" / letter.unique)
        draft.write(letter.message)
        key = (letter.root, letter.quota)
        if key not in allowances:
            allowances[key] = Allowance(letter.root, letter.quota, letter.when)
        allowances[key].take(draft.size)
        # The sizes in the name save readers from looking (Maildir++).
        name = f"{letter.unique},S={draft.size},W={draft.virtualSize}"
        new = folder / "new" / name
        self._place = folder / "cur" / f"{name}:2,S" if letter.seen else new

    def sync(self, allowances: Allowances) -> None:
        """
        Wait until it is on the disk.
        """
        assert self._draft is not None
        try:
            self._draft.sync()
        except OSError:
            key = (self.letter.root, self.letter.quota)
            allowances[key].giveBack(self._draft.size)
            raise

    def show(self) -> Path:
        """
        Put it where readers look.

        @return: The folder that has to be brought to the disk.
        """
        assert self._draft is not None and self._place is not None
        self._draft.close()
        os.rename(self._draft.path, self._place)
        self._draft = None
        return self._place.parent

    def drop(self, why: Exception) -> None:
        """
        Leave nothing behind.
        """
        self.error = why
        if self._draft is not None:
            self._draft.drop()
            self._draft = None


def post(letters: Sequence[Letter]) -> list[Exception | None]:
    """
    Put letters into their mailboxes.  The waits for the disk are shared:
    files go there together, and each folder once.

    @return: For each, C{None} once it would survive a power cut, or why it
        isn't there.
    """
    postings = [Posting(each) for each in letters]
    allowances: Allowances = {}
    folders: dict[Path, list[Posting]] = {}
    _each(postings, lambda posting: posting.write(allowances))
    _each(postings, lambda posting: posting.sync(allowances))
    for allowance in allowances.values():
        allowance.write()
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


def _each(postings: Sequence[Posting], step: Callable[[Posting], None]) -> None:
    """
    Take a step with all that have come so far.
    """
    for posting in postings:
        if posting.error is None:
            try:
                step(posting)
            except Exception as why:
                posting.drop(why)
