"""
Commands that use the network: DNS servers and others on loopback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from moxtls.app.build import IReactor
from moxtls.dns.types import RRType
from moxtls.ledger.ledger import Ledger
from tests import MAX_WAIT
from tests.cli.commands import CONFIG, Ran, performing
from tests.dns.server import SOA, LoopbackServer
from tests.queue.killing import quickDirectory

reactor: Any = globalReactor


class NetworkCommandCase(TestCase):
    """
    Commands with a configuration that names the DNS server C{self.dns}.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.folder: Path = quickDirectory(self)
        # As the server makes it; a command of root's doesn't.
        (self.folder / "data").mkdir(mode=0o700)
        self.file = self.folder / "moxtls.toml"
        self.dns = LoopbackServer(reactor, reactor, "127.0.0.1")
        self.addCleanup(self.dns.stop)
        for kind, text in ((RRType.SOA, SOA), (RRType.NS, "ns.example.")):
            self.dns.zone.put("", kind, text, ad=True)
        self.configure()

    def configure(self, more: str = "") -> None:
        """
        Write the configuration.

        @param more: Added to the usual one.
        """
        self.file.write_text(
            f'{CONFIG}[Resolver]\nServers = ["{self.dns.address}"]\n{more}'
        )

    def run_(self, *words: str, tty: bool = False) -> Deferred[Ran]:
        """
        Run a command to its end.
        """
        every: IReactor = reactor
        return performing(every, self.file, words, b"", tty)

    def ledger(self) -> Ledger:
        """
        The configured ledger, to be closed.
        """
        return Ledger(None, f"sqlite:///{self.folder}/data/ledger.sqlite")
