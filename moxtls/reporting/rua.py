# -*- test-case-name: tests.reporting.test_rua -*-
"""
Parses the URIs of C{rua} tags into canonical destinations.  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from moxtls.domain import Address, Domain, InvalidAddress, InvalidDomain

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
