# -*- test-case-name: tests.store.test_ledger -*-
"""
What one of many nodes does, in the database.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, or_
from twisted.internet.defer import Deferred
from zope.interface import implementer

from moxtls.interfaces import ILeases
from moxtls.store.database import Database
from moxtls.store.tables import lease
from moxtls.store.writer import GroupCommitWriter

_l = lease.c


@implementer(ILeases)
class Leases:
    """
    One row per lease.
    """

    def __init__(self, database: Database, writer: GroupCommitWriter) -> None:
        self._database = database
        self._writer = writer

    def acquire(
        self, name: str, holder: str, until: float, now: float
    ) -> Deferred[bool]:
        insert = self._database.insert(lease).values(
            name=name, holder=holder, until=until
        )
        statement = insert.on_conflict_do_update(
            index_elements=[_l.name],
            set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
            where=or_(_l.holder == holder, _l.until <= now),
        ).returning(_l.name)
        return self._writer.run(
            lambda connection: connection.execute(statement).first() is not None
        )

    def release(self, name: str, holder: str) -> Deferred[None]:
        statement = delete(lease).where(_l.name == name, _l.holder == holder)

        def release(connection: Connection) -> None:
            connection.execute(statement)

        return self._writer.run(release)
