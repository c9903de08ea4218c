# -*- test-case-name: tests.lab.test_scenario -*-
"""
The reports that must arrive in the lab, field by field. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from moxtls.dmarc.parse import (
    ReceivedReason,
    ReceivedRecord,
    ReceivedSignature,
    ReceivedSPF,
)
from moxtls.lab.keys import ED25519_SELECTOR, RSA_SELECTOR
from moxtls.lab.messages import LabMessage
from moxtls.lab.plan import Network, mailHosts, policyHosts, policyText
from moxtls.lab.scenario import (
    SENDER,
    SHARED_HOST,
    TLD,
    ExpectedFailure,
    ExpectedPolicy,
    LabDestination,
)
from moxtls.lab.senders import BY_NAME, Published, Sender, addressOf
from moxtls.tlsrpt.parse import ReceivedFailure, ReceivedPolicy
from moxtls.tlsrpt.types import PolicyType

#: The source address that Linux chooses for connections within 127.0.0.0/8.
SENDING_IP = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Facts:
    """
    Values in reports that depend on the run.

    @ivar tlsa: As L{moxtls.lab.plan.Publication.tlsa}.
    """

    network: Network
    destinations: tuple[LabDestination, ...]
    tlsa: Mapping[str, tuple[str, ...]]


Policies = tuple[ReceivedPolicy, ...]


def expectedReports(facts: Facts) -> dict[str, Policies]:
    """
    The policies in the report for each policy domain, in the order of L{inOrder}.

    Each recipient domain gets a report, and so does the host that has a TLSRPT record
    of its own.
    """
    reports = {
        each.domain: inOrder(_aboutDomain(facts, each)) for each in facts.destinations
    }
    shared = [each for each in facts.destinations if each.sharedHost == SHARED_HOST]
    if shared:
        reports[SHARED_HOST] = inOrder([_aboutHost(facts, each) for each in shared])
    return reports


def inOrder(policies: Sequence[ReceivedPolicy]) -> Policies:
    """
    Sort into a canonical order: the order within a report has no meaning.
    """
    sorted_ = [
        replace(each, failures=tuple(sorted(each.failures, key=repr)))
        for each in policies
    ]
    return tuple(
        sorted(sorted_, key=lambda each: (each.domain, each.type, each.strings))
    )


def _aboutDomain(facts: Facts, destination: LabDestination) -> list[ReceivedPolicy]:
    policies = [_policy(facts, destination, destination.recipient, destination.domain)]
    if destination.host is not None:
        policies.append(_policy(facts, destination, destination.host, destination.mx))
    return policies


def _aboutHost(facts: Facts, destination: LabDestination) -> ReceivedPolicy:
    """
    The report to the operator of a host names the affected recipient domains.
    """
    assert destination.host is not None
    policy = _policy(facts, destination, destination.host, destination.domain)
    return replace(policy, mxHosts=(destination.mx,))


def _policy(
    facts: Facts, destination: LabDestination, expected: ExpectedPolicy, domain: str
) -> ReceivedPolicy:
    text = policyText(destination)
    strings: tuple[str, ...] = ()
    mxHosts: tuple[str, ...] = ()
    if expected.type is PolicyType.STS and text and not expected.empty:
        strings = tuple(text.decode("ascii").splitlines())
        mxHosts = policyHosts(destination)
    if expected.type is PolicyType.TLSA and not expected.empty:
        strings = tuple(sorted(facts.tlsa[destination.mx]))
    failures = [_failure(facts, destination, each) for each in expected.failures]
    return ReceivedPolicy(
        type=str(expected.type),
        domain=domain,
        strings=strings,
        mxHosts=mxHosts,
        succeeded=expected.succeeded,
        failed=expected.failed,
        failures=tuple(failures),
    )


def _failure(
    facts: Facts, destination: LabDestination, expected: ExpectedFailure
) -> ReceivedFailure:
    host = destination.mx
    addresses = {
        each.name: each.address for each in mailHosts(facts.network, facts.destinations)
    }
    session = expected.inSession
    return ReceivedFailure(
        resultType=str(expected.type),
        count=expected.sessions,
        reasonCode=expected.reason,
        sendingIP=SENDING_IP if session else "",
        mxHostname=host if expected.namesHost else "",
        mxHELO=host if session else "",
        receivingIP=addresses[host] if session else "",
    )


#: What is said of a signature over a message that a list has changed.
BROKEN = "the body was changed"


@dataclass(frozen=True, slots=True)
class ExpectedAggregate:
    """
    An aggregate report that must arrive.

    @ivar domain: The policy domain.
    @ivar recipient: The address of the report.
    @ivar hours: The length of its period.
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
ExpectedAggregates = dict[tuple[str, str], ExpectedAggregate]


def expectedAggregates(
    network: Network, labMessages: Sequence[LabMessage]
) -> ExpectedAggregates:
    """
    The reports that must arrive after each of C{labMessages} was received once.
    """
    owed: ExpectedAggregates = {}
    for name in dict.fromkeys(each.expected.policy for each in labMessages):
        sender = BY_NAME.get(name)
        if sender is None or sender.published is None:
            continue
        about = [each for each in labMessages if each.expected.policy == name]
        records = counted(_record(network, each) for each in about)
        published = quoted(sender.published)
        for recipient in sender.told:
            owed[sender.domain, recipient] = ExpectedAggregate(
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
    C{policy_published} (RFC 9990 3.1.1.5), without the domain.
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
    Merge equal records, with their number.
    """
    return tuple(
        record._replace(count=count) for record, count in Counter(records).items()
    )


def _record(network: Network, labMessage: LabMessage) -> ReceivedRecord:
    expected, client = labMessage.expected, BY_NAME[labMessage.client]
    checked = labMessage.envelope or client.host
    return ReceivedRecord(
        sourceIP=addressOf(network, client),
        count=1,
        disposition=expected.reported,
        dkimAligned=_word("dkim" in expected.aligned),
        spfAligned=_word("spf" in expected.aligned),
        reasons=tuple(ReceivedReason(*each) for each in expected.reasons),
        headerFrom=labMessage.author,
        envelopeFrom=labMessage.envelope,
        envelopeTo=SENDER,
        dkim=_signatures(labMessage),
        spf=(ReceivedSPF(checked, "mfrom", expected.spf),),
    )


def _signatures(labMessage: LabMessage) -> tuple[ReceivedSignature, ...]:
    """
    All signatures, in the order of RFC 9990 3.1.3.
    """
    selectors = {
        domain: iter(_selectors(BY_NAME[domain.removesuffix(f".{TLD}")]))
        for domain, _ in labMessage.expected.dkim
    }
    found = [
        ReceivedSignature(
            domain, next(selectors[domain]), result, "" if result == "pass" else BROKEN
        )
        for domain, result in labMessage.expected.dkim
    ]
    policy = BY_NAME[labMessage.expected.policy].domain
    return tuple(sorted(found, key=lambda each: _rank(each, labMessage.author, policy)))


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
