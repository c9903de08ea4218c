"""
Tests for L{moxtls.config}.
"""

from __future__ import annotations

import re
from dataclasses import fields

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls import config
from moxtls.config import Config, InvalidConfig, describe, parse, serverAddress
from moxtls.domain import Domain
from moxtls.reporting.signing import Algorithm

MINIMAL = 'Hostname = "mail.example.org"\n'

# What is wrong with it, and the line that says so.
WRONG = [
    ("x", "not TOML: Expected '=' after a key in a key/value pair"),
    ("", "Hostname: missing, and has no default"),
    ("Hostname = 3", "Hostname = 3: expected a string"),
    ('Hostname = "a b"', 'Hostname = "a b": expected a domain name'),
    ('Hostnme = "a.example"', 'Hostnme = "a.example": unknown key; known here: '),
    (MINIMAL + "Listeners = 3", "Listeners = 3: expected a table"),
    (MINIMAL + "Postmaster = 3", "Postmaster = 3: expected a table"),
    (
        MINIMAL + '[Listeners.a]\nPort = "x"',
        '[Listeners.a] Port = "x": expected an integer',
    ),
    (MINIMAL + "[Listeners.a]\nPort = true", "Port = True: expected an integer"),
    (
        MINIMAL + "[Listeners.a]\nPort = -1",
        "Port = -1: expected an integer from 0 up",
    ),
    (
        MINIMAL + "[Listeners.a]\nPort = 70000",
        "Port = 70000: expected an integer from 0 to 65535",
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 25\nAddress = "mail"',
        '[Listeners.a] Address = "mail": expected an IP address',
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 25\nAddress = "0.0.0.0"',
        'Address = "0.0.0.0": expected a loopback address, or Authentication = true',
    ),
    (
        MINIMAL + "[Listeners.a]\nPort = 25\nAuthentication = true",
        'TLS = "none": expected TLS, as Authentication is on',
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 25\nTLS = "starttls"',
        "[Listeners.a] CertificateFile: expected a file, as TLS is on",
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 25\nTLS = "ssl"',
        'TLS = "ssl": expected one of "none", "starttls", "immediate"',
    ),
    (
        MINIMAL + "[Delivery]\nRetrySchedule = 5",
        "[Delivery] RetrySchedule = 5: expected an array",
    ),
    (
        MINIMAL + '[Delivery]\nRetrySchedule = [1, "x"]',
        '[Delivery] RetrySchedule = "x": expected an integer',
    ),
    (
        MINIMAL + "[Delivery]\nRetrySchedule = []",
        "[Delivery] RetrySchedule = []: expected seconds, each from 1 up",
    ),
    (
        MINIMAL + '[Delivery]\nTransport = "relay"',
        '[Delivery] Transport = "relay": expected one of direct',
    ),
    (
        MINIMAL + '[Delivery.Routes]\n"example.net" = "relay"',
        '[Delivery.Routes] example.net = "relay": expected one of direct',
    ),
    (
        MINIMAL + '[Transports.relay]\nHost = "a b"',
        '[Transports.relay] Host = "a b": expected a domain name or an IP address',
    ),
    (
        MINIMAL + '[Transports.relay]\nHost = "a.example"\nUser = "me"',
        "[Transports.relay] PasswordFile: expected a file, as User is set",
    ),
    (MINIMAL + '[Domains."a b"]', "[Domains] a b = {}: expected a domain name"),
    (
        MINIMAL + '[HostTLSRPT]\nLocalpart = "é"',
        "[HostTLSRPT] Localpart = ",
    ),
    (
        MINIMAL + '[Postmaster]\nMailbox = "../x"',
        '[Postmaster] Mailbox = "../x": expected names of letters',
    ),
    (
        MINIMAL + '[HostTLSRPT]\nMailbox = ""',
        '[HostTLSRPT] Mailbox = "": expected names of letters',
    ),
    (
        MINIMAL + '[Domains."a.example".DKIM.Selectors."a b"]\nKeyFile = "x"',
        "[Domains.a.example.DKIM.Selectors] a b: expected a DNS label as the key",
    ),
    (
        MINIMAL + f"[Delivery]\nRetrySchedule = [1{'0' * 400}]",
        "expected an integer up to 2147483647",
    ),
    ("a = " + "[" * 10_000, "nested too deeply"),
    (
        MINIMAL + '[Resolver]\nServers = ["dns.example"]',
        '[Resolver] Servers = "dns.example": expected an IP address, or [IP]:port',
    ),
    (
        MINIMAL + '[Domains."a.example".DKIM.Selectors.s]\nAlgorithm = "rsa-sha256"',
        "[Domains.a.example.DKIM.Selectors.s] KeyFile: missing",
    ),
]


