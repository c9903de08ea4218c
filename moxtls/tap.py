# -*- test-case-name: tests.test_tap -*-
"""
The twistd plugin: C{twistd moxtls}.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.python import usage
from twisted.python.util import runAsEffectiveUser

from moxtls.app.build import IReactor
from moxtls.app.clocks import DelayedCallCorrection, MonotonicClock
from moxtls.app.configfiles import ConfigFiles, faultsOf
from moxtls.app.ports import raiseFileLimit
from moxtls.app.preflight import examine
from moxtls.app.service import Server, bindPorts, openStores
from moxtls.config import InvalidConfig, joinedErrors


class Options(usage.Options):
    """
    The command-line options: the configuration file contains all other settings.
    """

    optParameters = [  # noqa: RUF012
        ["config", "c", "moxtls.toml", "The configuration file."],
    ]


@contextmanager
def exitOnConfigError() -> Iterator[None]:
    """
    Print configuration errors, one line each, and exit with status 1.
    """
    try:
        yield
    except InvalidConfig as error:
        raise SystemExit(str(error)) from None


class TwistdServer(Server):
    """
    The server as run by twistd.
    """

    _correction: DelayedCallCorrection | None = None

    def privilegedStartService(self) -> None:
        raiseFileLimit()
        with exitOnConfigError():
            super().privilegedStartService()

    def startService(self) -> None:
        with exitOnConfigError():
            super().startService()
        self._correction = DelayedCallCorrection(
            self._reactor, self._reactor.callFromThread
        )
        self._correction.startService()

    def stopService(self) -> Deferred[None]:
        if self._correction is not None:
            self._correction.stopService()
        return super().stopService()


def makeService(options: Options) -> IService:
    """
    Build the server. Only here, and in the command shell, is the global reactor
    named.

    By the time a service starts, twistd may have daemonized, and errors would go
    unseen: so the configuration is checked now.
    """
    from twisted.internet import reactor

    every: IReactor = reactor  # type: ignore[assignment]  # all real ones are
    with exitOnConfigError():
        # twistd changes to another folder when it becomes a daemon.
        file, owner = Path(options["config"]).absolute(), _owner(options)
        try:
            configFiles = ConfigFiles.read(file)
        except InvalidConfig:
            # With errors in the file nothing is made, but all errors are printed.
            runAsEffectiveUser(*owner, examine, file)
            raise
        stores = partial(runAsEffectiveUser, *owner, openStores, configFiles)
        wrong = joinedErrors(faultsOf((partial(_tryPorts, configFiles), stores)))
        if wrong is not None:
            raise wrong
        return TwistdServer(every, configFiles, durations=MonotonicClock(every))


def _tryPorts(configFiles: ConfigFiles) -> None:
    for port in bindPorts(configFiles).values():
        port.close()


def _owner(options: Options) -> tuple[int, int]:
    """
    The user and group that twistd will switch to.
    """
    above: Mapping[str, int | None] = options.parent or {}
    uid, gid = above.get("uid"), above.get("gid")
    if uid is not None and gid is None:
        gid = pwd.getpwuid(uid).pw_gid
    return (
        os.geteuid() if uid is None else uid,
        os.getegid() if gid is None else gid,
    )
