# -*- test-case-name: tests.outbound.test_tlsa -*-
"""
Asks the DNS for the TLSA records of a host (RFC 7672 2.2).
"""

from __future__ import annotations

from moxtls.dns.answers import Answer, RRType
from moxtls.domain import Domain
from moxtls.interfaces import IResolver
from moxtls.outbound.candidates import (
    HostAddresses,
    NextHop,
    baseDomains,
    isDANECandidate,
    referenceNames,
)
from moxtls.policy.dane import TLSAFinding, TLSALookupError, usableRecords

SMTP_PORT = 25


async def findTLSA(
    resolver: IResolver, hop: NextHop, found: HostAddresses, port: int = SMTP_PORT
) -> TLSAFinding:
    """
    What DANE asks of connections to a host of C{hop}.

    @param found: The addresses of the host, looked up before.
    @param port: To which the connections will go.
    """
    host = found.host
    if not isinstance(host, Domain):
        return TLSAFinding(None)
    if not resolver.validating or not isDANECandidate(hop, found):
        return TLSAFinding(host, (host,))
    for base in baseDomains(found):
        answer = await resolver.lookup(f"_{port}._tcp.{base}", RRType.TLSA)
        names = referenceNames(hop, host, base)
        if answer.failed:
            # RFC 7672 2.1.2: the other candidate is no way out: whoever can
            # make a lookup fail could choose between the two.
            return TLSAFinding(base, names, trouble=_trouble(answer))
        # RFC 7672 2.2.3: insecure records, also behind a secure CNAME, are
        # none; the next candidate is tried.
        if answer.authentic and answer.tlsa:
            return TLSAFinding(base, names, answer.tlsa, usableRecords(answer.tlsa))
    # The other reference names are DANE's alone: without it, RFC 8461 4.2 has
    # the certificate be for the host.
    return TLSAFinding(host, (host,))


def _trouble(answer: Answer) -> TLSALookupError:
    error = answer.dnssecError or next(iter(answer.errors), None)
    return TLSALookupError(answer.name, error, answer.reason)
