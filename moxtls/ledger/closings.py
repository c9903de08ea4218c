# -*- test-case-name: tests.ledger.test_ledger -*-
"""
Early ends of reporting periods, recorded in the database.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, func, select

from moxtls.domain import Domain
from moxtls.ledger.tables import reportClosing
from moxtls.queue.types import ReportKind

_c = reportClosing.c
_kind = _c.kind == bindparam("of_kind")
_LATEST = select(func.max(_c.until)).where(_kind)
# The empty string stands for all domains.
_LATEST_OF = _LATEST.where(
    _c.domain.in_(["", bindparam("of_domain")]), _c.until < bindparam("before")
)
_PRUNE = delete(reportClosing).where(_kind, _c.until < bindparam("before"))


def close(
    connection: Connection, kind: ReportKind, domain: Domain | None, end: int
) -> int:
    """
    Record that the periods of C{domain}, or of all domains, end at C{end}, or at the
    first later second at which no period ended.

    @return: The end, in Unix seconds.
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
    The last recorded end of a period of C{domain} before the second C{before}; 0 if
    there is none.
    """
    given = {"of_kind": kind.value, "of_domain": domain, "before": before}
    return connection.execute(_LATEST_OF, given).scalar_one() or 0


def pruneClosings(connection: Connection, kind: ReportKind, before: int) -> None:
    """
    Remove records before the second C{before}.
    """
    connection.execute(_PRUNE, {"of_kind": kind.value, "before": before})
