# -*- test-case-name: tests.dmarc.test_aggregate -*-
"""
Generates aggregate reports in the XML formats of RFC 9990 appendix A and RFC 7489
appendix C.  No I/O.

Reports are written row by row and compressed at once, so that a report of any size
needs little more memory than the compressed document.  Values that one format lacks
are expressed by those it has.  Optional elements are included if known.
"""

from __future__ import annotations

import ipaddress
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from moxtls import __version__
from moxtls.authentication.results import AuthResult, SPFScope
from moxtls.dates import Span
from moxtls.dmarc.types import (
    Disposition,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.domain import Domain

#: Octets before compression: receivers limit what they decompress.
MAX_REPORT = 100 * 1024 * 1024

# The best level takes several times as long and makes reports a few percent smaller.
_LEVEL = 6
# A gzip container (RFC 1952); zlib leaves its modification time at zero, so
# equal reports are equal bytes.
_GZIP = zlib.MAX_WBITS + 16

#: RFC 9990 3.1.3; the rest is less relevant.
MAX_SIGNATURES = 100
#: RFC 9990 3.1.5: no excessive size.
MAX_ERRORS = 20
MAX_ERROR_LENGTH = 500
#: After the last record.
END = "</feedback>\n"
_VERSION = '<?xml version="1.0" encoding="UTF-8"?>\n'
# All but XML 1.0 2.2 Char without markup (2.4) and without CR, which parsers read as
# LF (2.11).
_SPECIAL = re.compile(
    "[^\t\n\x20-\x25\x27-\x3b\x3d\x3f-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_UNKNOWN = "\ufffd"
# Results of RFC 8601 2.7 that the schemas lack for a method.
_DKIM = {AuthResult.SOFTFAIL: AuthResult.FAIL}
_SPF_RFC7489 = {AuthResult.POLICY: AuthResult.NEUTRAL}


class AggregateWriter:
    """
    Writes one report in one format.

    @ivar records: The number of records written.
    """

    def __init__(
        self,
        format: ReportFormat,
        metadata: AggregateMetadata,
        published: PublishedPolicy,
        largest: int = MAX_REPORT,
    ) -> None:
        """
        @param largest: Octets before compression after which rows are ignored.
        """
        self._record = recordWriter(format)
        self._room = largest
        self.records = 0
        self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._pieces: list[bytes] = []
        self._put(xmlHead(format, metadata, published))

    @property
    def isFull(self) -> bool:
        return self._room <= 0

    def add(self, rows: Iterable[tuple[ReportRow, int]]) -> None:
        """
        Write rows, each with its number of messages, unless the report is full.
        """
        if not self.isFull:
            record = self._record
            records = [record(row, count) for row, count in rows]
            self.records += len(records)
            self._put("".join(records))

    def finish(self) -> bytes:
        """
        Finish the report.

        @return: The gzip-compressed document.
        """
        self._put(END)
        return b"".join([*self._pieces, self._packer.flush()])

    def _put(self, text: str) -> None:
        data = text.encode("utf-8")
        self._room -= len(data)
        packed = self._packer.compress(data)
        if packed:
            self._pieces.append(packed)


class ReportFormat(StrEnum):
    """
    The document that defines the format of a report.
    """

    RFC9990 = "rfc9990"
    RFC7489 = "rfc7489"


@dataclass(frozen=True, slots=True)
class AggregateMetadata:
    """
    The metadata of a report.

    @ivar submitter: The reporting organization.
    @ivar errors: Errors in the published records of the domain, as text.
    """

    submitter: Domain
    reportID: str
    span: Span
    errors: tuple[str, ...] = ()

    @property
    def contact(self) -> str:
        return f"postmaster@{self.submitter}"


def xmlHead(
    format: ReportFormat, metadata: AggregateMetadata, published: PublishedPolicy
) -> str:
    """
    The document up to the first record.
    """
    if format is ReportFormat.RFC9990:
        root = '<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">\n'
        parts = (_metadata(metadata), _published(published))
    else:
        root = "<feedback>\n"
        parts = (_metadataRFC7489(metadata), _publishedRFC7489(published))
    return "".join([_VERSION, root, "<version>1.0</version>\n", *parts])


def recordWriter(format: ReportFormat) -> Callable[[ReportRow, int], str]:
    """
    The function that renders a row and its number of messages as a C{record}.
    """
    return _record if format is ReportFormat.RFC9990 else _recordRFC7489


def xmlText(value: str) -> str:
    """
    C{value} escaped as the content of an element; characters that XML 1.0 excludes
    are replaced.
    """
    if _SPECIAL.search(value) is None:
        return value
    return _SPECIAL.sub(lambda found: _ESCAPED.get(found[0], _UNKNOWN), value)


# --- RFC 9990 ------------------------------------------------------------------


def _metadata(metadata: AggregateMetadata) -> str:
    errors = "; ".join(_shortened(metadata.errors))
    error = f'<error lang="en">{xmlText(errors)}</error>\n' if errors else ""
    return (
        f"<report_metadata>\n{_origin(metadata)}{error}"
        f"<generator>moxtls/{__version__}</generator>\n</report_metadata>\n"
    )


def _published(published: PublishedPolicy) -> str:
    # RFC 9990 3.1.1.5: discovered, or the default.
    sp = published.sp or published.p
    return (
        f"<policy_published>\n<domain>{published.domain}</domain>\n"
        f"<discovery_method>{published.method}</discovery_method>\n"
        f"<p>{published.p}</p>\n<sp>{sp}</sp>\n<np>{published.np or sp}</np>\n"
        f"<adkim>{published.adkim}</adkim>\n<aspf>{published.aspf}</aspf>\n"
        f"<fo>{xmlText(':'.join(published.fo))}</fo>\n"
        f"<testing>{'y' if published.testing else 'n'}</testing>\n"
        "</policy_published>\n"
    )


def _record(row: ReportRow, count: int) -> str:
    reasons = "".join(map(_reason, row.reasons)) if row.reasons else ""
    signatures = "".join(map(_signature, row.dkim[:MAX_SIGNATURES]))
    spf = _spf(row.spf) if row.spf else ""
    return _composed(
        row,
        xmlText(row.sourceIP),
        count,
        f"{row.disposition}",
        reasons,
        signatures + spf,
    )


def _reason(reason: Override) -> str:
    kind, comment = reason.kind, reason.comment
    if kind in (OverrideKind.FORWARDED, OverrideKind.SAMPLED_OUT):
        kind, comment = OverrideKind.OTHER, _explained(reason)
    said = f'<comment lang="en">{xmlText(comment)}</comment>' if comment else ""
    return f"<reason><type>{kind}</type>{said}</reason>"


def _signature(signature: ReportedSignature) -> str:
    problem = signature.problem
    said = (
        f'<human_result lang="en">{xmlText(problem)}</human_result>' if problem else ""
    )
    return (
        f"<dkim><domain>{xmlText(signature.domain)}</domain>"
        f"<selector>{xmlText(signature.selector)}</selector>"
        f"<result>{_DKIM.get(signature.result, signature.result)}</result>{said}</dkim>"
    )


def _spf(spf: ReportedSPF) -> str:
    # Reading of RFC 9990 3.1.1.13: "MAIL FROM" is the identity of RFC 7208 2.4, which
    # is derived from the HELO name for a null reverse-path.
    return (
        f"<spf><domain>{xmlText(spf.domain)}</domain><scope>mfrom</scope>"
        f"<result>{spf.result}</result></spf>"
    )


# --- RFC 7489 ------------------------------------------------------------------


def _metadataRFC7489(metadata: AggregateMetadata) -> str:
    errors = "".join(
        f"<error>{xmlText(error)}</error>\n" for error in _shortened(metadata.errors)
    )
    return f"<report_metadata>\n{_origin(metadata)}{errors}</report_metadata>\n"


def _publishedRFC7489(published: PublishedPolicy) -> str:
    return (
        f"<policy_published>\n<domain>{published.domain}</domain>\n"
        f"<adkim>{published.adkim}</adkim>\n<aspf>{published.aspf}</aspf>\n"
        f"<p>{published.p}</p>\n<sp>{published.sp or published.p}</sp>\n"
        f"<pct>{published.percent}</pct>\n"
        f"<fo>{xmlText(':'.join(published.fo))}</fo>\n</policy_published>\n"
    )


def _recordRFC7489(row: ReportRow, count: int) -> str:
    disposition = row.disposition
    if disposition is Disposition.PASS:
        disposition = Disposition.NONE
    reasons = "".join(map(_reasonRFC7489, row.reasons)) if row.reasons else ""
    signatures = "".join(map(_signatureRFC7489, row.dkim[:MAX_SIGNATURES]))
    # RFC 7489 appendix C: the SPF result is required.
    unknown = ReportedSPF(row.envelopeFrom, SPFScope.MAIL_FROM, AuthResult.NONE)
    results = signatures + _spfRFC7489(row.spf or unknown)
    return _composed(
        row, xmlText(_longhand(row.sourceIP)), count, f"{disposition}", reasons, results
    )


def _reasonRFC7489(reason: Override) -> str:
    kind, comment = reason.kind, reason.comment
    if kind is OverrideKind.POLICY_TEST_MODE:
        kind, comment = OverrideKind.OTHER, _explained(reason)
    said = f"<comment>{xmlText(comment)}</comment>" if comment else ""
    return f"<reason><type>{kind}</type>{said}</reason>"


def _signatureRFC7489(signature: ReportedSignature) -> str:
    problem, selector = signature.problem, signature.selector
    which = f"<selector>{xmlText(selector)}</selector>" if selector else ""
    said = f"<human_result>{xmlText(problem)}</human_result>" if problem else ""
    return (
        f"<dkim><domain>{xmlText(signature.domain)}</domain>{which}"
        f"<result>{_DKIM.get(signature.result, signature.result)}</result>{said}</dkim>"
    )


def _spfRFC7489(spf: ReportedSPF) -> str:
    scope = SPFScope.HELO if spf.scope == SPFScope.HELO else SPFScope.MAIL_FROM
    return (
        f"<spf><domain>{xmlText(spf.domain)}</domain><scope>{scope}</scope>"
        f"<result>{_SPF_RFC7489.get(spf.result, spf.result)}</result></spf>"
    )


def _longhand(address: str) -> str:
    # The IPv6 pattern of RFC 7489 appendix C has no "::".
    if ":" not in address:
        return address
    try:
        return ipaddress.ip_address(address).exploded
    except ValueError:
        return address


# --- both ----------------------------------------------------------------------


def _origin(metadata: AggregateMetadata) -> str:
    # RFC 9990 3.1.1.4: the end is the last second of the period.
    span = metadata.span
    return (
        f"<org_name>{metadata.submitter}</org_name>\n<email>{metadata.contact}</email>\n"
        f"<report_id>{xmlText(metadata.reportID)}</report_id>\n"
        f"<date_range><begin>{span.start}</begin><end>{span.last}</end></date_range>\n"
    )


def _composed(
    row: ReportRow,
    source: str,
    count: int,
    disposition: str,
    reasons: str,
    results: str,
) -> str:
    """
    A record in either format, from the parts that differ.
    """
    to = row.envelopeTo
    recipient = f"<envelope_to>{xmlText(to)}</envelope_to>" if to else ""
    return (
        f"<record>\n<row><source_ip>{source}</source_ip><count>{count}</count>"
        f"<policy_evaluated><disposition>{disposition}</disposition>"
        f"<dkim>{'pass' if row.dkimAligned else 'fail'}</dkim>"
        f"<spf>{'pass' if row.spfAligned else 'fail'}</spf>{reasons}"
        f"</policy_evaluated></row>\n"
        f"<identifiers>{recipient}<envelope_from>{xmlText(row.envelopeFrom)}"
        f"</envelope_from><header_from>{xmlText(row.headerFrom)}</header_from>"
        f"</identifiers>\n<auth_results>{results}</auth_results>\n</record>\n"
    )


def _explained(reason: Override) -> str:
    """
    A comment with the original type.
    """
    return f"{reason.kind}: {reason.comment}" if reason.comment else f"{reason.kind}"


def _shortened(errors: tuple[str, ...]) -> list[str]:
    return [error[:MAX_ERROR_LENGTH] for error in errors[:MAX_ERRORS]]
