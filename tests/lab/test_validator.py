"""
Tests for L{moxtls.lab.validator} and L{moxtls.lab.zones}.
"""

from __future__ import annotations

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from dns.edns import EDECode, EDEOption
from twisted.trial.unittest import SynchronousTestCase

from moxtls.lab.validator import Resolution, Validator
from tests.lab.grove import NOON, RECORD, ask, authority, resolve, tree, validator

DAY = 86400


def code(resolution: Resolution) -> EDECode | None:
    return resolution.error[0] if resolution.error else None


class ResolvingTests(SynchronousTestCase):
    """
    Tests for answers and their security status.
    """

    def test_signed(self) -> None:
        """
        Records of a signed zone are secure (RFC 4035 4.3).
        """
        found = resolve("_25._tcp.mx.dane-ee.test", "TLSA")
        self.assertTrue(found.secure)
        self.assertEqual(RECORD, found.answer[0][0].to_text())

    def test_unsigned(self) -> None:
        """
        Records of a zone whose parent proves that it has no DS are insecure (RFC 4035
        4.3), and returned all the same.
        """
        found = resolve("good.test", "MX")
        self.assertFalse(found.secure)
        self.assertEqual("10 mx.good.test.", found.answer[0][0].to_text())

    def test_noRecords(self) -> None:
        """
        The absence of records can be secure (RFC 4035 5.4), also at a name that only
        has names below it (RFC 4592 2.2.2).
        """
        for name in ("mx.dane-ee.test", "_tcp.mx.dane-ee.test", "test", "."):
            with self.subTest(name):
                found = resolve(name, "AAAA")
                self.assertEqual(dns.rcode.NOERROR, found.rcode)
                self.assertEqual((), found.answer)
                self.assertTrue(found.secure)

    def test_noName(self) -> None:
        """
        The absence of a name can be secure.
        """
        for name in ("nope.dane-ee.test", "a.b.mx.dane-ee.test", "zzz.test", "zzz"):
            with self.subTest(name):
                found = resolve(name, "A")
                self.assertEqual(dns.rcode.NXDOMAIN, found.rcode)
                self.assertTrue(found.secure)

    def test_aliases(self) -> None:
        """
        An answer is secure if all steps of its chain are.
        """
        secure = resolve("secure.alias.test", "A")
        self.assertTrue(secure.secure)
        self.assertTrue(secure.answer)
        self.assertFalse(resolve("insecure.alias.test", "A").secure)
        self.assertTrue(resolve("nowhere.alias.test", "A").secure)
        self.assertEqual(
            EDECode.SIGNATURE_EXPIRED, code(resolve("broken.alias.test", "A"))
        )

    def test_loop(self) -> None:
        """
        A chain without an end is a failure.
        """
        self.assertEqual(dns.rcode.SERVFAIL, resolve("loop.alias.test", "A").rcode)

    def test_delegationSigner(self) -> None:
        """
        DS records are the parent's (RFC 4035 3.1.4.1).
        """
        self.assertTrue(resolve("dane-ee.test", "DS").answer)
        none = resolve("good.test", "DS")
        self.assertTrue(none.secure)
        self.assertEqual((), none.answer)


