"""
Tests for L{moxtls.received.analysis.sources}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.analysis.sources import (
    MAX_LISTED,
    SERVICES,
    OwnSenders,
    SourceGroup,
    SourceKind,
    advice,
    groupSources,
    knownService,
    sourceKind,
)
from moxtls.received.types import DMARCSource, RowOutcome

OURS, SERVICE = SourceKind.OURS, SourceKind.SERVICE
FORWARDER, UNKNOWN = SourceKind.FORWARDER, SourceKind.UNKNOWN
DKIM, SPF, NONE = RowOutcome.DKIM, RowOutcome.SPF, RowOutcome.NONE
OWN = OwnSenders("example.org", frozenset({"mx.example.org"}), frozenset({"192.0.2.1"}))


def source(
    ip: str,
    authenticated: str = "",
    outcome: RowOutcome = NONE,
    messages: int = 1,
    first: int = 100,
    last: int = 100,
) -> DMARCSource:
    """
    Messages from the /24 of C{ip}.
    """
    network = ip.rpartition(".")[0] + ".0/24" if "." in ip else ip
    return DMARCSource(network, ip, authenticated, outcome, messages, first, last)


def lastTwo(name: str) -> str:
    """
    An organizational domain, where all public suffixes have one label.
    """
    return ".".join(name.split(".")[-2:])


#: Address, reverse name, authenticated domain, outcome, and the kind.
KINDS = [
    # Own addresses and names, whether their mail passes or not.
    ("192.0.2.1", "", "", NONE, OURS),
    ("203.0.113.1", "mx.example.org", "", NONE, OURS),
    # A neighbour only if its mail passes; so too for names under the domain.
    ("192.0.2.9", "", "example.org", DKIM | SPF, OURS),
    ("192.0.2.9", "", "", NONE, UNKNOWN),
    ("203.0.113.2", "web.example.org", "example.org", DKIM, OURS),
    ("203.0.113.2", "web.example.org", "", NONE, UNKNOWN),
    ("203.0.113.2", "web.notexample.org", "", NONE, UNKNOWN),
    # The SPF record names it.
    ("203.0.113.3", "", "example.org", SPF, OURS),
    # Strict alignment: authenticated, but not aligned.
    ("203.0.113.3", "", "news.example.org", NONE, OURS),
    # Services, by what they authenticate or by their reverse names.
    ("203.0.113.4", "", "sendgrid.net", NONE, SERVICE),
    ("203.0.113.4", "o1.ptr.sendgrid.net", "example.org", DKIM, SERVICE),
    ("203.0.113.4", "", "example-org.20230601.gappssmtp.com", NONE, SERVICE),
    ("203.0.113.4", "mail-a.google.com", "example.org", DKIM | SPF, SERVICE),
    # A signature alone, from a provider of mailboxes: it was forwarded.
    ("203.0.113.4", "mail-a.google.com", "example.org", DKIM, FORWARDER),
    ("203.0.113.5", "mail.alumni.example", "example.org", DKIM, FORWARDER),
    # Mailing lists.
    ("203.0.113.6", "lists.club.example", "", NONE, FORWARDER),
    ("203.0.113.6", "", "lists.club.example", NONE, FORWARDER),
    ("203.0.113.6", "", "x.googlegroups.com", NONE, FORWARDER),
    # All others.
    ("203.0.113.7", "", "", NONE, UNKNOWN),
    ("203.0.113.7", "host.evil.example", "evil.example", NONE, UNKNOWN),
    ("no address", "", "", NONE, UNKNOWN),
    ("2001:db8::1", "", "", NONE, UNKNOWN),
]


class SourceKindTests(SynchronousTestCase):
    """
    Tests for L{sourceKind}.
    """

    def test_kinds(self) -> None:
        """
        Sources are told apart by address, name, authentication and outcome.
        """
        for ip, name, authenticated, outcome, kind in KINDS:
            found = sourceKind(source(ip, authenticated, outcome), name, OWN)
            self.assertEqual(found, kind, (ip, name, authenticated, outcome))

    def test_services(self) -> None:
        """
        Some 60 services are known, each domain once, and by names below their domains.
        """
        domains = [domain for each in SERVICES for domain in each.domains]
        self.assertEqual(len(domains), len(set(domains)))
        self.assertGreaterEqual(len(SERVICES), 60)
        self.assertTrue(all(each == each.lower() for each in domains))
        found = knownService("a.b.amazonses.com")
        assert found is not None
        self.assertEqual(found.name, "Amazon SES")
        for name in ("notamazonses.com", "com", "", "amazonses.com.evil.example"):
            self.assertIsNone(knownService(name), name)


class GroupTests(SynchronousTestCase):
    """
    Tests for L{groupSources}.
    """

    def test_groups(self) -> None:
        """
        Groups have the name of the service, of the organizational domain that is
        authenticated, of that of the reverse name, or of the network; those with most
        failures come first.
        """
        sources = [
            source("192.0.2.1", "example.org", DKIM | SPF, 4000),
            source("192.0.2.2", "example.org", SPF, 200),
            source("198.51.100.1", "sendgrid.net", NONE, 12, 103, 107),
            source("198.51.101.1", "example.org", DKIM, 8),
            source("203.0.113.1", "a.evil.example", RowOutcome.REJECT, 30, 90, 101),
            source("203.0.114.1", "b.evil.example", NONE, 3, 95, 99),
            source("203.0.115.1", "", NONE, 2),
        ]
        names = {
            "192.0.2.1": "mx.example.org",
            "192.0.2.2": "mx2.example.org",
            "198.51.101.1": "o1.sendgrid.net",
        }
        groups = groupSources(sources, OWN, names, lastTwo)
        self.assertEqual(
            [
                (each.kind, each.name, each.messages, each.failed, each.refused)
                for each in groups
            ],
            [
                (UNKNOWN, "evil.example", 33, 33, 30),
                (SERVICE, "SendGrid", 20, 12, 0),
                (UNKNOWN, "203.0.115.0/24", 2, 2, 0),
                (OURS, "example.org", 4200, 0, 0),
            ],
        )
        evil, sendgrid, _, ours = groups
        self.assertEqual((evil.firstFailure, evil.lastFailure), (90, 101))
        self.assertEqual((sendgrid.firstFailure, sendgrid.lastFailure), (103, 107))
        self.assertEqual((ours.firstFailure, ours.dkim, ours.spf), (None, 4000, 4200))
        self.assertEqual(ours.names, ["mx.example.org", "mx2.example.org"])

    def test_names(self) -> None:
        """
        Forwarders have the name of their host or of the domain that they authenticate.
        """
        table = [
            (source("203.0.113.1", "lists.club.example"), "", "club.example"),
            (source("203.0.113.1", "example.org", DKIM), "", "203.0.113.0/24"),
            (
                source("203.0.113.1", "example.org", DKIM),
                "out.alumni.example",
                "alumni.example",
            ),
            (source("no address"), "", "no address"),
            (source(""), "", "no address"),
        ]
        for one, name, title in table:
            names = {one.source: name} if name else {}
            [group] = groupSources([one], OWN, names, lastTwo)
            self.assertEqual(group.name, title)

    def test_bounded(self) -> None:
        """
        A group lists few of its networks.
        """
        sources = [source(f"203.0.{n}.1", "evil.example") for n in range(200)]
        [group] = groupSources(sources, OWN, {}, lastTwo)
        self.assertEqual((group.messages, len(group.networks)), (200, MAX_LISTED))

    def test_advice(self) -> None:
        """
        Each kind of failing source has its own advice; RFC 9989 7.4: mail without a
        signature has one, too.
        """

        def advised(kind: SourceKind, failed: int, dkim: int) -> str:
            group = SourceGroup(kind, "Name", "", "192.0.2.1", messages=10)
            group.failed, group.dkim = failed, dkim
            return advice(group, "example.org")

        self.assertEqual(len({advised(each, 1, 9) for each in SourceKind}), 4)
        self.assertIn("If you use Name", advised(SERVICE, 1, 9))
        self.assertIn("SPF alone", advised(OURS, 0, 5))
        self.assertEqual(advised(OURS, 0, 10), "")
