# -*- test-case-name: tests.inbound.test_verifying -*-
"""
What is left to do about the signatures of a message once their keys are there,
for wherever there is time for it: another thread, or another process.  No I/O.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moxtls.authentication import AuthResult, DKIMResult
from moxtls.domain import Domain
from moxtls.inbound.dkim import Check, verify
from moxtls.inbound.dkimsignature import Claim

Results = tuple[DKIMResult, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """
    To be called.

    @ivar header: As L{verify} wants it, as all of these.
    """

    header: bytes
    body: Sequence[bytes]
    checks: tuple[Check, ...]
    now: float

    def __call__(self) -> Results:
        return verify(self.header, self.body, self.checks, self.now)

    def without(self, problem: str) -> Results:
        """
        What it comes to if it can't be done.
        """
        return tuple(
            DKIMResult(
                each.claim.domain, each.claim.selector, AuthResult.TEMPERROR, problem
            )
            for each in self.checks
        )


def verifyAll(verifications: Sequence[Verification]) -> list[Results | Exception]:
    """
    Several messages, one after the other.
    """
    return [_tried(each) for each in verifications]


def _tried(verification: Verification) -> Results | Exception:
    try:
        return verification()
    except Exception as error:
        # The others shall not suffer from it.
        return error


def _reduced(value: Any) -> tuple[Callable[..., Any], tuple[object, ...]]:
    return type(value), tuple([getattr(value, each) for each in value.__slots__])


# How these are pickled: in half the time that dataclasses with slots take by
# themselves.
for _each in (Check, Claim, DKIMResult, Domain, Verification):
    copyreg.pickle(_each, _reduced)
