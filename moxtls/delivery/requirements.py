# -*- test-case-name: tests.delivery.test_requirements -*-
"""
What a message, MTA-STS and DANE together demand of a session with a host.
No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from moxtls.dns.types import TLSA
from moxtls.domain import Domain
from moxtls.mtasts.policy import Mode, STSLookup, STSPolicy, matchesPolicy
from moxtls.smtp.types import TLSMode
from moxtls.tls.dane import TLSALookup

#: So many attempts wait for an MTA-STS record that can't be looked up.  By the
#: default schedule the next one is 22 minutes after the first: longer than name
#: servers take to start again, and than resolvers remember that there was no
#: answer (RFC 2308 7: 5 minutes at most).
MAX_WAITING_ATTEMPTS = 2


class PolicyRefusal(Enum):
    """
    Why a host is not to be used for a message.

    C{TLSA_LOOKUP}: RFC 7672 2.1.2.  C{MX_MISMATCH}: RFC 8461 5.  Both mean
    that the next host is tried.  C{REQUIRETLS}: RFC 8689 4.2.1; if it is so
    for all hosts, the message can't be delivered.
    """

    TLSA_LOOKUP = auto()
    MX_MISMATCH = auto()
    REQUIRETLS = auto()


@dataclass(frozen=True, slots=True)
class MessageRequirements:
    """
    What a message says about TLS.

    @ivar requireTLS: C{True}: REQUIRETLS (RFC 8689 2).  C{False}:
        C{TLS-Required: No} (RFC 8689 3).  C{None}: neither.
    @ivar noFallback: Rather wait than go in plaintext to a host that offers
        TLS: for DMARC reports, which tell about a domain's mail to whoever
        reads along.
    """

    requireTLS: bool | None = None
    noFallback: bool = False


@dataclass(frozen=True, slots=True)
class SessionRequirements:
    """
    The terms of a session with one host.

    @ivar enforcePKIX: Give up if the Web PKI isn't content.
    @ivar dane: The usable TLSA records, one of which has to match; C{None} if
        there are none.
    @ivar ignoreVerifyErrors: Write down what verification finds, and go on.
    @ivar plaintextFallback: If TLS fails, connect once more without.
    @ivar mxMismatch: The host isn't in the MTA-STS policy: to be reported,
        whether or not it is refused for it.
    @ivar refuse: Don't connect at all.
    """

    tlsMode: TLSMode
    enforcePKIX: bool = False
    dane: tuple[TLSA, ...] | None = None
    ignoreVerifyErrors: bool = False
    plaintextFallback: bool = False
    mxMismatch: bool = False
    refuse: PolicyRefusal | None = None


def mustWait(
    lookup: STSLookup, requirements: MessageRequirements, attempt: int
) -> bool:
    """
    Whether a delivery has to wait until it can be said what MTA-STS asks for.

    @param attempt: As of L{moxtls.queue.types.Batch}.
    """
    if not lookup.temporary or requirements.requireTLS is False:
        return False
    # Reading of RFC 8461 3.3, 5.1: a record that is never to be had is no policy,
    # as long as none is remembered; but whoever can keep the DNS from answering
    # for a moment shall not get the mail.  It isn't known whether one is
    # remembered if it is we who couldn't say (no failure), and REQUIRETLS (RFC
    # 8689 4.2.1) is about vouching, which is no better after a while.
    isAboutDNS = lookup.failure is not None
    return (
        requirements.requireTLS is True
        or not isAboutDNS
        or attempt <= MAX_WAITING_ATTEMPTS
    )


def sessionRequirements(
    host: Domain | None,
    policy: STSPolicy | None,
    tlsa: TLSALookup,
    requirements: MessageRequirements,
) -> SessionRequirements:
    """
    @param host: The name in the MX record; the domain itself if there is
        none; C{None} for an address literal.
    @param policy: Of the recipient domain, fresh or cached.
    @param tlsa: About C{host}.
    """
    enforced = policy is not None and policy.mode is Mode.ENFORCE
    mismatch = _mismatches(host, policy)
    lenient = requirements.requireTLS is False
    # RFC 7672 2.2: records that nobody can use still promise TLS.
    encrypted = enforced or bool(tlsa.records)
    return SessionRequirements(
        TLSMode.REQUIRED if encrypted else TLSMode.OPPORTUNISTIC,
        # RFC 8461 4.2 and RFC 7672: a host under both has to satisfy both.
        enforcePKIX=enforced,
        dane=tlsa.usable or None,
        # RFC 8689 3: regardless of the policies of the recipient domain.
        ignoreVerifyErrors=lenient,
        plaintextFallback=lenient
        or not (encrypted or requirements.requireTLS or requirements.noFallback),
        mxMismatch=mismatch,
        refuse=_refusal(tlsa, enforced, mismatch, requirements),
    )


def _mismatches(host: Domain | None, policy: STSPolicy | None) -> bool:
    if policy is None or policy.mode is Mode.NONE:
        return False
    return host is None or not matchesPolicy(policy, host)


def _refusal(
    tlsa: TLSALookup, enforced: bool, mismatch: bool, requirements: MessageRequirements
) -> PolicyRefusal | None:
    if requirements.requireTLS is False:
        return None
    if tlsa.error is not None:
        return PolicyRefusal.TLSA_LOOKUP
    if enforced and mismatch:
        return PolicyRefusal.MX_MISMATCH
    # RFC 8689 4.2.1: authenticated by DANE or under MTA-STS; a policy in
    # testing, or records that nobody can use, authenticate nothing.
    if requirements.requireTLS and not (enforced or tlsa.usable):
        return PolicyRefusal.REQUIRETLS
    return None
