"""
Runs programs to their end, and in the background.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from interop.checks import InteropError, waitFor

#: Seconds for one command, and until a server listens or has stopped.
MAX_COMMAND_TIME = 30.0
MAX_START_TIME = 20.0
MAX_STOP_TIME = 10.0


def run(
    arguments: Sequence[str | Path],
    input: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """
    Run a program to its end, whatever its status.

    @raise InteropError: It doesn't end in time.
    """
    try:
        return subprocess.run(
            list(map(str, arguments)),
            input=input,
            capture_output=True,
            env=environment,
            timeout=MAX_COMMAND_TIME,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InteropError(
            f"{arguments[0]}: no end within {MAX_COMMAND_TIME:g} s"
        ) from None


def output(arguments: Sequence[str | Path], input: bytes = b"") -> bytes:
    """
    Run a program, and return its output.

    @raise InteropError: It fails.
    """
    done = run(arguments, input)
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise InteropError(f"{' '.join(map(str, arguments))}: {said[-500:]}")
    return done.stdout


@contextmanager
def daemon(
    name: str, arguments: Sequence[str | Path], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """
    Run a program in the background. Its output goes to a file of its name; its
    process id is in a file for the clean-up in C{interop/run}.
    """
    pids = folder / "pids"
    pids.mkdir(exist_ok=True)
    with (folder / f"{name}.out").open("wb") as said:
        process = subprocess.Popen(
            list(map(str, arguments)),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    (pids / name).write_text(f"{process.pid}\n")
    try:
        yield process
    finally:
        _stop(process)
        (pids / name).unlink()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(MAX_STOP_TIME)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def awaitGreeting(address: str, port: int) -> None:
    """
    Wait until an SMTP server greets.

    @raise InteropError: It doesn't.
    """

    def greeted() -> bool:
        try:
            with socket.create_connection((address, port), 2.0) as connection:
                greeting = connection.recv(512)
                connection.sendall(b"QUIT\r\n")
                connection.recv(512)
                return greeting.startswith(b"220")
        except OSError:
            return False

    waitFor(f"an SMTP greeting of {address}:{port}", greeted, MAX_START_TIME)


def freePort() -> int:
    """
    A port of 127.0.0.1 on which nothing listens.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def listens(endpoint: tuple[str, int]) -> bool:
    """
    Whether connections to C{endpoint} are accepted.
    """
    try:
        socket.create_connection(endpoint, 2.0).close()
    except OSError:
        return False
    return True
