# -*- test-case-name: tests.reception.test_recipients -*-
"""
Normalizes local parts of local domains. No I/O.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from moxtls.config.types import LocalDomain
from moxtls.domain import Address, AddressLiteral, Domain, InvalidAddress, InvalidDomain


def plainLocalPart(localPart: str, local: LocalDomain) -> str:
    """
    The canonical spelling of a local part.
    """
    # RFC 6532 3.1: NFC, because users can't see or type the difference.
    text = unicodedata.normalize("NFC", localPart)
    return text if local.localpartCaseSensitive else text.lower()


def withoutSuffix(localPart: str, local: LocalDomain) -> str:
    """
    The local part before the separator; all of it if there is no separator, or
    nothing before it.
    """
    separator = local.localpartCatchallSeparator
    return (separator and localPart.partition(separator)[0]) or localPart


def destinationKey(
    text: str, domains: Mapping[Domain, LocalDomain]
) -> Address | Domain | None:
    """
    Parse an address in the configuration: an address in its canonical spelling; for
    C{@example.org}, the domain; C{None} if it is neither, or not in one of
    C{domains}.
    """
    try:
        if text.startswith("@"):
            domain = Domain.parse(text[1:])
            return domain if domain in domains else None
        address = Address.parse(text)
    except (InvalidAddress, InvalidDomain):
        return None
    if isinstance(address.domain, AddressLiteral) or address.domain not in domains:
        return None
    if address.unquoted:
        return None
    return plainAddress(address, domains[address.domain])


def plainAddress(address: Address, local: LocalDomain) -> Address:
    """
    The canonical spelling of an address at a local domain.
    """
    return Address(plainLocalPart(address.localPart, local), address.domain)
