# -*- test-case-name: tests.lab.test_senders -*-
"""
The DNS records of senders. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from moxtls.lab.keys import DKIMKey
from moxtls.lab.network import Network
from moxtls.lab.plan import characterStrings
from moxtls.lab.scenario import SINK
from moxtls.lab.senders import COLLECTOR, CONFIRMED, SENDERS, Sender, addressOf
from moxtls.lab.zones import ZonePlan

#: By sender and selector: the contents of records (RFC 6376 3.6.1).
KeyRecords = Mapping[str, Mapping[str, str]]

#: What all of them have their mail taken by.
_MX = f"@ MX 10 mx.{SINK}."


def senderPlans(network: Network, keys: KeyRecords) -> tuple[ZonePlan, ...]:
    """
    A zone for each sender, and one for the organization that collects reports for
    others.
    """
    zones = [
        ZonePlan(
            f"{each.domain}.",
            tuple(_records(network, each, keys)),
            signed=True,
            damaged="TXT" if each.damaged else "",
        )
        for each in SENDERS
    ]
    confirmations = (f'{each}._report._dmarc TXT "v=DMARC1"' for each in CONFIRMED)
    zones.append(ZonePlan(f"{COLLECTOR}.", (_MX, *confirmations), signed=True))
    return tuple(zones)


def publishedKeys(keys: Mapping[str, Sequence[DKIMKey]]) -> KeyRecords:
    """
    The key records of senders.
    """
    return {
        name: {each.selector: each.record for each in some}
        for name, some in keys.items()
    }


def _records(network: Network, sender: Sender, keys: KeyRecords) -> Iterator[str]:
    address = addressOf(network, sender)
    yield _MX
    yield f"{sender.host}. A {address}"
    yield f'@ TXT "v=spf1 ip4:{address} -all"'
    # RFC 7208 10.1.3: for mail without a sender.
    yield f'{sender.host}. TXT "v=spf1 a -all"'
    for selector, record in keys[sender.name].items():
        yield f"{selector}._domainkey TXT {characterStrings(record)}"
    if sender.dmarc:
        yield f'_dmarc TXT "{sender.dmarc}"'
    for name in sender.below:
        yield f"{name} MX 10 mx.{SINK}."
