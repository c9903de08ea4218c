"""
Tests for L{moxtls.authentication.dkim.signature}.
"""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.dkim.canonical import BodyScope, Canonicalization
from moxtls.authentication.dkim.sign import Algorithm
from moxtls.authentication.dkim.signature import (
    MAX_CLOCK_SKEW,
    MAX_SIGNED_FIELDS,
    MAX_TIME_IN_FUTURE,
    InvalidSignatureField,
    Signature,
    parseSignature,
    parseSignatureClaim,
)
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.domain import Domain
from tests.authentication.dkim.samples import NOW

SIMPLE, RELAXED = Canonicalization
TAGS = {
    "v": "1",
    "a": "rsa-sha256",
    "d": "a.example",
    "s": "sel",
    "h": "From",
    "bh": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "b": "QUJD\r\n REVG R0g=",
}


def field(changes: dict[str, str | None]) -> bytes:
    """
    @param changes: C{None} for a tag that isn't there.
    """
    tags = {**TAGS, **changes}
    text = "; ".join(
        f"{name}={value}" for name, value in tags.items() if value is not None
    )
    return f"DKIM-Signature: {text}".encode()


def read(**changes: str | None) -> Signature | DKIMResult:
    return parseSignature(parseSignatureClaim(field(changes), 0), NOW)


