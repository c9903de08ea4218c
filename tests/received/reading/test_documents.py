"""
Tests for L{moxtls.received.reading.documents}.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from base64 import encodebytes
from collections.abc import Callable
from quopri import encodestring
from zipfile import ZIP_DEFLATED, ZipFile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.reading import documents
from moxtls.received.reading.documents import Document, findDocuments
from moxtls.received.types import RawFormat, Unreadable
from moxtls.tlsrpt.parse import MalformedReport
from tests.dmarc.test_parse import MESSAGE as FEEDBACK
from tests.received.reading.bombs import archive, multipart, stored
from tests.received.reading.samples import aggregateReport, tlsReport

XML = aggregateReport(3)
JSON = tlsReport()
Found = list[tuple[str, bytes]]


def found(data: bytes, name: str = "") -> Found:
    """
    The name and the content of each document, or the name and the reason.
    """
    return [
        (
            each.name,
            b"".join(each.chunks)
            if isinstance(each, Document)
            else each.reason.encode(),
        )
        for each in findDocuments(data, name)
    ]


def part(content: bytes, type: str, name: str = "", encoding: str = "base64") -> bytes:
    encoders: dict[str, Callable[[bytes], bytes]] = {
        "base64": encodebytes,
        "quoted-printable": encodestring,
        "8bit": bytes,
    }
    text = encoders[encoding](content)
    return (
        f'Content-Type: {type}; name="{name}"\r\n'
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    ).encode() + text


def tarred(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            opened.addfile(about, io.BytesIO(content))
    return file.getvalue()


class Unseekable(io.BytesIO):
    """
    A file to which an archive is written without going back.
    """

    def seek(self, position: int, whence: int = 0) -> int:
        raise OSError

    def tell(self) -> int:
        raise OSError


class FindTests(SynchronousTestCase):
    """
    Tests for L{findDocuments}.
    """

    def test_bare(self) -> None:
        """
        JSON and XML are known by their beginning, also behind a BOM, blanks, a
        comment or stray octets, and in UTF-16.
        """
        for data, format in (
            (JSON, RawFormat.JSON),
            (b"\xef\xbb\xbf\r\n" + JSON, RawFormat.JSON),
            (XML, RawFormat.XML),
            (b"\0\0junk" + XML, RawFormat.XML),
            (b"<!-- a -->" + XML.partition(b"?>")[2], RawFormat.XML),
            (XML.decode().encode("utf-16"), RawFormat.XML),
            (b"<n:feedback xmlns:n='x'>", RawFormat.XML),
        ):
            [document] = findDocuments(data)
            assert isinstance(document, Document), document
            self.assertEqual((document.name, document.format), ("", format))
            self.assertEqual(b"".join(document.chunks), data)

    def test_gzip(self) -> None:
        """
        All members of gzip are one document (RFC 1952 2.2); what isn't a member behind
        them is ignored.
        """
        packed = gzip.compress(XML)
        halves = gzip.compress(XML[:700]) + gzip.compress(XML[700:])
        for data in (packed, halves, packed + b"\0\0\0", gzip.compress(packed)):
            self.assertEqual(found(data), [("", XML)])
        for data, reason in (
            (packed[:-30], b"gzip: the data is cut off"),
            (packed[:-9], b"gzip: the data is cut off"),
            (packed[:200] + bytes(99) + packed[200:], b"gzip: the data is damaged"),
            (gzip.compress(b"hello"), b"gzip: there is no report in it"),
        ):
            self.assertEqual(readAll(data), [reason])

    def test_packed(self) -> None:
        """
        A document received in gzip is available as such, without what followed.
        """
        packed = gzip.compress(XML)
        for data in (packed, packed + b"\0\0", gzip.compress(packed)):
            [document] = findDocuments(data)
            assert isinstance(document, Document) and document.packed is not None
            list(document.chunks)
            self.assertEqual(document.packed(), packed)
        [document] = findDocuments(archive({"a.xml": XML}))
        assert isinstance(document, Document)
        self.assertIsNone(document.packed)

    def test_zip(self) -> None:
        """
        All members are looked at, but those that macOS adds, and logos aren't
        reports; octets before the archive are ignored.
        """
        data = archive(
            {
                "__MACOSX/._a.xml": XML,
                "._b.xml": XML,
                "logo.png": b"\x89PNG",
                "folder/": b"",
                "folder/a.xml": XML,
                "b.json.gz": gzip.compress(JSON),
            }
        )
        members = [("folder/a.xml", XML), ("b.json.gz", JSON)]
        self.assertEqual(found(data), members)
        self.assertEqual(found(b"PK\x03\x04junk" + data), members)
        self.assertEqual(found(stored(XML)), [("a.xml", XML)])

    def test_zipStreamed(self) -> None:
        """
        Sizes may be behind the content (APPNOTE.TXT 4.3.9).
        """
        file = Unseekable()
        with ZipFile(file, "w", ZIP_DEFLATED) as opened:
            opened.writestr("a.xml", XML)
        self.assertEqual(found(file.getvalue()), [("a.xml", XML)])

    def test_zipDamaged(self) -> None:
        """
        Damaged members are refused by name, and have no effect on the others.
        """
        data = bytearray(archive({"a.xml": XML, "b.xml": aggregateReport(1)}))
        data[60] ^= 255
        reasons = readAll(bytes(data))
        self.assertEqual(reasons[0], b"zip: the data is damaged")
        self.assertEqual(reasons[1], aggregateReport(1))
        whole = archive({"a.xml": XML})
        encrypted = bytearray(whole)
        encrypted[whole.rindex(b"PK\x01\x02") + 8] |= 1
        lost = bytearray(whole)
        lost[whole.rindex(b"PK\x01\x02") + 44] = 255
        for changed, reason in (
            (encrypted, b"zip: it is encrypted"),
            (lost, b"zip: the data is damaged"),
            (whole[:-30], b"zip: the data is damaged"),
            (archive({}), b"zip: there is no report in it"),
        ):
            self.assertEqual(readAll(bytes(changed)), [reason])

    def test_tar(self) -> None:
        """
        Members of tar, also compressed, are found (POSIX ustar).
        """
        members = {"x/a.xml": XML, "b.txt": b"hello", "c" * 90 + ".json": JSON}
        expected = [("x/a.xml", XML), ("c" * 90 + ".json", JSON)]
        self.assertEqual(found(tarred(members)), expected)
        self.assertEqual(found(gzip.compress(tarred(members))), expected)
        self.assertEqual(found(tarred(members)[:700])[0][0], "x/a.xml")

    def test_messages(self) -> None:
        """
        Each attachment is found under any media type and encoding (RFC 2045 6), and
        parts that are no reports are ignored.
        """
        message = multipart(
            [
                part(b"[Report] {see below}", "text/plain", "", "8bit"),
                part(b"<!-- a --><html>", "text/html", "", "8bit"),
                part(gzip.compress(JSON), "application/tlsrpt+gzip", "a.json.gz"),
                part(gzip.compress(XML), "application/octet-stream", "b"),
                part(archive({"c.xml": XML}), "application/x-zip", "c.zip"),
                part(XML, "text/xml", "d.xml", "quoted-printable"),
                part(XML, "image/png", "", "8bit"),
            ]
        )
        expected = [
            ("a.json.gz", JSON),
            ("b", XML),
            ("c.zip/c.xml", XML),
            ("d.xml", XML),
            ("", XML),
        ]
        self.assertEqual(found(message), expected)
        self.assertEqual(found(b"From x@y Mon\n" + message), expected)
        self.assertEqual(found(message.replace(b"\r\n", b"\n")), expected)
        self.assertEqual(found(b"Subject: x\r\n\r\n" + XML), [("", XML)])

    def test_forwarded(self) -> None:
        """
        Reports in messages within messages are found, attached or in archives.
        """
        inner = multipart([part(XML, "text/xml", "a.xml")])
        for data, name in (
            (multipart([part(inner, "message/rfc822", "", "8bit")]), "a.xml"),
            (multipart([part(inner, "message/rfc822")]), "a.xml"),
            (multipart([part(inner, "text/plain", "x.eml")]), "x.eml/a.xml"),
            (archive({"1.eml": inner, "2": b"hello"}), "1.eml/a.xml"),
            (gzip.compress(inner), "a.xml"),
        ):
            self.assertEqual(found(data), [(name, XML)])

    def test_failureReport(self) -> None:
        """
        A failure report (RFC 5965 2) is one document with all its parts.
        """
        [document] = findDocuments(FEEDBACK)
        assert isinstance(document, Document)
        self.assertEqual(document.format, RawFormat.MESSAGE)
        self.assertEqual(b"".join(document.chunks), FEEDBACK)
        inside = multipart([part(FEEDBACK, "message/rfc822", "", "8bit")])
        self.assertEqual(found(inside), [("", FEEDBACK)])

    def test_returned(self) -> None:
        """
        A report in a delivery status notification (RFC 3464) is one of this host that
        came back.
        """
        ours = multipart([part(XML, "text/xml", "a.xml")])
        message = multipart(
            [
                part(b"Action: failed", "message/delivery-status", "", "8bit"),
                part(ours, "message/rfc822", "", "8bit"),
            ]
        )
        self.assertEqual(found(message), [("", b"message: there is no report in it")])

    def test_hints(self) -> None:
        """
        The domain of a report is in TLS-Report-Domain, else in the subject (RFC 8460
        5.3), or in the file name (5.1).
        """
        subject = (
            b"Subject: Report Domain: s.example\r\n Submitter: x Report-ID: <y>\r\n"
        )
        name = "x.example!y.example!1!2.json"
        field = b"TLS-Report-Domain: z.example\r\n"
        bare = multipart([part(JSON, "application/tlsrpt+json")])
        for data, file, hint in (
            (JSON, name, "y.example"),
            (archive({name: JSON}), "", "y.example"),
            (multipart([part(JSON, "a/b", name)]), "", "y.example"),
            (field + bare, "", "z.example"),
            (archive({"a.eml": field + bare}), "", "z.example"),
            (subject + bare, "", "s.example"),
            (subject + field + bare, "", "z.example"),
            (b"Subject: Report Domain: hello\r\n" + bare, "", ""),
            (JSON, "report.json", ""),
        ):
            [document] = findDocuments(data, file)
            assert isinstance(document, Document)
            self.assertEqual(document.domainHint, hint)

    def test_nothing(self) -> None:
        """
        An input without a report is refused in one line that says what it is.
        """
        for data, kind in (
            (b"", b"message"),
            (b"hello", b"message"),
            (bytes(range(256)) * 50, b"message"),
            (gzip.compress(b""), b"gzip"),
            (archive({"a": b"hello"}), b"zip"),
            (tarred({"a": b"hello"}), b"tar"),
            (multipart([]), b"message"),
        ):
            self.assertEqual(found(data), [("", kind + b": there is no report in it")])

    def test_limits(self) -> None:
        """
        Each limit on the whole input ends the search, with what was found before.
        """
        three = archive(dict.fromkeys("abc", XML))
        for name, value, data, count, reason in (
            (
                "MAX_DOCUMENTS",
                2,
                archive({f"{n}": XML for n in range(3)}),
                2,
                b"reports",
            ),
            ("MAX_PARTS", 2, three, 2, b"parts"),
            ("MAX_PARTS", 1, multipart([part(XML, "a/b")] * 3), 0, b"parts"),
            (
                "MAX_UNPACKED",
                len(XML) + 9,
                archive({"a": XML, "b": XML, "c": JSON}),
                1,
                b"unpacked",
            ),
            ("MAX_INPUT", 99, XML, 0, b"more than 99 octets"),
        ):
            with self.subTest(name):
                patch = self.patch(documents, name, value)
                results = readAll(data)
                patch.restore()
                self.assertEqual(results[:count], [XML] * count)
                self.assertIn(reason, results[-1])

    def test_innerLimits(self) -> None:
        """
        Limits on what is within others have no effect on the rest.
        """
        deep = XML
        for _ in range(documents.MAX_NESTING + 1):
            deep = gzip.compress(deep)
        [refused, read] = readAll(archive({"a": deep, "b": XML}))
        self.assertIn(b"nested", refused)
        self.assertEqual(read, XML)
        self.patch(documents, "MAX_HELD", 5000)
        large = archive({"a": stored(aggregateReport(50)), "b": XML})
        [refused, read] = readAll(large)
        self.assertIn(b"inner archives", refused)
        self.assertEqual(read, XML)

    def test_names(self) -> None:
        """
        Names are printable, of limited length.
        """
        [(name, _)] = found(archive({"\x1b[2J" + "x" * 5000: XML}))
        self.assertTrue(name.isprintable() and len(name) <= 200)

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from(
            [
                archive({"a.xml": XML, "b.json": JSON}),
                gzip.compress(XML),
                tarred({"a.xml": XML}),
                multipart([part(gzip.compress(JSON), "a/b"), part(XML, "c/d")]),
            ]
        ),
        st.integers(0, 5000),
        st.integers(0, 20),
        st.binary(max_size=20),
    )
    def test_damaged(self, data: bytes, at: int, length: int, new: bytes) -> None:
        """
        Whatever is changed, each document is read or refused.
        """
        at %= len(data)
        for each in readAll(data[:at] + new + data[at + length :]):
            self.assertIsInstance(each, bytes)


def readAll(data: bytes) -> list[bytes]:
    """
    The content of each document, or the reason why it can't be read.
    """
    results = []
    for each in findDocuments(data):
        if isinstance(each, Unreadable):
            results.append(each.reason.encode())
            continue
        try:
            results.append(b"".join(each.chunks))
        except MalformedReport as error:
            results.append(str(error).encode())
    return results
