"""
Fuzz targets: one function for each parser of untrusted input, which takes any bytes
and raises only documented exceptions.

Imports are within the functions, so that only the fuzzed modules are instrumented.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True, slots=True)
class Target:
    """
    A fuzzed function.

    @ivar modules: The modules to instrument.
    @ivar seeds: Initial inputs.
    """

    fuzz: Callable[[bytes], None]
    modules: tuple[str, ...]
    seeds: tuple[bytes, ...]

    def prepare(self) -> None:
        for module in self.modules:
            import_module(module)


def _server(data: bytes) -> None:
    """
    The SMTP server's side: the fragmentation of input changes nothing, except where a
    client has to wait for a reply.
    """
    from fuzz.conversation import converse, rounds

    step = 1 + (data[0] if data else 0)
    whole = list(rounds(data[1:]))
    pieces = [
        each[at : at + step] for each in whole for at in range(0, len(each), step)
    ]
    assert converse(pieces) == converse(whole)


def _replies(data: bytes) -> None:
    """
    The parser of replies: the end of a reply doesn't depend on fragmentation.
    """
    from moxtls.smtp.client.replies import MalformedReply, ReplyReader, parseReply

    def read(pieces: list[bytes]) -> list[object]:
        reader, found = ReplyReader(), list[object]()
        for piece in pieces:
            reader.feed(piece)
            try:
                while (lines := reader.next()) is not None:
                    found.append(parseReply(lines))
            except MalformedReply:
                return [*found, MalformedReply]
        return found

    assert read([data[:9], data[9:]]) == read([data])


def _answers(data: bytes) -> None:
    """
    Responses of a DNS server about a name; the type comes first.
    """
    from moxtls.dns.types import RRType
    from moxtls.dns.wire import makeQuestion, parseResponse

    kinds = list(RRType)
    kind = kinds[data[0] % len(kinds)] if data else RRType.TXT
    asked = makeQuestion("a.example", kind)
    assert asked is not None
    header = b"\0\1" + data[1:]
    parseResponse(header, 1, asked, True)


def _tlsReport(data: bytes) -> None:
    from moxtls.received.analysis.describe import describeTLSReport
    from moxtls.tlsrpt.parse import MalformedReport, parseReport

    try:
        lines = describeTLSReport(parseReport(data))
    except MalformedReport as error:
        lines = [str(error)]
    assert all(map(str.isprintable, lines))


def _aggregate(data: bytes) -> None:
    from moxtls.dmarc.parse import parseAggregateReport
    from moxtls.received.analysis.describe import describeAggregateReport
    from moxtls.tlsrpt.parse import MalformedReport

    try:
        lines = describeAggregateReport(parseAggregateReport(data))
    except MalformedReport as error:
        lines = [str(error)]
    assert all(map(str.isprintable, lines))


def _sent(data: bytes) -> None:
    """
    Received reports, in any container.
    """
    from moxtls.received.analysis.describe import describeReport
    from moxtls.received.reading.read import readReport, readReports
    from moxtls.tlsrpt.parse import MalformedReport

    try:
        lines = describeReport(readReport(data))
    except MalformedReport as error:
        lines = [str(error)]
    unreadable = [each.reason for each in readReports(data).unreadable]
    # Unexpected exceptions.
    assert not any(each.endswith("Error") for each in unreadable), unreadable
    assert all(map(str.isprintable, lines))


def _notification(data: bytes) -> None:
    from moxtls.reporting.destinations import readDSN

    readDSN(data)


def _policyRecords(data: bytes) -> None:
    """
    MTA-STS and TLSRPT: records, policies and URIs.
    """
    from moxtls.mtasts.policy import parsePolicy
    from moxtls.reporting.destinations import chooseDestinations
    from moxtls.tlsrpt.types import TLSRPTRecordError, findTLSRPTRecord

    parsePolicy(data)
    record = findTLSRPTRecord([data])
    if not isinstance(record, TLSRPTRecordError):
        chooseDestinations(record.rua)


def _dmarcRecord(data: bytes) -> None:
    from moxtls.dmarc.record import DMARCRecordError, findDMARCRecord, parseDMARCRecord
    from moxtls.reporting.destinations import chooseDestinations

    findDMARCRecord([b"v=DMARC1;" + data, data])
    record = parseDMARCRecord(data)
    if not isinstance(record, DMARCRecordError):
        chooseDestinations(each.uri for each in (*record.rua, *record.ruf))


def _dkim(data: bytes) -> None:
    """
    A message with signatures, and the key record that they all find, which comes
    first, up to a line end.
    """
    from moxtls.authentication.dkim.verify import lookUpKeys, signatureClaims, verify
    from moxtls.dns.types import (
        TXT,
        Answer,
        LookupQuestion,
        LookupStatus,
        runWithAnswers,
    )
    from moxtls.message.header import splitHeader

    key, _, message = data.partition(b"\n")

    def answer(question: LookupQuestion) -> Answer:
        return Answer(question.name, question.kind, LookupStatus.RECORDS, (TXT(key),))

    header, _, body = message.partition(b"\r\n\r\n")
    now = 1_800_000_000
    header += b"\r\n"
    checks = runWithAnswers(lookUpKeys(signatureClaims(splitHeader(header))), answer)
    whole = verify(header, [body], checks, now)
    assert verify(header, [body[:7], body[7:]], checks, now) == whole
    assert len(whole) == len(checks)


def _spf(data: bytes) -> None:
    """
    An SPF check in which every name has the same records; the sender comes first, up
    to a line end.
    """
    from moxtls.authentication.results import SPFResult
    from moxtls.authentication.spf.evaluate import checkHost, mailFromRequest
    from moxtls.dns.types import (
        IP,
        MX,
        TXT,
        Answer,
        LookupQuestion,
        LookupStatus,
        NameRecord,
        Record,
        RRType,
        runWithAnswers,
    )

    sender, _, record = data.partition(b"\n")
    known: dict[RRType, Record] = {
        RRType.TXT: TXT(record),
        RRType.A: IP("192.0.2.1"),
        RRType.MX: MX(1, "mx.a.example"),
        RRType.PTR: NameRecord("a.example"),
    }
    asked = 0

    def answer(question: LookupQuestion) -> Answer:
        nonlocal asked
        asked += 1
        found = known.get(question.kind)
        if found is None:
            return Answer(question.name, question.kind, LookupStatus.NO_RECORDS)
        return Answer(question.name, question.kind, LookupStatus.RECORDS, (found,))

    text = sender.decode("utf-8", "replace")
    request = mailFromRequest("192.0.2.7", text, text, "mx.example")
    assert isinstance(runWithAnswers(checkHost(request), answer), SPFResult)
    # RFC 7208 4.6.4: ten terms, of which each mx may have ten names.
    assert asked <= 150


def _header(data: bytes) -> None:
    """
    The fields of a message: C{email} finds no other author, forged results are
    removed, and everything else is unchanged.
    """
    from email.utils import parseaddr

    from moxtls.message.addresses import authorDomains
    from moxtls.message.header import removeForgedFields, splitHeader, unfoldedText

    header = splitHeader(data)
    found = {each.ascii for each in authorDomains(header).domains}
    shown = parseaddr(unfoldedText(b"".join(header.values(b"from"))))[1]
    # Words without an "@" name no author, though parseaddr() returns them.
    domain = shown.rpartition("@")[2].strip(". ").lower() if "@" in shown else ""
    assert not found or "." not in domain or not domain.isascii() or domain in found
    left = removeForgedFields(header, "mx.example")
    assert len(left) <= len(data) + 2
    assert removeForgedFields(splitHeader(left), "mx.example") == left


TARGETS = {
    "server": Target(
        _server,
        ("moxtls.smtp.server.conversation",),
        (
            b"\x07EHLO a.example\r\nMAIL FROM:<a@b.example> SIZE=10\r\n"
            b"RCPT TO:<c@d.example>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\nQUIT\r\n",
            b"\x00HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n"
            b"DATA\r\n\n.\r\n.\r\n",
            b"\x03EHLO x\r\nAUTH PLAIN AGEAYg==\r\nSTARTTLS\r\nNOOP\r\n",
            b"\x05EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<c@d.e>\r\nBDAT 4\r\nabc\n"
            b"BDAT 2 LAST\r\n\r\nRSET\r\n",
        ),
    ),
    "replies": Target(
        _replies,
        ("moxtls.smtp.client.replies",),
        (b"250-a\r\n250 2.1.0 ok\r\n", b"421 4.3.2 bye\r\n354 go\r\n"),
    ),
    "answers": Target(
        _answers,
        ("moxtls.dns.wire", "moxtls.dns.wire", "moxtls.dns.answers"),
        tuple(
            bytes([kind])
            + b"\x81\xa0\0\1\0\1\0\0\0\1\1a\7example\0\0\x10\0\1"
            + b"\xc0\x0c\0\x10\0\1\0\0\0\x3c\0\4\3abc"
            + b"\0\0\x29\4\xd0\0\0\0\0\0\6\0\x0f\0\2\0\6"
            for kind in range(9)
        ),
    ),
    "tlsreport": Target(
        _tlsReport,
        ("moxtls.tlsrpt.parse",),
        (b'{"date-range":{"start-datetime":"2026-01-01T00:00:00Z"},"policies":[{}]}',),
    ),
    "aggregate": Target(
        _aggregate,
        ("moxtls.dmarc.parse",),
        (
            b"<feedback><report_metadata><date_range><begin>1</begin><end>2</end>"
            b"</date_range></report_metadata><policy_published><domain>a.example"
            b"</domain></policy_published><record><row><count>1</count></row>"
            b"</record></feedback>",
        ),
    ),
    "sent": Target(
        _sent,
        (
            "moxtls.received.reading.read",
            "moxtls.received.reading.parsed",
            "moxtls.received.reading.documents",
            "moxtls.received.reading.archives",
            "moxtls.message.mime",
            "moxtls.dmarc.parse",
            "moxtls.tlsrpt.parse",
        ),
        (
            b"Content-Type: multipart/report; boundary=b\n\n--b\n"
            b"Content-Type: message/feedback-report\n\nFeedback-Type: x\n--b--\n",
            b"PK\x03\x04",
            b"\x1f\x8b\x08\x00",
        ),
    ),
    "notification": Target(
        _notification,
        ("moxtls.reporting.destinations", "moxtls.message.mime"),
        (
            b"Content-Type: multipart/report; boundary=b\n\n--b\n"
            b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n"
            b"Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 x\n--b--\n",
        ),
    ),
    "dmarcrecord": Target(
        _dmarcRecord,
        ("moxtls.dmarc.record", "moxtls.reporting.destinations"),
        (
            b"v=DMARC1; p=reject; sp=none; np=quarantine; t=y; psd=n; adkim=s; "
            b"rua=mailto:a@b.example!10m,mailto:c@d.example; fo=1:d; pct=5; ri=3600",
        ),
    ),
    "dkim": Target(
        _dkim,
        (
            "moxtls.authentication.dkim.verify",
            "moxtls.authentication.dkim.canonical",
            "moxtls.authentication.dkim.canonical",
            "moxtls.authentication.dkim.verify",
            "moxtls.authentication.dkim.signature",
            "moxtls.taglist",
        ),
        (
            b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
            b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/simple; d=a.example; "
            b"s=x; h=from:from; l=3; t=1; x=99; bh=AAAA; b=AAAA\r\n"
            b"From: a@a.example\r\n\r\nhello  \r\n\r\n",
        ),
    ),
    "spf": Target(
        _spf,
        (
            "moxtls.authentication.spf.evaluate",
            "moxtls.authentication.spf.evaluate",
            "moxtls.authentication.spf.record",
            "moxtls.authentication.spf.record",
            "moxtls.authentication.spf.record",
        ),
        (
            b"a@b.example\nv=spf1 ip4:192.0.2.0/24 a:%{d2}/24//64 mx ptr "
            b"exists:%{ir}.%{v}._spf.%{d} include:%{l}.c.example ?all",
            b"a@b.example\nv=spf1 redirect=%{s} exp=%{o}",
        ),
    ),
    "header": Target(
        _header,
        ("moxtls.message.header", "moxtls.message.addresses"),
        (
            b'From: "a, b" (c (d)) <@r:a@b.example>, g: x@y.example;\r\n'
            b"Authentication-Results: (c) mx.example 1;\r\n spf=pass\r\n",
            b"From: =?utf-8?q?a?= <a@[192.0.2.1]>\r\nFrom : a . b @ c . d\r\n",
        ),
    ),
    "policies": Target(
        _policyRecords,
        ("moxtls.mtasts.policy", "moxtls.tlsrpt.types"),
        (
            b"version: STSv1\nmode: enforce\nmx: *.a.example\nmax_age: 86400\n",
            b"v=TLSRPTv1; rua=mailto:a@b.example,https://c.example/d",
        ),
    ),
}
