"""
Runs commands as several users, each in a fork of a process that has imported
everything: reads JSON lines from standard input, and answers each with one.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
import tempfile
from pathlib import Path
from typing import Any

import rich.cells
import rich.console
import rich.table
import rich.text

import moxtls.app.build
from moxtls.cli.main import COMMANDS, main, parser

assert rich and moxtls


def run(user: str, words: list[str], stdin: str) -> dict[str, Any]:
    """
    Run one command.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("in", "out", "err")]
        files[0].write_text(stdin)
        opened = [os.open(each, os.O_RDWR | os.O_CREAT) for each in files]
        child = os.fork()
        if child == 0:
            perform(user, words, opened)
        for each in opened:
            os.close(each)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [each.read_text() for each in files]
    return {"status": status, "out": texts[1], "err": texts[2]}


def perform(user: str, words: list[str], files: list[int]) -> None:
    """
    Be the process of a command, to its end.
    """
    status: object = 70
    try:
        for number, each in enumerate(files):
            os.dup2(each, number)
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        main(words)
    except SystemExit as ended:
        status = ended.code
    except BaseException as error:
        os.write(2, repr(error).encode())
    sys.stderr.flush()
    os._exit(int(str(status or 0)))


if __name__ == "__main__":
    parser(list(COMMANDS))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(**json.loads(line))) + "\n")
        sys.stdout.flush()
