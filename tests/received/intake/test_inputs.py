"""
Tests for L{moxtls.received.intake.inputs}.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path
from unittest import SkipTest
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.intake import inputs
from moxtls.received.intake.inputs import (
    SMALL,
    Found,
    Input,
    findInputs,
    inStream,
    sizeOf,
)
from moxtls.received.types import Unreadable
from tests.queue.killing import quickDirectory

JSON = b'{"organization-name": "x"}'
MAIL = b"From: a@a.example\nSubject: hi\n\nhello\n"
FROM = b"From a@a.example Tue Nov 24 10:20:30 2026\n"


def tarOf(members: dict[str, bytes], mode: str = "w") -> bytes:
    """
    A tar archive.
    """
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zipOf(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """
    A zip archive.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


class InputCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = quickDirectory(self)

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def names(self, found: Iterable[Found]) -> dict[str, bytes | str]:
        """
        The name inside the test's folder of each input with its content, and of each
        refusal with the reason.
        """
        return {
            each.name.removeprefix(f"{self.folder}/"): (
                each.reason if isinstance(each, Unreadable) else each.source
            )
            for each in found
        }

    def found(self, name: str = "") -> dict[str, bytes | str]:
        return self.names(findInputs(str(self.folder / name)))


class FolderTests(InputCase):
    """
    Tests for files in folders.
    """

    def test_recursive(self) -> None:
        """
        All files are found, but for hidden ones and those that macOS adds.
        """
        self.write("a.json", JSON)
        self.write("b/c/d.eml", MAIL)
        for name in (".DS_Store", "b/.git/x", "__MACOSX/a.json"):
            self.write(name, b"x")
        self.assertEqual(self.found(), {"a.json": JSON, "b/c/d.eml": MAIL})
        self.assertEqual(sizeOf(str(self.folder)), len(JSON) + len(MAIL))

    def test_maildir(self) -> None:
        """
        Of a Maildir, the messages in C{new} and C{cur} are found, those of its
        subfolders too; and no other files.
        """
        for name in ("new/1.M1.host", "cur/2.M2.host:2,S", ".Sub/cur/3", ".Sub/new/4"):
            self.write(f"Maildir/{name}", MAIL)
        for name in ("tmp/5", "dovecot-uidlist", ".Sub/maildirfolder"):
            self.write(f"Maildir/{name}", b"x")
        found = list(findInputs(str(self.folder)))
        self.assertEqual(
            set(self.names(found)),
            {
                "Maildir/new/1.M1.host",
                "Maildir/cur/2.M2.host:2,S",
                "Maildir/.Sub/cur/3",
                "Maildir/.Sub/new/4",
            },
        )
        self.assertTrue(all(isinstance(each, Input) and each.isMail for each in found))

    def test_links(self) -> None:
        """
        Links to files are followed.  Those to folders aren't, as they may be loops; one
        that is given is.
        """
        self.write("there/a.json", JSON)
        here = self.folder / "here"
        here.mkdir()
        (here / "file").symlink_to(self.folder / "there" / "a.json")
        (here / "loop").symlink_to(here)
        (here / "self").symlink_to("self")
        (here / "gone").symlink_to(self.folder / "nowhere")
        self.assertEqual(
            self.found("here"),
            {
                "here/file": JSON,
                "here/loop": "a symbolic link to a folder, which isn't followed",
                "here/self": "not a regular file",
                "here/gone": "No such file or directory",
            },
        )
        (self.folder / "given").symlink_to(self.folder / "there")
        self.assertEqual(self.found("given"), {"given/a.json": JSON})

    def test_special(self) -> None:
        """
        Named pipes, sockets and devices are refused, without waiting for them.
        """
        os.mkfifo(self.folder / "pipe")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(self.folder / "socket"))
        self.assertEqual(
            self.found(),
            {"pipe": "not a regular file", "socket": "not a regular file"},
        )
        self.assertEqual(
            self.names(findInputs("/dev/zero")), {"/dev/zero": "not a regular file"}
        )

    def test_unreadable(self) -> None:
        """
        What can't be opened is refused, with the reason of the system.
        """
        self.assertEqual(
            self.found("nothing"), {"nothing": "No such file or directory"}
        )
        impossible = self.names(findInputs("a\0b"))
        self.assertEqual(impossible, {"a\0b": "no file can have this name"})
        if os.geteuid() == 0:
            raise SkipTest("root can read everything")
        self.write("secret", JSON).chmod(0)
        (self.folder / "closed").mkdir(0)
        self.assertEqual(
            self.found(),
            {"secret": "Permission denied", "closed": "Permission denied"},
        )

    def test_large(self) -> None:
        """
        A large file is left to the process that parses it.
        """
        path = self.write("large.xml", b"<feedback>" + bytes(SMALL))
        self.assertEqual(
            list(findInputs(str(path))),
            [Input(str(path), str(path), SMALL + 10)],
        )


