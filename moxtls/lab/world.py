# -*- test-case-name: tests.lab.test_runner -*-
"""
The whole lab: all its servers, started and stopped together.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime

from moxtls.lab.clock import REPORT_WINDOW
from moxtls.lab.control import SOCKET
from moxtls.lab.expectations import Facts
from moxtls.lab.hosts import DNSServer, MailDestination, WebHost
from moxtls.lab.keys import makeKeys, makeSenderKeys, publishedKeys
from moxtls.lab.messages import ANNA, OTTO, REJECTS
from moxtls.lab.network import Arrivals, Network
from moxtls.lab.plan import mailHosts, zonePlans
from moxtls.lab.scenario import DESTINATIONS, SENDER, SENDING_HOST, LabDestination
from moxtls.lab.senders import KNOWN_LIST, senderPlans
from moxtls.lab.validator import Validator
from moxtls.lab.zones import Authority, makeTree

CA_FILE = "ca.pem"
ANCHOR_FILE = "root.ds"
CONFIG_FILE = "moxtls.toml"
ARRIVED, DATA, ZONES = "arrived", "data", "zones"


class Lab(MultiService):
    """
    A simulated internet.

    @ivar arrivals: The mail and the reports that arrived.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        directory: Path,
        network: Network,
        destinations: tuple[LabDestination, ...] = DESTINATIONS,
    ) -> None:
        """
        @param reactor: Also provides C{IReactorTCP} and C{IReactorUDP}.
        @param directory: Files are written there, replacing those of an earlier lab.
        """
        super().__init__()
        self.directory = directory
        self.network = network
        self.destinations = destinations
        now = reactor.seconds()
        self.hosts = mailHosts(network, destinations)
        self.keys = makeKeys(self.hosts, now)
        self.senderKeys = makeSenderKeys()
        self.tree = makeTree(
            (
                *zonePlans(network, destinations, self.keys.publication),
                *senderPlans(network, publishedKeys(self.senderKeys)),
            ),
            network.authority,
            now,
        )
        self.arrivals = Arrivals(directory / ARRIVED)
        self.authority = Authority(self.tree.zones)
        self.validator = Validator(
            self.authority.respond, self.tree.anchor, reactor.seconds
        )
        self._populate(reactor)

    @property
    def facts(self) -> Facts:
        """
        Values of this lab that occur in reports.
        """
        return Facts(self.network, self.destinations, self.keys.publication.tlsa)

    @property
    def configFile(self) -> Path:
        """
        The configuration of the moxtls in this lab.
        """
        return self.directory / CONFIG_FILE

    @property
    def accounts(self) -> Path:
        """
        The folder of its mailboxes.
        """
        return self.directory / DATA / "accounts"

    def startService(self) -> None:
        """
        Listen on all addresses, and write the files.

        @raise CannotListenError: An address is in use.
        """
        # In this order: what is there may belong to a lab that still runs.
        super().startService()
        self._clear()
        self._write()

    def _populate(self, reactor: IReactorTime) -> None:
        network = self.network
        for place, face in (
            (network.authority, self.authority),
            (network.resolver, self.validator),
        ):
            self.addService(DNSServer(reactor, place, network.dnsPort, face))
        self.addService(
            WebHost(
                reactor,
                (network.webHost, network.httpsPort),
                self.destinations,
                self.keys.ca,
                self.arrivals,
            )
        )
        for host in self.hosts:
            identity = self.keys.identities[host.name]
            self.addService(
                MailDestination(
                    reactor, host, network.smtpPort, identity, self.arrivals
                )
            )

    def _clear(self) -> None:
        for name in (ARRIVED, DATA, ZONES):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        (self.directory / SOCKET).unlink(missing_ok=True)

    def _write(self) -> None:
        zones = self.directory / ZONES
        zones.mkdir(parents=True, exist_ok=True)
        for zone in self.tree.zones:
            name = str(zone.origin).rstrip(".") or "root"
            zone.to_file(str(zones / f"{name}.zone"), sorted=True, relativize=False)
        ca = self.keys.ca.identity.certificatePEM()
        (self.directory / CA_FILE).write_bytes(ca)
        (self.directory / ANCHOR_FILE).write_text(self.tree.anchorText)
        for key in self.keys.dkim:
            path = self.directory / f"{key.selector}.pem"
            path.touch(mode=0o600)
            path.write_bytes(key.pem)
        self.configFile.write_text(configText(self))


def configText(lab: Lab) -> str:
    """
    The configuration of the moxtls in C{lab}.
    """
    network = lab.network
    lines = [
        f'Hostname = "{SENDING_HOST}"',
        f'DataDirectory = "{DATA}"',
        f'CAFile = "{CA_FILE}"',
        "OutgoingTLSReportsForAllSuccess = true",
        "",
        "[Resolver]",
        f"Servers = {json.dumps([f'{network.resolver}:{network.dnsPort}'])}",
        "",
        "[Listeners.submission]",
        f'Address = "{network.submission}"',
        f"Port = {network.submissionPort}",
        "",
        "[Listeners.reception]",
        f'Address = "{network.submission}"',
        f"Port = {network.smtpPort}",
        'Service = "reception"',
        "",
        "[Delivery]",
        f"Port = {network.smtpPort}",
        f"HTTPSPort = {network.httpsPort}",
        "AllowOwnHosts = true",
        "",
        "[Reporting]",
        f"Window = {REPORT_WINDOW}",
        "",
        f'[Accounts.{ANNA}.Destinations."{ANNA}@{SENDER}"]',
        "",
        f"[Accounts.{OTTO}]",
        f'RejectsMailbox = "{REJECTS}"',
        "",
        f'[Accounts.{OTTO}.Destinations."{OTTO}@{SENDER}"]',
        "",
        "[DMARC]",
        f'MailingLists = ["{KNOWN_LIST}"]',
    ]
    for key in lab.keys.dkim:
        lines += [
            "",
            f'[Domains."{SENDER}".DKIM.Selectors.{key.selector}]',
            f'KeyFile = "{key.selector}.pem"',
            f'Algorithm = "{key.algorithm}"',
        ]
    return "\n".join([*lines, ""])
