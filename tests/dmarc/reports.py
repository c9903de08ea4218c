"""
What tests of DMARC reports have in common.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from xml.etree import ElementTree

from lxml import etree

from moxtls.authentication import AuthResult
from moxtls.calendar import Span, midnight
from moxtls.dmarc.reportxml import Heading, ReportFormat
from moxtls.dmarc.values import (
    Disposition,
    Evaluation,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.dmarc.values import Policy as Asked
from moxtls.domain import Domain
from tests.corpus import corpus
from tests.reporting.support import DAY, SUBMITTER, A

NAMESPACE = "{urn:ietf:params:xml:ns:dmarc-2.0}"
SPAN = Span(midnight(DAY), midnight(DAY) + 86400)
HEADING = Heading(SUBMITTER, "20261125.00.ab12.a.example@sender.example", SPAN)
PUBLISHED = PublishedPolicy(A, Asked.REJECT)
ROW = ReportRow(
    "192.0.2.1",
    Disposition.PASS,
    True,
    False,
    (),
    "a.example",
    "bounce.a.example",
    "sender.example",
    (ReportedSignature("a.example", "s1", AuthResult.PASS),),
    ReportedSPF("bounce.a.example", "mfrom", AuthResult.FAIL),
)
SCHEMAS = {
    ReportFormat.RFC9990: "dmarc-rfc9990-appendix-a.xsd",
    ReportFormat.RFC7489: "dmarc-rfc7489-appendix-c.no-ns-loadable.xsd",
}


def evaluation(
    domain: Domain = A,
    row: ReportRow = ROW,
    hours: int = 24,
    optional: bool = False,
    wanted: bool = True,
) -> Evaluation:
    """
    One that is worth a report.
    """
    return Evaluation(
        PublishedPolicy(domain, Asked.REJECT),
        row,
        hours,
        (f"mailto:dmarc@{domain}",),
        optional,
        wanted,
    )


def faults(document: bytes, format: ReportFormat) -> list[str]:
    """
    What the schema of C{format} has against it.
    """
    path = corpus("schemas", SCHEMAS[format])
    schema = etree.XMLSchema(etree.parse(str(path)))
    schema.validate(etree.fromstring(unpacked(document)))
    return [f"{each.line}: {each.message}" for each in schema.error_log]


def unpacked(document: bytes) -> bytes:
    """
    What a consumer that knows of one gzip member only sees, all of it.
    """
    unpacker = zlib.decompressobj(zlib.MAX_WBITS + 16)
    content = unpacker.decompress(document) + unpacker.flush()
    assert unpacker.eof and not unpacker.unused_data
    return content


def parsed(document: bytes) -> ElementTree.Element:
    """
    The root, without namespaces, which L{faults} looks after.
    """
    root = ElementTree.fromstring(unpacked(document))
    for element in root.iter():
        element.tag = element.tag.removeprefix(NAMESPACE)
    return root


def texts(element: ElementTree.Element, path: str) -> list[str]:
    """
    What is in all elements at C{path}.
    """
    return [each.text or "" for each in element.findall(path)]


def children(element: ElementTree.Element | None) -> dict[str, str]:
    """
    What is in an element that has each child once.
    """
    assert element is not None
    found = {each.tag: each.text or "" for each in element}
    assert len(found) == len(element)
    return found


def counts(document: bytes) -> dict[str, int]:
    """
    How many messages there were, by source.
    """
    rows = parsed(document).iterfind("record/row")
    pairs = ((children(row)["source_ip"], children(row)["count"]) for row in rows)
    return {source: int(count) for source, count in pairs}


def rowsFrom(number: int) -> Iterable[ReportRow]:
    """
    So many that differ.
    """
    for each in range(number):
        yield ReportRow(
            f"2001:db8::{each:x}",
            Disposition.NONE,
            False,
            False,
            (),
            "a.example",
            "a.example",
            "sender.example",
        )
