"""
Runs unbound, which validates the lab's zones from the lab's root key, and lists
questions for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
from dns.edns import EDEOption

from interop.checks import waitFor
from interop.environment import ANCHOR_FILE, PEERS, Environment
from interop.processes import MAX_START_TIME, daemon
from moxtls.lab.plan import Network
from moxtls.lab.scenario import DESTINATIONS, SHARED_HOST

#: Debian's folder isn't in every PATH.
UNBOUND = shutil.which("unbound") or "/usr/sbin/unbound"
PORT = 5353
#: Seconds for one answer.
MAX_ANSWER_TIME = 10.0

CONFIG = """\
server:
    directory: "{directory}"
    chroot: ""
    username: ""
    pidfile: "{directory}/unbound.pid"
    logfile: "{directory}/unbound.log"
    use-syslog: no
    verbosity: 1
    val-log-level: 2
    interface: {address}@{port}
    port: {port}
    access-control: 127.0.0.0/8 allow
    do-ip6: no
    num-threads: 1
    so-rcvbuf: 0
    # It would neither ask servers on loopback nor believe in test.
    do-not-query-localhost: no
    local-zone: "test." nodefault
    trust-anchor-file: "{anchor}"
    module-config: "validator iterator"
    ede: yes
    # Otherwise it asks for things of its own at the start.
    target-fetch-policy: "0 0 0 0 0"
remote-control:
    control-enable: no
"""

# Delegations name no ports, so it has to be told of each zone.
STUB = """\
stub-zone:
    name: "{origin}"
    stub-addr: {authority}@{authorityPort}
    stub-prime: no
    stub-first: no
"""

Question = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ResolverAnswer:
    """
    The compared parts of a resolver's answer.
    """

    status: str
    authentic: bool
    errors: tuple[int, ...]
    records: tuple[str, ...]

    def __str__(self) -> str:
        words = [self.status, "AD" if self.authentic else "--"]
        words += [f"EDE {each}" for each in self.errors]
        return " ".join([*words, f"{len(self.records)} records"])


def questions(network: Network) -> Iterator[Question]:
    """
    All questions that moxtls asks about each destination, and special cases.
    """
    for each in DESTINATIONS:
        yield each.domain, "MX"
        yield each.mx, "A"
        yield each.mx, "AAAA"
        yield f"_{network.smtpPort}._tcp.{each.mx}", "TLSA"
        yield f"_mta-sts.{each.domain}", "TXT"
        yield f"mta-sts.{each.domain}", "A"
        yield f"_smtp._tls.{each.domain}", "TXT"
        yield f"_smtp._tls.{each.mx}", "TXT"
    for peer in PEERS:
        yield peer.domain, "MX"
        yield peer.host, "A"
        yield f"_{network.smtpPort}._tcp.{peer.host}", "TLSA"
        yield f"_smtp._tls.{peer.domain}", "TXT"
    yield f"_25._tcp.{SHARED_HOST}", "TLSA"
    # The reason why no key is right is not among what unbound remembers: asked
    # again, it gives a less exact one.  So there is one question only.
    yield "other-key.test", "MX"
    for zone in ("sig-expired", "stripped", "null-mx", "far-mx", "open"):
        yield f"{zone}.test", "MX"
        yield f"mx.{zone}.test", "A"
        yield f"nothing.{zone}.test", "A"
    for name in ("secure", "insecure", "broken", "nowhere"):
        yield f"{name}.alias.test", "A"
    yield "big.test", "TXT"
    yield "lab-rsa._domainkey.sender.test", "TXT"
    yield "reports.test", "MX"
    yield "nobody.test", "MX"
    yield "test", "SOA"
    yield "nothing", "A"


def ask(endpoint: tuple[str, int], question: Question) -> ResolverAnswer:
    """
    Query the DNS server at C{endpoint}.

    @raise dns.exception.Timeout: There is no answer.
    """
    query = dns.message.make_query(*question, use_edns=0, want_dnssec=True)
    response, _ = dns.query.udp_with_fallback(
        query, endpoint[0], MAX_ANSWER_TIME, endpoint[1], ignore_errors=True
    )
    return ResolverAnswer(
        dns.rcode.to_text(response.rcode()),
        bool(response.flags & dns.flags.AD),
        tuple(int(o.code) for o in response.options if isinstance(o, EDEOption)),
        tuple(
            sorted(
                f"{each.name} {dns.rdatatype.to_text(each.rdtype)} {rdata}"
                for each in response.answer
                if each.rdtype != dns.rdatatype.RRSIG
                for rdata in each
            )
        ),
    )


@contextmanager
def unbound(environment: Environment, folder: Path) -> Iterator[tuple[str, int]]:
    """
    Run unbound; gives its address and port.
    """
    network = environment.network
    endpoint = (network.address(249), PORT)
    config = folder / "unbound.conf"
    text = CONFIG.format(
        directory=folder, address=endpoint[0], port=PORT, anchor=folder / ANCHOR_FILE
    )
    for zone in environment.tree.zones:
        text += STUB.format(
            origin=zone.origin,
            authority=network.authority,
            authorityPort=network.dnsPort,
        )
    config.write_text(text)
    with daemon("unbound", [UNBOUND, "-d", "-c", config], folder):
        waitFor("an answer of unbound", lambda: _answers(endpoint), MAX_START_TIME)
        yield endpoint


def _answers(endpoint: tuple[str, int]) -> bool:
    query = dns.message.make_query("version.bind", "TXT", "CH")
    try:
        dns.query.udp(query, endpoint[0], 0.2, endpoint[1])
    except (dns.exception.Timeout, OSError):
        return False
    return True
