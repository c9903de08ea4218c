"""
The DNS, the certificates and the keys of all checks: the lab's zones, and those of
the domains that Postfix receives mail for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime

from interop.domains import (
    OUTSIDE,
    OUTSIDE_NUMBER,
    REPORTED,
    REPORTED_HOST,
    SENDING_DOMAINS,
    SendingDomain,
)
from moxtls.lab.hosts import DNSServer
from moxtls.lab.keys import (
    ED25519_SELECTOR,
    RSA_SELECTOR,
    DKIMKey,
    Identity,
    LabCA,
    ed25519Key,
    makeKeys,
    rsaKey,
    selfSigned,
)
from moxtls.lab.plan import Network, characterStrings, mailHosts, zonePlans
from moxtls.lab.scenario import DESTINATIONS
from moxtls.lab.validator import Validator
from moxtls.lab.zones import Authority, ZonePlan, makeTree

ANCHOR_FILE = "root.ds"
CA_FILE = "ca.pem"
#: The destination of reports about all domains of Postfix.
REPORT_ADDRESS = "tlsrpt@postfix.test"
_OTHER_KEY = hashlib.sha256(b"another key").hexdigest()


@dataclass(frozen=True, slots=True)
class Peer:
    """
    A domain that Postfix receives mail for.

    @ivar number: The last octet of its host's address.
    @ivar signed: Whether its zone is signed and has a TLSA record.
    @ivar matching: Whether the TLSA record matches the host's key.
    @ivar trusted: Whether the certificate is issued by an authority that moxtls
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
        The syslog name of its listener.
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
_OUTSIDE_HOST = f"mx.{OUTSIDE}"
_REPORTED_NUMBER = 211
_MAKERS = {RSA_SELECTOR: rsaKey, ED25519_SELECTOR: ed25519Key}


class Environment(MultiService):
    """
    DNS servers with all zones, and the keys. No SMTP server runs here.

    @ivar identities: Postfix's certificate and key, by domain.
    @ivar moxtls: The certificate and key of moxtls for Postfix.
    @ivar remote: The certificate and key of the host that receives reports on mail.
    @ivar reported: The certificate and key of the second moxtls.
    @ivar imap: The certificate and key of Dovecot's IMAP server.
    @ivar signingKeys: DKIM keys of the sending domains, by domain.
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
        self.remote = self.keys.ca.issue([_OUTSIDE_HOST])
        self.reported = self.keys.ca.issue([REPORTED_HOST])
        self.imap = self.keys.ca.issue(["localhost"])
        self.signingKeys = {each.domain: _keys(each) for each in SENDING_DOMAINS}
        self.tree = makeTree(
            (
                *zonePlans(network, DESTINATIONS, self.keys.publication),
                *(self._zone(peer) for peer in PEERS),
                *(self._senderZone(each) for each in SENDING_DOMAINS),
                self._remoteZone(),
                self._reportedZone(),
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
        The address and port of the lab's own resolver.
        """
        return self.network.resolver, self.network.dnsPort

    @property
    def reportedServer(self) -> str:
        """
        The address of the moxtls that receives reports.
        """
        return self.network.address(_REPORTED_NUMBER)

    @property
    def secondServer(self) -> tuple[str, int]:
        """
        The address and port of the moxtls that delivers to Dovecot by LMTP.
        """
        return self.network.address(248), self.network.smtpPort

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
            own = spkiDigest(self.identities[peer.domain])
            digest = own if peer.matching else _OTHER_KEY
            yield f"_{self.network.smtpPort}._tcp.mx TLSA 3 1 1 {digest}"

    def _remoteZone(self) -> ZonePlan:
        address = self.network.address(OUTSIDE_NUMBER)
        records = (f"@ MX 10 {_OUTSIDE_HOST}.", f"{_OUTSIDE_HOST}. A {address}")
        return ZonePlan(f"{OUTSIDE}.", records, signed=True)

    def _reportedZone(self) -> ZonePlan:
        key = spkiDigest(self.reported)
        records = (
            f"@ MX 10 {REPORTED_HOST}.",
            # Connections between loopback addresses come from 127.0.0.1.
            '@ TXT "v=spf1 ip4:127.0.0.0/8 -all"',
            f'_dmarc TXT "v=DMARC1; p=none; rua=mailto:dmarcreports@{REPORTED}"',
            f'_smtp._tls TXT "v=TLSRPTv1; rua=mailto:tlsreports@{REPORTED}"',
            f"mx A {self.reportedServer}",
            f'_smtp._tls.mx TXT "v=TLSRPTv1; rua=mailto:tlsreports@{REPORTED_HOST}"',
            f"_{self.network.smtpPort}._tcp.mx TLSA 3 1 1 {key}",
        )
        return ZonePlan(f"{REPORTED}.", records, signed=True)

    def _senderZone(self, sender: SendingDomain) -> ZonePlan:
        records = tuple(self._senderRecords(sender))
        return ZonePlan(f"{sender.domain}.", records, signed=True)

    def _senderRecords(self, sender: SendingDomain) -> Iterator[str]:
        address = self.network.address(sender.number)
        yield f"@ MX 10 {_OUTSIDE_HOST}."
        yield f"{sender.host}. A {address}"
        # RFC 7208 10.1.3: for mail without a sender.
        yield f'{sender.host}. TXT "v=spf1 a -all"'
        yield f'@ TXT "{sender.spf.format(ip=address)}"'
        for each in sender.more:
            yield each.format(ip=address)
        keys = self.signingKeys[sender.domain]
        if not sender.publishesKeys:
            keys = _keys(sender)
        for key in keys:
            yield f"{key.selector}._domainkey TXT {characterStrings(key.record)}"
        if sender.dmarc:
            rua = f"rua=mailto:{sender.reports}"
            yield f'_dmarc TXT "v=DMARC1; {sender.dmarc}; {rua}"'


def spkiDigest(identity: Identity) -> str:
    """
    The certificate association data of "3 1 1" (RFC 6698 2.1), hexadecimal.
    """
    spki = identity.leaf.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def _keys(sender: SendingDomain) -> tuple[DKIMKey, ...]:
    return tuple(_MAKERS[selector]() for selector in sender.selectors)
