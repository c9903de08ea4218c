# -*- test-case-name: tests.received.intake.test_inputs -*-
"""
Finds the inputs of an import, each with one report or a few: files in folders, messages
in mailboxes, and members of archives.

Everything is read as a stream; an input in memory has at most L{MAX_INPUT} octets, and
files of more than L{SMALL} octets are left to the process that parses them.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Protocol, Self

from moxtls.received.reading.documents import MAX_INPUT
from moxtls.received.reading.read import readReports
from moxtls.received.types import ReadResult, Unreadable
from moxtls.regularfiles import openRegular


class IReadable(Protocol):
    """
    A file that is read from its beginning to its end.
    """

    def read(self, size: int, /) -> bytes | None: ...


#: Octets of a file that is read here: most reports are smaller.
SMALL = 256 * 1024
#: Octets in which an archive is recognized: those of a tar header.
HEAD = 512
#: Archives in archives; an archive of mailboxes, compressed, has two levels.
MAX_DEPTH = 3
#: Decompressed octets of an archive for each compressed one, and those that any archive
#: may have: XML compresses to a fortieth, but empty files to a thousandth.
MAX_RATIO = 200
MIN_LIMIT = 2**30
#: Files in a zip archive that L{readReports} looks at.
MAX_MEMBERS = 100

_GZIP, _MBOX, _TAR = b"\x1f\x8b", b"From ", b"ustar"
_ZIP, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_COMPRESSED: dict[bytes, Callable[[io.BufferedReader], io.BufferedIOBase]] = {
    _GZIP: lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
# RFC 4155 appendix A: "From ", an address, a date and the end of the line.  Lines of
# text that begin with "From " have no time of day and year.
_FROM_LINE = re.compile(rb"From \S.*\d:\d\d.*\d{4}\s*\Z")
# The prefix that programs write before such lines in messages.
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
#: Octets of a line in a mailbox that are read at once.
MAX_LINE = 2**16
#: Octets of the name and the attributes of a member of a tar archive.
MAX_EXTENDED = 64 * 1024
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DOCUMENTS = (b".xml", b".json", b".gz")
#: RFC 9990 3.5.2, RFC 8460 5.1.
_REPORTS = (".xml.gz", ".json.gz")
#: What readers of archives raise for damaged ones.
_DAMAGED = (
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Input:
    """
    An input for L{readReports}.

    @ivar name: The path, with that inside an archive or the number of a message.
    @ivar source: The content, or the path of a file.
    @ivar octets: The part of the file on disk that it stands for.
    @ivar isMail: True for a message in a mailbox, which may be no report.
    """

    name: str
    source: bytes | str
    octets: int
    isMail: bool = False


Found = Input | Unreadable


def readInputs(inputs: tuple[tuple[bytes | str, str], ...]) -> list[ReadResult]:
    """
    Read several inputs, each a source and its name, in a worker process.
    """
    return [readReports(source, name) for source, name in inputs]


def tooLarge(name: str) -> Unreadable:
    """
    The refusal of an input of more than L{MAX_INPUT} octets.
    """
    return Unreadable(name, f"larger than {MAX_INPUT} bytes")


def _unopened(name: str, error: Exception) -> Unreadable:
    reason = error.strerror if isinstance(error, OSError) else None
    return Unreadable(name, reason or str(error) or type(error).__name__)


# --- files and folders ---------------------------------------------------------------


def findInputs(path: str) -> Generator[Found]:
    """
    The inputs in a file or a folder.

    @param path: May be a link; links to folders inside of folders aren't followed, as
        they may form loops.
    """
    try:
        isFolder = stat.S_ISDIR(os.stat(path).st_mode)
    except ValueError:
        # Each version of Python words it in another way.
        yield Unreadable(path, "no file can have this name")
        return
    except OSError as error:
        yield _unopened(path, error)
        return
    files: Iterable[tuple[str | Unreadable, bool]] = [(path, False)]
    for each, isMail in _files(path) if isFolder else files:
        if isinstance(each, str):
            yield from _inFile(each, isMail)
        else:
            yield each


def sizeOf(path: str) -> int:
    """
    The octets of all files that L{findInputs} opens.
    """
    files = _files(path) if os.path.isdir(path) else [(path, False)]
    return sum(_size(each) for each, _ in files if isinstance(each, str))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


def _files(top: str) -> Iterator[tuple[str | Unreadable, bool]]:
    """
    The paths of files, and whether they are messages of a Maildir.
    """
    folders = [(top, False)]
    while folders:
        folder, isMail = folders.pop()
        # A Maildir has other files, too, which aren't messages.
        isMaildir = all(os.path.isdir(os.path.join(folder, n)) for n in ("cur", "new"))
        try:
            entries = os.scandir(folder)
        except OSError as error:
            yield _unopened(folder, error), False
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if isMaildir and entry.name != "tmp":
                        folders.append((entry.path, entry.name in ("cur", "new")))
                    elif not isMaildir and not _isHidden(entry.name):
                        folders.append((entry.path, isMail))
                elif not isMaildir and (isMail or not _isHidden(entry.name)):
                    yield _followed(entry), isMail


def _isHidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _followed(entry: os.DirEntry[str]) -> str | Unreadable:
    # Not that of the entry, which fails for a link to itself.
    isLoop = entry.is_symlink() and os.path.isdir(entry.path)
    reason = "a symbolic link to a folder, which isn't followed"
    return Unreadable(entry.path, reason) if isLoop else entry.path


def _inFile(path: str, isMail: bool) -> Generator[Found]:
    try:
        target = os.path.realpath(path) if os.path.islink(path) else path
        with open(openRegular(target, os.O_RDONLY), "rb", buffering=0) as file:
            start = file.read(SMALL + 1) or b""
            size = len(start)
            if size > SMALL:
                size = os.fstat(file.fileno()).st_size
            if size <= SMALL and _isPlain(start, path):
                # As most are: what follows takes more time.
                yield Input(path, start, size, isMail)
                return
            content = _Content(start, file, size, target, random=file)
            yield from _Expansion(content).inputs(path, isMail)
    except (OSError, ValueError) as error:
        yield _unopened(path, error)


def inStream(file: IReadable, name: str) -> Generator[Found]:
    """
    The inputs in a stream, such as standard input.
    """
    try:
        start = file.read(SMALL + 1) or b""
        if len(start) <= SMALL or not start.startswith(_ZIP):
            yield from _Expansion(_Content(start, file)).inputs(name)
            return
        # The directory of a zip archive is at its end.
        with tempfile.TemporaryFile() as copy:
            copy.write(start)
            while data := file.read(SMALL):
                copy.write(data)
            content = _Content(start, copy, copy.tell(), random=copy)
            yield from _Expansion(content).inputs(name)
    except OSError as error:
        yield _unopened(name, error)


# --- archives and mailboxes ----------------------------------------------------------


class _Joined(io.RawIOBase):
    """
    Data that was read already, and the rest of its file.

    @ivar count: The octets read.
    """

    def __init__(self, start: bytes, file: IReadable) -> None:
        self._start = memoryview(start)
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), SMALL)
        data = self._start[:size] or self._file.read(size) or b""
        self._start = self._start[size:]
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class _Limited(io.RawIOBase):
    """
    Decompressed data, limited by the compressed octets read so far: an archive of a few
    MB must not keep this process busy for hours.
    """

    def __init__(self, file: io.BufferedIOBase, source: _Joined) -> None:
        self._file = file
        self._source = source
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # Not read(): it loses what is before damaged data.
        data = self._file.read1(min(len(buffer), SMALL))
        buffer[: len(data)] = data
        self._count += len(data)
        if self._count > max(MIN_LIMIT, self._source.count * MAX_RATIO):
            raise OSError(errno.EFBIG, "too large when decompressed")
        return len(data)


class _Content:
    """
    The content of a file or a member.

    @ivar start: Its first octets; all if they are at most L{SMALL}.
    @ivar size: Octets, as far as known.
    @ivar path: The file with the content, if another process can read it.
    """

    def __init__(
        self,
        start: bytes,
        file: IReadable,
        size: int = 0,
        path: str = "",
        random: IO[bytes] | None = None,
    ) -> None:
        """
        @param random: The file with the content, if there is one.
        """
        self.start = start
        self.isWhole = len(start) <= SMALL
        self.size = size or len(start)
        self.path = path
        self.source = _Joined(start, file)
        self._random = random

    def stream(self) -> io.BufferedReader:
        """
        The whole content; may be called once.
        """
        return _buffered(self.source)

    def read(self) -> bytes | None:
        """
        The whole content; C{None} if it is larger than L{MAX_INPUT}.
        """
        if self.isWhole:
            return self.start
        if self._random is not None:
            self._random.seek(0)
        file = self.stream() if self._random is None else self._random
        content = file.read(MAX_INPUT + 1)
        return None if len(content) > MAX_INPUT else content

    def seekable(self) -> IO[bytes]:
        """
        The content for random access.

        @raise OSError: It is too large for memory, and in no file.
        """
        if self._random is not None:
            return self._random
        content = self.read()
        if content is None:
            raise OSError(errno.EFBIG, f"a zip archive of more than {MAX_INPUT} bytes")
        self._random = io.BytesIO(content)
        return self._random

    def decompressed(self) -> io.BufferedReader | None:
        """
        The content decompressed, if that is an archive or a mailbox.
        """
        for magic, opened in _COMPRESSED.items():
            if self.start.startswith(magic):
                if magic == _GZIP and not _isStream(_gzipHead(self.start)):
                    return None
                limited = _Limited(opened(self.stream()), self.source)
                content = _buffered(limited)
                return content if _isStream(content.peek(HEAD)) else None
        return None


def _buffered(raw: io.RawIOBase) -> io.BufferedReader:
    return io.BufferedReader(raw, SMALL)


def _isStream(start: bytes) -> bool:
    """
    True for a mailbox and for a tar archive, which are read as streams.
    """
    return start.startswith(_MBOX) or start[257:262] == _TAR


def _isPlain(start: bytes, name: str) -> bool:
    """
    True if a file certainly isn't a collection.
    """
    if start.startswith(_GZIP):
        return name.endswith(_REPORTS)
    return not start.startswith((_ZIP, *_COMPRESSED)) and not _isStream(start)


def _gzipHead(data: bytes) -> bytes:
    with suppress(zlib.error):
        # 16 more than the window size: with a gzip header.
        return zlib.decompressobj(31).decompress(data[:SMALL], HEAD)
    return b""


class _Expansion:
    """
    Finds the inputs in one file.
    """

    def __init__(self, content: _Content) -> None:
        self._content = content
        self._position = 0
        # Those of the file that are behind an input, if it is a zip archive.
        self._unzipped = 0

    def inputs(self, name: str, isMail: bool = False) -> Generator[Found]:
        return self._found(self._content, name, isMail, MAX_DEPTH)

    def _found(
        self, content: _Content, name: str, isMail: bool, depth: int
    ) -> Generator[Found]:
        try:
            if not depth:
                yield self._one(content, name, isMail)
            elif content.start.startswith(_ZIP):
                yield from self._inZip(content, name, isMail, depth)
            elif _isStream(content.start):
                yield from self._inStream(content.stream(), name, depth)
            elif (stream := content.decompressed()) is not None:
                yield from self._inStream(stream, name, depth)
            else:
                yield self._one(content, name, isMail)
        except _DAMAGED as error:
            yield Unreadable(name, _damage(error))

    def _one(self, content: _Content, name: str, isMail: bool) -> Found:
        if content.isWhole:
            return Input(name, content.start, self._octets(), isMail)
        if content.path:
            return Input(name, content.path, content.size, isMail)
        data = content.read()
        if data is None:
            return tooLarge(name)
        return Input(name, data, self._octets(), isMail)

    def _octets(self) -> int:
        """
        Octets of the file since the last call.
        """
        whole = self._content.size if self._content.isWhole else 0
        position = max(whole, self._content.source.count, self._unzipped)
        octets, self._position = position - self._position, position
        return octets

    def _inStream(
        self, stream: io.BufferedReader, name: str, depth: int
    ) -> Generator[Found]:
        if stream.peek(HEAD).startswith(_MBOX):
            for number, message in enumerate(messages(stream), 1):
                where = f"{name}/{number}"
                if message is None:
                    yield tooLarge(where)
                else:
                    yield Input(where, message, self._octets(), True)
        else:
            yield from self._inTar(stream, name, depth)

    def _inTar(
        self, stream: io.BufferedReader, name: str, depth: int
    ) -> Generator[Found]:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
            for member in archive:
                # It would keep all of them.
                archive.members = []  # type: ignore[attr-defined]
                file = archive.extractfile(member) if member.isreg() else None
                if file is not None and not _isIgnored(member.name):
                    inner = _Content(file.read(SMALL + 1), file)
                    isMail = _isMaildirPath(member.name)
                    yield from self._found(
                        inner, f"{name}/{member.name}", isMail, depth - 1
                    )

    def _inZip(
        self, content: _Content, name: str, isMail: bool, depth: int
    ) -> Generator[Found]:
        if _isOneReport(content):
            yield self._one(content, name, isMail)
            return
        with zipfile.ZipFile(content.seekable()) as archive:
            members = [
                each
                for each in archive.infolist()
                if not each.filename.endswith("/") and not _isIgnored(each.filename)
            ]
            isSmall = content.size <= MAX_INPUT and len(members) <= MAX_MEMBERS
            if isSmall and not any(_isCollection(archive, each) for each in members):
                yield self._one(content, name, isMail)
                return
            for each in members:
                yield from self._member(archive, each, name, depth)
                if content is self._content:
                    self._unzipped += each.compress_size

    def _member(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, depth: int
    ) -> Generator[Found]:
        where = f"{name}/{member.filename}"
        # With other methods, zipfile decompresses everything into memory.
        if member.compress_type not in _METHODS:
            yield Unreadable(where, "packed in an unusual way")
        elif member.file_size > max(MIN_LIMIT, member.compress_size * MAX_RATIO):
            yield Unreadable(where, "too large when decompressed")
        else:
            isMail = _isMaildirPath(member.filename)
            try:
                with archive.open(member) as file:
                    inner = _Content(file.read(SMALL + 1), file)
                    yield from self._found(inner, where, isMail, depth - 1)
            except _DAMAGED as error:
                yield Unreadable(where, _damage(error))


class _Member(tarfile.TarInfo):
    """
    A member of a tar archive, with a limit for long names and attributes: tarfile
    decompresses them into memory.
    """

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENDED and member.size > MAX_EXTENDED:
            raise tarfile.ReadError("a name or attributes are too long")
        return member


def _damage(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"the data is damaged ({type(error).__name__})"


def _isIgnored(path: str) -> bool:
    """
    True for members of archives that L{findInputs} would skip in a folder.
    """
    folders = path.split("/")
    return "__MACOSX" in folders or (
        _isHidden(folders[-1]) and not _isMaildirPath(path)
    )


def _isMaildirPath(path: str) -> bool:
    return path.split("/")[-2:-1] in (["cur"], ["new"])


def _isOneReport(content: _Content) -> bool:
    """
    True for a zip archive of one document, as reports are sent.
    """
    start = content.start
    end = start.rfind(_ZIP_END)
    if not content.isWhole or start[end + 10 : end + 12] != b"\1\0":
        return False
    length = int.from_bytes(start[26:28], "little")
    return start[30 : 30 + length].lower().endswith(_DOCUMENTS)


def _isCollection(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """
    True if a member isn't left to L{readReports}.
    """
    if member.compress_type not in _METHODS:
        return False
    with suppress(*_DAMAGED), archive.open(member) as file:
        return _isStream(file.read(HEAD))
    return False


def messages(stream: BinaryIO | io.BufferedReader) -> Iterator[bytes | None]:
    """
    The messages of a mailbox in mbox format; C{None} for each of more than
    L{MAX_INPUT} octets.
    """
    lines: list[bytes] = []
    size, isAfterBlank = 0, True
    stream.readline(MAX_LINE)
    while line := stream.readline(MAX_LINE):
        if isAfterBlank and line.startswith(_MBOX) and _FROM_LINE.match(line):
            yield _message(lines, size)
            lines, size = [], 0
        else:
            size += len(line)
            if size <= MAX_INPUT:
                lines.append(line)
        isAfterBlank = line in (b"\n", b"\r\n")
    yield _message(lines, size)


def _message(lines: list[bytes], size: int) -> bytes | None:
    if size > MAX_INPUT:
        return None
    message = b"".join(lines)
    return _QUOTED.sub(rb"\1", message) if b"\n>" in message else message
