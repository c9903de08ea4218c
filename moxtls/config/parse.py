# -*- test-case-name: tests.test_config -*-
"""
Parses TOML text to frozen values, and formats errors as one line each.  No I/O.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, dataclass, fields, replace
from difflib import get_close_matches
from enum import StrEnum
from itertools import takewhile
from typing import Any, get_origin, get_type_hints

import cattrs
from cattrs.gen import make_dict_structure_fn, override

from moxtls.authentication.dkim.sign import Algorithm
from moxtls.config.addresses import isNumeric
from moxtls.config.check import Inconsistency, inconsistencies
from moxtls.config.types import (
    TABLES,
    Config,
    Families,
    ListenerTLS,
    Purpose,
    RelayTLS,
    Service,
)
from moxtls.dmarc.aggregate import ReportFormat
from moxtls.dmarc.types import DMARCPolicy
from moxtls.domain import Domain, InvalidDomain

#: The maximum number of bytes, seconds or connections: more is a mistake.
MAX_INTEGER = 2**31 - 1
#: The maximum size on disk in bytes: JSON and SQL represent it exactly.
MAX_SIZE = 2**53 - 1

_CHOICES = (
    Service,
    ListenerTLS,
    RelayTLS,
    Algorithm,
    Purpose,
    Families,
    DMARCPolicy,
    ReportFormat,
)
_KEYS = {each.name: each.metadata["key"] for table in TABLES for each in fields(table)}
_ARRAYS = {
    each.metadata["key"]
    for table in TABLES
    for each in fields(table)
    if get_origin(get_type_hints(table)[each.name]) is tuple
}

#: Values quoted in an error are cut to this length: it is one line.
MAX_QUOTED = 60


class _Unsuitable(ValueError):
    """
    A value of the wrong type or out of range. The message describes correct values.
    """


def parse(text: str, file: str) -> Config:
    """
    Parse and check a configuration.

    @param file: The name of the text in error messages.

    @raise InvalidConfig: All errors in it.
    """
    config, faults = read(text, file)
    wrong = joinedErrors(faults)
    if wrong is not None:
        raise wrong
    assert config is not None
    return config


def read(text: str, file: str) -> tuple[Config | None, tuple[InvalidConfig, ...]]:
    """
    Parse as much as possible, so that all errors are found at once.

    @param file: The name of the text in error messages.

    @return: The configuration without the unreadable keys, or C{None} if they are
        required; and all errors.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, (InvalidConfig(file, "", "", "", f"not TOML: {error}"),)
    except RecursionError:
        return None, (InvalidConfig(file, "", "", "", "nested too deeply"),)
    faults: list[InvalidConfig] = []
    try:
        config = _converter().structure(raw, Config)
    except cattrs.BaseValidationError as error:
        found = list(_faults(error))
        faults += [_described(*each, raw, file) for each in _withoutMisspelt(found)]
        for _, steps in found:
            _remove(raw, steps)
        try:
            config = _converter().structure(raw, Config)
        except cattrs.BaseValidationError:
            return None, tuple(faults)
    wrong = (*_twice("Domains", raw), *inconsistencies(config))
    faults += [
        InvalidConfig(file, table, key, quoted(value), expected)
        for table, key, value, expected in wrong
    ]
    return config, tuple(faults)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind, hook in _HOOKS.items():
        converter.register_structure_hook(kind, hook)
    for choices in _CHOICES:
        converter.register_structure_hook(choices, _choice)
    for table in TABLES:
        names = {each.name: _named(each) for each in fields(table)}
        converter.register_structure_hook(
            table,
            make_dict_structure_fn(
                table,
                converter,
                _cattrs_forbid_extra_keys=True,
                **names,
            ),
        )
    return converter


def _named(each: Field[Any]) -> Any:
    hook: Callable[[object, Any], object] | None = None
    if each.metadata["isSize"]:
        hook = _size
    elif each.metadata["takesOne"]:
        hook = _oneOrMore
    return override(rename=each.metadata["key"], struct_hook=hook)


def _string(value: object, kind: object) -> str:
    if not isinstance(value, str):
        raise _Unsuitable("expected a string")
    _checkNUL(value)
    return value


def _oneOrMore(value: object, kind: object) -> tuple[str, ...]:
    texts: list[str] = []
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, str):
            raise _Unsuitable("expected a string or an array of strings")
        texts.append(each)
    for text in texts:
        _checkNUL(text)
    return tuple(texts)


def _checkNUL(text: str) -> None:
    """
    Refuse NUL: it ends a path for the operating system, which would name another
    file.
    """
    if "\0" in text:
        raise _Unsuitable("expected text without NUL")


def _integer(value: object, kind: object) -> int:
    return _number(value, MAX_INTEGER)


def _size(value: object, kind: object) -> int:
    return _number(value, MAX_SIZE)


