"""
Tests for L{moxtls.app.ports}.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from dataclasses import replace
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.ports import (
    FILES,
    BoundPort,
    ListenerPorts,
    PortUnavailable,
    raiseFileLimit,
)
from moxtls.smtp.server.factory import ListenerSettings, SMTPServerFactory
from moxtls.smtp.server.state import ServerSettings
from moxtls.tls.server import ReloadingContext
from tests.network import AcceptingDelivery
from tests.smtp.pem import writeCertificate


class RaiseFileLimitTests(SynchronousTestCase):
    """
    Tests for L{raiseFileLimit}.
    """

    def test_limits(self) -> None:
        """
        There may be as many as are of use, or as the system allows; never fewer
        than before.
        """
        infinite = resource.RLIM_INFINITY
        for before, expected in (
            ((1024, 4096), [(4096, 4096)]),
            ((1024, 10**6), [(FILES, 10**6)]),
            ((1024, infinite), [(FILES, infinite)]),
            ((10**6, 10**6), []),
            ((infinite, infinite), []),
            ((512, 512), []),
        ):
            made: list[tuple[int, int]] = []
            self.patch(resource, "getrlimit", lambda which, has=before: has)
            self.patch(
                resource, "setrlimit", lambda which, to, made=made: made.append(to)
            )
            raiseFileLimit()
            self.assertEqual(made, expected)

    def test_forbidden(self) -> None:
        """
        If the limit can't be raised, the start goes on.
        """

        def forbidden(which: int, to: tuple[int, int]) -> None:
            raise ValueError("not allowed")

        self.patch(resource, "getrlimit", lambda which: (1, 2))
        self.patch(resource, "setrlimit", forbidden)
        raiseFileLimit()


class BoundPortTests(SynchronousTestCase):
    """
    Tests for L{BoundPort} before it is opened; L{tests.app.test_service} tests the
    rest.
    """

    def test_taken(self) -> None:
        """
        A port is bound once there is a L{BoundPort}; a second one is refused.
        """
        port = BoundPort("127.0.0.1", 0)
        self.assertRaises(OSError, BoundPort, "127.0.0.1", port.port)
        self.successResultOf(port.close())
        self.successResultOf(BoundPort("127.0.0.1", port.port).close())

    def test_waiting(self) -> None:
        """
        Clients that come early wait.
        """
        for address in ("127.0.0.1", "::1"):
            try:
                port = BoundPort(address, 0)
            except OSError:
                continue  # a machine without IPv6
            with socket.create_connection((address, port.port), 5):
                self.successResultOf(port.close())

    def test_elsewhere(self) -> None:
        """
        An address that isn't this host's can't be had.
        """
        self.assertRaises(OSError, BoundPort, "192.0.2.1", 0)

    def test_families(self) -> None:
        """
        IPv4 and IPv6 listen on the same port number, and IPv6 accepts no IPv4 clients
        (RFC 3493 5.3), which would look like C{::ffff:127.0.0.1}.
        """
        first, second = BoundPort("0.0.0.0", 0), None
        try:
            second = BoundPort("::", first.port)
            with socket.create_connection(("::1", first.port), 5):
                pass
            self.successResultOf(first.close())
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", first.port), 5)
        finally:
            first.close()
            if second is not None:
                second.close()

    def test_mapped(self) -> None:
        """
        A mapped address is the IPv4 address.
        """
        port = BoundPort("::ffff:127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", port.port), 5):
            self.successResultOf(port.close())

    def test_turnedAway(self) -> None:
        """
        With immediate TLS (RFC 8314 3.3), a connection that the listener refuses is
        closed.
        """
        reactor = MemoryReactorClock()
        certFile, keyFile = writeCertificate(Path(self.mktemp()), "mx.example")
        factory = SMTPServerFactory(
            reactor,
            ListenerSettings(
                ServerSettings("mx.example"), immediateTLS=True, maxConnections=0
            ),
            AcceptingDelivery(),
            ReloadingContext(certFile, keyFile),
        )
        BoundPort("127.0.0.1", 0).open(reactor, factory)
        ((_, _, speaking),) = reactor.adoptedPorts
        self.assertIsInstance(speaking, TLSMemoryBIOFactory)
        client = IPv4Address("TCP", "192.0.2.1", 1)
        self.assertIsNone(speaking.buildProtocol(client))
        factory.settings = replace(factory.settings, maxConnections=1)
        self.assertIsNotNone(speaking.buildProtocol(client))


class ListenerPortsTests(SynchronousTestCase):
    """
    Tests for L{ListenerPorts}.
    """

    def without(self, number: int) -> None:
        """
        Make IPv6 sockets fail.
        """
        original = socket.socket

        def made(family: int, kind: int) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            return original(family, kind)

        self.patch(socket, "socket", made)

    def test_sameNumber(self) -> None:
        """
        There is one port, at each address.
        """
        ports = ListenerPorts(["127.0.0.1", "::1"], 0)
        self.assertEqual(ports.missing, ())
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, ports.port), 5):
                pass
        self.successResultOf(ports.close())

    def test_noFamily(self) -> None:
        """
        On a host without IPv6 the IPv4 addresses are listened on; not so where
        there are no others.
        """
        for number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            self.without(number)
            ports = ListenerPorts(["::", "127.0.0.1"], 0)
            self.assertEqual(ports.missing, ("::",))
            self.successResultOf(ports.close())
            error = self.assertRaises(PortUnavailable, ListenerPorts, ["::"], 0)
            self.assertEqual((error.address, error.error.errno), ("::", number))

    def test_misspelled(self) -> None:
        """
        An address of another host is refused, and the ports bound before are
        released.
        """
        port = BoundPort("127.0.0.1", 0)
        port.close()
        addresses = ["127.0.0.1", "192.0.2.1"]
        error = self.assertRaises(PortUnavailable, ListenerPorts, addresses, port.port)
        self.assertEqual(error.address, "192.0.2.1")
        self.successResultOf(BoundPort("127.0.0.1", port.port).close())
