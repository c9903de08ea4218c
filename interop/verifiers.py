"""
What others make of messages: SPF, DKIM and DMARC, and the field in which
moxtls says what it has made of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path
from typing import Any

from interop.domains import SampleMessage
from interop.processes import output
from interop.tlsreports import Tools

PROGRAM = Path(__file__).parent / "verify.pl"
#: All of the lab's domains are registered right below their top level.
CONFIG = """\
[dns]
timeout = 5
public_suffix_list = {suffixes}
[smtp]
whitelist =
[report_store]
auto_save = 0
"""
FIELD = "Authentication-Results"

#: By method, each result with its properties.
Results = Mapping[str, Sequence[tuple[str, Mapping[str, str]]]]


@dataclass(frozen=True, slots=True)
class VerifierResults:
    """
    @ivar spf: By Mail::SPF.
    @ivar dkim: By Mail::DKIM, of each signature from the top: domain and
        result.
    @ivar dmarc: By Mail::DMARC from these: C{result}, C{disposition}, C{dkim},
        C{spf}.
    @ivar said: What moxtls says in the message, by
        Mail::AuthenticationResults; nothing if it isn't from there.
    @ivar sayer: Whose name is on that.
    """

    spf: str
    dkim: tuple[tuple[str, str], ...]
    dmarc: Mapping[str, str]
    said: Results
    sayer: str


class Verifiers:
    """
    Has others look at messages.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        suffixes, self._config = tools.folder / "suffixes", tools.folder / "dmarc.ini"
        suffixes.write_text("test\n")
        self._config.write_text(CONFIG.format(suffixes=suffixes))

    def results(
        self,
        messages: Mapping[SampleMessage, bytes],
        addresses: Mapping[SampleMessage, str],
    ) -> dict[SampleMessage, VerifierResults]:
        """
        @param messages: As they arrived.
        @param addresses: Where from.

        @raise InteropError: One of the programs fails.
        """
        signatures = {
            sample: self._tools.signatures(message)
            for sample, message in messages.items()
        }
        asked = [
            {
                "ip": addresses[sample],
                "helo": sample.via.host,
                "sender": sample.envelope,
                "author": sample.author.partition("@")[2],
                "dkim": [
                    {"domain": domain, "selector": "any", "result": result}
                    for _, domain, result in signatures[sample]
                ],
                "field": _field(message),
            }
            for sample, message in messages.items()
        ]
        command: list[str | Path] = [
            PROGRAM,
            *map(str, self._tools.resolver),
            self._config,
        ]
        found = json.loads(output(command, json.dumps(asked).encode()))
        return {
            sample: _results(each, signatures[sample])
            for sample, each in zip(messages, found, strict=True)
        }


def _field(message: bytes) -> str:
    """
    The topmost of them, empty if there is none; there may be UTF-8 in it (RFC
    6532).
    """
    value = message_from_string(message.decode("utf-8"))[FIELD]
    return f"{FIELD}: {value}" if value else ""


def _results(
    found: dict[str, Any], signatures: list[tuple[str, ...]]
) -> VerifierResults:
    said: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    field = found["field"] or {"id": "", "results": []}
    for each in field["results"]:
        said.setdefault(each["method"], []).append((each["result"], each["properties"]))
    dkim = tuple((domain, result) for _, domain, result in signatures)
    return VerifierResults(found["spf"], dkim, found["dmarc"], said, field["id"])
