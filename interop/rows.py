"""
The rows expected in aggregate reports on the mail that Postfix sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from interop.domains import OLD_FORMAT, SAMPLES, SENDING_DOMAINS, SampleMessage
from interop.environment import Environment
from interop.reception import FITTING

#: Domains that request reports.
ASKING = tuple(each for each in SENDING_DOMAINS if each.dmarc)


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """
    A record of a report.

    @ivar dkim: Domain, selector and result, sorted; likewise C{spf}: domain, scope
        and result.
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


def expectedRows(environment: Environment, domain: str) -> list[Row]:
    """
    Rows about the mail of a domain and its subdomains.
    """
    counts: Counter[Row] = Counter()
    for each in (*SAMPLES, FITTING):
        if each.policy == domain:
            # For each of its recipients something is decided.
            counts[_row(environment, each)] += len(each.recipients)
    return sorted(replace(row, count=count) for row, count in counts.items())


def _row(environment: Environment, sample: SampleMessage) -> Row:
    """
    The row of one message, without its count.
    """
    expected = sample.expected
    # RFC 7208 2.4: with a null reverse-path, the HELO name is checked.
    envelope = sample.envelope.partition("@")[2] or sample.via.host
    return Row(
        environment.network.address(sample.via.number),
        sample.author.partition("@")[2],
        envelope,
        0,
        _disposition(sample),
        "pass" if "dkim" in expected.aligned else "fail",
        "pass" if "spf" in expected.aligned else "fail",
        tuple(sorted(_signatures(sample))),
        ((envelope, "mfrom", expected.spf),),
    )


def _signatures(sample: SampleMessage) -> list[tuple[str, ...]]:
    """
    Domain, selector and result of each signature.
    """
    (signer,) = {domain for domain, _ in sample.expected.dkim} or {""}
    selectors = [each.selectors for each in SENDING_DOMAINS if each.domain == signer]
    return [
        (domain, selector, result)
        for names in selectors
        for selector, (domain, result) in zip(names, sample.expected.dkim, strict=True)
    ]


def _disposition(sample: SampleMessage) -> str:
    """
    The reported disposition. RFC 9990 distinguishes mail that passed from mail to
    which no policy applies; RFC 7489 doesn't.
    """
    isNew = sample.policy != OLD_FORMAT.domain
    isEnforced = published(sample.policy)["p"] != "none"
    if isNew and isEnforced and sample.expected.dmarc == "pass":
        return "pass"
    return sample.expected.disposition


def published(domain: str) -> dict[str, str]:
    """
    The tags of a domain's record, with defaults.
    """
    (record,) = (each.dmarc for each in ASKING if each.domain == domain)
    tags = dict(tag.strip().split("=") for tag in record.split(";"))
    defaults = {"sp": tags["p"], "adkim": "r", "aspf": "r", "fo": "0"}
    return comparedTags({**defaults, **tags})


def comparedTags(policy: Mapping[str, str]) -> dict[str, str]:
    """
    The tags of a record that are compared.
    """
    return {name: policy[name] for name in ("p", "sp", "adkim", "aspf", "fo")}
