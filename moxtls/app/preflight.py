# -*- test-case-name: tests.cli.test_configuration -*-
"""
Checks whether a server could start with a configuration, without changing anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from twisted.python.util import runAsEffectiveUser

from moxtls.app.configfiles import ConfigFiles, faultsOf
from moxtls.app.ports import ListenerPorts, PortUnavailable
from moxtls.app.privileges import ROOT, userName
from moxtls.app.process import asConfigErrors
from moxtls.app.service import portFault
from moxtls.config import InvalidConfig, Listener, joinedErrors
from moxtls.ledger import database
from moxtls.ledger.database import sqliteFile
from moxtls.queue import spool


def examine(file: Path) -> ConfigFiles:
    """
    Open everything that a server would open.

    @raise InvalidConfig: All errors, in the file and in what it names.
    """
    configFiles, faults = ConfigFiles.readable(file)
    stores = (partial(_ledger, configFiles), partial(_spool, configFiles))
    ports = [
        partial(_port, configFiles, *each)
        for each in configFiles.config.listeners.items()
    ]
    found = [
        *_asOwner(configFiles, (configFiles.check, configFiles.checkFolders, *stores))
    ]
    found += faultsOf(ports)
    wrong = joinedErrors((*faults, *found))
    if wrong is not None:
        raise wrong
    return configFiles


def _asOwner(
    configFiles: ConfigFiles, checks: Sequence[Callable[[], object]]
) -> list[InvalidConfig]:
    """
    Errors for the user who owns the data, who may have less access than root.
    """
    owner = None
    with suppress(InvalidConfig):  # C{checkFolders} has reported it.
        owner = configFiles.owner()
    if owner is None or configFiles.isOurs():
        return list(faultsOf(checks))
    if os.geteuid() != ROOT:
        who = f"only root and user {userName(owner[0])} can see whether it is usable"
        return [
            configFiles.wrong(
                "", "DataDirectory", configFiles.config.dataDirectory, who
            )
        ]
    found: list[InvalidConfig] = runAsEffectiveUser(
        *owner, lambda: list(faultsOf(checks))
    )
    return found


def _ledger(configFiles: ConfigFiles) -> None:
    with asConfigErrors(configFiles):
        path = sqliteFile(configFiles.ledgerURL)
        data = configFiles.data.absolute()
        if path is not None and path.is_relative_to(data) and not data.is_dir():
            # The server will make it; if something else is in its place, that has
            # been reported already.
            return
        database.checkLedger(configFiles.ledgerURL)


def _spool(configFiles: ConfigFiles) -> None:
    with asConfigErrors(configFiles):
        spool.examine(configFiles.spool)


def _port(configFiles: ConfigFiles, name: str, listener: Listener) -> None:
    if not listener.address or not 0 < listener.port <= 65535:
        return  # It has been reported already.
    try:
        ListenerPorts(listener.address, listener.port).close()
    except PortUnavailable as error:
        if error.error.errno == errno.EACCES and os.geteuid() != 0:
            return  # The server may be started with the privilege.
        if error.error.errno == errno.EADDRINUSE and _isRunning(configFiles):
            return  # The running server has bound it.
        raise portFault(configFiles, name, error) from None
    except OSError:
        return  # Not an address; reported already.


def _isRunning(configFiles: ConfigFiles) -> bool:
    """
    True if the server may be running; only root and its user can detect it.
    """
    canTell = os.geteuid() == ROOT or configFiles.isOurs()
    return not canTell or spool.isDelivered(configFiles.spool)
