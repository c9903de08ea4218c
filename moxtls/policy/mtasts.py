# -*- test-case-name: tests.policy.test_mtasts -*-
"""
MTA-STS records and policies (RFC 8461): their syntax and their meaning.
No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from moxtls.domain import Domain
from moxtls.tlsrpt.results import Failure


class Mode(StrEnum):
    """
    RFC 8461 3.2, 5.
    """

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class STSPolicy:
    """
    RFC 8461 3.2.

    @ivar maxAge: Seconds.
    @ivar mx: Patterns: a host in A-labels and lower case, or C{*.} before
        one.
    @ivar lines: The policy as it was served, line by line, for reports.
    """

    mode: Mode
    maxAge: int
    mx: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CachedPolicy:
    """
    What is remembered about the MTA-STS policy of a domain.

    @ivar policy: C{None} if the last fetch failed and no earlier policy is
        valid: nothing is fetched again before C{validEnd} (back-off).
    @ivar recordID: The C{id} of the TXT record under which it was fetched.
    @ivar fetched: Unix seconds of the last successful check or fetch.
    @ivar validEnd: Unix seconds; C{fetched} and the policy's C{max_age}.
    @ivar lastUse: Unix seconds of the last delivery that asked for it.
    """

    domain: Domain
    policy: STSPolicy | None
    recordID: str
    inserted: float
    fetched: float
    validEnd: float
    lastUse: float


@dataclass(frozen=True, slots=True)
class STSLookup:
    """
    What MTA-STS says about a delivery to C{domain}, now.

    No policy, a broken policy and no way to know differ: the first has
    neither C{policy} nor C{failure}; the second has a C{failure}; the third
    is C{temporary} too.

    @ivar policy: To be applied; from the cache where need be.  A policy of
        mode "none" is given as it is.
    @ivar failure: What went wrong on the way, to be reported, also where a
        cached policy helped out.
    @ivar temporary: Nothing can be said: the domain might have a policy that
        is enforced, so the delivery has to wait (RFC 8461 5.1).
    """

    domain: Domain
    policy: STSPolicy | None = None
    failure: Failure | None = None
    temporary: bool = False
