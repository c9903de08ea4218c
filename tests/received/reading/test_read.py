"""
Tests for L{moxtls.received.reading.read}.
"""

from __future__ import annotations

import gzip
from base64 import encodebytes
from collections.abc import Callable
from io import BytesIO
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZipFile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.parse import (
    MAX_RECORD,
    FeedbackReport,
    ReceivedAggregateReport,
)
from moxtls.received.analysis.describe import describeReport
from moxtls.received.reading import documents
from moxtls.received.reading.read import readReport
from moxtls.tlsrpt.parse import MalformedReport, ReceivedTLSReport
from tests.corpus import corpus
from tests.dmarc.test_parse import MESSAGE as FEEDBACK
from tests.dmarc.test_parse import WHOLE

XML = WHOLE.encode()
JSON = b"""{"date-range": {"start-datetime": "2026-11-23T00:00:00Z",
"end-datetime": "2026-11-23T23:59:59Z"}, "policies": [{"policy":
{"policy-type": "sts", "policy-domain": "a.example"}}]}"""
#: Samples that aren't reports, and are refused.
REFUSED = {"empty.xml", "invalid_xml.xml", "exim_plain_text_only_no_arf_part.eml"}


def zipped(**members: bytes) -> bytes:
    """
    An archive; C{__} in a name stands for a dot.
    """
    return zippedBy(ZIP_DEFLATED, **members)


def zippedBy(method: int, **members: bytes) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return file.getvalue()


def mailed(content: bytes, type: str = "application/octet-stream") -> bytes:
    return (
        b"From: a@b.example\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
        b"--x\r\nContent-Type: text/plain\r\n\r\n[Report] {see below}\r\n"
        b"--x\r\nContent-Type: %s\r\nContent-Transfer-Encoding: base64\r\n\r\n%s"
        b"\r\n--x--\r\n"
    ) % (type.encode(), encodebytes(content))


def nested(pack: Callable[[bytes], bytes], times: int) -> bytes:
    """
    A report in that many containers.
    """
    data = XML
    for _ in range(times):
        data = pack(data)
    return data


class ReadTests(SynchronousTestCase):
    """
    Tests for L{readReport}.
    """

    def test_forms(self) -> None:
        """
        XML, gzip, zip, and messages with any of them under any type (RFC 9990 3.5,
        RFC 7489 7.2.1.1) are read alike.
        """
        plain = readReport(XML)
        self.assertIsInstance(plain, ReceivedAggregateReport)
        packed = gzip.compress(XML)
        for data in (
            packed,
            zipped(report__xml=XML),
            zipped(logo__png=b"\x89PNG", report__XML=XML),
            gzip.compress(packed),
            mailed(packed, "application/gzip"),
            mailed(packed),
            mailed(zipped(report__xml=XML), "application/zip"),
            mailed(XML, "text/xml"),
        ):
            self.assertEqual(readReport(data), plain)

    def test_kinds(self) -> None:
        """
        TLS reports (RFC 8460) and failure reports (RFC 9991) are known too.
        """
        self.assertIsInstance(readReport(JSON), ReceivedTLSReport)
        self.assertIsInstance(readReport(gzip.compress(JSON)), ReceivedTLSReport)
        self.assertIsInstance(
            readReport(mailed(gzip.compress(JSON))), ReceivedTLSReport
        )
        self.assertIsInstance(readReport(FEEDBACK), FeedbackReport)

    def test_refused(self) -> None:
        """
        Other files are refused in one line; compressed ones are decompressed up to a
        limit.
        """
        bomb = b"<feedback>" + b" " * (MAX_RECORD + 1)
        for data in (
            b"",
            b"hello",
            mailed(b"hello"),
            gzip.compress(b"hello"),
            gzip.compress(bomb),
            gzip.compress(XML)[:-9],
            zipped(a__xml=bomb),
            zipped(),
            zipped(a__txt=b"hello"),
            zipped(report__xml=XML)[:60],
            zipped(report__xml=XML)[:-40] + b"\xff" * 40,
            nested(gzip.compress, documents.MAX_NESTING + 1),
        ):
            error = self.assertRaises(MalformedReport, readReport, data)
            self.assertTrue(str(error).isprintable())

    def test_methods(self) -> None:
        """
        Zip methods that would decompress everything in memory, or with a dictionary
        of any size, are refused.
        """
        for method in (ZIP_BZIP2, ZIP_LZMA):
            data = zippedBy(method, report__xml=XML)
            with self.assertRaisesRegex(MalformedReport, "not supported"):
                readReport(data)

    def test_corpus(self) -> None:
        """
        Reports of real senders can be read, with their deviations.
        """
        files = [
            each
            for each in corpus("dmarc-reports").rglob("*")
            if each.is_file() and each.parent.name != "rfc3464"
        ]
        refused = set()
        for file in files:
            try:
                lines = describeReport(readReport(file.read_bytes()))
            except MalformedReport:
                refused.add(file.name)
            else:
                self.assertTrue(all(each.isprintable() for each in lines))
        self.assertEqual(refused, REFUSED)

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from([gzip.compress(XML), zipped(report__xml=XML), mailed(XML)]),
        st.integers(0, 2000),
        st.binary(min_size=1, max_size=6),
    )
    def test_damaged(self, data: bytes, place: int, new: bytes) -> None:
        """
        A report with any change is read or refused.
        """
        place %= len(data)
        try:
            readReport(data[:place] + new + data[place + len(new) :])
        except MalformedReport as error:
            self.assertTrue(str(error).isprintable())
