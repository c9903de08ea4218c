"""
Runs all checks: C{python -m interop FOLDER TOOLS}, as C{interop/run} calls it.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from interop.authors import checkAuthors
from interop.checks import Checks
from interop.delivery import checkDeliveries
from interop.dmarcreports import checkAggregates
from interop.dovecot import (
    ROOM,
    Dovecot,
    checkChunking,
    checkIMAP,
    checkLMTP,
    checkMaildir,
)
from interop.environment import Environment
from interop.postfix import Destination, Submitter
from interop.received import checkReceived
from interop.reception import checkReception
from interop.remotepostfix import RemotePostfix
from interop.resolver import checkResolver
from interop.server import MoxtlsServer, runServer, runServerWithLMTP
from interop.tlsreports import Tools, checkReports
from interop.unbound import unbound
from interop.verifiers import Verifiers
from moxtls.app.build import IReactor
from moxtls.dates import DAY
from moxtls.lab.plan import anyNetwork

#: All of it happens within one UTC day: reports are about days.
MAX_RUN_TIME = 90


@dataclass(frozen=True, slots=True)
class Stage:
    """
    Reactor, environment and folders of a run.

    @ivar tools: The folder with parsedmarc and the packages for Node.js.
    """

    reactor: IReactor
    environment: Environment
    folder: Path
    tools: Path


def perform(stage: Stage) -> int:
    """
    Run all checks, in a thread beside the reactor's.

    @return: The number of failed checks.
    """
    checks, environment, folder = Checks(), stage.environment, stage.folder
    with checks.part("Authors by the parsers of mail programs"):
        checkAuthors(checks, stage.tools)
    with checks.part("The servers"), unbound(environment, folder) as resolver:
        with checks.part("unbound and the lab's zones"):
            checkResolver(checks, stage.reactor, environment, resolver)
        destination, submitter = (
            Destination(environment, folder),
            Submitter(environment, folder),
        )
        with (
            destination.running(),
            submitter.running(),
            runServer(environment, folder, resolver) as server,
        ):
            with checks.part("Postfix as a destination, and as a client"):
                checkDeliveries(checks, server, destination, submitter)
            with checks.part("TLS reports delivered to Postfix"):
                tools = Tools(resolver, stage.tools / "bin" / "parsedmarc", folder)
                checkReports(checks, server, destination, tools)
            with checks.part("Postfix and OpenDKIM as other domains"):
                _checkMail(checks, environment, server, tools)
    print(f"interop: {checks.passed} ok, {checks.failed} failed")
    return checks.failed


def _checkMail(
    checks: Checks, environment: Environment, server: MoxtlsServer, tools: Tools
) -> None:
    """
    Check incoming mail, the reports on it, delivery by LMTP, and the Maildirs.
    """
    remote = RemotePostfix(environment, tools.folder)
    with remote.running():
        checkReception(checks, environment, server, remote, Verifiers(tools))
        with checks.part("DMARC reports on that mail"):
            checkAggregates(checks, environment, server, remote, tools)
        with checks.part("Reports to another moxtls"):
            receiver = checkReceived(checks, environment, server, remote, tools)
        with checks.part("Delivery to Dovecot by LMTP"):
            _checkDeliveryByLMTP(checks, environment, remote, tools)
    with checks.part("Dovecot as a client, and as a reader of Maildirs"):
        dovecot = Dovecot(environment, tools.folder, "dovecot-before")
        with dovecot.running():
            checkChunking(checks, dovecot, server)
            checkMaildir(checks, dovecot, server)
            checkIMAP(checks, dovecot, receiver, server)


def _checkDeliveryByLMTP(
    checks: Checks, environment: Environment, remote: RemotePostfix, tools: Tools
) -> None:
    folder = tools.folder
    dovecot = Dovecot(environment, folder, "dovecot", f"quota_rule = *:bytes={ROOM}")
    with (
        dovecot.running(),
        runServerWithLMTP(
            environment, folder, tools.resolver, dovecot.endpoint
        ) as server,
    ):
        checkLMTP(checks, dovecot, server, remote)


def _waitForMidnight() -> None:
    rest = DAY - time.time() % DAY
    if rest < MAX_RUN_TIME:
        print(f"waiting {rest:.0f} s until the day is over")
        time.sleep(rest)


async def _main(reactor: IReactor, folder: Path, tools: Path) -> None:
    # The running reactor handles signals itself, and would wait for the
    # thread; but interop/run cleans up.
    await deferLater(reactor, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _waitForMidnight()
    environment = Environment(
        reactor, folder, anyNetwork(random.SystemRandom().randint)
    )
    try:
        environment.startService()
    except CannotListenError as error:
        sys.exit(f"interop: {error}")
    try:
        failed = await deferToThread(
            perform, Stage(reactor, environment, folder, tools)
        )
    finally:
        await environment.stopService()
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    react(
        lambda reactor, folder, tools: Deferred.fromCoroutine(
            _main(reactor, Path(folder), Path(tools))
        ),
        sys.argv[1:],
    )
