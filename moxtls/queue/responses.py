# -*- test-case-name: tests.queue.test_responses -*-
"""
Recognizes automatic responses and reports among submitted messages.  No I/O.
"""

from __future__ import annotations

import re

# RFC 3834 5: "auto-generated" marks no response, and is common.
_REPLIED = re.compile(
    rb"^Auto-Submitted[ \t]*:\s*(?:\([^()]*\)\s*)?auto-replied\b",
    re.IGNORECASE | re.MULTILINE,
)
# RFC 6522 3: of a DSN, an MDN, a TLS report, a failure report.
_REPORT = re.compile(
    rb"^Content-Type[ \t]*:\s*(?:\([^()]*\)\s*)?multipart/report\b",
    re.IGNORECASE | re.MULTILINE,
)


def isResponse(header: bytes) -> bool:
    """
    True if a message was caused by another one: an automatic response (RFC 3834 5), or
    a report on it (RFC 6522).
    """
    return bool(_REPLIED.search(header) or _REPORT.search(header))
