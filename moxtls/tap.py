# -*- test-case-name: tests.test_tap -*-
"""
C{twistd moxtls}
"""

from __future__ import annotations

from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage

from moxtls.config import InvalidConfig
from moxtls.queue.spool import SpoolUnusable
from moxtls.server import Server
from moxtls.site import Site
from moxtls.store.database import LedgerUnavailable
from moxtls.wiring import IReactor


class Options(usage.Options):
    """
    Where the configuration is; everything else is in there.
    """

    optParameters = [  # noqa: RUF012
        ["config", "c", "moxtls.toml", "The configuration file."],
    ]


class OneLine(Server):
    """
    A server that can't start says why in one line, and the process ends with
    status 1.
    """

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except InvalidConfig as error:
            raise SystemExit(str(error)) from None

    def startService(self) -> None:
        try:
            super().startService()
        except SpoolUnusable as error:
            raise SystemExit(str(error)) from None


def makeService(options: Options) -> IService:
    """
    The only place that names the global reactor.
    """
    from twisted.internet import reactor

    every: IReactor = reactor  # type: ignore[assignment]  # all real ones are
    try:
        # twistd changes to another folder when it becomes a daemon.
        site = Site.read(Path(options["config"]).absolute())
        return OneLine(every, site)
    except (InvalidConfig, LedgerUnavailable) as error:
        raise SystemExit(str(error)) from None
