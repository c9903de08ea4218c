# -*- test-case-name: tests.test_config -*-
"""
What is wrong with accounts, aliases and mailboxes.  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from moxtls.config.domains import Alias, LocalDomain
from moxtls.config.errors import Inconsistency
from moxtls.config.mail import Account
from moxtls.config.places import lmtpAddress
from moxtls.config.spelling import destinationKey
from moxtls.config.values import Config
from moxtls.domain import Address, Domain, InvalidAddress
from moxtls.mailbox.names import InvalidMailbox, splitMailbox

#: An account's name is that of a folder, and a local part in LMTP: with a mailbox
#: behind it, other programs may take no more than RFC 5321 4.5.3.1.1 demands.
_ACCOUNT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?\Z")
# atext of RFC 5321 4.1.2, the dot within it, and what RFC 6531 3.3 adds.
_SEPARATOR = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\U0010ffff-]*\Z")

_Key = Address | Domain

_MAILBOX = "expected names of letters, digits, spaces and _+@-, separated by /"
_NAME = "expected a name of letters, digits and _-. as the key, up to 64 of them"
_ADDRESS = "expected an address, or @ and a domain, in one of Domains, as the key"
_MEMBER = "expected the address of an account"


def mailboxErrors(config: Config) -> Iterator[Inconsistency]:
    """
    Whatever can't be about who gets mail, and where.
    """
    yield from _wrongHost(config)
    yield from _wrongNames(config)
    yield from _wrongDestinations(config)
    for name, account in config.accounts.items():
        yield from _wrongMailboxes(f"Accounts.{name}", account)
    owned = frozenset(_owned(config))
    for domain, local in config.domains.items():
        yield from _wrongSeparator(domain, local)
        yield from _wrongAliases(domain, config, owned)
    if config.lmtp is not None:
        yield from _wrongLMTP(config.lmtp.address, config.lmtp.separator)


def _wrongHost(config: Config) -> Iterator[Inconsistency]:
    # Below it are those of DSNs about reports.
    if not _isMailbox(f"{config.postmaster.mailbox}/tlsrpt"):
        yield "Postmaster", "Mailbox", config.postmaster.mailbox, _MAILBOX
    host = config.hostTLSRPT
    if host is None:
        return
    if not _isMailbox(host.mailbox):
        yield "HostTLSRPT", "Mailbox", host.mailbox, _MAILBOX
    try:
        address = Address.parse(f"{host.localPart}@{config.hostname}")
        good = address.localPart.isascii() and not address.unquoted
    except InvalidAddress:
        good = False
    if not good:
        expected = "expected the local part of an address, in ASCII"
        yield "HostTLSRPT", "Localpart", host.localPart, expected


def _wrongNames(config: Config) -> Iterator[Inconsistency]:
    seen: dict[str, str] = {}
    for name in config.accounts:
        if not _ACCOUNT.match(name):
            yield "Accounts", name, None, _NAME
        # Some file systems, and most LMTP servers, see no difference.
        known = seen.setdefault(name.lower(), name)
        if known != name:
            expected = f"expected a name that differs from {known} in more than case"
            yield "Accounts", name, None, expected


def _wrongDestinations(config: Config) -> Iterator[Inconsistency]:
    owners: dict[_Key, str] = {}
    for name, account in config.accounts.items():
        table = f"Accounts.{name}.Destinations"
        for text, destination in account.destinations.items():
            key = destinationKey(text, config.domains)
            if key is None:
                yield table, text, None, _ADDRESS
                continue
            if key in owners:
                expected = f"expected an address that account {owners[key]} hasn't got"
                yield table, text, None, expected
            owners[key] = name
            if key == _hostAddress(config):
                yield table, text, None, "expected another address than HostTLSRPT has"
            if not _isMailbox(destination.mailbox):
                yield f"{table}.{text}", "Mailbox", destination.mailbox, _MAILBOX


def _wrongMailboxes(table: str, account: Account) -> Iterator[Inconsistency]:
    if not _isMailbox(account.junkMailbox):
        yield table, "JunkMailbox", account.junkMailbox, _MAILBOX
    if account.rejectsMailbox and not _isMailbox(account.rejectsMailbox):
        yield table, "RejectsMailbox", account.rejectsMailbox, _MAILBOX


def _wrongSeparator(domain: Domain, local: LocalDomain) -> Iterator[Inconsistency]:
    separator = local.localpartCatchallSeparator
    if not _SEPARATOR.match(separator):
        expected = "expected characters of local parts, such as +, or nothing"
        table = f"Domains.{domain}"
        yield table, "LocalpartCatchallSeparator", separator, expected


def _wrongAliases(
    domain: Domain, config: Config, owned: Collection[_Key]
) -> Iterator[Inconsistency]:
    table = f"Domains.{domain}.Aliases"
    seen: set[_Key] = set()
    for localPart, alias in config.domains[domain].aliases.items():
        key = destinationKey(f"{localPart}@{domain}", config.domains)
        if not isinstance(key, Address):
            yield table, localPart, None, "expected the local part of an address"
        elif key in owned:
            yield table, localPart, None, "expected an address that no account has"
        elif key in seen:
            yield table, localPart, None, "expected an address that no other alias has"
        else:
            seen.add(key)
        yield from _wrongMembers(f"{table}.{localPart}", alias, config, owned)


def _wrongMembers(
    table: str, alias: Alias, config: Config, owned: Collection[_Key]
) -> Iterator[Inconsistency]:
    if not alias.addresses:
        yield table, "Addresses", [], "expected at least one address"
    for text in alias.addresses:
        key = destinationKey(text, config.domains)
        # Not another alias: those could go round in circles.
        if not isinstance(key, Address) or key not in owned:
            yield table, "Addresses", text, _MEMBER


def _owned(config: Config) -> Iterator[_Key]:
    for account in config.accounts.values():
        for text in account.destinations:
            key = destinationKey(text, config.domains)
            if key is not None:
                yield key


def _wrongLMTP(address: str, separator: str) -> Iterator[Inconsistency]:
    if lmtpAddress(address) is None:
        expected = "expected IP:PORT, [IP]:PORT or the whole path of a socket"
        yield "LMTP", "Address", address, expected
    if not separator or not _SEPARATOR.match(separator) or not separator.isascii():
        expected = "expected characters of local parts, such as +"
        yield "LMTP", "Separator", separator, expected


def _hostAddress(config: Config) -> _Key | None:
    host = config.hostTLSRPT
    if host is None:
        return None
    return destinationKey(f"{host.localPart}@{config.hostname}", config.domains)


def _isMailbox(name: str) -> bool:
    try:
        splitMailbox(name)
    except InvalidMailbox:
        return False
    return True
