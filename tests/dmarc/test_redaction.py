"""
Tests for L{moxtls.dmarc.redaction}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.redaction import (
    MAX_ADDRESSES,
    MAX_EACH,
    MAX_HEADER,
    Redaction,
    redactedFields,
)
from moxtls.message.mime import formatField

REDACTION = Redaction(b"k" * 32)
JOHN = REDACTION.token("john.doe")


def shown(*lines: str) -> dict[str, list[str]]:
    """
    The redacted fields of a header, by name.
    """
    found: dict[str, list[str]] = {}
    for name, words in redactedFields("\r\n".join([*lines, ""]).encode(), REDACTION):
        found.setdefault(name, []).append(" ".join(words))
    return found


class RedactionTests(SynchronousTestCase):
    """
    Tests for L{Redaction}: RFC 6590 3.
    """

    def test_same(self) -> None:
        """
        Equal local parts give equal tokens, other ones or other keys different ones;
        a token contains nothing of the local part.
        """
        self.assertEqual(REDACTION.token("John.Doe"), JOHN)
        self.assertNotEqual(REDACTION.token("john.do"), JOHN)
        self.assertNotEqual(Redaction(b"l" * 32).token("john.doe"), JOHN)
        self.assertRegex(JOHN, r"\A[a-z2-7]{16}\Z")
        self.assertNotIn("kkkk", repr(REDACTION))

    def test_path(self) -> None:
        """
        An envelope sender keeps its domain, in A-labels (RFC 5321 4.1.2); text that
        is no address is left out.
        """
        path = REDACTION.path("john.doe@bücher.example")
        self.assertEqual(path, f"<{JOHN}@xn--bcher-kva.example>")
        self.assertEqual(REDACTION.path("a@[192.0.2.1]"), f"<{token('a')}@[192.0.2.1]>")
        self.assertIsNone(REDACTION.path("john.doe"))
        self.assertIsNone(REDACTION.path(""))

    def test_identity(self) -> None:
        """
        C{i=} of a signature may be without a local part (RFC 6376 3.5).
        """
        for text, expected in [
            ("@a.example", "@a.example"),
            ("john.doe@A.example", f"{JOHN}@a.example"),
            ("john.doe", ""),
            ("", ""),
            ("john.doe@a\r\nb", ""),
            ("john.doe@" + "a." * 5000, ""),
        ]:
            self.assertEqual(REDACTION.identity(text), expected)


def token(text: str) -> str:
    return REDACTION.token(text)


class RedactedFieldsTests(SynchronousTestCase):
    """
    Tests for L{redactedFields}: RFC 9991 7.
    """

    def test_list(self) -> None:
        """
        Fields that aren't listed are left out: recipients, subject, and path.
        """
        found = shown(
            "Received: from x by y for <anna@our.example>; Tue, 19 Jul 2022 07:57:35",
            "To: anna@our.example",
            "Cc: bert@our.example",
            "Subject: secret",
            "X-Original-To: anna@our.example",
            "Return-Path: <john.doe@a.example>",
            "Authentication-Results: our.example; spf=pass",
            "Date: Tue, 19 Jul 2022 07:57:33 +0200 (CEST)",
            "Message-ID: <2431dc66-b010@a.example>",
            "MIME-Version: 1.0",
        )
        self.assertEqual(
            found,
            {
                "Date": ["Tue, 19 Jul 2022 07:57:33 +0200 (CEST)"],
                "Message-ID": ["<2431dc66-b010@a.example>"],
                "MIME-Version": ["1.0"],
            },
        )

    def test_addresses(self) -> None:
        """
        Addresses keep their domain; an address has the same token in all fields.
        """
        found = shown(
            'From: "Doe, John" <John.Doe@A.example>,\r\n  Ann <ann@b.example> (home)',
            "Sender: =?utf-8?q?J?= <john.doe@a.example>",
            "Reply-To: john.doe@bücher.example",
        )
        self.assertEqual(
            found,
            {
                "From": [f"<{JOHN}@a.example>, <{token('ann')}@b.example>"],
                "Sender": [f"<{JOHN}@a.example>"],
                "Reply-To": [f"<{JOHN}@xn--bcher-kva.example>"],
            },
        )

    def test_nobody(self) -> None:
        """
        A field without an address isn't shown: it holds names.
        """
        self.assertEqual(shown("From: John Doe", "Sender: john.doe@"), {})

    def test_signature(self) -> None:
        """
        A signature is kept without its copies of other fields (RFC 6376 3.5 C{z=}),
        with a token as the local part of C{i=}; folds don't matter.
        """
        found = shown(
            "DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=x; t=1658210264;",
            " i=john.doe@a.example; z=Subject:secret|To:anna@our.example;",
            "\th=from :to;\r\n bh=KYH/ g7==; b=" + "A" * 100 + "\r\n " + "B" * 28,
        )["DKIM-Signature"][0]
        self.assertNotIn("secret", found)
        self.assertIn(
            f"v=1; a=rsa-sha256; d=a.example; s=x; t=1658210264; i={JOHN}@a.example;",
            found,
        )
        self.assertIn("h=from: to; bh=KYH/g7==; b=", found)
        self.assertIn("A" * 100 + "B" * 28, found.replace(" ", ""))

    def test_links(self) -> None:
        """
        No field has a link (RFC 9991 7.3), nor the phrase before a List-Id (RFC 2919
        3).
        """
        found = shown(
            "Message-ID: <http://evil.example/x@a.example>",
            "List-Id: see http://evil.example <users.lists.example>",
            "Date: https://evil.example",
        )
        self.assertEqual(
            found,
            {
                "Message-ID": ["<http?//evil.example/x@a.example>"],
                "List-Id": ["<users.lists.example>"],
                "Date": ["https:??evil.example"],
            },
        )

    def test_limits(self) -> None:
        """
        Signatures, addresses and the header are limited.
        """
        many = ", ".join(f"a{n}@a.example" for n in range(100))
        lines = [f"DKIM-Signature: v={n}" for n in range(100)]
        found = shown(*lines, f"From: {many}")
        self.assertEqual(len(found["DKIM-Signature"]), MAX_EACH)
        self.assertEqual(found["From"][0].count("@"), MAX_ADDRESSES)
        late = shown("X: " + "x" * MAX_HEADER, "Date: 1")
        self.assertEqual(late, {})

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["From", "Date", "DKIM-Signature", "Message-ID", "List-Id", "To"]
                ),
                st.text(max_size=60)
                | st.sampled_from(
                    [
                        "<\r--=_b",
                        "b=;h=a:\x0b;i=\udcff@a",
                        "@" * 300,
                        "\u2028x@y.example",
                    ]
                ),
            ),
            max_size=6,
        )
    )
    def test_untrustedInput(self, fields: list[tuple[str, str]]) -> None:
        """
        With any input, the output is ASCII in whole lines, each a listed field or its
        continuation.
        """
        header = "\r\n".join(f"{name}: {value}" for name, value in fields)
        raw = header.encode("utf-8", "surrogatepass")
        for each in redactedFields(raw, REDACTION):
            self.assertRegex(
                formatField(each), rb"\A[A-Za-z-]+:(?: [!-~]+(?:\r\n(?= ))?)+\r\n\Z"
            )
