"""
Tests for L{moxtls.received.reading.parsed}, by L{readReports}.
"""

from __future__ import annotations

import gzip
import json
from hashlib import blake2b

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.parse import FeedbackReport, ReceivedAggregateReport
from moxtls.received.reading import parsed
from moxtls.received.reading.parsed import canonicalAddress
from moxtls.received.reading.read import parseRaw, readReports, receivedReports
from moxtls.received.types import (
    DMARCRow,
    ParsedReport,
    RawFormat,
    ReceivedKind,
    RowBlock,
    RowOutcome,
    Unreadable,
)
from moxtls.tlsrpt.parse import ReceivedTLSReport
from tests.dmarc.test_parse import MESSAGE as FEEDBACK
from tests.dmarc.test_parse import RECORD, REPORT, WHOLE
from tests.received.reading.bombs import archive, multipart
from tests.received.reading.samples import END, START, aggregateReport, tlsReport

FAILURE = FEEDBACK.replace(b"User-Agent: Some/1.0 \x1b[2J", b"User-Agent: Some/1.0")
FAILURE = FAILURE.replace(
    b"Auth-Failure: dmarc",
    b"Auth-Failure: dmarc\nReported-Domain: Example.ORG\nSource-IP: 192.0.2.7\n"
    b"Arrival-Date: Mon, 21 Sep 2026 14:00:00 +0200\n"
    b"Original-Mail-From: <alice@example.org>\nOriginal-Rcpt-To: bob@b.example\n"
    b"DKIM-Canonicalized-Body: c2VjcmV0\nReported-URI: https://x.example/alice",
).replace(
    b"Content-Type: multipart", b"Message-ID: <1@r.example>\nContent-Type: multipart", 1
)


def read(data: bytes, name: str = "") -> ParsedReport:
    """
    The only report in C{data}.
    """
    found = readReports(data, name)
    assert not found.unreadable, found.unreadable
    [report] = found.reports
    return report


def refusal(data: bytes) -> str:
    """
    Why C{data} is refused.
    """
    found = readReports(data)
    assert not found.reports
    [refused] = found.unreadable
    return refused.reason


def rows(report: ParsedReport) -> list[DMARCRow]:
    return [row for block in report.blocks for row in RowBlock.decode(block).rows]


