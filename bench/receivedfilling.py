"""
Fills a ledger with received reports as they would have come in, day by day, in a
process of its own: a hundred domains, one of which has a tenth of all rows.

Most mail of a domain comes from the same networks every day, and some from anywhere.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from random import Random

import psycopg
from sqlalchemy import Boolean
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from bench.settings import IReactor
from moxtls.dates import DAY
from moxtls.ledger.ledger import Ledger
from moxtls.ledger.tables import metadata
from moxtls.received.types import (
    AcceptedReport,
    Channel,
    DMARCRow,
    Origin,
    ParsedReport,
    RawFormat,
    ReceivedKind,
    RowBlock,
    RowOutcome,
)
from moxtls.tlsrpt.parse import ReceivedFailure, ReceivedPolicy

DOMAINS = 100
DAYS = 300
#: The last day of the reports.
LAST_DAY = 20_800
LARGEST = "d0.example"
TYPICAL = "d50.example"
#: Reporting organizations, of which the first ones report the most.
ORGANIZATIONS = 60
RARE = f"Organization {ORGANIZATIONS - 1}"
#: Rows of the largest domain's share, and rows per report of it and of others.
_SHARE = 10
_ROWS_OF_LARGEST = 80
_ROWS = 15
#: One report in so many has sessions that failed.
_FAILING = 10
#: One row in so many is of mail from anywhere.
_STRANGE = 30
#: Octets of a small report in gzip.
_RAW_SIZE = 900
_WIDTH = 1000
_RESULTS = ("certificate-expired", "validation-failure", "starttls-not-supported")
_PASS = RowOutcome.DKIM | RowOutcome.SPF
_REJECTED = RowOutcome.REJECT


def fill(url: str, rows: int) -> None:
    """
    Store about C{rows} rows of DMARC reports, and TLS reports of the same days.
    """
    arguments = [sys.executable, "-m", "bench.receivedfilling", url, str(rows)]
    subprocess.run(arguments, check=True)


@dataclass(slots=True)
class _Domain:
    """
    A domain with its usual sources: addresses, networks, and details with digests.
    """

    name: str
    addresses: list[tuple[str, str]]
    details: list[tuple[bytes, str]]


def _domain(number: int, random: Random) -> _Domain:
    name = f"d{number}.example"
    size = 2000 if name == LARGEST else 200
    networks = [
        f"{random.randrange(1, 224)}.{random.randrange(256)}." for _ in range(size // 8)
    ]
    addresses = []
    for _ in range(size):
        # Few networks send most of the mail.
        prefix = networks[int(random.random() ** 2 * len(networks))]
        prefix += str(random.randrange(2))
        addresses.append((f"{prefix}.{random.randrange(256)}", f"{prefix}.0/24"))
    return _Domain(name, addresses, [_detail(name, n) for n in range(size // 10)])


def _detail(domain: str, number: int) -> tuple[bytes, str]:
    text = json.dumps(
        {
            "dkim": [[domain, f"s{number % 3}", "pass", ""]],
            "envelope_from": f"bounce{number}.{domain}",
            "header_from": domain,
            "spf": [[f"bounce{number}.{domain}", "mfrom", "pass"]],
        }
    )
    return blake2b(text.encode(), digest_size=16).digest(), text


def _row(domain: _Domain, random: Random) -> tuple[DMARCRow, str]:
    messages = int(1 / (random.random() + 0.001))
    if not random.randrange(_STRANGE):
        digest, text = _detail(domain.name, random.randrange(10_000))
        first, *others = random.randrange(1, 224), *random.randbytes(2)
        prefix = f"{first}.{others[0]}.{others[1]}"
        row = DMARCRow(
            f"{prefix}.9", f"{prefix}.0/24", "", int(_REJECTED), digest, messages
        )
        return row, text
    address, network = random.choice(domain.addresses)
    digest, text = random.choice(domain.details)
    return DMARCRow(address, network, domain.name, int(_PASS), digest, messages), text


def _dmarcReport(
    domain: _Domain, day: int, number: int, random: Random
) -> ParsedReport:
    size = random.randrange(
        1, 2 * (_ROWS_OF_LARGEST if domain.name == LARGEST else _ROWS)
    )
    rows: list[DMARCRow] = []
    details: dict[bytes, str] = {}
    for _ in range(size):
        row, text = _row(domain, random)
        rows.append(row)
        details[row.detail] = text
    return ParsedReport(
        ReceivedKind.DMARC,
        f"Organization {number % ORGANIZATIONS}",
        "postmaster@example.net",
        f"{day}.{domain.name}.{number}",
        day * DAY,
        (day + 1) * DAY - 1,
        random.randbytes(16),
        random.randbytes(_RAW_SIZE),
        RawFormat.XML,
        sum(row.messages for row in rows),
        sum(row.messages for row in rows if row.outcome == _REJECTED),
        domain=domain.name,
        published=(("p", "reject"), ("adkim", "r"), ("aspf", "r")),
        blocks=(RowBlock(rows, details).encode(),),
    )


def _tlsReport(domain: str, day: int, number: int, random: Random) -> ParsedReport:
    failures: tuple[ReceivedFailure, ...] = ()
    if not random.randrange(_FAILING):
        result = random.choice(_RESULTS)
        host = f"mx{random.randrange(3)}.{domain}"
        failures = (
            ReceivedFailure(result, 3, mxHostname=host, receivingIP="192.0.2.1"),
        )
    lines = ("version: STSv1", "mode: enforce", f"mx: mx0.{domain}")
    failed = sum(each.count for each in failures)
    policy = ReceivedPolicy(
        "sts", domain, lines, (f"mx0.{domain}",), 90, failed, failures
    )
    return ParsedReport(
        ReceivedKind.TLS,
        f"Organization {number % ORGANIZATIONS}",
        "tlsrpt@example.net",
        f"{day}.{domain}.{number}",
        day * DAY,
        (day + 1) * DAY - 1,
        random.randbytes(16),
        random.randbytes(_RAW_SIZE),
        RawFormat.JSON,
        90 + failed,
        failed,
        policies=(policy,),
    )


def _reports(rows: int) -> Iterator[ParsedReport]:
    random = Random(1)
    domains = [_domain(number, random) for number in range(DOMAINS)]
    number = 0
    for day in range(LAST_DAY - DAYS + 1, LAST_DAY + 1):
        for domain in domains:
            share, size = (1 - 1 / _SHARE) / (DOMAINS - 1), _ROWS
            if domain.name == LARGEST:
                share, size = 1 / _SHARE, _ROWS_OF_LARGEST
            for _ in range(max(1, round(rows / DAYS * share / size))):
                number += 1
                yield _dmarcReport(domain, day, number, random)
                if not number % 5:
                    yield _tlsReport(domain.name, day, number // 5, random)


async def _fill(reactor: IReactor, url: str, rows: int) -> None:
    ledger = Ledger(reactor, url)
    origin = Origin(Channel.MAIL, "example.net", "DKIM example.net", LAST_DAY * DAY)
    reports = (AcceptedReport(each, origin) for each in _reports(rows))
    while some := list(islice(reports, _WIDTH)):
        await gatherResults(map(ledger.received.add, some))
    await ledger.stop()


def copy(source: str, url: str) -> None:
    """
    Copy the received reports of an SQLite ledger into one on PostgreSQL.
    """
    Ledger(None, url).stop()
    with sqlite3.connect(source) as old, psycopg.connect(url) as new:
        for table in metadata.sorted_tables:
            if not table.name.startswith("received_"):
                continue
            names = ", ".join(each.name for each in table.columns)
            isBoolean = [isinstance(each.type, Boolean) for each in table.columns]
            rows = old.execute(f"SELECT {names} FROM {table.name}")
            with new.cursor().copy(f"COPY {table.name} ({names}) FROM STDIN") as into:
                for row in rows:
                    pairs = zip(row, isBoolean, strict=True)
                    into.write_row([bool(v) if b else v for v, b in pairs])
    with psycopg.connect(url, autocommit=True) as new:
        # As the server does by itself from time to time.
        new.execute("VACUUM ANALYZE")


if __name__ == "__main__":
    url, rows = sys.argv[1:]
    react(lambda reactor: Deferred.fromCoroutine(_fill(reactor, url, int(rows))))
