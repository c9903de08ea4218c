# -*- test-case-name: tests.mailbox -*-
"""
Stores messages in Maildirs durably, in batches that share the waits for the disk, with
the files, folders and quotas of the Maildir++ format.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moxtls.mailbox.names import MailboxFull
from moxtls.regularfiles import NotRegularFile, openRegular, readRegular


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


# --- files and folders ---

FOLDER_MODE = 0o700
FILE_MODE = 0o600
#: Seconds after which a file in C{tmp} counts as abandoned (Maildir format).
STALE_AFTER = 36 * 3600

_sync = getattr(os, "fdatasync", os.fsync)


@dataclass(slots=True)
class TempFile:
    """
    A message file under C{tmp}, which readers ignore.

    @ivar size: Octets of the file.
    @ivar virtualSize: As IMAP counts it (RFC 9051 2.3.4): a line ends with
        two octets, however it is stored.
    """

    path: str
    descriptor: int
    size: int = 0
    virtualSize: int = 0

    @classmethod
    def begin(cls, path: str) -> TempFile:
        """
        Create the file.

        @raise OSError: A file of that name exists, or can't be created.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        return cls(path, os.open(path, flags, FILE_MODE))

    def write(self, message: Sequence[bytes]) -> None:
        """
        Write a message, and have the system start writing it to the disk, so that the
        files of a batch are written together.

        @raise OSError: The disk is full, or C{message} can't be read.
        """
        last = b""
        for chunk in message:
            self._put(chunk)
            self.size += len(chunk)
            self.virtualSize += len(chunk) + _bareLineFeeds(chunk)
            if last == b"\r" and chunk[:1] == b"\n":
                self.virtualSize -= 1
            last = chunk[-1:] or last
        if hasattr(os, "posix_fadvise"):
            # Apart from its advice about memory, it starts writing dirty pages.
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """
        Wait until the file is on disk.
        """
        _sync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1

    def drop(self) -> None:
        """
        Close and remove the file.
        """
        if self.descriptor >= 0:
            self.close()
        with suppress(OSError):
            os.unlink(self.path)

    def _put(self, chunk: bytes) -> None:
        # As few system calls as possible: each one waits for the interpreter lock.
        while chunk:
            chunk = chunk[os.write(self.descriptor, chunk) :]


def _bareLineFeeds(chunk: bytes) -> int:
    # Most messages have none, and this test is faster than counting.
    if chunk.replace(b"\n", b"").replace(b"\r", b"\r\n") == chunk:
        return 0
    return chunk.count(b"\n") - chunk.count(b"\r\n")


def makeFolder(root: Path, parts: tuple[str, ...]) -> Path:
    """
    The folder of a mailbox, which is created durably if it doesn't exist.

    @param parts: The parts of the mailbox's name; none for the inbox.
    """
    folder = root / ".".join(("", *parts)) if parts else root
    if (folder / "cur").is_dir():
        return folder
    _makeRoot(root)
    for each in (folder, folder / "tmp", folder / "new"):
        each.mkdir(FOLDER_MODE, exist_ok=True)
    if parts:
        # Maildir++: marks a folder within a Maildir.
        with suppress(NotRegularFile):
            mark = folder / "maildirfolder"
            os.close(openRegular(mark, os.O_WRONLY | os.O_CREAT, FILE_MODE))
    # C{cur} comes last: its existence shows that the folder is complete.
    (folder / "cur").mkdir(FOLDER_MODE, exist_ok=True)
    syncFolder(folder)
    syncFolder(folder.parent)
    return folder


def _makeRoot(root: Path) -> None:
    missing = [root, *root.parents]
    while missing and missing[-1].exists():
        missing.pop()
    for each in reversed(missing):
        each.mkdir(FOLDER_MODE, exist_ok=True)
        syncFolder(each.parent)


