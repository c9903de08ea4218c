# -*- test-case-name: tests.tlsrpt.test_record -*-
"""
The TLSRPT record, which requests TLS reports (RFC 8460 3).  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from moxtls.domain import Domain
from moxtls.taglist import WSP, splitTagSpecs

# RFC 8460 3:
#   tlsrpt-record    = tlsrpt-version 1*(field-delim tlsrpt-field) [field-delim]
#   field-delim      = *WSP ";" *WSP
#   tlsrpt-ext-name  = (ALPHA / DIGIT) *31(ALPHA / DIGIT / "_" / "-" / ".")
#   tlsrpt-ext-value = 1*(%x21-3A / %x3C / %x3E-7E)
#   tlsrpt-rua       = %s"rua=" tlsrpt-uri *(*WSP "," *WSP tlsrpt-uri)
_VERSION = re.compile(r"v=TLSRPTv1[ \t]*;")
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=(.*)\Z", re.DOTALL)
_VALUE = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e]+\Z")
# RFC 3986 3, 2.1; U-labels, which a URI may not contain, are accepted.
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:%[0-9A-Fa-f]{2}|[^\x00-\x20!,;%\x7f\ud800-\udfff])+\Z"
)


class TLSRPTRecordError(StrEnum):
    """
    The reason why a domain has no usable TLSRPT record.
    """

    NONE = "no TLSRPT record"
    MULTIPLE = "more than one TLSRPT record"
    SYNTAX = "malformed TLSRPT record"


class InvalidRecord(ValueError):
    """
    A text is not a TLSRPT record.
    """


@dataclass(frozen=True, slots=True)
class TLSRPTRecord:
    """
    A parsed TLSRPT record.

    @ivar rua: URIs as published, of all C{rua} fields, in order.
    @ivar extensions: Names and values of unknown fields.
    """

    rua: tuple[str, ...]
    extensions: tuple[tuple[str, str], ...] = ()


def tlsrptRecordName(domain: Domain) -> str:
    """
    The DNS name of the TLSRPT record of C{domain}.
    """
    return f"_smtp._tls.{domain}"


def findTLSRPTRecord(texts: Iterable[bytes]) -> TLSRPTRecord | TLSRPTRecordError:
    """
    Select and parse the TLSRPT record.

    @param texts: All TXT records at L{tlsrptRecordName}.
    """
    decoded = (text.decode("utf-8", "surrogateescape") for text in texts)
    candidates = [text for text in decoded if _VERSION.match(text)]
    if not candidates:
        return TLSRPTRecordError.NONE
    if len(candidates) > 1:
        return TLSRPTRecordError.MULTIPLE
    try:
        return parseTLSRPTRecord(candidates[0])
    except InvalidRecord:
        return TLSRPTRecordError.SYNTAX


def parseTLSRPTRecord(text: str) -> TLSRPTRecord:
    """
    Parse the text of a record.

    @raise InvalidRecord: With the reason, in one line.
    """
    version = _VERSION.match(text)
    if version is None:
        raise InvalidRecord("the record does not begin with v=TLSRPTv1;")
    rua: list[str] = []
    extensions = []
    for field in splitTagSpecs(text[version.end() :]):
        name, value = _split(field)
        if name == "rua":
            rua.extend(_uris(value))
        elif _VALUE.match(value):
            extensions.append((name, value))
        else:
            raise InvalidRecord(f"{field[:80]!r} has no proper value")
    if not rua:
        raise InvalidRecord("the record has no rua")
    return TLSRPTRecord(tuple(rua), tuple(extensions))


def _split(field: str) -> tuple[str, str]:
    matched = _FIELD.match(field)
    if matched is None:
        raise InvalidRecord(f"{field[:80]!r} is not name=value")
    return matched[1], matched[2]


def _uris(value: str) -> list[str]:
    uris = [uri.strip(WSP) for uri in value.split(",")]
    for uri in uris:
        if not _URI.match(uri):
            raise InvalidRecord(f"{uri[:80]!r} is not a URI")
    return uris
