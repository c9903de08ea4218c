"""
SPF checks per second with all DNS answers at hand, compared with pyspf.

This is the CPU time, one reason why SPF is implemented here. The other isn't
measured: pyspf blocks its thread during each DNS lookup, and looks up the hosts of an
MX record one after the other. moxtls caches the parsed form of records of usual
length; both are measured, with and without the cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import succeed

from bench.comparison import Variant, compare, table
from bench.settings import Effort, IReactor, main
from moxtls.authentication.spf.evaluate import checkHost, mailFromRequest
from moxtls.authentication.spf.record import clearRecordCache
from moxtls.dns.types import (
    IP,
    MX,
    TXT,
    Answer,
    LookupQuestion,
    LookupStatus,
    Record,
    RRType,
    runWithAnswers,
)

try:
    import spf as pyspf
except ImportError:
    pyspf = None

CLIENT = "192.0.2.77"
SENDER = "somebody@example.org"
HELO = "mail.example.org"
RECEIVER = "mx.example.net"
#: Records, all of which pass, so that no explanation is looked up; and the number of
#: checks, which take a quarter of a second at most.
CASES = {
    "v=spf1 ip4:... -all": ("v=spf1 ip4:198.51.100.0/24 ip4:192.0.2.0/24 -all", 4000),
    "three includes deep, eight networks in each": (
        "v=spf1 include:_spf.example -all",
        500,
    ),
    "mx, four hosts": ("v=spf1 mx -all", 3000),
}

Zone = dict[LookupQuestion, tuple[Record, ...]]


def _networks(block: int) -> str:
    return " ".join(f"ip4:203.0.{block}.{each * 16}/28" for each in range(8))


def _zone(record: str) -> Zone:
    texts = {
        "example.org": record,
        "_spf.example": f"v=spf1 {_networks(1)} include:_spf2.example ~all",
        "_spf2.example": f"v=spf1 {_networks(2)} include:_spf3.example ~all",
        "_spf3.example": f"v=spf1 {_networks(3)} ip4:{CLIENT} ~all",
    }
    hosts = [f"mx{each}.example.org" for each in range(4)]
    zone: Zone = {
        LookupQuestion(name, RRType.TXT): (TXT(text.encode()),)
        for name, text in texts.items()
    }
    zone[LookupQuestion("example.org", RRType.MX)] = tuple(
        MX(10, host) for host in hosts
    )
    for place, host in enumerate(hosts):
        zone[LookupQuestion(host, RRType.A)] = (IP(f"192.0.2.{74 + place}"),)
    return zone


def _ours(zone: Zone, forgetful: bool = False) -> Callable[[], str]:
    answers = {
        each: Answer(each.name, each.kind, LookupStatus.RECORDS, records)
        for each, records in zone.items()
    }

    def once() -> str:
        if forgetful:
            clearRecordCache()
        request = mailFromRequest(CLIENT, HELO, SENDER, RECEIVER)
        return runWithAnswers(checkHost(request), answers.__getitem__).status

    return once


def _theirs(zone: Zone) -> Callable[[], str]:
    answers = {
        (each.name, each.kind.value): [
            ((each.name, each.kind.value), _content(record)) for record in records
        ]
        for each, records in zone.items()
    }

    def lookup(name: str, kind: str, *limits: object) -> list[Any]:
        return answers.get((name, kind), [])

    def once() -> str:
        pyspf.DNSLookup = lookup
        return str(pyspf.check2(CLIENT, SENDER, HELO, receiver=RECEIVER)[0])

    return once


def _content(record: Record) -> object:
    """
    Record contents in the form of pyspf's DNS functions.
    """
    match record:
        case TXT():
            return (record.text,)
        case MX():
            return (record.preference, record.exchange)
        case IP():
            return record.address
    raise ValueError(record)


def _repeating(once: Callable[[], str]) -> Callable[[int], Awaitable[None]]:
    def run(count: int) -> Awaitable[None]:
        for _ in range(count):
            if once() != "pass":
                raise AssertionError("it doesn't pass")
        return succeed(None)

    return run


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    if pyspf is None:
        print("pyspf: skipped, not installed; moxtls alone\n")
    for title, (record, operations) in CASES.items():
        zone = _zone(record)
        runs = {
            "moxtls, records never seen": _repeating(_ours(zone, forgetful=True)),
            "moxtls": _repeating(_ours(zone)),
        }
        if pyspf is not None:
            runs = {"pyspf": _repeating(_theirs(zone))} | runs
        count = effort.of(operations)
        variants = [Variant(name, run, count) for name, run in runs.items()]
        baselines = list(runs)[:1]
        comparison = await compare(title, "checks", variants, baselines, effort.rounds)
        print(table(comparison), flush=True)


if __name__ == "__main__":
    main(benchmark)
