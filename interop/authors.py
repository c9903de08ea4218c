"""
Differential test of the From field: the authors that moxtls finds in generated
fields, and those that mail programs find.

A field that moxtls can read must show each recipient an author of whom DMARC was
asked: every domain that a program finds has to be one that moxtls found.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email import message_from_bytes, policy
from email.utils import getaddresses, parseaddr
from itertools import islice
from pathlib import Path
from typing import Any

from interop.checks import Checks
from interop.processes import output
from moxtls.domain import Domain, InvalidDomain, parseHost
from moxtls.message.addresses import FromField, authorDomains
from moxtls.message.header import splitHeader

PROGRAM = Path(__file__).with_suffix(".mjs")
#: Generated fields in a run, the same ones in each.
FIELDS = 30_000
HEADERS = 5000
SEED = 1
#: Fields that one process reads, well within the time that it may take.
AT_A_TIME = 1000
#: Fields in which programs differ that are shrunk and printed.
MAX_SHOWN = 5
#: More than a generated field can be shrunk.
MAX_STEPS = 100

#: Names and addresses that a program finds.
FoundAuthors = Sequence[tuple[str, str]]

#: Fields that senders write, all by an author of a.example; some are wrong.
REGULAR = (
    "x@a.example",
    "<x@a.example>",
    "X Y <x@a.example>",
    "X.Y. <x@a.example>",
    "X, Y <x@a.example>",
    "X; Y <x@a.example>",
    '"Y, X" <x@a.example>',
    '"X \\"Y\\" Z" <x@a.example>',
    'X "Y" Z <x@a.example>',
    '"X "Y" Z" <x@a.example>',
    "X (Y) <x@a.example>",
    "X (Y (Z)) <x@a.example>",
    "x@a.example (X Y)",
    "X <x@a.example> (Y)",
    "[X] Y (Z) <x@a.example>",
    "X: Y <x@a.example>",
    "X\\Y <x@a.example>",
    "X :) <x@a.example>",
    "X < x@a.example >",
    "X<x@a.example>",
    "X <x@a.example",
    "<<x@a.example>>",
    "X <x@a.example>;",
    "X x@a.example",
    '"X" x@a.example',
    "x@a.example.",
    "x..y.@a.example",
    '"x y"@a.example',
    "X @ Y <x@a.example>",
    "X Y @Z <x@a.example>",
    "x@a.example <x@a.example>",
    "'x@a.example' <x@a.example>",
    '"x@a.example" <x@a.example>',
    '"y@b.example" <x@a.example>',
    "=?utf-8?q?X=2C_Y?= <x@a.example>",
    "=?utf-8?q?X,_Y?= <x@a.example>",
    "=?utf-8?q?X Y?= <x@a.example>",
    "=?utf-8?q?X?=\r\n =?utf-8?b?WQ==?= <x@a.example>",
    '"=?utf-8?q?X?=" <x@a.example>',
    "=?utf-8?q?y=40b.example?= <x@a.example>",
    "X\r\n\t<x@a.example>",
    "\u00dc \u00fc <x@a.example>",
    "G: x@a.example;",
    "G: X <x@a.example>, y@a.example;",
    "<x@a.example>, <y@a.example>",
)

_WORDS = r"""
    < > " ( ) [ ] , ; : @ . \ ' % + _ - = << >> <> "" () .. \" \( \) \\ =? ?=
    a b X a.example b.example x@a.example <x@a.example> x..y@a.example <.x@a.example>
    <x@a.example.> y@b.example <y@b.example> "y@b.example" (y@b.example) @b.example
    [192.0.2.1] [X] G: X:; @c.example,@d.example: mailto: =?utf-8?q? =?utf-8?q?X
    =?utf-8?q?X?= =?utf-8?q?y=40b.example?= =?utf-8?q?=3Cy=40b.example=3E?=
    =?utf-8?q?"y@b.example"?= =?utf-8?b?eUBiLmV4YW1wbGU=?= =?utf-8?b?eUBiLmV4YW1wbGU?=
    =?utf-8?b?eUBiLmV4YW1wbGU =?x?q?y=40b.example?= =?utf-8?q?X,_Y?=
    =?utf-8?q?X,_y=40b.example?= ?=
