"""
moxtls as it is installed: C{twistd moxtls} with a configuration file, and the
command line beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interop.correspondents import ANNA, FULL, OLD_FORMAT, OTTO
from interop.postfix import PASSWORD, SECURED_PORT, USER
from interop.processes import awaitGreeting, daemon, output
from interop.world import CA_FILE, World
from moxtls.lab.scenario import SENDER, SENDING_HOST

BIN = Path(sys.executable).parent
#: Who sends all mail.
WRITER = f"alice@{SENDER}"
#: Of the one who has no room, in octets.
QUOTA = 4_000

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
TLS = "starttls"
CertificateFile = "moxtls.pem"
KeyFile = "moxtls.key"

[Accounts.anna.Destinations."{anna}"]

[Accounts.otto.Destinations."{otto}"]

[Accounts.full]
Quota = {quota}

[Accounts.full.Destinations."{full}"]

[Reporting.DMARC.Formats]
"{oldFormat}" = "rfc7489"

[Reporting.Failures]
Enabled = true

[Delivery]
Port = {smtpPort}
HTTPSPort = {httpsPort}
AllowOwnHosts = true

[Users]
{user} = "{password}"
"""

BEHIND = """\
Hostname = "{host}"
DataDirectory = "data"
CAFile = "{ca}"
NoOutgoingTLSReports = true
NoOutgoingDMARCReports = true

[Resolver]
Servers = ["{resolver}"]

[Listeners.reception]
Address = "{address}"
Port = {port}
Service = "reception"
TLS = "starttls"
CertificateFile = "moxtls.pem"
KeyFile = "moxtls.key"

[Accounts.anna.Destinations."{anna}"]

[Accounts.full.Destinations."{full}"]

[Domains."{domain}"]

[LMTP]
Address = "{lmtp}"
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

    def maildir(self, address: str) -> Path:
        """
        That of an account.
        """
        account, _, _ = address.partition("@")
        return self.config.parent / "data" / "accounts" / account

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
    network = world.network
    ports = (network.submissionPort, SECURED_PORT, network.smtpPort)
    places = [(network.submission, port) for port in ports]
    with _running("moxtls", config, places):
        yield Sender(config, places[0])


@contextmanager
def moxtlsBehind(
    world: World, folder: Path, resolver: tuple[str, int], lmtp: tuple[str, int]
) -> Iterator[Sender]:
    """
    One whose mailboxes another program keeps.
    """
    own = folder / "moxtls-behind"
    own.mkdir()
    config = own / "moxtls.toml"
    address, port = world.behind
    config.write_text(
        BEHIND.format(
            host=SENDING_HOST,
            ca=world.directory / CA_FILE,
            resolver="{}:{}".format(*resolver),
            address=address,
            port=port,
            anna=ANNA,
            full=FULL,
            domain=SENDER,
            lmtp="{}:{}".format(*lmtp),
        )
    )
    _writeIdentity(world, own)
    with _running("moxtls-behind", config, [world.behind]):
        yield Sender(config, world.behind)


@contextmanager
def _running(
    name: str, config: Path, places: Sequence[tuple[str, int]]
) -> Iterator[None]:
    """
    @param places: Where it greets.
    """
    own = config.parent
    command: list[str | Path] = [BIN / "twistd", "--nodaemon", "--pidfile="]
    command += ["--rundir", own, "moxtls", "--config", config]
    with daemon(name, command, own.parent):
        for place in places:
            awaitGreeting(*place)
        yield


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
        anna=ANNA,
        otto=OTTO,
        full=FULL,
        quota=QUOTA,
        oldFormat=OLD_FORMAT.domain,
        user=USER,
        password=hashed.decode().strip(),
    )
    for key in world.keys.dkim:
        _writeSecret(own / f"{key.selector}.pem", key.pem)
        text += SELECTOR.format(
            domain=SENDER, name=key.selector, algorithm=key.algorithm
        )
    _writeIdentity(world, own)
    config.write_text(text)


def _writeIdentity(world: World, folder: Path) -> None:
    (folder / "moxtls.pem").write_bytes(world.moxtls.certificatePEM())
    _writeSecret(folder / "moxtls.key", world.moxtls.keyPEM())


def _writeSecret(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)
