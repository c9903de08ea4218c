# -*- test-case-name: tests.dmarc.test_record -*-
"""
Parses DMARC records (RFC 9989 4.7, 4.8; additional tags of RFC 7489 6.3).  No I/O.

Invalid values are replaced by their defaults, if there are any.  No published text
raises an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import TypeVar

from moxtls.dmarc.types import (
    PSD,
    Alignment,
    DiscoveryMethod,
    DMARCPolicy,
    DMARCRecord,
    ReportURI,
)
from moxtls.domain import Domain
from moxtls.taglist import WSP, parseTagSpec, splitTagSpecs

#: URIs of a tag that are read; limits what is compared and stored.
MAX_URIS = 100
#: Problems of a record that are reported.
MAX_PROBLEMS = 10
#: Octets of a record that are read: many times the usual size.
MAX_RECORD = 8192
#: RFC 7489 6.3: C{ri} is a 32-bit unsigned integer.
MAX_INTERVAL = 2**32 - 1
#: Maximum size limit of a URI: beyond any report, and within the range of databases.
MAX_LIMIT = 2**62

# RFC 9989 4.8:
#   equals        = *WSP "=" *WSP
#   dmarc-sep     = *WSP ";" *WSP
#   dmarc-version = "v" equals %s"DMARC1" ; case sensitive
# Only the value is case-sensitive, as RFC 5234 2.3 has it for "v".
_VERSION = re.compile(r"[Vv][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
# RFC 3986 3, 2.1, without the "," and "!" that have to be encoded.  U-labels aren't
# valid, but unambiguous.
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:%[0-9A-Fa-f]{2}|[^\x00-\x20!,;%\x7f\ud800-\udfff])+\Z"
)
# RFC 9989 4.8: obs-dmarc-report-size = "!" 1*DIGIT [ "k" / "m" / "g" / "t" ]
# Some records contain spaces.
_SIZE = re.compile(r"[ \t]*([0-9]+)[ \t]*([kmgtKMGT]?)\Z")
_DIGITS = re.compile(r"[0-9]{1,10}\Z")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_OPTIONS = ("0", "1", "d", "s")
_WORDS: Mapping[str, Sequence[str]] = {
    "adkim": tuple(Alignment),
    "aspf": tuple(Alignment),
    "psd": tuple(PSD),
    "t": ("y", "n"),
}

E = TypeVar("E", bound=StrEnum)


class DMARCRecordError(StrEnum):
    """
    The reason why DMARC doesn't apply.

    C{UNUSABLE}: there is one record, but without a valid policy, and without a C{rua}
    to which that could be reported (RFC 9989 4.10.1).
    """

    NONE = "no DMARC record"
    SEVERAL = "more than one DMARC record"
    UNUSABLE = "DMARC record without a valid policy"


def dmarcRecordName(domain: Domain) -> str:
    """
    The name of the record of C{domain}.
    """
    return f"_dmarc.{domain}"


def findDMARCRecord(texts: Sequence[bytes]) -> DMARCRecord | DMARCRecordError:
    """
    Find and parse the DMARC record among TXT records.

    @param texts: All TXT records at L{dmarcRecordName}.
    """
    tags = findTags(texts)
    return tags if isinstance(tags, DMARCRecordError) else interpret(tags)


def parseDMARCRecord(text: bytes) -> DMARCRecord | DMARCRecordError:
    """
    Parse one TXT record.

    @return: C{DMARCRecordError.NONE} if it isn't a DMARC record.
    """
    return findDMARCRecord([text])


def findTags(texts: Sequence[bytes]) -> Mapping[str, str] | DMARCRecordError:
    """
    The tags of the only record among C{texts}, or the error that there is none or more
    than one (RFC 9989 4.10 step 2).
    """
    found = [tags for text in texts if (tags := parseTags(text)) is not None]
    if not found:
        return DMARCRecordError.NONE
    return found[0] if len(found) == 1 else DMARCRecordError.SEVERAL


def parseTags(text: bytes) -> Mapping[str, str] | None:
    """
    The tags of a record after its version, by their names in lower case; C{None} if it
    doesn't begin with the version.

    Reading of RFC 9989 4.8: of tags with the same name, the first counts.  In RFC 6376
    3.2, where the format is from, duplicates invalidate the record; but in DMARC, an
    error after the version only affects the tag that contains it.
    """
    if len(text) > MAX_RECORD:
        # A truncated tag could get another meaning.
        text = text[:MAX_RECORD].rpartition(b";")[0]
    decoded = text.decode("utf-8", "surrogateescape")
    version = _VERSION.match(decoded)
    if version is None:
        return None
    tags: dict[str, str] = {}
    for tag in map(parseTagSpec, splitTagSpecs(decoded[version.end() :])):
        if tag is not None:
            tags.setdefault(tag[0].lower(), tag[1])
    return tags


def interpret(
    tags: Mapping[str, str], method: DiscoveryMethod = DiscoveryMethod.TREE_WALK
) -> DMARCRecord | DMARCRecordError:
    """
    Interpret the tags of a policy record.

    RFC 9989 4.10.1, RFC 7489 6.6.3: if C{p} is missing or one of the policies isn't
    valid, the record counts as one with C{p=none} only, or, without a usable C{rua}, as
    invalid.  RFC 9989 4.7 refers to this for a missing C{p}.

    @param method: C{PSL} for RFC 7489, which has no C{np}.
    """
    rua = parseURIs(tags.get("rua", ""))
    names = ("p", "sp") if method is DiscoveryMethod.PSL else ("p", "sp", "np")
    policies = {name: _policy(tags[name]) for name in names if name in tags}
    if "p" not in policies or None in policies.values():
        if not rua:
            return DMARCRecordError.UNUSABLE
        policies = {}
    ruf = parseURIs(tags.get("ruf", ""))
    return DMARCRecord(
        p=policies.get("p") or DMARCPolicy.NONE,
        sp=policies.get("sp"),
        np=policies.get("np"),
        adkim=_word(tags, "adkim", Alignment.RELAXED),
        aspf=_word(tags, "aspf", Alignment.RELAXED),
        psd=psdTag(tags),
        testing=tags.get("t", "").lower() == "y",
        rua=rua,
        ruf=ruf,
        # RFC 9989 4.7: ignored without ruf.
        fo=_failureOptions(tags.get("fo", "")) if ruf else ("0",),
        percent=_number(tags.get("pct", ""), 100, 100),
        interval=_number(tags.get("ri", ""), MAX_INTERVAL, 86400),
        problems=tuple(islice(_problems(tags, names), MAX_PROBLEMS)),
    )


def _problems(tags: Mapping[str, str], policies: Sequence[str]) -> Iterator[str]:
    """
    Errors in a record, for its owner.

    @param policies: The names of the policy tags.
    """
    wrong = [name for name in policies if name in tags and not _policy(tags[name])]
    yield from (f"{name}={tags[name]} is not a policy" for name in wrong)
    if "p" not in tags:
        yield "p is missing"
    if wrong or "p" not in tags:
        yield "the policy is taken as p=none (RFC 9989 4.10.1)"
    for name, values in _WORDS.items():
        if name in tags and tags[name].lower() not in values:
            yield f"{name}={tags[name]} has no meaning"
    for name in ("rua", "ruf"):
        parts = tags[name].split(",")[:MAX_URIS] if name in tags else ()
        for text in (part.strip(WSP) for part in parts):
            uri = _uri(text)
            if uri is None:
                yield f"{name}: {text or 'nothing'} is not a URI"
            elif not uri.isMail:
                yield f"{name}: {text} is not a mailto: URI"


def psdTag(tags: Mapping[str, str]) -> PSD:
    """
    The value of C{psd}; also used from a record without a valid policy (RFC 9989 4.10
    only tests the version).
    """
    return _word(tags, "psd", PSD.UNKNOWN)


def parseURIs(value: str) -> tuple[ReportURI, ...]:
    """
    The syntactically valid URIs of a C{rua} or C{ruf} tag, in order.
    """
    parts = value.split(",")[:MAX_URIS]
    uris = (_uri(part.strip(WSP)) for part in parts)
    return tuple(uri for uri in uris if uri is not None)


def _uri(text: str) -> ReportURI | None:
    uri, mark, size = text.partition("!")
    uri = uri.rstrip(WSP)
    matched = _SIZE.match(size)
    # A URI with an invalid size is ignored as a whole: its owner intended a limit, but
    # it is unknown which.
    if not _URI.match(uri) or not uri.isprintable() or (mark and not matched):
        return None
    return ReportURI(uri, _limit(matched) if matched else 0)


def _limit(matched: re.Match[str]) -> int:
    # Python refuses to convert thousands of digits.
    digits = matched[1].lstrip("0")
    if len(digits) > 18:
        return MAX_LIMIT
    return min(int(digits or "0") << _UNITS[matched[2].lower()], MAX_LIMIT)


def _policy(value: str) -> DMARCPolicy | None:
    try:
        return DMARCPolicy(value.lower())
    except ValueError:
        return None


def _word(tags: Mapping[str, str], name: str, default: E) -> E:
    try:
        return type(default)(tags.get(name, "").lower())
    except ValueError:
        return default


def _failureOptions(value: str) -> tuple[str, ...]:
    """
    Reading of RFC 9989 4.7: C{0} and C{1} exclude each other, but RFC 7489
    allowed them together, and C{1} means both.
    """
    options = [option.strip(WSP).lower() for option in value.split(":")]
    if any(option not in _OPTIONS for option in options):
        return ("0",)
    return tuple(dict.fromkeys(options))


def _number(value: str, most: int, default: int) -> int:
    number = int(value) if _DIGITS.match(value) else most + 1
    return number if number <= most else default