class ParseSignatureTests(SynchronousTestCase):
    """
    Tests for L{parseSignature}.
    """

    def good(self, **changes: str | None) -> Signature:
        signature = read(**changes)
        assert isinstance(signature, Signature), signature
        return signature

    def bad(self, problem: str, **changes: str | None) -> DKIMResult:
        result = self.refused(problem, **changes)
        self.assertIs(result.status, AuthResult.PERMERROR, changes)
        return result

    def refused(self, problem: str, **changes: str | None) -> DKIMResult:
        result = read(**changes)
        assert isinstance(result, DKIMResult), result
        self.assertEqual(result.problem, problem, changes)
        self.assertEqual(result.domain, Domain("a.example"))
        return result

    def test_defaults(self) -> None:
        """
        Defaults of all optional tags (RFC 6376 3.5).
        """
        signature = self.good()
        self.assertEqual(signature.identity, "@a.example")
        self.assertEqual(signature.identityDomain, Domain("a.example"))
        self.assertIs(signature.algorithm, Algorithm.RSA)
        self.assertIs(signature.how, SIMPLE)
        self.assertEqual(signature.body, BodyScope(SIMPLE, None))
        self.assertEqual(signature.names, (b"from",))
        self.assertEqual(signature.signatureData, b"ABCDEFGH")
        self.assertEqual(signature.prefix, "QUJDREVG")

    def test_result(self) -> None:
        """
        The result has the start of the signature, which identifies it (RFC 6008).
        """
        result = self.good(a="ed25519-sha256").result(AuthResult.FAIL, "no", 256, True)
        self.assertEqual(
            result,
            DKIMResult(
                Domain("a.example"),
                "sel",
                AuthResult.FAIL,
                "no",
                "@a.example",
                "ed25519-sha256",
                "QUJDREVG",
                256,
                True,
            ),
        )

    def test_withoutProof(self) -> None:
        """
        The value of C{b=} is removed with all white space around it, and nothing else
        (RFC 6376 3.7).
        """
        rest = b"v=1;a=rsa-sha256;d=a.example;s=b;h=From;bh=YQ==;i=:b=3D@a.example"
        for before, proof, after in [
            (b"b=", b" YQ", b";" + rest),
            (b" \r\n b =", b"\r\n YQ\r\n ==\t", b";" + rest + b" ; "),
            (rest + b";\tb=", b"YQ==", b""),
            (rest + b";bb=b;\r\n\tb\t=", b"YQ== ", b";c=simple; bbb=b=;\t"),
        ]:
            for name in (b"DKIM-Signature:", b"dkim-signature : "):
                signature = parseSignature(
                    parseSignatureClaim(name + before + proof + after, 0), NOW
                )
                assert isinstance(signature, Signature), signature
                self.assertEqual(signature.field, name + before + after)
                self.assertEqual(signature.signatureData, b"a")

    def test_missing(self) -> None:
        """
        Each of the required tags, missing or empty (RFC 6376 6.1.1).
        """
        for name in ("v", "a", "b", "bh", "h"):
            for value in (None, ""):
                result = self.bad(f"{name}= is missing", **{name: value})
                self.assertEqual(result.selector, "sel")

    def test_malformed(self) -> None:
        """
        "Being liberal in what you accept is definitely a bad strategy in this
        security context" (RFC 6376 6.1.1).
        """
        for name, value, problem in [
            ("v", "2", "v= is not 1"),
            ("v", "1.0", "v= is not 1"),
            ("a", "rsa-md5", "a= is not an algorithm that is known"),
            ("a", "dsa-sha256", "a= is not an algorithm that is known"),
            ("b", "!", "b= is not base64"),
            ("bh", "A", "bh= is not base64"),
            ("c", "strict", "c= is not a canonicalization that is known"),
            ("c", "relaxed/", "c= is not a canonicalization that is known"),
            ("c", "simple/relaxed/x", "c= is not a canonicalization that is known"),
            ("h", "Subject:To", "From is not signed"),
            ("h", "From::To", "h= is not a list of fields"),
            ("h", "From:a b", "h= is not a list of fields"),
            (
                "h",
                "From:\N{LATIN SMALL LETTER E WITH ACUTE}",
                "h= is not a list of fields",
            ),
            ("h", "From:" + "a:" * MAX_SIGNED_FIELDS + "a", "h= is too long"),
            ("l", "-1", "l= is not a number"),
            ("l", "", "l= is not a number"),
            ("l", "9" * 77, "l= is not a number"),
            ("l", "\N{ARABIC-INDIC DIGIT ONE}", "l= is not a number"),
            ("q", "dns/txt2", "q= is not dns/txt"),
            ("t", "now", "t= is not a time"),
            ("x", "1" * 13, "x= is not a time"),
            ("unknown", "\0", "control characters among the tags"),
            ("unknown", "a; v=1", "a tag is repeated"),
            ("unknown", "a; ; x=2000000000", "not a list of tags"),
        ]:
            self.bad(problem, **{name: value})

    def test_unreadable(self) -> None:
        """
        A field without a domain and a selector is unreadable.
        """
        for name, values in [
            (
                "d",
                (
                    None,
                    "",
                    "a b",
                    "-a.example",
                    "a..example",
                    "[192.0.2.1]",
                    "\ufffd.a",
                ),
            ),
            ("s", (None, "", "a b", ".a", "a..b", "a" * 64, "a.b." * 60 + "a", "*")),
        ]:
            for value in values:
                with self.assertRaises(InvalidSignatureField):
                    read(**{name: value})

    def test_domain(self) -> None:
        """
        C{d=} has at least two labels and no trailing dot (RFC 6376 3.5); names are
        normalized (RFC 8616 5).
        """
        for domain in ("com", "a.example."):
            result = read(d=domain)
            self.assertEqual(
                getattr(result, "problem", ""), "d= is not a domain for mail"
            )
        name = "B\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.Example"
        signature = self.good(d=name, s="S_1.Xyz")
        self.assertEqual(signature.domain, Domain("xn--bcher-kva.example"))
        claim = parseSignatureClaim(field({"d": name, "s": "S_1.Xyz"}), 0)
        self.assertEqual(claim.keyName, "s_1.xyz._domainkey.xn--bcher-kva.example")
        signature = self.good(s="\N{LATIN SMALL LETTER U WITH DIAERESIS}")
        self.assertEqual(signature.selector, "xn--tda")

    def test_claim(self) -> None:
        """
        Domain and selector are found anywhere in the field, however it is folded (RFC
        6376 3.2); a repeated tag makes the list invalid.
        """
        for text in (
            b"DKIM-Signature:d=a.example;s=sel",
            b"DKIM-Signature: b=x;bh=d=b; \r\n\ts = \r\n sel\t;\r\n d\t= a.example",
            b"dkim-signature : \r\n d=A.example ; d=b.example; s=SEL; s=x",
        ):
            claim = parseSignatureClaim(text, 3)
            self.assertEqual(claim.keyName, "sel._domainkey.a.example")
            self.assertEqual((claim.index, claim.field), (3, text))
        self.bad("a tag is repeated", x="9999999999; d=b.example")
        for broken in (b"DKIM-Signature: xd=a.example; s=s", b"d=a.example; s=s"):
            with self.assertRaises(InvalidSignatureField):
                parseSignatureClaim(broken, 0)

    def test_identity(self) -> None:
        """
        C{i=} is in the domain of C{d=} or below it (RFC 6376 3.5, 6.1.1), and
        may be quoted (2.11).
        """
        for identity, domain in [
            ("@a.example", "a.example"),
            ("joe@A.Example", "a.example"),
            ("joe@\r\n x.a.example", "x.a.example"),
            ("joe=40x@x.y.a.example", "x.y.a.example"),
            ("joe=40a.ex=61mple", "a.example"),
        ]:
            signature = self.good(i=identity)
            self.assertEqual(signature.identityDomain, Domain(domain))
            self.assertEqual(signature.identity, identity.replace("\r\n ", ""))
        for identity, problem in [
            ("joe", "i= has no @"),
            ("", "i= has no @"),
            ("joe@", "i= has no domain"),
            ("joe@a b", "i= is not in the domain of d="),
            ("joe@b.example", "i= is not in the domain of d="),
            ("joe@xa.example", "i= is not in the domain of d="),
            ("joe@example", "i= is not in the domain of d="),
            ("joe@a.example=40b.example", "i= is not in the domain of d="),
            ("x" * 1000 + "@a.example", "i= is too long"),
        ]:
            self.bad(problem, i=identity)

    def test_ways(self) -> None:
        """
        Both ways for header and body; "simple" is the default for either
        (RFC 6376 3.5, "c=").
        """
        for text, header, body in [
            ("simple", SIMPLE, SIMPLE),
            ("relaxed", RELAXED, SIMPLE),
            ("Simple/Relaxed", SIMPLE, RELAXED),
            ("relaxed/relaxed", RELAXED, RELAXED),
        ]:
            signature = self.good(c=text, l="07")
            self.assertIs(signature.how, header)
            self.assertEqual(signature.body, BodyScope(body, 7))

    def test_optional(self) -> None:
        """
        White space in lists, unknown methods beside the known one, and unknown tags
        are accepted (RFC 6376 3.5).
        """
        signature = self.good(h="to : FROM:\r\n from", q="x/y : dns/txt", new="x=y")
        self.assertEqual(signature.names, (b"to", b"from", b"from"))

    def test_historic(self) -> None:
        """
        SHA-1 has permanently failed (RFC 8301 3.1).
        """
        result = self.refused("rsa-sha1 is historic", a="rsa-sha1")
        self.assertIs(result.status, AuthResult.POLICY)
        self.assertEqual(result.algorithm, "rsa-sha1")
        self.assertEqual(result.signature, "QUJDREVG")

    def test_times(self) -> None:
        """
        Expired signatures, and those from the future, are refused, with some
        tolerance (RFC 6376 3.5).
        """
        now = int(NOW)
        self.good(t=str(now + MAX_TIME_IN_FUTURE), x="999999999999")
        self.good(t=str(now - 1000), x=str(now - MAX_CLOCK_SKEW))
        for problem, tags in [
            ("the signature expired", {"t": "1", "x": str(now - MAX_CLOCK_SKEW - 1)}),
            ("the signature expired", {"x": "1"}),
            ("signed in the future", {"t": str(now + MAX_TIME_IN_FUTURE + 1)}),
        ]:
            result = self.refused(problem, **tags)
            self.assertIs(result.status, AuthResult.POLICY)
        self.bad("x= is not after t=", t=str(now), x=str(now))

    @settings(max_examples=100, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from([*TAGS, "c", "i", "l", "q", "t", "x"]),
            st.text(st.sampled_from("a1:/@=. ;\r\n\t\0\xe9"), max_size=12) | st.none(),
            max_size=3,
        )
    )
    def test_anything(self, changes: dict[str, str | None]) -> None:
        """
        Any tags yield a signature, a result, or an error, without control characters
        in texts.
        """
        try:
            found = read(**changes)
        except InvalidSignatureField:
            return
        if isinstance(found, Signature):
            found = found.result(AuthResult.PASS)
        for told in (found.selector, found.identity, found.algorithm, found.signature):
            self.assertEqual(re.findall(r"[\x00-\x20\x7f]", told), [])
