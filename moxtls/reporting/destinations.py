# -*- test-case-name: tests.reporting.test_destinations -*-
"""
Parses the URIs of C{rua} tags into canonical destinations, suppresses destinations
after delivery failures, and reads the delivery status notifications (DSNs, RFC 3464)
about reports.  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

from moxtls.dates import DAY
from moxtls.domain import Address, Domain, InvalidAddress, InvalidDomain
from moxtls.message.header import headerFields
from moxtls.message.mime import leafParts
from moxtls.queue.types import ReportKind
from moxtls.reporting.types import Suppression

#: RFC 8460 7: a record can direct reports to third parties, so their number is
#: limited.
MAX_DESTINATIONS = 10
#: A record can contain thousands of invalid URIs, and the reasons are logged.
MAX_REASONS = 10
#: Characters; limits the size of stored destinations.
MAX_URI = 2000

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)\Z", re.DOTALL)
# RFC 3986 3.2, 3.3, 3.4, 3.5; userinfo is matched in order to be refused.
_HTTPS = re.compile(
    r"//(?P<user>[^/?#]*@)?(?P<host>[^/?#@:\[\]]+)(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?\Z"
)
_VISIBLE = re.compile(r"[\x21-\x7e]*\Z")
_IPV4 = re.compile(r"[0-9.]+\Z")
# Left unencoded in an addr-spec by RFC 6068 2, besides what quote() leaves.
_PLAIN = "!$'*+@:"
_HTTPS_PORT = 443


class InvalidDestination(ValueError):
    """
    Reports can't be sent to a URI.
    """


@dataclass(frozen=True, slots=True)
class ReportDestination:
    """
    A destination of reports.

    @ivar uri: The canonical form: equal destinations have equal URIs.
    @ivar address: C{None} for C{https:}.
    """

    uri: str
    address: Address | None = None


def parseDestination(text: str) -> ReportDestination:
    """
    Parse a URI.

    @param text: A C{mailto:} or C{https:} URI as published; IDNs as A-labels or
        U-labels.

    @raise InvalidDestination: With the reason as text.
    """
    matched = _SCHEME.match(text)
    if matched is None or len(text) > MAX_URI:
        raise InvalidDestination(f"{text[:80]!r} is not a URI")
    scheme, rest = matched[1].lower(), matched[2]
    if scheme == "mailto":
        return _mailto(rest)
    if scheme == "https":
        return _https(rest)
    raise InvalidDestination(f"reports are not sent to {scheme[:20]!r} URIs")


def canonicalURI(text: str) -> str:
    """
    The canonical form of a URI, by which destinations are compared.

    @raise InvalidDestination: With the reason as text.
    """
    return parseDestination(text).uri


def chooseDestinations(
    uris: Iterable[str], most: int = MAX_DESTINATIONS
) -> tuple[tuple[ReportDestination, ...], tuple[str, ...]]:
    """
    The valid destinations among C{uris}, without duplicates, the first C{most}; and
    the first reasons why others are ignored.
    """
    chosen: dict[str, ReportDestination] = {}
    reasons: list[str] = []
    for uri in uris:
        try:
            destination = parseDestination(uri)
        except InvalidDestination as error:
            if len(reasons) < MAX_REASONS:
                reasons.append(str(error))
            continue
        if destination.uri not in chosen and len(chosen) >= most:
            reasons.append(f"more than {most} destinations")
            break
        chosen.setdefault(destination.uri, destination)
    return tuple(chosen.values()), tuple(reasons)


def _mailto(rest: str) -> ReportDestination:
    # RFC 6068 2: header fields after "?" are meant for mail written by hand; a
    # report has its own.
    encoded = rest.partition("?")[0].partition("#")[0]
    try:
        address = Address.parse(unquote(encoded, "utf-8", "strict"))
    except (InvalidAddress, UnicodeError):
        raise InvalidDestination(f"{encoded[:80]!r} is not one address") from None
    if not isinstance(address.domain, Domain) or address.needsSMTPUTF8:
        # Reports are ASCII; and address literals could lead into our network.
        raise InvalidDestination(f"{encoded[:80]!r} can't be sent a report")
    return ReportDestination("mailto:" + quote(str(address), safe=_PLAIN), address)


def _https(rest: str) -> ReportDestination:
    matched = _HTTPS.match(rest)
    if matched is None or matched["user"]:
        raise InvalidDestination(f"{rest[:80]!r} has no plain host")
    path, query = matched["path"] or "/", matched["query"] or ""
    port = int(matched["port"] or _HTTPS_PORT)
    if not _VISIBLE.match(path + query) or not 0 < port < 65536:
        raise InvalidDestination(f"{rest[:80]!r} is malformed")
    host = _hostOf(matched["host"])
    shown = f"{host}" if port == _HTTPS_PORT else f"{host}:{port}"
    return ReportDestination(f"https://{shown}{path}{query}")


def _hostOf(text: str) -> Domain:
    try:
        host = Domain.parse(unquote(text, "utf-8", "strict"))
    except (InvalidDomain, UnicodeError):
        raise InvalidDestination(f"{text[:80]!r} is not a host") from None
    if _IPV4.match(host.ascii):
        raise InvalidDestination(f"{text[:80]!r} is an address, not a name")
    return host


# --- suppression ---

#: Seconds of suppression by an operator, unless another period is given.
MANUAL_PERIOD = 31 * DAY
#: Seconds of suppression after the first failure.  Only one or two reports are
#: skipped, since the error may have been temporary though reported as permanent.
MIN_PERIOD = 2 * DAY
#: Maximum number of seconds: one attempt a year is no burden.
MAX_PERIOD = 365 * DAY
#: Seconds after acceptance in which a DSN may arrive: as long as hosts retry
#: (RFC 5321 4.5.4.1: 4 to 5 days).
BOUNCE_WINDOW = 5 * DAY

_TYPES = ("message/delivery-status", "message/global-delivery-status")
_STATUS = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})")
#: Maximum number of recipients that are read.
_MAX_GROUPS = 100
_MAX_DETAIL_LENGTH = 500
_MAX_STATUS = 64 * 1024


def afterFailure(
    destination: str,
    kind: ReportKind,
    now: float,
    comment: str,
    previous: Suppression | None,
) -> Suppression:
    """
    The suppression entry after another failure.

    @param previous: The entry for the same destination and kind, even if it has
        expired.
    """
    failures = previous.failures + 1 if previous else 1
    until = now + suppressionPeriod(failures)
    if previous is not None:
        until = max(until, previous.until)  # An operator may have set a longer period.
    return Suppression(destination, kind, until, now, comment, failures)


def suppressionPeriod(failures: int) -> int:
    """
    The seconds of suppression after C{failures} consecutive failures.
    """
    # Twenty doublings exceed the maximum by far.
    doubled = MIN_PERIOD * (1 << min(failures - 1, 20))
    return min(doubled, MAX_PERIOD)


def canReset(entry: Suppression, now: float, final: bool) -> bool:
    """
    True if a successful delivery resets the count of failures.

    @param final: True if no DSN can follow.
    """
    over = entry.until if final else entry.until + BOUNCE_WINDOW
    return entry.failures > 0 and now >= over


@dataclass(frozen=True, slots=True)
class DSNNotification:
    """
    The contents of a DSN.

    @ivar failed: True if a recipient was given up; false for a delay or success.
    @ivar detail: Text of the remote host, for operators.
    """

    failed: bool
    detail: str = ""


def readDSN(message: bytes) -> DSNNotification | None:
    """
    Read a DSN.

    @return: C{None} if C{message} is not a DSN.
    """
    for part in leafParts(message):
        if part.type in _TYPES:
            return _read(part.content[:_MAX_STATUS])
    return None


def bounceMailbox(kind: ReportKind, postmaster: str) -> str:
    """
    The mailbox for DSNs about our reports, which are stored as read.

    @param postmaster: The name of the postmaster's mailbox.
    """
    return f"{postmaster}/{'tlsrpt' if kind is ReportKind.TLS else 'dmarc'}"


def _read(content: bytes) -> DSNNotification:
    for fields in _groups(content):
        if fields.get("action", "").lower().startswith("failed"):
            return DSNNotification(True, _detail(fields))
    return DSNNotification(False)


def _groups(content: bytes) -> Iterator[dict[str, str]]:
    # RFC 3464 2.1: fields about the message, then about each recipient.
    groups = re.split(rb"(?:\r?\n){2,}", content, maxsplit=_MAX_GROUPS)
    for group in groups[:_MAX_GROUPS]:
        yield headerFields(group)


def _detail(fields: dict[str, str]) -> str:
    status = _STATUS.match(fields.get("status", ""))
    diagnostic = fields.get("diagnostic-code", "").partition(";")[2].strip()
    words = (status[1] if status else "", diagnostic)
    return " ".join(word for word in words if word)[:_MAX_DETAIL_LENGTH]
