"""
Runs a Postfix that accepts everything, queues it, and discards it: acceptance
includes a write to disk, as in normal use.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.identity import HOST

_POSTFIX = shutil.which("postfix", path="/usr/sbin:/usr/bin")
# Nothing is looked up, and no client is slowed down for how much it sends.
_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = {host}
mydestination =
inet_protocols = ipv4
inet_interfaces = loopback-only
mynetworks = 127.0.0.0/8
disable_dns_lookups = yes
smtpd_peername_lookup = no
alias_maps =
alias_database =
local_recipient_maps =
relay_domains =
default_transport = discard
relay_transport = discard
smtpd_tls_security_level = may
smtpd_tls_chain_files = {chain}
tls_random_source = dev:/dev/urandom
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0
message_size_limit = 0
"""
_SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
proxymap  unix  - - n -     - proxymap
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
anvil     unix  - - n -     1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""
#: Seconds for it to start.
_LONGEST_START = 20


def isThere() -> bool:
    """
    Whether Postfix is installed.
    """
    return _POSTFIX is not None


@contextmanager
def running(pem: bytes) -> Iterator[int]:
    """
    Run Postfix; requires root.

    @return: The port.
    """
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as name:
        folder = Path(name)
        # Postfix gives up its rights, and has to get at its files.
        folder.chmod(0o755)
        port = _freePort()
        config = _configure(folder, pem, port)
        _run(config, "start")
        try:
            _await(port)
            yield port
        finally:
            _run(config, "stop")


def _configure(folder: Path, pem: bytes, port: int) -> Path:
    config, chain = folder / "config", folder / "chain.pem"
    for each in (config, folder / "queue"):
        each.mkdir()
    chain.write_bytes(pem)
    main = _MAIN.format(folder=folder, host=HOST, chain=chain)
    (config / "main.cf").write_text(main)
    (config / "master.cf").write_text(_SERVICES.format(port=port))
    return config


def _run(config: Path, verb: str) -> None:
    assert _POSTFIX is not None
    subprocess.run(
        [_POSTFIX, "-c", config, verb],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _freePort() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _await(port: int) -> None:
    until = time.monotonic() + _LONGEST_START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
