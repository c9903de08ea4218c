# -*- test-case-name: tests.ledger.received.test_store -*-
"""
Received reports as they are stored: limits on what strangers control, keys, and JSON.
No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import IntEnum
from hashlib import blake2b

from moxtls.ledger.bounds import (
    MAX_DETAIL_LENGTH,
    MAX_FAILURES,
    MAX_IP_LENGTH,
    MAX_NAME_LENGTH,
    MAX_REASON,
    clean,
)
from moxtls.ledger.tables import digest
from moxtls.received.types import AcceptedReport, Fields, ParsedReport, ReceivedKind
from moxtls.tlsrpt.parse import ReceivedFailure, ReceivedPolicy

#: Sessions or messages of one row, policy or failure; far more than anyone has, and
#: little enough that no sum overflows 63 bits.
MAX_MESSAGES = 10**12
#: Characters of a type of policy or result; the RFC's have at most 34.
MAX_TYPE_LENGTH = 64
#: Lines and MX hosts of a policy, and characters of a line, that are kept outside of
#: the raw report; RFC 8461's lines are short.
MAX_POLICY_LINES = 200
MAX_POLICY_LINE = 1000
#: Fields of a published policy or failure report.
MAX_FIELDS = 100
#: Characters of the detail of a row, of which the raw report has all.
MAX_ROW_DETAIL = 16_000
#: Different causes of failures per report and policy domain, including those counted
#: without host and address.
MAX_CAUSES = MAX_FAILURES + 200
#: Domains of a report, outside of the tables by domain.
MAX_DOMAINS = 1000
#: Refused reports that are kept, and octets of their raw reports in all, and of each.
MAX_REFUSED = 5000
MAX_REFUSED_OCTETS = 50_000_000
MAX_REFUSED_RAW = 2_000_000
#: Different reasons per listener and hour.
MAX_LISTENER_REASONS = 100
#: Counted in place of further ones.
OTHER_REASONS = "other reasons"
#: Days for which details are kept once.
MONTH = 30


class State(IntEnum):
    """
    The states of stored reports.

    C{INCOMPLETE}: being stored in several steps; neither listed nor counted.
    C{ABANDONED}: the same, to be removed.
    """

    ACCEPTED = 0
    INCOMPLETE = 1
    REFUSED = 2
    ABANDONED = 3


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def identityOf(report: ParsedReport) -> bytes:
    """
    A digest of what copies of a report, and variants of it, have in common.
    """
    return digest(
        report.kind,
        clean(report.organization),
        clean(report.contact),
        clean(report.reportID),
        f"{report.start} {report.end}",
    )


def organizationNumber(name: str) -> int:
    """
    The number of an organization: a digest, so that it needs no look-up.
    """
    return _number(name)


def sourceKey(network: str, authenticated: str, outcome: int) -> int:
    """
    A digest of what sources of mail are distinguished by.
    """
    return _number(f"{outcome}\0{authenticated}\0{network}")


def _number(text: str) -> int:
    """
    A digest as a number of 64 bits.
    """
    octets = blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(octets, signed=True)


def organizationName(report: ParsedReport | None) -> str:
    """
    The name of the reporting organization within the limits.
    """
    return clean(report.organization, MAX_NAME_LENGTH) if report else ""


def monthOf(day: int) -> int:
    """
    The number of the month in which the details of a day's rows are kept.
    """
    return day // MONTH


def boundedCount(count: int) -> int:
    """
    A number of messages or sessions within the limits.
    """
    return min(max(count, 0), MAX_MESSAGES)


def countedPolicies(accepted: AcceptedReport) -> list[tuple[int, str, ReceivedPolicy]]:
    """
    The policies of a TLS report that are counted, with their positions and policy
    domains; those without a domain are not.
    """
    report, domains = accepted.report, accepted.domains
    named = [
        (position, clean(each.domain or report.domainHint, MAX_NAME_LENGTH), each)
        for position, each in enumerate(report.policies)
    ]
    return [
        (position, domain, policy)
        for position, domain, policy in named
        if domain and (domains is None or domain in domains)
    ]


def claimedDomains(report: ParsedReport) -> list[str]:
    """
    The policy domains that a report is about, sorted; at most L{MAX_DOMAINS}.
    """
    domains = {report.domain}
    if report.kind is ReceivedKind.TLS:
        domains = {each.domain or report.domainHint for each in report.policies}
    names = {clean(each, MAX_NAME_LENGTH) for each in domains if each}
    return sorted(names)[:MAX_DOMAINS]


def encodePublished(fields: Fields) -> str:
    """
    Fields within the limits as JSON, in ASCII.
    """
    return _encode(
        [
            (clean(name, MAX_NAME_LENGTH), clean(value, MAX_POLICY_LINE))
            for name, value in fields[:MAX_FIELDS]
        ]
    )


def decodePublished(text: str) -> Fields:
    """
    The inverse of L{encodePublished}.
    """
    return tuple((name, value) for name, value in json.loads(text))


def encodeNames(names: Iterable[str]) -> str:
    """
    Names as JSON, in ASCII.
    """
    return _encode(list(names))


def decodeNames(text: str) -> tuple[str, ...]:
    """
    The inverse of L{encodeNames}.
    """
    return tuple(json.loads(text))


def encodePolicy(policy: ReceivedPolicy) -> str:
    """
    Encode a policy and its failures as JSON in ASCII, within the limits.
    """
    return _encode(
        (
            [
                clean(each, MAX_POLICY_LINE)
                for each in policy.strings[:MAX_POLICY_LINES]
            ],
            [
                clean(each, MAX_NAME_LENGTH)
                for each in policy.mxHosts[:MAX_POLICY_LINES]
            ],
            [
                (
                    clean(each.resultType, MAX_TYPE_LENGTH),
                    boundedCount(each.count),
                    clean(each.reasonCode, MAX_REASON),
                    clean(each.sendingIP, MAX_IP_LENGTH),
                    clean(each.mxHostname, MAX_NAME_LENGTH),
                    clean(each.mxHELO, MAX_NAME_LENGTH),
                    clean(each.receivingIP, MAX_IP_LENGTH),
                    clean(each.additional, MAX_DETAIL_LENGTH),
                )
                for each in policy.failures[:MAX_FAILURES]
            ],
        )
    )


def decodePolicy(
    policyType: str, domain: str, succeeded: int, failed: int, content: str
) -> ReceivedPolicy:
    """
    The inverse of L{encodePolicy}.
    """
    strings, mxHosts, failures = json.loads(content)
    return ReceivedPolicy(
        policyType,
        domain,
        tuple(strings),
        tuple(mxHosts),
        succeeded,
        failed,
        tuple(ReceivedFailure(*each) for each in failures),
    )


#: Policy type, result type, reason code, MX host, receiving IP.
Cause = tuple[str, str, str, str, str]


def addCauses(causes: dict[Cause, int], policy: ReceivedPolicy) -> None:
    """
    Add the failures of a policy to the sessions by cause: beyond the limit without
    host and address, and in the end without anything.
    """
    policyType = clean(policy.type, MAX_TYPE_LENGTH)
    for each in policy.failures:
        resultType = clean(each.resultType, MAX_TYPE_LENGTH)
        cause = (
            policyType,
            resultType,
            clean(each.reasonCode, MAX_REASON),
            clean(each.mxHostname or each.mxHELO, MAX_NAME_LENGTH),
            clean(each.receivingIP, MAX_IP_LENGTH),
        )
        if cause not in causes and len(causes) >= MAX_FAILURES:
            cause = (policyType, resultType, "", "", "")
        if cause not in causes and len(causes) >= MAX_CAUSES:
            cause = ("", "", "", "", "")
        causes[cause] = causes.get(cause, 0) + boundedCount(each.count)
