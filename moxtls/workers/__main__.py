"""
The other process: C{python -m moxtls.workers VERSION}.  Does what it is called for, one
after the other, until there is nobody any more who could call.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import BinaryIO

from moxtls import __version__
from moxtls.workers.process import HEAD_SIZE, called, framed, lengthOf

#: Linux: fcntl's F_SETPIPE_SZ, and what anybody may ask for.
_SET_PIPE_SIZE = 1031
_PIPE_SIZE = 1024 * 1024


def serve(calls: BinaryIO, answers: BinaryIO) -> None:
    """
    Say that this is there, and then answer.

    @return: When C{calls} has ended.
    """
    answers.write(framed((True, None)))
    answers.flush()
    while len(head := calls.read(HEAD_SIZE)) == HEAD_SIZE:
        length = lengthOf(head)
        data = calls.read(length)
        if len(data) < length:
            return
        answers.write(called(data))
        answers.flush()


def _enlarge(descriptor: int) -> None:
    if sys.platform == "linux":
        import fcntl

        # Else a message goes through in slices.
        with suppress(OSError):
            fcntl.fcntl(descriptor, _SET_PIPE_SIZE, _PIPE_SIZE)


def main() -> None:
    # Of another version, both would take each other's values for their own.
    if sys.argv[1:] != [__version__]:
        sys.exit(f"moxtls was replaced by {__version__}; the server is to be restarted")
    # Whoever stops the server may well tell all of its processes; this one has
    # to be there until the server has nothing more to ask.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _enlarge(sys.stdin.fileno())
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What somebody prints is not to get among the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with suppress(BrokenPipeError):
        serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