class ParseTests(SynchronousTestCase):
    """
    Tests for L{parse}.
    """

    def test_minimal(self) -> None:
        """
        A host name is enough, and by default TLS reports are sent.
        """
        parsed = parse(MINIMAL, "moxtls.toml")
        self.assertEqual(parsed, Config(Domain("mail.example.org")))
        self.assertFalse(parsed.noOutgoingTLSReports)
        self.assertEqual(parsed.nodeName, "mail.example.org")

    def test_whole(self) -> None:
        """
        Tables nest as in the file, and domains are compared canonically.
        """
        parsed = parse(
            MINIMAL
            + """
            NoOutgoingTLSReports = true
            [HostTLSRPT]
            [Domains."BÜCHER.example".DKIM.Selectors."2026a"]
            KeyFile = "dkim/2026a.pem"
            Algorithm = "ed25519-sha256"
            [Reporting]
            NotTo = ["Example.NET."]
            """,
            "moxtls.toml",
        )
        self.assertTrue(parsed.noOutgoingTLSReports)
        self.assertEqual(parsed.hostTLSRPT, config.HostTLSRPT())
        [(domain, local)] = parsed.domains.items()
        self.assertEqual(domain.ascii, "xn--bcher-kva.example")
        self.assertEqual(
            local.dkim.selectors["2026a"],
            config.Selector("dkim/2026a.pem", Algorithm.ED25519),
        )
        self.assertEqual(parsed.reporting.notTo, (Domain("example.net"),))

    def test_wrong(self) -> None:
        """
        What is wrong is said in one line that names file, table, key, value
        and what was expected.
        """
        for text, said in WRONG:
            with self.subTest(said):
                error = self.assertRaises(InvalidConfig, parse, text, "moxtls.toml")
                self.assertTrue(str(error).startswith("moxtls.toml: "), str(error))
                self.assertIn(said, str(error))
                self.assertNotIn("\n", str(error))

    def test_longValue(self) -> None:
        """
        A value is quoted on one line, and only its beginning if it is long.
        """
        text = 'Hostname = """' + "a\\n" * 500 + '"""'
        error = self.assertRaises(InvalidConfig, parse, text, "moxtls.toml")
        self.assertLess(len(str(error)), 200)
        self.assertNotIn("\n", str(error))

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(sorted({each.key for each in describe()})),
        st.sampled_from(["3", '"x"', "true", "[]", '["x"]', "{}", "1.5", "1970-01-01"]),
        st.sampled_from(["", "[Delivery]\n", "[Listeners.a]\n", "[Resolver]\n"]),
    )
    def test_anything(self, key: str, value: str, table: str) -> None:
        """
        Whatever a key is set to, it is taken or refused with a clear error.
        """
        try:
            parse(f"{MINIMAL}{table}{key} = {value}", "moxtls.toml")
        except InvalidConfig as error:
            self.assertRegex(str(error), r"^moxtls\.toml: ")


class DescribeTests(SynchronousTestCase):
    """
    Tests for L{describe}.
    """

    def test_complete(self) -> None:
        """
        Every key of every class is described, with a meaning.
        """
        described = {each.key for each in describe()}
        for each in (config.Listener, config.Selector, config.Delivery):
            keys = {one.metadata["key"] for one in fields(each)}
            self.assertEqual(keys - described, set())
        self.assertTrue(all(re.search(r"\w", each.meaning) for each in describe()))

    def test_tables(self) -> None:
        """
        Each table comes before its keys, with what it is for, in the order of
        the classes.
        """
        tables = [each.table for each in describe() if not each.key]
        self.assertEqual(tables[:3], ["Resolver", "Postmaster", "HostTLSRPT"])
        last = ""
        for each in describe():
            self.assertTrue(each.table == last or not each.key, each)
            last = each.table

    def test_defaults(self) -> None:
        """
        Defaults are printed as they would be written.
        """
        [hostname] = [each for each in describe() if each.key == "Hostname"]
        self.assertEqual((hostname.type, hostname.default), ("domain", "required"))
        [families] = [each for each in describe() if each.key == "Families"]
        self.assertEqual(families.default, '"both"')
        self.assertEqual(families.table, "Delivery")

    def test_unambiguous(self) -> None:
        """
        A field is called the same in all classes that have one of that key.
        """
        names: dict[str, str] = {}
        for table in config.TABLES:
            for each in fields(table):
                key = each.metadata["key"]
                self.assertEqual(names.setdefault(each.name, key), key)


class ServerAddressTests(SynchronousTestCase):
    """
    Tests for L{serverAddress}.
    """

    def test_forms(self) -> None:
        """
        IPv4 and IPv6, with and without a port; nothing else.
        """
        for text, address in [
            ("127.0.0.1", ("127.0.0.1", 53)),
            ("127.0.0.1:5353", ("127.0.0.1", 5353)),
            ("::1", ("::1", 53)),
            ("[::1]:5353", ("::1", 5353)),
            ("localhost", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:x", None),
            ("[::1]", None),
        ]:
            self.assertEqual(serverAddress(text), address, text)
