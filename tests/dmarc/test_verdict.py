"""
Tests for L{moxtls.dmarc.verdict}.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import Authentication, AuthResult, SPFScope
from moxtls.dmarc.discovery import PublicSuffixes, discover
from moxtls.dmarc.types import Discovery, DMARCPolicy, OverrideKind, Verdict
from moxtls.dmarc.verdict import Aligned, LocalPolicy, MessageContext, align, evaluate
from moxtls.dns.types import LookupGenerator
from moxtls.domain import Domain
from tests.dmarc.zone import FAIL, PASS, Zone, checked, signature

NONE, QUARANTINE, REJECT = DMARCPolicy
TEMPERROR = AuthResult.TEMPERROR
AUTHOR = Domain("example.com")
ORDINARY = MessageContext()
PLAIN = LocalPolicy()
FORGED = checked(signature("other.example"), spf="other.example", status=PASS)


def looked(
    author: Domain, message: Authentication, suffixes: PublicSuffixes | None
) -> LookupGenerator[tuple[Discovery, Aligned]]:
    """
    All that is looked up about a message.
    """
    discovery = yield from discover(author, suffixes)
    return discovery, (yield from align(discovery, message, suffixes))


class EvaluateTestCase(SynchronousTestCase):
    """
    Evaluates messages of C{example.com}.
    """

    def evaluated(
        self,
        record: str,
        message: Authentication,
        localPolicy: LocalPolicy = PLAIN,
        circumstances: MessageContext = ORDINARY,
        author: Domain = AUTHOR,
        failing: tuple[str, ...] = (),
    ) -> Verdict:
        zone = Zone({"_dmarc.example.com": record} if record else {}, failing)
        discovery, aligned = zone.find(looked(author, message, localPolicy.suffixes))
        return evaluate(
            [author], discovery, aligned, message, circumstances, localPolicy
        )

    def assertDone(
        self, verdict: Verdict, disposition: DMARCPolicy, *reasons: OverrideKind
    ) -> None:
        """
        The verdict has this disposition and these override reasons.
        """
        self.assertEqual(verdict.disposition, disposition)
        self.assertEqual(tuple(each.kind for each in verdict.reasons), reasons)


class StatusTests(EvaluateTestCase):
    """
    Pass, fail, or neither.
    """

    def test_pass(self) -> None:
        """
        One aligned identifier that passes is enough (RFC 9989 5.3.5).
        """
        message = checked(signature("example.com", FAIL), signature("a.example.com"))
        verdict = self.evaluated("v=DMARC1; p=reject", message)
        self.assertIs(verdict.status, PASS)
        self.assertEqual((verdict.alignedDKIM, verdict.spfAligned), ((1,), False))
        self.assertEqual(verdict.policy, REJECT)
        self.assertDone(verdict, NONE)
        for scope in SPFScope:
            message = checked(spf="a.example.com", status=PASS, scope=scope)
            verdict = self.evaluated("v=DMARC1; p=reject", message)
            self.assertIs(verdict.status, PASS)
            self.assertTrue(verdict.spfAligned)

    def test_fail(self) -> None:
        """
        Without an aligned pass, the record's policy is applied.
        """
        for policy in DMARCPolicy:
            message = checked(signature("example.com", FAIL))
            verdict = self.evaluated(f"v=DMARC1; p={policy}", message)
            self.assertIs(verdict.status, FAIL)
            self.assertDone(verdict, policy)

    def test_subdomains(self) -> None:
        """
        C{sp} for subdomains, C{np} for those that don't exist
        (RFC 9989 4.10.1).
        """
        child = Domain("a.example.com")
        for record, policy in [
            ("v=DMARC1; p=reject", REJECT),
            ("v=DMARC1; p=reject; sp=none", NONE),
            ("v=DMARC1; p=none; sp=none; np=quarantine", QUARANTINE),
        ]:
            verdict = self.evaluated(record, checked(), author=child)
            self.assertDone(verdict, policy)

    def test_none(self) -> None:
        """
        No record, or an unusable one: no verdict (RFC 9989 4.10.1, RFC 7489 11.2).
        """
        for record, status in [
            ("", AuthResult.NONE),
            ("v=DMARC1; p=x", AuthResult.PERMERROR),
        ]:
            verdict = self.evaluated(record, FORGED)
            self.assertIs(verdict.status, status)
            self.assertDone(verdict, NONE)

    def test_temporary(self) -> None:
        """
        A check that may have passed if it could have been made keeps a
        message from being refused (RFC 9989 5.3.6).
        """
        for message in (
            checked(signature("a.example.com", TEMPERROR)),
            checked(spf="example.com", status=TEMPERROR),
        ):
            verdict = self.evaluated("v=DMARC1; p=reject", message)
            self.assertIs(verdict.status, TEMPERROR)
            self.assertDone(verdict, NONE, OverrideKind.OTHER)
            verdict = self.evaluated("v=DMARC1; p=none", message)
            self.assertDone(verdict, NONE)

    def test_temporaryOthers(self) -> None:
        """
        A temporary error of an unaligned identifier changes nothing; nor does one
        beside an aligned pass.
        """
        message = checked(signature("other.example", TEMPERROR))
        self.assertIs(self.evaluated("v=DMARC1; p=reject", message).status, FAIL)
        message = checked(signature("example.com", TEMPERROR), signature("example.com"))
        self.assertIs(self.evaluated("v=DMARC1; p=reject", message).status, PASS)

    def test_failedLookups(self) -> None:
        """
        A policy that may not be the applicable one isn't applied; but the author's
        own domain passes under any.
        """
        record, child = "v=DMARC1; p=reject", Domain("a.example.com")
        failing = ("_dmarc.a.example.com",)
        verdict = self.evaluated(record, FORGED, author=child, failing=failing)
        self.assertIs(verdict.status, TEMPERROR)
        self.assertDone(verdict, NONE, OverrideKind.OTHER)
        own = checked(signature("a.example.com"))
        verdict = self.evaluated(record, own, author=child, failing=failing)
        self.assertIs(verdict.status, PASS)
        verdict = self.evaluated("", own, failing=("_dmarc.example.com",))
        self.assertIs(verdict.status, TEMPERROR)
        # The policy is known, and the forger isn't the author's organization,
        # wherever that begins.
        verdict = self.evaluated(record, FORGED, failing=("_dmarc.com",))
        self.assertDone(verdict, REJECT)

    def test_authors(self) -> None:
        """
        A repeated domain is one author; DMARC doesn't apply without authors (RFC 9989
        5.3.1).
        """
        twice = evaluate([AUTHOR, AUTHOR], None, None, FORGED, ORDINARY, PLAIN)
        self.assertEqual((twice.status, twice.author), (AuthResult.NONE, AUTHOR))
        nobody = evaluate([], None, None, FORGED, ORDINARY, PLAIN)
        self.assertIsNone(nobody.author)
        self.assertDone(nobody, NONE)

    def test_severalAuthors(self) -> None:
        """
        Several authors don't evade a policy (RFC 9989 11.5), within the local
        enforcement.
        """
        froms = [AUTHOR, Domain("other.example")]
        verdict = evaluate(froms, None, None, FORGED, ORDINARY, PLAIN)
        self.assertEqual((verdict.status, verdict.author), (AuthResult.NONE, None))
        self.assertDone(verdict, QUARANTINE)
        for localPolicy in (
            LocalPolicy(enforcement=NONE),
            LocalPolicy(mailingLists=frozenset({Domain("other.example")})),
        ):
            verdict = evaluate(froms, None, None, FORGED, ORDINARY, localPolicy)
            self.assertDone(verdict, NONE)

    def test_notLooked(self) -> None:
        """
        Without alignment, nothing is refused.
        """
        discovery = Zone({"_dmarc.example.com": "v=DMARC1; p=reject"}).find(
            discover(AUTHOR)
        )
        verdict = evaluate([AUTHOR], discovery, None, FORGED, ORDINARY, PLAIN)
        self.assertIs(verdict.status, TEMPERROR)


class OverrideTests(EvaluateTestCase):
    """
    Reasons why the disposition differs from the policy (RFC 9990 3.1.6).
    """

    RECORD = "v=DMARC1; p=reject"

    def test_testMode(self) -> None:
        """
        C{t=y} weakens the policy by one level (RFC 9989 4.7).
        """
        for policy, done in ((REJECT, QUARANTINE), (QUARANTINE, NONE)):
            verdict = self.evaluated(f"v=DMARC1; p={policy}; t=y", FORGED)
            self.assertEqual(verdict.policy, policy)
            self.assertDone(verdict, done, OverrideKind.POLICY_TEST_MODE)
        self.assertDone(self.evaluated("v=DMARC1; p=none; t=y", FORGED), NONE)

    def test_testModeLegacy(self) -> None:
        """
        C{t} is unknown to RFC 7489 6.3, so it changes nothing.
        """
        legacy = LocalPolicy(PublicSuffixes(lambda: lambda name: "example.com"))
        for policy in (REJECT, QUARANTINE):
            verdict = self.evaluated(f"v=DMARC1; p={policy}; t=y", FORGED, legacy)
            self.assertDone(verdict, policy)

    def test_sampled(self) -> None:
        """
        C{pct} applies to RFC 7489 only (6.6.4): unsampled mail under C{reject} is
        quarantined.
        """
        legacy = LocalPolicy(PublicSuffixes(lambda: lambda name: "example.com"))
        for policy, percent, chance, done in [
            (REJECT, 50, 0.5, QUARANTINE),
            (QUARANTINE, 50, 0.99, NONE),
            (REJECT, 0, 0.0, QUARANTINE),
        ]:
            record = f"v=DMARC1; p={policy}; pct={percent}"
            luck = MessageContext(chance=chance)
            verdict = self.evaluated(record, FORGED, legacy, luck)
            self.assertDone(verdict, done, OverrideKind.SAMPLED_OUT)
            self.assertDone(self.evaluated(record, FORGED, PLAIN, luck), policy)
        for record, chance in ((self.RECORD, 0.999), (self.RECORD + "; pct=50", 0.49)):
            verdict = self.evaluated(
                record, FORGED, legacy, MessageContext(chance=chance)
            )
            self.assertDone(verdict, REJECT)

    def test_mailingList(self) -> None:
        """
        Mail of a known list is accepted, if SPF or DKIM authenticates the list.
        """
        localPolicy = LocalPolicy(mailingLists=frozenset({Domain("list.example")}))
        for message, done in [
            (checked(signature("list.example")), True),
            (checked(signature("sub.list.example")), True),
            (checked(spf="list.example", status=PASS), True),
            (checked(signature("list.example", FAIL), spf="list.example"), False),
            (checked(signature("mylist.example")), False),
        ]:
            verdict = self.evaluated(self.RECORD, message, localPolicy)
            if done:
                self.assertDone(verdict, NONE, OverrideKind.MAILING_LIST)
            else:
                self.assertDone(verdict, REJECT)
        passing = checked(signature("list.example"), signature("example.com"))
        self.assertDone(self.evaluated(self.RECORD, passing, localPolicy), NONE)

    def test_forwarder(self) -> None:
        """
        Mail by a forwarder we trust: by its network, or by any of its names
        that was verified.
        """
        network = LocalPolicy(
            forwarderNetworks=(ip_network("2001:db8::/32"), ip_network("192.0.2.0/24"))
        )
        byName = LocalPolicy(forwarderDomains=frozenset({Domain("client.example")}))
        for message, localPolicy in [
            (checked(), network),
            (checked(signature("client.example")), byName),
            (checked(helo=PASS), byName),
            (checked(iprev="mail.client.example"), byName),
        ]:
            verdict = self.evaluated(self.RECORD, message, localPolicy)
            self.assertDone(verdict, NONE, OverrideKind.TRUSTED_FORWARDER)
        self.assertDone(self.evaluated(self.RECORD, checked(), byName), REJECT)

    def test_localPolicy(self) -> None:
        """
        A local policy for the author or its organization takes precedence; if it
        equals the published one, there is no override reason.
        """
        child = Domain("a.example.com")
        for policy in DMARCPolicy:
            localPolicy = LocalPolicy(localPolicies={AUTHOR: policy})
            reasons = () if policy is REJECT else (OverrideKind.LOCAL_POLICY,)
            for author in (AUTHOR, child):
                verdict = self.evaluated(
                    self.RECORD, checked(), localPolicy, author=author
                )
                self.assertEqual(verdict.policy, REJECT)
                self.assertDone(verdict, policy, *reasons)
        localPolicy = LocalPolicy(localPolicies={AUTHOR: REJECT})
        lists = MessageContext(isFromList=True)
        verdict = self.evaluated("v=DMARC1; p=none; t=y", FORGED, localPolicy, lists)
        self.assertDone(verdict, REJECT, OverrideKind.LOCAL_POLICY)

    def test_enforcement(self) -> None:
        """
        No more is done than is done at all.
        """
        for most in (NONE, QUARANTINE):
            verdict = self.evaluated(self.RECORD, FORGED, LocalPolicy(enforcement=most))
            self.assertDone(verdict, most, OverrideKind.LOCAL_POLICY)
        verdict = self.evaluated(
            self.RECORD + "; t=y", FORGED, LocalPolicy(enforcement=NONE)
        )
        self.assertDone(
            verdict, NONE, OverrideKind.POLICY_TEST_MODE, OverrideKind.LOCAL_POLICY
        )

    def test_indirect(self) -> None:
        """
        Mail that may have come by a list or a forwarder isn't refused
        (RFC 9989 7.4); one sign alone won't do.
        """
        listed = MessageContext(isFromList=True)
        broken = signature("example.com", FAIL)
        for message, circumstances, reason in [
            (FORGED, listed, OverrideKind.MAILING_LIST),
            (checked(signature("other.example")), listed, OverrideKind.MAILING_LIST),
            (
                checked(broken, signature("other.example")),
                ORDINARY,
                OverrideKind.LOCAL_POLICY,
            ),
            (
                checked(broken, spf="other.example", status=PASS),
                ORDINARY,
                OverrideKind.LOCAL_POLICY,
            ),
            (checked(broken), listed, None),
            (checked(broken), ORDINARY, None),
            (FORGED, ORDINARY, None),
        ]:
            verdict = self.evaluated(self.RECORD, message, PLAIN, circumstances)
            if reason is None:
                self.assertDone(verdict, REJECT)
            else:
                self.assertDone(verdict, QUARANTINE, reason)
                self.assertTrue(verdict.reasons[0].comment)

    def test_indirectUnverifiable(self) -> None:
        """
        A signature that the author may never have made is no sign of a message
        that came round (RFC 9989 7.4): for some there is no key, others can't
        be read.
        """
        other = signature("other.example")
        for status in (AuthResult.PERMERROR, AuthResult.POLICY, AuthResult.NEUTRAL):
            message = checked(signature("example.com", status), other)
            self.assertDone(self.evaluated(self.RECORD, message, PLAIN), REJECT)
        # Verified, but for a part of the body that it doesn't cover.
        partly = replace(signature("example.com", AuthResult.POLICY), keySize=2048)
        verdict = self.evaluated(self.RECORD, checked(partly, other), PLAIN)
        self.assertDone(verdict, QUARANTINE, OverrideKind.LOCAL_POLICY)

    def test_indirectOwn(self) -> None:
        """
        The author's organization isn't an indirect sender.
        """
        record = self.RECORD + "; adkim=s; aspf=s"
        message = checked(signature("a.example.com"), signature("example.com", FAIL))
        verdict = self.evaluated(
            record, message, PLAIN, MessageContext(isFromList=True)
        )
        self.assertDone(verdict, REJECT)

    def test_indirectQuarantine(self) -> None:
        """
        Quarantine is quarantine.
        """
        verdict = self.evaluated(
            "v=DMARC1; p=quarantine", FORGED, PLAIN, MessageContext(isFromList=True)
        )
        self.assertDone(verdict, QUARANTINE)


class HostileTests(SynchronousTestCase):
    """
    Any combination of inputs.
    """

    @settings(max_examples=80, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["example.com", "a.example.com", "x.example", "com"]),
                st.sampled_from(AuthResult),
            ),
            max_size=4,
        ),
        st.text(max_size=20),
        st.sampled_from(AuthResult),
        st.sampled_from(["reject", "quarantine", "none", "x"]),
        st.sets(st.sampled_from(["_dmarc.com", "_dmarc.a.example.com"])),
        st.booleans(),
    )
    def test_evaluate(
        self,
        signed: list[tuple[str, AuthResult]],
        sender: str,
        status: AuthResult,
        policy: str,
        failing: set[str],
        isFromList: bool,
    ) -> None:
        """
        There is always a verdict; its disposition is C{none} unless DMARC failed, and
        never stricter than the policy; a weaker one has a reason (RFC 9990 3.1.1.9).
        """
        message = checked(
            *(signature(*each) for each in signed), spf=sender, status=status
        )
        zone = Zone({"_dmarc.example.com": f"v=DMARC1; p={policy}"}, failing)
        author = Domain("a.example.com")
        discovery, aligned = zone.find(looked(author, message, None))
        circumstances = MessageContext(isFromList)
        verdict = evaluate([author], discovery, aligned, message, circumstances, PLAIN)
        levels = list(DMARCPolicy)
        self.assertLessEqual(
            levels.index(verdict.disposition), levels.index(verdict.policy)
        )
        isPass = verdict.status is PASS
        self.assertEqual(isPass, bool(verdict.alignedDKIM) or verdict.spfAligned)
        self.assertTrue(verdict.status is FAIL or verdict.disposition is NONE)
        different = verdict.disposition is not verdict.policy
        self.assertEqual(bool(verdict.reasons), different and not isPass)
