"""
The worker process, C{python -m moxtls.workers VERSION}: executes calls from its
standard input one after the other, until that is closed.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import BinaryIO

from moxtls import __version__
from moxtls.workers.process import HEAD_SIZE, encodeFrame, execute, frameLength

#: Linux: fcntl's F_SETPIPE_SZ, and the largest size for unprivileged processes.
_SET_PIPE_SIZE = 1031
_PIPE_SIZE = 1024 * 1024


def serve(calls: BinaryIO, results: BinaryIO) -> None:
    """
    Send a first message that the process has started, and then the result of each call.
    Returns at the end of C{calls}.
    """
    results.write(encodeFrame((True, None)))
    results.flush()
    while len(head := calls.read(HEAD_SIZE)) == HEAD_SIZE:
        length = frameLength(head)
        data = calls.read(length)
        if len(data) < length:
            return
        results.write(execute(data))
        results.flush()


def _enlarge(descriptor: int) -> None:
    if sys.platform == "linux":
        import fcntl

        # Else a message is transferred in many parts.
        with suppress(OSError):
            fcntl.fcntl(descriptor, _SET_PIPE_SIZE, _PIPE_SIZE)


def main() -> None:
    # A process of another version would misinterpret the pickled values.
    if sys.argv[1:] != [__version__]:
        sys.exit(f"moxtls was replaced by {__version__}; the server is to be restarted")
    # Signals to stop the server may go to all of its processes; this one has to stay
    # until the server closes its input.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _enlarge(sys.stdin.fileno())
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Output of print() must not get among the results.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with suppress(BrokenPipeError):
        serve(sys.stdin.buffer, results)


if __name__ == "__main__":
    main()
