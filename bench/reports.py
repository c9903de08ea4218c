"""
TLS reports composed per second, from a ledger to a queue: looked up, composed,
checked, compressed, signed, archived and handed over. DNS answers at once, and the
queue discards everything.
"""

from __future__ import annotations

import gzip
import json
import random
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from bench.comparison import aligned
from bench.filling import fill
from bench.machine import memory, peakMemory
from bench.postgres import postgres, version
from bench.settings import Effort, IReactor, main
from bench.traffic import DOMAINS_PER_HOST, outcome
from moxtls.authentication.dkim.sign import Signer, SigningKey, loadKey
from moxtls.dates import spanOfDay, utcDay
from moxtls.dns.types import TXT, Answer, LookupStatus, RRType
from moxtls.domain import Domain
from moxtls.interfaces import IReportSubmitter, IResolver
from moxtls.ledger.ledger import Ledger
from moxtls.reporting.compose import ReportComposer, ReportIdentity
from moxtls.reporting.service import ReportOptions, ReportPipeline, ReportService
from moxtls.reporting.types import OutgoingReport
from moxtls.tlsrpt.generate import TLSReportMetadata, composeReport
from moxtls.tlsrpt.source import TLSReporting, TLSReportSource

SUBMITTER = Domain("sender.example")
#: As most signatures are.
KEY_SIZE = 2048
#: Policy domains, hosts included.
SQLITE, SQLITE_FULL = 10_000, 100_000
POSTGRES, POSTGRES_FULL = 3_000, 20_000
#: Documents for the baseline, before and after.
BARE = 1000


@implementer(IResolver)
class EverybodyAsks:
    """
    A DNS in which every domain requests reports.
    """

    validating = True

    def lookup(self, name: str, kind: RRType) -> Deferred[Answer]:
        domain = name.removeprefix("_smtp._tls.")
        record = TXT(f"v=TLSRPTv1; rua=mailto:tls@{domain}".encode("ascii"))
        return succeed(Answer(name, kind, LookupStatus.RECORDS, (record,)))


@dataclass(frozen=True, slots=True)
class Mark:
    """
    Time and memory after a number of reports.
    """

    reports: int
    at: float
    cpu: float
    memory: int


@implementer(IReportSubmitter)
class Milestones:
    """
    Discards reports, and measures at milestones.
    """

    def __init__(self, expected: int) -> None:
        steps = (1000, 10_000, 30_000, 100_000)
        self._steps = {*(each for each in steps if each < expected), expected}
        self._count = 0
        self.marks: list[Mark] = []
        self.note()

    def note(self) -> None:
        self.marks.append(
            Mark(self._count, time.perf_counter(), time.process_time(), memory())
        )

    def submit(self, report: OutgoingReport) -> Deferred[None]:
        self._count += 1
        if self._count in self._steps:
            self.note()
        return succeed(None)


def _key() -> SigningKey:
    key = generate_private_key(65537, KEY_SIZE)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return loadKey(pem)


def _service(
    reactor: IReactor, ledger: Ledger, submitter: Milestones, key: SigningKey
) -> ReportService:
    reporting = TLSReporting(SUBMITTER, forAllSuccess=True)
    identity = ReportIdentity(SUBMITTER, (Signer(SUBMITTER, "bench", key),))
    return ReportService(
        reactor,
        ReportPipeline(
            TLSReportSource(
                EverybodyAsks(), ledger.outcomes, reporting, ledger.identifier
            ),
            ledger.archive,
            ledger.leases,
            ReportComposer(
                reactor, ledger.suppressions, identity, lambda: secrets.token_hex(12)
            ),
            submitter,
        ),
        random.random,
        ReportOptions("bench"),
    )


def _bare(key: SigningKey, day: date, count: int) -> float:
    """
    Reports per second of a minimal implementation: JSON, gzip, and one signature over
    the result.
    """
    documents = [_document(number, day) for number in range(count)]
    start = time.perf_counter()
    for document in documents:
        packed = gzip.compress(json.dumps(document).encode("ascii"))
        key.sign(sha256(packed).digest())
    return count / (time.perf_counter() - start)


def _document(number: int, day: date) -> object:
    seen = outcome(number, number % 4 == 0)
    assert seen.recipient is not None
    heading = TLSReportMetadata(SUBMITTER, f"{number}@{SUBMITTER}", spanOfDay(day))
    return composeReport(heading, [seen.recipient, *seen.hosts])


def _report(title: str, marks: Sequence[Mark], before: float, after: float) -> None:
    rows = [["reports", "per second", "CPU each", "memory"]]
    for last, mark in pairwise(marks):
        count = mark.reports - last.reports
        rate = count / (mark.at - last.at)
        cpu = (mark.cpu - last.cpu) / count
        used = f"{mark.memory / 1e6:.0f} MB"
        rows.append([f"{mark.reports:,}", f"{rate:,.0f}", f"{cpu * 1e6:,.0f} us", used])
    first, last = marks[0], marks[-1]
    overall = last.reports / (last.at - first.at)
    bare = (before + after) / 2
    print(f"{title}\n\n{aligned(rows)}\n")
    print(f"  in all: {overall:,.0f} per second")
    print(
        f"  memory: {first.memory / 1e6:.0f} MB before, {peakMemory() / 1e6:.0f} peak"
    )
    print(
        f"  bare json + gzip + sign: {bare:,.0f} per second "
        f"({before:,.0f} before, {after:,.0f} after); the whole is "
        f"{overall / bare:.2f} x that\n",
        flush=True,
    )


async def _measure(
    reactor: IReactor, effort: Effort, name: str, url: str, domains: int
) -> None:
    day = utcDay(reactor.seconds()) - timedelta(days=1)
    hosts = max(1, domains // (DOMAINS_PER_HOST + 1))
    fill(url, day, domains - hosts)
    key = _key()
    before = _bare(key, day, effort.of(BARE))
    ledger = Ledger(reactor, url)
    milestones = Milestones(domains)
    service = _service(reactor, ledger, milestones, key)
    composed = await service.runNow()
    await ledger.stop()
    after = _bare(key, day, effort.of(BARE))
    title = f"{name}; {composed:,} policy domains, RSA-{KEY_SIZE}"
    _report(title, milestones.marks, before, after)


def _domains(effort: Effort, usual: int, full: int) -> int:
    return full if effort.full else effort.of(usual)


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    with _sqlite() as url:
        domains = _domains(effort, SQLITE, SQLITE_FULL)
        await _measure(reactor, effort, "SQLite", url, domains)
    with postgres() as server:
        if server is not None:
            domains = _domains(effort, POSTGRES, POSTGRES_FULL)
            await _measure(reactor, effort, version(server), server, domains)


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="moxtls-bench-") as folder:
        yield f"sqlite:///{Path(folder) / 'ledger.sqlite'}"


if __name__ == "__main__":
    main(benchmark)
