"""
Fills a ledger with a day's outcomes, in a process of its own, so that its memory
isn't counted.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import date

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from bench.comparison import sideBySide
from bench.settings import IReactor
from bench.traffic import outcome
from moxtls.ledger.ledger import Ledger

_WIDTH = 1000
#: One domain in so many had a session that failed.
_FAILING = 4


def fill(url: str, day: date, domains: int) -> None:
    """
    Record an outcome for each of C{domains} domains and its host.
    """
    arguments = [url, day.isoformat(), str(domains)]
    subprocess.run([sys.executable, "-m", "bench.filling", *arguments], check=True)


async def _fill(reactor: IReactor, url: str, day: date, domains: int) -> None:
    ledger = Ledger(reactor, url)
    numbers = iter(range(domains))

    def once() -> Deferred[None]:
        number = next(numbers)
        return ledger.outcomes.record(day, outcome(number, number % _FAILING == 0))

    await sideBySide(domains, _WIDTH, once)
    await ledger.stop()


if __name__ == "__main__":
    url, day, domains = sys.argv[1:]
    react(
        lambda reactor: Deferred.fromCoroutine(
            _fill(reactor, url, date.fromisoformat(day), int(domains))
        )
    )
