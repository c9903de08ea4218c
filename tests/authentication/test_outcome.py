"""
Tests for L{moxtls.authentication.outcome}.
"""

from __future__ import annotations

import re
from dataclasses import replace

from authres import AuthenticationResultsHeader
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.outcome import (
    LINE_LENGTH,
    authenticationResults,
    receivedSPF,
)
from moxtls.authentication.results import (
    Authentication,
    AuthResult,
    DKIMResult,
    IPRevResult,
    SPFResult,
    SPFScope,
)
from moxtls.dmarc.types import (
    Discovery,
    DiscoveryMethod,
    DMARCPolicy,
    DMARCRecord,
    Override,
    OverrideKind,
    Verdict,
)
from moxtls.domain import Domain

US = "mx.example.org"
A = Domain("a.example")
FOUND = Authentication(
    "192.0.2.1",
    IPRevResult(AuthResult.PASS, "mail.a.example"),
    SPFResult(SPFScope.HELO, "mail.a.example", AuthResult.NONE),
    SPFResult(SPFScope.MAIL_FROM, "a.example", AuthResult.PASS, "ip4:192.0.2.0/24"),
    (
        DKIMResult(
            A, "s", AuthResult.PASS, "", "@a.example", "rsa-sha256", "ab/+cd==", 2048
        ),
        DKIMResult(Domain("b.example"), "t", AuthResult.FAIL, "the body was changed"),
    ),
)
DISCOVERY = Discovery(
    A, A, DiscoveryMethod.TREE_WALK, A, DMARCRecord(p=DMARCPolicy.REJECT)
)
PASSED = Verdict(
    AuthResult.PASS, A, DISCOVERY, DMARCPolicy.REJECT, DMARCPolicy.NONE, (0,), True
)
#: Untrusted names and texts.
WORDS = st.text(max_size=300)

Parsed = list[tuple[str, str, str | None, dict[str, str]]]


def parsed(field: bytes) -> Parsed:
    """
    The field as read by an independent parser: method, result, reason, and
    properties.
    """
    text = field.decode().replace("\r\n", "")
    read = AuthenticationResultsHeader.parse(text)
    return [
        (
            each.method,
            each.result,
            each.reason,
            {f"{p.type}.{p.name}": _unescaped(p.value) for p in each.properties},
        )
        for each in read.results
    ]


def _unescaped(value: str) -> str:
    # Which that parser leaves to others.
    return re.sub(r"\\(.)", r"\1", value)


