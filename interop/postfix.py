"""
Runs two Postfixes: one receives mail for some domains, the other hands all its mail
to moxtls. Each has its own configuration, queue and log.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interop.checks import waitFor
from interop.environment import CA_FILE, PEERS, REPORT_ADDRESS, Environment, Peer
from interop.processes import awaitGreeting, output
from moxtls.lab.scenario import SENDING_HOST

POSTFIX = "/usr/sbin/postfix"
SENDMAIL = "/usr/sbin/sendmail"
#: The local part of the recipient in each domain.
READER = "bob"
#: The user and password that moxtls knows the client by.
USER, PASSWORD = "postfix", "as good as any"
SECURED_PORT = 2588
#: Seconds until a message has arrived.
MAX_DELIVERY_TIME = 40.0

# Mailboxes belong to an unprivileged user.
_OWNER = "nobody"

# Postfix asks no DNS server here: there is none for it.
COMMON = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mydestination =
inet_protocols = ipv4
inet_interfaces = loopback-only
disable_dns_lookups = yes
smtpd_peername_lookup = no
alias_maps =
alias_database =
local_recipient_maps =
smtputf8_enable = yes
tls_random_source = dev:/dev/urandom
"""

DESTINATION = """\
myhostname = mx.postfix.test
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = reject_unauth_destination
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = inline:{{ {mailboxes} }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 100
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
# As strict as it can be.
strict_rfc821_envelopes = yes
smtpd_helo_required = yes
smtpd_forbid_bare_newline = yes
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = yes
"""

SUBMITTER = """\
myhostname = client.sender.test
relayhost = [{address}]:{port}
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = {host}
smtp_tls_CAfile = {ca}
smtp_tls_loglevel = 1
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{ {{ [{address}]:{port} = {user}:{password} }} }}
smtp_sasl_mechanism_filter = SCRAM-SHA-256
smtp_sasl_security_options = noanonymous
"""

SERVICES = """\
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
virtual   unix  - n n -     - virtual
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

LISTENER = """\
{address}:{port} inet n - n - - smtpd
  -o syslog_name={label}
  -o myhostname={host}
  -o smtpd_tls_chain_files={chain}
"""

#: Log lines about protocol violations of clients, and about its own errors.
COMPLAINT = re.compile(
    r"(?:warning|error|fatal|panic): |improper command pipelining|bare <LF>"
    r"|lost connection|timeout after|NOQUEUE|reject: |SSL_accept error"
    r"|too many errors|non-SMTP command"
)


def owner() -> tuple[int, int]:
    """
    The user and group that own mailboxes.
    """
    found = pwd.getpwnam(_OWNER)
    return found.pw_uid, found.pw_gid


class Postfix:
    """
    A Postfix with its own configuration, queue and log.

    @ivar folder: The folder of all these.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config"
        self.mail = folder / "mail"
        for each in (folder, self.config, folder / "queue"):
            each.mkdir()

    def write(self, main: str, services: str) -> None:
        """
        Write its configuration files.
        """
        common = COMMON.format(folder=self.folder)
        (self.config / "main.cf").write_text(common + main)
        (self.config / "master.cf").write_text(SERVICES + services)

    @contextmanager
    def running(self) -> Iterator[None]:
        """
        Start and stop it.

        @raise InteropError: It doesn't start.
        """
        output([POSTFIX, "-c", self.config, "start"])
        try:
            yield
        finally:
            output([POSTFIX, "-c", self.config, "stop"])

    def log(self, label: str = "") -> list[str]:
        """
        Its log lines, all or those with one syslog name.
        """
        file = self.folder / "log"
        lines = file.read_text("utf-8", "replace").splitlines() if file.exists() else []
        return [line for line in lines if f" {label}/" in line or not label]

    def complaints(self, label: str = "") -> list[str]:
        """
        Log lines about errors and protocol violations.
        """
        return [line for line in self.log(label) if COMPLAINT.search(line)]

    def makeMailFolder(self) -> tuple[int, int]:
        """
        Make the folder of mailboxes.

        @return: The user and group that own it.
        """
        self.mail.mkdir()
        uid, gid = owner()
        os.chown(self.mail, uid, gid)
        return uid, gid

    def mailbox(self, address: str) -> list[Path]:
        """
        The messages for an address, as they arrived.
        """
        return sorted((self.mail / address / "new").glob("*"))

    def awaitMail(self, address: str, count: int = 1) -> list[Path]:
        """
        Wait for C{count} messages.

        @raise InteropError: Fewer arrive.
        """

        def arrived() -> list[Path] | None:
            found = self.mailbox(address)
            return found if len(found) >= count else None

        what = f"{count} message{'s' * (count > 1)} for {address}"
        return waitFor(what, arrived, MAX_DELIVERY_TIME)


class Destination(Postfix):
    """
    Receives mail for each of C{PEERS}, on an address for each.
    """

    def __init__(self, environment: Environment, folder: Path) -> None:
        super().__init__(folder / "destination")
        self._environment = environment
        uid, gid = self.makeMailFolder()
        addresses = [*(f"{READER}@{peer.domain}" for peer in PEERS), REPORT_ADDRESS]
        main = DESTINATION.format(
            folder=self.folder,
            domains=" ".join(peer.domain for peer in PEERS),
            mailboxes=" ".join(f"{{ {each} = {each}/ }}" for each in addresses),
            uid=uid,
            gid=gid,
        )
        self.write(main, "".join(map(self._listener, PEERS)))

    @contextmanager
    def running(self) -> Iterator[None]:
        with super().running():
            for peer in PEERS:
                awaitGreeting(*self.endpoint(peer))
            yield

    def endpoint(self, peer: Peer) -> tuple[str, int]:
        """
        Address and port of the listener for a domain.
        """
        network = self._environment.network
        return network.address(peer.number), network.smtpPort

    def _listener(self, peer: Peer) -> str:
        identity = self._environment.identities[peer.domain]
        chain = self.config / f"{peer.domain}.pem"
        chain.touch(mode=0o600)
        chain.write_bytes(identity.keyPEM() + identity.certificatePEM())
        address, port = self.endpoint(peer)
        return LISTENER.format(
            address=address, port=port, label=peer.label, host=peer.host, chain=chain
        )


class Submitter(Postfix):
    """
    Relays all mail to moxtls, over TLS that it verifies, with a login.
    """

    def __init__(self, environment: Environment, folder: Path) -> None:
        super().__init__(folder / "submitter")
        main = SUBMITTER.format(
            address=environment.network.submission,
            port=SECURED_PORT,
            host=SENDING_HOST,
            ca=environment.directory / CA_FILE,
            user=USER,
            password=PASSWORD,
        )
        self.write(main, "")

    def send(self, sender: str, recipient: str, message: bytes) -> None:
        """
        Submit a message with C{sendmail}, as programs on its host do.
        """
        output([SENDMAIL, "-C", self.config, "-f", sender, recipient], message)
