# -*- test-case-name: tests.lab.test_plan -*-
"""
The lab's zones: a root, a top-level domain and what is below, signed and
unsigned, and some with something wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

import dns.dnssec
import dns.dnssectypes
import dns.name
import dns.node
import dns.rdata
import dns.rdataset
import dns.rdatatype
import dns.transaction
import dns.versioned
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rdtypes.ANY.RRSIG import RRSIG

from moxtls.lab.conditions import TLD

#: Short, so that what unbound remembers of it is soon forgotten.
TTL = 60
_ROOT_SERVER = "ns."
_TLD_SERVER = f"ns.{TLD}."
_LIFETIME = timedelta(days=30)
_LEEWAY = timedelta(hours=1)


class Fault(Enum):
    """
    What is wrong with the signatures of a zone as a whole.

    C{EXPIRED}: they have.  C{OTHER_KEY}: the parent vouches for a key that
    the zone doesn't have.  C{STRIPPED}: the parent vouches for a key, but the
    zone isn't signed.
    """

    NONE = auto()
    EXPIRED = auto()
    OTHER_KEY = auto()
    STRIPPED = auto()


@dataclass(frozen=True, slots=True)
class ZonePlan:
    """
    A zone to be made.

    @ivar records: Lines of a zone file; SOA and NS are added.
    @ivar damaged: The type of record whose signatures are damaged; empty
        for none.
    """

    origin: str
    records: tuple[str, ...]
    signed: bool = False
    damaged: str = ""
    fault: Fault = Fault.NONE


@dataclass(frozen=True, slots=True)
class Tree:
    """
    Zones from the root down.

    @ivar anchor: The DS record of the root's key, to be trusted.
    """

    zones: tuple[dns.zone.Zone, ...]
    anchor: dns.rdataset.Rdataset

    @property
    def anchorText(self) -> str:
        """
        As a resolver takes it: C{. IN DS ...}.
        """
        return f". IN DS {self.anchor[0].to_text()}\n"


def plantTree(plans: Sequence[ZonePlan], server: str, now: float) -> Tree:
    """
    Make and sign zones below the top-level domain, that itself, and the root.

    @param server: The address of the server of all of them.
    @param now: Unix seconds: signatures are valid around then.
    """
    zones = []
    delegations = [f"{_TLD_SERVER} A {server}"]
    for plan in plans:
        zone, vouched = _made(plan, now)
        zones.append(zone)
        delegations.append(f"{plan.origin} NS {_TLD_SERVER}")
        delegations.extend(f"{plan.origin} DS {each}" for each in vouched)
    top, vouched = _made(ZonePlan(f"{TLD}.", tuple(delegations), signed=True), now)
    records = (
        f"{_ROOT_SERVER} A {server}",
        f"{TLD}. NS {_TLD_SERVER}",
        f"{_TLD_SERVER} A {server}",
        *(f"{TLD}. DS {each}" for each in vouched),
    )
    root, anchors = _made(ZonePlan(".", records, signed=True), now)
    anchor = dns.rdataset.from_text("IN", "DS", TTL, *anchors)
    return Tree((root, top, *zones), anchor)


def _made(plan: ZonePlan, now: float) -> tuple[dns.zone.Zone, tuple[str, ...]]:
    """
    A zone, and what its parent's DS records say.
    """
    server = _ROOT_SERVER if plan.origin == "." else _TLD_SERVER
    lines = (
        f"$ORIGIN {plan.origin}",
        f"$TTL {TTL}",
        f"@ SOA {server} hostmaster.{TLD}. 1 3600 900 604800 {TTL}",
        f"@ NS {server}",
        *plan.records,
    )
    zone = dns.zone.from_text(
        "\n".join(lines),
        origin=plan.origin,
        relativize=False,
        zone_factory=dns.versioned.Zone,
    )
    if not plan.signed:
        return zone, ()
    key, public = _newKey()
    if plan.fault is not Fault.STRIPPED:
        _sign(zone, key, public, now, plan.fault)
    if plan.damaged:
        _damage(zone, plan.damaged)
    if plan.fault is Fault.OTHER_KEY:
        _, public = _newKey()
    vouched = dns.dnssec.make_ds(plan.origin, public, dns.dnssectypes.DSDigest.SHA256)
    return zone, (vouched.to_text(),)


def _newKey() -> tuple[ec.EllipticCurvePrivateKey, DNSKEY]:
    key = ec.generate_private_key(ec.SECP256R1())
    algorithm = dns.dnssectypes.Algorithm.ECDSAP256SHA256
    return key, dns.dnssec.make_dnskey(key.public_key(), algorithm, flags=257)


def _sign(
    zone: dns.zone.Zone,
    key: ec.EllipticCurvePrivateKey,
    public: DNSKEY,
    now: float,
    fault: Fault,
) -> None:
    moment = datetime.fromtimestamp(int(now), UTC)
    if fault is Fault.EXPIRED:
        moment -= 2 * _LIFETIME
    with zone.writer() as transaction:
        dns.dnssec.sign_zone(
            zone,
            transaction,
            keys=[(key, public)],
            dnskey_ttl=TTL,
            inception=moment - _LEEWAY,
            expiration=moment + _LIFETIME,
        )


def _damage(zone: dns.zone.Zone, kind: str) -> None:
    """
    Change one bit in each signature over records of one type.
    """
    covered = dns.rdatatype.from_text(kind)
    with zone.writer() as transaction:
        for name, records in list(transaction.iterate_rdatasets()):
            if records.rdtype == dns.rdatatype.RRSIG and records.covers == covered:
                transaction.replace(name, _flipped(records))


def _flipped(records: dns.rdataset.Rdataset) -> dns.rdataset.Rdataset:
    changed = []
    for each in records:
        assert isinstance(each, RRSIG)
        first = bytes([each.signature[0] ^ 1])
        changed.append(each.replace(signature=first + each.signature[1:]))
    return dns.rdataset.from_rdata_list(records.ttl, changed)
