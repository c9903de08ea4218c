# -*- test-case-name: tests.tlsrpt.test_parse -*-
"""
Parses received TLS reports (RFC 8460 4.4, 5.3) leniently, within limits.  No I/O.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import NoReturn

#: Octets.
MAX_JSON = 4 * 1024 * 1024
#: JSON values in a report; each takes some hundred octets of memory once parsed.
MAX_VALUES = 100_000
#: Characters of a text.
MAX_TEXT = 4096
#: Nesting of arrays and objects; a report has six levels.
MAX_DEPTH = 100
#: Entries of C{policy-string} or C{mx-host}.
MAX_TEXTS = 1000
#: RFC 7493 2.2.
MAX_COUNT = 2**53 - 1

# An unterminated string extends to the end of the text, for linear time.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - set(_STEPS))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_LINE = 300
_DIGITS = re.compile(r"\s*[0-9]{1,16}\s*", re.ASCII)
_NO_LETTER = re.compile(r"[^a-z]")
_MEMBERS = frozenset(
    {
        "organization-name",
        "date-range",
        "start-datetime",
        "end-datetime",
        "contact-info",
        "report-id",
        "policies",
        "policy",
        "policy-type",
        "policy-string",
        "policy-domain",
        "mx-host",
        "summary",
        "total-successful-session-count",
        "total-failure-session-count",
        "failure-details",
        "result-type",
        "sending-mta-ip",
        "receiving-mx-hostname",
        "receiving-mx-helo",
        "receiving-ip",
        "failed-session-count",
        "additional-information",
        "failure-reason-code",
    }
)
_SPELLINGS = {name.replace("-", ""): name for name in _MEMBERS} | {
    # Drafts of RFC 8460.
    "mxhostpattern": "mx-host",
    "additionalinfouri": "additional-information",
    "additionalinformationuri": "additional-information",
    "failureerrorcode": "failure-reason-code",
}


class MalformedReport(ValueError):
    """
    Some data is not a TLS report.  The message is one line.
    """


@dataclass(frozen=True, slots=True)
class ReceivedFailure:
    """
    An entry of C{failure-details}: L{moxtls.tlsrpt.types.FailureDetail} as the
    reporting organization gave it.
    """

    resultType: str
    count: int
    reasonCode: str = ""
    sendingIP: str = ""
    mxHostname: str = ""
    mxHELO: str = ""
    receivingIP: str = ""
    additional: str = ""


@dataclass(frozen=True, slots=True)
class ReceivedPolicy:
    """
    An entry of C{policies}.
    """

    type: str
    domain: str
    strings: tuple[str, ...]
    mxHosts: tuple[str, ...]
    succeeded: int
    failed: int
    failures: tuple[ReceivedFailure, ...]


@dataclass(frozen=True, slots=True)
class ReceivedTLSReport:
    """
    A TLS report of another organization about mail sent to this one.

    @ivar start: The first second, as Unix time.
    @ivar end: The last second, as Unix time.
    """

    organization: str
    contact: str
    reportID: str
    start: int
    end: int
    policies: tuple[ReceivedPolicy, ...]


def parseReport(text: bytes) -> ReceivedTLSReport:
    """
    Parse a report from JSON.

    @param text: JSON; anything after the object is ignored.

    @raise MalformedReport: With the place and the reason.
    """
    top = _object(_decode(text), "report")
    dates = _object(top.get("date-range"), "report.date-range")
    policies = top.get("policies")
    if not isinstance(policies, list) or not policies:
        _malformed("report.policies", "not an array with entries")
    return ReceivedTLSReport(
        organization=_text(top, "organization-name", "report"),
        contact=_text(top, "contact-info", "report"),
        reportID=_text(top, "report-id", "report"),
        start=_second(dates, "start-datetime"),
        end=_second(dates, "end-datetime"),
        policies=tuple(
            _policy(each, f"report.policies[{number}]")
            for number, each in enumerate(policies)
        ),
    )


def escapeUnprintable(text: str) -> str:
    """
    Untrusted text on one line: characters that are not printable are escaped.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def _decode(text: bytes) -> object:
    if len(text) > MAX_JSON:
        _malformed("report", f"larger than {MAX_JSON} bytes")
    encoding = json.detect_encoding(text)
    if encoding not in ("utf-8", "utf-8-sig"):
        text = text.decode(encoding, "replace").encode("utf-8", "replace")
    # Some files begin with other octets.
    text = text[max(0, text.find(b"{", 0, _MAX_LINE)) :]
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        _malformed("report", f"more than {MAX_VALUES} values")
    if _depth(text) > MAX_DEPTH:
        _malformed("report", "nested too deeply")
    decoder = json.JSONDecoder(parse_constant=_noConstant)
    try:
        value: object = decoder.raw_decode(text.decode("utf-8", "replace"))[0]
    except ValueError as error:
        _malformed("report", f"not JSON ({error})")
    return value


