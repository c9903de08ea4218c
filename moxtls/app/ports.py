# -*- test-case-name: tests.app.test_ports -*-
"""
Listening ports that are bound before connections are accepted.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IReactorSocket,
    IReactorTime,
)
from twisted.protocols.tls import TLSMemoryBIOFactory

from moxtls.ipaddresses import parseIP

#: The length of the backlog: clients that wait while the server starts or is busy.
BACKLOG = 128
#: The maximum number of open files to request: each connection needs one, and another
#: one for a large message. With the usual 1024, clients could use up those needed for
#: DNS lookups.
FILES = 65536


def raiseFileLimit() -> None:
    """
    Raise the limit of open files to the maximum that may be needed.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if resource.RLIM_INFINITY != now < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class PortUnavailable(Exception):
    """
    A port can't be bound.

    @ivar address: The address.
    @ivar error: The error of the system.
    """

    def __init__(self, address: str, error: OSError) -> None:
        super().__init__(address, error)
        self.address = address
        self.error = error


class IListenerFactory(Protocol):
    """
    A factory for the connections of a listener.

    @ivar tls: The certificates, if it uses TLS.
    """

    clock: IReactorTime
    tls: IOpenSSLServerConnectionCreator | None

    @property
    def hasImmediateTLS(self) -> bool:
        """
        Whether connections use TLS from the beginning.
        """

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None: ...

    def stop(self) -> Deferred[None]:
        """
        Fires when all connections are closed.
        """


class BoundPort:
    """
    A bound port whose connections wait in the backlog until L{open} is called.

    There are two steps because ports below 1024 can be bound only before privileges
    are dropped, and stores must be opened only afterwards.
    """

    def __init__(self, address: str, port: int) -> None:
        """
        @raise OSError: The port can't be bound.
        """
        ip = parseIP(address)
        isIPv6 = ip is not None and ip.version == 6
        self._family = socket.AF_INET6 if isIPv6 else socket.AF_INET
        host = address if isIPv6 or ip is None else str(ip)
        self._factory: IListenerFactory | None = None
        self._port: IListeningPort | None = None
        self._socket = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            # Ignore lingering connections of an earlier process.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if isIPv6:
                # Otherwise it would also bind the IPv4 port of the same number, and
                # IPv4 clients would appear with mapped addresses (RFC 3493 5.3).
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((host, port))
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        #: The port number; it differs from the requested one only if that is 0.
        self.port: int = self._socket.getsockname()[1]

    def open(self, reactor: IReactorSocket, factory: IListenerFactory) -> None:
        """
        Start to accept connections.
        """
        self._factory = factory
        self._port = reactor.adoptStreamPort(
            self._socket.fileno(), self._family, _speaking(factory)
        )
        # The reactor has duplicated the file descriptor.
        self._socket.close()

    def close(self) -> Deferred[None]:
        """
        Stop to listen; fires when all connections have ended.
        """
        if self._factory is None:
            self._socket.close()
            return succeed(None)
        return Deferred.fromCoroutine(self._close(self._factory))

    async def _close(self, factory: IListenerFactory) -> None:
        if self._port is not None:
            stopped = self._port.stopListening()
            if stopped is not None:
                await stopped
        await factory.stop()


class ListenerPorts:
    """
    The ports of one listener: the same number, at each of its addresses.

    @ivar missing: The addresses that are not bound, because this host has no address
        of their family.
    """

    def __init__(self, addresses: Sequence[str], port: int) -> None:
        """
        @raise PortUnavailable: One of them can't be bound, or none of them.
        """
        self._ports: list[BoundPort] = []
        missing: list[tuple[str, OSError]] = []
        for address in addresses:
            try:
                self._ports.append(
                    BoundPort(address, self.port if self._ports else port)
                )
            except OSError as error:
                if not _hasNoFamily(address, error):
                    self._giveBack()
                    raise PortUnavailable(address, error) from None
                missing.append((address, error))
        if not self._ports:
            raise PortUnavailable(*missing[0])
        self.missing = tuple(address for address, _ in missing)

    @property
    def port(self) -> int:
        """
        The port number; it differs from the configured one only if that is 0.
        """
        return self._ports[0].port

    def open(self, reactor: IReactorSocket, factory: IListenerFactory) -> None:
        """
        Start to accept connections.
        """
        for port in self._ports:
            port.open(reactor, factory)

    def close(self) -> Deferred[None]:
        """
        Stop to listen; fires when all connections have ended.
        """
        closed = gatherResults([port.close() for port in self._ports])
        return closed.addCallback(lambda results: None)

    def _giveBack(self) -> None:
        for port in self._ports:
            port.close()


def _hasNoFamily(address: str, error: OSError) -> bool:
    """
    True if the system has no address of that family at all.
    """
    if error.errno == errno.EAFNOSUPPORT:
        return True
    # Where IPv6 is switched off, even the loopback address is missing.
    ip = parseIP(address)
    isEverywhere = ip is not None and (ip.is_unspecified or ip.is_loopback)
    return isEverywhere and error.errno == errno.EADDRNOTAVAIL


class _TLSFactory(TLSMemoryBIOFactory):
    """
    A TLS factory that closes a connection if the wrapped factory refuses it.
    Twisted's keeps such connections open, without a protocol to close them.
    """

    def buildProtocol(self, addr: IAddress | None) -> Any:
        inner = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)


def _speaking(factory: IListenerFactory) -> Any:
    """
    Wrap a factory in TLS if the listener uses immediate TLS.

    @return: C{Any}, because Twisted's annotations don't allow a wrapped factory for
        servers.
    """
    if not factory.hasImmediateTLS or factory.tls is None:
        return factory
    inner: Any = factory
    return _TLSFactory(factory.tls, False, inner, clock=factory.clock)
