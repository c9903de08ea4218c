"""
Runs a PostgreSQL with its default durability: every commit is on the disk.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


@contextmanager
def postgres() -> Iterator[str | None]:
    """
    The URL of a new database; C{None}, and a printed reason, if PostgreSQL isn't
    available.
    """
    try:
        with warnings.catch_warnings():
            # It warns about the folder of its lock files.
            warnings.simplefilter("ignore")
            from pgserver.postgres_server import get_server
    except ImportError as why:
        print(f"  no PostgreSQL: {why}\n")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield str(server.get_uri())
        finally:
            server.cleanup()


def version(url: str) -> str:
    """
    The version, such as C{PostgreSQL 16.2}.
    """
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return f"PostgreSQL {row[0] if row else ''}"
