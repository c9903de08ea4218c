"""
Samples of TLS outcomes.
"""

from __future__ import annotations

from collections import Counter

from moxtls.domain import Domain
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    SessionOutcome,
    TLSPolicy,
)

#: Something that a stranger's host calls itself, to upset a terminal.
ESCAPE = "mx\x1b[2J\x07.example"

EXPIRED = FailureDetail(
    ResultType.CERTIFICATE_EXPIRED, "X509_V_ERR_CERT_HAS_EXPIRED", mxHELO=ESCAPE
)


def broken(domain: str, host: str = "") -> SessionOutcome:
    """
    An outcome of one failed and one successful session, both with an enforced policy.
    """
    name = Domain(domain)
    policy = TLSPolicy(PolicyType.STS, name, ("version: STSv1",), (f"mx.{domain}",))
    tally = PolicyTally(policy, 1, 1, Counter({EXPIRED: 1}))
    hosts: tuple[PolicyTally, ...] = ()
    if host:
        none = TLSPolicy(PolicyType.NO_POLICY, Domain(host))
        hosts = (PolicyTally(none, 1, 1, Counter({EXPIRED: 1})),)
    return SessionOutcome(name, tally, hosts)
