# -*- test-case-name: tests.reception.test_recipients -*-
"""
Maps recipient addresses to accounts and mailboxes.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from moxtls.config import Account, Alias, Config, LocalDomain
from moxtls.config.addresses import (
    destinationKey,
    isPostmaster,
    plainAddress,
    reportMailboxes,
    withoutSuffix,
)
from moxtls.domain import Address, AddressLiteral, Domain
from moxtls.mailbox.names import HOST_ACCOUNT

#: Customary addresses: cron writes to root, and other hosts' DSNs come from
#: mailer-daemon.
ADMINISTRATIVE_NAMES = frozenset({"root", "mailer-daemon"})


class Role(Enum):
    """
    The role of an address.

    C{REPORTS}: receives reports of other hosts, of any kind.
    """

    USER = "user"
    POSTMASTER = "postmaster"
    REPORTS = "reports"


@dataclass(frozen=True, slots=True)
class Target:
    """
    The mailbox that gets the mail of an address.

    @ivar account: A name, or L{HOST_ACCOUNT}.
    @ivar address: The account's address in canonical form; with an alias, the
        member's; with a catch-all or for the postmaster, the address in RCPT.
    @ivar reported: Of an address for reports, the domain that they are about; empty
        if there are several.
    """

    account: str
    mailbox: str
    address: Address
    role: Role = Role.USER
    reported: str = ""

    @property
    def isForReports(self) -> bool:
        """
        True if other hosts send reports there.  Mail to it alone is not evaluated for
        reports: two hosts would report on each other's reports for ever.
        """
        return self.role is Role.REPORTS


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
        self._reports = _reports(config)
        self._known |= dict(self._aliases())
        self._hostReports = _hostReports(config)

    def isLocal(self, domain: Domain | AddressLiteral) -> bool:
        """
        True if mail for the domain is delivered here rather than relayed.
        """
        if isinstance(domain, AddressLiteral):
            return False
        local = self._config.domains.get(domain)
        isTaken = local is not None and not local.reportsOnly
        return isTaken or domain == self._config.hostname

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
        # Host addresses are compared without case, whatever the settings of the domain.
        for target in self._hostReports:
            if Address(address.localPart.lower(), domain) == target.address:
                return (target,)
        local = self._config.domains.get(domain)
        keys = tuple(_keysFor(address, local))
        if keys[0] not in self._known:
            reports = self._reportsAt(keys[0], local)
            if reports:
                return reports
        for key in keys:
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
                # Reports to an alias are only delivered: the other members read them.
                reports = [
                    replace(each, role=Role.USER, reported="")
                    for each in self._reports.get(key, ())
                ]
                for each in (*self._known.get(key, ()), *reports):
                    members.setdefault((each.account, each.mailbox), each)
        return tuple(members.values())

    def _reportsAt(
        self, address: Address, local: LocalDomain | None
    ) -> tuple[Target, ...]:
        """
        The target of reports to an address, with any part behind a separator ignored:
        the configured local part may contain the separator itself.

        @param address: In its canonical form.
        """
        localPart = address.localPart
        separator = local.localpartCatchallSeparator if local is not None else ""
        while localPart:
            key = Address(localPart, address.domain)
            if key in self._reports:
                return self._reports[key]
            localPart = localPart.rpartition(separator)[0] if separator else ""
        return ()

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


def _reports(config: Config) -> Mapping[Address, tuple[Target, ...]]:
    """
    The targets of the addresses for reports about domains.
    """
    found: dict[Address, tuple[Target, ...]] = {}
    for each in reportMailboxes(config):
        if each.address is None:
            continue
        [target] = found.get(each.address) or [
            Target(
                each.settings.account,
                each.settings.mailbox,
                each.address,
                Role.REPORTS,
                each.domain.ascii,
            )
        ]
        if target.reported != each.domain.ascii:
            target = replace(target, reported="")
        found[each.address] = (target,)
    return found


def _hostReports(config: Config) -> tuple[Target, ...]:
    host, hostname = config.hostTLSRPT, config.hostname
    if host is None:
        return ()
    address = Address(host.localPart.lower(), hostname)
    target = Target(HOST_ACCOUNT, host.mailbox, address, Role.REPORTS, hostname.ascii)
    return (target,)


def isAdministrative(localPart: str) -> bool:
    """
    True if mail to the local part at the host's name goes to the postmaster: local
    programs write to it, and other hosts' DSNs are from it.
    """
    return localPart.lower().partition("+")[0] in ADMINISTRATIVE_NAMES


def parseForwardPath(recipient: str, hostname: str) -> Address:
    """
    Parse a forward-path.

    @param recipient: An address, or C{postmaster} (RFC 5321 4.5.1).
    """
    if recipient.lower() == "postmaster":
        recipient = f"{recipient}@{hostname}"
    return Address.parse(recipient)
