# -*- test-case-name: tests.policy.test_dane -*-
"""
What TLSA records ask of a certificate chain (RFC 6698, 7671, 7672).  No I/O.
"""

from __future__ import annotations

from enum import Enum, auto


class DANEVerdict(Enum):
    """
    What TLSA records say about a certificate chain (RFC 7671, 7672).

    C{NOT_ASKED}: there were no usable records.
    """

    NOT_ASKED = auto()
    MATCHED = auto()
    NO_MATCH = auto()
    NO_MATCH_WITH_ERRORS = auto()
