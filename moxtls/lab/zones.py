# -*- test-case-name: tests.lab.test_plan -*-
"""
The lab's zones, and the authoritative server for them (RFC 1034, RFC 4035 3.1, 5.4; RFC
4034 4).

There is a root, a top-level domain and zones below it, signed and unsigned, some with
errors. There are no wildcards, and every delegated zone is served too, so there is
never a referral.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

import dns.dnssec
import dns.dnssectypes
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.node
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.transaction
import dns.versioned
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rdtypes.ANY.NSEC import NSEC
from dns.rdtypes.ANY.RRSIG import RRSIG

from moxtls.lab.scenario import TLD

#: Short, so that what unbound remembers of it is soon forgotten.
TTL = 60
_ROOT_SERVER = "ns."
_TLD_SERVER = f"ns.{TLD}."
_LIFETIME = timedelta(days=30)
_LEEWAY = timedelta(hours=1)


class Fault(Enum):
    """
    An error in the signatures of a zone.

    C{EXPIRED}: the signatures have expired. C{OTHER_KEY}: the DS records name a key
    that the zone doesn't have. C{STRIPPED}: there are DS records, but the zone isn't
    signed.
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
    @ivar damaged: The type of record whose signatures are damaged; empty for none.
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
        The trust anchor as resolvers read it: C{. IN DS ...}.
        """
        return f". IN DS {self.anchor[0].to_text()}\n"


def makeTree(plans: Sequence[ZonePlan], server: str, now: float) -> Tree:
    """
    Make and sign zones below the top-level domain, that domain itself, and the root.

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
    A zone, and its DS records.
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


def isDenied(reply: dns.message.Message, name: dns.name.Name, kind: RdataType) -> bool:
    """
    True if the non-existence is proved (RFC 4035 5.4).
    """
    denials = _denials(reply)
    if reply.rcode() == dns.rcode.NXDOMAIN:
        return _noWildcard(denials, name)
    return any(_hasNot(owner, nsec, name, kind) for owner, nsec in denials)


def isDelegation(reply: dns.message.Message, name: dns.name.Name) -> bool:
    """
    True if C{name} is another zone, by the proof that it has no DS.
    """
    return any(
        owner == name and _lists(nsec, dns.rdatatype.NS)
        for owner, nsec in _denials(reply)
    )


def _denials(reply: dns.message.Message) -> list[tuple[dns.name.Name, NSEC]]:
    return [
        (each.name, rdata)
        for each in reply.authority
        for rdata in each
        if isinstance(rdata, NSEC)
    ]


def _covers(owner: dns.name.Name, nsec: NSEC, name: dns.name.Name) -> bool:
    """
    True if C{name} is in the gap, and isn't above the end of it.
    """
    following: dns.name.Name = nsec.next
    behind = name < following or following <= owner
    return owner < name and behind and not following.is_subdomain(name)


def _noWildcard(
    denials: Sequence[tuple[dns.name.Name, NSEC]], name: dns.name.Name
) -> bool:
    """
    True if C{name} doesn't exist, nor a wildcard at the closest encloser.
    """
    gap = next((each for each in denials if _covers(*each, name)), None)
    if gap is None:
        return False
    closest = max(
        (_common(name, gap[0]), _common(name, gap[1].next)),
        key=lambda each: len(each.labels),
    )
    wildcard = dns.name.from_text("*", closest)
    return any(_covers(owner, nsec, wildcard) for owner, nsec in denials)


def _common(first: dns.name.Name, second: dns.name.Name) -> dns.name.Name:
    _, _, labels = first.fullcompare(second)
    return first.split(labels)[1]


def _hasNot(
    owner: dns.name.Name, nsec: NSEC, name: dns.name.Name, kind: RdataType
) -> bool:
    """
    True if C{name} exists, without records of C{kind}.
    """
    if owner == name:
        return not _lists(nsec, kind) and not _lists(nsec, dns.rdatatype.CNAME)
    # RFC 4592 2.2.2: a name that only has names below it.
    following: dns.name.Name = nsec.next
    return owner < name and following.is_subdomain(name)


