# -*- test-case-name: tests.authentication.test_iprev -*-
"""
Checks that the client's address has a name with that address: C{iprev} (RFC 8601 3).
No I/O.
"""

from __future__ import annotations

from moxtls.authentication.results import AuthResult, IPRevResult
from moxtls.authentication.spf.evaluate import lookUp
from moxtls.authentication.spf.record import printable
from moxtls.dns.query import LookupGenerator
from moxtls.dns.types import Answer, RRType
from moxtls.domain import MAX_DOMAIN_LENGTH
from moxtls.ipaddresses import parseIP

#: RFC 8601 3 asks for a limit, as the owner of an address can publish any number of
#: names; hosts have one, or a few.
MAX_PTR_NAMES = 5

_MAX_PROBLEM_LENGTH = 300


def checkIPRev(ip: str) -> LookupGenerator[IPRevResult]:
    """
    RFC 8601 2.7.3, 3.

    @param ip: An IPv4 address mapped into IPv6 is taken as IPv4.
    """
    address = parseIP(ip)
    if address is None:
        return _failed(AuthResult.PERMERROR, "not an IP address")
    found = yield from lookUp((address.reverse_pointer,), RRType.PTR)
    for each in found:
        if each.failed:
            return _lookupFailed(each)
    names = [name for each in found for name in each.names][:MAX_PTR_NAMES]
    if not names:
        return _failed(AuthResult.PERMERROR, f"{address} has no name")
    kind = RRType.A if address.version == 4 else RRType.AAAA
    answers = yield from lookUp(names, kind)
    for each in answers:
        if address in map(parseIP, each.addresses):
            return IPRevResult(AuthResult.PASS, each.name)
    for each in answers:
        if each.failed:
            return _lookupFailed(each)
    shown = ", ".join(printable(name, MAX_DOMAIN_LENGTH) for name in names)
    return _failed(AuthResult.FAIL, f"{address} is not an address of {shown}")


def _lookupFailed(answer: Answer) -> IPRevResult:
    question = f"{answer.kind} at {answer.name}"
    return _failed(
        AuthResult.TEMPERROR, f"lookup of {question} failed: {answer.reason}"
    )


def _failed(status: AuthResult, problem: str) -> IPRevResult:
    return IPRevResult(status, problem=printable(problem, _MAX_PROBLEM_LENGTH))
