# -*- test-case-name: tests.lab.test_network -*-
"""
Where in 127.0.0.0/8 each part of the lab is, and on which ports.  No I/O.

All of 127.0.0.0/8 is this host on Linux, so every server gets an address of
its own, and only unprivileged ports are used.

What has arrived in the lab: mail and reports, in memory and as files.
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
        Where moxtls itself takes mail.
        """
        return self.address(250)

    @property
    def webHost(self) -> str:
        """
        Where policies are served, and reports taken by HTTPS.
        """
        return self.address(252)

    @property
    def authority(self) -> str:
        """
        Where the zones are served.
        """
        return self.address(253)

    @property
    def resolver(self) -> str:
        """
        Where a recursive, validating resolver is.
        """
        return self.address(254)


def anyNetwork(choose: Callable[[int, int], int]) -> Network:
    """
    A network apart from others', so that labs can run side by side.

    @param choose: A number between two, both included.
    """
    second = choose(_LOWEST, _HIGHEST)
    third = choose(_LOWEST, _HIGHEST)
    return Network(prefix=f"127.{second}.{third}")


@dataclass(frozen=True, slots=True)
class Arrival:
    """
    @ivar recipient: An address, or the URI that was posted to.
    @ivar sender: The envelope sender; the client's address if it was posted.
    @ivar place: The host that took it.
    @ivar tls: Version and cipher suite; empty if it came without TLS.
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
    Keeps what arrives, in its order.

    @param directory: For each recipient domain there will be a folder in it.
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
        What came for addresses in C{domain}.
        """
        return tuple(each for each in self._all if _domain(each.recipient) == domain)

    def add(self, arrival: Arrival, suffix: str = "eml") -> None:
        """
        Keep one more.
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
        @return: Fires once C{enough}; cancelling gives up on it.
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
    The name of a folder, whatever a client called the recipient.
    """
    domain = recipient.partition("://")[2].partition("/")[0] or _domain(recipient)
    name = "".join(each for each in domain if each.isalnum() or each in "-.")
    return name.strip(".") or "unnamed"
