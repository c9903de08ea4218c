"""
Tests for L{moxtls.doors}.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from moxtls.doors import Door


class DoorTests(SynchronousTestCase):
    """
    Tests for L{Door} before it is opened; what comes then is shown by
    L{tests.test_server}.
    """

    def test_taken(self) -> None:
        """
        A port is taken as soon as there is a door; a second one is refused.
        """
        door = Door("127.0.0.1", 0)
        self.assertRaises(OSError, Door, "127.0.0.1", door.port)
        self.successResultOf(door.close())
        self.successResultOf(Door("127.0.0.1", door.port).close())

    def test_waiting(self) -> None:
        """
        Clients that come early wait.
        """
        for address in ("127.0.0.1", "::1"):
            try:
                door = Door(address, 0)
            except OSError:
                continue  # a machine without IPv6
            with socket.create_connection((address, door.port), 5):
                self.successResultOf(door.close())

    def test_elsewhere(self) -> None:
        """
        An address that isn't this host's can't be had.
        """
        self.assertRaises(OSError, Door, "192.0.2.1", 0)
