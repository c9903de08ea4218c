"""
Servers in processes of their own, which end when we do.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def child(module: str, pem: bytes, *arguments: str) -> Iterator[tuple[int, ...]]:
    """
    Run C{module}, which is given C{pem} and says on which ports it listens.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(b"%d\n%b" % (len(pem), pem))
        process.stdin.flush()
        yield tuple(map(int, process.stdout.readline().split()))
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait()


def given() -> bytes:
    """
    What the parent gave to this child.
    """
    size = int(sys.stdin.buffer.readline())
    return sys.stdin.buffer.read(size)


def say(*ports: int) -> None:
    """
    Tell the parent.
    """
    print(*ports, flush=True)
