# -*- test-case-name: tests.dmarc.test_verdict -*-
"""
What is done about a message, on the way from what was asked for.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moxtls.dmarc.values import Override, OverrideKind, Policy

_LEVELS = (Policy.NONE, Policy.QUARANTINE, Policy.REJECT)


@dataclass(frozen=True, slots=True)
class Handling:
    """
    What is to be done so far, and why that isn't what was asked for.

    @ivar isOurs: It comes from a local policy.
    """

    disposition: Policy
    reasons: tuple[Override, ...] = ()
    isOurs: bool = False

    def instead(
        self, disposition: Policy, kind: OverrideKind, comment: str
    ) -> Handling:
        reasons = (*self.reasons, Override(kind, comment))
        return replace(self, disposition=disposition, reasons=reasons)

    def atMost(self, most: Policy, kind: OverrideKind, comment: str) -> Handling:
        """
        The same, if it isn't more than C{most}.
        """
        if _LEVELS.index(self.disposition) <= _LEVELS.index(most):
            return self
        return self.instead(most, kind, comment)

    def lowered(self, kind: OverrideKind, comment: str) -> Handling:
        """
        One level less.
        """
        lower = max(_LEVELS.index(self.disposition) - 1, 0)
        return self.atMost(_LEVELS[lower], kind, comment)
