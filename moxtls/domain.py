# -*- test-case-name: tests.test_domain -*-
"""
Domain names, address literals and mail addresses in canonical form.  No I/O.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache

import idna

#: RFC 1035 2.3.4.
MAX_DOMAIN_LENGTH = 253
MAX_LABEL = 63
#: RFC 5321 4.5.3.1.3, less the angle brackets.  The local part has no limit of
#: its own: the 64 octets of 4.5.3.1.1 are a minimum to accept, and VERP addresses
#: are longer.
MAX_ADDRESS = 254
#: Entries of the cache of parsed names: messages contain the same few names in many
#: places.
MAX_CACHED = 4000

# RFC 1123 2.1, and underscores: RFC 2181 11 allows any label in the DNS, and some
# mail hosts have underscores in their names.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]+(?<!-)\Z")
# RFC 6532 3.1: UTF8-non-ascii, except C1 controls, line and paragraph separators, and
# bidirectional overrides.  No mailbox has them, and addresses are shown in headers,
# logs and terminals.
_UTF8 = r"\xa0-\u2027\u202f-\u2065\u206a-\U0010ffff"
# RFC 5321 4.1.2, RFC 6531 3.3: Dot-string of atext, which may be non-ASCII.
_ATEXT = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_UTF8}-]+"
_DOT_STRING = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*\Z")
# The same with leading, trailing and consecutive dots, which would have to be quoted:
# large providers issued such addresses to their customers.
_DOTTED = re.compile(rf"\.*{_ATEXT}(?:\.+{_ATEXT})*\.*\Z")
# RFC 5321 4.1.2: Quoted-string, and the pairs within it.
_QUOTED = re.compile(rf'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e{_UTF8}]|\\[\x20-\x7e])*)"\Z')


class InvalidDomain(ValueError):
    """
    A text is not a domain name.
    """


class InvalidAddress(ValueError):
    """
    A text is not a mail address.
    """


@dataclass(frozen=True, slots=True, order=True)
class Domain:
    """
    A domain name: A-labels, lower case, no final dot.

    L{Domain.parse} makes it, so that equal names are equal values, independent of
    their spelling.
    """

    ascii: str

    @classmethod
    def parse(cls, text: str) -> Domain:
        """
        Parse a domain name.

        @param text: U-labels or A-labels in any case, with or without a
            final dot.

        @raise InvalidDomain: C{text} is not a host name (RFC 1123 2.1, RFC 5890);
            underscores are allowed.
        """
        return _parseCached(text) if len(text) <= MAX_DOMAIN_LENGTH else _parse(text)

    @property
    def isHostName(self) -> bool:
        """
        True if it consists of letters, digits and hyphens only (RFC 1123 2.1), as
        names of this host must.
        """
        return "_" not in self.ascii

    @property
    def unicode(self) -> str:
        """
        The name in U-labels, for display; A-labels that are not valid IDNA 2008
        stay as they are.
        """
        return ".".join(_labelToUnicode(label) for label in self.ascii.split("."))

    @property
    def parent(self) -> Domain | None:
        """
        The domain without its first label; C{None} for a top-level domain.
        """
        _, dot, rest = self.ascii.partition(".")
        return Domain(rest) if dot else None

    def isUnder(self, other: Domain) -> bool:
        """
        True if this is C{other} or a subdomain of it.
        """
        return self == other or self.ascii.endswith("." + other.ascii)

    def __str__(self) -> str:
        return self.ascii


@dataclass(frozen=True, slots=True, order=True)
class AddressLiteral:
    """
    An IP address in place of a domain (RFC 5321 4.1.3).
    """

    ip: str

    @classmethod
    def parse(cls, text: str) -> AddressLiteral:
        """
        @param text: C{[192.0.2.1]} or C{[IPv6:2001:db8::1]}.

        @raise InvalidDomain: C{text} is not an address literal.
        """
        inner = text.removeprefix("[").removesuffix("]")
        isV6 = inner[:5].lower() == "ipv6:"
        try:
            ip = ipaddress.ip_address(inner[5:] if isV6 else inner)
        except ValueError:
            ip = None
        # ipaddress accepts a zone after "%", which may contain anything, even line
        # ends; RFC 5321 4.1.3 has no zones.
        hasZone = "%" in inner
        if ip is None or hasZone or text != f"[{inner}]" or (ip.version == 6) != isV6:
            raise InvalidDomain(
                f"{text[:MAX_DOMAIN_LENGTH]!r} is not an address literal"
            )
        return cls(str(ip))

    def __str__(self) -> str:
        return f"[IPv6:{self.ip}]" if ":" in self.ip else f"[{self.ip}]"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """
    A mail address (RFC 5321 4.1.2 Mailbox, RFC 6531 3.3).

    @ivar localPart: Without quotes; case is kept.
    @ivar unquoted: The local part was written without the quotes that its dots
        require, and is written so again: the provider that issued such an address
        may not recognise the quoted form.
    """

    localPart: str
    domain: Domain | AddressLiteral
    unquoted: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Parse an address.

        @param text: C{local@domain}, without angle brackets.

        @raise InvalidAddress: C{text} is not a mail address.
        """
        local, at, domain = text.rpartition("@")
        try:
            if not at or len(text.encode("utf-8")) > MAX_ADDRESS:
                raise InvalidDomain
            parsed = parseHost(domain)
        except (InvalidDomain, UnicodeError):
            raise _notAnAddress(text) from None
        quoted = _QUOTED.match(local)
        if quoted:
            return cls(re.sub(r"\\(.)", r"\1", quoted[1]), parsed)
        if not _DOTTED.match(local):
            raise _notAnAddress(text)
        return cls(local, parsed, not _DOT_STRING.match(local))

    @property
    def needsSMTPUTF8(self) -> bool:
        """
        True if delivery requires the SMTPUTF8 extension (RFC 6531).
        """
        return not self.localPart.isascii()

    def __str__(self) -> str:
        local = self.localPart
        if not self.unquoted and not _DOT_STRING.match(local):
            escaped = local.replace("\\", "\\\\").replace('"', '\\"')
            local = f'"{escaped}"'
        return f"{local}@{self.domain}"


