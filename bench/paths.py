"""
Prints the size of the package, and the modules that messages and reports pass.

A module is passed if one of its functions runs, in any thread, while the server in
this process handles the message or report; functions that also run without one don't
count.  The lab's hosts and DNS servers are in another process.  A message of each kind
is sent before, so that what is made only once doesn't count either.
"""

from __future__ import annotations

import inspect
import pickle
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import randint
from types import FrameType

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater, react
from twisted.python.monkey import MonkeyPatcher

from bench.children import child, printPorts
from moxtls.app.build import IReactor
from moxtls.app.configfiles import ConfigFiles
from moxtls.app.service import Server
from moxtls.dates import DAY, MINUTE
from moxtls.lab.clock import LabClock, endDay
from moxtls.lab.mail import Route, receiveAll, sendToAll
from moxtls.lab.messages import MESSAGES
from moxtls.lab.plan import anyNetwork
from moxtls.lab.scenario import DESTINATIONS, SINK, STS, Certificate
from moxtls.lab.world import ARRIVED, CONFIG_FILE, DATA, Lab
from moxtls.workers.process import Worker
from tests.test_layers import ROOT, folderOf, imports, modules

#: Two domains with MTA-STS and DANE, and messages of two senders: nothing about the
#: second of each is in a cache.
DANE = next(each for each in DESTINATIONS if each.name == "dane-ee")
DOMAINS = tuple(
    replace(DANE, name=name, sts=STS(), certificate=Certificate.GOOD)
    for name in ("first", "second")
)
RECEIVED = [each for each in MESSAGES if each.name in ("aligned-direct", "deep-walk")]
#: Top-level modules that are part of a flow; the others are helpers, as C{workers} is.
OWN = {"https", "submission"}
called: set[tuple[str, str]] = set()


def _note(frame: FrameType, event: str, argument: object) -> None:
    name, code = frame.f_globals.get("__name__") or "", frame.f_code
    isOurs = name.startswith("moxtls.") and not name.startswith("moxtls.lab.")
    # No bodies of modules and classes; but the generated methods of dataclasses.
    if isOurs and event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
        called.add((name[len("moxtls.") :].replace(".", "/"), code.co_qualname))


def _show(way: str, functions: Set[tuple[str, str]]) -> None:
    names = sorted({name for name, _ in functions})
    own = [each for each in names if each in OWN or "/" in each.replace("workers/", "")]
    helpers = sorted({*names} - {*own})
    print(f"\n{way}: {len(own)} modules and {len(helpers)} helpers")
    print(f"  {' '.join(own)}\n  helpers: {' '.join(helpers)}", flush=True)


def _showSize() -> None:
    lines = sum((ROOT / each).read_text().count("\n") for each in modules())
    pairs = {(folderOf(name), folderOf(target)) for name, target in imports()}
    loops = [(a, b) for a, b in pairs if "." < a < b and (b, a) in pairs]
    print(f"{len(modules())} modules, {lines} lines")
    print("largest folders:", Counter(map(folderOf, modules())).most_common(4))
    print(f"{len(loops)} pairs of folders that import each other")


async def _measure(reactor: IReactor, folder: Path) -> None:
    network, keys = pickle.loads((folder / "lab").read_bytes())
    clock, rest = LabClock(reactor), partial(deferLater, reactor, 2)
    server = Server(reactor, ConfigFiles.read(folder / CONFIG_FILE), clock)
    server.startService()
    await rest()
    called.clear()
    await rest()  # Then nothing is in progress any more.
    idle = frozenset(called)
    route = Route(network, keys, folder / DATA / "accounts", lambda: "1")
    for message in RECEIVED:
        called.clear()
        [outcome] = await receiveAll(reactor, route, [message])
        assert not outcome.differences, outcome.differences
        await rest()
    _show("an inbound message to its evaluation", called - idle)
    await server.dmarcReports.stopService()
    for domain in DOMAINS:
        called.clear()
        await sendToAll(reactor, network, [domain])
        await rest()
        sent = frozenset(called)
        assert [*folder.glob(f"{ARRIVED}/{domain.domain}/*")], "not delivered"
        await endDay(clock, lambda: 0, _passed)
        await rest()
    _show("a submitted message to its TLS outcome", sent - idle)
    _show("a day's outcomes to a sent report", called - idle)
    assert len([*folder.glob(f"{ARRIVED}/{SINK}/*")]) == len(DOMAINS)
    await server.stopService()


def _passed(now: float) -> None:
    if now % DAY < 3 * MINUTE:
        # Not yet the time of reports.
        called.clear()


async def _serveLab(reactor: IReactor, folder: str) -> None:
    lab = Lab(reactor, Path(folder), anyNetwork(randint), DOMAINS)
    lab.startService()
    Path(folder, "lab").write_bytes(pickle.dumps((lab.network, lab.senderKeys)))
    printPorts()
    await Deferred()


async def _main(reactor: IReactor) -> None:
    _showSize()
    threading.setprofile(_note)
    sys.setprofile(_note)
    # Modules that run in worker processes would not be seen.
    MonkeyPatcher((Worker, "call", lambda _, *call: maybeDeferred(*call))).patch()
    with tempfile.TemporaryDirectory() as name, child("bench.paths", b"", name):
        await _measure(reactor, Path(name))
    sys.setprofile(None)


if __name__ == "__main__":
    react(_serveLab if sys.argv[1:] else _main, sys.argv[1:])
