# -*- test-case-name: tests.tlsrpt.test_report -*-
"""
Reports of ours in the format of RFC 8460 4.4: composed and compressed.
No I/O.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from json import JSONEncoder

from moxtls.calendar import Span, rfc3339
from moxtls.domain import Domain
from moxtls.ipaddresses import knownIP
from moxtls.tlsrpt.results import FailureDetail, PolicyTally, TLSPolicy

#: What goes into one report.  A host of very many domains, or a day of
#: trouble with very many addresses, would make it too large for anybody to
#: take; what happened most often is kept, and the summary counts all.
MAX_POLICIES = 50_000
MAX_FAILURES = 100_000
#: Before compression: nobody unpacks more than this.
MAX_REPORT = 100 * 1024 * 1024

_CHUNK = 64 * 1024
# A gzip container (RFC 1952); zlib leaves its modification time at zero, so
# equal reports are equal bytes.
_GZIP = zlib.MAX_WBITS + 16

JSON = dict[str, "JSON"] | list["JSON"] | str | int


class ReportTooLarge(Exception):
    """
    A report is larger than L{MAX_REPORT}.
    """


@dataclass(frozen=True, slots=True)
class TLSReportMetadata:
    """
    What a report says about itself.

    @ivar submitter: The reporting organization.
    """

    submitter: Domain
    reportID: str
    span: Span

    @property
    def contact(self) -> str:
        return f"postmaster@{self.submitter}"


def composeReport(
    heading: TLSReportMetadata, tallies: Sequence[PolicyTally]
) -> dict[str, JSON]:
    """
    The report as a JSON object, its members in the RFC's order.
    """
    return {
        "organization-name": str(heading.submitter),
        "date-range": {
            "start-datetime": rfc3339(heading.span.start),
            "end-datetime": rfc3339(heading.span.last),
        },
        "contact-info": heading.contact,
        "report-id": heading.reportID,
        "policies": [_tally(tally) for tally in trim(tallies)],
    }


def compress(report: dict[str, JSON]) -> bytes:
    """
    As it is sent.  Takes little more memory than the result.

    @raise ReportTooLarge: Nothing is cut off.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    pieces = []
    size = 0
    for chunk in _rendered(report):
        size += len(chunk)
        if size > MAX_REPORT:
            raise ReportTooLarge(f"more than {MAX_REPORT} bytes")
        pieces.append(packer.compress(chunk))
    pieces.append(packer.flush())
    return b"".join(pieces)


def trim(tallies: Sequence[PolicyTally]) -> list[PolicyTally]:
    """
    As much of C{tallies} as goes into a report.
    """
    kept = list(tallies)
    if len(kept) > MAX_POLICIES:
        kept = nlargest(MAX_POLICIES, kept, key=_weight)
    if sum(len(tally.failures) for tally in kept) <= MAX_FAILURES:
        return kept
    share = max(1, MAX_FAILURES // len(kept))
    return [_trimmed(tally, share) for tally in kept]


def _weight(tally: PolicyTally) -> tuple[int, int]:
    return tally.failed, tally.succeeded


def _trimmed(tally: PolicyTally, most: int) -> PolicyTally:
    if len(tally.failures) <= most:
        return tally
    return replace(tally, failures=Counter(dict(tally.failures.most_common(most))))


def _rendered(report: dict[str, JSON]) -> Iterator[bytes]:
    pieces: list[str] = []
    size = 0
    for piece in JSONEncoder(indent="\t").iterencode(report):
        pieces.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield "".join(pieces).encode("ascii")
            pieces, size = [], 0
    yield "".join([*pieces, "\n"]).encode("ascii")


def _tally(tally: PolicyTally) -> JSON:
    return _filled(
        {
            "policy": _policy(tally.policy),
            "summary": {
                "total-successful-session-count": tally.succeeded,
                "total-failure-session-count": tally.failed,
            },
            "failure-details": [
                _failure(failure, count) for failure, count in tally.failures.items()
            ],
        }
    )


def _policy(policy: TLSPolicy) -> JSON:
    # Reading of RFC 8460 4.4: mx-host is an array of patterns, as in the RFC
    # as published; drafts and some senders have a single string.
    return _filled(
        {
            "policy-type": str(policy.type),
            "policy-string": [_wellFormed(each) for each in policy.strings],
            "policy-domain": str(policy.domain),
            "mx-host": [_wellFormed(each) for each in policy.mxHosts],
        }
    )


def _failure(failure: FailureDetail, count: int) -> JSON:
    return _filled(
        {
            "result-type": str(failure.resultType),
            "sending-mta-ip": knownIP(failure.sendingIP),
            "receiving-mx-hostname": failure.mxHostname,
            "receiving-mx-helo": _wellFormed(failure.mxHELO),
            "receiving-ip": knownIP(failure.receivingIP),
            "failed-session-count": count,
            "additional-information": _wellFormed(failure.additional),
            "failure-reason-code": _wellFormed(failure.reasonCode),
        }
    )


def _filled(members: dict[str, JSON]) -> dict[str, JSON]:
    """
    C{members} less those that are empty.

    Reading of RFC 8460 4.4: what isn't known or doesn't apply is left out, as
    large senders do; an empty string is no IP address, and readers that look
    for one refuse the whole report.
    """
    return {name: value for name, value in members.items() if value not in ("", [])}


def _wellFormed(text: str) -> str:
    # RFC 7493 2.1: no surrogates, which stand for bytes of a stranger that
    # were no UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")