def _lists(nsec: NSEC, kind: RdataType) -> bool:
    # RFC 4034 4.1.2: windows of 256 types, as a bit map each.
    windows: list[tuple[int, bytes]] = list(nsec.windows)
    for window, bitmap in windows:
        byte, bit = divmod(kind % 256, 8)
        if window == kind // 256 and byte < len(bitmap):
            return (bitmap[byte] & (0x80 >> bit)) != 0
    return False


#: What an answer of ours may weigh over UDP (the DNS flag day of 2020).
PAYLOAD = 1232


class _Holding:
    """
    One zone, with its names in order.
    """

    def __init__(self, zone: dns.zone.Zone) -> None:
        assert zone.origin is not None
        self.zone = zone
        self.origin = zone.origin
        nodes = {name: zone.get_node(name) for name in zone}
        self.names = sorted(nodes)
        self.denying = [
            name
            for name, node in sorted(nodes.items())
            if node and node.get_rdataset(zone.rdclass, dns.rdatatype.NSEC)
        ]

    def exists(self, name: dns.name.Name) -> bool:
        """
        True if the name exists, or one below it (RFC 4592 2.2.2).
        """
        at = bisect_left(self.names, name)
        return at < len(self.names) and self.names[at].is_subdomain(name)

    def denier(self, name: dns.name.Name) -> dns.name.Name | None:
        """
        The last name with an NSEC record that isn't after C{name}.
        """
        at = bisect_right(self.denying, name)
        return self.denying[at - 1] if at else None

    def records(
        self, name: dns.name.Name, kind: RdataType, signed: bool
    ) -> list[dns.rrset.RRset]:
        """
        A set of records, if it exists, with its signatures on request.
        """
        found = self.zone.get_rrset(name, kind)
        if found is None:
            return []
        signatures = self.zone.get_rrset(name, dns.rdatatype.RRSIG, kind)
        return [found, signatures] if signatures and signed else [found]


class Authority:
    """
    Answers queries about its zones.
    """

    def __init__(self, zones: Iterable[dns.zone.Zone]) -> None:
        holdings = [_Holding(zone) for zone in zones]
        self._holdings = {each.origin: each for each in holdings}

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        """
        @param query: One with a single question.
        """
        response = dns.message.make_response(query, our_payload=PAYLOAD)
        if query.ednsflags & dns.flags.DO:
            response.want_dnssec(True)
        question = query.question[0]
        holding = self._holding(question.name, question.rdtype)
        if query.opcode() != dns.opcode.QUERY or _isMeta(question.rdtype):
            response.set_rcode(dns.rcode.NOTIMP)
        elif holding is None:
            response.set_rcode(dns.rcode.REFUSED)
        else:
            response.flags |= dns.flags.AA
            _fill(response, holding, question.name, question.rdtype)
        return response

    def _holding(self, name: dns.name.Name, kind: RdataType) -> _Holding | None:
        # RFC 4035 3.1.4.1: DS records are on the parent's side.
        if kind == dns.rdatatype.DS and name != dns.name.root:
            name = name.parent()
        while name not in self._holdings:
            if name == dns.name.root:
                return None
            name = name.parent()
        return self._holdings[name]


def _isMeta(kind: RdataType) -> bool:
    """
    True for query types that aren't of records, such as transfers.
    """
    return dns.rdatatype.is_metatype(kind)


def _fill(
    response: dns.message.Message,
    holding: _Holding,
    name: dns.name.Name,
    kind: RdataType,
) -> None:
    signed = bool(response.ednsflags & dns.flags.DO)
    found = holding.records(name, kind, signed)
    if not found:
        found = holding.records(name, dns.rdatatype.CNAME, signed)
    response.answer.extend(found)
    if found:
        return
    response.authority.extend(
        holding.records(holding.origin, dns.rdatatype.SOA, signed)
    )
    deniers = [holding.denier(name)]
    if not holding.exists(name):
        response.set_rcode(dns.rcode.NXDOMAIN)
        deniers.append(holding.denier(_wildcard(holding, name)))
    if signed:
        for denier in dict.fromkeys(deniers):
            if denier is not None:
                response.authority.extend(
                    holding.records(denier, dns.rdatatype.NSEC, True)
                )


def _wildcard(holding: _Holding, name: dns.name.Name) -> dns.name.Name:
    """
    The wildcard that would have produced C{name} (RFC 4592 2.1.1).
    """
    while not holding.exists(name):
        name = name.parent()
    return dns.name.from_text("*", name)
