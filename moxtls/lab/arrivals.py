# -*- test-case-name: tests.lab.test_arrivals -*-
"""
What has arrived in the lab: mail and reports, in memory and as files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred, succeed


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
