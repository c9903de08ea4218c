"""
The examples of RFC 9989, as they stand there: 4.4, 4.10, 5.1.8, appendix B.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import Authentication
from moxtls.dmarc.discovery import discover, organizationalDomain
from moxtls.dmarc.eligibility import confirmationName, verifyDestinations
from moxtls.dmarc.record import dmarcRecordName
from moxtls.dmarc.types import Discovery, DMARCPolicy, DMARCRecord, ReportURI, Verdict
from moxtls.dmarc.verdict import Aligned, LocalPolicy, MessageContext, align, evaluate
from moxtls.dns.types import LookupGenerator
from moxtls.domain import Domain
from tests.dmarc.zone import FAIL, PASS, Zone, checked, signature

RECORD = "v=DMARC1; p=reject"
STRICT = "v=DMARC1; p=reject; adkim=s; aspf=s"


def evaluated(
    author: str, message: Authentication
) -> LookupGenerator[tuple[Discovery, Aligned, Verdict]]:
    """
    All that is found out about a message.
    """
    domain = Domain(author)
    discovery = yield from discover(domain)
    aligned = yield from align(discovery, message)
    verdict = evaluate(
        [domain], discovery, aligned, message, MessageContext(), LocalPolicy()
    )
    return discovery, aligned, verdict


class AlignmentTests(SynchronousTestCase):
    """
    RFC 9989 4.4 table 1, B.1.
    """

    def test_examples(self) -> None:
        """
        By SPF and by DKIM: strict, relaxed, and none.
        """
        for author, identifier, relaxed, strict in [
            # 4.4
            ("news.example.com", "foo.example.com", True, False),
            ("news.example.com", "news.example.com", True, True),
            ("news.example.com", "foo.example.net", False, False),
            # B.1.1
            ("example.com", "example.com", True, True),
            ("example.com", "child.example.com", True, False),
            ("child.example.com", "example.net", False, False),
            # B.1.2
            ("child.example.com", "example.com", True, False),
        ]:
            for record, expected in ((RECORD, relaxed), (STRICT, strict)):
                zone = Zone(
                    {"_dmarc.example.com": record, "_dmarc.example.net": record}
                )
                bySPF = checked(spf=identifier, status=PASS)
                found = zone.find(evaluated(author, bySPF))
                self.assertEqual(found[1].spf, expected, identifier)
                self.assertEqual(found[2].status is PASS, expected, identifier)
                byDKIM = checked(signature(identifier))
                found = zone.find(evaluated(author, byDKIM))
                self.assertEqual(found[1].dkim, (expected,), identifier)
                self.assertEqual(found[2].status is PASS, expected, identifier)


class TreeWalkTests(SynchronousTestCase):
    """
    RFC 9989 4.10, 5.1.8, B.4.
    """

    def test_queries(self) -> None:
        """
        The queried names of 4.10, 5.1.8 and B.4.2.
        """
        for start, tops in [
            ("a.b.c.d.e.f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com"),
            ("mail.a.b.c.d.e.f.g.example.com", "c.d.e.f.g.example.com"),
            ("a.b.c.d.e.f.g.h.i.j.k.example.com", "g.h.i.j.k.example.com"),
        ]:
            zone = Zone({})
            zone.find(discover(Domain(start)))
            labels = tops.split(".")
            rest = [".".join(labels[place:]) for place in range(len(labels))]
            expected = [f"_dmarc.{name}" for name in (start, *rest)]
            self.assertEqual(zone.asked, expected)
            self.assertEqual(len(zone.asked), 8)

    def test_organizational(self) -> None:
        """
        The three examples of 4.10.2.
        """
        for records, organizational in [
            ({"mail.example.com": RECORD, "example.com": RECORD}, "example.com"),
            ({"mail.example.com": RECORD + "; psd=n"}, "mail.example.com"),
            ({"com": RECORD + "; psd=y"}, "example.com"),
        ]:
            zone = Zone({f"_dmarc.{name}": text for name, text in records.items()})
            found = zone.find(organizationalDomain(Domain("a.mail.example.com")))
            self.assertEqual(found, Domain(organizational))

    def test_zoneCut(self) -> None:
        """
        5.1.8: the record at the zone cut is jumped over.
        """
        zone = Zone(
            {
                "_dmarc.example.com": RECORD,
                "_dmarc.b.c.d.e.f.g.example.com": RECORD + "; psd=n",
            }
        )
        found = zone.find(discover(Domain("mail.a.b.c.d.e.f.g.example.com")))
        self.assertEqual(found.policyDomain, Domain("example.com"))
        self.assertEqual(found.organizational, Domain("example.com"))

    def test_messages(self) -> None:
        """
        B.4.1 to B.4.3: organizational domains, policy domains, alignment.
        """
        simple = {"example.com": RECORD, "signing.example.com": RECORD}
        bank = {"bank.example": RECORD + "; psd=y", "giant.bank.example": RECORD}
        deep = "a.b.c.d.e.f.g.h.i.j.k.example.com"
        for records, author, sender, signer, policyDomain, spf, dkim in [
            (
                simple,
                "example.com",
                "example.com",
                "signing.example.com",
                "example.com",
                True,
                True,
            ),
            (
                simple,
                deep,
                "example.com",
                "signing.example.com",
                "example.com",
                True,
                True,
            ),
            (
                bank,
                "giant.bank.example",
                "mail.giant.bank.example",
                "mail.mega.bank.example",
                "giant.bank.example",
                True,
                False,
            ),
        ]:
            zone = Zone({f"_dmarc.{name}": text for name, text in records.items()})
            message = checked(signature(signer), spf=sender, status=PASS)
            discovery, aligned, verdict = zone.find(evaluated(author, message))
            self.assertEqual(discovery.policyDomain, Domain(policyDomain), author)
            self.assertEqual(discovery.organizational, Domain(policyDomain), author)
            self.assertEqual((aligned.spf, aligned.dkim), (spf, (dkim,)), author)
            self.assertIs(verdict.status, PASS)
            refused = checked(signature(signer, FAIL), spf=sender, status=FAIL)
            verdict = zone.find(evaluated(author, refused))[2]
            self.assertEqual(
                (verdict.status, verdict.policy), (FAIL, DMARCPolicy.REJECT)
            )


class DomainOwnerTests(SynchronousTestCase):
    """
    RFC 9989 B.2.
    """

    def find(self, domain: str, text: str) -> DMARCRecord | None:
        zone = Zone({dmarcRecordName(Domain(domain)): text})
        return zone.find(discover(Domain(domain))).record

    def test_records(self) -> None:
        """
        B.2.1, B.2.2, B.2.3, B.2.5.
        """
        rua = ReportURI("mailto:dmarc-feedback@example.com")
        ruf = ReportURI("mailto:auth-reports@example.com")
        third = ReportURI("mailto:auth-reports@thirdparty.example.net")
        test = ReportURI("mailto:tld-test@thirdparty.example.net")
        for domain, text, record in [
            (
                "example.com",
                "v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com",
                DMARCRecord(rua=(rua,)),
            ),
            (
                "example.com",
                "v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com;"
                "ruf=mailto:auth-reports@example.com",
                DMARCRecord(rua=(rua,), ruf=(ruf,)),
            ),
            (
                "example.com",
                "v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com;"
                "ruf=mailto:auth-reports@thirdparty.example.net",
                DMARCRecord(rua=(rua,), ruf=(third,)),
            ),
            (
                "test.example.com",
                "v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,"
                "mailto:tld-test@thirdparty.example.net; t=y",
                DMARCRecord(DMARCPolicy.QUARANTINE, testing=True, rua=(rua, test)),
            ),
        ]:
            self.assertEqual(self.find(domain, text), record)

    def test_replaced(self) -> None:
        """
        B.2.4: only the kind of report that was directed there is redirected.
        """
        ours, theirs = Domain("example.com"), Domain("thirdparty.example.net")
        confirmation = (
            "v=DMARC1; rua=mailto:aggregate-reports@thirdparty.example.net; "
            "ruf=mailto:failure-reports@thirdparty.example.net"
        )
        zone = Zone(
            {confirmationName(ours, theirs): confirmation, "_dmarc.example.com": RECORD}
        )
        ruf = [ReportURI("mailto:auth-reports@thirdparty.example.net")]
        found = zone.find(verifyDestinations(ours, ruf, tag="ruf"))
        expected = "mailto:failure-reports@thirdparty.example.net"
        self.assertEqual(found.accepted, ((expected, 0),))
        rua = [ReportURI("mailto:dmarc-feedback@example.com")]
        found = zone.find(verifyDestinations(ours, rua))
        self.assertEqual(found.accepted, (("mailto:dmarc-feedback@example.com", 0),))
