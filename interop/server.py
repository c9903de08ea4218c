"""
Runs moxtls as installed: C{twistd moxtls} with a configuration file, and the command
line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interop.domains import ANNA, FULL, OLD_FORMAT, OTTO, REPORTED, REPORTED_HOST
from interop.environment import CA_FILE, Environment
from interop.postfix import PASSWORD, SECURED_PORT, USER
from interop.processes import awaitGreeting, daemon, output
from moxtls.lab.keys import Identity
from moxtls.lab.scenario import SENDER, SENDING_HOST

BIN = Path(sys.executable).parent
#: The envelope sender of all mail.
WRITER = f"alice@{SENDER}"
#: The quota of the account C{full}, in octets.
QUOTA = 4_000

#: All servers: keys, then tables.
KEYS = """\
Hostname = "{host}"
DataDirectory = "data"
CAFile = "{ca}"
"""
SILENT = """\
NoOutgoingTLSReports = true
NoOutgoingDMARCReports = true
"""
RECEPTION = """
[Resolver]
Servers = ["{resolver}"]

[Listeners.reception]
Address = "{address}"
Port = {smtpPort}
Service = "reception"
TLS = "starttls"
CertificateFile = "moxtls.pem"
KeyFile = "moxtls.key"
"""
#: Servers that also send.
SENDING = """
[Listeners.submission]
Address = "{address}"
Port = {submissionPort}

[Delivery]
Port = {smtpPort}
HTTPSPort = {httpsPort}
AllowOwnHosts = true
"""

OWN = """
[Listeners.secured]
Address = "{address}"
Port = {securedPort}
TLS = "starttls"
CertificateFile = "moxtls.pem"
KeyFile = "moxtls.key"
Authentication = true

[Accounts.anna.Destinations."{anna}"]

[Accounts.otto.Destinations."{otto}"]

[Accounts.full]
Quota = {quota}

[Accounts.full.Destinations."{full}"]

[Reporting.DMARC.Formats]
"{oldFormat}" = "rfc7489"

[Reporting.Failures]
Enabled = true

[Users]
{user} = "{password}"
"""
BY_LMTP = """
[Accounts.anna.Destinations."{anna}"]

[Accounts.full.Destinations."{full}"]

[Domains."{domain}"]

[LMTP]
Address = "{lmtp}"
"""
REPORTED_HERE = """
[HostTLSRPT]

[Domains."{domain}".TLSRPT]

[Domains."{domain}".DMARC]

