"""
Tests for L{moxtls.lab.senders}.
"""

from __future__ import annotations

import dns.rcode
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.eligibility import confirmationName
from moxtls.domain import Domain
from moxtls.lab.keys import DKIMKey, publishedKeys
from moxtls.lab.plan import mailHosts
from moxtls.lab.scenario import DESTINATIONS
from moxtls.lab.senders import BY_NAME, COLLECTOR, SENDERS, Sender, addressOf
from tests.lab.grove import NETWORK, resolve, texts


class SendersTests(SynchronousTestCase):
    """
    The table of senders.
    """

    def test_apart(self) -> None:
        """
        Each sender has a unique name and address in the lab, so that reports
        distinguish them (RFC 9990 3.1.1.8).
        """
        domains = [each.domain for each in (*SENDERS, *DESTINATIONS)]
        self.assertEqual(len(domains), len(set(domains)))
        addresses = [addressOf(NETWORK, each) for each in SENDERS]
        addresses += [each.address for each in mailHosts(NETWORK, DESTINATIONS)]
        addresses += [NETWORK.submission, NETWORK.webHost, NETWORK.authority]
        self.assertEqual(len(addresses), len(set(addresses)))

    def test_notified(self) -> None:
        """
        Reports go only to addresses in the record, and the quoted policy of every
        recipient is known (RFC 9990 3.1.1.5).
        """
        for each in SENDERS:
            self.assertLessEqual(set(each.told), set(each.rua), each.name)
            self.assertEqual(bool(each.record), each.published is not None)


class SenderPlansTests(SynchronousTestCase):
    """
    Tests for published records.
    """

    def everybody(self) -> list[Sender]:
        """
        All senders except those with damaged records.
        """
        return [each for each in SENDERS if not each.damaged]

    def test_spf(self) -> None:
        """
        Each sender has one address that it sends from (RFC 7208), also with the null
        reverse-path (10.1.3), and can receive mail.
        """
        for each in self.everybody():
            address = addressOf(NETWORK, each)
            self.assertEqual([address], texts(each.host, "A"))
            self.assertEqual(
                [f'"v=spf1 ip4:{address} -all"'], texts(each.domain, "TXT")
            )
            self.assertEqual(['"v=spf1 a -all"'], texts(each.host, "TXT"))
            self.assertEqual(["10 mx.reports.test."], texts(each.domain, "MX"))

    def test_dmarc(self) -> None:
        """
        Records are where RFC 9989 4.6 has them, and there only.
        """
        self.assertEqual(
            ['"v=DMARC1; p=reject; t=y; rua=mailto:dmarc@trial.test"'],
            texts("_dmarc.trial.test", "TXT"),
        )
        self.assertEqual([], texts("_dmarc.silent.test", "TXT"))
        self.assertEqual([], texts("_dmarc.news.parent.test", "TXT"))

    def test_below(self) -> None:
        """
        Some subdomains exist, and others don't (RFC 9989 3.2.13).
        """
        there = resolve("news.parent.test", "A")
        self.assertEqual(dns.rcode.NOERROR, there.rcode)
        missing = resolve("nowhere.parent.test", "A")
        self.assertEqual(dns.rcode.NXDOMAIN, missing.rcode)
        self.assertTrue(missing.secure)

    def test_damaged(self) -> None:
        """
        Lookups of one sender's records fail under validation (RFC 4035 5.5).
        """
        self.assertEqual(dns.rcode.SERVFAIL, resolve("_dmarc.unsure.test", "TXT").rcode)

    def test_confirmed(self) -> None:
        """
        One of two senders with external destinations has a confirmation there (RFC
        9990 4).
        """
        host = Domain(COLLECTOR)
        for name, found in (("outsourced", ['"v=DMARC1"']), ("unasked", [])):
            domain = Domain(BY_NAME[name].domain)
            self.assertEqual(found, texts(confirmationName(domain, host), "TXT"))

    def test_keys(self) -> None:
        """
        Each key is published under its selector (RFC 6376 3.6.2.1).
        """
        self.assertEqual(
            ['"v=DKIM1; k=ed25519; p=AAAA"'],
            texts("lab-ed25519._domainkey.monitor.test", "TXT"),
        )
        key = DKIMKey("one", "rsa-sha256", b"secret", "v=DKIM1; p=A")
        self.assertEqual(
            {"monitor": {"one": "v=DKIM1; p=A"}}, publishedKeys({"monitor": (key,)})
        )
