# -*- test-case-name: tests.dmarc.test_parse -*-
"""
Tolerant parsers for received DMARC reports: aggregate reports (RFC 9990, RFC 7489 and
earlier drafts) and failure reports (RFC 9991, RFC 6591, RFC 5965).  No I/O.

Few aggregate reports follow a schema strictly.  So elements are found by name in any
order, namespaces are ignored, and missing elements are empty.  Sizes are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from encodings.aliases import aliases
from itertools import islice
from typing import NoReturn
from xml.parsers.expat import ExpatError, ParserCreate

from moxtls.message.header import textFields
from moxtls.message.mime import leafParts, splitEntity
from moxtls.tlsrpt.parse import MalformedReport, escapeUnprintable

#: Octets of a report as XML.
MAX_XML = 20 * 1024 * 1024
#: Characters of an element's text.
MAX_TEXT = 4096
#: Reports have six levels; extensions (RFC 9990 3.1.2) may add some.
MAX_DEPTH = 24
#: Elements in one record, or in the head of a report.
MAX_ELEMENTS = 5000
#: RFC 9990 has no limit; no larger number of messages is plausible.
MAX_COUNT = 2**63 - 1
#: Unix seconds: the year 9999.
LAST_SECOND = 253402300799

_MAX_LINE = 300
_BOM = b"\xef\xbb\xbf"
_ENCODING = re.compile(rb"<\?xml[^>]{0,100}encoding\s*=\s*[\"']([A-Za-z0-9._-]+)")
_CHARSETS = frozenset((*aliases, *aliases.values()))
_DIGITS = re.compile(r"[0-9]{1,19}(?:\.[0-9]*)?\Z")

_REPORT = "message/feedback-report"
_ORIGINALS = ("message/rfc822", "message/global", "text/rfc822-headers")
#: Of the machine-readable part: fields are few and short.
MAX_FIELDS_SIZE = 64 * 1024
MAX_FIELDS = 200
MAX_VALUE = 1000
# Fields that identify a message without showing its content.
_IDENTIFYING = ("from", "to", "subject", "date", "message-id")
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ReceivedSignature:
    """
    The result of a DKIM signature, as reported.
    """

    domain: str
    selector: str
    result: str
    humanResult: str = ""


@dataclass(frozen=True, slots=True)
class ReceivedSPF:
    """
    The result of SPF, as reported.
    """

    domain: str
    scope: str
    result: str


@dataclass(frozen=True, slots=True)
class ReceivedReason:
    """
    A reason why a policy wasn't applied.
    """

    type: str
    comment: str


@dataclass(frozen=True, slots=True)
class ReceivedRecord:
    """
    One C{record}.  Results and dispositions are in lower case.
    """

    sourceIP: str
    count: int
    disposition: str
    dkimAligned: str
    spfAligned: str
    reasons: tuple[ReceivedReason, ...]
    headerFrom: str
    envelopeFrom: str
    envelopeTo: str
    dkim: tuple[ReceivedSignature, ...]
    spf: tuple[ReceivedSPF, ...]


@dataclass(frozen=True, slots=True)
class ReceivedAggregateReport:
    """
    A received aggregate report.

    @ivar start: Unix seconds.
    @ivar end: The Unix second of the last second of the period.
    @ivar published: The elements of C{policy_published}, in their order.
    """

    organization: str
    email: str
    contact: str
    reportID: str
    start: int
    end: int
    errors: tuple[str, ...]
    generator: str
    domain: str
    published: tuple[tuple[str, str], ...]
    records: tuple[ReceivedRecord, ...]

    @property
    def messages(self) -> int:
        return sum(each.count for each in self.records)


@dataclass(slots=True)
class _Element:
    """
    An element while it is being read.
    """

    name: str
    children: list[_Element] = field(default_factory=list)
    text: str = ""

    def all(self, name: str) -> Iterator[_Element]:
        return (each for each in self.children if each.name == name)

    def get(self, *names: str) -> _Element:
        """
        The first element at that path; an empty one if there is none.
        """
        element = self
        for name in names:
            element = next(element.all(name), _NOTHING)
        return element

    def say(self, *names: str) -> str:
        return self.get(*names).text.strip()


_NOTHING = _Element("")


def parseAggregateReport(text: bytes) -> ReceivedAggregateReport:
    """
    Parse an aggregate report.

    @param text: XML; anything after the root element is ignored.

    @raise MalformedReport: With the place and the reason.
    """
    if len(text) > MAX_XML:
        _refuse("report", f"larger than {MAX_XML} bytes")
    decodable, encoding = _decodable(text.removeprefix(_BOM).lstrip())
    reader = _Reader(encoding)
    reader.read(decodable)
    return _aggregate(reader)


class _Reader:
    """
    Parses a report record by record, without a tree of the whole document.
    """

    def __init__(self, encoding: str | None) -> None:
        """
        @param encoding: Overrides the declared encoding; C{None} to use it.
        """
        self.head = _Element("feedback")
        self.records: list[ReceivedRecord] = []
        self._open: list[_Element] = []
        # Elements of the record, and meanwhile those of the head, which is kept and
        # may continue between records.
        self._elements = 0
        self._inHead = 0
        self._ended = False
        self._parser = ParserCreate(encoding)
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype

    def read(self, text: bytes) -> None:
        try:
            self._parser.Parse(text, True)
        except ExpatError as error:
            if not self._ended:
                where = f"line {error.lineno}, column {error.offset + 1}"
                _refuse(where, str(error).partition(":")[0])
        except (ValueError, LookupError) as error:
            if isinstance(error, MalformedReport):
                raise
            _refuse("report", f"its encoding is not known ({error})")
        if not self._ended:
            _refuse("report", "no element 'feedback'")

    def _doctype(self, *declared: object) -> NoReturn:
        # Reports need none, and entities can expand without limit.
        _refuse(self._where(), "a document type declaration")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if len(self._open) == 1 and name == "record":
            self._inHead, self._elements = self._elements, 0
        self._elements += 1
        if self._elements > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            _refuse(self._where(), "too many elements")
        if self._open:
            self._open.append(_Element(name))
        elif name == "feedback" and not self._ended:
            self._open.append(self.head)
        # Other elements around it are ignored: some reports have an unclosed schema
        # element.

    def _end(self, tag: str) -> None:
        if not self._open:
            return
        element = self._open.pop()
        if not self._open:
            self._ended = True
        elif len(self._open) == 1 and element.name == "record":
            self._elements = self._inHead
            self.records.append(_record(element, self._where()))
        else:
            self._open[-1].children.append(element)

    def _characters(self, text: str) -> None:
        if not self._open:
            return
        element = self._open[-1]
        if len(element.text) + len(text) > MAX_TEXT:
            if text.isspace():
                return
            _refuse(self._where(), "too long a text")
        element.text += text

    def _where(self) -> str:
        return f"line {self._parser.CurrentLineNumber}"


def _decodable(text: bytes) -> tuple[bytes, str | None]:
    """
    Replace invalid octets, so that one of them doesn't invalidate a whole report.

    @return: The text, and its encoding if it isn't the declared one.
    """
    declared = _ENCODING.match(text[:200])
    if declared is not None and declared[1].lower() not in (b"utf-8", b"us-ascii"):
        name = declared[1].decode("ascii").lower().replace("-", "_")
        # Python caches unknown names without limit.
        if name not in _CHARSETS:
            _refuse("report", "its encoding is not known")
        return text, None
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return text, None
    return text.decode("utf-8", "replace").encode("utf-8"), "utf-8"


def _aggregate(reader: _Reader) -> ReceivedAggregateReport:
    metadata = reader.head.get("report_metadata")
    published = reader.head.get("policy_published")
    domain = published.say("domain")
    if not domain:
        _refuse("feedback.policy_published.domain", "missing")
    return ReceivedAggregateReport(
        organization=metadata.say("org_name"),
        email=metadata.say("email"),
        contact=metadata.say("extra_contact_info"),
        reportID=metadata.say("report_id"),
        start=_second(metadata, "begin"),
        end=_second(metadata, "end"),
        errors=tuple(each.text.strip() for each in metadata.all("error")),
        generator=metadata.say("generator"),
        domain=domain,
        published=tuple(
            (each.name, each.text.strip())
            for each in published.children
            if not each.children and each.name != "domain"
        ),
        records=tuple(reader.records),
    )


def _record(record: _Element, where: str) -> ReceivedRecord:
    row, identifiers = record.get("row"), record.get("identifiers")
    evaluated = row.get("policy_evaluated")
    results = record.get("auth_results")
    return ReceivedRecord(
        sourceIP=row.say("source_ip"),
        count=_number(row.say("count"), f"{where}: row.count", MAX_COUNT),
        disposition=evaluated.say("disposition").lower(),
        dkimAligned=evaluated.say("dkim").lower(),
        spfAligned=evaluated.say("spf").lower(),
        reasons=tuple(_reasons(evaluated)),
        headerFrom=identifiers.say("header_from"),
        envelopeFrom=identifiers.say("envelope_from"),
        envelopeTo=identifiers.say("envelope_to"),
        dkim=tuple(
            ReceivedSignature(
                each.say("domain"),
                each.say("selector"),
                each.say("result").lower(),
                each.say("human_result"),
            )
            for each in results.all("dkim")
        ),
        spf=tuple(
            ReceivedSPF(
                each.say("domain"),
                each.say("scope").lower(),
                each.say("result").lower(),
            )
            for each in results.all("spf")
        ),
    )


def _reasons(evaluated: _Element) -> Iterator[ReceivedReason]:
    for each in evaluated.all("reason"):
        reason = ReceivedReason(each.say("type").lower(), each.say("comment"))
        if reason.type or reason.comment:
            yield reason


def _second(metadata: _Element, name: str) -> int:
    where = f"feedback.report_metadata.date_range.{name}"
    return _number(metadata.say("date_range", name), where, LAST_SECOND)


def _number(text: str, where: str, most: int) -> int:
    if not _DIGITS.match(text):
        _refuse(where, f"{text[:40]!r} is not a number" if text else "missing")
    number = int(text.partition(".")[0])
    if number > most:
        _refuse(where, "out of range")
    return number


def _refuse(where: str, reason: str) -> NoReturn:
    raise MalformedReport(escapeUnprintable(f"{where}: {reason}")[:_MAX_LINE])


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """
    A received feedback report on one message (RFC 5965).

    @ivar fields: The fields of the machine-readable part (RFC 5965 3), in order, with
        names as written.
    @ivar original: The fields that identify the original message.
    """

    fields: Fields
    original: Fields

    def get(self, name: str) -> str:
        """
        The first field with that name, in any case; empty if there is none.
        """
        wanted = name.lower()
        return next((v for key, v in self.fields if key.lower() == wanted), "")


def readFeedbackReport(message: bytes) -> FeedbackReport | None:
    """
    Read a feedback report.

    @return: C{None} if C{message} is none.
    """
    fields: Fields = ()
    original: Fields = ()
    for part in leafParts(message):
        if part.type == _REPORT and not fields:
            fields = tuple(_fields(part.content))
        elif part.type in _ORIGINALS and not original:
            header, _ = splitEntity(part.content)
            original = tuple(
                each for each in _fields(header) if each[0].lower() in _IDENTIFYING
            )
    return FeedbackReport(fields, original) if fields else None


def _fields(block: bytes) -> Iterator[tuple[str, str]]:
    for name, value in islice(textFields(block[:MAX_FIELDS_SIZE]), MAX_FIELDS):
        if name:
            yield name[:80], value[:MAX_VALUE]
