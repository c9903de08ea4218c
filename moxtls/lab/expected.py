# -*- test-case-name: tests.lab.test_scenario -*-
"""
What the reports on one message to each destination have to say, field by
field.  No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moxtls.lab.conditions import ExpectedFailure, ExpectedPolicy, LabDestination
from moxtls.lab.network import Network
from moxtls.lab.plan import mailHosts, policyHosts, policyText
from moxtls.lab.scenario import SHARED_HOST
from moxtls.tlsrpt.received import ReceivedFailure, ReceivedPolicy
from moxtls.tlsrpt.results import PolicyType

#: The source address that Linux chooses for connections within 127.0.0.0/8.
SENDING_IP = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What turns up in reports and depends on the run.

    @ivar tlsa: As L{moxtls.lab.plan.Publication.tlsa}.
    """

    network: Network
    destinations: tuple[LabDestination, ...]
    tlsa: Mapping[str, tuple[str, ...]]


Policies = tuple[ReceivedPolicy, ...]


def expectedReports(facts: Facts) -> dict[str, Policies]:
    """
    The policies in the report for each policy domain, in the order of
    L{inOrder}.

    Each recipient domain gets a report, and so does the host that has a
    TLSRPT record of its own.
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
    In an order of our own: that within a report has no meaning.
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
    The operator of a host is told which recipient domains are affected.
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
