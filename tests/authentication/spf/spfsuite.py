"""
The public test suites for SPF, in YAML.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moxtls.dns.memory import MemoryResolver
from moxtls.dns.types import IP, MX, TXT, NameRecord, Record, RRType
from moxtls.dns.wire import normalName

TIMEOUT = "TIMEOUT"
#: There is no record, even if there is one of the type SPF (RFC 7208 3.1).
NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Case:
    """
    @ivar results: Any of them will do.
    @ivar explanation: Empty if there has to be none, C{None} if it doesn't
        matter.
    """

    name: str
    ip: str
    helo: str
    mailFrom: str
    results: tuple[str, ...]
    explanation: str | None
    zone: MemoryResolver


def cases(path: Path) -> Iterator[Case]:
    """
    All in one file.
    """
    for scenario in yaml.safe_load_all(path.read_text()):
        zone = _zone(scenario["zonedata"])
        for name, test in scenario["tests"].items():
            results = test["result"]
            explanation = test.get("explanation")
            yield Case(
                name,
                test["host"],
                test["helo"],
                test["mailfrom"],
                tuple(results) if isinstance(results, list) else (results,),
                "" if explanation == "DEFAULT" else explanation,
                zone,
            )


def _zone(data: dict[str, list[Any]]) -> MemoryResolver:
    zone = MemoryResolver()
    for name, entries in data.items():
        kinds: dict[str, list[Any]] = {}
        for entry in entries:
            if entry != TIMEOUT:
                for kind, content in entry.items():
                    kinds.setdefault(kind, []).append(content)
        if "SPF" in kinds:
            # In RFC 7208, there is nothing but TXT.
            spf = kinds.pop("SPF")
            kinds.setdefault("TXT", spf)
        if TIMEOUT in entries:
            for each in RRType:
                zone.fail(name, each)
        for kind, contents in kinds.items():
            if contents != [NONE]:
                records = [_record(RRType(kind), each) for each in contents]
                zone.put(name, RRType(kind), *records)
    return zone


def _record(kind: RRType, content: Any) -> Record:
    match kind:
        case RRType.TXT:
            text = content if isinstance(content, str) else "".join(content)
            return TXT(text.encode("latin-1"))
        case RRType.MX:
            return MX(content[0], normalName(content[1]) or "")
        case RRType.A | RRType.AAAA:
            return IP(str(ipaddress.ip_address(content)))
        case _:
            return NameRecord(normalName(content) or "")
