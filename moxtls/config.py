# -*- test-case-name: tests.test_config -*-
"""
The configuration: TOML text to frozen values.  No I/O.

The classes below are the reference: C{moxtls config describe} prints what
they say.  A path in them is as written; who opens it does so relative to the
folder of the configuration file.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import cattrs
from cattrs.gen import make_dict_structure_fn, override

from moxtls.domain import Address, Domain, InvalidAddress, InvalidDomain
from moxtls.mailbox.names import InvalidMailbox, splitMailbox
from moxtls.reporting.signing import Algorithm

T = TypeVar("T")

#: Values quoted in an error are cut to this length: it is one line.
LONGEST_QUOTE = 60
#: Of bytes, seconds or connections: more is a mistake.
LARGEST_INTEGER = 2**31 - 1

# RFC 6376 3.1: sub-domain *( "." sub-domain ), as in RFC 5321 4.1.2.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")


# Not frozen: Python and Twisted write down tracebacks in exceptions.
@dataclass(eq=False)
class InvalidConfig(Exception):
    """
    The configuration can't be used.

    @ivar table: Such as C{Listeners.local}; empty at the top.
    @ivar key: Empty if the table itself is wrong.
    @ivar value: As written, shortened; empty if there is none.
    @ivar expected: What would have been right.
    """

    file: str
    table: str
    key: str
    value: str
    expected: str

    def __str__(self) -> str:
        where = f" [{self.table}]" if self.table else ""
        what = f" {self.key}" if self.key else ""
        value = f" = {self.value}" if self.value else ""
        place = f"{where}{what}{value}"
        return f"{self.file}:{place}{':' if place else ''} {self.expected}"


def setting(key: str, meaning: str, default: Any = MISSING) -> Any:
    """
    A field of a configuration class.

    @param key: As written in the file.
    @param default: Immutable; without one the key is required.
    """
    metadata = {"key": key, "meaning": meaning}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


class Service(StrEnum):
    """
    What a listener is for.
    """

    SUBMISSION = "submission"
    RECEPTION = "reception"


class ListenerTLS(StrEnum):
    """
    How TLS begins on a listener.
    """

    NONE = "none"
    STARTTLS = "starttls"
    IMMEDIATE = "immediate"


class RelayTLS(StrEnum):
    """
    How TLS begins on a connection to a smarthost.
    """

    NONE = "none"
    STARTTLS = "starttls"
    IMMEDIATE = "immediate"


class Purpose(StrEnum):
    """
    What a DKIM selector signs.
    """

    MAIL = "mail"
    TLSRPT = "tlsrpt"


class Families(StrEnum):
    """
    The versions of IP to connect with.
    """

    BOTH = "both"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


@dataclass(frozen=True, slots=True)
class Resolver:
    """
    The DNS servers to ask.
    """

    servers: tuple[str, ...] = setting(
        "Servers",
        "Addresses, each with an optional port: 127.0.0.1, [::1]:5353. "
        "Empty: those of /etc/resolv.conf.",
        (),
    )
    trusted: tuple[str, ...] = setting(
        "Trusted",
        "Of those, which are trusted to validate DNSSEC for us, because the way "
        "to them is safe. Servers on loopback addresses always are.",
        (),
    )


@dataclass(frozen=True, slots=True)
class Postmaster:
    """
    Where mail for the postmaster of this host goes.
    """

    mailbox: str = setting(
        "Mailbox", "Its mailbox, in the Maildir of this host.", "Postmaster"
    )


@dataclass(frozen=True, slots=True)
class HostTLSRPT:
    """
    Where others send TLS reports about this host.
    """

    localPart: str = setting(
        "Localpart", "The local part of the address, at Hostname.", "tlsreports"
    )
    mailbox: str = setting("Mailbox", "Where they are kept.", "TLSRPT")


@dataclass(frozen=True, slots=True)
class Listener:
    """
    An address on which SMTP is spoken.
    """

    port: int = setting("Port", "The TCP port.")
    service: Service = setting(
        "Service",
        '"submission": takes mail to be sent. "reception": takes mail for the '
        "postmaster of this host and what comes back from reports.",
        Service.SUBMISSION,
    )
    address: str = setting("Address", "The IP address.", "127.0.0.1")
    authentication: bool = setting(
        "Authentication",
        "Whether clients have to log in as one of Users. A submission listener "
        "without must be on a loopback address.",
        False,
    )
    tls: ListenerTLS = setting(
        "TLS", 'How TLS begins: "none", "starttls" or "immediate".', ListenerTLS.NONE
    )
    certificateFile: str = setting(
        "CertificateFile", "PEM, leaf first. Read again when it changes.", ""
    )
    keyFile: str = setting("KeyFile", "PEM.", "")
    maxConnections: int = setting("MaxConnections", "At the same time.", 500)
    maxMessageSize: int = setting("MaxMessageSize", "In bytes.", 100 * 2**20)


@dataclass(frozen=True, slots=True)
class Selector:
    """
    A DKIM key.
    """

    keyFile: str = setting("KeyFile", "The private key, PEM.")
    algorithm: Algorithm = setting(
        "Algorithm", '"rsa-sha256" or "ed25519-sha256".', Algorithm.RSA
    )
    purpose: Purpose = setting(
        "Purpose",
        '"mail": signs whatever this host itself sends in the name of the domain: '
        'reports. "tlsrpt": signs TLS reports only, and its record says "s=tlsrpt". '
        "Submitted mail is not signed.",
        Purpose.MAIL,
    )


@dataclass(frozen=True, slots=True)
class DKIM:
    """
    How what this host sends in the name of a domain is signed.
    """

    selectors: Mapping[str, Selector] = setting(
        "Selectors", "By name: the label before ._domainkey.", {}
    )


@dataclass(frozen=True, slots=True)
class LocalDomain:
    """
    A domain of ours.
    """

    dkim: DKIM = setting("DKIM", "How reports in its name are signed.", DKIM())
    noOutgoingTLSReports: bool = setting(
        "NoOutgoingTLSReports", "Send no TLS reports in the name of this domain.", False
    )


@dataclass(frozen=True, slots=True)
class Smarthost:
    """
    A relay that takes our mail.
    """

    host: str = setting("Host", "Its name or IP address.")
    port: int = setting("Port", "The TCP port.", 587)
    tls: RelayTLS = setting(
        "TLS", '"starttls", "immediate", or "none".', RelayTLS.STARTTLS
    )
    insecure: bool = setting(
        "Insecure", "Whether to accept any certificate of it.", False
    )
    user: str = setting("User", "To log in; empty for no login.", "")
    passwordFile: str = setting("PasswordFile", "Its first line is the password.", "")


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    How mail leaves.
    """

    transport: str = setting(
        "Transport",
        '"direct" to the hosts of a domain, or one of Transports.',
        "direct",
    )
    routes: Mapping[str, str] = setting(
        "Routes",
        "Transports for some recipient domains, by domain; their subdomains are "
        "not meant.",
        {},
    )
    port: int = setting(
        "Port", "The port of mail hosts. Other than 25 only for tests.", 25
    )
    httpsPort: int = setting(
        "HTTPSPort", "The port of MTA-STS hosts. Other than 443 only for tests.", 443
    )
    families: Families = setting("Families", '"both", "ipv4" or "ipv6".', Families.BOTH)
    maxConnections: int = setting("MaxConnections", "At the same time.", 50)
    maxPerDestination: int = setting(
        "MaxPerDestination", "At the same time, to one domain.", 2
    )
    retrySchedule: tuple[int, ...] = setting(
        "RetrySchedule",
        "Seconds to wait after each attempt that failed; the attempt after the "
        "last of them is the last.",
        (450, 900, 1800, 3600, 7200, 14400, 28800),
    )


