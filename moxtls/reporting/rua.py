# -*- test-case-name: tests.reporting.test_rua -*-
"""
Where reports are wanted: the URIs of C{rua} tags, in one spelling each.
No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from moxtls.domain import Address, Domain, InvalidAddress, InvalidDomain

#: RFC 8460 7: a record can point reports at unwitting others, so it doesn't
#: get to point them at many.
MAX_DESTINATIONS = 10
#: Records have room for thousands of URIs that are none, and the reasons go to
#: the log.
MAX_REASONS = 10
#: Far beyond any that is meant; keeps what is stored and compared small.
MAX_URI = 2000

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)\Z", re.DOTALL)
# RFC 3986 3.2, 3.3, 3.4, 3.5; the userinfo is told apart to be refused.
_HTTPS = re.compile(
    r"//(?P<user>[^/?#]*@)?(?P<host>[^/?#@:\[\]]+)(?::(?P<port>[0-9]{0,5}))?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?\Z"
)
_VISIBLE = re.compile(r"[\x21-\x7e]*\Z")
_IPV4 = re.compile(r"[0-9.]+\Z")
# What RFC 6068 2 leaves unencoded in an addr-spec, beside what quote() does.
_PLAIN = "!$'*+@:"
_HTTPS_PORT = 443


class InvalidDestination(ValueError):
    """
    A URI is none that reports are sent to.
    """


@dataclass(frozen=True, slots=True)
class ReportDestination:
    """
    @ivar uri: The canonical form: equal destinations have equal ones.
    @ivar address: C{None} for C{https:}.
    """

    uri: str
    address: Address | None = None


def parseDestination(text: str) -> ReportDestination:
    """
    @param text: A C{mailto:} or C{https:} URI as published; IDNs may be in
        either form.

    @raise InvalidDestination: With the reason, for people.
    """
    matched = _SCHEME.match(text)
    if matched is None or len(text) > MAX_URI:
        raise InvalidDestination(f"{text[:80]!r} is not a URI")
    scheme, rest = matched[1].lower(), matched[2]
    if scheme == "mailto":
        return _mailto(rest)
    if scheme == "https":
        return _https(rest)
    raise InvalidDestination(f"nothing is sent to {scheme[:20]!r} URIs")


def canonicalURI(text: str) -> str:
    """
    The one spelling of a URI, by which destinations are compared.

    @raise InvalidDestination: With the reason, for people.
    """
    return parseDestination(text).uri


def chooseDestinations(
    uris: Iterable[str], most: int = MAX_DESTINATIONS
) -> tuple[tuple[ReportDestination, ...], tuple[str, ...]]:
    """
    Those of C{uris} that reports are sent to, each once, the first C{most};
    and why the others are passed over, as far as that is of interest.
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
    # RFC 6068 2: header fields behind "?" are the author's wishes for
    # somebody who writes by hand; a report has its own.
    encoded = rest.partition("?")[0].partition("#")[0]
    try:
        address = Address.parse(unquote(encoded, "utf-8", "strict"))
    except (InvalidAddress, UnicodeError):
        raise InvalidDestination(f"{encoded[:80]!r} is not one address") from None
    if not isinstance(address.domain, Domain) or address.needsSMTPUTF8:
        # Reports are ASCII throughout; and literals lead into our network.
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
