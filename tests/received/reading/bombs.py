"""
Inputs made to take time and memory, by name.
"""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import encodebytes
from collections.abc import Callable, Iterable
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

from tests.received.reading.samples import (
    FOOT,
    aggregateHead,
    aggregateReport,
    tlsReport,
)

MB = 1024 * 1024
_HEAD = aggregateHead().encode()
_FOOT = FOOT.encode()


def packed(pieces: Iterable[bytes]) -> bytes:
    """
    Gzip without all of the content in memory.
    """
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS + 16)
    return b"".join([*map(packer.compress, pieces), packer.flush()])


def archive(members: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w", ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


def multipart(parts: Iterable[bytes]) -> bytes:
    return b"".join(
        [
            b"From: a@b.example\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n",
            *(b"--x\r\n" + part + b"\r\n" for part in parts),
            b"--x--\r\n",
        ]
    )


def attached(content: bytes, encoding: str = "base64") -> bytes:
    text = encodebytes(content) if encoding == "base64" else content
    return (
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: %s"
        b"\r\n\r\n%s" % (encoding.encode(), text)
    )


def _blank(megabytes: int) -> Iterable[bytes]:
    return (b" " * MB for _ in range(megabytes))


def _record(content: bytes) -> bytes:
    return b"<record><row><count>1</count></row>%s</record>" % content


def _manySignatures(records: int, signatures: int) -> bytes:
    results = b"<auth_results>%s</auth_results>" % (b"<dkim/>" * signatures)
    return packed([_HEAD, *[_record(results)] * records, _FOOT])


def _nestedZip(depth: int) -> bytes:
    content = archive({"a.xml": _HEAD + b" " * (20 * MB)})
    for _ in range(depth):
        content = archive({f"{number}.zip": content for number in range(8)})
    return content


def _nestedMultiparts(depth: int) -> bytes:
    body = b"\r\n--%d\r\n\r\nx"
    head = b"Content-Type: multipart/mixed; boundary=%d\r\n"
    return b"".join((head + body) % (each, each) for each in range(depth))


def _differentNames(records: int) -> Iterable[bytes]:
    yield _HEAD
    for number in range(records):
        yield _record(b"".join(b"<n%d-%d/>" % (number, each) for each in range(200)))
    yield _FOOT


def _differentAttributes(records: int) -> Iterable[bytes]:
    yield _HEAD
    for number in range(records):
        yield _record(b"".join(b"<a n%d-%d=''/>" % (number, n) for n in range(200)))
    yield _FOOT


def _policies(count: int) -> bytes:
    report = json.loads(tlsReport())
    report["policies"] *= count
    return gzip.compress(json.dumps(report).encode())


def _laughs() -> bytes:
    names = "abcdefghij"
    entities = "".join(
        f'<!ENTITY {name} "{f"&{names[number - 1]};" * 10 if number else "ha"}">'
        for number, name in enumerate(names)
    )
    text = aggregateReport().decode().replace("receiver.example", "&j;")
    return text.replace("<feedback>", f"<!DOCTYPE f [{entities}]><feedback>").encode()


def stored(content: bytes) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as opened:
        opened.writestr("a.xml", content)
    return file.getvalue()


Input = tuple[Callable[[], bytes], str]

#: Small inputs, and why each is refused; empty for those that are read.
SMALL: dict[str, Input] = {
    "gzip of blanks": (lambda: packed([b"<feedback>", *_blank(310)]), "a record of"),
    "gzip of 300,000 members": (
        lambda: gzip.compress(b"<feedback>") + gzip.compress(b" ") * 300_000,
        "parts",
    ),
    "zip of gzip of many members": (
        lambda: archive(
            dict.fromkeys(
                map(str, range(100)),
                gzip.compress(b"<feedback>") + gzip.compress(b"") * 100_000,
            )
        ),
        "parts",
    ),
    "gzip of nothing": (lambda: packed(_blank(310)), "no report"),
    "gzip in gzip": (lambda: gzip.compress(packed(_blank(310))), "no report"),
    "zip of blanks": (
        lambda: archive({"a.xml": _HEAD + b" " * (100 * MB)}),
        "a record of",
    ),
    "zip in zip in zip": (lambda: _nestedZip(2), "a record of"),
    "zip of 60,000 members": (
        lambda: archive(dict.fromkeys(map(str, range(60_000)), b"")),
        "parts",
    ),
    "zip of 1,500 reports": (
        lambda: archive(dict.fromkeys(map(str, range(1500)), aggregateReport())),
        "reports",
    ),
    "zip of 40 bombs": (
        lambda: archive(
            dict.fromkeys(
                map(str, range(40)), gzip.decompress(_manySignatures(100, 4900))
            )
        ),
        "elements",
    ),
    "500 records of 4,900 results": (lambda: _manySignatures(500, 4900), "elements"),
    "440,000 records of a count": (
        lambda: packed([_HEAD, *[_record(b"")] * 440_000, _FOOT]),
        "",
    ),
    "900,000 policy strings": (
        lambda: gzip.compress(
            tlsReport().replace(b'"version: STSv1"', b",".join([b'""'] * 900_000))
        ),
        "values",
    ),
    "900,000 short values": (
        lambda: gzip.compress(b'{"a":[%s]}' % b",".join([b"1"] * 900_000)),
        "values",
    ),
    "49,000 objects": (
        lambda: gzip.compress(b'{"a":[%s]}' % b",".join([b"{}"] * 49_000)),
        "date-range",
    ),
    "4,000 policies": (lambda: _policies(4000), ""),
    "JSON nested": (lambda: b'{"a":' * 99_000, "nested"),
    "JSON nested in strings": (lambda: b'{"a":"' + b'[{\\"' * (MB // 2), "values"),
    "JSON of wide characters": (
        lambda: gzip.compress(
            '{{"a": "{}", "b": "{}"}}'.format(
                "x" * (4 * MB - 99), "\U0001f600"
            ).encode()
        ),
        "date-range",
    ),
    "JSON of 300 MB": (lambda: packed([b'{"', *_blank(300)]), "octets"),
    "XML nested": (lambda: _HEAD + b"<a>" * 1_000_000, "a record of"),
    "XML nested in a record": (
        lambda: _HEAD + _record(b"<a>" * 9000 + b"</a>" * 9000) + _FOOT,
        "",
    ),
    "a long tag": (lambda: packed([_HEAD, b"<a", *_blank(100)]), "a record of"),
    "a long comment": (lambda: packed([_HEAD, b"<!--", *_blank(100)]), "a record of"),
    "unfinished CDATA": (
        lambda: packed([_HEAD, b"&", b"<![CDATA[" * 2_000_000]),
        "a record of",
    ),
    "ampersands": (
        lambda: packed([_HEAD, *[_record(b"&" * 60_000)] * 500, _FOOT]),
        "well-formed",
    ),
    "billion laughs": (_laughs, "document type"),
    "a text of 300 MB": (
        lambda: packed([_HEAD, b"<record><row><a>", *_blank(300)]),
        "a record of",
    ),
    "different elements": (lambda: packed(_differentNames(2000)), ""),
    "different attributes": (lambda: packed(_differentAttributes(2000)), ""),
    "100,000 parts": (lambda: multipart([b"\r\nx"] * 100_000), "parts"),
    "nested multiparts": (lambda: _nestedMultiparts(10_000), "no report"),
    "nested messages": (
        lambda: b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
        "nested",
    ),
    "many header fields": (lambda: b"a: b\r\n" * 500_000, "no report"),
    "large headers of parts": (
        lambda: multipart([b"a:\n" * 5000] * 900),
        "no report",
    ),
    "a zip in many parts": (
        lambda: multipart(
            [attached(archive({"a.xml": _HEAD + b" " * (30 * MB)}))] * 90
        ),
        "a record of",
    ),
}

#: Large inputs, with the number of records.
LARGE: dict[str, tuple[Callable[[], bytes], int]] = {
    "in a message": (
        lambda: multipart([attached(gzip.compress(aggregateReport(100_000), 6))]),
        100_000,
    ),
    "in a zip file": (lambda: archive({"a.xml": aggregateReport(30_000)}), 30_000),
    "bare": (lambda: aggregateReport(39_000), 39_000),
    "in a stored zip file in a message": (
        lambda: multipart([attached(stored(aggregateReport(28_000)))]),
        28_000,
    ),
    "quoted-printable": (
        lambda: multipart([attached(aggregateReport(39_000), "quoted-printable")]),
        39_000,
    ),
}
