"""
A PostgreSQL of our own, as safe as it comes: every commit is on the disk.
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
    Its URL; C{None}, and a word about it, if there is none to be had.
    """
    try:
        with warnings.catch_warnings():
            # Where it keeps its locks is no concern of ours.
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
    Such as C{PostgreSQL 16.2}.
    """
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return f"PostgreSQL {row[0] if row else ''}"