class BogusTests(SynchronousTestCase):
    """
    Tests for records with invalid signatures.
    """

    def assertBogus(self, expected: EDECode, resolution: Resolution) -> None:
        self.assertEqual(dns.rcode.SERVFAIL, resolution.rcode)
        self.assertEqual(expected, code(resolution))
        self.assertEqual((), resolution.answer)
        self.assertFalse(resolution.secure)

    def test_damaged(self) -> None:
        """
        A damaged signature spoils the records under it, and no others.
        """
        self.assertBogus(EDECode.DNSSEC_BOGUS, resolve("mx-bogus.test", "MX"))
        self.assertTrue(resolve("mx.mx-bogus.test", "A").secure)
        self.assertTrue(resolve("_smtp._tls.mx-bogus.test", "TXT").secure)
        self.assertTrue(resolve("tlsa-bogus.test", "MX").secure)
        tlsa = resolve("_25._tcp.mx.tlsa-bogus.test", "TLSA")
        self.assertBogus(EDECode.DNSSEC_BOGUS, tlsa)

    def test_wholeZones(self) -> None:
        """
        Each fault of a zone has its own code (RFC 8914 4).
        """
        faults = {
            "sig-expired.test": EDECode.SIGNATURE_EXPIRED,
            "other-key.test": EDECode.DNSKEY_MISSING,
            "stripped.test": EDECode.DNSKEY_MISSING,
        }
        for domain, expected in faults.items():
            with self.subTest(domain):
                self.assertBogus(expected, resolve(domain, "MX"))
                self.assertBogus(expected, resolve(f"no.{domain}", "MX"))

    def test_time(self) -> None:
        """
        Signatures hold for their time only (RFC 4035 5.3.1).
        """
        late = resolve("dane-ee.test", "MX", NOON + 31 * DAY)
        self.assertBogus(EDECode.SIGNATURE_EXPIRED, late)
        early = resolve("dane-ee.test", "MX", NOON - DAY)
        self.assertBogus(EDECode.SIGNATURE_NOT_YET_VALID, early)

    def test_anchor(self) -> None:
        """
        Nothing is secure without the trust anchor.
        """
        stranger = dns.dnssec.make_ds_rdataset((dns.name.root, _someKeys()), {"SHA256"})
        doubting = Validator(authority().respond, stranger, lambda: NOON)
        found = doubting.resolve(dns.name.from_text("good.test"), dns.rdatatype.MX)
        self.assertBogus(EDECode.DNSKEY_MISSING, found)

    def test_stripped(self) -> None:
        """
        Removed signatures or proofs are detected: of records, of a denial, and of an
        unsigned delegation.
        """
        for kinds, expected in (
            ({dns.rdatatype.RRSIG}, EDECode.RRSIGS_MISSING),
            ({dns.rdatatype.RRSIG, dns.rdatatype.NSEC}, EDECode.RRSIGS_MISSING),
            ({dns.rdatatype.NSEC}, EDECode.NSEC_MISSING),
        ):
            for name, kind in (("x.dane-ee.test", "A"), ("dane-ee.test", "TXT")):
                with self.subTest(name, kinds=kinds):
                    found = _without(kinds).resolve(
                        dns.name.from_text(name), dns.rdatatype.from_text(kind)
                    )
                    self.assertBogus(expected, found)

    def test_wrongProof(self) -> None:
        """
        A denial of one name doesn't prove another's absence.
        """

        def mislead(query: dns.message.Message) -> dns.message.Message:
            response = authority().respond(query)
            if query.question[0].name == dns.name.from_text("mx.dane-ee.test"):
                other = authority().respond(ask("zzz.dane-ee.test", "A"))
                response.answer = []
                response.authority = other.authority
                response.set_rcode(dns.rcode.NXDOMAIN)
            return response

        found = Validator(mislead, tree().anchor, lambda: NOON).resolve(
            dns.name.from_text("mx.dane-ee.test"), dns.rdatatype.A
        )
        self.assertBogus(EDECode.NSEC_MISSING, found)


class ResponseTests(SynchronousTestCase):
    """
    Tests for responses.
    """

    def test_authenticData(self) -> None:
        """
        AD is set for queries with DO or AD (RFC 6840 5.7, 5.8).
        """
        query = ask("dane-ee.test", "MX")
        self.assertTrue(validator().respond(query).flags & dns.flags.AD)
        query = ask("dane-ee.test", "MX", dnssec=False)
        query.flags &= ~dns.flags.AD
        self.assertFalse(validator().respond(query).flags & dns.flags.AD)
        query.flags |= dns.flags.AD
        self.assertTrue(validator().respond(query).flags & dns.flags.AD)
        insecure = validator().respond(ask("good.test", "MX"))
        self.assertFalse(insecure.flags & dns.flags.AD)

    def test_signatures(self) -> None:
        """
        Signatures and proofs are in responses to queries with DO (RFC 4035 3.2.1).
        """
        for dnssec in (True, False):
            for name in ("dane-ee.test", "x.dane-ee.test"):
                response = validator().respond(ask(name, "MX", dnssec))
                sections = response.answer + response.authority
                kinds = {each.rdtype for each in sections}
                with self.subTest(name, dnssec=dnssec):
                    self.assertEqual(dnssec, dns.rdatatype.RRSIG in kinds)
                    self.assertEqual(dnssec, bool(response.ednsflags & dns.flags.DO))

    def test_error(self) -> None:
        """
        A failure comes with its reason (RFC 8914 2), if EDNS was spoken.
        """
        response = validator().respond(ask("mx-bogus.test", "MX"))
        (option,) = response.options
        assert isinstance(option, EDEOption)
        self.assertEqual(EDECode.DNSSEC_BOGUS, option.code)
        plain = dns.message.make_query("mx-bogus.test", "MX")
        self.assertEqual(-1, validator().respond(plain).edns)

    def test_checkingDisabled(self) -> None:
        """
        With CD, data is given as it is (RFC 4035 3.2.2), and not as authentic.
        """
        query = ask("mx-bogus.test", "MX")
        query.flags |= dns.flags.CD
        response = validator().respond(query)
        self.assertEqual(dns.rcode.NOERROR, response.rcode())
        self.assertTrue(response.answer)
        self.assertFalse(response.flags & dns.flags.AD)


def _someKeys() -> dns.rdataset.Rdataset:
    response = authority().respond(ask("dane-ee.test", "DNSKEY"))
    return response.answer[0].to_rdataset()


def _without(kinds: set[dns.rdatatype.RdataType]) -> Validator:
    """
    A validator that gets incomplete responses from the server of C{dane-ee.test}.
    """

    def ask(query: dns.message.Message) -> dns.message.Message:
        response = authority().respond(query)
        question = query.question[0]
        if "dane-ee" in str(question.name) and question.rdtype not in _CHAIN:
            for section in (response.answer, response.authority):
                section[:] = [each for each in section if each.rdtype not in kinds]
        return response

    return Validator(ask, tree().anchor, lambda: NOON)


_CHAIN = (dns.rdatatype.DS, dns.rdatatype.DNSKEY)
