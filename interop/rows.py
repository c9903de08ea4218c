"""
What reports on mail have to say of what Postfix has sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from interop.correspondents import CORRESPONDENTS, LETTERS, OLD_FORMAT, Letter
from interop.receiving import FITTING
from interop.world import World

#: Who asks for reports.
ASKING = tuple(each for each in CORRESPONDENTS if each.dmarc)


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """
    A record of a report, whoever read it.

    @ivar dkim: Domain, selector and result, sorted; likewise C{spf}: domain,
        scope and result.
    """

    source: str
    headerFrom: str
    envelopeFrom: str
    count: int
    disposition: str
    dkimAligned: str
    spfAligned: str
    dkim: tuple[tuple[str, ...], ...]
    spf: tuple[tuple[str, ...], ...]


def expectedRows(world: World, domain: str) -> list[Row]:
    """
    Of what was sent in the name of a domain, and of those below it.
    """
    counts: Counter[Row] = Counter()
    for each in (*LETTERS, FITTING):
        if each.policy == domain:
            # For each of its recipients something is decided.
            counts[_row(world, each)] += len(each.recipients)
    return sorted(replace(row, count=count) for row, count in counts.items())


def _row(world: World, letter: Letter) -> Row:
    """
    Of a message, without a count.
    """
    fate = letter.fate
    # RFC 7208 2.4: without a sender, it is about the name of the client.
    envelope = letter.envelope.partition("@")[2] or letter.via.host
    return Row(
        world.network.address(letter.via.number),
        letter.author.partition("@")[2],
        envelope,
        0,
        _disposition(letter),
        "pass" if "dkim" in fate.aligned else "fail",
        "pass" if "spf" in fate.aligned else "fail",
        tuple(sorted(_signatures(letter))),
        ((envelope, "mfrom", fate.spf),),
    )


def _signatures(letter: Letter) -> list[tuple[str, ...]]:
    """
    Domain, selector and result of each.
    """
    (signer,) = {domain for domain, _ in letter.fate.dkim} or {""}
    selectors = [each.selectors for each in CORRESPONDENTS if each.domain == signer]
    return [
        (domain, selector, result)
        for names in selectors
        for selector, (domain, result) in zip(names, letter.fate.dkim, strict=True)
    ]


def _disposition(letter: Letter) -> str:
    """
    RFC 9990 tells mail that has passed from mail to which no policy applies;
    RFC 7489 doesn't.
    """
    isNew = letter.policy != OLD_FORMAT.domain
    isEnforced = published(letter.policy)["p"] != "none"
    if isNew and isEnforced and letter.fate.dmarc == "pass":
        return "pass"
    return letter.fate.disposition


def published(domain: str) -> dict[str, str]:
    """
    What the record of a domain has, with defaults.
    """
    (record,) = (each.dmarc for each in ASKING if each.domain == domain)
    tags = dict(tag.strip().split("=") for tag in record.split(";"))
    defaults = {"sp": tags["p"], "adkim": "r", "aspf": "r", "fo": "0"}
    return quoted({**defaults, **tags})


def quoted(policy: Mapping[str, str]) -> dict[str, str]:
    """
    Of a record, what is compared.
    """
    return {name: policy[name] for name in ("p", "sp", "adkim", "aspf", "fo")}
