# -*- test-case-name: tests.lab.test_network -*-
"""
Addresses and ports of the lab in 127.0.0.0/8, and the mail and reports that arrive.

All of 127.0.0.0/8 is local on Linux, so every server gets an address of its own, with
unprivileged ports only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred, succeed

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
class Arrival:
    """
    A message or report that arrived.

    @ivar recipient: An address, or the URI that was posted to.
    @ivar sender: The envelope sender; the client's address if it was posted.
    @ivar place: The host that accepted it.
    @ivar tls: Version and cipher suite; empty without TLS.
    @ivar contentType: If it was posted.
    """

    recipient: str
    sender: str
    place: str
    tls: str
    content: bytes
    contentType: str = ""


class Arrivals:
    """
    All arrivals, in their order.

    @param directory: Gets a folder for each recipient domain.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._all: list[Arrival] = []
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    @property
    def all(self) -> tuple[Arrival, ...]:
        return tuple(self._all)

    def at(self, domain: str) -> tuple[Arrival, ...]:
        """
        The arrivals for addresses in C{domain}.
        """
        return tuple(each for each in self._all if _domain(each.recipient) == domain)

    def add(self, arrival: Arrival, suffix: str = "eml") -> None:
        """
        Add an arrival.
        """
        self._all.append(arrival)
        folder = self._directory / _folder(arrival.recipient)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{len(self._all):04}.{suffix}"
        path.write_bytes(arrival.content)
        for entry in tuple(self._waiting):
            enough, waiting = entry
            if enough():
                self._waiting.remove(entry)
                waiting.callback(None)

    def until(self, enough: Callable[[], bool]) -> Deferred[None]:
        """
        @return: Fires once C{enough} is true; can be cancelled.
        """
        if enough():
            return succeed(None)

        def forget(cancelled: Deferred[None]) -> None:
            self._waiting.remove((enough, cancelled))

        waiting: Deferred[None] = Deferred(forget)
        self._waiting.append((enough, waiting))
        return waiting


def _domain(recipient: str) -> str:
    return recipient.rpartition("@")[2].lower()


def _folder(recipient: str) -> str:
    """
    A safe folder name for a recipient.
    """
    domain = recipient.partition("://")[2].partition("/")[0] or _domain(recipient)
    name = "".join(each for each in domain if each.isalnum() or each in "-.")
    return name.strip(".") or "unnamed"