def parseHost(text: str) -> Domain | AddressLiteral:
    """
    Parse the part of an address after the C{@}.

    @raise InvalidDomain: C{text} is neither a domain nor an address literal.
    """
    if text.startswith("["):
        return AddressLiteral.parse(text)
    return Domain.parse(text)


def _parse(text: str) -> Domain:
    name = text.removesuffix(".")
    name = name.lower() if name.isascii() else _toASCII(name)
    labels = name.split(".")
    if len(name) > MAX_DOMAIN_LENGTH or not all(
        len(label) <= MAX_LABEL and _LABEL.match(label) for label in labels
    ):
        raise InvalidDomain(f"{text[:MAX_DOMAIN_LENGTH]!r} is not a domain name")
    return Domain(name)


_parseCached = lru_cache(MAX_CACHED)(_parse)


def _toASCII(name: str) -> str:
    try:
        # Label by label: IDNA rejects an underscore, and only in its own label.
        labels = idna.uts46_remap(name, std3_rules=False, transitional=False).split(".")
        return ".".join(map(_labelToASCII, labels))
    except (idna.IDNAError, UnicodeError):
        raise InvalidDomain(
            f"{name[:MAX_DOMAIN_LENGTH]!r} is not a domain name"
        ) from None


def _labelToASCII(label: str) -> str:
    # RFC 5890 4.2: an A-label has more characters than its U-label.
    if label.isascii() or len(label) > MAX_LABEL:
        return label
    return idna.alabel(label).decode("ascii")


def _labelToUnicode(label: str) -> str:
    try:
        return idna.decode(label) if label.startswith("xn--") else label
    except (idna.IDNAError, UnicodeError):
        return label


def _notAnAddress(text: str) -> InvalidAddress:
    return InvalidAddress(f"{text[:MAX_ADDRESS]!r} is not a mail address")