def _number(value: object, largest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Unsuitable("expected an integer")
    if value < 0:
        raise _Unsuitable("expected an integer from 0 up")
    if value > largest:
        raise _Unsuitable(f"expected an integer up to {largest}")
    return value


def _boolean(value: object, kind: object) -> bool:
    if not isinstance(value, bool):
        raise _Unsuitable("expected true or false")
    return value


def _domain(value: object, kind: object) -> Domain:
    # Names of this host and its domains must be acceptable to every peer.
    try:
        domain = Domain.parse(_string(value, kind))
    except InvalidDomain:
        raise _Unsuitable("expected a domain name") from None
    if not domain.isHostName:
        raise _Unsuitable("expected a domain name without underscores")
    if isNumeric(domain):
        raise _Unsuitable("expected a domain name, not an IP address")
    return domain


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


#: An error, with the path of keys and indexes to it.
_Fault = tuple[BaseException, list[Any]]


def _faults(error: BaseException, above: tuple[Any, ...] = ()) -> Iterator[_Fault]:
    path = list(above)
    for note in getattr(error, "__notes__", ()):
        name = getattr(note, "name", None)
        index = getattr(note, "index", None)
        path.append(_KEYS.get(str(name), str(name)) if name else index)
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _faults(each, tuple(path))
    elif isinstance(error, cattrs.ForbiddenExtraKeysError):
        for key in sorted(map(str, error.extra_fields)):
            yield error, [*path, key]
    else:
        yield error, path


def _withoutMisspelt(faults: Iterable[_Fault]) -> Iterator[_Fault]:
    """
    Drop errors about missing keys of which a misspelt form is present.
    """
    faults = list(faults)
    meant = {
        (*steps[:-1], _meant(error, steps[-1]))
        for error, steps in faults
        if isinstance(error, cattrs.ForbiddenExtraKeysError)
    }
    for error, steps in faults:
        if not isinstance(error, KeyError) or tuple(steps) not in meant:
            yield error, steps


def _known(error: cattrs.ForbiddenExtraKeysError) -> list[str]:
    return sorted(each.metadata["key"] for each in fields(error.cl))


def _meant(error: cattrs.ForbiddenExtraKeysError, key: str) -> str:
    """
    The key that C{key} probably is a misspelling of; empty if there is none.
    """
    known = {each.lower(): each for each in _known(error)}
    return known.get(next(iter(get_close_matches(key.lower(), known, 1)), ""), "")


def _remove(raw: Any, steps: list[Any]) -> None:
    """
    Remove the values that can't be parsed; of an array, all of it.
    """
    names = list(takewhile(lambda step: not isinstance(step, int), steps))
    above = _at(raw, names[:-1])
    if isinstance(above, dict) and names:
        above.pop(names[-1], None)


def _twice(table: str, raw: Any) -> Iterator[Inconsistency]:
    """
    Keys of C{table} that are different spellings of one domain.
    """
    seen: dict[Domain, str] = {}
    for text in raw.get(table, {}):
        known = seen.setdefault(Domain.parse(text), text)
        if known != text:
            expected = f'expected each domain once: "{known}" is the same'
            yield table, text, None, expected


def _described(
    error: BaseException, steps: list[Any], raw: object, file: str
) -> InvalidConfig:
    value = _at(raw, steps)
    *above, key = [str(each) for each in steps if not isinstance(each, int)] or [""]
    table = ".".join(above)
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        meant = _meant(error, key)
        probably = f"; {meant} is probably meant" if meant else ""
        expected = f"unknown key{probably}; known here: {', '.join(_known(error))}"
        return InvalidConfig(file, table, key, quoted(value), expected)
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


# Not frozen: Python and Twisted write down tracebacks in exceptions.
@dataclass(eq=False)
class InvalidConfig(Exception):
    """
    The configuration can't be used.

    @ivar table: The table, such as C{Listeners.local}; empty at the top level.
    @ivar key: The key; empty if the table itself is wrong.
    @ivar value: As written, shortened; empty if there is none.
    @ivar expected: A description of correct values.
    @ivar others: Further errors in the same file.
    """

    file: str
    table: str
    key: str
    value: str
    expected: str
    others: tuple[InvalidConfig, ...] = ()

    def __str__(self) -> str:
        return "\n".join(each.line for each in (self, *self.others))

    @property
    def line(self) -> str:
        """
        This error, in one line.
        """
        return f"{self.file}: {self.place}"

    @property
    def place(self) -> str:
        """
        The table, key and error, without the name of the file.
        """
        where = f"[{self.table}]" if self.table else ""
        place = " ".join(filter(None, (where, self.key)))
        place += f" = {self.value}" if self.value else ""
        return f"{place}: {self.expected}" if place else self.expected


def joinedErrors(faults: Iterable[InvalidConfig]) -> InvalidConfig | None:
    """
    Combine C{faults} into one exception, without duplicates; C{None} if there are
    none.
    """
    lines: dict[str, InvalidConfig] = {}
    for fault in faults:
        for each in (fault, *fault.others):
            lines.setdefault(each.line, replace(each, others=()))
    if not lines:
        return None
    first, *others = lines.values()
    return replace(first, others=tuple(others))


def quoted(value: object) -> str:
    """
    A value quoted for an error message: on one line, shortened.
    """
    if value is None:
        return ""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "..."
