# -*- test-case-name: tests.authentication -*-
"""
Results of message authentication (RFC 8601 2.7).  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from moxtls.domain import Domain


class AuthResult(StrEnum):
    """
    The result codes of RFC 8601 2.7, for all methods.

    C{TEMPERROR}: a later attempt may succeed, as after any failed DNS lookup.
    C{PERMERROR}: only the domain's owner can correct the error.
    """

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    POLICY = "policy"
    NEUTRAL = "neutral"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class SPFScope(StrEnum):
    """
    The identity that was checked (RFC 7208 2.3, 2.4), as in aggregate reports.
    """

    HELO = "helo"
    MAIL_FROM = "mfrom"


@dataclass(frozen=True, slots=True)
class SPFResult:
    """
    @ivar domain: The domain that was checked: lower case, A-labels where it could be
        converted.  For C{HELO}, the name that the client sent, which may be no
        domain; then C{status} is C{NONE}.
    @ivar mechanism: The term that matched, as published, such as C{ip4:192.0.2.0/24};
        empty if none did.
    @ivar explanation: The domain's explanation of a C{FAIL} (RFC 7208 6.2), in
        printable ASCII.
    @ivar problem: The reason of a C{TEMPERROR} or C{PERMERROR}.
    """

    scope: SPFScope
    domain: str
    status: AuthResult
    mechanism: str = ""
    explanation: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DKIMResult:
    """
    The result of one signature.

    @ivar domain: C{d=}.
    @ivar selector: C{s=}, A-labels, lower case.
    @ivar problem: The reason if it isn't C{PASS}.
    @ivar identity: C{i=}, as published, or its default.
    @ivar algorithm: C{a=}.
    @ivar signature: The first eight characters of C{b=}, which identify the signature
        within the message (RFC 6008).
    @ivar keySize: Bits; 0 if the key isn't known.
    @ivar testing: True if the key record has C{t=y}.
    @ivar hasLength: True if the signature has C{l=}.
    @ivar passesForTLSRPT: True if the signature is valid, but its key is for TLS
        reports only (RFC 8460 3), which for other mail is a C{PERMERROR}.
    """

    domain: Domain
    selector: str
    status: AuthResult
    problem: str = ""
    identity: str = ""
    algorithm: str = ""
    signature: str = ""
    keySize: int = 0
    testing: bool = False
    hasLength: bool = False
    passesForTLSRPT: bool = False


@dataclass(frozen=True, slots=True)
class IPRevResult:
    """
    The result of C{iprev} (RFC 8601 3).

    @ivar name: The confirmed name; empty if there is none.
    """

    status: AuthResult
    name: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Authentication:
    """
    The results of all methods for one message.

    @ivar address: The client's IP address.
    @ivar spf: For MAIL FROM or, if that was empty, for C{postmaster@} HELO (RFC 7208
        2.4): the scope is C{HELO} then.
    @ivar helo: SPF for the name in HELO or EHLO.
    @ivar dkim: In the order of the signatures in the message, up to a limit.
    @ivar unreadableDKIM: The problems of signatures without a readable domain or
        selector: each is a C{PERMERROR} (RFC 8601 2.7.1).
    """

    address: str
    iprev: IPRevResult
    helo: SPFResult
    spf: SPFResult
    dkim: tuple[DKIMResult, ...] = ()
    unreadableDKIM: tuple[str, ...] = ()
