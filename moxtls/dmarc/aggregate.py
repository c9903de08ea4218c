# -*- test-case-name: tests.dmarc.test_aggregate -*-
"""
Aggregate reports of ours: written row by row, and compressed at once, so that
a report of any size takes little more memory than what is sent.  No I/O.

The XML of aggregate reports, as RFC 9990 appendix A and RFC 7489 appendix C
have it.  No I/O.

What one of the two has no word for is said in the words that it has.  Both
get what is optional too, as far as it is known.
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

#: Before compression: nobody unpacks more than this.
MAX_REPORT = 100 * 1024 * 1024

# Not the best: that takes several times as long to make reports smaller by a
# few percent.
_LEVEL = 6
# A gzip container (RFC 1952); zlib leaves its modification time at zero, so
# equal reports are equal bytes.
_GZIP = zlib.MAX_WBITS + 16


class AggregateWriter:
    """
    Composes one report in one format.

    @ivar records: How many there are in it.
    """

    def __init__(
        self,
        format: ReportFormat,
        metadata: AggregateMetadata,
        published: PublishedPolicy,
        largest: int = MAX_REPORT,
    ) -> None:
        """
        @param largest: Octets before compression, from which on nothing more
            is taken.
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
        Write rows, each with its number of messages; none where it is full.
        """
        if not self.isFull:
            record = self._record
            records = [record(row, count) for row, count in rows]
            self.records += len(records)
            self._put("".join(records))

    def finish(self) -> bytes:
        """
        As it is sent.
        """
        self._put(END)
        return b"".join([*self._pieces, self._packer.flush()])

    def _put(self, text: str) -> None:
        data = text.encode("utf-8")
        self._room -= len(data)
        packed = self._packer.compress(data)
        if packed:
            self._pieces.append(packed)


#: RFC 9990 3.1.3; those behind are of less interest.
MAX_SIGNATURES = 100
#: RFC 9990 3.1.5: nothing extremely large.
MAX_ERRORS = 20
MAX_ERROR_LENGTH = 500

#: Behind the last record.
END = "</feedback>\n"

_VERSION = '<?xml version="1.0" encoding="UTF-8"?>\n'
# XML 1.0 2.2 Char, less what means something (2.4), and CR, which a parser
# would read as LF (2.11).
_SPECIAL = re.compile(
    "[^\t\n\x20-\x25\x27-\x3b\x3d\x3f-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_UNKNOWN = "\ufffd"


class ReportFormat(StrEnum):
    """
    Which document a report is written by.
    """

    RFC9990 = "rfc9990"
    RFC7489 = "rfc7489"


@dataclass(frozen=True, slots=True)
class AggregateMetadata:
    """
    What a report says about itself.

    @ivar submitter: The reporting organization.
    @ivar errors: What is wrong with what the domain has published, for people.
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
    All that is in front of the first record.
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
    What renders a row with its number of messages as a C{record}.
    """
    return _record if format is ReportFormat.RFC9990 else _recordRFC7489


def xmlText(value: str) -> str:
    """
    C{value} as the content of an element: what XML 1.0 can't hold at all is
    replaced.
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
    # Reading of RFC 9990 3.1.1.13: "MAIL FROM" is the identity of RFC 7208 2.4,
    # which for a null reverse-path is made from the name in HELO.
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
    # Appendix C: there is always a result of SPF.
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
    # Appendix C has a pattern for IPv6 that knows no "::".
    if ":" not in address:
        return address
    try:
        return ipaddress.ip_address(address).exploded
    except ValueError:
        return address


# --- both ----------------------------------------------------------------------

# Words of RFC 8601 2.7 for one method that have no place in the other.
_DKIM = {AuthResult.SOFTFAIL: AuthResult.FAIL}
_SPF_RFC7489 = {AuthResult.POLICY: AuthResult.NEUTRAL}


def _origin(metadata: AggregateMetadata) -> str:
    # RFC 9990 3.1.1.4: the end is the last second that belongs to it, as
    # all reports have it.
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
    A record, of what the two formats write differently, and the rest.
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
    A comment that says what the type can't.
    """
    return f"{reason.kind}: {reason.comment}" if reason.comment else f"{reason.kind}"


def _shortened(errors: tuple[str, ...]) -> list[str]:
    return [error[:MAX_ERROR_LENGTH] for error in errors[:MAX_ERRORS]]
