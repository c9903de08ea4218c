# -*- test-case-name: tests.inbound.test_verifying -*-
"""
What is left to do about the signatures of a message once their keys are there,
for wherever there is time for it: another thread, or another process.  No I/O.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from moxtls.authentication import AuthResult, DKIMResult
from moxtls.domain import Domain
from moxtls.inbound.dkim import DKIMCheck, verify
from moxtls.inbound.dkimsignature import SignatureClaim

Results = tuple[DKIMResult, ...]
_Plain = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class DKIMJob:
    """
    To be called.

    @ivar header: As L{verify} wants it, as all of these.
    """

    header: bytes
    body: Sequence[bytes]
    checks: tuple[DKIMCheck, ...]
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


def verifyAll(verifications: Sequence[DKIMJob]) -> list[Results | Exception]:
    """
    Several messages, one after the other.
    """
    return [_tried(each) for each in verifications]


def _tried(verification: DKIMJob) -> Results | Exception:
    try:
        return verification()
    except Exception as error:
        # The others shall not suffer from it.
        return error


# --- how they are pickled -----------------------------------------------------------
# Each value within that isn't plain takes a call in Python, and those are what takes
# time.

_CHECK = attrgetter(
    "claim.place",
    "claim.domain.ascii",
    "claim.selector",
    "claim.field",
    "records",
    "problem",
)
_RESULT = attrgetter(
    "domain.ascii",
    "selector",
    "status.value",
    "problem",
    "identity",
    "algorithm",
    "signature",
    "keySize",
    "testing",
)


def _reduced(work: DKIMJob) -> tuple[Callable[..., DKIMJob], _Plain]:
    checks = tuple(map(_CHECK, work.checks))
    return _restored, (work.header, work.body, checks, work.now)


def _restored(
    header: bytes, body: Sequence[bytes], checks: tuple[Any, ...], now: float
) -> DKIMJob:
    return DKIMJob(
        header,
        body,
        tuple(
            DKIMCheck(
                SignatureClaim(place, Domain(name), selector, field), records, problem
            )
            for place, name, selector, field, records, problem in checks
        ),
        now,
    )


def _reducedResult(result: DKIMResult) -> tuple[Callable[..., DKIMResult], _Plain]:
    return _restoredResult, _RESULT(result)


def _restoredResult(name: str, selector: str, status: str, *rest: Any) -> DKIMResult:
    return DKIMResult(Domain(name), selector, AuthResult(status), *rest)


copyreg.pickle(DKIMJob, _reduced)
copyreg.pickle(DKIMResult, _reducedResult)
