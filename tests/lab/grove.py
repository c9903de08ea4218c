"""
The lab's zones, grown once for all tests.
"""

from __future__ import annotations

from functools import cache

import dns.message
import dns.name
import dns.rdatatype

from moxtls.lab.plan import Network, Publication, zonePlans
from moxtls.lab.scenario import DESTINATIONS
from moxtls.lab.senders import SENDERS, senderPlans
from moxtls.lab.validator import Resolution, Validator
from moxtls.lab.zones import Authority, Tree, makeTree

#: 2026-11-24T12:00:00Z
NOON = 1795521600
NETWORK = Network()
RECORD = "3 1 1 " + "ab" * 32
PUBLICATION = Publication(
    tlsa={
        "mx.dane-ee.test": (RECORD,),
        "mx.tlsa-bogus.test": (RECORD,),
        "mx.shared.test": (RECORD,),
    },
    dkim={"lab": "v=DKIM1; k=rsa; p=" + "A" * 392},
)
SENDER_KEYS = {
    each.name: {"lab-ed25519": "v=DKIM1; k=ed25519; p=AAAA"} for each in SENDERS
}


@cache
def tree() -> Tree:
    plans = zonePlans(NETWORK, DESTINATIONS, PUBLICATION)
    senders = senderPlans(NETWORK, SENDER_KEYS)
    return makeTree((*plans, *senders), NETWORK.authority, NOON)


@cache
def authority() -> Authority:
    return Authority(tree().zones)


def validator(now: float = NOON) -> Validator:
    return Validator(authority().respond, tree().anchor, lambda: now)


def ask(name: str, kind: str, dnssec: bool = True) -> dns.message.Message:
    return dns.message.make_query(name, kind, use_edns=0, want_dnssec=dnssec)


def resolve(name: str, kind: str, now: float = NOON) -> Resolution:
    return validator(now).resolve(
        dns.name.from_text(name), dns.rdatatype.from_text(kind)
    )


def texts(name: str, kind: str) -> list[str]:
    """
    The records of C{kind} at C{name}.
    """
    answer = resolve(name, kind).answer
    wanted = dns.rdatatype.from_text(kind)
    return [r.to_text() for each in answer if each.rdtype == wanted for r in each]
