# -*- test-case-name: tests.lab.test_validator -*-
"""
A recursive, validating resolver (RFC 4035 4 and 5, RFC 8914). No I/O: servers are
queried through a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import dns.dnssec
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.node
import dns.rcode
import dns.rdataset
import dns.rdatatype
import dns.rrset
from dns.edns import EDECode
from dns.exception import ValidationFailure
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rdtypes.ANY.DS import DS
from dns.rdtypes.ANY.RRSIG import RRSIG

from moxtls.lab.zones import PAYLOAD, isDelegation, isDenied

#: As many as other resolvers follow; a loop ends here.
MAX_CHAIN = 8

Ask = Callable[[dns.message.Message], dns.message.Message]


class _Bogus(Exception):
    """
    Records that should be signed are not, or not validly.
    """

    def __init__(self, code: EDECode, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class _Zone:
    """
    The trust in a zone.

    @ivar keys: C{None} if it is unsigned, as proved by its parent.
    """

    origin: dns.name.Name
    keys: dns.rdataset.Rdataset | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """
    The result of a query.

    @ivar answer: Records with their signatures, in the order of the chain.
    @ivar secure: True if all of it was validated.
    @ivar error: The reason of a failure.
    """

    rcode: dns.rcode.Rcode
    answer: tuple[dns.rrset.RRset, ...] = ()
    authority: tuple[dns.rrset.RRset, ...] = ()
    secure: bool = False
    error: tuple[EDECode, str] | None = None


class Validator:
    """
    Resolves names, starting from trust in one key.

    @param anchor: DS records of the root's key.
    @param now: Unix seconds.
    """

    def __init__(
        self, ask: Ask, anchor: dns.rdataset.Rdataset, now: Callable[[], float]
    ) -> None:
        self._ask = ask
        self._anchor = anchor
        self._now = now
        # Only what is a zone is kept here: there are only so many of them.
        self._zones: dict[dns.name.Name, _Zone] = {}

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        """
        @param query: One with a single question.
        """
        question = query.question[0]
        if query.flags & dns.flags.CD:
            resolution = self._unchecked(question.name, question.rdtype)
        else:
            resolution = self.resolve(question.name, question.rdtype)
        return _response(query, resolution)

    def resolve(self, name: dns.name.Name, kind: RdataType) -> Resolution:
        """
        Query records, and validate them; CNAMEs are followed.
        """
        try:
            return self._resolved(name, kind)
        except _Bogus as bogus:
            error = (bogus.code, f"{bogus.text} <{name} {dns.rdatatype.to_text(kind)}>")
            return Resolution(dns.rcode.SERVFAIL, error=error)

    def _resolved(self, name: dns.name.Name, kind: RdataType) -> Resolution:
        chain: list[dns.rrset.RRset] = []
        secure = True
        for _ in range(MAX_CHAIN):
            step = self._step(name, kind)
            secure = secure and step.secure
            chain.extend(step.answer)
            alias = _alias(step.answer, name, kind)
            if alias is None:
                return replace(step, answer=tuple(chain), secure=secure)
            name = alias
        return Resolution(dns.rcode.SERVFAIL)

    def _step(self, name: dns.name.Name, kind: RdataType) -> Resolution:
        reply = self._query(name, kind)
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Resolution(dns.rcode.SERVFAIL)
        zone = self._zoneOf(name, kind)
        if zone.keys is not None:
            for records in _sets(reply.answer + reply.authority):
                self._check(reply, records, zone)
            if not reply.answer:
                _needDenial(reply, name, kind)
        return Resolution(
            reply.rcode(),
            tuple(reply.answer),
            tuple(reply.authority),
            zone.keys is not None,
        )

    def _unchecked(self, name: dns.name.Name, kind: RdataType) -> Resolution:
        reply = self._query(name, kind)
        return Resolution(reply.rcode(), tuple(reply.answer), tuple(reply.authority))

    def _query(self, name: dns.name.Name, kind: RdataType) -> dns.message.Message:
        return self._ask(dns.message.make_query(name, kind, want_dnssec=True))

    # --- the chain of trust ---

    def _zoneOf(self, name: dns.name.Name, kind: RdataType) -> _Zone:
        """
        The zone of C{name}, validated from the root down.
        """
        if kind == dns.rdatatype.DS and name != dns.name.root:
            name = name.parent()
        zone = self._root()
        for depth in range(2, len(name.labels) + 1):
            zone = self._below(zone, name.split(depth)[1])
            if zone.keys is None:
                break
        return zone

    def _root(self) -> _Zone:
        root = dns.name.root
        if root not in self._zones:
            self._zones[root] = _Zone(root, self._keys(root, self._anchor))
        return self._zones[root]

    def _below(self, parent: _Zone, name: dns.name.Name) -> _Zone:
        """
        The zone at C{name} if one begins there, else C{parent}.
        """
        if name in self._zones:
            return self._zones[name]
        reply = self._query(name, dns.rdatatype.DS)
        for records in _sets(reply.answer + reply.authority):
            self._check(reply, records, parent)
        vouched = _answerOf(reply, name, dns.rdatatype.DS)
        if vouched is None and reply.answer:
            return parent  # RFC 1034 3.6.2: an alias is nothing else
        if vouched is not None:
            zone = _Zone(name, self._keys(name, vouched))
        else:
            _needDenial(reply, name, dns.rdatatype.DS)
            if not isDelegation(reply, name):
                return parent
            zone = _Zone(name, None)
        self._zones[name] = zone
        return zone

    def _keys(
        self, origin: dns.name.Name, vouched: dns.rdataset.Rdataset
    ) -> dns.rdataset.Rdataset:
        """
        The keys of a zone, one of which must match the DS records and sign all of
        them.
        """
        reply = self._query(origin, dns.rdatatype.DNSKEY)
        keys = _answerOf(reply, origin, dns.rdatatype.DNSKEY)
        if keys is None:
            raise _Bogus(EDECode.DNSKEY_MISSING, f"no DNSKEY for {origin}")
        trusted = [key for key in keys if _isVouchedFor(origin, key, vouched)]
        if not trusted:
            raise _Bogus(EDECode.DNSKEY_MISSING, f"no DS matches a key of {origin}")
        entry = dns.rdataset.from_rdata_list(keys.ttl, trusted)
        self._check(reply, keys, _Zone(origin, entry))
        return keys.to_rdataset()

    def _check(
        self, reply: dns.message.Message, records: dns.rrset.RRset, zone: _Zone
    ) -> None:
        """
        @raise _Bogus: C{zone} didn't sign these records.
        """
        reason = _Bogus(EDECode.RRSIGS_MISSING, f"no signature by {zone.origin}")
        keys: dict[dns.name.Name, dns.node.Node | dns.rdataset.Rdataset] = {}
        if zone.keys is not None:
            keys[zone.origin] = zone.keys
        for signature in _signatures(reply, records):
            try:
                dns.dnssec.validate_rrsig(records, signature, keys, now=self._now())
            except ValidationFailure as failure:
                reason = self._reason(signature, failure)
            else:
                return
        raise reason

    def _reason(self, signature: RRSIG, failure: ValidationFailure) -> _Bogus:
        now = self._now()
        if signature.expiration < now:
            return _Bogus(EDECode.SIGNATURE_EXPIRED, "signature expired")
        if signature.inception > now:
            return _Bogus(EDECode.SIGNATURE_NOT_YET_VALID, "signature not yet valid")
        return _Bogus(EDECode.DNSSEC_BOGUS, f"signature is bad: {failure}")


def _answerOf(
    reply: dns.message.Message, name: dns.name.Name, kind: RdataType
) -> dns.rrset.RRset | None:
    matching = (
        each for each in reply.answer if each.name == name and each.rdtype == kind
    )
    return next(matching, None)


def _sets(section: Sequence[dns.rrset.RRset]) -> list[dns.rrset.RRset]:
    return [each for each in section if each.rdtype != dns.rdatatype.RRSIG]


def _signatures(reply: dns.message.Message, records: dns.rrset.RRset) -> list[RRSIG]:
    return [
        rdata
        for each in reply.answer + reply.authority
        if each.name == records.name and each.covers == records.rdtype
        for rdata in each
        if isinstance(rdata, RRSIG) and rdata.type_covered == records.rdtype
    ]


def _isVouchedFor(
    origin: dns.name.Name, key: object, vouched: dns.rdataset.Rdataset
) -> bool:
    return isinstance(key, DNSKEY) and any(
        isinstance(each, DS)
        and dns.dnssec.make_ds(origin, key, each.digest_type) == each
        for each in vouched
    )


def _alias(
    answer: Sequence[dns.rrset.RRset], name: dns.name.Name, kind: RdataType
) -> dns.name.Name | None:
    if kind == dns.rdatatype.CNAME:
        return None
    for each in answer:
        if each.name == name and each.rdtype == dns.rdatatype.CNAME:
            record = each[0]
            assert isinstance(record, CNAME)
            return record.target
    return None


def _needDenial(
    reply: dns.message.Message, name: dns.name.Name, kind: RdataType
) -> None:
    """
    @raise _Bogus: The non-existence isn't proved.
    """
    if not isDenied(reply, name, kind):
        raise _Bogus(EDECode.NSEC_MISSING, "no proof that there is nothing")


# --- responses ---

_DNSSEC_KINDS = (dns.rdatatype.RRSIG, dns.rdatatype.NSEC)


def _response(
    query: dns.message.Message, resolution: Resolution
) -> dns.message.Message:
    response = dns.message.make_response(query, our_payload=PAYLOAD)
    response.set_rcode(resolution.rcode)
    response.flags |= dns.flags.RA
    dnssec = bool(query.ednsflags & dns.flags.DO)
    # RFC 6840 5.7: AD in a query asks for AD without the rest.
    if resolution.secure and (dnssec or query.flags & dns.flags.AD):
        response.flags |= dns.flags.AD
    wanted = query.question[0].rdtype
    response.answer.extend(_visible(resolution.answer, dnssec, wanted))
    response.authority.extend(_visible(resolution.authority, dnssec, wanted))
    if query.edns >= 0:
        options: list[dns.edns.Option] = []
        if resolution.error:
            options.append(dns.edns.EDEOption(*resolution.error))
        flags = dns.flags.DO if dnssec else 0
        response.use_edns(0, flags, PAYLOAD, query.payload, options)
    return response


def _visible(
    section: Sequence[dns.rrset.RRset], dnssec: bool, wanted: RdataType
) -> list[dns.rrset.RRset]:
    return [
        each
        for each in section
        if dnssec or each.rdtype == wanted or each.rdtype not in _DNSSEC_KINDS
    ]