def syncFolder(folder: str | Path) -> None:
    """
    Write a folder to the disk, with the names of its files.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def foldersOf(root: Path) -> Iterator[Path]:
    """
    The folders of all mailboxes in a Maildir++, the inbox first.
    """
    yield root
    with suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield root / entry.name


def removeStaleTemp(root: Path, now: float) -> int:
    """
    Remove abandoned files in the C{tmp} folders of a Maildir++.

    @param now: Unix seconds.

    @return: The number of removed files.
    """
    count = 0
    for folder in foldersOf(root):
        with suppress(FileNotFoundError), os.scandir(folder / "tmp") as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if max(status.st_atime, status.st_mtime) < now - STALE_AFTER:
                        os.unlink(entry.path)
                        count += 1
    return count


# --- quotas ---

QUOTA_FILE = "maildirsize"
#: Maildir++: a file of this size is replaced by a new count.
MAX_FILE_SIZE = 5120
#: Maildir++: seconds after which the messages are counted again before one is refused
#: because of the file.
MAX_COUNT_AGE = 15 * 60

_LINE = re.compile(rb" *(-?[0-9]{1,18}) +(-?[0-9]{1,18}) *\Z")
_SIZE = re.compile(r",S=([0-9]{1,18})(?:[,:]|\Z)")


@dataclass(frozen=True, slots=True)
class MaildirSize:
    """
    The content of C{maildirsize}, which other programs that write to the same Maildir
    read and update too.

    The first line is the quota, such as C{1000000S}; each of the others is a change of
    the number of octets and of messages.

    @ivar fresh: True if nothing was added since the messages were counted.
    """

    octets: int
    messages: int
    fresh: bool = False


def parseMaildirSize(content: bytes, limit: int) -> MaildirSize | None:
    """
    Parse C{maildirsize}.

    @param limit: The quota in octets.

    @return: C{None} if the file is for another quota, or invalid.
    """
    head, *lines = content.split(b"\n")
    if head != b"%dS" % limit or not lines or lines.pop():
        return None
    found = [_LINE.match(line) for line in lines]
    pairs = [(int(each[1]), int(each[2])) for each in found if each]
    if not pairs or len(pairs) < len(lines):
        return None
    octets, messages = (sum(column) for column in zip(*pairs, strict=True))
    return MaildirSize(octets, messages, len(pairs) == 1)


class QuotaUsage:
    """
    The usage of an account's quota, during one batch of messages.
    """

    def __init__(self, root: Path, limit: int, now: float) -> None:
        """
        @param limit: Octets; 0 for any number.
        @param now: Unix seconds.
        """
        self._root = root
        self._limit = limit
        self._now = now
        self._taken: list[int] = []
        self._usage: MaildirSize | None = None

    def take(self, size: int) -> None:
        """
        Count a message that is about to be stored.

        @raise MailboxFull: It exceeds the quota.
        """
        if not self.has(size):
            raise MailboxFull(f"{self._root.name}: its {self._limit} bytes are used")
        self._taken.append(size)

    def has(self, size: int) -> bool:
        """
        True if a message of C{size} octets fits the quota.
        """
        if not self._limit or size <= self._left():
            return True
        if self._usage is not None and self._isSure(self._usage):
            return False
        self._usage = self._counted()
        return size <= self._left()

    def giveBack(self, size: int) -> None:
        """
        Stop counting a message that isn't stored after all.
        """
        self._taken.remove(size)

    def write(self) -> None:
        """
        Add the counted messages to the file.  To be called before they are stored: a
        usage that is too high is corrected by a new count, one that is too low isn't.
        """
        line = b"%d %d\n" % (sum(self._taken), len(self._taken))
        isAny = bool(self._taken)
        self._taken.clear()
        # Without a quota here, another program may have one.
        with suppress(FileNotFoundError, NotRegularFile):
            if isAny:
                self._append(line)

    def _append(self, line: bytes) -> None:
        descriptor = openRegular(self._root / QUOTA_FILE, os.O_WRONLY | os.O_APPEND)
        try:
            # One system call: other programs append as well.
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _left(self) -> int:
        if self._usage is None:
            self._usage = self._read() or self._counted()
        return self._limit - self._usage.octets - sum(self._taken)

    def _read(self) -> MaildirSize | None:
        try:
            content = readRegular(self._root / QUOTA_FILE, MAX_FILE_SIZE - 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            # A file that is too large, or none, is replaced by a new count.
            if isinstance(error, NotRegularFile) or error.errno == errno.EFBIG:
                return None
            raise
        return parseMaildirSize(content, self._limit)

    def _isSure(self, usage: MaildirSize) -> bool:
        try:
            age = self._now - os.lstat(self._root / QUOTA_FILE).st_mtime
        except FileNotFoundError:
            return False
        # A time in the future shows that the clock was set back.
        return usage.fresh and 0 <= age < MAX_COUNT_AGE

    def _counted(self) -> MaildirSize:
        sizes = list(_sizes(self._root))
        usage = MaildirSize(sum(sizes), len(sizes), True)
        temporary = self._root / f"{QUOTA_FILE}.{os.getpid()}"
        content = b"%dS\n%d %d\n" % (self._limit, usage.octets, usage.messages)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._root.mkdir(0o700, parents=True, exist_ok=True)
        # Left by a process that died, or created by an attacker as a link.
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        with open(os.open(temporary, flags, FILE_MODE), "wb") as file:
            file.write(content)
        os.rename(temporary, self._root / QUOTA_FILE)
        return usage


def _sizes(root: Path) -> Iterator[int]:
    """
    The sizes of all messages in all mailboxes, including deleted ones, which take as
    much space.
    """
    for folder in foldersOf(root):
        for name in ("new", "cur"):
            with suppress(FileNotFoundError), os.scandir(folder / name) as entries:
                yield from map(_size, entries)


def _size(entry: os.DirEntry[str]) -> int:
    named = _SIZE.search(entry.name)
    if named:
        return int(named[1])
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0  # It was moved in between.