[Accounts.carl.Destinations."carl@{domain}"]
"""
CONFIG = f"{KEYS}OutgoingTLSReportsForAllSuccess = true\n{RECEPTION}{SENDING}{OWN}"
BEHIND = KEYS + SILENT + RECEPTION + BY_LMTP
RECEIVING = KEYS + SILENT + RECEPTION + SENDING + REPORTED_HERE

SELECTOR = """
[Domains."{domain}".DKIM.Selectors.{name}]
KeyFile = "{name}.pem"
Algorithm = "{algorithm}"
"""


@dataclass(frozen=True, slots=True)
class MoxtlsServer:
    """
    A running moxtls.

    @ivar submission: Its listener without login.
    """

    config: Path
    submission: tuple[str, int]

    def maildir(self, address: str = "") -> Path:
        """
        The Maildir of an account, or of the host.
        """
        account, _, _ = address.partition("@")
        data = self.config.parent / "data"
        return data / "accounts" / account if account else data / "mail"

    def command(self, *arguments: str, input: bytes = b"") -> str:
        """
        Run C{moxtls} on the same configuration.

        @raise InteropError: It fails.
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
        The output of a command with C{--json}.
        """
        rows: list[dict[str, Any]] = json.loads(self.command(*arguments, "--json"))
        return rows

    def send(self, recipient: str, message: bytes, sender: str = WRITER) -> None:
        """
        Send a message from the command line.
        """
        self.command("send", "-f", sender, recipient, input=message)


@contextmanager
def runServer(
    environment: Environment, folder: Path, resolver: tuple[str, int]
) -> Iterator[MoxtlsServer]:
    """
    Run moxtls with Maildirs, using C{resolver}.
    """
    own = folder / "moxtls"
    own.mkdir()
    config = own / "moxtls.toml"
    _write(environment, config, resolver)
    network = environment.network
    ports = (network.submissionPort, SECURED_PORT, network.smtpPort)
    endpoints = [(network.submission, port) for port in ports]
    with _running("moxtls", config, endpoints):
        yield MoxtlsServer(config, endpoints[0])


@contextmanager
def runServerWithLMTP(
    environment: Environment,
    folder: Path,
    resolver: tuple[str, int],
    lmtp: tuple[str, int],
) -> Iterator[MoxtlsServer]:
    """
    Run a moxtls that delivers to another program by LMTP.
    """
    own = folder / "moxtls-behind"
    own.mkdir()
    config = own / "moxtls.toml"
    address, port = environment.secondServer
    config.write_text(
        BEHIND.format(
            host=SENDING_HOST,
            ca=environment.directory / CA_FILE,
            resolver="{}:{}".format(*resolver),
            address=address,
            smtpPort=port,
            anna=ANNA,
            full=FULL,
            domain=SENDER,
            lmtp="{}:{}".format(*lmtp),
        )
    )
    _writeIdentity(environment.moxtls, own)
    with _running("moxtls-behind", config, [environment.secondServer]):
        yield MoxtlsServer(config, environment.secondServer)


@contextmanager
def runReceiver(
    environment: Environment, folder: Path, resolver: tuple[str, int]
) -> Iterator[MoxtlsServer]:
    """
    Run a moxtls that receives reports.
    """
    own = folder / "moxtls-reported"
    own.mkdir()
    config, network = own / "moxtls.toml", environment.network
    config.write_text(
        RECEIVING.format(
            host=REPORTED_HOST,
            ca=environment.directory / CA_FILE,
            resolver="{}:{}".format(*resolver),
            address=environment.reportedServer,
            submissionPort=network.submissionPort,
            smtpPort=network.smtpPort,
            httpsPort=network.httpsPort,
            domain=REPORTED,
        )
    )
    _writeIdentity(environment.reported, own)
    ports = (network.submissionPort, network.smtpPort)
    endpoints = [(environment.reportedServer, port) for port in ports]
    with _running("moxtls-reported", config, endpoints):
        yield MoxtlsServer(config, endpoints[0])


@contextmanager
def _running(
    name: str, config: Path, endpoints: Sequence[tuple[str, int]]
) -> Iterator[None]:
    """
    Run C{twistd moxtls}.

    @param endpoints: Its SMTP listeners.
    """
    own = config.parent
    command: list[str | Path] = [BIN / "twistd", "--nodaemon", "--pidfile="]
    command += ["--rundir", own, "moxtls", "--config", config]
    with daemon(name, command, own.parent):
        for endpoint in endpoints:
            awaitGreeting(*endpoint)
        yield


def _write(environment: Environment, config: Path, resolver: tuple[str, int]) -> None:
    network, own = environment.network, config.parent
    hashed = output([BIN / "moxtls", "config", "password"], PASSWORD.encode())
    text = CONFIG.format(
        host=SENDING_HOST,
        ca=environment.directory / CA_FILE,
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
    for key in environment.keys.dkim:
        _writeSecret(own / f"{key.selector}.pem", key.pem)
        text += SELECTOR.format(
            domain=SENDER, name=key.selector, algorithm=key.algorithm
        )
    _writeIdentity(environment.moxtls, own)
    config.write_text(text)


def _writeIdentity(identity: Identity, folder: Path) -> None:
    (folder / "moxtls.pem").write_bytes(identity.certificatePEM())
    _writeSecret(folder / "moxtls.key", identity.keyPEM())


def _writeSecret(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)
