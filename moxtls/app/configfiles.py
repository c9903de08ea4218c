# -*- test-case-name: tests.app.test_configfiles -*-
"""
The configuration with the files that it names.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from moxtls.app.privileges import userName
from moxtls.authentication.dkim.sign import (
    InvalidKey,
    NoSubmitter,
    Signer,
    findSubmitter,
    loadKey,
)
from moxtls.config import (
    Config,
    InvalidConfig,
    Listener,
    ListenerTLS,
    LocalDomain,
    Purpose,
    Selector,
    joinedErrors,
    quoted,
    read,
    remarks,
    serverAddress,
)
from moxtls.dns.types import NameServer, systemNameServers
from moxtls.domain import Domain
from moxtls.regularfiles import checkedFile
from moxtls.smtp.passwords import InvalidPassword, StoredPassword
from moxtls.tls.openssl import TrustStore, loadTrustStore
from moxtls.tls.server import (
    IServerTLSObserver,
    ReloadingContext,
    certificateProblems,
)

RESOLV_CONF = Path("/etc/resolv.conf")
#: The C{s=} tag of a key that signs TLS reports only (RFC 8460 3).
TLSRPT_SERVICE = "tlsrpt"
SECRET_LENGTH = 32
_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class ConfigFiles:
    """
    A configuration file, and the files and folders that it names.

    Every method that reads a file raises L{InvalidConfig} if the file can't be used,
    with the key that names it.

    @ivar file: The configuration file.
    """

    file: Path
    config: Config

    @classmethod
    def read(cls, file: Path) -> ConfigFiles:
        """
        Read a configuration file.

        @raise InvalidConfig: It can't be read, or all errors in it.
        """
        configFiles, faults = cls.readable(file)
        wrong = joinedErrors(faults)
        if wrong is not None:
            raise wrong
        return configFiles

    @classmethod
    def readable(cls, file: Path) -> tuple[ConfigFiles, tuple[InvalidConfig, ...]]:
        """
        Read as much as possible, to find all errors.

        @return: The configuration without the invalid parts, and all errors in the
            file.

        @raise InvalidConfig: It can't be read, or required parts are invalid.
        """
        try:
            text = file.read_text("utf-8")
        except OSError as error:
            raise InvalidConfig(str(file), "", "", "", _why(error)) from None
        except UnicodeDecodeError:
            raise InvalidConfig(str(file), "", "", "", "not TOML: not UTF-8") from None
        config, faults = read(text, str(file))
        if config is None:
            raise joinedErrors(faults) or InvalidConfig(
                str(file), "", "", "", "unusable"
            )
        return cls(file, config), faults

    def path(self, text: str) -> Path:
        """
        Resolve a path against the folder of the configuration file.

        @return: An absolute path.
        """
        return self.file.absolute().parent / text

    @property
    def data(self) -> Path:
        return self.path(self.config.dataDirectory)

    @property
    def spool(self) -> Path:
        return self.data / "queue"

    @property
    def mail(self) -> Path:
        return self.data / "mail"

    @property
    def accounts(self) -> Path:
        """
        The folder with a Maildir for each account.
        """
        return self.data / "accounts"

    @property
    def logins(self) -> Path:
        """
        The folder of the login history.
        """
        return self.data / "logins"

    @property
    def ledgerURL(self) -> str:
        """
        The URL of the ledger; a relative SQLite path is made absolute.
        """
        url = self.config.ledger or f"{_SQLITE}{self.data / 'ledger.sqlite'}"
        path = url.removeprefix(_SQLITE)
        if path and url.startswith(_SQLITE):
            return f"{_SQLITE}{self.path(path)}"
        return url

    def owner(self) -> tuple[int, int] | None:
        """
        User and group of the data: those of the spool, which the server has made,
        else of the data directory; C{None} if neither exists.

        @raise InvalidConfig: They can't be determined.
        """
        found = None
        try:
            # The spool last: other users may have no access to the data directory.
            for folder in (self.data, self.spool):
                found = os.stat(f"{folder}/")
        except (FileNotFoundError, PermissionError) as error:
            if found is None and isinstance(error, PermissionError):
                raise self._unusable(error) from None
        except OSError as error:
            raise self._unusable(error) from None
        return found and (found.st_uid, found.st_gid)

    @property
    def submitter(self) -> Domain | NoSubmitter:
        """
        The identity that sends TLS reports, or the reason why there is none.
        """
        domains = self.config.domains.items()
        off = {domain for domain, local in domains if local.noOutgoingTLSReports}
        return _submitter(self.config.hostname, self.signers(), off)

    @property
    def dmarcSubmitter(self) -> Domain | NoSubmitter:
        """
        The identity that sends DMARC reports, or the reason why there is none.

        RFC 9990 3.5.2: a report must itself pass DMARC, so the key must be valid for
        all mail.
        """
        config = self.config
        domains = config.domains.items()
        off = {domain for domain, local in domains if local.noOutgoingDMARCReports}
        signers = {
            domain: [each for each in those if not each.service]
            for domain, those in self.signers().items()
        }
        wanted = config.reporting.dmarc.domain or config.hostname
        return _submitter(wanted, signers, off)

    def isOurs(self) -> bool:
        """
        True if the data belongs to the user of this process, or doesn't exist yet.

        @raise InvalidConfig: The owner can't be determined.
        """
        owner = self.owner()
        return owner is None or owner[0] == os.geteuid()

    def makeFolders(self) -> None:
        """
        Make the data directory and its subfolders.

        @raise InvalidConfig: The data directory can't be made or written to, or
            belongs to a server that runs as another user, which couldn't use files of
            this process.
        """
        for folder in (self.data, self.spool, self.mail, self.accounts, self.logins):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                owner = folder.stat().st_uid
            except OSError as error:
                raise self._unusable(error) from None
            if folder != self.data and owner != os.geteuid():
                why = f"{folder} belongs to user {userName(owner)}"
                why = f"{why}, and this process is {userName(os.geteuid())}"
                raise self.wrong("", "DataDirectory", self.config.dataDirectory, why)

    def _unusable(self, error: OSError) -> InvalidConfig:
        return self.wrong("", "DataDirectory", self.config.dataDirectory, _why(error))

    def secret(self) -> bytes:
        """
        A random secret that is kept between starts, made at the first one. With it
        responses to unknown accounts are constant, so that clients can't detect which
        accounts exist.
        """
        path = self.data / "secret"
        try:
            if not path.exists():
                new = path.with_suffix(".new")
                new.touch(mode=0o600)
                new.write_bytes(secrets.token_bytes(SECRET_LENGTH))
                new.rename(path)
            return path.read_bytes()
        except OSError as error:
            why = f"{path.name} {_why(error)}"
            value = self.config.dataDirectory
            raise self.wrong("", "DataDirectory", value, why) from None

    def servers(self) -> tuple[NameServer, ...]:
        """
        The DNS servers to query.
        """
        resolver = self.config.resolver
        if not resolver.servers:
            try:
                text = RESOLV_CONF.read_text("utf-8", "replace")
            except OSError:
                text = ""
            return systemNameServers(text)
        trusted = {serverAddress(each) for each in resolver.trusted}
        addresses = (serverAddress(each) for each in resolver.servers)
        return tuple(
            NameServer(*address, trusted=address in trusted)
            for address in addresses
            if address is not None
        )

    def trust(self) -> TrustStore:
        """
        The root certificates for all outgoing connections.
        """
        name = self.config.caFile
        try:
            return loadTrustStore(str(checkedFile(self.path(name))) if name else None)
        except (OSError, ValueError) as error:
            raise self.wrong("", "CAFile", name, _why(error)) from None

    def signers(self) -> Mapping[Domain, tuple[Signer, ...]]:
        """
        The DKIM keys of all local domains.
        """
        return {
            domain: tuple(
                self._signer(domain, name, selector)
                for name, selector in local.dkim.selectors.items()
            )
            for domain, local in self.config.domains.items()
        }

    def _signer(self, domain: Domain, name: str, selector: Selector) -> Signer:
        table = f"Domains.{domain}.DKIM.Selectors.{name}"
        try:
            key = loadKey(checkedFile(self.path(selector.keyFile)).read_bytes())
        except (OSError, InvalidKey) as error:
            raise self.wrong(table, "KeyFile", selector.keyFile, _why(error)) from None
        if key.algorithm is not selector.algorithm:
            expected = f"expected a key for {selector.algorithm}, not {key.algorithm}"
            raise self.wrong(table, "KeyFile", selector.keyFile, expected)
        service = TLSRPT_SERVICE if selector.purpose is Purpose.TLSRPT else ""
        return Signer(domain, name, key, service)

    def tls(
        self, name: str, listener: Listener, observer: IServerTLSObserver | None = None
    ) -> ReloadingContext | None:
        """
        The certificates of a listener: its own, and those of domains for SNI; C{None}
        if TLS is off.
        """
        if listener.tls is ListenerTLS.NONE:
            return None
        more = tuple(
            self._certificate(f"Domains.{domain}", local)
            for domain, local in self.config.domains.items()
            if local.certificateFile
        )
        own = self._certificate(f"Listeners.{name}", listener)
        return ReloadingContext(*own, more, observer)

    def _certificate(
        self, table: str, named: Listener | LocalDomain
    ) -> tuple[Path, Path]:
        """
        The paths of a certificate and its key, after loading both.
        """
        certificate, key = named.certificateFile, named.keyFile
        for setting, file in (("CertificateFile", certificate), ("KeyFile", key)):
            try:
                checkedFile(self.path(file)).read_bytes()
            except OSError as error:
                raise self.wrong(table, setting, file, _why(error)) from None
        pair = (self.path(certificate), self.path(key))
        try:
            load_pem_private_key(pair[1].read_bytes(), None)
        except TypeError:
            # OpenSSL would prompt for a passphrase on the terminal.
            expected = "expected a private key without a passphrase"
            raise self.wrong(table, "KeyFile", key, expected) from None
        except (ValueError, UnsupportedAlgorithm):
            expected = "expected a private key in PEM"
            raise self.wrong(table, "KeyFile", key, expected) from None
        try:
            ReloadingContext(*pair)
        except (OSError, SSL.Error):
            expected = f"expected a certificate in PEM for the key in {key}"
            raise self.wrong(table, "CertificateFile", certificate, expected) from None
        return pair

    def users(self) -> Mapping[str, StoredPassword]:
        """
        The users that may log in, with their password hashes.
        """
        return {name: self._user(name) for name in self.config.users}

    def _user(self, name: str) -> StoredPassword:
        try:
            return StoredPassword.parse(self.config.users[name])
        except InvalidPassword:
            expected = 'expected the output of "moxtls config password"'
            raise self.wrong("Users", name, "", expected) from None

    def password(self, name: str) -> str:
        """
        The password for the smarthost C{name}.
        """
        host = self.config.transports[name]
        table = f"Transports.{name}"
        try:
            text = checkedFile(self.path(host.passwordFile)).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            value = host.passwordFile
            raise self.wrong(table, "PasswordFile", value, _why(error)) from None
        password = text.partition("\n")[0].rstrip("\r")
        if not password:
            expected = "expected a password in the first line"
            raise self.wrong(table, "PasswordFile", host.passwordFile, expected)
        return password

    def check(self) -> None:
        """
        Read every file that the configuration names.

        @raise InvalidConfig: All files that can't be used.
        """
        wrong = joinedErrors(faultsOf(self._files()))
        if wrong is not None:
            raise wrong

    def _files(self) -> Iterator[Callable[[], object]]:
        config = self.config
        yield self.trust
        for domain, local in config.domains.items():
            for name, selector in local.dkim.selectors.items():
                yield partial(self._signer, domain, name, selector)
        for user in config.users:
            yield partial(self._user, user)
        for table, named in self._certified():
            yield partial(self._certificate, table, named)
        for name, host in config.transports.items():
            if host.user and host.passwordFile:
                yield partial(self.password, name)

    def _certified(self) -> Iterator[tuple[str, Listener | LocalDomain]]:
        """
        The tables that name a certificate and its key.
        """
        for domain, local in self.config.domains.items():
            if local.certificateFile and local.keyFile:
                yield f"Domains.{domain}", local
        for name, listener in self.config.listeners.items():
            hasPair = listener.certificateFile and listener.keyFile
            if listener.tls is not ListenerTLS.NONE and hasPair:
                yield f"Listeners.{name}", listener

    def checkFolders(self) -> None:
        """
        Check whether C{makeFolders} would succeed, without making anything.

        @raise InvalidConfig: It would fail.
        """
        for folder in (self.data, self.spool, self.mail, self.accounts):
            there = folder
            while not there.exists() and there != there.parent:
                there = there.parent
            reason = errno.EACCES
            if not there.is_dir():
                reason = errno.ENOTDIR
            elif os.access(there, os.W_OK | os.X_OK, effective_ids=True):
                continue
            error = OSError(reason, os.strerror(reason))
            value = self.config.dataDirectory
            raise self.wrong("", "DataDirectory", value, _why(error))

    def remarks(self, now: float) -> Iterator[str]:
        """
        Valid but probably unintended settings; one line each, without the name of the
        file.

        @param now: In Unix seconds.
        """
        for table, key, value, why in remarks(self.config):
            yield self.wrong(table, key, str(value), why).place
        for table, named in self._certified():
            with suppress(OSError, ValueError):
                file = named.certificateFile
                pem = self.path(file).read_bytes()
                certificate = x509.load_pem_x509_certificate(pem)
                # Certificates of domains are used only for SNI.
                isOurs = isinstance(named, Listener)
                host = self.config.hostname.ascii if isOurs else ""
                for why in certificateProblems(certificate, host, now):
                    yield self.wrong(table, "CertificateFile", file, why).place

    def wrong(self, table: str, key: str, value: str, why: str) -> InvalidConfig:
        """
        The exception to raise for a value that can't be used.
        """
        shown = quoted(value) if value else ""
        return InvalidConfig(str(self.file), table, key, shown, why)


def faultsOf(steps: Iterable[Callable[[], object]]) -> Iterator[InvalidConfig]:
    """
    Run each of C{steps} and yield the errors that they raise.
    """
    for step in steps:
        try:
            step()
        except InvalidConfig as error:
            yield error


def _submitter(
    domain: Domain, signers: Mapping[Domain, Sequence[Signer]], off: Collection[Domain]
) -> Domain | NoSubmitter:
    try:
        return findSubmitter(domain, signers, off)
    except NoSubmitter as reason:
        return reason


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be used: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return "expected text in UTF-8"
    return str(error)
