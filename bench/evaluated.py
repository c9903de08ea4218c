"""
Generates evaluations, lifelike or uniform, and fills a ledger with those of one
domain, in a process of its own, so that its memory isn't counted.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from bench.comparison import sideBySide
from bench.settings import IReactor
from bench.traffic import DAY
from moxtls.authentication.results import AuthResult
from moxtls.dates import HOUR, midnight
from moxtls.dmarc.types import (
    Disposition,
    DMARCPolicy,
    Evaluation,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from moxtls.domain import Domain
from moxtls.interfaces import IEvaluationStore
from moxtls.ledger.evaluationcounters import partOfEvaluation
from moxtls.ledger.ledger import Ledger
from moxtls.reporting.types import ReportPeriod

#: Evaluations that differ, and how many of them are of one domain.
DISTINCT = 100_000
PER_DOMAIN = 100
START = midnight(DAY)
#: The contents of a large report: rows, each in two of the day's hours, with
#: so many messages in each.
ROWS = 100_000
MESSAGES = 5
_WIDTH = 1000

Evaluations = Callable[[int], Iterator[Evaluation]]


def lifelike(count: int) -> Iterator[Evaluation]:
    """
    A few senders send much, many send little (Zipf's law).
    """
    chance = random.Random(count)
    weights = list(accumulate(1 / rank for rank in range(1, DISTINCT + 1)))
    for number in chance.choices(range(DISTINCT), cum_weights=weights, k=count):
        yield _evaluation(number // PER_DOMAIN, number % PER_DOMAIN)


def flood(count: int) -> Iterator[Evaluation]:
    """
    The same evaluation each time.
    """
    for _ in range(count):
        yield _evaluation(0, 0)


@cache
def _evaluation(domain: int, sender: int) -> Evaluation:
    return evaluation(f"d{domain}.example", sender)


def evaluation(name: str, sender: int) -> Evaluation:
    """
    The evaluation of mail from C{name} sent by one of its hosts.
    """
    high, low = divmod(sender, 256)
    return Evaluation(
        PublishedPolicy(Domain(name), DMARCPolicy.REJECT),
        ReportRow(
            f"2001:db8::{high:x}:{low:x}",
            Disposition.PASS,
            True,
            True,
            (),
            name,
            f"bounce.{name}",
            "recipient.example",
            (ReportedSignature(name, "s2026", AuthResult.PASS),),
            ReportedSPF(f"bounce.{name}", "mfrom", AuthResult.PASS),
        ),
        addresses=(f"mailto:dmarc@{name}",),
        wanted=True,
    )


async def fill(store: IEvaluationStore, rows: int = ROWS) -> ReportPeriod:
    """
    Record ten evaluations for each of C{rows} rows of one report, over a day.

    @return: The report's period.
    """
    coming = (
        (START + (row % 12 + half * 12) * HOUR, evaluation("big.example", row))
        for row in range(rows)
        for half in range(2)
        for _ in range(MESSAGES)
    )
    await sideBySide(rows * MESSAGES * 2, _WIDTH, lambda: store.record(*next(coming)))
    return period()


def period() -> ReportPeriod:
    """
    The period of the report that L{fill} fills.
    """
    part = partOfEvaluation(evaluation("big.example", 0))
    return ReportPeriod(0, DAY, Domain("big.example"), True, part, START + 24 * HOUR)


def fillApart(url: str, rows: int) -> ReportPeriod:
    """
    Run L{fill} in another process.
    """
    subprocess.run(
        [sys.executable, "-m", "bench.evaluated", url, str(rows)], check=True
    )
    return period()


async def _fill(reactor: IReactor, url: str, rows: int) -> None:
    ledger = Ledger(reactor, url)
    await fill(ledger.evaluations, rows)
    await ledger.stop()


if __name__ == "__main__":
    url, rows = sys.argv[1:]
    react(lambda reactor: Deferred.fromCoroutine(_fill(reactor, url, int(rows))))
