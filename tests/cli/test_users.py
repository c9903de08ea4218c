"""
Commands of several users beside a server that runs as one of its own; all as
real processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import site
import smtplib
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import moxtls
from tests import MAX_WAIT
from tests.cli.commands import Ran
from tests.configs import HOSTNAME, rsaKey
from tests.queue.killing import quickDirectory
from tests.servers import closedPort
from tests.test_tap import TWISTD

ROOT = Path(moxtls.__file__).parents[1]
#: The user of the server, and another one.
OWNER, OTHER = "nobody", "daemon"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/root",
    "PYTHONPATH": os.pathsep.join([str(ROOT), *site.getsitepackages()]),
    "PYTHONDONTWRITEBYTECODE": "1",
}
MESSAGE = "Subject: hi\n\nhello\n"

#: C{moxtls summary --json} without reports.
NOTHING = json.dumps(
    [
        {
            "domain": HOSTNAME,
            "reports": kind,
            "verdict": "no data",
            "sentence": f"no {kind} report about these days",
            "since": None,
            "total": 0,
            "failed": 0,
        }
        for kind in ("TLS", "DMARC")
    ],
    indent=2,
)
#: Every command that works on the data, and what root and the owner are told
#: when there is none: C{None} if that is an error.
READING = {
    ("results",): "No sessions have been recorded.\n",
    ("results", "b.example"): "No sessions have been recorded.\n",
    ("evaluations",): "No mail has been evaluated.\n",
    ("evaluations", "b.example"): "No mail of b.example has been evaluated.\n",
    ("queue", "list"): "The queue is empty.\n",
    ("queue", "retry", "--all"): "0 messages\n",
    ("queue", "hold", "x"): None,
    ("queue", "release", "x"): None,
    ("queue", "drop", "x"): None,
    ("report", "pending"): "No reports are due.\n",
    ("report", "preview"): "No reports are due.\n",
    ("report", "sent"): "No reports have been sent.\n",
    ("report", "list"): 'No reports have been received; "moxtls summary DOMAIN" '
    "says what to expect.\n",
    ("report", "list", "--refused"): "No such reports.\n",
    ("report", "show", "1"): None,
    ("report", "raw", "1"): None,
    ("report", "export", "dmarc", "--json"): "",
    ("summary", "--no-dns", "--json"): NOTHING + "\n",
    ("suppress", "list"): "No address is suppressed.\n",
    ("suppress", "extend", "a@b.example"): None,
    ("suppress", "remove", "a@b.example"): None,
    ("mtasts", "show"): "No policy is cached.\n",
    ("mtasts", "drop", "b.example"): None,
    ("probe", "b.example"): None,
}
WRITING = (
    ("send", "a@b.example"),
    ("suppress", "add", "a@b.example"),
    ("report", "send"),
    ("report", "import", "/nothing"),
    ("mtasts", "refresh", "b.example"),
)
#: Those that do without data.
FREE = (
    ("config", "check"),
    ("config", "describe"),
    ("config", "password"),
    ("auth", "-", "--ip", "192.0.2.1"),
)


@cache
def findPython() -> str:
    """
    An interpreter that the server's user can run: this one, if it isn't root's
    own; empty if there is none.
    """
    for each in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            command = [each, "-c", "import moxtls.app.build"]
            ran = subprocess.run(
                command, user=OWNER, cwd="/", env=ENVIRONMENT, capture_output=True
            )
            if ran.returncode == 0:
                return each
    return ""


class UsersCase(SynchronousTestCase):
    """
    @ivar data: The data directory, which doesn't exist.
    """

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can run processes of several users")
        for name in (OWNER, OTHER):
            try:
                pwd.getpwnam(name)
            except KeyError:
                raise SkipTest(f"there is no user {name}") from None
        self.executable = findPython()
        if not self.executable:
            raise SkipTest(f"user {OWNER} may not run this installation")
        self.runner: Any = subprocess.Popen(
            [self.executable, "-m", "tests.cli.forking"],
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.runner.communicate)
        self.uid = pwd.getpwnam(OWNER).pw_uid
        self.folder = quickDirectory(self)
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.file = self.folder / "moxtls.toml"
        self.port = closedPort()
        self.configure(f"[Listeners.local]\nPort = {self.port}\n")

    def configure(self, more: str) -> None:
        self.file.write_text(
            f'Hostname = "{HOSTNAME}"\n{more}'
            f'[Resolver]\nServers = ["127.0.0.1:{closedPort()}"]\n'
        )

    def moxtls(self, user: str, *words: str, stdin: str = MESSAGE) -> Ran:
        """
        Run a command as C{user}.
        """
        words = ("--config", str(self.file), *words)
        request = {"user": user, "words": words, "stdin": stdin}
        self.runner.stdin.write(json.dumps(request) + "\n")
        self.runner.stdin.flush()
        return Ran(**json.loads(self.runner.stdout.readline()))

    def assertGood(self, user: str, *words: str) -> str:
        ran = self.moxtls(user, *words)
        self.assertEqual((ran.status, ran.err), (0, ""), words)
        return ran.out

    def assertRefused(self, said: str, user: str, *words: str, status: int = 1) -> None:
        """
        A command fails with one line, a regular expression.
        """
        ran = self.moxtls(user, *words)
        self.assertRegex(ran.err, rf"\Amoxtls: {said}\n\Z", words)
        self.assertEqual((ran.status, ran.out), (status, ""), words)

    def assertOwned(self) -> None:
        """
        All files are the owner's, and private.
        """
        for path in (self.data, *self.data.rglob("*")):
            found = path.lstat()
            self.assertEqual(found.st_uid, self.uid, path)
            if path.is_dir():
                self.assertEqual(found.st_mode & 0o077, 0, path)

    def makeData(self) -> None:
        """
        Set up a server's data directory.
        """
        self.data.mkdir(mode=0o700)
        os.chown(self.data, self.uid, pwd.getpwnam(OWNER).pw_gid)

    def start(self) -> None:
        """
        Start the server as its user, and wait until it listens.
        """
        words = ("--nodaemon", "--pidfile=", "--uid", OWNER, "moxtls")
        log = self.folder / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [self.executable, "-c", TWISTD, *words, "-c", str(self.file)],
                cwd="/",
                env=ENVIRONMENT,
                stdout=output,
                stderr=output,
            )
        self.addCleanup(self.stop, process)
        deadline = time.monotonic() + MAX_WAIT
        while not self.answers():
            self.assertLess(time.monotonic(), deadline, log.read_text())
            self.assertIsNone(process.poll(), log.read_text())
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            smtplib.SMTP("127.0.0.1", self.port, timeout=MAX_WAIT).quit()
        except OSError:
            return False
        return True

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(MAX_WAIT)

    def queued(self) -> list[str]:
        """
        The recipients in the queue.
        """
        rows = json.loads(self.assertGood("root", "queue", "list", "--json"))
        return [row["recipient"] for row in rows]


class BeforeTests(UsersCase):
    """
    Commands before the first start.
    """

    def test_reading(self) -> None:
        """
        Commands that only read, or change existing entries, make no files.
        """
        for user in ("root", OTHER):
            for words, said in READING.items():
                ran = self.moxtls(user, *words)
                self.assertEqual(ran.status, int(said is None), (words, ran.err))
                if said is not None:
                    self.assertEqual(ran.out, said)
                self.assertFalse(self.data.exists(), words)

    def test_writing(self) -> None:
        """
        Root creates nothing before the first start, as the server's user is unknown.
        """
        for words in WRITING:
            said = f'{self.file}: DataDirectory = "data": does not exist yet: .*'
            self.assertRefused(said, "root", *words)
            self.assertFalse(self.data.exists(), words)

    def test_made(self) -> None:
        """
        If there is a data directory, root switches to its owner, and the server then
        finds all changes.
        """
        self.makeData()
        self.assertGood("root", "send", "a@b.example")
        self.assertGood("root", "suppress", "add", "a@b.example")
        self.assertOwned()
        self.start()
        self.assertGood("root", "queue", "list")
        self.assertEqual(self.queued(), ["a@b.example"])
        self.assertOwned()


class BesideTests(UsersCase):
    """
    Commands beside a server.
    """

    def setUp(self) -> None:
        super().setUp()
        self.makeData()
        self.start()

    def test_root(self) -> None:
        """
        Files made by commands of root belong to the server's user.
        """
        for words in (*WRITING, *READING, *FREE):
            ran = self.moxtls("root", *words)
            # Some find nothing to do, nobody to ask, or nothing to read.
            self.assertIn(ran.status, (0, 1, 2), (words, ran.err))
            self.assertNotIn("Error", ran.err, words)
            self.assertNotIn("ermission", ran.err, words)
            self.assertOwned()
        self.assertEqual(self.queued(), ["a@b.example"])

    def test_owner(self) -> None:
        """
        Files made by commands of the server's own user belong to that user.
        """
        self.assertGood(OWNER, "send", "a@b.example")
        self.assertEqual(self.queued(), ["a@b.example"])
        self.assertOwned()

    def test_check(self) -> None:
        """
        A key that only root can read is a fault.
        """
        selector = '[Domains."example.org".DKIM.Selectors.s]\nKeyFile = "s.pem"\n'
        self.configure(selector)
        key = self.folder / "s.pem"
        key.write_bytes(rsaKey(2048))
        self.assertGood("root", "config", "check")
        key.chmod(0o600)
        ran = self.moxtls("root", "config", "check")
        self.assertIn('KeyFile = "s.pem": cannot be used: Permission', ran.err)

    def test_rootsFile(self) -> None:
        """
        A message that only root can read is read as root.
        """
        file = self.folder / "message"
        file.touch(mode=0o600)
        file.write_text(MESSAGE)
        self.assertGood("root", "send", "--file", str(file), "a@b.example")
        self.assertEqual(self.queued(), ["a@b.example"])

    def test_other(self) -> None:
        """
        Other users get one line that names the permitted ones.
        """
        for words in (*READING, *WRITING[1:]):
            said = f"{self.data}: only root and user {OWNER} may do this"
            self.assertRefused(said, OTHER, *words)

    def test_otherSends(self) -> None:
        """
        Mail of other users is sent by the submission listener.
        """
        messageID = self.assertGood(OTHER, "send", "a@b.example").strip()
        rows = json.loads(self.assertGood("root", "queue", "list", "--json"))
        self.assertEqual(
            [(row["id"], row["sender"], row["recipient"]) for row in rows],
            [(messageID, f"{OTHER}@{HOSTNAME}", "a@b.example")],
        )
        self.assertOwned()

    def test_otherFree(self) -> None:
        """
        Commands that need no data are available to any user.
        """
        for words in FREE[1:]:
            self.assertGood(OTHER, *words)
        said = f"only root and user {OWNER} can see whether it is usable"
        self.assertRefused(
            f'{self.file}: DataDirectory = "data": {said}', OTHER, "config", "check"
        )

    def test_noListener(self) -> None:
        """
        Without a suitable listener, or a running server, the command fails with one
        line.
        """
        self.configure("")
        said = f"only root and user {OWNER} may put messages into the queue, .*"
        self.assertRefused(said, OTHER, "send", "a@b.example", status=77)
        port = closedPort()
        self.configure(f"[Listeners.local]\nPort = {port}\n")
        said = f"the server at 127.0.0.1 port {port}: .*refused.*"
        self.assertRefused(said, OTHER, "send", "a@b.example", status=75)

    def test_server(self) -> None:
        """
        A server of another user doesn't start: it would leave files there that
        the first one couldn't use.
        """
        run = [self.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", "moxtls"]
        self.configure("")
        ran = subprocess.run(
            [*run, "-c", str(self.file)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=MAX_WAIT,
        )
        said = f"{self.data}/queue belongs to user {OWNER}, and this process is root\n"
        self.assertEqual(ran.returncode, 1)
        self.assertEqual(ran.stderr, f'{self.file}: DataDirectory = "data": {said}')
        self.assertOwned()
