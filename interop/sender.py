"""
moxtls as it is installed: C{twistd moxtls} with a configuration file, and the
command line beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interop.postfix import PASSWORD, SECURED_PORT, USER
from interop.processes import awaitGreeting, daemon, output
from interop.world import CA_FILE, World
from moxtls.lab.conditions import SENDER, SENDING_HOST

BIN = Path(sys.executable).parent
#: Who sends all mail.
WRITER = f"alice@{SENDER}"

CONFIG = """\
Hostname = "{host}"
DataDirectory = "data"
CAFile = "{ca}"
OutgoingTLSReportsForAllSuccess = true

[Resolver]
Servers = ["{resolver}"]

[Listeners.submission]
Address = "{address}"
Port = {submissionPort}

[Listeners.secured]
Address = "{address}"
Port = {securedPort}
TLS = "starttls"
CertificateFile = "moxtls.pem"
KeyFile = "moxtls.key"
Authentication = true

[Listeners.reception]
Address = "{address}"
Port = {smtpPort}
Service = "reception"

[Delivery]
Port = {smtpPort}
HTTPSPort = {httpsPort}

[Users]
{user} = "{password}"
"""

SELECTOR = """
[Domains."{domain}".DKIM.Selectors.{name}]
KeyFile = "{name}.pem"
Algorithm = "{algorithm}"
"""


@dataclass(frozen=True, slots=True)
class Sender:
    """
    A moxtls that runs.

    @ivar submission: Where it takes mail without a login.
    """

    config: Path
    submission: tuple[str, int]

    def command(self, *arguments: str, input: bytes = b"") -> str:
        """
        Run C{moxtls} on the same configuration.

        @raise Trouble: It fails.
        """
        command: list[str | Path] = [
            BIN / "moxtls",
            "--config",
            self.config,
            *arguments,
        ]
        return output(command, input).decode("utf-8")

    def table(self, *arguments: str) -> list[dict[str, Any]]:
        """
        What a command says to programs.
        """
        rows: list[dict[str, Any]] = json.loads(self.command(*arguments, "--json"))
        return rows

    def send(self, recipient: str, message: bytes) -> None:
        """
        Send a message from the command line.
        """
        self.command("send", "-f", WRITER, recipient, input=message)


@contextmanager
def moxtls(world: World, folder: Path, resolver: tuple[str, int]) -> Iterator[Sender]:
    """
    One that runs, and asks C{resolver}.
    """
    own = folder / "moxtls"
    own.mkdir()
    config = own / "moxtls.toml"
    _write(world, config, resolver)
    twistd: list[str | Path] = [
        BIN / "twistd",
        "--nodaemon",
        "--pidfile=",
        "--rundir",
        own,
    ]
    command = [*twistd, "moxtls", "--config", config]
    network = world.network
    with daemon("moxtls", command, folder):
        for port in (network.submissionPort, SECURED_PORT, network.smtpPort):
            awaitGreeting(network.submission, port)
        yield Sender(config, (network.submission, network.submissionPort))


def _write(world: World, config: Path, resolver: tuple[str, int]) -> None:
    network, own = world.network, config.parent
    hashed = output([BIN / "moxtls", "config", "password"], PASSWORD.encode())
    text = CONFIG.format(
        host=SENDING_HOST,
        ca=world.directory / CA_FILE,
        resolver="{}:{}".format(*resolver),
        address=network.submission,
        submissionPort=network.submissionPort,
        securedPort=SECURED_PORT,
        smtpPort=network.smtpPort,
        httpsPort=network.httpsPort,
        user=USER,
        password=hashed.decode().strip(),
    )
    for key in world.keys.dkim:
        _writeSecret(own / f"{key.selector}.pem", key.pem)
        text += SELECTOR.format(
            domain=SENDER, name=key.selector, algorithm=key.algorithm
        )
    (own / "moxtls.pem").write_bytes(world.moxtls.certificatePEM())
    _writeSecret(own / "moxtls.key", world.moxtls.keyPEM())
    config.write_text(text)


def _writeSecret(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)
