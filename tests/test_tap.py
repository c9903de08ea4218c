"""
Tests for L{moxtls.tap}.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import threading
import time
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.service import Server
from moxtls.config import InvalidConfig
from moxtls.queue.executor import InlineSpoolExecutor
from moxtls.queue.spool import Spool
from moxtls.tap import Options, TwistdServer, makeService
from tests import MAX_WAIT
from tests.configs import HOSTNAME
from tests.queue.killing import quickDirectory
from tests.servers import closedPort, startPython

TWISTD = "from twisted.scripts.twistd import run; run()"


class TapCase(SynchronousTestCase):
    """
    @ivar file: A configuration whose only listener is on C{self.port}, and
        whose DNS server isn't there, so that mail stays in the queue.
    """

    def setUp(self) -> None:
        self.folder = quickDirectory(self)
        self.file = self.folder / "moxtls.toml"
        self.port = closedPort()
        self.configure("")

    def configure(self, more: str) -> None:
        self.file.write_text(
            f'Hostname = "{HOSTNAME}"\n[Listeners.a]\nPort = {self.port}\n'
            f'[Resolver]\nServers = ["127.0.0.1:{closedPort()}"]\n{more}'
        )


class MakeServiceTests(TapCase):
    """
    Tests for L{makeService}.
    """

    def options(self) -> Options:
        options = Options()
        options.parseOptions(["--config", str(self.file)])
        return options

    def test_good(self) -> None:
        """
        A server is made; its port is not yet bound, and no file is open that a daemon
        would not inherit.
        """
        threads = threading.active_count()
        self.assertIsInstance(makeService(self.options()), Server)
        self.assertEqual(threading.active_count(), threads)
        socket.create_server(("127.0.0.1", self.port)).close()

    def assertHindered(self, said: str) -> None:
        """
        A start fails with one line, a regular expression, about the file.
        """
        error = self.assertRaises(SystemExit, makeService, self.options())
        self.assertRegex(str(error), rf"\A{self.file}: {said}\Z")
        self.assertNotIn("\n", str(error))

    def test_configuration(self) -> None:
        """
        An invalid or missing configuration.
        """
        self.file.write_text('Hostnme = "x"')
        self.assertHindered('Hostnme = "x": unknown key; Hostname is probably .*')
        self.file.unlink()
        self.assertHindered("cannot be used: No such file or directory")

    def test_all(self) -> None:
        """
        All faults are reported at once, a line each, in the file, in files that it
        names, and of ports in use; with an invalid file nothing is created.
        """
        lines = ["Ledger: .*'mysql'", r'CAFile = "none.pem"', r"\[Listeners.a\] Port"]
        text = f'Ledger = "mysql://h/n"\nCAFile = "none.pem"\n{self.file.read_text()}'
        for more in ("", "[Listeners.b]\nPort = 70000\n"):
            self.file.write_text(text + more)
            with socket.create_server(("127.0.0.1", self.port)):
                error = self.assertRaises(SystemExit, makeService, self.options())
            said = str(error).split("\n")
            self.assertEqual(len(said), 4 if more else 3, said)
            for each in lines:
                self.assertTrue(any(re.search(each, line) for line in said), each)
            self.assertTrue(all(line.startswith(f"{self.file}: ") for line in said))
            if more:
                self.assertFalse((self.folder / "data").exists())
            else:
                shutil.rmtree(self.folder / "data")

    def test_keyFile(self) -> None:
        """
        A key that can't be read.
        """
        self.configure('[Domains."example.org".DKIM.Selectors.s]\nKeyFile = "s.pem"\n')
        (self.folder / "s.pem").mkdir()
        table = r"\[Domains.example.org.DKIM.Selectors.s\]"
        self.assertHindered(
            f'{table} KeyFile = "s.pem": cannot be used: Is a directory'
        )

    def test_port(self) -> None:
        """
        A port that is in use.
        """
        with socket.create_server(("127.0.0.1", self.port)):
            self.assertHindered(
                rf"\[Listeners.a\] Port = {self.port}: expected a free port of "
                "127.0.0.1: Address already in use"
            )

    def test_ledger(self) -> None:
        """
        A ledger that can't be opened, or isn't there.
        """
        (self.folder / "data").mkdir()
        (self.folder / "data" / "ledger.sqlite").write_bytes(b"x" * 5000)
        self.assertHindered(
            "DataDirectory: ledger sqlite:///.*: file is not a database"
        )
        url = "postgresql://u:secret@127.0.0.1:1/x"
        self.file.write_text(f'Ledger = "{url}"\n{self.file.read_text()}')
        self.assertHindered(
            r"Ledger: ledger postgresql://u:\*\*\*@127.0.0.1:1/x: connection failed.*"
        )

    def test_spool(self) -> None:
        """
        A spool that another process delivers from.
        """
        (self.folder / "data" / "queue").mkdir(parents=True)
        other = InlineSpoolExecutor(self.folder / "data" / "queue")
        other.open(delivering=True)
        self.assertHindered("DataDirectory: spool .*: another process delivers from it")
        self.successResultOf(other.close())

    def test_owner(self) -> None:
        """
        If the process will switch its user, the configuration is checked as that
        user.
        """
        options = self.options()
        options.parent = Options()
        options.parent.update(uid=12345, gid=54321)
        with patch("moxtls.tap.runAsEffectiveUser") as ran:
            makeService(options)
        self.assertEqual(ran.call_args.args[:2], (12345, 54321))


class TwistdServerTests(TapCase):
    """
    Tests for L{TwistdServer}.
    """

    def test_late(self) -> None:
        """
        Errors at the start also end the process.
        """
        options = Options()
        options.parseOptions(["--config", str(self.file)])
        service = makeService(options)
        assert isinstance(service, TwistdServer)
        taken = socket.create_server(("127.0.0.1", self.port))
        error = self.assertRaises(SystemExit, service.privilegedStartService)
        self.assertIsInstance(error.__context__, InvalidConfig)
        error = self.assertRaises(SystemExit, service.startService)
        self.assertIn(f"[Listeners.a] Port = {self.port}: ", str(error))
        taken.close()


class ProcessTests(TapCase):
    """
    Tests for twistd as a process.
    """

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """
        Start C{twistd moxtls}.
        """
        command = ("-c", TWISTD, *words, "moxtls", "-c", self.file)
        return startPython(self, self.folder, *command)

    def connect(self) -> smtplib.SMTP:
        """
        A client, as soon as the server listens.
        """
        deadline = time.monotonic() + MAX_WAIT
        while True:
            try:
                return smtplib.SMTP("127.0.0.1", self.port, timeout=MAX_WAIT)
            except (ConnectionError, smtplib.SMTPServerDisconnected):
                # A server that starts takes its ports, lets go of them, and takes
                # them again: who connects in between is cut off.
                self.assertLess(time.monotonic(), deadline, "no server")
                time.sleep(0.05)

    def test_hindered(self) -> None:
        """
        An error before the daemon starts is one line on standard error, with status
        1; no daemon starts.
        """
        taken = socket.create_server(("127.0.0.1", self.port))
        self.addCleanup(taken.close)
        for words in ([], ["--nodaemon"]):
            process = self.begin(*words)
            out, err = process.communicate(timeout=MAX_WAIT)
            self.assertEqual((process.returncode, out), (1, ""))
            self.assertRegex(err, rf"\A{self.file}: \[Listeners.a\] Port = [^\n]+\n\Z")
        self.assertFalse((self.folder / "twistd.pid").exists())

    def test_daemon(self) -> None:
        """
        A daemon accepts mail, and ends cleanly on SIGTERM.
        """
        process = self.begin()
        out, err = process.communicate(timeout=MAX_WAIT)
        self.assertEqual((process.returncode, out, err), (0, "", ""))
        pid = int((self.folder / "twistd.pid").read_text())
        self.addCleanup(self.kill, pid)
        with self.connect() as client:
            client.sendmail(
                "a@b.example", ["c@d.example"], b"Subject: hi\r\n\r\nhi\r\n"
            )
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + MAX_WAIT
        while (self.folder / "twistd.pid").exists():
            self.assertLess(time.monotonic(), deadline, "it doesn't stop")
            time.sleep(0.05)
        log = (self.folder / "twistd.log").read_text()
        self.assertIn("Server Shut Down.", log)
        self.assertNotIn("Traceback", log)
        spool = Spool(self.folder / "data" / "queue")
        spool.claim()
        self.assertEqual(len(spool.index.messages()), 1)
        spool.close()

    def kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def test_killed(self) -> None:
        """
        A server killed while mail comes in loses nothing that it had answered with
        250.
        """
        process = self.begin("--nodaemon")
        self.connect().quit()
        acknowledged: list[str] = []
        clients = [
            threading.Thread(target=self.submit, args=(name, acknowledged))
            for name in "abc"
        ]
        for client in clients:
            client.start()
        while len(acknowledged) < 30 and any(each.is_alive() for each in clients):
            time.sleep(0.01)
        process.kill()
        for client in clients:
            client.join()
        self.assertGreaterEqual(len(acknowledged), 30)
        spool = Spool(self.folder / "data" / "queue")
        kept = {
            line
            for message in spool.index.messages()
            for line in message.path.read_text().splitlines()
        }
        spool.close()
        self.assertEqual(set(acknowledged) - kept, set())

    def submit(self, name: str, acknowledged: list[str]) -> None:
        """
        Submit messages until the server is gone, and record the accepted ones.
        """
        number = 0
        try:
            client = self.connect()
            while True:
                number += 1
                text = f"this is {name} {number}"
                message = f"Subject: x\r\n\r\n{text}\r\n".encode()
                client.sendmail("a@b.example", ["c@d.example"], message)
                acknowledged.append(text)
        except (OSError, smtplib.SMTPException):
            return
