"""
Runs moxtls with Maildirs on the disk: C{python -m bench.durable checked|unchecked
RECORD}. It is the whole of L{moxtls.app.service}, with a DNS server for the sender's
domain; RECORD is the record of its DKIM key.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import dns.zone
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from bench.children import printPorts, readPEM
from bench.identity import HOST
from bench.signature import DOMAIN, SELECTOR
from moxtls.app.configfiles import ConfigFiles
from moxtls.app.service import Server
from moxtls.lab.hosts import DNSServer
from moxtls.lab.zones import Authority

_RECIPIENT = f"to@{HOST}"
#: Within what TXT records have as a string (RFC 1035 3.3).
_STRING = 200

_ZONE = """\
$ORIGIN .
$TTL 3600
@ SOA ns.bench.example. hostmaster.bench.example. 1 3600 600 86400 3600
@ NS ns.bench.example.
ns.bench.example. A 127.0.0.1
{domain}. A 127.0.0.1
{domain}. MX 10 {domain}.
{domain}. TXT "v=spf1 ip4:127.0.0.0/8 -all"
_dmarc.{domain}. TXT "v=DMARC1; p=reject; rua=mailto:reports@{domain}"
{selector}._domainkey.{domain}. TXT {record}
1.0.0.127.in-addr.arpa. PTR {domain}.
"""
_CONFIG = """\
Hostname = "{host}"
[Resolver]
Servers = ["127.0.0.1:{port}"]
[Listeners.smtp]
Service = "reception"
Port = 0
TLS = "starttls"
CertificateFile = "identity.pem"
KeyFile = "identity.pem"
Checks = {checks}
MaxConnectionRate = 0
MaxMessageRate = 0
[Domains."{host}"]
[Accounts.to.Destinations."{recipient}"]
"""


def _zone(record: str) -> dns.zone.Zone:
    strings = [record[at : at + _STRING] for at in range(0, len(record), _STRING)]
    text = _ZONE.format(
        domain=DOMAIN,
        selector=SELECTOR,
        record=" ".join(f'"{each}"' for each in strings),
    )
    return dns.zone.from_text(text, origin=".", relativize=False, check_origin=False)


def _freePort() -> int:
    """
    A port free for TCP and UDP.
    """
    while True:
        with suppress(OSError), _bound(0, socket.SOCK_DGRAM) as found:
            port: int = found.getsockname()[1]
            with _bound(port, socket.SOCK_STREAM):
                return port


def _bound(port: int, kind: socket.SocketKind) -> socket.socket:
    found = socket.socket(socket.AF_INET, kind)
    try:
        found.bind(("127.0.0.1", port))
    except OSError:
        found.close()
        raise
    return found


def _serve(reactor: Any, folder: Path, checks: bool, record: str) -> Deferred[None]:
    port = _freePort()
    DNSServer(reactor, "127.0.0.1", port, Authority([_zone(record)])).startService()
    text = _CONFIG.format(
        host=HOST,
        port=port,
        checks=str(checks).lower(),
        recipient=_RECIPIENT,
    )
    file = folder / "moxtls.toml"
    file.write_text(text)
    server = Server(reactor, ConfigFiles.read(file))
    server.startService()
    printPorts(server.ports["smtp"])
    # The parent ends it.
    return Deferred()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        folder = Path(name)
        (folder / "identity.pem").write_bytes(readPEM())
        checks, record = sys.argv[1] == "checked", sys.argv[2]
        react(lambda reactor: _serve(reactor, folder, checks, record))


if __name__ == "__main__":
    main()
