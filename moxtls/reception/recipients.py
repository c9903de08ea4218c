# -*- test-case-name: tests.reception.test_recipients -*-
"""
Decides whose an address is, and where its mail goes.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from moxtls.config import Account, Alias, Config, HostTLSRPT, LocalDomain
from moxtls.config.localparts import destinationKey, plainAddress, withoutSuffix
from moxtls.domain import Address, AddressLiteral, Domain
from moxtls.mailbox.names import HOST_ACCOUNT

#: RFC 5321 4.5.1: in any case, at every domain that mail is taken for.
POSTMASTER = "postmaster"
#: By custom: to whom cron writes, and from whom other hosts have their DSNs.
ADMINISTRATIVE_NAMES = frozenset({"root", "mailer-daemon"})


class Role(Enum):
    """
    What an address is for.

    C{TLS_REPORTS}: TLS reports of others about this host.
    """

    USER = "user"
    POSTMASTER = "postmaster"
    TLS_REPORTS = "tls reports"


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where the mail of an address goes.

    @ivar account: A name, or L{HOST_ACCOUNT}.
    @ivar address: Of the account, in its one spelling: with an alias, the
        member's; with a catch-all or for the postmaster, as it was asked for.
    """

    account: str
    mailbox: str
    address: Address
    role: Role = Role.USER

    @property
    def isForReports(self) -> bool:
        """
        Whether others send reports there, so that mail to it alone is no
        reason for a report: two hosts would go on reporting on each other's
        reports for ever.
        """
        return self.role is Role.TLS_REPORTS


@dataclass(frozen=True, slots=True)
class NotLocal:
    """
    Mail for that domain isn't taken here.
    """


@dataclass(frozen=True, slots=True)
class NoSuchUser:
    """
    The domain is ours, and there is no such address in it.
    """


DirectoryResult = tuple[Target, ...] | NotLocal | NoSuchUser


class Directory:
    """
    Whose is which address, by the configuration.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._catchAlls: dict[Domain, tuple[str, str]] = {}
        self._known: dict[Address, tuple[Target, ...]] = {}
        for name, account in config.accounts.items():
            self._add(name, account)
        self._known |= dict(self._aliases())
        self._hostReports = _hostReports(config.hostname, config.hostTLSRPT)

    def isLocal(self, domain: Domain | AddressLiteral) -> bool:
        """
        Whether mail for it is kept here, rather than sent on.
        """
        return domain == self._config.hostname or domain in self._config.domains

    def equivalents(self, address: Address) -> tuple[Address, ...]:
        """
        The addresses that C{address} means here: itself in its one spelling,
        and without what is behind a separator; none if it isn't ours.
        """
        domain = address.domain
        if isinstance(domain, AddressLiteral) or not self.isLocal(domain):
            return ()
        return tuple(_keysFor(address, self._config.domains.get(domain)))

    def find(self, address: Address) -> DirectoryResult:
        """
        Where mail for C{address} goes: to one target, or to several if it is
        an alias.

        An address as it is asked for comes before what it is without the part
        behind a separator; whoever takes all the rest comes last.
        """
        domain = address.domain
        # Reading of RFC 5321 4.1.3: we answer to our names only.
        if isinstance(domain, AddressLiteral) or not self.isLocal(domain):
            return NotLocal()
        for target in self._hostReports:
            # Not Domains, but this host says what is the same here.
            if Address(address.localPart.lower(), domain) == target.address:
                return (target,)
        local = self._config.domains.get(domain)
        for key in _keysFor(address, local):
            if key in self._known:
                return self._known[key]
            if isPostmaster(key.localPart) or (
                domain == self._config.hostname and isAdministrative(key.localPart)
            ):
                return (self._postmaster(address),)
        if local is None or domain not in self._catchAlls:
            return NoSuchUser()
        account, mailbox = self._catchAlls[domain]
        return (Target(account, mailbox, plainAddress(address, local)),)

    def _add(self, name: str, account: Account) -> None:
        for text, destination in account.destinations.items():
            key = destinationKey(text, self._config.domains)
            if isinstance(key, Domain):
                self._catchAlls[key] = (name, destination.mailbox)
            elif key is not None:
                role = Role.POSTMASTER if isPostmaster(key.localPart) else Role.USER
                target = Target(name, destination.mailbox, key, role)
                self._known[key] = (target,)

    def _aliases(self) -> Iterator[tuple[Address, tuple[Target, ...]]]:
        domains = self._config.domains
        for domain, local in domains.items():
            for localPart, alias in local.aliases.items():
                alternative = destinationKey(f"{localPart}@{domain}", domains)
                members = self._members(alias)
                # Of an alias without members, nobody would get the mail.
                if isinstance(alternative, Address) and members:
                    yield alternative, members

    def _members(self, alias: Alias) -> tuple[Target, ...]:
        """
        Nobody gets a message twice because several of his addresses are meant.
        """
        members: dict[tuple[str, str], Target] = {}
        for text in alias.addresses:
            key = destinationKey(text, self._config.domains)
            if isinstance(key, Address):
                for each in self._known.get(key, ()):
                    members.setdefault((each.account, each.mailbox), each)
        return tuple(members.values())

    def _postmaster(self, address: Address) -> Target:
        mailbox = self._config.postmaster.mailbox
        return Target(HOST_ACCOUNT, mailbox, address, Role.POSTMASTER)


def _keysFor(address: Address, local: LocalDomain | None) -> Iterator[Address]:
    """
    Under which an address may be known, the closest first.
    """
    if local is None:
        yield Address(address.localPart.lower(), address.domain)
        return
    exact = plainAddress(address, local)
    yield exact
    yield Address(withoutSuffix(exact.localPart, local), address.domain)


def _hostReports(hostname: Domain, host: HostTLSRPT | None) -> tuple[Target, ...]:
    if host is None:
        return ()
    address = Address(host.localPart.lower(), hostname)
    return (Target(HOST_ACCOUNT, host.mailbox, address, Role.TLS_REPORTS),)


def isAdministrative(localPart: str) -> bool:
    """
    Whether mail goes to the postmaster at the name of a host, as programs on it
    write to whoever runs it, and DSNs of others seem to come from there.
    """
    return localPart.lower().partition("+")[0] in ADMINISTRATIVE_NAMES


def isPostmaster(localPart: str) -> bool:
    """
    Whether mail goes to the postmaster, which includes the envelope senders
    of reports: C{postmaster+token}.
    """
    return localPart.lower().partition("+")[0] == POSTMASTER
