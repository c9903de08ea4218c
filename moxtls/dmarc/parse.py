# -*- test-case-name: tests.dmarc.test_parse -*-
"""
Tolerant parsers for received DMARC reports: aggregate reports (RFC 9990, RFC 7489 and
earlier drafts) and failure reports (RFC 9991, RFC 6591, RFC 5965).  No I/O.

Few aggregate reports follow a schema strictly.  So elements are found by name in any
order, namespaces are ignored, and missing elements are empty.

An aggregate report is cut into pieces behind a record, and each piece is parsed on its
own.  That bounds memory, including what XML parsers keep of each name that they have
seen, and is several times faster than a function call for each element.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, NoReturn
from xml.etree.ElementTree import Element, ParseError, XMLParser

from moxtls.message.header import textFields
from moxtls.message.mime import leafParts, splitEntity
from moxtls.tlsrpt.parse import MalformedReport, escapeUnprintable

#: Octets of XML that are read at once.
CHUNK = 64 * 1024
#: Characters before the root element.
MAX_PROLOG = CHUNK
#: Characters of a record, and of all that is before, between and behind records.
MAX_RECORD = 128 * 1024
#: Records; large receivers are known to report on 100,000 sources.
MAX_RECORDS = 500_000
#: Elements of a report, and as many more for each record; a record has some 25.
MAX_ELEMENTS = 20_000
MAX_ELEMENTS_EACH = 200
#: Places where a report isn't well-formed.
MAX_REPAIRS = 1_000_000
#: Characters of a text in the head.
MAX_TEXT = 4096
#: Errors, and elements of a published policy, that are kept.
MAX_ENTRIES = 100
#: RFC 9990 has no limit; no larger number of messages is plausible.
MAX_COUNT = 10**12
#: Unix seconds: the year 9999.
LAST_SECOND = 253402300799

_MAX_LINE = 300
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_ENCODING = re.compile(rb"<\?xml[^>]{0,100}encoding\s*=\s*[\"']([A-Za-z0-9._-]+)")
# Python has others under which a text could expand, or that aren't for texts.
_CHARSETS = re.compile(
    r"iso-?8859-?\d+|latin-?\d|windows-\d+|cp\d+|koi8-[rut]|gb2312|gbk|gb18030|big5"
    r"|euc-?(?:jp|kr|cn)|shift[-_]jis|iso-2022-(?:jp|kr)|us-ascii|ascii|utf-?\d+"
    r"(?:-?[bl]e)?"
)
_ROOT = re.compile(r"<((?:[A-Za-z_][\w.-]{0,60}:)?feedback)(?=[\s/>])[^>]{0,4000}>")
_RECORD_END = re.compile(r"</(?:[A-Za-z_][\w.-]{0,60}:)?record\s{0,9}>")
# What makes a piece unreadable: prefixes that are declared outside of it or nowhere,
# namespaces, ampersands that begin no reference, control characters.
_REPAIRED = re.compile(
    r"(?P<keep><!\[CDATA\[.*?(?:\]\]>|\Z))"
    r"|(?P<tag></?)[A-Za-z_][\w.-]*:"
    r"|\sxmlns(?::[\w.-]+)?\s?=\s?(?:\"[^\"<]*\"|'[^'<]*')"
    r"|(?P<attribute>\s)[A-Za-z_][\w.-]*:(?=[A-Za-z_][\w.-]*=)"
    r"|(?P<ampersand>&)(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)"
    r"|[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]",
    re.DOTALL,
)
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


class ReceivedSignature(NamedTuple):
    """
    The result of a DKIM signature, as reported.
    """

    domain: str
    selector: str
    result: str
    humanResult: str = ""


class ReceivedSPF(NamedTuple):
    """
    The result of SPF, as reported.
    """

    domain: str
    scope: str
    result: str


class ReceivedReason(NamedTuple):
    """
    A reason why a policy wasn't applied.
    """

    type: str
    comment: str


class ReceivedRecord(NamedTuple):
    """
    One C{record}.  Results and dispositions are in lower case.

    A named tuple, as a dataclass takes four times as long to make.
    """

    sourceIP: str
    count: int  # type: ignore[assignment]  # hides a method of tuples
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


def parseAggregateReport(text: bytes | Iterable[bytes]) -> ReceivedAggregateReport:
    """
    Parse an aggregate report with all its records.

    @param text: XML, or chunks of it; anything after the root element is ignored.

    @raise MalformedReport: With the place and the reason.
    """
    records: list[ReceivedRecord] = []
    chunks = _slices(text) if isinstance(text, bytes) else text
    head = readAggregateReport(chunks, records.append)
    return replace(head, records=tuple(records))


def _slices(text: bytes) -> Iterator[bytes]:
    view = memoryview(text)
    return (bytes(view[at : at + CHUNK]) for at in range(0, len(text), CHUNK))


def readAggregateReport(
    chunks: Iterable[bytes], take: Callable[[ReceivedRecord], object]
) -> ReceivedAggregateReport:
    """
    Read an aggregate report with any number of records in little memory.

    @param chunks: XML; those behind the root element are left.
    @param take: Called with each record, in order.

    @return: The report without its records.

    @raise MalformedReport: With the place and the reason.
    """
    reader = _Reader(take)
    for piece in _pieces(_decoded(chunks)):
        reader.read(piece)
    return _aggregate(reader)


def _decoded(chunks: Iterable[bytes]) -> Iterator[str]:
    """
    The text; invalid octets are replaced, so that one of them doesn't invalidate a
    whole report.
    """
    rest = iter(chunks)
    first = b""
    for chunk in rest:
        first += chunk
        if len(first) >= MAX_PROLOG:
            break
    first = first.lstrip() or first
    decoder = codecs.getincrementaldecoder(_encodingOf(first))("replace")
    yield decoder.decode(first)
    for chunk in rest:
        yield decoder.decode(chunk)
    yield decoder.decode(b"", True)


def _encodingOf(text: bytes) -> str:
    for mark, encoding in _BOMS:
        if text.startswith(mark):
            return encoding
    declared = _ENCODING.search(text[:200])
    if declared is None:
        return "utf-8"
    name = declared[1].decode("ascii").lower()
    if not _CHARSETS.fullmatch(name):
        _refuse("report", "its encoding is not known")
    # Those are converted by hosts and programs on the way.
    if name.startswith(("utf", "us-")):
        return "utf-8"
    try:
        return codecs.lookup(name).name
    except LookupError:
        _refuse("report", "its encoding is not known")


class _Piece(NamedTuple):
    """
    Whole children of the root element.

    @ivar line: The number of line ends before it.
    """

    text: str
    line: int


def _pieces(texts: Iterator[str]) -> Iterator[_Piece]:
    """
    Cut the content of the root element behind records.
    """
    text = next(texts)
    root = _ROOT.search(text)
    before = text[: root.start() if root else MAX_PROLOG]
    if "<!DOCTYPE" in before:
        # Reports need none, and entities can expand without limit.
        line = before.partition("<!DOCTYPE")[0].count("\n")
        _refuse(f"line {line + 1}", "a document type declaration")
    if root is None:
        _refuse("report", "no element 'feedback'")
    if root[0].endswith("/>"):
        return
    end, recordEnd = f"</{root[1]}", "</record>"
    line = text.count("\n", 0, root.end())
    text = text[root.end() :]
    searched = 0
    while (last := text.find(end, searched)) < 0:
        found = _RECORD_END.search(text) if recordEnd not in text else None
        if found is not None:
            recordEnd = found[0]
        cut = text.rfind(recordEnd) + len(recordEnd)
        if cut >= len(recordEnd):
            yield _Piece(_unprefixed(text[:cut], recordEnd), line)
            line += text.count("\n", 0, cut)
            text = text[cut:]
        if len(text) > MAX_RECORD:
            _refuse(f"line {line + 1}", f"a record of more than {MAX_RECORD} octets")
        searched = max(0, len(text) - len(end))
        try:
            text += next(texts)
        except StopIteration:
            _refuse(f"line {line + text.count(chr(10)) + 1}", "the report is cut off")
    yield _Piece(_unprefixed(text[:last], recordEnd), line)


def _unprefixed(text: str, recordEnd: str) -> str:
    """
    Remove the namespace prefix that records have, which is declared outside of them.
    """
    prefix = recordEnd[2:].rpartition("record")[0]
    if not prefix:
        return text
    return text.replace(f"<{prefix}", "<").replace(f"</{prefix}", "</")


class _Reader:
    """
    Reads the pieces of a report.

    @ivar head: The first elements of each name that are no records.
    """

    def __init__(self, take: Callable[[ReceivedRecord], object]) -> None:
        self.head: dict[str, Element] = {}
        self._take = take
        self._records = 0
        self._tags = 0
        self._isRepaired = False
        self._repairs = 0

    def read(self, piece: _Piece) -> None:
        self._tags += piece.text.count("<")
        most = MAX_ELEMENTS + self._records * MAX_ELEMENTS_EACH
        if self._tags > 2 * most:
            _refuse(f"line {piece.line + 1}", f"more than {most} elements")
        for element in self._parsed(piece):
            if element.tag == "record":
                self._records += 1
                if self._records > MAX_RECORDS:
                    _refuse("report", f"more than {MAX_RECORDS} records")
                where = f"record {self._records}"
                self._take(_record(element, where))
            elif element.tag in _HEAD:
                self.head.setdefault(element.tag, element)

    def _parsed(self, piece: _Piece) -> Element:
        if not self._isRepaired:
            try:
                # White space between elements takes a sixth of the time.
                root = _parse(piece.text.replace(">\n", ">"))
                if not any(each.tag.startswith("{") for each in root):
                    return root
            except (ParseError, ValueError):
                pass
            # So are the others then, most likely.
            self._isRepaired = True
        text, count = _REPAIRED.subn(_repair, piece.text)
        self._repairs += count
        if self._repairs > MAX_REPAIRS:
            _refuse(f"line {piece.line + 1}", "too much is not well-formed")
        try:
            return _parse(text)
        except ParseError as error:
            line, column = error.position
            where = f"line {piece.line + line}, column {column + 1}"
            _refuse(where, str(error).partition(":")[0])


_HEAD = ("report_metadata", "policy_published")
_NOTHING = Element("")


def _parse(text: str) -> Element:
    parser = XMLParser()
    parser.feed("<feedback>")
    parser.feed(text)
    parser.feed("</feedback>")
    root: Element = parser.close()
    return root


def _repair(found: re.Match[str]) -> str:
    keep = found["keep"] or found["tag"] or found["attribute"] or ""
    return keep or ("&amp;" if found["ampersand"] else "")


def _aggregate(reader: _Reader) -> ReceivedAggregateReport:
    metadata = reader.head.get("report_metadata", _NOTHING)
    published = reader.head.get("policy_published", _NOTHING)
    domain = _say(published, "domain")
    if not domain:
        _refuse("feedback.policy_published.domain", "missing")
    return ReceivedAggregateReport(
        organization=_say(metadata, "org_name"),
        email=_say(metadata, "email"),
        contact=_say(metadata, "extra_contact_info"),
        reportID=_say(metadata, "report_id"),
        start=_second(metadata, "begin"),
        end=_second(metadata, "end"),
        errors=tuple(map(_checked, metadata.findall("error")[:MAX_ENTRIES])),
        generator=_say(metadata, "generator"),
        domain=domain,
        published=tuple(
            (each.tag[:MAX_TEXT], _checked(each))
            for each in published[:MAX_ENTRIES]
            if not len(each) and each.tag != "domain"
        ),
        records=(),
    )


def _say(element: Element, path: str) -> str:
    found = element.find(path)
    return "" if found is None else _checked(found)


def _checked(element: Element) -> str:
    text = (element.text or "").strip()
    if len(text) > MAX_TEXT:
        _refuse(f"feedback: {element.tag[:40]}", "too long a text")
    return text


def _record(record: Element, where: str) -> ReceivedRecord:
    row = record.find("row")
    if row is None:
        row = _NOTHING
    evaluated = row.find("policy_evaluated")
    if evaluated is None:
        evaluated = _NOTHING
    identifiers = record.find("identifiers")
    if identifiers is None:
        identifiers = _NOTHING
    results = record.find("auth_results")
    dkim: list[ReceivedSignature] = []
    spf: list[ReceivedSPF] = []
    for each in results if results is not None else ():
        say = each.findtext
        if not len(each):
            continue
        if each.tag == "dkim":
            signature = ReceivedSignature(
                say("domain", "").strip(),
                say("selector", "").strip(),
                say("result", "").strip().lower(),
                say("human_result", "").strip(),
            )
            if any(signature):
                dkim.append(signature)
        elif each.tag == "spf":
            checked = ReceivedSPF(
                say("domain", "").strip(),
                say("scope", "").strip().lower(),
                say("result", "").strip().lower(),
            )
            if any(checked):
                spf.append(checked)
    count = row.findtext("count", "").strip()
    return ReceivedRecord(
        row.findtext("source_ip", "").strip(),
        _number(count, where, "row.count", MAX_COUNT),
        evaluated.findtext("disposition", "").strip().lower(),
        evaluated.findtext("dkim", "").strip().lower(),
        evaluated.findtext("spf", "").strip().lower(),
        tuple(_reasons(evaluated)),
        identifiers.findtext("header_from", "").strip(),
        identifiers.findtext("envelope_from", "").strip(),
        identifiers.findtext("envelope_to", "").strip(),
        tuple(dkim),
        tuple(spf),
    )


def _reasons(evaluated: Element) -> Iterator[ReceivedReason]:
    for each in evaluated:
        if each.tag != "reason":
            continue
        kind = each.findtext("type", "").strip().lower()
        comment = each.findtext("comment", "").strip()
        if kind or comment:
            yield ReceivedReason(kind, comment)


def _second(metadata: Element, name: str) -> int:
    text = _say(metadata, f"date_range/{name}")
    return _number(text, "feedback", f"report_metadata.date_range.{name}", LAST_SECOND)


def _number(text: str, where: str, name: str, most: int) -> int:
    if not _DIGITS.match(text):
        reason = f"{text[:40]!r} is not a number" if text else "missing"
        _refuse(f"{where}: {name}", reason)
    number = int(text.partition(".")[0])
    if number > most:
        _refuse(f"{where}: {name}", "out of range")
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
