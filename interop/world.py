"""
The lab's zones, and those of the domains that Postfix takes mail for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime

from moxtls.lab.authority import Authority
from moxtls.lab.certificates import Identity, LabCA, selfSigned
from moxtls.lab.dnsserver import DNSServer
from moxtls.lab.keys import makeKeys
from moxtls.lab.network import Network
from moxtls.lab.plan import mailHosts, zonePlans
from moxtls.lab.scenario import DESTINATIONS
from moxtls.lab.validator import Validator
from moxtls.lab.zones import ZonePlan, plantTree

ANCHOR_FILE = "root.ds"
CA_FILE = "ca.pem"
#: Where reports about all domains of Postfix go.
REPORT_ADDRESS = "tlsrpt@postfix.test"
_OTHER_KEY = hashlib.sha256(b"another key").hexdigest()


@dataclass(frozen=True, slots=True)
class Peer:
    """
    A domain that Postfix takes mail for.

    @ivar number: The last octet of its host's address.
    @ivar signed: Whether its zone is, and it has a TLSA record.
    @ivar matching: Whether that is of the host's key.
    @ivar trusted: Whether the certificate is of an authority that moxtls
        trusts.
    """

    domain: str
    number: int
    signed: bool = True
    matching: bool = True
    trusted: bool = True

    @property
    def host(self) -> str:
        return f"mx.{self.domain}"

    @property
    def label(self) -> str:
        """
        What its lines in Postfix's log begin with.
        """
        return self.domain.removesuffix(".test")

    def identity(self, ca: LabCA) -> Identity:
        if self.trusted:
            return ca.issue([self.host])
        return selfSigned(self.host, ca.now)


DANE = Peer("postfix.test", 200)
MISMATCH = Peer("postfix-mismatch.test", 201, matching=False)
PLAIN = Peer("postfix-plain.test", 202, signed=False, trusted=False)
PEERS = (DANE, MISMATCH, PLAIN)


class World(MultiService):
    """
    DNS, with everything in it; nobody takes mail here.

    @ivar identities: By domain: what Postfix presents.
    @ivar moxtls: What moxtls presents to Postfix.
    """

    def __init__(
        self, reactor: IReactorTime, directory: Path, network: Network
    ) -> None:
        """
        @param reactor: Also provides C{IReactorTCP} and C{IReactorUDP}.
        """
        super().__init__()
        self.directory = directory
        self.network = network
        now = reactor.seconds()
        self.keys = makeKeys(mailHosts(network, DESTINATIONS), now)
        self.identities = {peer.domain: peer.identity(self.keys.ca) for peer in PEERS}
        self.moxtls = self.keys.ca.issue(["mail.sender.test"])
        self.tree = plantTree(
            (
                *zonePlans(network, DESTINATIONS, self.keys.publication),
                *(self._zone(peer) for peer in PEERS),
            ),
            network.authority,
            now,
        )
        authority = Authority(self.tree.zones)
        validator = Validator(authority.respond, self.tree.anchor, reactor.seconds)
        port = network.dnsPort
        self.addService(DNSServer(reactor, network.authority, port, authority))
        self.addService(DNSServer(reactor, network.resolver, port, validator))

    @property
    def resolver(self) -> tuple[str, int]:
        """
        The lab's own.
        """
        return self.network.resolver, self.network.dnsPort

    def startService(self) -> None:
        """
        @raise CannotListenError: An address is in use.
        """
        (self.directory / ANCHOR_FILE).write_text(self.tree.anchorText)
        ca = self.keys.ca.identity.certificatePEM()
        (self.directory / CA_FILE).write_bytes(ca)
        super().startService()

    def _zone(self, peer: Peer) -> ZonePlan:
        return ZonePlan(f"{peer.domain}.", tuple(self._records(peer)), peer.signed)

    def _records(self, peer: Peer) -> Iterator[str]:
        yield f"@ MX 10 {peer.host}."
        yield f"{peer.host}. A {self.network.address(peer.number)}"
        yield f'_smtp._tls TXT "v=TLSRPTv1; rua=mailto:{REPORT_ADDRESS}"'
        if peer.signed:
            digest = self._digest(peer) if peer.matching else _OTHER_KEY
            yield f"_{self.network.smtpPort}._tcp.mx TLSA 3 1 1 {digest}"

    def _digest(self, peer: Peer) -> str:
        key = self.identities[peer.domain].leaf.public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).hexdigest()
