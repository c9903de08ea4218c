"""
Tests for L{moxtls.dns.resolvconf}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.resolvconf import (
    DEFAULT_SERVERS,
    MAX_SERVERS,
    systemNameServers,
)
from moxtls.dns.types import NameServer

TYPICAL = """\
# made by hand
; really
search example.com
nameserver 127.0.0.1
nameserver\t2001:DB8::1   # the other one
options edns0 timeout:1
"""


class SystemNameServersTests(SynchronousTestCase):
    """
    Tests for L{systemNameServers}.
    """

    def test_typical(self) -> None:
        """
        Servers are queried in their order in the file (resolv.conf(5)).
        """
        self.assertEqual(
            systemNameServers(TYPICAL),
            (NameServer("127.0.0.1"), NameServer("2001:db8::1")),
        )

    def test_nothing(self) -> None:
        """
        Without a server, this host is queried.
        """
        for text in ("", "search example.com\n", "nameserver\n", "nameserver x\n"):
            self.assertEqual(systemNameServers(text), DEFAULT_SERVERS)

    def test_trusted(self) -> None:
        """
        C{trust-ad} is about all servers, wherever it stands.
        """
        text = "options edns0 trust-ad\nnameserver 192.0.2.1\n"
        self.assertEqual(
            systemNameServers(text), (NameServer("192.0.2.1", trusted=True),)
        )

    def test_passedOver(self) -> None:
        """
        Invalid and repeated addresses, and those with an interface, are skipped.
        """
        text = (
            "nameserver fe80::1%eth0\nnameserver 192.0.2.300\nNAMESERVER 192.0.2.9\n"
            "nameserver 192.0.2.1\nnameserver 192.0.2.1\n"
        )
        self.assertEqual(systemNameServers(text), (NameServer("192.0.2.1"),))

    def test_bounded(self) -> None:
        """
        At most three servers are used, as in the C library.
        """
        text = "".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 9))
        self.assertEqual(len(systemNameServers(text)), MAX_SERVERS)

    @settings(max_examples=100, deadline=None)
    @given(
        st.text() | st.lists(st.sampled_from([*TYPICAL.split(), "\n"])).map(" ".join)
    )
    def test_any(self, text: str) -> None:
        """
        Any text yields at least one server.
        """
        self.assertGreaterEqual(len(systemNameServers(text)), 1)


class ServerTests(SynchronousTestCase):
    """
    Tests for L{NameServer}.
    """

    def test_trusted(self) -> None:
        """
        The path to a trusted server has to be secure (RFC 6840 5.8): on the same host
        it is, elsewhere it has to be configured.
        """
        for server, trustsAD in (
            (NameServer("127.0.0.53"), True),
            (NameServer("::1"), True),
            (NameServer("192.0.2.1"), False),
            (NameServer("2001:db8::1"), False),
            (NameServer("192.0.2.1", trusted=True), True),
        ):
            self.assertEqual(server.trustsAD, trustsAD, server)

    def test_str(self) -> None:
        """
        The port is named if it isn't the usual one.
        """
        self.assertEqual(
            [
                str(NameServer("::1")),
                str(NameServer("::1", 54)),
                str(NameServer("127.0.0.1", 54)),
            ],
            ["::1", "[::1]:54", "127.0.0.1:54"],
        )
