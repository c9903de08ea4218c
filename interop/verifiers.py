"""
Runs other verifiers of SPF, DKIM and DMARC on messages, and parses the
Authentication-Results of moxtls.
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
    The results of other verifiers for a message.

    @ivar spf: By Mail::SPF.
    @ivar dkim: By Mail::DKIM: domain and result of each signature, from the top.
    @ivar dmarc: By Mail::DMARC from these: C{result}, C{disposition}, C{dkim},
        C{spf}.
    @ivar said: The Authentication-Results of moxtls, parsed by
        Mail::AuthenticationResults; empty without the field.
    @ivar sayer: The authserv-id of that field.
    """

    spf: str
    dkim: tuple[tuple[str, str], ...]
    dmarc: Mapping[str, str]
    said: Results
    sayer: str


class Verifiers:
    """
    Mail::SPF, Mail::DKIM, Mail::DMARC and Mail::AuthenticationResults.
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
        Verify messages.

        @param messages: As they arrived.
        @param addresses: The clients' IP addresses.
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
    The topmost field, empty if there is none; it may contain UTF-8 (RFC 6532).
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
