# -*- test-case-name: tests.reception.test_recipients -*-
"""
Maps recipient addresses to accounts and mailboxes.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from moxtls.config import Account, Alias, Config, HostTLSRPT, LocalDomain
from moxtls.config.addresses import destinationKey, plainAddress, withoutSuffix
from moxtls.domain import Address, AddressLiteral, Domain
from moxtls.mailbox.names import HOST_ACCOUNT

#: RFC 5321 4.5.1: in any case, at every domain for which mail is accepted.
POSTMASTER = "postmaster"
#: Customary addresses: cron writes to root, and other hosts' DSNs come from
#: mailer-daemon.
ADMINISTRATIVE_NAMES = frozenset({"root", "mailer-daemon"})


class Role(Enum):
    """
    The role of an address.

    C{TLS_REPORTS}: receives TLS reports of other hosts about this host.
    """

    USER = "user"
    POSTMASTER = "postmaster"
    TLS_REPORTS = "tls reports"


@dataclass(frozen=True, slots=True)
class Target:
    """
    The mailbox that gets the mail of an address.

    @ivar account: A name, or L{HOST_ACCOUNT}.
    @ivar address: The account's address in canonical form; with an alias, the
        member's; with a catch-all or for the postmaster, the address in RCPT.
    """

    account: str
    mailbox: str
    address: Address
    role: Role = Role.USER

    @property
    def isForReports(self) -> bool:
        """
        True if other hosts send reports there.  Mail to it alone is not evaluated for
        reports: two hosts would report on each other's reports for ever.
        """
        return self.role is Role.TLS_REPORTS


@dataclass(frozen=True, slots=True)
class NotLocal:
    """
    The domain isn't local.
    """


@dataclass(frozen=True, slots=True)
class NoSuchUser:
    """
    The domain is local, but has no such address.
    """


DirectoryResult = tuple[Target, ...] | NotLocal | NoSuchUser


class Directory:
    """
    The addresses of all accounts and aliases in the configuration.
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
        True if mail for the domain is delivered here rather than relayed.
        """
        return domain == self._config.hostname or domain in self._config.domains

    def equivalents(self, address: Address) -> tuple[Address, ...]:
        """
        The addresses under which C{address} is looked up: its canonical form, and
        that without the part behind a separator; none if the domain isn't local.
        """
        domain = address.domain
        if isinstance(domain, AddressLiteral) or not self.isLocal(domain):
            return ()
        return tuple(_keysFor(address, self._config.domains.get(domain)))

    def find(self, address: Address) -> DirectoryResult:
        """
        The targets of C{address}: one, or several for an alias.

        The full address is tried before the address without the part behind a
        separator; a catch-all comes last.
        """
        domain = address.domain
        # Reading of RFC 5321 4.1.3: addresses with literals aren't local; only names
        # are.
        if isinstance(domain, AddressLiteral) or not self.isLocal(domain):
            return NotLocal()
        for target in self._hostReports:
            # Host addresses are compared without case, whatever the settings of the
            # domain.
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
                # Mail to an alias without members would be lost.
                if isinstance(alternative, Address) and members:
                    yield alternative, members

    def _members(self, alias: Alias) -> tuple[Target, ...]:
        """
        The targets of all members, each mailbox once.
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
    The addresses under which an address may be configured, the most exact first.
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
    True if mail to the local part at the host's name goes to the postmaster: local
    programs write to it, and other hosts' DSNs are from it.
    """
    return localPart.lower().partition("+")[0] in ADMINISTRATIVE_NAMES


def isPostmaster(localPart: str) -> bool:
    """
    True if mail goes to the postmaster, also to C{postmaster+token}, the envelope
    sender of reports.
    """
    return localPart.lower().partition("+")[0] == POSTMASTER


def parseForwardPath(recipient: str, hostname: str) -> Address:
    """
    Parse a forward-path.

    @param recipient: An address, or C{postmaster} (RFC 5321 4.5.1).
    """
    if recipient.lower() == "postmaster":
        recipient = f"{recipient}@{hostname}"
    return Address.parse(recipient)
