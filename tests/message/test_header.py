"""
Tests for L{moxtls.message.header}.
"""

from __future__ import annotations

from email import message_from_bytes, policy
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.message.header import (
    MAIL_LOOP,
    MAX_HEADER,
    MAX_HOPS,
    ClientInfo,
    countReceived,
    hasField,
    headerEnd,
    headerFields,
    headerOf,
    isLooping,
    missingSubmissionFields,
    parseAuthservID,
    receivedHeader,
    removeForgedFields,
    saysTLSNotRequired,
    splitHeader,
    splitMessage,
    textFields,
    unfoldedText,
)

US = "mx.example.org"

#: 2026-11-24T00:00:00Z
NOW = 1795478400
TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"


class SplitTests(SynchronousTestCase):
    """
    Tests for L{splitHeader} and L{headerEnd}.
    """

    def test_fields(self) -> None:
        """
        Fields are found by name in any case, folded or not, and with white space
        before the colon (RFC 5322 2.2, 4.5).
        """
        header = splitHeader(b"A: b\r\n c\r\nFROM :x\r\nno field\r\na:\r\n")
        names = list(header.names)
        self.assertEqual(names, [b"a", b"from", b"", b"a"])
        values = [unfoldedText(each) for each in header.values(b"a")]
        self.assertEqual(values, [" b c", ""])
        self.assertTrue(header.has(b"from"))

    def test_signs(self) -> None:
        """
        Fields of lists are seen (RFC 2369, RFC 2919).
        """
        header = splitHeader(b"List-ID: <a.b>\r\n" + b"Received: x\r\n" * 3)
        self.assertTrue(header.isFromList)
        self.assertFalse(splitHeader(b"List-Of: x\r\n").isFromList)

    def test_end(self) -> None:
        """
        An empty line ends the header, wherever pieces are cut; a message may
        have no header at all.
        """
        message = b"A: b\r\n\r\nc\r\n\r\n"
        self.assertEqual(headerEnd(b"\r\nA: b\r\n\r\n"), 0)
        self.assertEqual(headerEnd(b"A: b\r\n"), -1)
        for cut in range(len(message)):
            seen = bytearray(message[:cut])
            first = headerEnd(seen)
            seen += message[cut:]
            self.assertEqual(headerEnd(seen, cut) if first < 0 else first, 6)

    @given(st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"A", b":", b"b"])))
    @settings(max_examples=100, deadline=None)
    def test_whole(self, pieces: list[bytes]) -> None:
        """
        The concatenated fields equal the header.
        """
        data = b"".join(pieces)
        whole = b"".join(each + b"\r\n" for each in splitHeader(data).fields)
        self.assertEqual(
            whole, data if data.endswith(b"\r\n") or not data else data + b"\r\n"
        )


class TextTests(SynchronousTestCase):
    """
    Tests for L{headerOf}, L{splitMessage}, L{textFields} and L{headerFields}.
    """

    def test_headerOf(self) -> None:
        """
        The header ends at the first empty line (RFC 5322 2.1).
        """
        for message, header in (
            (b"A: b\r\nC: d\r\n\r\nE: f\r\n", b"A: b\r\nC: d\r\n"),
            (b"A: b\r\n", b"A: b\r\n"),
            (b"\r\nA: b\r\n", b""),
            (b"Hello there\r\n\r\n", b""),
            (b"", b""),
        ):
            self.assertEqual(headerOf(message), header)
        endless = b"A: b\r\n" * MAX_HEADER
        self.assertEqual(len(headerOf(endless)), MAX_HEADER)

    def test_splitMessage(self) -> None:
        """
        The first empty line is in neither part; without one all is header.
        """
        for message, parts in (
            (b"A: b\r\n\r\nc\r\n\r\nd", (b"A: b\r\n", b"c\r\n\r\nd")),
            (b"\r\nbody", (b"", b"body")),
            (b"A: b\r\n", (b"A: b\r\n", b"")),
            (b"A: b\n\nc", (b"A: b\n\nc", b"")),
        ):
            self.assertEqual(splitMessage(message), parts)

    def test_textFields(self) -> None:
        """
        Lines end in CRLF, LF or CR; folded lines are joined, others without a colon
        skipped.
        """
        header = b"A: 1\r\n\t2\nB : 3\n 4\rc:5\r\nnonsense\r\n"
        expected = [("A", "1\t2"), ("B", "3 4"), ("c", "5")]
        self.assertEqual(list(textFields(header)), expected)

    def test_fields(self) -> None:
        """
        Values are unfolded; the first field of a name counts.
        """
        fields = headerFields(b"A: 1\r\n 2\r\nb:3\r\na: 4\r\nnonsense\r\n\xff: \xfe")
        self.assertEqual(fields["a"], "1 2")
        self.assertEqual(fields["b"], "3")


