# -*- test-case-name: tests.lab.test_policyhost -*-
"""
TLS for the lab's servers.
"""

from __future__ import annotations

from collections.abc import Mapping

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from moxtls.lab.certificates import Identity


@implementer(IOpenSSLServerConnectionCreator)
class Presenting:
    """
    Presents one identity, or another to clients that ask for it by name (RFC
    6066 3).
    """

    def __init__(
        self, identity: Identity, byName: Mapping[str, Identity] | None = None
    ) -> None:
        self._context = identity.context()
        others = (byName or {}).items()
        self._byName = {name.encode(): other.context() for name, other in others}
        self._context.set_tlsext_servername_callback(self._choose)

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        Begin one handshake.
        """
        return SSL.Connection(self._context, None)

    def _choose(self, connection: SSL.Connection) -> None:
        other = self._byName.get((connection.get_servername() or b"").lower())
        if other is not None:
            connection.set_context(other)
