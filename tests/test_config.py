"""
Tests for L{moxtls.config}.
"""

from __future__ import annotations

import re
from dataclasses import fields
from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls import config
from moxtls.authentication.dkim.sign import Algorithm
from moxtls.config import (
    Config,
    InvalidConfig,
    describe,
    parse,
    remarks,
    serverAddress,
)
from moxtls.dmarc.types import DMARCPolicy
from moxtls.domain import Domain

MINIMAL = 'Hostname = "mail.example.org"\n'

# Faults, and the line about each.
WRONG = [
    ("x", "not TOML: Expected '=' after a key in a key/value pair"),
    ("", "Hostname: missing, and has no default"),
    ("Hostname = 3", "Hostname = 3: expected a string"),
    (
        MINIMAL + 'DataDirectory = "a\\u0000b"',
        'DataDirectory = "a\\x00b": expected text without NUL',
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 25\nAddress = ["::1", "a\\u0000b"]',
        "expected text without NUL",
    ),
    ('Hostname = "a b"', 'Hostname = "a b": expected a domain name'),
    ('Hostname = "a_b.example"', "expected a domain name without underscores"),
    (MINIMAL + '[Domains."a_b.example"]', "expected a domain name without underscores"),
    (
        'Hostnme = "a.example"',
        'Hostnme = "a.example": unknown key; Hostname is probably meant; known here: ',
    ),
    (MINIMAL + "Sparkle = 1", "Sparkle = 1: unknown key; known here: Accounts, "),
    ('Hostname = "192.0.2.1"', "expected a domain name, not an IP address"),
    (MINIMAL + '[Domains."192.0.2.1"]', "expected a domain name, not an IP address"),
    (
        MINIMAL + '[DMARC]\nMailingLists = ["192.0.2.1"]',
        "expected a domain name, not an IP address",
    ),
    (
        MINIMAL + '[DMARC.LocalPolicies]\n"192.0.2.1" = "none"',
        "[DMARC.LocalPolicies] 192.0.2.1: expected a domain name as the key",
    ),
    (
        MINIMAL + '[Delivery.Routes]\n"a.example" = "direct"\n"A.example" = "direct"',
        "[Delivery.Routes] A.example: expected each domain once",
    ),
    (
        MINIMAL + '[Domains."example.org"]\n[Domains."EXAMPLE.org"]',
        '[Domains] EXAMPLE.org: expected each domain once: "example.org" is the same',
    ),
    (
        MINIMAL + '[Domains."b\u00fccher.example"]\n[Domains."xn--bcher-kva.example"]',
        "[Domains] xn--bcher-kva.example: expected each domain once",
    ),
    (
        MINIMAL + "[Listeners.a]\nPort = 25\n[Listeners.b]\nPort = 25",
        "[Listeners.b] Port = 25: expected another port or address than [Listeners.a]",
    ),
    (
        MINIMAL
        + '[Listeners.a]\nPort = 25\nAddress = ["::1", "127.0.0.1"]\n'
        + '[Listeners.b]\nPort = 25\nService = "reception"\nAddress = "0.0.0.0"',
        "[Listeners.b] Port = 25: expected another port or address than [Listeners.a]",
    ),
    (
        MINIMAL + "[Delivery]\nMaxAge = 0",
        "[Delivery] MaxAge = 0: expected an integer from 1 up",
    ),
    (
        MINIMAL + "[Delivery]\nMaxBriefAge = 0",
        "[Delivery] MaxBriefAge = 0: expected an integer from 1 up",
    ),
    (
        MINIMAL + "[Delivery]\nNoticeAfter = -1",
        "[Delivery] NoticeAfter = -1: expected an integer from 0 up",
    ),
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
        MINIMAL + '[Listeners.a]\nPort = 25\nAddress = ["::1", "mail"]',
        '[Listeners.a] Address = "mail": expected an IP address',
    ),
    (
        MINIMAL + "[Listeners.a]\nPort = 25\nAddress = []",
        "[Listeners.a] Address = []: expected an IP address",
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 25\nAddress = ["::1", 4]',
        ": expected a string or an array of strings",
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 25\nAddress = ["::1", "::1"]',
        ": expected each address once",
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 25\nAddress = ["::1", "::"]',
        'Address = "::": expected a loopback address, or Authentication = true',
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
        MINIMAL + '[Listeners.a]\nPort = 443\nService = "reports"\nTLS = "starttls"',
        'TLS = "starttls": expected "immediate" or "none" for reports',
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 80\nService = "reports"\nAddress = "::"',
        'Address = "::": expected a loopback address, or TLS = "immediate"',
    ),
    (
        MINIMAL + '[Listeners.a]\nPort = 80\nService = "reports"\n'
        "Authentication = true",
        'Service = "reports": expected Service = "submission", as Authentication is on',
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
        MINIMAL + '[HostTLSRPT]\nLocalpart = "a..b"',
        "[HostTLSRPT] Localpart = ",
    ),
    # RFC 5321 4.5.1: mail to it is for a person.
    (
        MINIMAL + '[HostTLSRPT]\nLocalpart = "Postmaster"',
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

# Whose mail it is; behind OURS.
OURS = MINIMAL + '[Domains."a.example"]\n'
ANNA = OURS + '[Accounts.anna.Destinations]\n"anna@a.example" = {}\n'
WRONG_RESIDENTS = [
    (OURS + "[Accounts.anna]", "[Accounts.anna] Destinations: missing"),
    (
        OURS + '[Accounts."../x".Destinations]',
        "[Accounts] ../x: expected a name of letters, digits and _-. as the key",
    ),
    (OURS + '[Accounts."a+b".Destinations]', "[Accounts] a+b: expected a name"),
    (OURS + '[Accounts."".Destinations]', "[Accounts]: expected a name of letters"),
    (
        ANNA + "[Accounts.Anna.Destinations]",
        "[Accounts] Anna: expected a name that differs from anna in more than case",
    ),
    (
        ANNA + '"b@c.example" = {}',
        "[Accounts.anna.Destinations] b@c.example: expected an address, or @ and a",
    ),
    (ANNA + '"a b@a.example" = {}', "[Accounts.anna.Destinations] a b@a.example: "),
    (ANNA + '"@b.example" = {}', "[Accounts.anna.Destinations] @b.example: expected"),
    (ANNA + '"@" = {}', "[Accounts.anna.Destinations] @: expected an address, or"),
    (ANNA + '"x@[127.0.0.1]" = {}', "x@[127.0.0.1]: expected an address, or"),
    (
        ANNA + '"ANNA@a.example" = {}',
        "ANNA@a.example: expected an address that account anna hasn't got",
    ),
    (
        ANNA + '[Accounts.b.Destinations]\n"anna@A.example" = {}',
        "[Accounts.b.Destinations] anna@A.example: expected an address that account",
    ),
    (
        ANNA + '"@a.example" = {}\n[Accounts.b.Destinations]\n"@a.example" = {}',
        "[Accounts.b.Destinations] @a.example: expected an address that account anna",
    ),
    (
        ANNA + '"b@a.example" = {Mailbox = "x/../y"}',
        '[Accounts.anna.Destinations.b@a.example] Mailbox = "x/../y": expected names',
    ),
    (
        ANNA + '[Accounts.b]\nJunkMailbox = ""\nDestinations = {}',
        '[Accounts.b] JunkMailbox = "": expected names of letters',
    ),
    (
        ANNA + '[Accounts.b]\nRejectsMailbox = "."\nDestinations = {}',
        '[Accounts.b] RejectsMailbox = ".": expected names of letters',
    ),
    (
        ANNA + "[Accounts.b]\nQuota = -1\nDestinations = {}",
        "[Accounts.b] Quota = -1: expected an integer from 0 up",
    ),
    (
        ANNA + "[Accounts.b]\nQuota = 9007199254740992\nDestinations = {}",
        "expected an integer up to 9007199254740991",
    ),
    (
        MINIMAL
        + """
        [HostTLSRPT]
        [Domains."mail.example.org"]
        [Accounts.a.Destinations]
        "TLSReports@mail.example.org" = {}
        """,
        "[Accounts.a.Destinations] TLSReports@mail.example.org: expected another",
    ),
    (
        OURS + 'LocalpartCatchallSeparator = " "',
        '[Domains.a.example] LocalpartCatchallSeparator = " ": expected characters',
    ),
    (
        ANNA + '[Domains."a.example".Aliases."a b"]\nAddresses = ["anna@a.example"]',
        "[Domains.a.example.Aliases] a b: expected the local part of an address",
    ),
    (
        ANNA + '[Domains."a.example".Aliases.Anna]\nAddresses = ["anna@a.example"]',
        "[Domains.a.example.Aliases] Anna: expected an address that no account has",
    ),
    (
        ANNA
        + """
        [Domains."a.example".Aliases]
        all.Addresses = ["anna@a.example"]
        ALL.Addresses = ["anna@a.example"]
        """,
        "[Domains.a.example.Aliases] ALL: expected an address that no other alias has",
    ),
    (
        ANNA + '[Domains."a.example".Aliases.all]\nAddresses = []',
        "[Domains.a.example.Aliases.all] Addresses = []: expected at least one address",
    ),
    (
        ANNA + '[Domains."a.example".Aliases.all]\nAddresses = ["b@a.example"]',
        'Addresses = "b@a.example": expected the address of an account',
    ),
    (
        ANNA + '[Domains."a.example".Aliases.all]\nAddresses = ["all@a.example"]',
        'Addresses = "all@a.example": expected the address of an account',
    ),
    (
        ANNA
        + '"@a.example" = {}\n'
        + '[Domains."a.example".Aliases.all]\nAddresses = ["@a.example"]',
        'Addresses = "@a.example": expected the address of an account',
    ),
    (
        MINIMAL + '[LMTP]\nAddress = "localhost:24"',
        '[LMTP] Address = "localhost:24": expected IP:PORT, [IP]:PORT or the whole',
    ),
    (
        MINIMAL + '[LMTP]\nAddress = "/run/lmtp"\nSeparator = ""',
        '[LMTP] Separator = "": expected characters of local parts',
    ),
]

# Addresses for reports.
RECEIVED = ANNA + '"taken@a.example" = {}\n[Domains."b.example"]\n'
WRONG_ADDRESSES = [
    (
        RECEIVED + 'TLSRPT = {Localpart = "Taken", Domain = "a.example"}',
        '[Domains.b.example.TLSRPT] Localpart = "Taken": expected an address that '
        "account anna hasn't got",
    ),
    (
        RECEIVED
        + 'DMARC = {Localpart = "all"}\n'
        + '[Domains."b.example".Aliases.All]\nAddresses = ["taken@a.example"]',
        '[Domains.b.example.DMARC] Localpart = "all": expected an address that '
        "alias All hasn't got",
    ),
    (
        RECEIVED + 'TLSRPT = {Localpart = "r"}\nDMARC = {Localpart = "R"}',
        '[Domains.b.example.DMARC] Localpart = "R": expected the Account and Mailbox '
        "of [Domains.b.example.TLSRPT], as both have r@b.example",
    ),
    (
        MINIMAL
        + '[HostTLSRPT]\n[Domains."mail.example.org"]\nTLSRPT = {Mailbox = "x"}',
        '[Domains.mail.example.org.TLSRPT] Localpart = "tlsreports": expected the '
        "Account and Mailbox of [HostTLSRPT], as both have tlsreports@mail.example.org",
    ),
    (
        RECEIVED + 'TLSRPT = {Domain = "c.example"}',
        "[Domains.b.example.TLSRPT] Domain = c.example: expected one of Domains",
    ),
    (
        RECEIVED + 'TLSRPT = {Domain = "b..example"}',
        '[Domains.b.example.TLSRPT] Domain = "b..example": expected a domain name',
    ),
    (
        RECEIVED + "ReportsOnly = true\nDMARC = {}",
        "[Domains.b.example.DMARC] Domain: expected one of Domains, without",
    ),
    (
        RECEIVED
        + 'ReportsOnly = true\nDMARC = {Domain = "c.example"}\n'
        + '[Domains."c.example"]\nReportsOnly = true\nTLSRPT = {Domain = "a.example"}',
        "[Domains.b.example.DMARC] Domain = c.example: expected one of Domains",
    ),
    (
        RECEIVED + "ReportsOnly = true",
        "[Domains.b.example]: expected the table TLSRPT or DMARC, as ReportsOnly is",
    ),
    (
        RECEIVED
        + 'ReportsOnly = true\nTLSRPT = {Domain = "a.example"}\n'
        + 'Aliases = {x = {Addresses = ["anna@a.example"]}}',
        "[Domains.b.example.Aliases]: expected nothing, as ReportsOnly is true",
    ),
    (
        RECEIVED
        + 'ReportsOnly = true\nTLSRPT = {Domain = "a.example"}\n'
        + 'DKIM = {Selectors = {s = {KeyFile = "x"}}}',
        "[Domains.b.example.DKIM]: expected nothing, as ReportsOnly is true",
    ),
    (
        RECEIVED
        + 'ReportsOnly = true\nTLSRPT = {Domain = "a.example"}\n'
        + '[Accounts.b.Destinations]\n"@b.example" = {}',
        "[Accounts.b.Destinations] @b.example: expected an address, or @ and a domain",
    ),
    (
        RECEIVED
        + 'ReportsOnly = true\nTLSRPT = {Domain = "a.example"}\n'
        + '[Reporting]\nAddresses = ["x@b.example"]',
        '[Reporting] Addresses = "x@b.example": expected an address in one of Domains',
    ),
    (
        RECEIVED + 'TLSRPT = {Account = "bob"}',
        '[Domains.b.example.TLSRPT] Account = "bob": expected one of Accounts, or',
    ),
    (
        RECEIVED + 'TLSRPT = {Mailbox = "a.b"}',
        '[Domains.b.example.TLSRPT] Mailbox = "a.b": expected names of letters',
    ),
    (
        RECEIVED + 'DMARC = {Localpart = "\u00e9"}',
        "[Domains.b.example.DMARC] Localpart = ",
    ),
    (
        RECEIVED + 'DMARC = {Localpart = "Postmaster"}',
        '[Domains.b.example.DMARC] Localpart = "Postmaster": expected an ASCII local '
        "part, other than postmaster",
    ),
    (
        MINIMAL + "[ReceivedReports]\nKeepDMARCDays = -1",
        "[ReceivedReports] KeepDMARCDays = -1: expected an integer from 0 up",
    ),
]

# Processing of mail, and reports.
REPORTS = OURS + "[Reporting.DMARC]\n"
SELECTOR = '[Domains."a.example".DKIM.Selectors.s]\nKeyFile = "x"\n'
WRONG_FEEDBACK = [
    (
        OURS + 'KeyFile = "x"',
        "[Domains.a.example] CertificateFile: expected a file, as KeyFile is set",
    ),
    (
        OURS + 'CertificateFile = "x"',
        "[Domains.a.example] KeyFile: expected a file, as CertificateFile is set",
    ),
    (
        MINIMAL
        + '[Users]\na = "x"\n[Listeners.a]\nPort = 25\nService = "reception"\n'
        + 'Authentication = true\nTLS = "starttls"\n'
        + 'CertificateFile = "x"\nKeyFile = "x"',
        '[Listeners.a] Service = "reception": expected Service = "submission"',
    ),
    (
        MINIMAL + "[Listeners.a]\nPort = 25\nMaxConnections = 0",
        "[Listeners.a] MaxConnections = 0: expected an integer from 1 up",
    ),
    (
        MINIMAL + "[Listeners.a]\nPort = 25\nMaxMessageRate = -1",
        "[Listeners.a] MaxMessageRate = -1: expected an integer from 0 up",
    ),
    (
        MINIMAL + '[DMARC]\nTrustedForwarders = ["192.0.2.1/24"]',
        '[DMARC] TrustedForwarders = "192.0.2.1/24": expected a network, such as',
    ),
    (
        MINIMAL + '[DMARC]\nTrustedForwarders = ["192.0.2"]',
        '[DMARC] TrustedForwarders = "192.0.2": expected a network, such as',
    ),
    (
        MINIMAL + '[DMARC.LocalPolicies]\n"a b" = "none"',
        "[DMARC.LocalPolicies] a b: expected a domain name as the key",
    ),
    (
        MINIMAL + '[DMARC.LocalPolicies]\n"a.b" = "none"\n"A.B" = "none"',
        "[DMARC.LocalPolicies] A.B: expected each domain once",
    ),
    (
        MINIMAL + '[DMARC.LocalPolicies]\n"a.b" = "drop"',
        '[DMARC.LocalPolicies] a.b = "drop": expected one of "none", "quarantine"',
    ),
    (
        REPORTS + 'Formats = {"a b" = "rfc7489"}',
        "[Reporting.DMARC.Formats] a b: expected a domain name as the key",
    ),
    (
        OURS + '[Reporting]\nAddresses = ["x@b.example"]',
        '[Reporting] Addresses = "x@b.example": expected an address in one of Domains',
    ),
    (
        REPORTS + 'Format = "xml"',
        '[Reporting.DMARC] Format = "xml": expected one of "rfc9990", "rfc7489"',
    ),
    (
        REPORTS + "Minimum = 0",
        "[Reporting.DMARC] Minimum = 0: expected an integer from 1 up",
    ),
    (
        REPORTS + 'Domain = "b.example"',
        "[Reporting.DMARC] Domain = b.example: expected one of Domains",
    ),
    (
        REPORTS + 'Domain = "a.example"',
        "[Reporting.DMARC] Domain = a.example: expected a domain with a selector whose",
    ),
    (
        REPORTS + 'Domain = "a.example"\n' + SELECTOR + 'Purpose = "tlsrpt"',
        "[Reporting.DMARC] Domain = a.example: expected a domain with a selector whose",
    ),
    (
        OURS
        + "NoOutgoingDMARCReports = true\n[Reporting.DMARC]\n"
        + 'Domain = "a.example"\n'
        + SELECTOR,
        "Domain = a.example: expected a domain without NoOutgoingDMARCReports",
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
        An error is one line with file, table, key, value and a description of correct
        values.
        """
        for text, said in (*WRONG, *WRONG_RESIDENTS, *WRONG_ADDRESSES, *WRONG_FEEDBACK):
            with self.subTest(said):
                error = self.assertRaises(InvalidConfig, parse, text, "moxtls.toml")
                lines = str(error).split("\n")
                for line in lines:
                    self.assertTrue(line.startswith("moxtls.toml: "), line)
                self.assertEqual(len([each for each in lines if said in each]), 1)

    def test_all(self) -> None:
        """
        All faults of a file are found at once, each in a line; a key that is
        misspelt isn't missing beside that.
        """
        text = """
            Hostnme = "mail.example.org"
            [Listeners.a]
            Port = "x"
            Adress = "127.0.0.1"
            [Domains."a b"]
            [Delivery]
            RetrySchedule = [1, "x", "y"]
        """
        error = self.assertRaises(InvalidConfig, parse, text, "moxtls.toml")
        lines = str(error).split("\n")
        self.assertEqual(len(lines), 6, lines)
        for said in (
            "Hostnme = ",
            '[Listeners.a] Port = "x"',
            "[Listeners.a] Adress = ",
            "[Domains] a b = ",
            'RetrySchedule = "x"',
            'RetrySchedule = "y"',
        ):
            (line,) = (each for each in lines if said in each)
            self.assertTrue(line.startswith("moxtls.toml: "), line)

    def test_allTogether(self) -> None:
        """
        Inconsistencies are reported together with errors in single values.
        """
        text = (
            MINIMAL
            + """
            Sparkle = 1
            [Listeners.a]
            Port = 25
            MaxConnections = 0
            [Listeners.b]
            Port = 25
            TLS = "starttls"
        """
        )
        error = self.assertRaises(InvalidConfig, parse, text, "moxtls.toml")
        lines = str(error).split("\n")
        self.assertEqual(len(lines), 4, lines)
        for said in ("Sparkle", "MaxConnections", "b] CertificateFile", "b] Port"):
            self.assertEqual(len([each for each in lines if said in each]), 1, said)

    def test_ports(self) -> None:
        """
        Listeners share a port at different addresses, any free port, and IPv6 has
        its own (RFC 3493 5.3).
        """
        for first, second, port in (
            ("127.0.0.1", "127.0.0.2", 25),
            ("127.0.0.1", "127.0.0.1", 0),
            ("127.0.0.1", "::1", 25),
        ):
            text = MINIMAL + "".join(
                f'[Listeners.{name}]\nPort = {port}\nAddress = "{address}"\n'
                for name, address in (("a", first), ("b", second))
            )
            self.assertEqual(len(parse(text, "moxtls.toml").listeners), 2)

    def test_remarks(self) -> None:
        """
        A listener for reception without accounts may be meant: there are DSNs.
        """
        text = MINIMAL + '[Listeners.a]\nPort = 25\nService = "reception"\n'
        ((table, key, _, why),) = remarks(parse(text, "moxtls.toml"))
        self.assertEqual((table, key), ("Listeners.a", "Service"))
        self.assertIn("no Accounts: mail for postmaster, DSNs, and no other", why)
        text += ANNA.removeprefix(MINIMAL)
        self.assertEqual(list(remarks(parse(text, "moxtls.toml"))), [])

    def test_incoming(self) -> None:
        """
        A host with mailboxes: accounts, aliases, and the treatment of their mail.
        """
        parsed = parse(
            ANNA
            + """
            "@a.example" = {Mailbox = "Rest/of it"}
            [Accounts.anna_2]
            Quota = 5000000000
            RejectsMailbox = "Rejects"
            [Accounts.anna_2.Destinations]
            "anna+2@a.example" = {}
            [Domains."a.example".Aliases.all]
            Addresses = ["ANNA@a.example", "anna+2@a.example"]
            [Domains."b.example"]
            LocalpartCatchallSeparator = "--"
            [LMTP]
            Address = "[::1]:24"
            [DMARC]
            Enforcement = "quarantine"
            TrustedForwarders = ["192.0.2.0/24", "2001:db8::1", "Lists.example"]
            LocalPolicies = {"a.example" = "reject"}
            [Reporting.DMARC]
            Formats = {"b.example" = "rfc7489"}
            """,
            "moxtls.toml",
        )
        anna = parsed.accounts["anna"]
        self.assertEqual(anna.destinations["@a.example"].mailbox, "Rest/of it")
        self.assertEqual(parsed.accounts["anna_2"].quota, 5_000_000_000)
        self.assertEqual(parsed.dmarc.enforcement, DMARCPolicy.QUARANTINE)
        self.assertEqual(
            config.forwarders(parsed.dmarc),
            (
                (ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128")),
                (Domain("lists.example"),),
            ),
        )

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
        Any value of a key is accepted or refused with a clear error.
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
        for one in describe():
            described |= set(one.table.split("."))
        for each in config.TABLES:
            keys = {one.metadata["key"] for one in fields(each)}
            self.assertEqual(keys - described, set())
        self.assertTrue(all(re.search(r"\w", each.meaning) for each in describe()))

    def test_tables(self) -> None:
        """
        Each table precedes its keys, with its purpose, in the order of the classes.
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


class LMTPAddressTests(SynchronousTestCase):
    """
    Tests for L{lmtpAddress}.
    """

    def test_forms(self) -> None:
        """
        An IP address with a port, or the path of a socket, which has to fit
        (unix(7)).
        """
        for text, address in [
            ("127.0.0.1:24", ("127.0.0.1", 24)),
            ("[::1]:24", ("::1", 24)),
            ("/run/lmtp", "/run/lmtp"),
            ("127.0.0.1", None),
            ("::1", None),
            ("::1:24", None),
            ("[::1]", None),
            ("run/lmtp", None),
            ("/run/\0", None),
            ("/" * 108, None),
            ("localhost:24", None),
            ("127.0.0.1:" + "9" * 5000, None),
            ("", None),
        ]:
            self.assertEqual(config.lmtpAddress(text), address, text)