class ResultsTests(SynchronousTestCase):
    """
    Tests for L{authenticationResults}.
    """

    def test_read(self) -> None:
        """
        Every method has its result and properties (RFC 8601 2.7, RFC 6008),
        for others to read.
        """
        field = authenticationResults(US, FOUND, PASSED, "x@a.example")
        self.assertTrue(
            field.startswith(b"Authentication-Results: mx.example.org;\r\n\t")
        )
        signature = {
            "header.d": "a.example",
            "header.s": "s",
            "header.a": "rsa-sha256",
            "header.b": "ab/+cd==",
        }
        self.assertEqual(
            parsed(field),
            [
                ("iprev", "pass", None, {"policy.iprev": "192.0.2.1"}),
                ("spf", "pass", None, {"smtp.mailfrom": "x@a.example"}),
                ("spf", "none", None, {"smtp.helo": "mail.a.example"}),
                ("dkim", "pass", None, signature),
                (
                    "dkim",
                    "fail",
                    "the body was changed",
                    {"header.d": "b.example", "header.s": "t"},
                ),
                (
                    "dmarc",
                    "pass",
                    None,
                    {"header.from": "a.example", "policy.dmarc": "reject"},
                ),
            ],
        )

    def test_overridden(self) -> None:
        """
        Disposition and override are in a comment.
        """
        verdict = replace(
            PASSED,
            status=AuthResult.FAIL,
            disposition=DMARCPolicy.QUARANTINE,
            reasons=(Override(OverrideKind.MAILING_LIST, "looks like one"),),
        )
        field = authenticationResults(US, FOUND, verdict, "x@a.example")
        self.assertIn(b"(disposition quarantine, override mailing_list)", field)
        self.assertEqual(parsed(field)[-1][1], "fail")

    def test_nothing(self) -> None:
        """
        Without a signature, policy or author the field says so (RFC 8601 2.7.1); with
        a null sender SPF is listed once, for HELO.
        """
        bounce = replace(FOUND, spf=FOUND.helo, dkim=(), address="")
        verdict = Verdict(AuthResult.NONE, problem="no author domain")
        field = authenticationResults(US, bounce, verdict, "")
        self.assertNotIn(b"policy.iprev", field)
        self.assertEqual(
            parsed(field)[1:],
            [
                ("spf", "none", None, {"smtp.helo": "mail.a.example"}),
                ("dkim", "none", None, {}),
                ("dmarc", "none", "no author domain", {}),
            ],
        )

    def test_quoted(self) -> None:
        """
        Addresses and names with other characters are quoted (RFC 8601 2.2).
        """
        helo = replace(FOUND.helo, domain='x"; dkim=pass (\\')
        found = replace(FOUND, address="2001:db8::1", helo=helo, dkim=())
        read = parsed(authenticationResults(US, found, PASSED, '"a b"@a.example'))
        properties = [each[3] for each in read[:3]]
        self.assertEqual(
            properties,
            [
                {"policy.iprev": "2001:db8::1"},
                {"smtp.mailfrom": '"a b"@a.example'},
                {"smtp.helo": 'x"; dkim=pass (\\'},
            ],
        )

    def test_folded(self) -> None:
        """
        Lines are as long as RFC 5322 2.1.1 would have them.
        """
        field = authenticationResults(US, FOUND, PASSED, "x@a.example")
        self.assertTrue(field.endswith(b"\r\n"))
        for line in field.split(b"\r\n"):
            self.assertLessEqual(len(line), LINE_LENGTH)

    @given(WORDS, WORDS, WORDS, WORDS)
    @settings(max_examples=100, deadline=None)
    def test_untrustedInput(self, helo: str, sender: str, name: str, word: str) -> None:
        """
        Text from other hosts adds no results and no lines.
        """
        signature = DKIMResult(A, word, AuthResult.FAIL, word, word, word, word)
        found = replace(
            FOUND,
            iprev=IPRevResult(AuthResult.FAIL, name, word),
            helo=replace(FOUND.helo, domain=helo, problem=word),
            dkim=(signature,),
        )
        field = authenticationResults(US, found, replace(PASSED, problem=word), sender)
        lines = field.decode().split("\r\n")
        self.assertEqual(lines.pop(), "")
        self.assertTrue(all(line.startswith("\t") for line in lines[1:]))
        self.assertNotRegex("".join(lines), "[\r\n\0]")
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "q", "".join(lines))
        bare = re.sub(r"\([^()\\]*\)", "c", bare)
        self.assertEqual(bare.count(";"), 5)
        self.assertNotRegex(bare, r'["()\\]')


class ReceivedSPFTests(SynchronousTestCase):
    """
    Tests for L{receivedSPF}.
    """

    def test_fields(self) -> None:
        """
        RFC 7208 9.1: result, comment, and key-value pairs.
        """
        field = receivedSPF(US, FOUND, "x@a.example", "mail.a.example").decode()
        self.assertEqual(
            " ".join(field.split()),
            "Received-SPF: pass (mx.example.org: 192.0.2.1 is permitted to send for "
            "x@a.example) receiver=mx.example.org; identity=mailfrom; "
            'client-ip=192.0.2.1; envelope-from="x@a.example"; helo=mail.a.example; '
            'mechanism="ip4:192.0.2.0/24"',
        )

    def test_helo(self) -> None:
        """
        With a null sender the field is about HELO (RFC 7208 2.4).
        """
        found = replace(
            FOUND,
            spf=SPFResult(SPFScope.HELO, "x", AuthResult.PERMERROR, problem="p q"),
        )
        field = receivedSPF(US, found, "", 'x";\u00fc').decode()
        self.assertIn("identity=helo;", field)
        self.assertIn('helo="x\\";?"', field)
        self.assertIn('problem="p q"', field)
        self.assertTrue(field.startswith("Received-SPF: permerror ("))

    @given(WORDS, WORDS)
    @settings(max_examples=50, deadline=None)
    def test_untrustedInput(self, helo: str, sender: str) -> None:
        """
        Text from other hosts adds no results and no lines.
        """
        lines = receivedSPF(US, FOUND, sender, helo).decode().split("\r\n")
        self.assertEqual(lines.pop(), "")
        self.assertTrue(all(line.startswith("\t") for line in lines[1:]))
        self.assertNotRegex("".join(lines), "[\r\n\0]")
