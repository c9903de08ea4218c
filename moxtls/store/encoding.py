# -*- test-case-name: tests.store.test_encoding -*-
"""
What DMARC made of mail, as text of one spelling, and what tells it apart.
No I/O.

JSON lists in the order of the attributes: equal values have equal texts, so
that a digest of the text stands for the value.
"""

from __future__ import annotations

import json
from hashlib import blake2b

from moxtls.authentication import AuthResult
from moxtls.dmarc.values import (
    Alignment,
    Disposition,
    DMARCPolicy,
    Evaluation,
    Method,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.domain import Domain
from moxtls.store.sums import DIGEST_SIZE

#: Octets of the digest that tells the policies of one domain apart.  Who
#: publishes two with the same one harms nobody else's reports.
PART_SIZE = 8

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def encodeRow(row: ReportRow) -> str:
    """
    C{row} in JSON, in ASCII.
    """
    spf = row.spf
    return _encode(
        (
            row.sourceIP,
            row.disposition,
            row.dkimAligned,
            row.spfAligned,
            [(each.kind, each.comment) for each in row.reasons],
            row.headerFrom,
            row.envelopeFrom,
            row.envelopeTo,
            [(s.domain, s.selector, s.result, s.problem) for s in row.dkim],
            None if spf is None else (spf.domain, spf.scope, spf.result),
        )
    )


def decodeRow(text: str) -> ReportRow:
    """
    What L{encodeRow} was given.
    """
    ip, disposition, dkimAligned, spfAligned, reasons, *rest = json.loads(text)
    headerFrom, envelopeFrom, envelopeTo, dkim, spf = rest
    return ReportRow(
        ip,
        Disposition(disposition),
        dkimAligned,
        spfAligned,
        tuple(Override(OverrideKind(kind), comment) for kind, comment in reasons),
        headerFrom,
        envelopeFrom,
        envelopeTo,
        tuple(
            ReportedSignature(domain, selector, AuthResult(result), problem)
            for domain, selector, result, problem in dkim
        ),
        None if spf is None else ReportedSPF(spf[0], spf[1], AuthResult(spf[2])),
    )


def encodePolicy(published: PublishedPolicy) -> str:
    """
    C{published} in JSON, in ASCII.
    """
    return _encode(
        (
            published.domain.ascii,
            published.p,
            published.sp,
            published.np,
            published.adkim,
            published.aspf,
            published.testing,
            published.fo,
            published.percent,
            published.method,
        )
    )


def decodePolicy(text: str) -> PublishedPolicy:
    """
    What L{encodePolicy} was given.
    """
    domain, p, sp, np, adkim, aspf, testing, fo, percent, method = json.loads(text)
    return PublishedPolicy(
        Domain(domain),
        DMARCPolicy(p),
        None if sp is None else DMARCPolicy(sp),
        None if np is None else DMARCPolicy(np),
        Alignment(adkim),
        Alignment(aspf),
        testing,
        tuple(fo),
        percent,
        Method(method),
    )


def encodeTexts(texts: tuple[str, ...]) -> str:
    """
    Any strings in JSON, in ASCII.
    """
    return _encode(texts)


def decodeTexts(text: str) -> tuple[str, ...]:
    """
    What L{encodeTexts} was given.
    """
    return tuple(json.loads(text))


def rowKey(row: str) -> bytes:
    """
    Stands for a row, and says where it is in the order of rows.

    @param row: From L{encodeRow}.
    """
    return blake2b(row.encode("ascii"), digest_size=DIGEST_SIZE).digest()


def partOf(published: str, hours: int) -> str:
    """
    Stands for a policy and the interval of its reports: hexadecimal digits.

    @param published: From L{encodePolicy}.
    """
    text = f"{hours}\0{published}".encode("ascii")
    return blake2b(text, digest_size=PART_SIZE).hexdigest()


def closedPart(part: str, until: int) -> str:
    """
    Stands for what was recorded under C{part} before its period was closed in
    the second C{until}.
    """
    text = f"{until}\0{part}".encode("ascii")
    return blake2b(text, digest_size=PART_SIZE).hexdigest()


def partOfEvaluation(evaluation: Evaluation) -> str:
    """
    The C{part} of the L{moxtls.reporting.values.Subject} that C{evaluation}
    belongs to.

    @param evaluation: Is L{moxtls.store.rules.boundedEvaluation}.
    """
    return partOf(encodePolicy(evaluation.published), evaluation.hours)
