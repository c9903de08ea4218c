"""
Fills a ledger with evaluations of one policy domain, in a process of its own, so that
its memory isn't counted.
"""

from __future__ import annotations

import subprocess
import sys

from sqlalchemy import create_engine, text
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from bench.comparison import sideBySide
from bench.settings import IReactor
from moxtls.authentication.results import AuthResult
from moxtls.dates import HOUR
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
from moxtls.ledger.ledger import Ledger

DOMAIN = Domain("a.example")
_WIDTH = 1000
#: As most reports have it, the day is divided into some hours with mail.
_HOURS = 20


def fill(url: str, end: int, rows: int, times: int) -> None:
    """
    Record C{rows} different evaluations on the day before C{end}, each with a count.
    """
    arguments = [url, str(end), str(rows), str(times)]
    subprocess.run([sys.executable, "-m", "bench.dmarcfilling", *arguments], check=True)


def row(number: int) -> ReportRow:
    """
    A row of ordinary mail.
    """
    passed = number % 5 != 0
    result = AuthResult.PASS if passed else AuthResult.FAIL
    return ReportRow(
        f"198.{18 + number // 65536 % 2}.{number // 256 % 256}.{number % 256}",
        Disposition.PASS if passed else Disposition.REJECT,
        passed,
        passed,
        (),
        f"news{number % 7}.a.example",
        f"bounce{number}.a.example",
        "sender.example",
        (
            ReportedSignature("a.example", f"s{number % 3}", result),
            ReportedSignature("esp.example", "esp", result),
        ),
        ReportedSPF(f"bounce{number}.a.example", "mfrom", result),
    )


def _evaluation(number: int) -> Evaluation:
    published = PublishedPolicy(DOMAIN, DMARCPolicy.REJECT)
    return Evaluation(published, row(number), 24, ("mailto:d@a.example",), wanted=True)


async def _record(reactor: IReactor, url: str, end: int, rows: int) -> None:
    ledger = Ledger(reactor, url)
    numbers = iter(range(rows))

    def once() -> Deferred[None]:
        number = next(numbers)
        hour = end - (1 + number % _HOURS) * HOUR
        return ledger.evaluations.record(hour, _evaluation(number))

    await sideBySide(rows, _WIDTH, once)
    await ledger.stop()


def _multiply(url: str, times: int) -> None:
    """
    Multiply the counts of all rows.
    """
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    with create_engine(url).begin() as connection:
        for table in ("dmarc_row", "dmarc_tally"):
            connection.execute(
                text(f"UPDATE {table} SET messages = messages * {times}")
            )


async def _fill(reactor: IReactor, url: str, end: int, rows: int, times: int) -> None:
    await _record(reactor, url, end, rows)
    _multiply(url, times)


if __name__ == "__main__":
    url, *numbers = sys.argv[1:]
    react(
        lambda reactor: Deferred.fromCoroutine(_fill(reactor, url, *map(int, numbers)))
    )
