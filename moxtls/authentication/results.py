# -*- test-case-name: tests.inbound -*-
"""
What checks of a message's origin come to (RFC 8601 2.7).  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from moxtls.domain import Domain


class AuthResult(StrEnum):
    """
    The words of RFC 8601 2.7, for all methods.

    C{TEMPERROR} is for what a later attempt may find out, such as anything
    that failed in the DNS; C{PERMERROR} is for what only the domain's owner
    can mend.
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
    Which identity was checked (RFC 7208 2.3, 2.4), as reports call it.
    """

    HELO = "helo"
    MAIL_FROM = "mfrom"


@dataclass(frozen=True, slots=True)
class SPFResult:
    """
    @ivar domain: What was checked: lower case, A-labels where it could be
        converted.  For C{HELO}, whatever the client said, which may be no
        domain; then C{status} is C{NONE}.
    @ivar mechanism: The term that matched, as published, such as
        C{ip4:192.0.2.0/24}; empty if none did.
    @ivar explanation: The domain's words for a C{FAIL} (RFC 7208 6.2): a
        stranger's, in printable ASCII.
    @ivar problem: What is wrong, for C{TEMPERROR} and C{PERMERROR}.
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
    What one signature came to.

    @ivar domain: C{d=}.
    @ivar selector: C{s=}, A-labels, lower case.
    @ivar problem: Why it isn't C{PASS}.
    @ivar identity: C{i=}, as it stands, or its default.
    @ivar algorithm: C{a=}.
    @ivar signature: The first eight characters of C{b=}, which tell
        signatures of a message apart (RFC 6008).
    @ivar keySize: Bits; 0 if the key isn't known.
    @ivar testing: The key record says C{t=y}.
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


@dataclass(frozen=True, slots=True)
class IPRevResult:
    """
    Whether an address has a name that has that address (RFC 8601 3).

    @ivar name: The name that was confirmed; empty if none was.
    """

    status: AuthResult
    name: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Authentication:
    """
    All that was found out about one message.

    @ivar address: The client's IP address.
    @ivar spf: By MAIL FROM, or, if that was empty, by
        C{postmaster@} HELO (RFC 7208 2.4): scope C{HELO} then.
    @ivar helo: SPF for what the client calls itself.
    @ivar dkim: In the order of the signatures in the message, up to a limit.
    @ivar unreadableDKIM: Problems of signatures of which can't be told whose they
        are: each is a C{PERMERROR} (RFC 8601 2.7.1).
    """

    address: str
    iprev: IPRevResult
    helo: SPFResult
    spf: SPFResult
    dkim: tuple[DKIMResult, ...] = ()
    unreadableDKIM: tuple[str, ...] = ()