class ForgedTests(SynchronousTestCase):
    """
    Tests for L{removeForgedFields}.
    """

    def isKept(self, value: str) -> bool:
        before, after = b"A: b\r\n", b"c: D\r\n e\r\n"
        field = f"Authentication-Results:{value}\r\n".encode()
        left = removeForgedFields(splitHeader(before + field + after), US)
        self.assertIn(left, (before + after, before + field + after))
        return field in left

    def test_others(self) -> None:
        """
        Results of others stay as they are, also if our name is in them.
        """
        for value in (
            " mx.example.com; none",
            " example.org; spf=pass",
            " sub.mx.example.org; spf=pass",
            ' "other"; spf=pass reason="mx.example.org; x"',
            "\r\n\t(mx.example.org) other 1 (x) ; none",
        ):
            self.assertTrue(self.isKept(value), value)

    def test_ours(self) -> None:
        """
        Results in the name of this host are removed, in any spelling and version (RFC
        8601 5).
        """
        for value in (
            "mx.example.org",
            " MX.example.ORG; none",
            " mx.example.org.; none",
            "\r\n mx.example.org\r\n 1;\r\n none",
            " (a (b\\) c) d)mx.example.org(x)1; none",
            ' "mx.example.org"; none',
            ' "mx\\.example.org"; none',
            " mx.example.org 2; none",
            " mx.example.org/1; none",
            " mx.example.org \u00fc; none",
        ):
            self.assertFalse(self.isKept(value), value)

    def test_doubtful(self) -> None:
        """
        Results that a reader may attribute to this host are removed, too.
        """
        for value in (
            "",
            " ; none",
            " (mx.example.org; none",
            ' "mx.example.org; none',
            " other 7; mx.example.org",
            " x=mx.example.org; none",
            ' "mx.example.org; dmarc=pass"; none',
            ' "mx.example.org 1"; none',
        ):
            self.assertFalse(self.isKept(value), value)

    def test_international(self) -> None:
        """
        A name in U-labels is the same name.
        """
        header = splitHeader(
            "Authentication-Results: mx.B\u00fccher.example; x\r\n".encode()
        )
        self.assertEqual(removeForgedFields(header, "mx.xn--bcher-kva.example"), b"")

    def test_linear(self) -> None:
        """
        Repeated unclosed strings and comments take linear time.
        """
        for each in ("(", '"', '"\\', "(\\", "()", " "):
            name, _ = parseAuthservID(each * 50_000)
            self.assertIn(name, (None, ""))


