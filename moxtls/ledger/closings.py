# -*- test-case-name: tests.ledger.test_ledger -*-
"""
When reporting periods were closed before their time, in the database.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, func, select

from moxtls.domain import Domain
from moxtls.ledger.tables import reportClosing
from moxtls.queue.types import ReportKind

_c = reportClosing.c
_kind = _c.kind == bindparam("of_kind")
_LATEST = select(func.max(_c.until)).where(_kind)
# The empty name stands for all domains.
_LATEST_OF = _LATEST.where(
    _c.domain.in_(["", bindparam("of_domain")]), _c.until < bindparam("before")
)
_PRUNE = delete(reportClosing).where(_kind, _c.until < bindparam("before"))


def close(
    connection: Connection, kind: ReportKind, domain: Domain | None, end: int
) -> int:
    """
    Note that the periods of C{domain}, or of all domains, end at C{end}, or as
    soon after it as makes the moment another one than any before.

    @return: That moment.
    """
    latest = connection.execute(_LATEST, {"of_kind": kind.value}).scalar_one()
    until = max(end, (latest or 0) + 1)
    connection.execute(
        reportClosing.insert(),
        {"kind": kind.value, "domain": domain.ascii if domain else "", "until": until},
    )
    return until


def latestClosing(
    connection: Connection, kind: ReportKind, domain: str, before: int
) -> int:
    """
    When the periods of C{domain} were last closed, before the second
    C{before}; 0 if they never were.
    """
    given = {"of_kind": kind.value, "of_domain": domain, "before": before}
    return connection.execute(_LATEST_OF, given).scalar_one() or 0


def pruneClosings(connection: Connection, kind: ReportKind, before: int) -> None:
    """
    Forget those before the second C{before}.
    """
    connection.execute(_PRUNE, {"of_kind": kind.value, "before": before})
