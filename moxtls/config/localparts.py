# -*- test-case-name: tests.reception.test_recipients -*-
"""
Which local parts mean the same at a domain of ours.  No I/O.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from moxtls.config.types import LocalDomain
from moxtls.domain import Address, AddressLiteral, Domain, InvalidAddress, InvalidDomain


def plainLocalPart(localPart: str, local: LocalDomain) -> str:
    """
    One spelling of all that are the same.
    """
    # RFC 6532 3.1: NFC; whoever types a name can't tell the difference.
    text = unicodedata.normalize("NFC", localPart)
    return text if local.localpartCaseSensitive else text.lower()


def withoutSuffix(localPart: str, local: LocalDomain) -> str:
    """
    What is before the separator; all of it, if there is no separator in it or
    nothing before.
    """
    separator = local.localpartCatchallSeparator
    return (separator and localPart.partition(separator)[0]) or localPart


def destinationKey(
    text: str, domains: Mapping[Domain, LocalDomain]
) -> Address | Domain | None:
    """
    What an address in the configuration stands for: an address in its one
    spelling; for C{@example.org}, the domain; C{None} if it is neither, or not
    in one of C{domains}.
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
    The one spelling of an address at a domain of ours.
    """
    return Address(plainLocalPart(address.localPart, local), address.domain)