@dataclass(frozen=True, slots=True)
class Reporting:
    """
    How reports are sent.
    """

    window: int = setting(
        "Window", "Seconds over which the reports of a day are spread.", 4 * 3600
    )
    notTo: tuple[Domain, ...] = setting(
        "NotTo", "Policy domains that get no reports.", ()
    )
    keepDays: int = setting("KeepDays", "For how long sent reports are kept.", 30)


@dataclass(frozen=True, slots=True)
class Config:
    """
    The whole file.
    """

    hostname: Domain = setting("Hostname", "The name of this host: EHLO, reports.")
    dataDirectory: str = setting(
        "DataDirectory", "Where the ledger, the queue and mailboxes are.", "data"
    )
    ledger: str = setting(
        "Ledger",
        "The database: sqlite:///PATH or postgresql://USER@HOST/NAME. Empty: "
        "SQLite in DataDirectory.",
        "",
    )
    node: str = setting(
        "Node",
        "The name of this node among those that share a ledger. Empty: Hostname.",
        "",
    )
    caFile: str = setting(
        "CAFile", "PEM with the roots to trust. Empty: those of the system.", ""
    )
    noOutgoingTLSReports: bool = setting(
        "NoOutgoingTLSReports", "Record no TLS outcomes and send no TLS reports.", False
    )
    outgoingTLSReportsForAllSuccess: bool = setting(
        "OutgoingTLSReportsForAllSuccess",
        "Send TLS reports also about days without any failure.",
        False,
    )
    resolver: Resolver = setting("Resolver", "The DNS servers to ask.", Resolver())
    postmaster: Postmaster = setting(
        "Postmaster", "Mail for the postmaster of this host.", Postmaster()
    )
    hostTLSRPT: HostTLSRPT | None = setting(
        "HostTLSRPT",
        "TLS reports of others about this host; without this table none are taken.",
        None,
    )
    listeners: Mapping[str, Listener] = setting(
        "Listeners", "Addresses on which SMTP is spoken, by any name.", {}
    )
    users: Mapping[str, str] = setting(
        "Users", 'Who may log in: by name, the output of "moxtls config password".', {}
    )
    domains: Mapping[Domain, LocalDomain] = setting("Domains", "Domains of ours.", {})
    transports: Mapping[str, Smarthost] = setting(
        "Transports", "Smarthosts, by any name.", {}
    )
    delivery: Delivery = setting("Delivery", "How mail leaves.", Delivery())
    reporting: Reporting = setting("Reporting", "How reports are sent.", Reporting())

    @property
    def nodeName(self) -> str:
        return self.node or self.hostname.ascii


