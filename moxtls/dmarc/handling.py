# -*- test-case-name: tests.dmarc.test_verdict -*-
"""
What is done about a message, on the way from what was asked for.  No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moxtls.dmarc.values import DMARCPolicy, Override, OverrideKind

_LEVELS = (DMARCPolicy.NONE, DMARCPolicy.QUARANTINE, DMARCPolicy.REJECT)


@dataclass(frozen=True, slots=True)
class DispositionBuilder:
    """
    What is to be done so far, and why that isn't what was asked for.

    @ivar isOurs: It comes from a local policy.
    """

    disposition: DMARCPolicy
    reasons: tuple[Override, ...] = ()
    isOurs: bool = False

    def instead(
        self, disposition: DMARCPolicy, kind: OverrideKind, comment: str
    ) -> DispositionBuilder:
        reasons = (*self.reasons, Override(kind, comment))
        return replace(self, disposition=disposition, reasons=reasons)

    def atMost(
        self, most: DMARCPolicy, kind: OverrideKind, comment: str
    ) -> DispositionBuilder:
        """
        The same, if it isn't more than C{most}.
        """
        if _LEVELS.index(self.disposition) <= _LEVELS.index(most):
            return self
        return self.instead(most, kind, comment)

    def lowered(self, kind: OverrideKind, comment: str) -> DispositionBuilder:
        """
        One level less.
        """
        lower = max(_LEVELS.index(self.disposition) - 1, 0)
        return self.atMost(_LEVELS[lower], kind, comment)
