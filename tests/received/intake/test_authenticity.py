"""
Tests for L{moxtls.received.intake.authenticity}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.authentication.results import (
    Authentication,
    AuthResult,
    DKIMResult,
    IPRevResult,
    SPFResult,
    SPFScope,
)
from moxtls.dates import DAY, MINUTE
from moxtls.dmarc.types import Discovery, DiscoveryMethod, Verdict
from moxtls.domain import Domain
from moxtls.message.addresses import Authors, FromField
from moxtls.received.intake.authenticity import (
    AuthenticationUnavailable,
    judge,
    judgeMailed,
    withoutRepeated,
)
from moxtls.received.types import (
    AcceptedReport,
    Channel,
    Origin,
    ParsedReport,
    RawFormat,
    ReceivedKind,
    RefusedReport,
)
from moxtls.tlsrpt.parse import ReceivedPolicy

NOW = 1_800_000_000
OURS = frozenset({"our.example", "mx.our.example"})
MAIL = Origin(Channel.MAIL, "google.example", "", NOW)
NONE = AuthResult.NONE


def policy(domain: str) -> ReceivedPolicy:
    """
    A policy of a TLS report.
    """
    return ReceivedPolicy("sts", domain, (), (), 7, 0, ())


def tlsReport(*domains: str, hint: str = "", end: int = NOW) -> ParsedReport:
    """
    A TLS report with a policy for each domain.
    """
    return ParsedReport(
        ReceivedKind.TLS,
        "Example Inc.",
        "tls@google.example",
        "id1",
        end - DAY,
        end,
        b"content",
        b"raw",
        RawFormat.JSON,
        7,
        0,
        domainHint=hint,
        policies=tuple(map(policy, domains)),
    )


def dmarcReport(
    domain: str = "our.example",
    end: int = NOW,
    kind: ReceivedKind = ReceivedKind.DMARC,
) -> ParsedReport:
    """
    A DMARC report.
    """
    return replace(tlsReport(end=end), kind=kind, domain=domain, format=RawFormat.XML)


def outcome(
    *dkim: DKIMResult,
    author: str = "google.example",
    organization: str = "google.example",
    status: AuthResult = NONE,
    isTemporary: bool = False,
) -> AuthenticationOutcome:
    """
    The outcome for a message with signatures.

    @param author: Empty if From has no single author.
    @param organization: The organizational domain.
    @param status: Of DMARC.
    @param isTemporary: Whether a lookup of policies failed.
    """
    if not author:
        return AuthenticationOutcome(
            authentication(*dkim),
            Verdict(NONE),
            Authors(FromField.MISSING),
        )
    discovery = Discovery(
        Domain(author),
        Domain(organization),
        DiscoveryMethod.TREE_WALK,
        temporary=isTemporary,
    )
    return AuthenticationOutcome(
        authentication(*dkim),
        Verdict(status, Domain(author), discovery),
        Authors(FromField.READ, (Domain(author),)),
    )


def authentication(*dkim: DKIMResult) -> Authentication:
    """
    Results with signatures, and nothing else.
    """
    spf = SPFResult(SPFScope.MAIL_FROM, "google.example", NONE)
    return Authentication("192.0.2.1", IPRevResult(NONE), spf, spf, dkim)


def signature(
    domain: str = "google.example",
    status: AuthResult = AuthResult.PASS,
    problem: str = "",
    hasLength: bool = False,
    passesForTLSRPT: bool = False,
) -> DKIMResult:
    """
    The result of a signature with selector C{s}.
    """
    return DKIMResult(
        Domain(domain),
        "s",
        status,
        problem,
        hasLength=hasLength,
        passesForTLSRPT=passesForTLSRPT,
    )


class JudgeMailedTests(SynchronousTestCase):
    """
    Tests for L{judgeMailed}.
    """

    def authentication(
        self, report: ParsedReport, found: AuthenticationOutcome | None
    ) -> tuple[str, str]:
        """
        What authenticates a report, and the reason if it is refused.
        """
        judged = judgeMailed(report, MAIL, found, OURS)
        if isinstance(judged, RefusedReport):
            self.assertIs(judged.report, report)
            self.assertIs(judged.kind, report.kind)
            self.assertEqual(judged.origin.authentication, "")
            return "", judged.reason
        return judged.origin.authentication, ""

    def test_signatures(self) -> None:
        """
        A TLS report needs one valid signature of the author domain, or of a parent
        within its organizational domain, without C{l=}, by a key for mail or TLS
        reports (RFC 8460 3).  It needn't pass DMARC.
        """
        report = tlsReport("our.example")
        failed = AuthResult.FAIL
        mail = "mail.google.example"
        for found, expected in [
            (outcome(signature()), "DKIM google.example"),
            (outcome(signature(), author=mail), "DKIM google.example"),
            (outcome(signature(mail), author=mail), f"DKIM {mail}"),
            (outcome(signature(), status=failed), "DKIM google.example"),
            (
                outcome(signature(status=failed), signature()),
                "DKIM google.example",
            ),
            (
                outcome(signature(status=AuthResult.PERMERROR, passesForTLSRPT=True)),
                "DKIM google.example",
            ),
        ]:
            self.assertEqual(self.authentication(report, found), (expected, ""))

    def test_noSignature(self) -> None:
        """
        The reason names the signatures that there are, and what is wrong with them.
        """
        report = tlsReport("our.example")
        of = "no DKIM signature of google.example"
        failed, permerror = AuthResult.FAIL, AuthResult.PERMERROR
        for found, expected in [
            (outcome(), f"there is {of}"),
            (
                outcome(signature("other.example"), signature("b.example")),
                f"there is {of}: it is signed by other.example, b.example",
            ),
            # A child, a sibling, and the parent of another organization.
            (
                outcome(signature("sub.google.example")),
                f"there is {of}: it is signed by sub.google.example",
            ),
            (
                outcome(signature("example"), author="google.example"),
                f"there is {of}: it is signed by example",
            ),
            (
                outcome(
                    signature("google.example"),
                    author="a.google.example",
                    organization="a.google.example",
                ),
                "there is no DKIM signature of a.google.example: it is signed by "
                "google.example",
            ),
            (
                outcome(signature(status=failed, problem="the body was changed")),
                f"{of} is acceptable: s: the body was changed",
            ),
            (
                outcome(signature(hasLength=True), signature(status=failed)),
                f"{of} is acceptable: s: it has l=; s: fail",
            ),
            (
                outcome(
                    signature(status=permerror, hasLength=True, passesForTLSRPT=True)
                ),
                f"{of} is acceptable: s: it has l=",
            ),
            (
                replace(
                    outcome(signature()),
                    verdict=Verdict(NONE, problem="authors of several domains"),
                ),
                "there is no submitter: authors of several domains",
            ),
            (
                outcome(signature(), author=""),
                f"there is no submitter: {FromField.MISSING}",
            ),
            (None, "the message was not authenticated"),
        ]:
            self.assertEqual(self.authentication(report, found), ("", expected))

    def test_dmarc(self) -> None:
        """
        DMARC reports of both kinds have to pass DMARC (RFC 9990 3.5.2), a signature
        alone isn't enough.
        """
        valid = signature("other.example")
        name = "google.example"
        for kind in (ReceivedKind.DMARC, ReceivedKind.FAILURE):
            report = dmarcReport(kind=kind)
            for status, expected in [
                (AuthResult.PASS, (f"DMARC {name}", "")),
                (AuthResult.FAIL, ("", f"DMARC fails for {name}")),
                (AuthResult.PERMERROR, ("", f"DMARC is permerror for {name}")),
                (
                    AuthResult.NONE,
                    (
                        "",
                        f"{name} has no DMARC policy, so the message doesn't pass",
                    ),
                ),
            ]:
                found = outcome(valid, status=status)
                self.assertEqual(self.authentication(report, found), expected)
            found = outcome(valid, author="")
            expected = ("", f"DMARC can't be checked: {FromField.MISSING}")
            self.assertEqual(self.authentication(report, found), expected)
            expected = ("", "the message was not authenticated")
            self.assertEqual(self.authentication(report, None), expected)

    def test_uncertain(self) -> None:
        """
        If a lookup failed on which the decision depends, there is none yet; it doesn't
        depend on the signatures of others, nor on any if there is a good one.
        """
        temporary = AuthResult.TEMPERROR
        tls, dmarc = tlsReport("our.example"), dmarcReport()
        unknown = signature(status=temporary)
        other = signature("other.example", status=temporary)
        mail = "mail.google.example"
        for report, found in [
            (dmarc, outcome(status=temporary)),
            (tls, outcome(unknown)),
            (
                tls,
                outcome(signature(), author=mail, organization=mail, isTemporary=True),
            ),
        ]:
            with self.assertRaises(AuthenticationUnavailable):
                judgeMailed(report, MAIL, found, OURS)
        for found, expected in [
            (outcome(unknown, signature(), isTemporary=True), "DKIM google.example"),
            (outcome(other), ""),
            (outcome(isTemporary=True), ""),
            (outcome(signature(status=AuthResult.FAIL), isTemporary=True), ""),
        ]:
            self.assertEqual(self.authentication(tls, found)[0], expected)

    def test_both(self) -> None:
        """
        An authentic report is refused for its content all the same.
        """
        judged = judgeMailed(
            tlsReport("other.example"), MAIL, outcome(signature()), OURS
        )
        assert isinstance(judged, RefusedReport)
        self.assertIn("other.example", judged.reason)


class JudgeTests(SynchronousTestCase):
    """
    Tests for L{judge}.
    """

    def refusal(self, report: ParsedReport, reported: str = "") -> str:
        """
        The reason why a report is refused; empty if it is accepted.
        """
        judged = judge(report, MAIL, OURS, reported)
        return judged.reason if isinstance(judged, RefusedReport) else ""

    def counted(
        self, report: ParsedReport, reported: str = ""
    ) -> tuple[set[str], list[str]]:
        """
        The domains for which a TLS report is counted, and those of its policies.
        """
        judged = judge(report, MAIL, OURS, reported)
        assert isinstance(judged, AcceptedReport), judged
        assert judged.domains is not None
        return set(judged.domains), [each.domain for each in judged.report.policies]

    def test_policies(self) -> None:
        """
        Policies of other domains aren't counted; the name of this host is a policy
        domain, as RFC 8460 4.4 lets reporters name MX hosts.
        """
        names = ["our.example", "other.example", "mx.our.example"]
        found = self.counted(tlsReport(*names))
        self.assertEqual(found, ({"our.example", "mx.our.example"}, names))

    def test_unusableDomain(self) -> None:
        """
        A policy whose domain is none is not counted (RFC 8460 4.4), and not taken to
        be about the domain that the message names; the others are.
        """
        names = ["our.example", "'*.our.example'"]
        found = self.counted(tlsReport(*names), "mx.our.example")
        self.assertEqual(found, ({"our.example"}, names))
        reason = self.refusal(tlsReport(*names[1:]), "our.example")
        self.assertEqual(reason, "'*.our.example' is no domain")

    def test_withoutDomain(self) -> None:
        """
        A policy without a domain is about the one that the message or file says,
        else about that of the address.
        """
        report = tlsReport("")
        self.assertEqual(
            self.counted(report, "our.example"), ({"our.example"}, ["our.example"])
        )
        hinted = tlsReport("", "x.example", hint="mx.our.example")
        self.assertEqual(
            self.counted(hinted, "our.example"),
            ({"mx.our.example"}, ["mx.our.example", "x.example"]),
        )
        self.assertEqual(self.refusal(report), "it names no policy domain")
        self.assertEqual(self.refusal(tlsReport()), "it names no policy domain")

    def test_otherDomains(self) -> None:
        """
        A report about none of the local domains is refused, also if it is about a
        subdomain or a parent; a failure report is about an author domain, whose
        policy may be a parent's.
        """
        about = "none of the domains of this host"
        many = tlsReport("a.example", "b.example", "c.example", "d.example")
        for report, named in [
            (tlsReport("sub.our.example"), "sub.our.example"),
            (tlsReport("example"), "example"),
            (many, "a.example, b.example, c.example and others"),
            (dmarcReport("sub.our.example"), "sub.our.example"),
            (
                dmarcReport("ur.example", kind=ReceivedKind.FAILURE),
                "ur.example",
            ),
        ]:
            self.assertEqual(self.refusal(report), f"it is about {named}, {about}")
        failure = dmarcReport("a.sub.our.example", kind=ReceivedKind.FAILURE)
        self.assertEqual(self.refusal(failure), "")
        self.assertEqual(self.refusal(dmarcReport()), "")

    def test_future(self) -> None:
        """
        A period ends at most a minute after the reception of a DMARC report, and a day
        after that of a TLS report: clocks differ, and some reporters give the end of
        the day.
        """
        for good, bad in [
            (
                dmarcReport(end=NOW + MINUTE),
                dmarcReport(end=NOW + MINUTE + 1),
            ),
            (
                tlsReport("our.example", end=NOW + DAY),
                tlsReport("our.example", end=NOW + DAY + 1),
            ),
        ]:
            self.assertEqual(self.refusal(good), "")
            self.assertRegex(
                self.refusal(bad), r"^its period ends in the future, at 2027-01-1"
            )


class WithoutRepeatedTests(SynchronousTestCase):
    """
    Tests for L{withoutRepeated}.
    """

    def counted(self, hint: str, *hosts: str, reported: str = "") -> set[str]:
        """
        The domains counted of a report with a policy for C{our.example}.

        @param hosts: C{mx-host} of the policy.
        @param reported: The domain that the address is for.
        """
        report = tlsReport("our.example", "mx.our.example", hint=hint)
        first, second = report.policies
        policies = (replace(first, mxHosts=hosts), second)
        judged = judge(replace(report, policies=policies), MAIL, OURS)
        found = withoutRepeated(judged, "mx.our.example", {"our.example"}, reported)
        assert isinstance(found, AcceptedReport)
        assert found.domains is not None
        return set(found.domains)

    def test_host(self) -> None:
        """
        A report about the host repeats results of its recipient domains, which are
        counted with the reports about these.
        """
        host = "mx.our.example"
        for found in (
            self.counted(host, host),
            self.counted(host, "MX.our.example."),
            self.counted("", host, reported=host),
        ):
            self.assertEqual(found, {host})

    def test_others(self) -> None:
        """
        Other reports with several policies are counted for all of them (RFC 8460 4.4),
        and so are domains without reports of their own.
        """
        for hint, hosts in [
            ("our.example", ("mx.our.example",)),
            ("", ("mx.our.example",)),
            ("mx.our.example", ("*.our.example",)),
            ("mx.our.example", ()),
        ]:
            self.assertEqual(self.counted(hint, *hosts), set(OURS), hint)
        report = tlsReport("our.example", hint="mx.our.example")
        judged = judge(report, MAIL, OURS)
        self.assertEqual(withoutRepeated(judged, "mx.our.example", ()), judged)
        dmarc = judge(dmarcReport(), MAIL, OURS)
        self.assertIs(withoutRepeated(dmarc, "", OURS), dmarc)
        refused = judge(tlsReport("other.example"), MAIL, OURS)
        self.assertIs(withoutRepeated(refused, "mx.our.example", OURS), refused)