_TABLES = (
    Resolver,
    Postmaster,
    HostTLSRPT,
    Listener,
    Selector,
    DKIM,
    LocalDomain,
    Smarthost,
    Delivery,
    Reporting,
    Config,
)
_CHOICES = (Service, ListenerTLS, RelayTLS, Algorithm, Purpose, Families)
_KEYS = {each.name: each.metadata["key"] for table in _TABLES for each in fields(table)}
_ARRAYS = {
    each.metadata["key"]
    for table in _TABLES
    for each in fields(table)
    if get_origin(get_type_hints(table)[each.name]) is tuple
}


class _Unsuitable(ValueError):
    """
    A value is of the wrong type or out of range; says what was expected.
    """


def parse(text: str, file: str) -> Config:
    """
    @param file: What to call the text in errors.

    @raise InvalidConfig: The first thing that is wrong with it.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(file, "", "", "", f"not TOML: {error}") from None
    except RecursionError:
        raise InvalidConfig(file, "", "", "", "nested too deeply") from None
    try:
        config = _converter().structure(raw, Config)
    except cattrs.BaseValidationError as error:
        raise _first(error, raw, file) from None
    for table, key, value, expected in _inconsistencies(config):
        raise InvalidConfig(file, table, key, quoted(value), expected)
    return config


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind, hook in _HOOKS.items():
        converter.register_structure_hook(kind, hook)
    for choices in _CHOICES:
        converter.register_structure_hook(choices, _choice)
    for table in _TABLES:
        names = {
            each.name: override(rename=each.metadata["key"]) for each in fields(table)
        }
        converter.register_structure_hook(
            table,
            make_dict_structure_fn(
                table,
                converter,
                _cattrs_forbid_extra_keys=True,
                **names,  # type: ignore[arg-type]
            ),
        )
    return converter


def _string(value: object, kind: object) -> str:
    if not isinstance(value, str):
        raise _Unsuitable("expected a string")
    return value


def _integer(value: object, kind: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Unsuitable("expected an integer")
    if value < 0:
        raise _Unsuitable("expected an integer from 0 up")
    if value > LARGEST_INTEGER:
        raise _Unsuitable(f"expected an integer up to {LARGEST_INTEGER}")
    return value


def _boolean(value: object, kind: object) -> bool:
    if not isinstance(value, bool):
        raise _Unsuitable("expected true or false")
    return value


def _domain(value: object, kind: object) -> Domain:
    try:
        return Domain.parse(_string(value, kind))
    except InvalidDomain:
        raise _Unsuitable("expected a domain name") from None


def _choice(value: object, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(_string(value, kind))
    except ValueError:
        choices = ", ".join(f'"{each}"' for each in kind)
        raise _Unsuitable(f"expected one of {choices}") from None


_HOOKS: dict[Any, Callable[[object, Any], object]] = {
    str: _string,
    int: _integer,
    bool: _boolean,
    Domain: _domain,
}


def _first(error: BaseException, raw: object, file: str) -> InvalidConfig:
    path: list[tuple[str | None, object]] = []
    while True:
        for note in getattr(error, "__notes__", ()):
            name = getattr(note, "name", None)
            path.append((name, getattr(note, "index", None)))
        if not isinstance(error, BaseExceptionGroup):
            break
        # A misspelled key says more than that the right one is missing.
        unknown = error.subgroup(cattrs.ForbiddenExtraKeysError)
        error = (unknown or error).exceptions[0]
    steps = [_KEYS.get(str(name), str(name)) if name else i for name, i in path]
    return _described(error, steps, raw, file)


def _described(
    error: BaseException, steps: list[Any], raw: object, file: str
) -> InvalidConfig:
    value = _at(raw, steps)
    tables = [str(each) for each in steps if not isinstance(each, int)]
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        key = min(map(str, error.extra_fields))
        known = sorted(each.metadata["key"] for each in fields(error.cl))
        expected = f"unknown key; known here: {', '.join(known)}"
        shown = quoted(_at(value, [key]))
        return InvalidConfig(file, ".".join(tables), key, shown, expected)
    *above, key = tables or [""]
    table = ".".join(above)
    if isinstance(error, _Unsuitable):
        return InvalidConfig(file, table, key, quoted(value), str(error))
    if isinstance(error, KeyError):
        return InvalidConfig(file, table, key, "", "missing, and has no default")
    expected = "expected an array" if key in _ARRAYS else "expected a table"
    return InvalidConfig(file, table, key, quoted(value), expected)


def _at(raw: Any, steps: list[Any]) -> object:
    for step in steps:
        try:
            raw = raw[step]
        except (LookupError, TypeError):
            return None
    return raw


def quoted(value: object) -> str:
    """
    As in an error: on one line, and not a long one.
    """
    if value is None:
        return ""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 3] + "..."


Inconsistency = tuple[str, str, object, str]


def _inconsistencies(config: Config) -> Iterator[Inconsistency]:
    """
    What each value alone doesn't show: table, key, value, what was expected.
    """
    for name, listener in config.listeners.items():
        yield from _wrongListener(f"Listeners.{name}", listener, config)
    for name, host in config.transports.items():
        yield from _wrongSmarthost(f"Transports.{name}", name, host)
    yield from _wrongDelivery(config)
    yield from _wrongMailboxes(config)
    yield from _wrongSelectors(config)
    for server in (*config.resolver.servers, *config.resolver.trusted):
        if serverAddress(server) is None:
            yield "Resolver", "Servers", server, "expected an IP address, or [IP]:port"


def _wrongListener(
    table: str, listener: Listener, config: Config
) -> Iterator[Inconsistency]:
    loopback = _isLoopback(listener.address)
    if loopback is None:
        yield table, "Address", listener.address, "expected an IP address"
    if listener.port > 65535:
        yield table, "Port", listener.port, "expected an integer from 0 to 65535"
    if listener.tls is not ListenerTLS.NONE and not listener.certificateFile:
        yield table, "CertificateFile", None, "expected a file, as TLS is on"
    if listener.certificateFile and not listener.keyFile:
        yield table, "KeyFile", None, "expected a file, as CertificateFile is set"
    if listener.authentication and listener.tls is ListenerTLS.NONE:
        # RFC 4954 9: no passwords in the clear.
        yield table, "TLS", listener.tls, "expected TLS, as Authentication is on"
    if listener.authentication and not config.users:
        yield "", "Users", None, f"expected somebody, as [{table}] Authentication is on"
    open_ = listener.service is Service.SUBMISSION and not listener.authentication
    if open_ and loopback is False:
        expected = "expected a loopback address, or Authentication = true"
        yield table, "Address", listener.address, expected


def _wrongSmarthost(table: str, name: str, host: Smarthost) -> Iterator[Inconsistency]:
    if name == "direct":
        yield table, "", None, 'expected another name: "direct" is built in'
    if not 0 < host.port <= 65535:
        yield table, "Port", host.port, "expected an integer from 1 to 65535"
    try:
        ipaddress.ip_address(host.host)
    except ValueError:
        try:
            Domain.parse(host.host)
        except InvalidDomain:
            yield table, "Host", host.host, "expected a domain name or an IP address"
    if host.user and not host.passwordFile:
        yield table, "PasswordFile", None, "expected a file, as User is set"
    if host.user and host.tls is RelayTLS.NONE:
        yield table, "TLS", host.tls, "expected TLS, as User is set"


def _wrongDelivery(config: Config) -> Iterator[Inconsistency]:
    delivery = config.delivery
    known = {"direct", *config.transports}
    expected = f"expected one of {', '.join(sorted(known))}"
    if delivery.transport not in known:
        yield "Delivery", "Transport", delivery.transport, expected
    for domain, transport in delivery.routes.items():
        if transport not in known:
            yield "Delivery.Routes", domain, transport, expected
        try:
            Domain.parse(domain)
        except InvalidDomain:
            yield "Delivery.Routes", domain, None, "expected a domain name as the key"
    for key, port in (("Port", delivery.port), ("HTTPSPort", delivery.httpsPort)):
        if not 0 < port <= 65535:
            yield "Delivery", key, port, "expected an integer from 1 to 65535"
    limits = {
        "MaxConnections": delivery.maxConnections,
        "MaxPerDestination": delivery.maxPerDestination,
    }
    for key, limit in limits.items():
        if limit < 1:
            yield "Delivery", key, limit, "expected an integer from 1 up"
    if not delivery.retrySchedule or min(delivery.retrySchedule) < 1:
        value = list(delivery.retrySchedule)
        yield "Delivery", "RetrySchedule", value, "expected seconds, each from 1 up"


def _wrongSelectors(config: Config) -> Iterator[Inconsistency]:
    for domain, local in config.domains.items():
        for name in local.dkim.selectors:
            if not _SELECTOR.match(name):
                table = f"Domains.{domain}.DKIM.Selectors"
                yield table, name, None, "expected a DNS label as the key"


def _wrongMailboxes(config: Config) -> Iterator[Inconsistency]:
    if not _isMailbox(config.postmaster.mailbox):
        yield "Postmaster", "Mailbox", config.postmaster.mailbox, _MAILBOX
    if config.hostTLSRPT is None:
        return
    if not _isMailbox(config.hostTLSRPT.mailbox):
        yield "HostTLSRPT", "Mailbox", config.hostTLSRPT.mailbox, _MAILBOX
    text = f"{config.hostTLSRPT.localPart}@{config.hostname}"
    try:
        ascii_ = Address.parse(text).localPart.isascii()
    except InvalidAddress:
        ascii_ = False
    if not ascii_:
        expected = "expected the local part of an address, in ASCII"
        yield "HostTLSRPT", "Localpart", config.hostTLSRPT.localPart, expected


_MAILBOX = "expected names of letters, digits, spaces and _+@-, separated by /"


def _isMailbox(name: str) -> bool:
    try:
        # Below it are those of DSNs about reports.
        splitMailbox(f"{name}/tlsrpt")
    except InvalidMailbox:
        return False
    return True


def _isLoopback(address: str) -> bool | None:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return None


def serverAddress(text: str) -> tuple[str, int] | None:
    """
    A DNS server as written: C{127.0.0.1}, C{127.0.0.1:5353}, C{::1} or
    C{[::1]:5353}.

    @return: IP address and port, or C{None} if it is something else.
    """
    host, port = text, "53"
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return None
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        return None


# --- description -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """
    @ivar table: Empty at the top; C{<name>} stands for what the user chooses.
    @ivar key: Empty for the table itself.
    """

    table: str
    key: str
    type: str
    default: str
    meaning: str


def describe() -> tuple[KeyDescription, ...]:
    """
    Every table and key there is, in the order of the file.
    """
    return tuple(_describe(Config, ""))


def _describe(table: type[Any], name: str) -> Iterator[KeyDescription]:
    hints = get_type_hints(table)
    nested: list[tuple[type[Any], str, str]] = []
    for each in fields(table):
        inner, isMapping = _tableIn(hints[each.name])
        key = each.metadata["key"]
        if inner is None:
            yield _describeKey(name, each, hints[each.name])
        else:
            path = f"{name}.{key}" if name else key
            path = f"{path}.<name>" if isMapping else path
            nested.append((inner, path, each.metadata["meaning"]))
    for inner, path, meaning in nested:
        yield KeyDescription(path, "", "table", "", meaning)
        yield from _describe(inner, path)


def _tableIn(hint: Any) -> tuple[type[Any] | None, bool]:
    args = [each for each in get_args(hint) if is_dataclass(each) and each != Domain]
    if is_dataclass(hint) and isinstance(hint, type) and hint is not Domain:
        return hint, False
    if args and isinstance(args[-1], type):
        return args[-1], get_origin(hint) not in (Union, types.UnionType)
    return None, False


def _describeKey(table: str, each: Field[Any], hint: Any) -> KeyDescription:
    default = "required" if each.default is MISSING else _toTOML(each.default)
    if each.default_factory is not MISSING:
        default = "{}"
    meaning = each.metadata["meaning"]
    return KeyDescription(
        table, each.metadata["key"], _typeName(hint), default, meaning
    )


def _typeName(hint: Any) -> str:
    names = {str: "string", int: "integer", bool: "boolean", Domain: "domain"}
    if hint in names:
        return names[hint]
    if get_origin(hint) is tuple:
        return f"array of {_typeName(get_args(hint)[0])}"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return "string"
    return f"table of {_typeName(get_args(hint)[-1])}"


def _toTOML(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_toTOML(each) for each in value)}]"
    return str(value)
