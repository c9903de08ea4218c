"""
Runs the Postfix of all sending domains: it sends their mail, from the host of each,
signed by OpenDKIM, and receives DSNs and reports for them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from interop.checks import waitFor
from interop.domains import (
    FAILURES,
    FORGED,
    KEPT_ELSEWHERE,
    OUTSIDE,
    OUTSIDE_NUMBER,
    REPORTED_HOST,
    SAMPLES,
    SENDING_DOMAINS,
    SampleMessage,
    SendingDomain,
)
from interop.environment import CA_FILE, Environment
from interop.postfix import LISTENER, SENDMAIL, Postfix
from interop.processes import MAX_START_TIME, awaitGreeting, daemon, listens, output
from moxtls.lab.keys import ED25519_SELECTOR, RSA_SELECTOR
from moxtls.lab.scenario import SENDING_HOST

OPENDKIM = shutil.which("opendkim") or "/usr/sbin/opendkim"
#: One for each algorithm: it knows only one for all keys.
SIGNERS = {
    RSA_SELECTOR: ("rsa-sha256", "simple/simple", 8891),
    ED25519_SELECTOR: ("ed25519-sha256", "relaxed/relaxed", 8892),
}

CONFIG = """\
Mode s
Socket inet:{port}@{address}
Syslog no
SignatureAlgorithm {algorithm}
Canonicalization {canonicalization}
# Sender signs, if there is one.
SenderHeaders Sender,From
KeyTable file:{folder}/{selector}.keys
SigningTable refile:{folder}/{selector}.signing
# There is no user for it.
RequireSafeKeys no
"""

MAIN = """\
myhostname = mx.{outside}
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = inline:{{ {mailboxes} }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 100
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_security_level = may
strict_rfc821_envelopes = yes
smtpd_helo_required = yes
smtpd_forbid_bare_newline = yes
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = yes
non_smtpd_milters = {milters}
sender_dependent_default_transport_maps = inline:{{ {transports} }}
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = {hosts}
smtp_tls_CAfile = {ca}
smtp_tls_loglevel = 1
"""

# It logs all that is said.
TRANSPORT = """\
{label} unix - - n - - smtp -v
  -o syslog_name={label}
  -o smtp_bind_address={address}
  -o smtp_helo_name={host}
"""
_SAID = re.compile(r"smtp\[\d+\]: ([<>]) \S+\[[0-9.]+\]:\d+: (.*)")


class RemotePostfix(Postfix):
    """
    Postfix and OpenDKIM of the sending domains.

    @ivar label: The syslog name of its listener.
    """

    label = OUTSIDE.removesuffix(".test")

    def __init__(self, environment: Environment, folder: Path) -> None:
        super().__init__(folder / "outside")
        self._environment = environment
        self._parent = folder
        self._address = environment.network.address(OUTSIDE_NUMBER)
        uid, gid = self.makeMailFolder()
        addresses = sorted(set(_addresses()))
        milters = [f"inet:{self._address}:{port}" for _, _, port in SIGNERS.values()]
        main = MAIN.format(
            outside=OUTSIDE,
            folder=self.folder,
            domains=" ".join(sorted({each.partition("@")[2] for each in addresses})),
            mailboxes=" ".join(f"{{ {each} = {each}/ }}" for each in addresses),
            uid=uid,
            gid=gid,
            milters=" ".join(milters),
            transports=" ".join(self._transports()),
            hosts=f"{SENDING_HOST}:{REPORTED_HOST}",
            ca=environment.directory / CA_FILE,
        )
        services = "".join(map(self._transport, SENDING_DOMAINS))
        self.write(main, self._listener() + services)

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            for selector in SIGNERS:
                stack.enter_context(self._signer(selector))
            stack.enter_context(super().running())
            awaitGreeting(self._address, self._environment.network.smtpPort)
            yield

    def send(self, sample: SampleMessage) -> None:
        """
        Submit a message with C{sendmail}, as programs on the author's host do.
        """
        command: list[str | Path] = [SENDMAIL, "-C", self.config]
        command += ["-f", sample.envelope, *sample.recipients]
        output(command, sample.message)

    def said(self, sender: SendingDomain) -> list[tuple[str, str]]:
        """
        The SMTP dialogue of a sending domain's host, over all its connections: lines
        sent (C{>}) and received (C{<}).
        """
        lines = map(_SAID.search, self.log(sender.label))
        return [(line[1], line[2]) for line in lines if line]

    def _transports(self) -> Iterator[str]:
        """
        The transport for each envelope sender.
        """
        network = self._environment.network
        endpoint = f"[{network.submission}]:{network.smtpPort}"
        for sample in SAMPLES:
            sender = sample.envelope or "<>"
            yield f"{{ {sender} = {sample.via.label}:{endpoint} }}"
        endpoint = "[{}]:{}".format(*self._environment.secondServer)
        for sample in KEPT_ELSEWHERE:
            yield f"{{ {sample.envelope} = {sample.via.label}:{endpoint} }}"
        endpoint = f"[{self._environment.reportedServer}]:{network.smtpPort}"
        for sample in FORGED:
            yield f"{{ {sample.envelope} = {sample.via.label}:{endpoint} }}"

    def _transport(self, sender: SendingDomain) -> str:
        return TRANSPORT.format(
            label=sender.label,
            address=self._environment.network.address(sender.number),
            host=sender.host,
        )

    def _listener(self) -> str:
        chain = self.config / "outside.pem"
        chain.touch(mode=0o600)
        identity = self._environment.remote
        chain.write_bytes(identity.keyPEM() + identity.certificatePEM())
        return LISTENER.format(
            address=self._address,
            port=self._environment.network.smtpPort,
            label=self.label,
            host=f"mx.{OUTSIDE}",
            chain=chain,
        )

    @contextmanager
    def _signer(self, selector: str) -> Iterator[None]:
        algorithm, canonicalization, port = SIGNERS[selector]
        tables: dict[str, list[str]] = {"keys": [], "signing": []}
        for domain, keys in self._environment.signingKeys.items():
            for key in keys:
                if key.selector == selector:
                    file = self.config / f"{domain}.{selector}.pem"
                    file.touch(mode=0o600)
                    file.write_bytes(key.pem)
                    tables["keys"].append(f"{domain} {domain}:{selector}:{file}")
                    tables["signing"] += [f"*@{domain} {domain}"]
                    tables["signing"] += [f"*@news.{domain} {domain}"]
        for name, lines in tables.items():
            (self.config / f"{selector}.{name}").write_text("\n".join([*lines, ""]))
        config = self.config / f"{selector}.conf"
        config.write_text(
            CONFIG.format(
                port=port,
                address=self._address,
                algorithm=algorithm,
                canonicalization=canonicalization,
                folder=self.config,
                selector=selector,
            )
        )
        name = f"opendkim-{algorithm}"
        with daemon(name, [OPENDKIM, "-f", "-x", config], self._parent):
            endpoint = (self._address, port)
            waitFor(f"{name} listens", lambda: listens(endpoint), MAX_START_TIME)
            yield


def _addresses() -> Iterator[str]:
    """
    The addresses that receive DSNs and reports.
    """
    for each in SENDING_DOMAINS:
        yield each.address
        yield each.reports
        yield f"{FAILURES}@{each.domain}"
    for sample in (*SAMPLES, *KEPT_ELSEWHERE, *FORGED):
        if sample.envelope and sample.envelope.isascii():
            yield sample.envelope
