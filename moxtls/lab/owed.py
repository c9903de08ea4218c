# -*- test-case-name: tests.lab.test_aggregates -*-
"""
The aggregate reports that are owed once each letter has come in, field by
field.  No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from moxtls.dmarc.received import (
    ReceivedReason,
    ReceivedRecord,
    ReceivedSignature,
    ReceivedSPF,
)
from moxtls.lab.conditions import SENDER, TLD
from moxtls.lab.keys import ED25519_SELECTOR, RSA_SELECTOR
from moxtls.lab.letters import LabMessage
from moxtls.lab.network import Network
from moxtls.lab.senders import BY_NAME, Published, Sender, addressOf

#: What is said of a signature over a message that a list has changed.
BROKEN = "the body was changed"


@dataclass(frozen=True, slots=True)
class OwedReport:
    """
    @ivar domain: The policy domain.
    @ivar recipient: The address that it has to go to.
    @ivar hours: So many of them are in it.
    @ivar published: Names and values, in any order.
    @ivar records: In any order.
    """

    domain: str
    recipient: str
    hours: int
    errors: tuple[str, ...]
    published: tuple[tuple[str, str], ...]
    records: tuple[ReceivedRecord, ...]


#: By policy domain and recipient.
Owed = dict[tuple[str, str], OwedReport]


def owedReports(network: Network, letters: Sequence[LabMessage]) -> Owed:
    """
    What has to arrive once each of C{letters} has come in one time.
    """
    owed: Owed = {}
    for name in dict.fromkeys(each.expected.policy for each in letters):
        sender = BY_NAME.get(name)
        if sender is None or sender.published is None:
            continue
        about = [each for each in letters if each.expected.policy == name]
        records = counted(_record(network, each) for each in about)
        published = quoted(sender.published)
        for recipient in sender.told:
            owed[sender.domain, recipient] = OwedReport(
                sender.domain,
                recipient,
                sender.hours,
                sender.errors,
                published,
                records,
            )
    return owed


def quoted(published: Published) -> tuple[tuple[str, str], ...]:
    """
    C{policy_published} (RFC 9990 3.1.1.5), less the domain.
    """
    return (
        ("discovery_method", "treewalk"),
        ("p", published.p),
        ("sp", published.sp),
        ("np", published.np),
        ("adkim", "r"),
        ("aspf", "r"),
        ("fo", "0"),
        ("testing", published.testing),
    )


def counted(records: Iterable[ReceivedRecord]) -> tuple[ReceivedRecord, ...]:
    """
    Those that are the same once, with their number.
    """
    return tuple(
        replace(record, count=count) for record, count in Counter(records).items()
    )


def _record(network: Network, letter: LabMessage) -> ReceivedRecord:
    expected, client = letter.expected, BY_NAME[letter.client]
    checked = letter.envelope or client.host
    return ReceivedRecord(
        sourceIP=addressOf(network, client),
        count=1,
        disposition=expected.reported,
        dkimAligned=_word("dkim" in expected.aligned),
        spfAligned=_word("spf" in expected.aligned),
        reasons=tuple(ReceivedReason(*each) for each in expected.reasons),
        headerFrom=letter.author,
        envelopeFrom=letter.envelope,
        envelopeTo=SENDER,
        dkim=_signatures(letter),
        spf=(ReceivedSPF(checked, "mfrom", expected.spf),),
    )


def _signatures(letter: LabMessage) -> tuple[ReceivedSignature, ...]:
    """
    All of them, in the order of RFC 9990 3.1.3.
    """
    selectors = {
        domain: iter(_selectors(BY_NAME[domain.removesuffix(f".{TLD}")]))
        for domain, _ in letter.expected.dkim
    }
    found = [
        ReceivedSignature(
            domain, next(selectors[domain]), result, "" if result == "pass" else BROKEN
        )
        for domain, result in letter.expected.dkim
    ]
    policy = BY_NAME[letter.expected.policy].domain
    return tuple(sorted(found, key=lambda each: _rank(each, letter.author, policy)))


def _rank(signature: ReceivedSignature, author: str, policy: str) -> int:
    if signature.result != "pass":
        return 3
    return [author, policy, signature.domain].index(signature.domain)


def _selectors(sender: Sender) -> tuple[str, ...]:
    """
    In the order of signatures, from the top.
    """
    if sender.signsTwice:
        return (ED25519_SELECTOR, RSA_SELECTOR)
    return (ED25519_SELECTOR,)


def _word(passes: bool) -> str:
    return "pass" if passes else "fail"
