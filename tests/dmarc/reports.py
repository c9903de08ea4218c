"""
Support for tests of DMARC reports.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from xml.etree import ElementTree

from lxml import etree
from twisted.internet.task import Clock

from moxtls.authentication.results import AuthResult
from moxtls.dates import HOUR, Span, midnight
from moxtls.dmarc.aggregate import MAX_REPORT, AggregateMetadata, ReportFormat
from moxtls.dmarc.eligibility import DMARCReporting
from moxtls.dmarc.source import DMARCReportSource
from moxtls.dmarc.types import (
    Disposition,
    Evaluation,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.dmarc.types import DMARCPolicy as Asked
from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore, IReportSource
from moxtls.ledger.ledger import MemoryLedger
from moxtls.message.mime import leafParts
from moxtls.queue.memory import MemoryQueue
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.handover import QueueSubmitter
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from tests.corpus import corpus
from tests.reporting.support import DAY, ED25519, HOSTNAME, SUBMITTER, A, ids

NAMESPACE = "{urn:ietf:params:xml:ns:dmarc-2.0}"
SPAN = Span(midnight(DAY), midnight(DAY) + 86400)
HEADING = AggregateMetadata(
    SUBMITTER, "20261125.00.ab12.a.example@sender.example", SPAN
)
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


class DMARCWorld:
    """
    All that reports on DMARC need, in memory, a little after midnight.

    @ivar largest: Octets of a report.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(SPAN.end + 300)
        self.resolver = MemoryResolver({(str(SUBMITTER), RRType.A): ["192.0.2.25"]})
        self.ledger = MemoryLedger()
        self.queue = MemoryQueue(self.clock, ids())
        self.settings = DMARCReporting(SUBMITTER)
        self.largest = MAX_REPORT
        self.newID = ids()

    def publishRecord(self, domain: Domain, *uris: str, more: str = "") -> None:
        """
        Publish a DMARC record of C{domain} with report destinations.
        """
        rua = ",".join(uris or (f"mailto:dmarc@{domain}",))
        self.resolver.put(
            f"_dmarc.{domain}", RRType.TXT, f"v=DMARC1; p=reject; rua={rua}{more}"
        )

    def publishConfirmation(
        self, domain: Domain, host: str, text: str = "v=DMARC1"
    ) -> None:
        """
        Publish the confirmation of C{host} for reports about C{domain}.
        """
        self.resolver.put(f"{domain}._report._dmarc.{host}", RRType.TXT, text)

    def record(self, *evaluations: Evaluation, hour: int = -24, times: int = 1) -> None:
        """
        @param hour: Counted from the midnight that is just over.
        """
        for each in evaluations or (evaluation(),):
            for _ in range(times):
                self.ledger.evaluations.record(SPAN.end + hour * HOUR, each)

    def source(self, store: IEvaluationStore | None = None) -> DMARCReportSource:
        return DMARCReportSource(
            self.resolver,
            store or self.ledger.evaluations,
            self.ledger.history,
            self.settings,
            self.ledger.identifier,
            self.largest,
        )

    def service(
        self, node: str = "node", source: IReportSource | None = None
    ) -> ReportService:
        """
        A service that isn't started.
        """
        identity = ReportIdentity(HOSTNAME, (ED25519,))
        return ReportService(
            self.clock,
            ReportPipeline(
                source or self.source(),
                self.ledger.archive,
                self.ledger.leases,
                ReportComposer(
                    self.clock, self.ledger.suppressions, identity, self.newID
                ),
                QueueSubmitter(self.queue),
            ),
            jitter=lambda: 0.5,
            options=ReportOptions(node),
        )

    def queued(self) -> list[str]:
        """
        The recipients in the queue.
        """
        return [to for each in self.queue.envelopes for to in each.recipients]

    def documents(self) -> list[bytes]:
        """
        The reports in the queue, as they came in.
        """
        bodies = self.queue.bodies.values()
        return [list(leafParts(body))[1].content for body in bodies]


def evaluation(
    domain: Domain = A,
    row: ReportRow = ROW,
    hours: int = 24,
    optional: bool = False,
    wanted: bool = True,
) -> Evaluation:
    """
    An evaluation that causes a report.
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
    Faults by the schema of C{format}.
    """
    path = corpus("schemas", SCHEMAS[format])
    schema = etree.XMLSchema(etree.parse(str(path)))
    schema.validate(etree.fromstring(unpacked(document)))
    return [f"{each.line}: {each.message}" for each in schema.error_log]


def unpacked(document: bytes) -> bytes:
    """
    The document, decompressed as a single gzip member.
    """
    unpacker = zlib.decompressobj(zlib.MAX_WBITS + 16)
    content = unpacker.decompress(document) + unpacker.flush()
    assert unpacker.eof and not unpacker.unused_data
    return content


def parsed(document: bytes) -> ElementTree.Element:
    """
    The root element, without namespaces, which L{faults} checks.
    """
    root = ElementTree.fromstring(unpacked(document))
    for element in root.iter():
        element.tag = element.tag.removeprefix(NAMESPACE)
    return root


def texts(element: ElementTree.Element, path: str) -> list[str]:
    """
    The texts of all elements at C{path}.
    """
    return [each.text or "" for each in element.findall(path)]


def children(element: ElementTree.Element | None) -> dict[str, str]:
    """
    The texts of an element's children, each of which occurs once.
    """
    assert element is not None
    found = {each.tag: each.text or "" for each in element}
    assert len(found) == len(element)
    return found


def counts(document: bytes) -> dict[str, int]:
    """
    Message counts, by source.
    """
    rows = parsed(document).iterfind("record/row")
    pairs = ((children(row)["source_ip"], children(row)["count"]) for row in rows)
    return {source: int(count) for source, count in pairs}


def rowsFrom(number: int) -> Iterable[ReportRow]:
    """
    C{count} different rows.
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
