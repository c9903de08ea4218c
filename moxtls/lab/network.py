# -*- test-case-name: tests.lab.test_network -*-
"""
Where in 127.0.0.0/8 each part of the lab is, and on which ports.  No I/O.

All of 127.0.0.0/8 is this host on Linux, so every server gets an address of
its own, and only unprivileged ports are used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
