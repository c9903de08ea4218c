# -*- test-case-name: tests.dmarc.test_suffixes -*-
"""
Organizational domains by the public suffix list (RFC 7489 3.2).

Only who asks for C{legacy} needs any of this: the list, which comes with the
package publicsuffixlist, is read when it is first looked into.
"""

from __future__ import annotations

from collections.abc import Callable

from moxtls.domain import Domain

#: From a name to the part of it that somebody registered: C{None} for a public
#: suffix.
Registered = Callable[[str], str | None]


class Suffixes:
    """
    Knows where the domains of organizations begin.
    """

    def __init__(self, load: Callable[[], Registered] | None = None) -> None:
        """
        @param load: Reads the list.
        """
        self._load = _packaged if load is None else load
        self._registered: Registered | None = None

    def organizational(self, domain: Domain) -> Domain:
        """
        One label more than the longest public suffix that C{domain} is under;
        for a public suffix, itself.
        """
        if self._registered is None:
            self._registered = self._load()
        found = self._registered(domain.ascii)
        return domain if found is None else Domain(found)


def _packaged() -> Registered:
    # Here, since it reads 300 KB, which hardly anybody needs.
    from publicsuffixlist import PublicSuffixList

    registered: Registered = PublicSuffixList().privatesuffix
    return registered
