# -*- test-case-name: tests.app.test_ports -*-
"""
Ports that are taken before anybody is let in.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorSocket
from twisted.protocols.tls import TLSMemoryBIOFactory

from moxtls.ipaddresses import parseIP
from moxtls.smtp.server.factory import SMTPServerFactory

#: Clients that wait while the server starts, or is busy.
BACKLOG = 128
#: Files that may be open, if the system lets us: each connection needs one, and
#: another one for a large message.  Where there were only the usual 1024, clients
#: could have none left to look up with whose mail it is.
FILES = 65536


def raiseFileLimit() -> None:
    """
    Have as many open as may be needed.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if resource.RLIM_INFINITY != now < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class PortUnavailable(Exception):
    """
    A port can't be had.

    @ivar address: At which.
    @ivar error: Why.
    """

    def __init__(self, address: str, error: OSError) -> None:
        super().__init__(address, error)
        self.address = address
        self.error = error


class BoundPort:
    """
    A port on which clients wait until they are let in.

    Two steps, because ports below 1024 are had only before privileges are
    given up, and stores are to be opened only afterwards.
    """

    def __init__(self, address: str, port: int) -> None:
        """
        @raise OSError: The port can't be had.
        """
        ip = parseIP(address)
        isIPv6 = ip is not None and ip.version == 6
        self._family = socket.AF_INET6 if isIPv6 else socket.AF_INET
        host = address if isIPv6 or ip is None else str(ip)
        self._factory: SMTPServerFactory | None = None
        self._port: IListeningPort | None = None
        self._socket = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            # Connections of an earlier process that linger don't matter.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if isIPv6:
                # Else it would take the IPv4 port of the same number too, and IPv4
                # clients would come in disguise (RFC 3493 5.3).
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((host, port))
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        #: Of interest where 0 was asked for, which means any.
        self.port: int = self._socket.getsockname()[1]

    def open(self, reactor: IReactorSocket, factory: SMTPServerFactory) -> None:
        """
        Let everybody in.
        """
        self._factory = factory
        self._port = reactor.adoptStreamPort(
            self._socket.fileno(), self._family, _speaking(factory)
        )
        # The reactor has made itself a copy.
        self._socket.close()

    def close(self) -> Deferred[None]:
        """
        Fires once nobody is in any more.
        """
        if self._factory is None:
            self._socket.close()
            return succeed(None)
        return Deferred.fromCoroutine(self._close(self._factory))

    async def _close(self, factory: SMTPServerFactory) -> None:
        if self._port is not None:
            stopped = self._port.stopListening()
            if stopped is not None:
                await stopped
        await factory.stop()


class ListenerPorts:
    """
    The ports of one listener: of the same number, at each of its addresses.

    @ivar missing: The addresses at which it doesn't listen, as this host has none
        of their family.
    """

    def __init__(self, addresses: Sequence[str], port: int) -> None:
        """
        @raise PortUnavailable: One of them can't be had, or none of them.
        """
        self._doors: list[BoundPort] = []
        missing: list[tuple[str, OSError]] = []
        for address in addresses:
            try:
                self._doors.append(
                    BoundPort(address, self.port if self._doors else port)
                )
            except OSError as error:
                if not _hasNoFamily(address, error):
                    self._giveBack()
                    raise PortUnavailable(address, error) from None
                missing.append((address, error))
        if not self._doors:
            raise PortUnavailable(*missing[0])
        self.missing = tuple(address for address, _ in missing)

    @property
    def port(self) -> int:
        """
        Of interest where 0 was asked for, which means any.
        """
        return self._doors[0].port

    def open(self, reactor: IReactorSocket, factory: SMTPServerFactory) -> None:
        """
        Let everybody in.
        """
        for door in self._doors:
            door.open(reactor, factory)

    def close(self) -> Deferred[None]:
        """
        Fires once nobody is in any more.
        """
        closed = gatherResults([door.close() for door in self._doors])
        return closed.addCallback(lambda results: None)

    def _giveBack(self) -> None:
        for door in self._doors:
            door.close()


def _hasNoFamily(address: str, error: OSError) -> bool:
    """
    Whether the system has no address of that family at all.
    """
    if error.errno == errno.EAFNOSUPPORT:
        return True
    # Where IPv6 was only switched off, there is not even the address that every
    # host has.
    ip = parseIP(address)
    isEverywhere = ip is not None and (ip.is_unspecified or ip.is_loopback)
    return isEverywhere and error.errno == errno.EADDRNOTAVAIL


class _TLSFactory(TLSMemoryBIOFactory):
    """
    Turns away whom the factory within turns away.  The one that this is made
    from keeps such connections, with nobody to end them.
    """

    def buildProtocol(self, addr: IAddress | None) -> Any:
        inner = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)


def _speaking(factory: SMTPServerFactory) -> Any:
    """
    @return: A factory; Twisted's annotations don't let one that is wrapped
        in TLS be for servers.
    """
    if not factory.settings.immediateTLS or factory.tls is None:
        return factory
    return _TLSFactory(factory.tls, False, factory, clock=factory.clock)
