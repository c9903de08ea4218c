# -*- test-case-name: tests.lab.test_plan -*-
"""
Addresses, DNS records and MTA-STS policies of the lab. No I/O.

All of 127.0.0.0/8 is local on Linux, so every server gets an address of its own, with
unprivileged ports only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from moxtls.lab.scenario import (
    HOST_REPORT_ADDRESS,
    REPORT_ADDRESS,
    SENDER,
    SENDING_HOST,
    SHARED_HOST,
    SHARED_ZONE,
    SINK,
    TLD,
    UPLOAD_HOST,
    UPLOAD_PATH,
    Certificate,
    LabDestination,
    Records,
    Signed,
)
from moxtls.lab.zones import Fault, ZonePlan

SINK_HOST = f"mx.{SINK}"
_DAMAGED = {Signed.BAD_MX: "MX", Signed.BAD_TLSA: "TLSA"}
# RFC 1035 3.3: one character-string.
_MAX_STRING_LENGTH = 255
# 127.0 and 127.255 are where other software puts things.
_LOWEST, _HIGHEST = 1, 254


@dataclass(frozen=True, slots=True)
class Network:
    """
    The address plan of a lab.

    @ivar prefix: The first three octets of every address.
    """

    prefix: str = "127.0.25"
    smtpPort: int = 2525
    submissionPort: int = 2587
    dnsPort: int = 5300
    httpsPort: int = 8443

    def address(self, number: int) -> str:
        """
        The address of destination C{number}.
        """
        return f"{self.prefix}.{number}"

    @property
    def submission(self) -> str:
        """
        The address of moxtls itself.
        """
        return self.address(250)

    @property
    def webHost(self) -> str:
        """
        The address of policies and of reports by HTTPS.
        """
        return self.address(252)

    @property
    def authority(self) -> str:
        """
        The address of the authoritative DNS server.
        """
        return self.address(253)

    @property
    def resolver(self) -> str:
        """
        The address of the validating resolver.
        """
        return self.address(254)


def anyNetwork(choose: Callable[[int, int], int]) -> Network:
    """
    A random network, so that several labs can run side by side.

    @param choose: Returns a number between two, both included.
    """
    second = choose(_LOWEST, _HIGHEST)
    third = choose(_LOWEST, _HIGHEST)
    return Network(prefix=f"127.{second}.{third}")


@dataclass(frozen=True, slots=True)
class MailHost:
    """
    A mail host.
    """

    name: str
    address: str
    certificate: Certificate
    tlsa: Records


@dataclass(frozen=True, slots=True)
class Publication:
    """
    The records that depend on keys.

    @ivar tlsa: By host: records as C{usage selector matching hexdata}.
    @ivar dkim: By selector: the contents of records of the sending domain.
    """

    tlsa: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dkim: Mapping[str, str] = field(default_factory=dict)


def mailHosts(
    network: Network, destinations: Sequence[LabDestination]
) -> tuple[MailHost, ...]:
    """
    Every host once; the last is the one that receives reports.
    """
    described = {each.mx: (each.certificate, each.tlsa) for each in destinations}
    if SHARED_HOST in described:
        described[SHARED_HOST] = (Certificate.GOOD, Records.EE)
    described[SINK_HOST] = (Certificate.GOOD, Records.NONE)
    return tuple(
        MailHost(name, network.address(number), certificate, tlsa)
        for number, (name, (certificate, tlsa)) in enumerate(described.items(), 1)
    )


def policyText(destination: LabDestination) -> bytes | None:
    """
    The MTA-STS policy of a destination (RFC 8461 3.2), if it has one.
    """
    sts = destination.sts
    if sts is None:
        return None
    mx = "\r\n".join(f"mx: {each}" for each in policyHosts(destination))
    text = f"version: STSv1\r\nmode: {sts.mode}\r\n{mx}\r\nmax_age: 86400\r\n"
    return text.encode("ascii")


def policyHosts(destination: LabDestination) -> tuple[str, ...]:
    """
    The hosts that the MTA-STS policy of a destination lists.
    """
    listed = destination.sts is not None and destination.sts.listed
    return (destination.mx if listed else f"other.{destination.domain}",)


def reportURI(network: Network, destination: LabDestination) -> str:
    """
    The URI to which C{destination} wants its reports.
    """
    if destination.byHTTPS:
        path = f"{UPLOAD_PATH}/{destination.domain}"
        return f"https://{UPLOAD_HOST}:{network.httpsPort}{path}"
    return f"mailto:{REPORT_ADDRESS}"


def zonePlans(
    network: Network, destinations: Sequence[LabDestination], publication: Publication
) -> tuple[ZonePlan, ...]:
    """
    Every zone below the top-level domain.
    """
    hosts = {each.name: each for each in mailHosts(network, destinations)}
    plans = [
        _destinationZone(network, each, hosts[each.mx], publication)
        for each in destinations
    ]
    if SHARED_HOST in hosts:
        plans.append(_sharedZone(network, hosts[SHARED_HOST], publication))
    plans.append(_sinkZone(network, hosts[SINK_HOST]))
    plans.append(_senderZone(network, publication))
    return (*plans, *_oddities(network))


def _destinationZone(
    network: Network,
    destination: LabDestination,
    host: MailHost,
    publication: Publication,
) -> ZonePlan:
    domain = f"{destination.domain}."
    records = [
        f"{domain} MX 10 {destination.mx}.",
        _tlsrpt(domain, reportURI(network, destination)),
    ]
    if not destination.sharedHost:
        records.extend(_hostRecords(network, host, publication))
    if destination.sts is not None:
        records.append(f'_mta-sts.{domain} TXT "v=STSv1; id=lab1;"')
        records.append(f"mta-sts.{domain} A {network.webHost}")
    return ZonePlan(
        domain,
        tuple(records),
        signed=destination.signed is not Signed.NO,
        damaged=_DAMAGED.get(destination.signed, ""),
    )


def _hostRecords(
    network: Network, host: MailHost, publication: Publication
) -> Iterable[str]:
    yield f"{host.name}. A {host.address}"
    # RFC 7671 3: records are found by the port that is connected to.  They
    # are at 25 too, for clients that look there whatever port they were told.
    for port in dict.fromkeys((25, network.smtpPort)):
        for each in publication.tlsa.get(host.name, ()):
            yield f"_{port}._tcp.{host.name}. TLSA {each}"


def _tlsrpt(domain: str, uri: str) -> str:
    return f'_smtp._tls.{domain} TXT "v=TLSRPTv1; rua={uri}"'


def _sharedZone(network: Network, host: MailHost, publication: Publication) -> ZonePlan:
    records = (
        *_hostRecords(network, host, publication),
        _tlsrpt(f"{host.name}.", f"mailto:{HOST_REPORT_ADDRESS}"),
    )
    return ZonePlan(f"{SHARED_ZONE}.", records, signed=True)


def _sinkZone(network: Network, host: MailHost) -> ZonePlan:
    records = (
        f"@ MX 10 {host.name}.",
        f"{host.name}. A {host.address}",
        f"{UPLOAD_HOST}. A {network.webHost}",
    )
    return ZonePlan(f"{SINK}.", records, signed=True)


def _senderZone(network: Network, publication: Publication) -> ZonePlan:
    records = [
        f"@ MX 10 {SENDING_HOST}.",
        f"{SENDING_HOST}. A {network.submission}",
        '@ TXT "v=spf1 ip4:127.0.0.0/8 -all"',
        f'_dmarc TXT "v=DMARC1; p=reject; rua=mailto:dmarcreports@{SENDER}"',
        _tlsrpt(f"{SENDER}.", f"mailto:tlsreports@{SENDER}"),
    ]
    for selector, record in publication.dkim.items():
        records.append(f"{selector}._domainkey TXT {characterStrings(record)}")
    return ZonePlan(f"{SENDER}.", tuple(records), signed=True)


def _oddities(network: Network) -> tuple[ZonePlan, ...]:
    """
    Zones without mail, for other DNS conditions.
    """
    host = f"mx A {network.webHost}"
    mx = ("@ MX 10 mx", host)
    aliases = (
        f"secure CNAME mx.{SINK}.",
        f"insecure CNAME mx.open.{TLD}.",
        f"broken CNAME mx.sig-expired.{TLD}.",
        "loop CNAME loop",
        "nowhere CNAME nothing",
    )
    return (
        ZonePlan(f"open.{TLD}.", mx),
        ZonePlan(f"null-mx.{TLD}.", ("@ MX 0 .",), signed=True),
        ZonePlan(f"alias.{TLD}.", aliases, signed=True),
        ZonePlan(f"far-mx.{TLD}.", (f"@ MX 10 mx.open.{TLD}.",), signed=True),
        ZonePlan(
            f"big.{TLD}.", (f"@ TXT {characterStrings('x' * 2000)}", *mx), signed=True
        ),
        ZonePlan(f"sig-expired.{TLD}.", mx, signed=True, fault=Fault.EXPIRED),
        ZonePlan(f"other-key.{TLD}.", mx, signed=True, fault=Fault.OTHER_KEY),
        ZonePlan(f"stripped.{TLD}.", mx, signed=True, fault=Fault.STRIPPED),
    )


def characterStrings(text: str) -> str:
    """
    The contents of a TXT record, split into as many strings as necessary.
    """
    pieces = [
        text[at : at + _MAX_STRING_LENGTH]
        for at in range(0, len(text), _MAX_STRING_LENGTH)
    ]
    return " ".join(f'"{piece}"' for piece in pieces)
