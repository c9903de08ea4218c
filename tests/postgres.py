"""
A real PostgreSQL for tests: one server per process, started when it is first
wanted, and databases of one's own on it.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from unittest import SkipTest

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

_numbers = count(1)


@lru_cache(maxsize=1)
def _server() -> str:
    """
    The URL of the server's own database, or why there is none.
    """
    try:
        from pgserver.postgres_server import get_server
    except ImportError as error:
        return f"no PostgreSQL: {error}"
    folder = Path(tempfile.mkdtemp(prefix="moxtls-postgres-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        server = get_server(folder / "data", cleanup_mode="stop")
    except Exception as error:
        return f"no PostgreSQL: {str(error).splitlines()[0]}"
    url = str(server.get_uri())
    # Power failures during a test don't matter.
    _execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    return url


class StoppableServer:
    """
    A server of one's own, that can be stopped and started.

    @ivar url: Of a database on it.
    """

    def __init__(self) -> None:
        """
        @raise SkipTest: There is no PostgreSQL on this machine.
        """
        serverURL()
        from pgserver.postgres_server import get_server

        folder = Path(tempfile.mkdtemp(prefix="moxtls-postgres-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self._server = get_server(folder / "data", cleanup_mode="stop")
        self._runs = True
        self.url = str(self._server.get_uri())

    def stop(self) -> None:
        """
        Stop the server without waiting for its clients.
        """
        from pgserver._commands import (  # type: ignore[attr-defined]
            pg_ctl,  # made when it is imported
        )

        server, self._runs = self._server, False
        words = ["stop", "-m", "immediate"]
        pg_ctl(words, pgdata=server.pgdata, user=server.system_user)

    def start(self) -> None:
        """
        Start it again, in the same place.
        """
        self._server.ensure_postgres_running()
        self._runs = True

    def close(self) -> None:
        """
        Stop it for good.
        """
        # Else pgserver complains that there is nothing to stop.
        if not self._runs:
            self.start()
        self._server.cleanup()


@lru_cache
def _engine(url: str) -> Engine:
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    return create_engine(parsed, isolation_level="AUTOCOMMIT", pool_pre_ping=True)


def _execute(url: str, *statements: str) -> None:
    with _engine(url).connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def serverURL() -> str:
    """
    The URL of the server.

    @raise SkipTest: There is none on this machine.
    """
    url = _server()
    if url.startswith("no PostgreSQL"):
        raise SkipTest(url)
    return url


def emptyDatabase() -> str:
    """
    The URL of a new, empty database.

    @raise SkipTest: There is no PostgreSQL on this machine.
    """
    url = serverURL()
    name = f"test{next(_numbers)}"
    _execute(url, f"CREATE DATABASE {name} TEMPLATE template0")
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def clear(url: str, *tables: str) -> None:
    """
    Empty tables: much quicker than a new database, and, while they are small,
    than TRUNCATE.
    """
    _execute(url, *(f"DELETE FROM {table}" for table in tables))


def kick(url: str) -> None:
    """
    Break every connection to a database, as a restart of the server would.
    """
    name = make_url(url).database
    _execute(
        serverURL(),
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}'",
    )


@contextmanager
def renamed(url: str) -> Iterator[None]:
    """
    For a while, there is no database of that name.
    """
    name = make_url(url).database
    # Others may come back between the two statements.
    while True:
        kick(url)
        try:
            _execute(serverURL(), f"ALTER DATABASE {name} RENAME TO {name}_away")
            break
        except OperationalError:
            continue
    try:
        yield
    finally:
        _execute(serverURL(), f"ALTER DATABASE {name}_away RENAME TO {name}")