class MailboxTests(InputCase):
    """
    Tests for mailboxes in mbox format (RFC 4155).
    """

    def test_messages(self) -> None:
        """
        Each message is an input of its own, named by its number, without the quotation
        of lines that begin with "From ".
        """
        second = b"Subject: 2\n\nFrom here on\n>From me\n>>From you\n"
        self.write("box", FROM + MAIL + b"\n" + FROM + second)
        self.assertEqual(
            self.found("box"),
            {
                "box/1": MAIL + b"\n",
                "box/2": b"Subject: 2\n\nFrom here on\nFrom me\n>From you\n",
            },
        )

    def test_tooLarge(self) -> None:
        """
        A message that is larger than the limit is refused, and the next one read.
        """
        self.patch(inputs, "MAX_INPUT", 1000)
        large = MAIL + b"x" * 80 + b"\n" * 2000 + b"\n"
        self.write("box", FROM + large + FROM + MAIL)
        self.assertEqual(
            self.found("box"), {"box/1": "larger than 1000 bytes", "box/2": MAIL}
        )

    def test_memory(self) -> None:
        """
        Memory doesn't grow with the mailbox, nor with a line without an end.
        """
        path = self.folder / "box"
        with path.open("wb") as file:
            for _ in range(2000):
                file.write(FROM + MAIL + b"x" * 20_000 + b"\n\n")
            file.write(FROM)
            file.truncate(100 * 2**20)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with patch.object(inputs, "MAX_INPUT", 2**20):
            found = [each.name for each in findInputs(str(path))]
        self.assertEqual(len(found), 2001)
        self.assertLess(tracemalloc.get_traced_memory()[1], 8 * 2**20)

    def test_octets(self) -> None:
        """
        The octets of all messages are about those of the file, for the progress.
        """
        path = self.write("box", (FROM + MAIL + b"x" * 500 + b"\n\n") * 2000)
        found = list(findInputs(str(path)))
        octets = [each.octets for each in found if isinstance(each, Input)]
        self.assertEqual(sum(octets), path.stat().st_size)
        self.assertLess(max(octets), path.stat().st_size / 2)


