# -*- test-case-name: tests.lab.test_senders -*-
"""
The domains that mail to us is from, what each publishes, and where reports on
it are to arrive.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from moxtls.lab.network import Network
from moxtls.lab.scenario import TLD

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
    What a report has to quote of a record (RFC 9990 3.1.1.5), with the
    defaults that apply.
    """

    p: str
    sp: str
    np: str
    testing: str = "n"


@dataclass(frozen=True, slots=True)
class Sender:
    """
    A domain, C{name} under the lab's top-level domain, with a host that sends
    mail, an SPF record for that and a DKIM key.

    @ivar record: The tags of its DMARC record, but for C{v} and C{rua}; empty
        if there is none.
    @ivar published: The same, as a report has it.
    @ivar rua: The addresses in the record.
    @ivar told: Those of them that a report has to go to.
    @ivar errors: What that report has to say of the others.
    @ivar hours: What it is about: so many hours.
    @ivar below: Names below the domain that there are.
    @ivar damaged: Whether the signature of its TXT records is damaged.
    @ivar signsTwice: With RSA as well (RFC 8463 3).
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
        What sends its mail.
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
    One that has its reports sent to an address of its own.
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
    # --- in whose name there is mail ---
    _asking("aligned", "p=reject", _REJECT, signsTwice=True),
    _asking("monitor", "p=none", _NONE),
    _asking("careful", "p=quarantine", _QUARANTINE),
    _asking("forwarded", "p=reject", _REJECT),
    _asking("listed", "p=reject", _REJECT),
    _asking("spoofed", "p=reject", _REJECT),
    # Nobody here has had to do with it: who forges it can't make us write to it.
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
    # --- who sends it for them ---
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
    What the host of C{sender} connects from.
    """
    return network.address(FIRST_NUMBER + SENDERS.index(sender))
