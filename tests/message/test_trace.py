"""
Tests for L{moxtls.message.trace}.
"""

from __future__ import annotations

from email import message_from_bytes, policy
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.message.header import MAX_HEADER, hasField
from moxtls.message.trace import (
    MAIL_LOOP,
    MAX_HOPS,
    ClientInfo,
    countReceived,
    isLooping,
    missingSubmissionFields,
    receivedHeader,
    saysTLSNotRequired,
)

#: 2026-11-24T00:00:00Z
NOW = 1795478400
TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"


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