"""
# The parts of generated fields; those of b.example belong into no field that is taken,
# but in quotes.
_PIECES = (
    *_WORDS.split(),
    *(" ", "\t", "\r\n ", "y @ b.example", "<x @ a.example>", '"x y"@a.example'),
    *("Y <y@a.example>", '"X, Y"', "(X (y) z)", "=?utf-8?q?X Y?="),
    *"\0\x01\x0b\x0c\r\n\x1b\x7f\x85\xa0\u200b\u2028\u202e",
    # Lookalikes of a semicolon, a dot, a comma, angle brackets and @; letters.
    *"\u037e\u3002\uff0e\uff0c\uff1c\uff1e\uff20\ufffd\u00fc",
    "x@a.example.\u0440\u0444",
)
# Lines of a header, in which "~" is a character of these.
_INVISIBLE = "\x01\x0b\x0c\x1c\x1f\x7f\x85\xa0\u200b\u2028\u3000\ufeff \t"
_LINES = (
    *(
        "From: x@a.example",
        "From~: y@b.example",
        "~From: y@b.example",
        "Fr~om: y@b.example",
    ),
    *("~<y@b.example>", "~X <y@b.example>", "~, y@b.example", "~", "~(y", "~X: y"),
    *(" (x)", "\t<x@a.example>", " ,", "X: y", "X", "X: =", ":", "From y@b.example"),
    *("Sender: y@b.example", "Reply-To: y@b.example", "X:From: y@b.example"),
)
_SEPARATORS = (" ", " ", "", "\r\n ", ", ")
# A line end that doesn't fold the field, but ends it.
_UNFOLDED = re.compile(r"\r\n(?![ \t])")
_LINES_END = re.compile(r"(?:[^\r\n]+\r\n)+")
_DOTS = re.compile(r"[.\u3002\uff0e\uff61]")


# --- fields -----------------------------------------------------------------------


def fields(chance: random.Random) -> Iterator[str]:
    """
    Generate fields without end: pieces in any order, words with an address, and
    fields of L{REGULAR} with pieces put in.
    """
    kinds = (_pieces, _words, _mutated)
    while True:
        yield _UNFOLDED.sub("\r\n ", chance.choice(kinds)(chance))


def _pieces(chance: random.Random) -> str:
    return "".join(chance.choices(_PIECES, k=chance.randint(1, 9)))


def _words(chance: random.Random) -> str:
    pieces = chance.choices(_PIECES, k=chance.randint(1, 4))
    pieces.insert(chance.randint(0, len(pieces)), "<x@a.example>")
    return "".join(each + chance.choice(_SEPARATORS) for each in pieces)


def _mutated(chance: random.Random) -> str:
    text = chance.choice(REGULAR)
    for _ in range(chance.randint(1, 3)):
        start = chance.randint(0, len(text))
        end = start + chance.choice((0, 0, 0, 1, 2))
        text = text[:start] + chance.choice(_PIECES) + text[end:]
    return text


def headerOf(field: str) -> str:
    return f"From:{field}\r\n"


def headers(chance: random.Random) -> Iterator[str]:
    """
    Generate headers without end, with a From field among lines that some take for
    another, or for a part of it.
    """
    while True:
        lines = [_line(chance) for _ in range(chance.randint(1, 3))]
        field = chance.choice(("From: x@a.example", "From: X <x@a.example>", "From:"))
        lines.insert(chance.randint(0, len(lines)), field)
        yield "".join(f"{each}\r\n" for each in lines)


def _line(chance: random.Random) -> str:
    return chance.choice(_LINES).replace("~", chance.choice(_INVISIBLE))


# --- authors ----------------------------------------------------------------------


def authorsByMoxtls(header: str) -> set[str] | None:
    """
    The domains that moxtls finds in the From field.

    @return: None if moxtls refuses the message.
    """
    authors = authorDomains(splitHeader(header.encode()))
    if authors.state is not FromField.READ:
        return None
    return {each.ascii for each in authors.domains}


def authorsByEmail(header: str) -> Mapping[str, FoundAuthors]:
    """
    Authors found by each parser of Python's C{email}.
    """
    data = header.encode() + b"\r\n"
    items = message_from_bytes(data).raw_items()
    value = next((value for name, value in items if name.lower() == "from"), "")
    line = _recoded(value).replace("\r\n", "")
    return {
        "getaddresses": getaddresses([line]),
        "parseaddr": [parseaddr(line)],
        "headerregistry": _byHeaderRegistry(data),
    }


def _byHeaderRegistry(data: bytes) -> FoundAuthors:
    message = message_from_bytes(data, policy=policy.default)
    try:
        found = message["from"].addresses
    except Exception:
        # It raises many things, such as AttributeError, for what it can't parse.
        return ()
    # Or it has this in place of an address.
    known = [each for each in found if each.addr_spec != "<>"]
    return [(_recoded(each.display_name), _recoded(each.addr_spec)) for each in known]


def _recoded(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def unknownAuthors(
    header: str, found: Mapping[str, FoundAuthors]
) -> dict[str, FoundAuthors]:
    """
    The programs that show an author unknown to moxtls, if it accepts the message.

    A name that looks like an address counts as one if there is no address.
    """
    known = authorsByMoxtls(header)
    if known is None:
        return {}
    return {
        program: each
        for program, each in found.items()
        if _domains(each) - {"", *known}
    }


def _domains(found: FoundAuthors) -> set[str]:
    shown = (address if "@" in address else name for name, address in found)
    return {_domain(each) for each in shown if "@" in each}


def _domain(address: str) -> str:
    """
    A domain as moxtls spells it; empty where none can have a policy: in address
    literals and without a dot.
    """
    text = address.rpartition("@")[2].strip()
    if not _DOTS.search(text):
        return ""
    try:
        host = parseHost(text.strip("'"))
    except InvalidDomain:
        return text
    return host.ascii if isinstance(host, Domain) else ""


# --- the checks -------------------------------------------------------------------


class MailPrograms:
    """
    Programs that aren't written in Python.

    @ivar packages: The folder of their packages.
    """

    def __init__(self, packages: Path) -> None:
        self._packages = packages

    def differing(
        self, headers: Iterable[str]
    ) -> list[tuple[str, dict[str, FoundAuthors]]]:
        """
        The headers among C{headers} that moxtls accepts and in which any program
        shows an unknown author, with the authors that these programs find.
        """
        taken = [each for each in headers if authorsByMoxtls(each) is not None]
        asked = zip(taken, self._find(taken), strict=True)
        compared = (
            (each, unknownAuthors(each, {**authorsByEmail(each), **found}))
            for each, found in asked
        )
        return [(header, found) for header, found in compared if found]

    def shrunk(self, header: str) -> str:
        """
        The shortest header within C{header} in which programs still differ, by taking
        away characters.
        """
        for _ in range(MAX_STEPS):
            shorter = {
                header[:at] + header[at + size :]
                for size in (8, 4, 2, 1)
                for at in range(len(header) - size + 1)
            }
            whole = (each for each in shorter if _LINES_END.fullmatch(each))
            left = self.differing(sorted(whole))
            if not left:
                break
            header = min((each for each, _ in left), key=len)
        return header

    def _find(self, headers: Sequence[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for start in range(0, len(headers), AT_A_TIME):
            few = headers[start : start + AT_A_TIME]
            lines = "".join(json.dumps(each + "\r\n") + "\n" for each in few)
            said = output(["node", PROGRAM, self._packages.resolve()], lines.encode())
            found += [json.loads(each) for each in said.decode().split("\n") if each]
        return found


def checkAuthors(checks: Checks, packages: Path, seed: int = SEED) -> None:
    """
    Compare the authors of regular, generated and shrunk fields.

    @param seed: Another seed generates other fields.
    """
    programs = MailPrograms(packages)
    regular = [headerOf(each) for each in REGULAR]
    checks.same(
        "regular From fields are accepted",
        {
            each: authorsByMoxtls(each)
            for each in regular
            if authorsByMoxtls(each) != {"a.example"}
        },
        {},
    )
    checks.same(
        "mail programs find the same authors in regular fields",
        programs.differing(regular),
        [],
    )
    chance = random.Random(seed)
    fromFields = [headerOf(each) for each in islice(fields(chance), FIELDS)]
    fromHeaders = list(islice(headers(chance), HEADERS))
    for what, generated in (("fields", fromFields), ("headers", fromHeaders)):
        distinct = list(dict.fromkeys(generated))
        found = programs.differing(distinct)
        shortest = {programs.shrunk(each) for each, _ in found[:MAX_SHOWN]}
        name = f"no program shows another author: {len(distinct)} {what} of seed {seed}"
        checks.same(name, programs.differing(sorted(shortest)), [])
        taken = sum(authorsByMoxtls(each) is not None for each in distinct)
        checks.holds(f"enough {what} are accepted", taken > len(distinct) / 20, taken)
