"""
Tests for L{moxtls.reception.recipients}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.config import parse
from moxtls.config.addresses import isPostmaster
from moxtls.domain import Address, Domain
from moxtls.reception.recipients import (
    Directory,
    NoSuchUser,
    NotLocal,
    Role,
    Target,
)

TEXT = """
Hostname = "mail.example.org"
[Postmaster]
Mailbox = "Post"
[HostTLSRPT]
[Domains."example.org".Aliases.all]
Addresses = ["anna@example.org", "bob@example.org", "a.smith@example.org"]
[Domains."example.org".Aliases."b\u00fcro"]
Addresses = ["BOB@example.org"]
[Domains."exact.example"]
LocalpartCatchallSeparator = ""
LocalpartCaseSensitive = true
[Domains."b\u00fccher.example"]
LocalpartCatchallSeparator = "--"
[Domains."own.example"]
[Accounts.anna.Destinations]
"Anna@example.org" = {}
"a.smith@example.org" = {}
"anna+lists@example.org" = {Mailbox = "Lists"}
"postmaster@own.example" = {Mailbox = "Work"}
[Accounts.bob.Destinations]
"bob@example.org" = {}
"Bob@exact.example" = {}
"bob@b\u00fccher.example" = {}
"@b\u00fccher.example" = {Mailbox = "Rest"}
"""


def directory(text: str = TEXT) -> Directory:
    """
    The directory of a configuration.
    """
    return Directory(parse(text, "moxtls.toml"))


class FindTests(SynchronousTestCase):
    """
    Tests for L{Directory.find}.
    """

    def setUp(self) -> None:
        self.directory = directory()

    def places(self, text: str) -> list[tuple[str, str]] | NotLocal | NoSuchUser:
        """
        Accounts and mailboxes.
        """
        found = self.directory.find(Address.parse(text))
        if isinstance(found, NotLocal | NoSuchUser):
            return found
        return [(each.account, each.mailbox) for each in found]

    def test_places(self) -> None:
        """
        Destinations match in any case unless case counts, and without the part after
        a separator unless that is a destination itself; catch-alls come last.
        """
        anna, bob = [("anna", "Inbox")], [("bob", "Inbox")]
        for text, expected in [
            ("anna@example.org", anna),
            ("ANNA@EXAMPLE.ORG", anna),
            ("anna+x@example.org", anna),
            ("anna+@example.org", anna),
            ("anna+lists@example.org", [("anna", "Lists")]),
            ("anna+Lists+x@example.org", anna),
            ("+anna@example.org", NoSuchUser()),
            ("annas@example.org", NoSuchUser()),
            ("Bob@exact.example", bob),
            ("bob@exact.example", NoSuchUser()),
            ("Bob+x@exact.example", NoSuchUser()),
            ("bob@b\u00fccher.example", bob),
            ("bob@xn--bcher-kva.example", bob),
            ("bob--x@b\u00fccher.example", bob),
            ("bob-x@b\u00fccher.example", [("bob", "Rest")]),
            ("anybody@b\u00fccher.example", [("bob", "Rest")]),
        ]:
            self.assertEqual(self.places(text), expected, text)

    def test_notHere(self) -> None:
        """
        Only the configured domains are local: not parents or subdomains, and no IP
        address (RFC 5321 4.1.3).
        """
        for text in [
            "anna@example.com",
            "anna@sub.example.org",
            "postmaster@org",
            "postmaster@[127.0.0.1]",
            "postmaster@[IPv6:::1]",
        ]:
            self.assertEqual(self.places(text), NotLocal(), text)

    def test_aliases(self) -> None:
        """
        Each member gets the message once; aliases match in any case and normal form
        (RFC 6532 3.1).
        """
        both = [("anna", "Inbox"), ("bob", "Inbox")]
        self.assertEqual(self.places("ALL@example.org"), both)
        self.assertEqual(self.places("all+x@example.org"), both)
        for text in ("b\u00fcro", "bu\u0308ro", "B\u00dcRO"):
            self.assertEqual(self.places(f"{text}@example.org"), [("bob", "Inbox")])

    def test_postmaster(self) -> None:
        """
        Every domain has a postmaster, in any case (RFC 5321 4.5.1), and DSNs about
        reports go to the host's; also with a catch-all.
        """
        for text in [
            "postmaster@mail.example.org",
            "PostMaster@example.org",
            "postmaster+0af@example.org",
            "POSTMASTER@exact.example",
            "postmaster@b\u00fccher.example",
            "postmaster--x@b\u00fccher.example",
            "postmaster+0af@own.example",
        ]:
            self.assertEqual(self.places(text), [("", "Post")], text)
        self.assertEqual(self.places("postmaster@own.example"), [("anna", "Work")])

    def test_host(self) -> None:
        """
        The host's own name has the postmaster and the address for TLS reports only.
        """
        for text, expected in [
            ("TLSreports@mail.example.org", [("", "TLSRPT")]),
            ("tlsreports+x@mail.example.org", NoSuchUser()),
            ("tlsreports@example.org", NoSuchUser()),
            ("anna@mail.example.org", NoSuchUser()),
        ]:
            self.assertEqual(self.places(text), expected, text)

    def test_hostIsDomain(self) -> None:
        """
        If it is one of Domains, it has accounts, too.
        """
        self.directory = directory(
            TEXT
            + """
            "c@mail.example.org" = {}
            "@mail.example.org" = {Mailbox = "Rest"}
            [Domains."mail.example.org"]
            LocalpartCaseSensitive = true
            """
        )
        for text, expected in [
            ("c+x@mail.example.org", [("bob", "Inbox")]),
            ("x@mail.example.org", [("bob", "Rest")]),
            ("TLSreports@mail.example.org", [("", "TLSRPT")]),
            ("Postmaster@mail.example.org", [("", "Post")]),
        ]:
            self.assertEqual(self.places(text), expected, text)

    def test_targets(self) -> None:
        """
        A target has its address, and the purpose of that.
        """
        for text, own, role, isForReports in [
            ("ANNA+x@example.org", "anna@example.org", Role.USER, False),
            ("bu\u0308ro@example.org", "bob@example.org", Role.USER, False),
            ("X@b\u00fccher.example", "x@b\u00fccher.example", Role.USER, False),
            (
                "postmaster+Af@example.org",
                "postmaster+Af@example.org",
                Role.POSTMASTER,
                False,
            ),
            (
                "postmaster@own.example",
                "postmaster@own.example",
                Role.POSTMASTER,
                False,
            ),
            (
                "TLSREPORTS@mail.example.org",
                "tlsreports@mail.example.org",
                Role.REPORTS,
                True,
            ),
        ]:
            found = self.directory.find(Address.parse(text))
            assert isinstance(found, tuple)
            [target] = found
            self.assertEqual(target.address, Address.parse(own))
            self.assertIs(target.role, role)
            self.assertEqual(target.isForReports, isForReports)

    def test_withoutHostTLSRPT(self) -> None:
        """
        Without HostTLSRPT there is no address for reports.
        """
        self.directory = directory('Hostname = "mail.example.org"')
        self.assertEqual(self.places("tlsreports@mail.example.org"), NoSuchUser())
        self.assertEqual(self.places("anna@example.org"), NotLocal())

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=20), st.sampled_from(["example.org", "exact.example"]))
    def test_anything(self, localPart: str, domain: str) -> None:
        """
        Any address has an answer, which fits its domain.
        """
        found = self.directory.find(Address(localPart, Domain(domain)))
        self.assertIsInstance(found, tuple | NoSuchUser)
        if isinstance(found, tuple):
            self.assertTrue(all(isinstance(each, Target) for each in found))
            self.assertNotEqual(found, ())


REPORTS = """
Hostname = "mail.example.org"
[HostTLSRPT]
[Domains."example.org"]
TLSRPT = {Account = "anna", Mailbox = "Reports/TLS"}
DMARC = {Localpart = "dmarc-reports"}
LocalpartCatchallSeparator = "-"
[Domains."example.org".Aliases.all]
Addresses = ["anna@example.org", "TLSreports@example.org"]
[Domains."exact.example"]
LocalpartCaseSensitive = true
TLSRPT = {Localpart = "Reports", Mailbox = "Rua"}
DMARC = {Localpart = "Reports", Mailbox = "Rua"}
[Domains."elsewhere.example"]
ReportsOnly = true
TLSRPT = {Domain = "exact.example", Localpart = "tls"}
DMARC = {Domain = "exact.example"}
[Domains."other.example"]
ReportsOnly = true
DMARC = {Domain = "exact.example"}
[Accounts.anna.Destinations]
"anna@example.org" = {}
"tlsreports-anna@example.org" = {Mailbox = "Own"}
"@example.org" = {Mailbox = "Rest"}
"""


class ReportAddressTests(SynchronousTestCase):
    """
    Tests for the addresses of reports in L{Directory.find}.
    """

    def setUp(self) -> None:
        self.directory = directory(REPORTS)

    def find(self, text: str) -> tuple[Target, ...]:
        """
        The targets of a local address.
        """
        found = self.directory.find(Address.parse(text))
        assert isinstance(found, tuple), found
        return found

    def test_separators(self) -> None:
        """
        Case and the part behind a separator are ignored as the domain is set, also if
        the configured local part contains the separator; nothing else matches.
        """
        tls, dmarc = ("anna", "Reports/TLS"), ("", "DMARC")
        for text, account, mailbox, isForReports in [
            ("tlsreports@example.org", *tls, True),
            ("TLSReports-more-x@example.org", *tls, True),
            ("tlsreports-anna@example.org", "anna", "Own", False),
            ("tlsreports+x@example.org", "anna", "Rest", False),
            ("Dmarc-reports@example.org", *dmarc, True),
            ("Dmarc-reports-test@example.org", *dmarc, True),
            ("dmarc@example.org", "anna", "Rest", False),
            ("dmarc-other@example.org", "anna", "Rest", False),
            ("dmarc-reportsx@example.org", "anna", "Rest", False),
            ("-dmarc-reports@example.org", "anna", "Rest", False),
            ("Reports+x@exact.example", "", "Rua", True),
        ]:
            [target] = self.find(text)
            self.assertEqual((target.account, target.mailbox), (account, mailbox), text)
            self.assertIs(target.isForReports, isForReports, text)
        found = self.directory.find(Address.parse("reports@exact.example"))
        self.assertEqual(found, NoSuchUser())

    def test_reported(self) -> None:
        """
        A target names the domain that its reports are about, unless there are several
        domains; both kinds of reports of one domain may share an address.
        """
        for text, domain in [
            ("tlsreports@mail.example.org", "mail.example.org"),
            ("tlsreports@example.org", "example.org"),
            ("Reports@exact.example", "exact.example"),
            ("tls@exact.example", "elsewhere.example"),
            ("dmarcreports@exact.example", ""),
        ]:
            [target] = self.find(text)
            self.assertEqual(target.reported, domain, text)

    def test_alias(self) -> None:
        """
        Mail to an alias of an address for reports is only delivered.
        """
        places = [
            (each.account, each.mailbox, each.isForReports)
            for each in self.find("all@example.org")
        ]
        inbox, reports = ("anna", "Inbox", False), ("anna", "Reports/TLS", False)
        self.assertEqual(places, [inbox, reports])

    def test_reportsOnly(self) -> None:
        """
        A domain of which only reports are collected is not local.
        """
        self.assertFalse(self.directory.isLocal(Domain("elsewhere.example")))
        for name in ("tlsreports", "postmaster", "dmarcreports"):
            found = self.directory.find(Address.parse(f"{name}@elsewhere.example"))
            self.assertEqual(found, NotLocal())
            address = Address.parse(f"{name}@elsewhere.example")
            self.assertEqual(self.directory.equivalents(address), ())


class IsLocalTests(SynchronousTestCase):
    """
    Tests for L{Directory.isLocal}.
    """

    def test_domains(self) -> None:
        """
        This host, and Domains.
        """
        for name, expected in [
            ("mail.example.org", True),
            ("Example.ORG.", True),
            ("b\u00fccher.example", True),
            ("example.com", False),
        ]:
            self.assertEqual(directory().isLocal(Domain.parse(name)), expected)


class PostmasterTests(SynchronousTestCase):
    """
    Tests for L{isPostmaster}.
    """

    def test_localParts(self) -> None:
        """
        Local parts match in any case (RFC 5321 4.5.1), and with a token; not those
        with only the same beginning.
        """
        for localPart, expected in [
            ("postmaster", True),
            ("POSTMASTER+x", True),
            ("postmaster-x", False),
            ("postmasters", False),
            ("", False),
        ]:
            self.assertEqual(isPostmaster(localPart), expected, localPart)
