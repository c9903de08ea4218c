# -*- test-case-name: tests.lab.test_senders -*-
"""
The author domains of mail in the lab: the DNS records of each, and where reports on it
must arrive. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moxtls.lab.plan import Network, characterStrings
from moxtls.lab.scenario import SINK, TLD
from moxtls.lab.zones import ZonePlan

#: By sender and selector: the contents of records (RFC 6376 3.6.1).
KeyRecords = Mapping[str, Mapping[str, str]]

#: The MX record of every sender: its mail goes to the sink.
_MX = f"@ MX 10 mx.{SINK}."

#: The host of another organization that takes reports for others.
COLLECTOR = f"collector.{TLD}"
COLLECTOR_ADDRESS = f"dmarc@{COLLECTOR}"
#: Where in its network the lab has the hosts of senders, the first of them.
FIRST_NUMBER = 100
_UNCONFIRMED = (
    f"mailto:{COLLECTOR_ADDRESS}: no v=DMARC1 at "
    f"unasked.{TLD}._report._dmarc.{COLLECTOR}"
)


@dataclass(frozen=True, slots=True)
class Published:
    """
    The policy as a report must quote it (RFC 9990 3.1.1.5), with defaults.
    """

    p: str
    sp: str
    np: str
    testing: str = "n"


@dataclass(frozen=True, slots=True)
class Sender:
    """
    A domain, C{name} under the lab's top-level domain, with a host that sends mail,
    an SPF record for it and a DKIM key.

    @ivar record: The tags of its DMARC record, without C{v} and C{rua}; empty if
        there is none.
    @ivar published: The same, as in a report.
    @ivar rua: The addresses in the record.
    @ivar told: The addresses that must get a report.
    @ivar errors: The errors that the report must contain about the others.
    @ivar hours: The length of the report period.
    @ivar below: Names that exist below the domain.
    @ivar damaged: True if the signature of its TXT records is damaged.
    @ivar signsTwice: True if it also signs with RSA (RFC 8463 3).
    """

    name: str
    record: str = ""
    published: Published | None = None
    rua: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    hours: int = 24
    below: tuple[str, ...] = ()
    damaged: bool = False
    signsTwice: bool = False

    @property
    def domain(self) -> str:
        return f"{self.name}.{TLD}"

    @property
    def host(self) -> str:
        """
        The host that sends its mail.
        """
        return f"mta.{self.domain}"

    @property
    def dmarc(self) -> str:
        """
        The DMARC record; empty if there is none.
        """
        if not self.record:
            return ""
        uris = ",".join(f"mailto:{each}" for each in self.rua)
        return f"v=DMARC1; {self.record}" + (f"; rua={uris}" if uris else "")


def _asking(
    name: str,
    record: str,
    published: Published,
    *,
    isTold: bool = True,
    hours: int = 24,
    below: tuple[str, ...] = (),
    signsTwice: bool = False,
) -> Sender:
    """
    A sender that has its reports sent to an address of its own.
    """
    own = (f"dmarc@{name}.{TLD}",)
    return Sender(
        name,
        record,
        published,
        own,
        told=own if isTold else (),
        hours=hours,
        below=below,
        signsTwice=signsTwice,
    )


_REJECT = Published("reject", "reject", "reject")
_NONE = Published("none", "none", "none")
_QUARANTINE = Published("quarantine", "quarantine", "quarantine")

SENDERS = (
    # --- author domains ---
    _asking("aligned", "p=reject", _REJECT, signsTwice=True),
    _asking("monitor", "p=none", _NONE),
    _asking("careful", "p=quarantine", _QUARANTINE),
    _asking("forwarded", "p=reject", _REJECT),
    _asking("listed", "p=reject", _REJECT),
    _asking("spoofed", "p=reject", _REJECT),
    # No local account has corresponded with it: forged mail must cause no report.
    _asking("stranger", "p=reject", _REJECT, isTold=False),
    _asking(
        "parent",
        "p=none; sp=quarantine; np=reject",
        Published("none", "quarantine", "reject"),
        below=("news",),
    ),
    _asking("trial", "p=reject; t=y", Published("reject", "reject", "reject", "y")),
    _asking("deep", "p=quarantine", _QUARANTINE, below=("a.b.c.d.e.f.g.h",)),
    Sender("silent"),
    Sender("unsure", "p=reject", _REJECT, (f"dmarc@unsure.{TLD}",), damaged=True),
    # As RFC 7489 has it: pct and ri.
    _asking("hourly", "p=none; pct=50; ri=3600", _NONE, hours=1),
    Sender(
        "outsourced",
        "p=none",
        _NONE,
        (COLLECTOR_ADDRESS,),
        told=(COLLECTOR_ADDRESS,),
    ),
    Sender(
        "unasked",
        "p=none",
        _NONE,
        (COLLECTOR_ADDRESS, f"dmarc@unasked.{TLD}"),
        told=(f"dmarc@unasked.{TLD}",),
        errors=(_UNCONFIRMED,),
    ),
    # --- sends reports about the lab's domain, and wants none ---
    Sender("reporter", "p=none", _NONE),
    # --- services and lists ---
    Sender("bulk"),
    Sender("forwarder"),
    Sender("lists"),
    Sender("circle"),
    Sender("forger"),
)
#: By the name.
BY_NAME = {each.name: each for each in SENDERS}
#: Of the domains that C{COLLECTOR} takes reports for (RFC 9990 4).
CONFIRMED = (BY_NAME["outsourced"].domain,)
#: The list that the configuration knows.
KNOWN_LIST = BY_NAME["lists"].domain


def addressOf(network: Network, sender: Sender) -> str:
    """
    The address from which the host of C{sender} connects.
    """
    return network.address(FIRST_NUMBER + SENDERS.index(sender))


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
