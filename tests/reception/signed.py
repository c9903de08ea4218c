"""
Signed mail from a few domains, and the DNS to authenticate it.
"""

from __future__ import annotations

from moxtls.authentication.dkim.sign import Signer, loadKey, sign
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.message.header import ClientInfo
from tests.configs import ed25519Key

_KEY = loadKey(ed25519Key())

#: A host that SPF authorizes for a.example, and one that no domain authorizes.
HOST = ClientInfo("192.0.2.1", "mail.a.example")
OTHER_CLIENT = ClientInfo("203.0.113.1", "stranger.example")
#: The host of a mailing list or forwarder.
RELAY = ClientInfo("198.51.100.1", "relay.example")

BODY = b"hello\r\n"


def resolver() -> MemoryResolver:
    """
    Knows a.example, whose policy is "reject", q.example, whose is
    "quarantine", and relay.example, which passes on mail of others.
    """
    dns = MemoryResolver(
        {
            ("a.example", RRType.TXT): ["v=spf1 ip4:192.0.2.1 -all"],
            ("q.example", RRType.TXT): ["v=spf1 ip4:192.0.2.1 -all"],
            ("relay.example", RRType.TXT): ["v=spf1 ip4:198.51.100.1 -all"],
            ("stranger.example", RRType.TXT): ["v=spf1 ip4:203.0.113.1 -all"],
            ("1.2.0.192.in-addr.arpa", RRType.PTR): ["mail.a.example"],
            ("mail.a.example", RRType.A): ["192.0.2.1"],
        }
    )
    for name, policy in (("a", "reject"), ("q", "quarantine"), ("n", "none")):
        record = f"v=DMARC1; p={policy}; rua=mailto:reports@{name}.example"
        dns.put(f"_dmarc.{name}.example", RRType.TXT, record)
    for name in ("a", "q", "n", "relay", "stranger"):
        each = signer(f"{name}.example")
        dns.put(each.recordName, RRType.TXT, each.record)
    return dns


def signer(domain: str) -> Signer:
    """
    The one of a domain.
    """
    return Signer(Domain.parse(domain), "s", _KEY)


def message(
    author: str, *signed: str, fields: bytes = b"", body: bytes = BODY
) -> bytes:
    """
    @param author: An address, or more.
    @param signed: The domains that sign it.
    @param fields: More fields, which aren't signed.
    """
    header = f"From: {author}\r\nTo: y@our.example\r\nSubject: hello\r\n".encode()
    return fields + sign(header + b"\r\n" + body, map(signer, signed))