class AggregateTests(SynchronousTestCase):
    """
    DMARC aggregate reports.
    """

    def test_fields(self) -> None:
        """
        The head of a report as RFC 9990 3.1.1 has it.
        """
        report = read(aggregateReport(3))
        self.assertEqual(
            (report.kind, report.format, report.domain, report.domainHint),
            (ReceivedKind.DMARC, RawFormat.XML, "example.org", ""),
        )
        self.assertEqual((report.start, report.end), (START, END))
        self.assertEqual(
            (report.organization, report.contact, report.reportID),
            ("receiver.example", "dmarc-reports@receiver.example", "r-1"),
        )
        self.assertEqual(dict(report.published)["p"], "none")
        self.assertEqual(read(WHOLE.encode()).errors, ("no way to b.example",))

    def test_row(self) -> None:
        """
        A row in canonical form, with its details as JSON and their digest.
        """
        text = WHOLE.replace("192.0.2.7", "::ffff:192.0.2.7").replace(
            "<domain>example.org</domain><sel",
            "<domain>Mail.B\xfccher.org.</domain><sel",
        )
        report = read(text.encode())
        [block] = map(RowBlock.decode, report.blocks)
        [row] = block.rows
        details = block.details[row.detail]
        self.assertEqual(
            row[:4],
            (
                "192.0.2.7",
                "192.0.2.0/24",
                "mail.xn--bcher-kva.org",
                RowOutcome.PASS | RowOutcome.DKIM,
            ),
        )
        self.assertEqual((row.messages, report.total, report.failed), (3, 3, 0))
        self.assertEqual(row.detail, blake2b(details.encode(), digest_size=16).digest())
        expected = {
            "dkim": [["mail.xn--bcher-kva.org", "s1", "pass", "fine"]],
            "envelope_from": "list.example",
            "envelope_to": "us.example",
            "header_from": "example.org",
            "reasons": [["mailing_list", "a & b"]],
            "spf": [["list.example", "mfrom", "pass"]],
        }
        self.assertEqual(json.loads(details), expected)
        self.assertEqual(
            details, json.dumps(expected, separators=(",", ":"), sort_keys=True)
        )

    def test_authenticated(self) -> None:
        """
        The domain of the signature that is aligned, else of any that passed, else that
        of SPF.
        """
        sign = "<dkim><domain>{}</domain><result>{}</result></dkim>"
        record = RECORD.partition("<dkim><domain>")
        spf = record[2].partition("</dkim>")[2]
        for signatures, domain in (
            ([("a.example", "pass"), ("m.example.org", "pass")], "m.example.org"),
            ([("a.example", "fail"), ("b.example", "pass")], "b.example"),
            ([("A.example.", "pass")], "a.example"),
            ([("example.org", "fail")], "list.example"),
            ([], "list.example"),
        ):
            dkim = "".join(sign.format(*each) for each in signatures)
            text = REPORT.format(records=record[0] + dkim + spf)
            [row] = rows(read(text.encode()))
            self.assertEqual(row.authenticated, domain, signatures)
        text = WHOLE.replace("<result>pass", "<result>fail")
        self.assertEqual(rows(read(text.encode()))[0].authenticated, "")

    def test_merged(self) -> None:
        """
        Equal rows of a block are one; failed are those without an aligned pass.
        """
        failing = RECORD.replace("<dkim>PASS", "<dkim>none").replace(">3<", ">2<")
        text = REPORT.format(records=(RECORD + failing) * 5)
        report = read(text.encode())
        self.assertEqual([each.messages for each in rows(report)], [15, 10])
        self.assertEqual((report.total, report.failed), (25, 10))

    def test_blocks(self) -> None:
        """
        All rows are in blocks of limited size.
        """
        self.patch(parsed, "MAX_ROWS", 10)
        report = read(aggregateReport(95))
        blocks = [RowBlock.decode(each) for each in report.blocks]
        self.assertEqual([len(each.rows) for each in blocks], [10] * 9 + [5])
        self.assertEqual(sum(each.messages for each in rows(report)), report.total)
        for block in blocks:
            self.assertEqual({each.detail for each in block.rows}, set(block.details))
        self.patch(parsed, "MAX_DETAILS", 1)
        self.assertEqual(len(read(aggregateReport(5)).blocks), 5)

    def test_content(self) -> None:
        """
        Copies have the same digest however they are packed or formatted; other
        content has another.
        """
        xml = WHOLE.encode()
        same = {
            read(data).content
            for data in (
                xml,
                gzip.compress(xml),
                archive({"a": xml}),
                multipart([b"Content-Type: text/xml\r\n\r\n" + xml]),
                xml.replace(b"\n", b"").replace(b"  ", b""),
                xml.replace(b"<version>1.0</version>", b""),
            )
        }
        self.assertEqual(len(same), 1)
        for old, new in (
            (b"r-1", b"r-2"),
            (b">3<", b">4<"),
            (b"192.0.2.7", b"192.0.2.8"),
            (b"<p>reject", b"<p>none"),
            (b"mailing_list", b"forwarded"),
        ):
            self.assertNotIn(read(xml.replace(old, new)).content, same)

    def test_raw(self) -> None:
        """
        The report is kept in gzip: the original, or what was in another container.
        """
        xml = aggregateReport(2)
        packed = gzip.compress(xml)
        self.assertEqual(read(packed).raw, packed)
        for data in (xml, archive({"a": xml}), gzip.compress(packed)):
            self.assertEqual(gzip.decompress(read(data).raw), xml)
        again = parseRaw(RawFormat.XML, read(xml).raw)
        assert isinstance(again, ReceivedAggregateReport)
        self.assertEqual(len(again.records), 2)

    def test_refused(self) -> None:
        """
        Reports that can't be right are refused in one line.
        """
        for old, new, reason in (
            ("1790086399", "1780000000", "it ends before it begins"),
            ("1790086399", "1890000000", "plausible"),
            ("1790000000", "0", "plausible"),
            ("<domain>example.org</domain><p>", "<domain>a b</domain><p>", "'a b'"),
            (">3<", ">9999999999999<", "record 1: row.count: out of range"),
        ):
            self.assertIn(reason, refusal(WHOLE.replace(old, new).encode()))
        large = RECORD.replace(">3<", ">999999999999<") * 2
        self.assertIn("in total", refusal(REPORT.format(records=large).encode()))

    def test_addresses(self) -> None:
        """
        Canonical addresses (RFC 5952 4) and their networks.
        """
        for text, address, network in (
            ("192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
            ("2001:DB8:1:2::3", "2001:db8:1:2::3", "2001:db8:1::/48"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("2001:db8:0:0::3", "2001:db8::3", "2001:db8::/48"),
            ("2001:db8:1:2:3:4:5::", "2001:db8:1:2:3:4:5:0", "2001:db8:1::/48"),
            ("192.0.2", "192.0.2", "192.0.2"),
            ("192.0.2.7.8", "192.0.2.7.8", "192.0.2.7.8"),
            ("x" * 100, "x" * 64, "x" * 64),
            ("", "", ""),
        ):
            self.assertEqual(canonicalAddress(text), (address, network), text)

    @settings(max_examples=300, deadline=None)
    @given(st.ip_addresses())
    def test_anyAddress(self, ip: object) -> None:
        """
        A canonical address stays as it is, also in its exploded form.
        """
        text = str(ip)
        if not text.startswith("::ffff:"):
            self.assertEqual(canonicalAddress(text)[0], text)
            exploded = ip.exploded  # type: ignore[attr-defined]
            self.assertEqual(canonicalAddress(exploded), canonicalAddress(text))


class TLSTests(SynchronousTestCase):
    """
    TLS reports.
    """

    def test_fields(self) -> None:
        """
        Addresses and names are canonical, and counts are added (RFC 8460 4.4).
        """
        report = read(tlsReport(domain="B\xfccher.example."))
        [policy] = report.policies
        [failure] = policy.failures
        self.assertEqual(
            (report.kind, report.format, report.total, report.failed),
            (ReceivedKind.TLS, RawFormat.JSON, 7, 2),
        )
        self.assertEqual((policy.domain, report.domain), ("xn--bcher-kva.example", ""))
        self.assertEqual(
            (failure.sendingIP, failure.receivingIP, failure.mxHostname),
            ("192.0.2.1", "2001:db8::25", "mx.example.org"),
        )

    def test_hint(self) -> None:
        """
        A policy without domain is kept, and the report says what the name of the file
        or message says.
        """
        data = tlsReport(domain=None)
        report = read(data, "x.example!Y.example!1!2.json.gz")
        self.assertEqual(
            (report.policies[0].domain, report.domainHint), ("", "y.example")
        )
        self.assertEqual(read(data, "x!not a domain!1!2.json").domainHint, "")

    def test_unusableDomain(self) -> None:
        """
        A policy domain that is none doesn't lose the other policies (RFC 8460 4.4): its
        policy is kept, with the text in quotes, and is about no domain, also if the
        file name has one.
        """
        value = json.loads(tlsReport(domain="example.org"))
        for text in ("*.example.net", "a b", "x\r\ny.example", "." * 300):
            bad = json.loads(tlsReport(domain=text))["policies"]
            value["policies"] = [*bad, *value["policies"][-1:]]
            report = read(json.dumps(value).encode(), "x!other.example!1!2.json")
            self.assertEqual(report.policies[0].domain, repr(text[:80]))
            self.assertEqual(report.domains, ("example.org",))

    def test_content(self) -> None:
        """
        Formatting and packing have no effect on the digest.
        """
        data = tlsReport()
        compact = json.dumps(json.loads(data), separators=(",", ":")).encode()
        packed = archive({"a.json": data})
        same = {read(each).content for each in (data, compact, packed)}
        self.assertEqual(len(same), 1)
        self.assertNotIn(read(data.replace(b": 5,", b": 6,")).content, same)

    def test_raw(self) -> None:
        """
        The report is kept in gzip, as it was received.
        """
        data = tlsReport()
        packed = gzip.compress(data)
        self.assertEqual(read(packed).raw, packed)
        self.assertEqual(gzip.decompress(read(data).raw), data)
        again = parseRaw(RawFormat.JSON, read(data).raw)
        assert isinstance(again, ReceivedTLSReport)
        self.assertEqual(again.policies[0].domain, "example.org")

    def test_refused(self) -> None:
        """
        Unusable periods are refused with the reason.
        """
        for data, reason in (
            (tlsReport().replace(b"23T23:59", b"22T23:59"), "before it begins"),
            (tlsReport().replace(b"2026-11-23T00", b"1026-11-23T00"), "plausible"),
        ):
            self.assertIn(reason, refusal(data))


class FailureTests(SynchronousTestCase):
    """
    Failure reports.
    """

    def test_fields(self) -> None:
        """
        The domain is Reported-Domain, the time Arrival-Date (RFC 6591 3.2, RFC 5965
        3.2), the organization that of the author.
        """
        report = read(FAILURE)
        self.assertEqual(
            (report.kind, report.format, report.domain, report.organization),
            (
                ReceivedKind.FAILURE,
                RawFormat.MESSAGE,
                "example.org",
                "receiver.example",
            ),
        )
        self.assertEqual((report.start, report.end), (1789992000, 1789992000))
        self.assertEqual((report.total, report.failed), (1, 1))
        self.assertEqual(report.reportID, "<1@r.example>")

    def test_redacted(self) -> None:
        """
        Local parts, subjects, contents and links aren't kept (RFC 9991 7).
        """
        report = read(FAILURE)
        published = dict(report.published)
        self.assertEqual(published["Original-Mail-From"], "<redacted@example.org>")
        self.assertEqual(published["From"], "<redacted@example.org>")
        for kept in (repr(report), gzip.decompress(report.raw).decode()):
            for word in ("alice", "bob@", "hello", "c2VjcmV0", "https:", " x@"):
                self.assertNotIn(word, kept)

    def test_raw(self) -> None:
        """
        What is kept can be shown again.
        """
        report = read(FAILURE)
        again = parseRaw(RawFormat.MESSAGE, report.raw)
        assert isinstance(again, FeedbackReport)
        self.assertEqual(again.get("Reported-Domain"), "Example.ORG")
        self.assertEqual(again.get("Source-IP"), "192.0.2.7")
        self.assertEqual(again.original, (("From", "<redacted@example.org>"),))
        self.assertEqual(read(report.raw).published, report.published)

    def test_refused(self) -> None:
        """
        Complaints, and reports without domain or date, are refused.
        """
        for old, new, reason in (
            (b"auth-failure", b"abuse", "'abuse'"),
            (b"Mon, 21 Sep 2026", b"Someday", "Arrival-Date"),
            (b"Reported-Domain: Example.ORG\n", b"", ""),
        ):
            found = readReports(FAILURE.replace(old, new))
            self.assertEqual(bool(found.unreadable), bool(reason))
            if reason:
                self.assertIn(reason, found.unreadable[0].reason)
        nobody = FAILURE.replace(b"Reported-Domain: Example.ORG\n", b"").replace(
            b"From: x@example.org", b"From: nobody"
        )
        self.assertIn("Reported-Domain: missing", refusal(nobody))


class InputTests(SynchronousTestCase):
    """
    Tests for L{readReports} with several reports, and with none.
    """

    def test_several(self) -> None:
        """
        Reports are in the order of the input; what is unreadable has its name and the
        kind that could be seen.
        """
        data = archive(
            {
                "a.xml": aggregateReport(1),
                "b.xml": b"<feedback></feedback>",
                "c.json": tlsReport(),
                "d.eml": FAILURE,
            }
        )
        found = readReports(data)
        self.assertEqual(
            [each.kind for each in found.reports], ["dmarc", "tls", "failure"]
        )
        [refused] = found.unreadable
        self.assertEqual((refused.name, refused.kind), ("b.xml", ReceivedKind.DMARC))
        whole = list(receivedReports(data))
        self.assertEqual(
            [type(each) for each in whole],
            [ReceivedAggregateReport, Unreadable, ReceivedTLSReport, FeedbackReport],
        )

    def test_file(self) -> None:
        """
        A path is read; one that can't be is refused in one line.
        """
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(tlsReport(domain=None))
        self.assertEqual(len(readReports(path).reports), 1)
        for wrong in (path + "x", ".", "/dev/zero", "a\0b"):
            [refused] = readReports(wrong).unreadable
            self.assertTrue(refused.reason.startswith("input: "), refused)

    def test_stored(self) -> None:
        """
        What is kept of one input is limited.
        """
        from moxtls.received.reading import read as module

        data = archive({"a": aggregateReport(5), "b": aggregateReport(5)})
        one = read(aggregateReport(5))
        size = len(one.raw) + sum(map(len, one.blocks))
        self.patch(module, "MAX_STORED", size * 3 // 2)
        found = readReports(data)
        self.assertEqual(len(found.reports), 1)
        self.assertIn("octets", found.unreadable[0].reason)

    def test_unexpected(self) -> None:
        """
        An error in the program is a refusal of the input, too.
        """
        from moxtls.received.reading import read as module

        self.patch(module, "findDocuments", lambda data, name: 1 / 0)
        self.assertEqual(refusal(b""), "input: ZeroDivisionError")

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from([WHOLE.encode(), tlsReport(), FAILURE]),
        st.integers(0, 3000),
        st.integers(0, 20),
        st.binary(max_size=20),
    )
    def test_damaged(self, data: bytes, at: int, length: int, new: bytes) -> None:
        """
        Whatever is changed, a report is read or refused in one line.
        """
        at %= len(data)
        found = readReports(data[:at] + new + data[at + length :])
        for each in found.unreadable:
            self.assertTrue(each.reason.isprintable() and each.reason)
            self.assertNotRegex(each.reason, r"^input: \w+Error")
