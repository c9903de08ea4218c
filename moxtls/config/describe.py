# -*- test-case-name: tests.test_config -*-
"""
Describes every key of the configuration, from its classes. No I/O.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from moxtls.config.types import Config
from moxtls.domain import Domain


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """
    A key or table of the configuration with its documentation.

    @ivar table: Empty at the top level; C{<name>} stands for a name that the operator
        chooses.
    @ivar key: Empty for the table itself.
    """

    table: str
    key: str
    type: str
    default: str
    meaning: str


def describe() -> tuple[KeyDescription, ...]:
    """
    Every table and key, in the order of the file.
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
    meaning, kind = each.metadata["meaning"], _typeName(hint)
    if each.metadata["takesOne"]:
        kind = f"string or {kind}"
    return KeyDescription(table, each.metadata["key"], kind, default, meaning)


def _typeName(hint: Any) -> str:
    names = {str: "string", int: "integer", bool: "boolean", Domain: "domain"}
    if hint in names:
        return names[hint]
    if get_origin(hint) is tuple:
        return f"array of {_typeName(get_args(hint)[0])}"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return "string"
    if get_origin(hint) in (Union, types.UnionType):
        return _typeName(get_args(hint)[0])
    return f"table of {_typeName(get_args(hint)[-1])}"


def _toTOML(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_toTOML(each) for each in value)}]"
    return str(value)
