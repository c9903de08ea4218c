# -*- test-case-name: tests.inbound.test_spf -*-
"""
SPF: may this client send in that domain's name (RFC 7208)?  No I/O.

This is our own since libraries for it wait for each look-up in the DNS, and
everybody else with them; and it's as much faster as C{bench/spf.py} says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moxtls.authentication import AuthResult, SPFResult, SPFScope
from moxtls.dns.inquiry import LookupGenerator
from moxtls.domain import MAX_NAME, Domain, InvalidDomain
from moxtls.inbound.spfcheck import SPFCheck, SPFOutcome
from moxtls.inbound.spfclient import SPFClient
from moxtls.inbound.spflookups import EvaluationStopped
from moxtls.inbound.spfmacro import printable
from moxtls.ipaddresses import parseIP

#: RFC 7208 2.4, 4.3: who it is where nobody is named.
POSTMASTER = "postmaster"
#: Of what is said about what is wrong: for a log, and a line on a page.
MAX_PROBLEM_LENGTH = 300

# RFC 7208 4.3: of more than one label.  Addresses are none, so the last has
# something that is no digit; there are hosts with underscores.
_DOMAIN = re.compile(
    r"(?:[a-z0-9_-]{1,63}\.)+(?![0-9]+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
)


@dataclass(frozen=True, slots=True)
class SPFRequest:
    """
    The arguments of RFC 7208 4.1.

    @ivar ip: The client's address.
    @ivar helo: What the client calls itself, as it said it.
    @ivar sender: C{local@domain}; where the scope is C{HELO}, it is
        C{postmaster} at C{helo}.
    @ivar receiver: The name of this host, for explanations.
    @ivar now: Unix seconds, for explanations.
    """

    ip: str
    scope: SPFScope
    helo: str
    sender: str
    receiver: str
    now: float = 0


def helloRequest(ip: str, helo: str, receiver: str, now: float = 0) -> SPFRequest:
    """
    Whether the client may call itself C{helo} (RFC 7208 2.3).
    """
    sender = f"{POSTMASTER}@{helo}"
    return SPFRequest(ip, SPFScope.HELO, helo, sender, receiver, now)


def mailFromRequest(
    ip: str, helo: str, sender: str, receiver: str, now: float = 0
) -> SPFRequest:
    """
    Whether the client may use C{sender} (RFC 7208 2.4).

    @param sender: The reverse-path without angle brackets; empty for the null
        reverse-path, which is about C{helo} then.
    """
    if not sender:
        return helloRequest(ip, helo, receiver, now)
    return SPFRequest(ip, SPFScope.MAIL_FROM, helo, sender, receiver, now)


def checkHost(request: SPFRequest) -> LookupGenerator[SPFResult]:
    """
    C{check_host()} of RFC 7208 4, for any request.

    RFC 7208 4.6.4 wants it to end after some time: who asks the questions has
    to see to that.
    """
    localPart, domain = _identity(request)
    ip = parseIP(request.ip)
    if ip is None or len(domain) > MAX_NAME or not _DOMAIN.match(domain):
        problem = "not a domain name" if ip else "not an IP address"
        return SPFResult(request.scope, domain, AuthResult.NONE, problem=problem)
    client = SPFClient(
        ip, localPart, domain, _asciiName(request.helo), request.receiver, request.now
    )
    check = SPFCheck(client)
    try:
        outcome = yield from check.evaluate(domain)
        words = yield from check.explain(outcome)
    except EvaluationStopped as stop:
        problem = printable(stop.problem, MAX_PROBLEM_LENGTH)
        return SPFResult(request.scope, domain, stop.status, problem=problem)
    return _result(request.scope, domain, outcome, words)


def _result(scope: SPFScope, domain: str, outcome: SPFOutcome, words: str) -> SPFResult:
    mechanism = printable(outcome.mechanism, MAX_PROBLEM_LENGTH)
    return SPFResult(scope, domain, outcome.status, mechanism, words)


def _identity(request: SPFRequest) -> tuple[str, str]:
    if request.scope is SPFScope.HELO:
        # There may be an "@" in what a client calls itself.
        return POSTMASTER, _asciiName(request.helo)
    localPart, _, domain = request.sender.rpartition("@")
    return localPart or POSTMASTER, _asciiName(domain)


def _asciiName(text: str) -> str:
    """
    In lower case, and as A-labels if it can be (RFC 8616 4).
    """
    name = text.removesuffix(".").lower()
    if name.isascii() or len(name) > MAX_NAME:
        return name
    try:
        return Domain.parse(name).ascii
    except InvalidDomain:
        return name
