# -*- test-case-name: tests.test_config -*-
"""
Keys of the configuration file, as fields of classes.  No I/O.
"""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any


def setting(
    key: str,
    meaning: str,
    default: Any = MISSING,
    isSize: bool = False,
    takesOne: bool = False,
) -> Any:
    """
    A field of a configuration class.

    @param key: As written in the file.
    @param default: Immutable; without one the key is required.
    @param isSize: Whether it is a number of bytes on a disk.
    @param takesOne: Whether a string may be written in place of an array of one.
    """
    metadata = {
        "key": key,
        "meaning": meaning,
        "isSize": isSize,
        "takesOne": takesOne,
    }
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)
