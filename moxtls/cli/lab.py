# -*- test-case-name: tests.lab.test_runner -*-
"""
C{moxtls lab}: runs the lab, a simulated internet on loopback.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime

from moxtls.app.configfiles import ConfigFiles
from moxtls.app.service import Server
from moxtls.cli.shell import CommandError, Shell, addGroup

try:
    from moxtls.lab.plan import Network
    from moxtls.lab.runner import (
        DIRECTORY,
        END_DAY,
        LabUnusable,
        RunOptions,
        command,
        run,
    )
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"moxtls lab needs {missing.name}: pip install 'moxtls[lab]'"
    ) from None


def add(commands: Any) -> None:
    verbs = addGroup(
        commands, "lab", "simulated internet on loopback, with moxtls in it"
    )
    start = verbs.add_parser(
        "run",
        help="start the lab, with a moxtls that sends mail to every destination "
        "and receives mail from every sender",
    )
    start.add_argument(
        "--once",
        action="store_true",
        help="end the day, show the reports, and stop; the exit status is 0 "
        "if everything is as expected",
    )
    start.add_argument(
        "--network",
        default=Network().prefix,
        metavar="127.N.N",
        help="three octets of the addresses to use (default: %(default)s)",
    )
    start.set_defaults(run=_run)
    end = verbs.add_parser("end-day", help="end the report day of a running lab")
    end.set_defaults(run=_endDay)
    for verb in (start, end):
        verb.add_argument(
            "--dir",
            type=Path,
            default=Path(DIRECTORY),
            metavar="DIR",
            help="the directory of the lab (default: %(default)s)",
        )


async def _run(shell: Shell, arguments: argparse.Namespace) -> int:
    options = RunOptions(
        arguments.dir.absolute(),
        Network(prefix=arguments.network),
        once=arguments.once,
        interactive=shell.stdin.isatty() and not arguments.once,
    )

    def makeServer(configFile: Path, clock: IReactorTime) -> Server:
        return Server(shell.reactor, ConfigFiles.read(configFile), clock)

    try:
        return await run(shell.reactor, options, makeServer, shell.output)
    except LabUnusable as error:
        raise CommandError(str(error)) from None


async def _endDay(shell: Shell, arguments: argparse.Namespace) -> int:
    try:
        text = await command(shell.reactor, arguments.dir.absolute(), END_DAY)
    except ConnectError:
        raise CommandError(f"no lab is running in {arguments.dir}") from None
    shell.output.stdout.write(text)
    return 0
