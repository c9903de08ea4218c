"""
Runs servers in child processes, which end with the parent.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def child(module: str, pem: bytes, *arguments: str) -> Iterator[tuple[int, ...]]:
    """
    Run C{module}, which reads C{pem} and prints its ports.
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


def readPEM() -> bytes:
    """
    The key and certificate from the parent.
    """
    size = int(sys.stdin.buffer.readline())
    return sys.stdin.buffer.read(size)


def printPorts(*ports: int) -> None:
    """
    Print the ports for the parent.
    """
    print(*ports, flush=True)
