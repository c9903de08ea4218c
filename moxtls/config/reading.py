# -*- test-case-name: tests.test_config -*-
"""
TOML text to frozen values.  No I/O.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import Field, fields
from enum import StrEnum
from typing import Any, get_origin, get_type_hints

import cattrs
from cattrs.gen import make_dict_structure_fn, override

from moxtls.config.checks import inconsistencies
from moxtls.config.delivery import Families, RelayTLS
from moxtls.config.domains import Purpose
from moxtls.config.errors import InvalidConfig, quoted
from moxtls.config.listeners import ListenerTLS, Service
from moxtls.config.values import TABLES, Config
from moxtls.dmarc.reportxml import ReportFormat
from moxtls.dmarc.values import Policy
from moxtls.domain import Domain, InvalidDomain
from moxtls.reporting.signing import Algorithm

#: Of bytes, seconds or connections: more is a mistake.
LARGEST_INTEGER = 2**31 - 1
#: Of bytes on a disk: what JSON and SQL can tell apart.
LARGEST_SIZE = 2**53 - 1

_CHOICES = (
    Service,
    ListenerTLS,
    RelayTLS,
    Algorithm,
    Purpose,
    Families,
    Policy,
    ReportFormat,
)
_KEYS = {each.name: each.metadata["key"] for table in TABLES for each in fields(table)}
_ARRAYS = {
    each.metadata["key"]
    for table in TABLES
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
    for table, key, value, expected in inconsistencies(config):
        raise InvalidConfig(file, table, key, quoted(value), expected)
    return config


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
    return value


def _oneOrMore(value: object, kind: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in values):
        raise _Unsuitable("expected a string or an array of strings")
    return tuple(values)


def _integer(value: object, kind: object) -> int:
    return _number(value, LARGEST_INTEGER)


def _size(value: object, kind: object) -> int:
    return _number(value, LARGEST_SIZE)


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
    # These are names that we go by: none that only some others put up with.
    try:
        domain = Domain.parse(_string(value, kind))
    except InvalidDomain:
        raise _Unsuitable("expected a domain name") from None
    if not domain.isHostName:
        raise _Unsuitable("expected a domain name without underscores")
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