class ReceivedHeaderTests(SynchronousTestCase):
    """
    Tests for L{receivedHeader}.
    """

    def test_submitted(self) -> None:
        """
        The clauses of Received for a submission (RFC 5321 4.4, RFC 3848).
        """
        client = ClientInfo("192.0.2.1", "client.example", True, "user", TLS)
        self.assertEqual(
            receivedHeader(client, "mx.example", "id1", NOW, recipient="b@b.example"),
            b"Received: from client.example ([192.0.2.1])\r\n"
            b"\tby mx.example with ESMTPSA (TLSv1.3:TLS_AES_256_GCM_SHA384)\r\n"
            b"\tid id1\r\n"
            b"\tfor <b@b.example>; Tue, 24 Nov 2026 00:00:00 +0000\r\n",
        )

    def test_protocols(self) -> None:
        """
        RFC 3848, RFC 6531 4.3.
        """
        for client, smtputf8, protocol in (
            (ClientInfo(extended=False), False, b"SMTP"),
            (ClientInfo(), False, b"ESMTP"),
            (ClientInfo(tls=TLS), False, b"ESMTPS"),
            (ClientInfo(user="u"), False, b"ESMTPA"),
            (ClientInfo(tls=TLS, user="u"), True, b"UTF8SMTPSA"),
            (ClientInfo(), True, b"UTF8SMTP"),
        ):
            header = receivedHeader(client, "mx.example", "1", NOW, smtputf8)
            self.assertIn(b" with " + protocol, header)
            self.assertIn(header.partition(b" with ")[2].split()[0], protocol)

    def test_addresses(self) -> None:
        """
        IPv6 addresses have a prefix (RFC 5321 4.1.3).
        """
        header = receivedHeader(ClientInfo("2001:db8::1", "c"), "mx", "1", NOW)
        self.assertIn(b"from c ([IPv6:2001:db8::1])\r\n", header)

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=300))
    def test_anyName(self, helo: str) -> None:
        """
        Any HELO name yields one field in ASCII.
        """
        header = receivedHeader(ClientInfo("192.0.2.1", helo), "mx.example", "1", NOW)
        self.assertTrue(header.isascii())
        parsed = message_from_bytes(header + b"\r\n", policy=policy.default)
        self.assertEqual(parsed.keys(), ["Received"])
        self.assertEqual(header.count(b"\n"), header.count(b"\r\n\t") + 1)
        self.assertLess(max(map(len, header.split(b"\r\n"))), 998)


class HeaderTests(SynchronousTestCase):
    """
    Tests for L{missingSubmissionFields} and L{saysTLSNotRequired}.
    """

    def test_missing(self) -> None:
        """
        Date and Message-ID are added where they are missing (RFC 6409 8).
        """
        date = b"Date: Tue, 24 Nov 2026 00:00:00 +0000\r\n"
        own = b"Message-ID: <1@mx.example>\r\n"
        for header, added in (
            (b"From: a\r\n", date + own),
            (b"From: a\r\nDATE: x\r\n", own),
            (b"message-id : x\r\n", date),
            (b"X-Date: x\r\n Date: x\r\n", date + own),
        ):
            self.assertEqual(
                missingSubmissionFields(header, "1@mx.example", NOW), added
            )
        self.assertTrue(hasField(b"A: b\r\nDate:\r\n", b"date"))

    def test_tlsRequired(self) -> None:
        """
        C{TLS-Required: No} in any case and folding, once (RFC 8689 3).
        """
        for header, found in (
            (b"TLS-Required: No\r\n", True),
            (b"A: b\r\ntls-required:\r\n\tnO \r\nC: d\r\n", True),
            (b"TLS-Required: Yes\r\n", False),
            (b"TLS-Required: No, really\r\n", False),
            (b"TLS-Required: No\r\nTLS-Required: No\r\n", False),
            (b"X-TLS-Required: No\r\n", False),
            (b"A: b\r\n TLS-Required: No\r\n", False),
            (b"", False),
        ):
            self.assertEqual(saysTLSNotRequired(header), found, header)

    def test_tlsRequiredManyTimes(self) -> None:
        """
        Many and malformed fields take linear time.
        """
        begin = process_time()
        for line in (b"\nTLS-Required:", b"TLS-Required:\r\n ", b"TLS-Required: a\n"):
            self.assertFalse(saysTLSNotRequired(line * (MAX_HEADER // len(line))))
        self.assertLess(process_time() - begin, 1)


class CountReceivedTests(SynchronousTestCase):
    """
    Tests for L{countReceived} and L{isLooping}.
    """

    def test_count(self) -> None:
        """
        Received fields are counted, in any header.
        """
        for header, count in (
            (b"", 0),
            (b"Received: from a\r\n\tby b;\r\n received: c\r\n", 1),
            (b"RECEIVED : a\r\nX-Received: b\r\nReceived-SPF: c\r\n", 1),
            (b"Received: a\r\nSubject: Received: b\r\nreceived:\r\n", 2),
        ):
            self.assertEqual(countReceived(header), count, header)

    def test_looping(self) -> None:
        """
        RFC 5321 6.3: 100 are fine, more are a loop.
        """
        self.assertFalse(isLooping(b"Received: a\r\n" * MAX_HOPS))
        self.assertTrue(isLooping(b"Received: a\r\n" * (MAX_HOPS + 1)))
        self.assertEqual((MAIL_LOOP.code, MAIL_LOOP.enhanced), (554, "5.4.6"))
