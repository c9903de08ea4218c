# -*- test-case-name: tests.delivery.test_requirements -*-
"""
Requirements on the session with a host, from the message, MTA-STS and DANE.
No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from moxtls.dns.types import TLSA
from moxtls.domain import Domain
from moxtls.mtasts.policy import Mode, STSLookup, STSPolicy, matchesPolicy
from moxtls.queue.types import Batch, ReportKind
from moxtls.smtp.types import TLSMode
from moxtls.tls.dane import TLSALookup

#: Attempts that wait for an MTA-STS record that can't be looked up.  With the
#: default retry schedule the next attempt is 22 minutes after the first: longer
#: than a restart of a name server, and than resolvers cache a failure (RFC 2308
#: 7: 5 minutes at most).
MAX_WAITING_ATTEMPTS = 2


class PolicyRefusal(Enum):
    """
    The reason why a policy forbids to use a host for a message.

    C{TLSA_LOOKUP}: RFC 7672 2.1.2.  C{MX_MISMATCH}: RFC 8461 5.  Both make the
    delivery try the next host.  C{REQUIRETLS}: RFC 8689 4.2.1; if it applies to
    all hosts, the message can't be delivered.
    """

    TLSA_LOOKUP = auto()
    MX_MISMATCH = auto()
    REQUIRETLS = auto()


@dataclass(frozen=True, slots=True)
class MessageRequirements:
    """
    The requirements of a message on TLS.

    @ivar requireTLS: C{True}: REQUIRETLS (RFC 8689 2).  C{False}:
        C{TLS-Required: No} (RFC 8689 3).  C{None}: neither.
    @ivar noFallback: Retry later rather than fall back to plaintext with a host
        that offers TLS: for DMARC reports, which disclose details of a domain's
        mail.
    """

    requireTLS: bool | None = None
    noFallback: bool = False


@dataclass(frozen=True, slots=True)
class SessionRequirements:
    """
    The requirements on a session with one host.

    @ivar enforcePKIX: Abort if the Web PKI doesn't verify the certificate.
    @ivar dane: The usable TLSA records, one of which has to match; C{None} if
        there are none.
    @ivar ignoreVerifyErrors: Record verification errors, and continue.
    @ivar plaintextFallback: If TLS fails, connect again without TLS.
    @ivar mxMismatch: The host isn't in the MTA-STS policy: reported, also if the
        host is used all the same.
    @ivar refuse: Why no connection may be made; C{None} if one may.
    """

    tlsMode: TLSMode
    enforcePKIX: bool = False
    dane: tuple[TLSA, ...] | None = None
    ignoreVerifyErrors: bool = False
    plaintextFallback: bool = False
    mxMismatch: bool = False
    refuse: PolicyRefusal | None = None


def messageRequirements(batch: Batch) -> MessageRequirements:
    """
    The requirements that all messages of a batch share.
    """
    requireTLS = batch.requireTLS
    if requireTLS and not any(message.sender for message in batch.messages):
        # RFC 8689 5: a bounce isn't discarded for want of REQUIRETLS; its body
        # was left out when it was made.
        requireTLS = None
    return MessageRequirements(requireTLS, noFallback=batch.report is ReportKind.DMARC)


def mustWait(
    lookup: STSLookup, requirements: MessageRequirements, attempt: int
) -> bool:
    """
    True if a delivery has to wait until the MTA-STS policy can be looked up.

    @param attempt: As of L{moxtls.queue.types.Batch}.
    """
    if not lookup.temporary or requirements.requireTLS is False:
        return False
    # Reading of RFC 8461 3.3, 5.1: a record that can never be looked up is no
    # policy, as long as none is cached; but an attacker who suppresses DNS answers
    # for a moment must not get the mail.  Without a failure the fault is ours, and
    # it is unknown whether a policy is cached.  REQUIRETLS (RFC 8689 4.2.1) needs
    # an authenticated host, however long that takes.
    isDNSFailure = lookup.failure is not None
    return (
        requirements.requireTLS is True
        or not isDNSFailure
        or attempt <= MAX_WAITING_ATTEMPTS
    )


def sessionRequirements(
    host: Domain | None,
    policy: STSPolicy | None,
    tlsa: TLSALookup,
    requirements: MessageRequirements,
) -> SessionRequirements:
    """
    Combine the requirements of a message, MTA-STS and DANE.

    @param host: The name in the MX record; the domain itself without one;
        C{None} for an address literal.
    @param policy: The MTA-STS policy of the recipient domain, fetched or cached.
    @param tlsa: The TLSA records of C{host}.
    """
    enforced = policy is not None and policy.mode is Mode.ENFORCE
    mismatch = _mismatches(host, policy)
    lenient = requirements.requireTLS is False
    # RFC 7672 2.2: unusable records still promise TLS.
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
    # RFC 8689 4.2.1: authenticated by DANE or under MTA-STS; a policy in mode
    # "testing", or unusable records, authenticate nothing.
    if requirements.requireTLS and not (enforced or tlsa.usable):
        return PolicyRefusal.REQUIRETLS
    return None