class ArchiveTests(InputCase):
    """
    Tests for archives.
    """

    def test_tar(self) -> None:
        """
        The files in a tar archive are inputs, however it is compressed.
        """
        members = {"a/b.json": JSON, "a/._b.json": b"x", "box/cur/1": MAIL}
        for name, mode in (("t.tar", "w"), ("t.tgz", "w:gz"), ("t.bz2", "w:bz2")):
            self.write(name, tarOf(members, mode))
            expected = {f"{name}/a/b.json": JSON, f"{name}/box/cur/1": MAIL}
            self.assertEqual(self.found(name), expected)
        self.write("t.xz", lzma.compress(tarOf(members)))
        self.assertEqual(set(self.found("t.xz")), {"t.xz/a/b.json", "t.xz/box/cur/1"})

    def test_tarMembers(self) -> None:
        """
        Links and devices in an archive are passed over.
        """
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for kind in (tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
                member = tarfile.TarInfo("x")
                member.type, member.linkname = kind, "/etc/passwd"
                archive.addfile(member)
        self.write("t.tar", file.getvalue())
        self.assertEqual(self.found(), {})

    def test_tarNames(self) -> None:
        """
        An archive with an endless name or attribute, which would be kept in memory, is
        refused before they are read.
        """
        for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            member = tarfile.TarInfo("x")
            member.type, member.size = kind, 8 * 2**20
            # As a tar archive this is complete.
            content = member.tobuf(tarfile.USTAR_FORMAT) + bytes(member.size)
            self.write("t.tar", content + tarOf({"a.json": JSON}))
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            found = self.found()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertEqual(found, {"t.tar": "the data is damaged (ReadError)"})
            self.assertLess(peak, 4 * 2**20)
        long = "a/" * 2000 + "b.json"
        self.write("t.tar", tarOf({long: JSON}))
        self.assertEqual(self.found(), {f"t.tar/{long}": JSON})

    def test_namelessMember(self) -> None:
        """
        Members of a zip archive may have an empty name, such as those of standard input
        (APPNOTE.TXT 4.4.17).
        """
        data = zipOf({"?!?!": JSON, "a.json": JSON}).replace(b"?!?!", bytes(4))
        self.write("z.zip", data)
        self.assertEqual(self.found(), {"z.zip": data})

    def test_zip(self) -> None:
        """
        A zip archive as it is sent is one input; one of many files, or of mailboxes,
        has those as inputs.
        """
        sent = zipOf({"a.xml": b"<feedback/>", "logo.png": b"x"})
        self.write("sent.zip", sent)
        self.assertEqual(self.found("sent.zip"), {"sent.zip": sent})
        members = {f"{n}.json": JSON for n in range(inputs.MAX_MEMBERS + 1)}
        self.write("many.zip", zipOf(members))
        self.assertEqual(
            self.found("many.zip"), {f"many.zip/{name}": JSON for name in members}
        )
        self.write("box.zip", zipOf({"a.mbox": FROM + MAIL}))
        self.assertEqual(self.found("box.zip"), {"box.zip/a.mbox/1": MAIL})

    def test_largeZip(self) -> None:
        """
        A large zip archive is read where it is, and from standard input, too.
        """
        members = {f"{n}.bin": os.urandom(10_000) for n in range(101)}
        content = zipOf(members)
        self.assertGreater(len(content), SMALL)
        self.write("large.zip", content)
        self.assertEqual(set(self.found()), {f"large.zip/{name}" for name in members})
        found = self.names(inStream(io.BytesIO(content), "-"))
        self.assertEqual(set(found), {f"-/{name}" for name in members})
        content = zipOf({"a.xml": os.urandom(2 * SMALL), "b.png": b""})
        found = self.names(inStream(io.BytesIO(content), "-"))
        self.assertEqual(found, {"-": content})
        found = self.names(inStream(io.BytesIO(tarOf({"a.zip": content})), "-"))
        self.assertEqual(found, {"-/a.zip": content})

    def test_nested(self) -> None:
        """
        Archives in archives are opened, up to a limit.
        """
        content = tarOf({"x/box": FROM + MAIL})
        self.write("a.tar", tarOf({"b.tgz": gzip.compress(content)}))
        self.assertEqual(self.found(), {"a.tar/b.tgz/x/box/1": MAIL})
        deep = tarOf({"a": tarOf({"b": tarOf({"c": tarOf({"d": JSON})})})})
        self.write("a.tar", deep)
        (name, source), *others = self.found().items()
        self.assertEqual((name, others), ("a.tar/a/b/c", []))
        self.assertIsInstance(source, bytes)

    def test_damaged(self) -> None:
        """
        What can be read before the damage is found, and the damage is told.
        """
        content = tarOf({"a": JSON, "b": bytes(SMALL)}, "w:gz")
        self.write("t.tgz", content[:-100])
        found = self.found("t.tgz")
        self.assertEqual(found.pop("t.tgz/a"), JSON)
        self.assertEqual(found, {"t.tgz": "the data is damaged (EOFError)"})

    def test_damagedMember(self) -> None:
        """
        A damaged member of a zip archive doesn't affect the others.
        """
        members = {f"{n}.json": b"%d" % n + JSON for n in range(102)}
        content = zipOf(members, zipfile.ZIP_STORED).replace(
            b"7" + JSON, b"?" + JSON, 1
        )
        self.write("z.zip", content)
        found = self.found()
        self.assertEqual(found["z.zip/7.json"], "the data is damaged (BadZipFile)")
        self.assertEqual(found["z.zip/8.json"], b"8" + JSON)

    def test_unusualMember(self) -> None:
        """
        A member that would be decompressed as a whole is refused.
        """
        members = {f"{n}.json": JSON for n in range(102)}
        self.write("z.zip", zipOf(members, zipfile.ZIP_LZMA))
        self.assertEqual(set(self.found().values()), {"packed in an unusual way"})

    def test_bomb(self) -> None:
        """
        An archive that becomes much larger when it is decompressed is refused at a
        limit, and takes no more memory than others.
        """
        self.patch(inputs, "MIN_LIMIT", 5 * 2**20)
        self.patch(inputs, "MAX_INPUT", 2**20)
        whole = tarOf({"a": bytes(20 * 2**20)})
        for name, content in (
            ("bomb.tgz", gzip.compress(whole, 1)),
            ("bomb.bz2", bz2.compress(whole, 1)),
        ):
            self.write(name, content)
            del content
            tracemalloc.start()
            found = self.found(name)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.assertEqual(
                found,
                {
                    f"{name}/a": "larger than 1048576 bytes",
                    name: "too large when decompressed",
                },
            )
            self.assertLess(peak, 8 * 2**20)
        self.write("bomb.zip", zipOf({f"{n}": bytes(6 * 2**20) for n in range(101)}))
        self.assertEqual(
            set(self.found("bomb.zip").values()), {"too large when decompressed"}
        )


class StreamTests(InputCase):
    """
    Tests for standard input.
    """

    def test_kinds(self) -> None:
        """
        A report, a mailbox and an archive are read.
        """
        for content, expected in (
            (JSON, {"-": JSON}),
            (FROM + MAIL, {"-/1": MAIL}),
            (tarOf({"a": JSON}, "w:gz"), {"-/a": JSON}),
            (tarOf({"a": JSON, "b": bytes(SMALL)}), {"-/a": JSON, "-/b": bytes(SMALL)}),
        ):
            self.assertEqual(self.names(inStream(io.BytesIO(content), "-")), expected)

    def test_endless(self) -> None:
        """
        A stream without an end is refused at the limit.
        """
        self.patch(inputs, "MAX_INPUT", 2**20)
        with open("/dev/zero", "rb") as file:
            found = self.names(inStream(file, "-"))
        self.assertEqual(found, {"-": "larger than 1048576 bytes"})