def _depth(text: bytes) -> int:
    """
    The nesting depth of JSON.  The limit of Python's own parser differs between its
    versions.
    """
    brackets = _STRING.sub(b"", text).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets), initial=0))


def _noConstant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _policy(value: object, where: str) -> ReceivedPolicy:
    entry = _object(value, where)
    policy = _object(entry.get("policy"), f"{where}.policy")
    summary = _object(entry.get("summary") or {}, f"{where}.summary")
    failures = entry.get("failure-details") or []
    if not isinstance(failures, list):
        _malformed(f"{where}.failure-details", "not an array")
    return ReceivedPolicy(
        type=_text(policy, "policy-type", f"{where}.policy"),
        domain=_text(policy, "policy-domain", f"{where}.policy"),
        strings=_texts(policy, "policy-string", f"{where}.policy"),
        mxHosts=_texts(policy, "mx-host", f"{where}.policy"),
        succeeded=_count(summary, "total-successful-session-count", where),
        failed=_count(summary, "total-failure-session-count", where),
        failures=tuple(
            _failure(each, f"{where}.failure-details[{number}]")
            for number, each in enumerate(failures)
        ),
    )


def _failure(value: object, where: str) -> ReceivedFailure:
    detail = _object(value, where)
    return ReceivedFailure(
        resultType=_text(detail, "result-type", where),
        count=_count(detail, "failed-session-count", where),
        reasonCode=_text(detail, "failure-reason-code", where),
        sendingIP=_text(detail, "sending-mta-ip", where),
        mxHostname=_text(detail, "receiving-mx-hostname", where),
        mxHELO=_text(detail, "receiving-mx-helo", where),
        receivingIP=_text(detail, "receiving-ip", where),
        additional=_text(detail, "additional-information", where),
    )


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        _malformed(where, "missing" if value is None else "not an object")
    if value.keys() <= _MEMBERS:
        return value
    renamed = {_rename(name): each for name, each in value.items()}
    return renamed | {name: value[name] for name in _MEMBERS & value.keys()}


def _rename(name: str) -> str:
    """
    The name of a member in RFC 8460 4.4, from one with other separators or case, or
    that of a draft.
    """
    letters = _NO_LETTER.sub("", name[:_MAX_LINE].lower())
    return _SPELLINGS.get(letters, name)


def _text(members: dict[str, object], name: str, where: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    return _checked(value, f"{where}.{name}")


def _checked(value: object, where: str) -> str:
    if not isinstance(value, str):
        _malformed(where, "not a string")
    if len(value) > MAX_TEXT:
        _malformed(where, f"longer than {MAX_TEXT} characters")
    if value.isascii():
        return value
    # JSON can contain lone surrogates, which can't be encoded.
    return value.encode("utf-8", "replace").decode("utf-8")


def _texts(members: dict[str, object], name: str, where: str) -> tuple[str, ...]:
    # Drafts of RFC 8460 had a single string for mx-host, and some still do.
    value = members.get(name)
    if value is None or value == "":
        return ()
    where = f"{where}.{name}"
    if isinstance(value, str):
        return (_checked(value, where),)
    if not isinstance(value, list):
        _malformed(where, "not an array of strings")
    if len(value) > MAX_TEXTS:
        _malformed(where, f"more than {MAX_TEXTS} strings")
    return tuple(
        _checked("" if each is None else each, f"{where}.{number}")
        for number, each in enumerate(value)
    )


def _count(members: dict[str, object], name: str, where: str) -> int:
    value = members.get(name)
    if value is None:
        return 0
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        _malformed(f"{where}.{name}", "not a whole number")
    if not 0 <= value <= MAX_COUNT:
        _malformed(f"{where}.{name}", "out of range")
    return value


def _second(dates: dict[str, object], name: str) -> int:
    where = "report.date-range"
    text = _text(dates, name, where)
    try:
        moment = datetime.fromisoformat(text.strip().upper())
        if moment.tzinfo is None:
            # Microsoft omits the offset; RFC 8460 4.1 has UTC days.
            moment = moment.replace(tzinfo=UTC)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        _malformed(f"{where}.{name}", f"{text[:40]!r} is not a date-time")
    return (moment - _EPOCH) // timedelta(seconds=1)


def _malformed(where: str, reason: str) -> NoReturn:
    raise MalformedReport(escapeUnprintable(f"{where}: {reason}")[:_MAX_LINE])
