# -*- test-case-name: tests.cli.test_summary -*-
"""
C{moxtls summary}: what received reports say about domains.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from moxtls.cli.output import wrapped
from moxtls.cli.shell import Shell, addCommand, domainArgument
from moxtls.dates import DAY
from moxtls.domain import Domain
from moxtls.received.analysis.answers import (
    Answer,
    DayCount,
    DMARCAnswer,
    FailureReason,
    TLSAnswer,
    Verdict,
    count,
    dayName,
    dayOfNumber,
    percentage,
)
from moxtls.received.analysis.explanations import Explanation
from moxtls.received.analysis.questions import Lookups, ReportQuestions, ownHost
from moxtls.received.analysis.readiness import expectedDMARC, expectedTLS
from moxtls.received.analysis.sources import SourceGroup, advice
from moxtls.received.types import Reporter

OVERVIEW = ("Domain", "Reports", "Verdict", "Passed", "Since", "Result")
OVERVIEW_JSON = (
    "Domain",
    "Reports",
    "Verdict",
    "Sentence",
    "Since",
    "Total",
    "Failed",
)
SOURCES = ("Source", "Kind", "Messages", "Failed", "DKIM", "SPF", "Address")
DAYS = ("Day", "Messages", "Passed", "DKIM", "SPF", "Kept out")
#: Rows of each kind that are printed without C{--all}.
MAX_SHOWN = 10
#: Days of the DMARC table.
MAX_DAYS = 7


def add(commands: Any) -> None:
    summary = addCommand(commands, "summary", "what received reports say about domains")
    summary.add_argument(
        "domain",
        nargs="?",
        type=domainArgument,
        metavar="DOMAIN",
        help="a domain; without it all domains, in a line each",
    )
    summary.add_argument(
        "--no-dns",
        action="store_true",
        help="look nothing up: neither names of sources nor published records",
    )
    summary.add_argument(
        "--days",
        type=_days,
        default=30,
        metavar="N",
        help="the latest N days up to today (default: 30)",
    )
    summary.add_argument(
        "--all", action="store_true", help="all sources and days, not only the first"
    )
    summary.set_defaults(run=_summary)


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:5]) <= 9999:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 9999")
    return int(text)


async def makeQuestions(shell: Shell, lookUp: bool = True) -> ReportQuestions:
    """
    The questions of a command.

    @param lookUp: Whether to ask the DNS and policy hosts.
    """
    config = shell.configFiles.config
    base = await shell.base()
    lookups = Lookups(base.resolver, base.fetcher) if lookUp else None
    ledger = base.ledger
    return ReportQuestions(
        shell.reactor,
        ledger.received,
        ledger.listenerHistory,
        ownHost(config),
        lookups,
    )


async def _summary(shell: Shell, arguments: argparse.Namespace) -> int:
    questions = await makeQuestions(shell, not arguments.no_dns)
    last = int(shell.now()) // DAY
    first = last - arguments.days + 1
    if arguments.domain is None:
        return await _overview(shell, questions, first, last)
    domain: Domain = arguments.domain
    tls = await questions.tls(domain, first, last)
    published = await questions.published(domain)
    dmarc = await questions.dmarc(domain, first, last, published)
    expected = {"tls": "", "dmarc": ""}
    store = (await shell.ledger()).received
    before = domain.ascii, 0, first - 1
    if tls.conclusion.verdict is Verdict.NO_DATA:
        days = [each.day for each in await store.tlsDays(*before)]
        expected["tls"] = _older("TLS", days, last) or expectedTLS(published)
    if dmarc.conclusion.verdict is Verdict.NO_DATA:
        days = [each.day for each in await store.dmarcDays(*before)]
        expected["dmarc"] = _older("DMARC", days, last) or expectedDMARC(published)
    if arguments.json:
        shell.output.json(
            {
                "domain": domain.ascii,
                "first": str(dayOfNumber(first)),
                "last": str(dayOfNumber(last)),
                "tls": tlsJSON(tls) | {"expected": expected["tls"]},
                "dmarc": dmarcJSON(dmarc) | {"expected": expected["dmarc"]},
            }
        )
        return 0
    write = shell.output.line
    write(f"{domain.unicode}, {dayName(first)} to {dayName(last)}")
    width = shell.output.textWidth
    write()
    for line in _tlsLines(tls, expected["tls"], arguments.all, width):
        write(line)
    write()
    for line in _dmarcLines(dmarc, expected["dmarc"], width):
        write(line)
    _tables(shell, dmarc, arguments.all)
    return 0


def _older(kind: str, days: Sequence[int], last: int) -> str:
    """
    A sentence about reports of earlier days; empty if there are none.

    @param last: The last of the days that were asked about.
    """
    if not days:
        return ""
    latest = max(days)
    return (
        f"no {kind} report about these days; the latest is about {dayName(latest)}: "
        f"--days {last - latest + 1} includes it"
    )


# --- all domains ----------------------------------------------------------------------


async def _overview(
    shell: Shell, questions: ReportQuestions, first: int, last: int
) -> int:
    config, ledger = shell.configFiles.config, await shell.ledger()
    reported = await ledger.received.domains(first, last)
    own = [config.hostname.ascii, *(each.ascii for each in config.domains)]
    rows = []
    row = _overviewJSON if shell.output.asJSON else _overviewRow
    names = list(dict.fromkeys([*own, *reported]))
    for position, name in enumerate(names, 1):
        shell.output.progress(f"{position} of {len(names)}: {name}")
        domain = Domain(name)
        tls = await questions.tls(domain, first, last)
        dmarc = await questions.dmarc(domain, first, last)
        rows += [row(domain, "TLS", tls), row(domain, "DMARC", dmarc)]
    shell.output.progressEnded()
    shell.output.table(OVERVIEW_JSON if shell.output.asJSON else OVERVIEW, rows)
    older = set(await ledger.received.domains(0, first - 1)) - set(names)
    if older and not shell.output.asJSON:
        shell.output.line(f"{count(len(older), 'domain')} with older reports (--days)")
    return 0


def _overviewRow(domain: Domain, kind: str, answer: Answer) -> tuple[object, ...]:
    since = answer.conclusion.since
    return (
        domain.unicode,
        kind,
        str(answer.conclusion.verdict),
        percentage(answer.total - answer.failed, answer.total),
        "" if since is None else str(dayOfNumber(since)),
        answer.conclusion.sentence,
    )


def _overviewJSON(domain: Domain, kind: str, answer: Answer) -> tuple[object, ...]:
    conclusion = answer.conclusion
    return (
        domain.ascii,
        kind,
        str(conclusion.verdict),
        conclusion.sentence,
        _day(conclusion.since),
        answer.total,
        answer.failed,
    )


# --- one domain -----------------------------------------------------------------------


def _heading(title: str, answer: Answer, expected: str, width: int) -> Iterator[str]:
    conclusion = answer.conclusion
    yield f"{title}: {conclusion.verdict}"
    if expected:
        yield from wrapped(f"{expected}.", width, "  ")
        return
    passed = percentage(answer.total - answer.failed, answer.total)
    since = ""
    if conclusion.since is not None:
        # Earlier days were not looked at.
        least = "at least " if conclusion.since <= answer.first else ""
        since = f", since {least}{dayName(conclusion.since)}"
    yield from wrapped(f"{conclusion.sentence}{since}.", width, "  ")
    yield from wrapped(f"{passed} passed; {_reporters(answer.reporters)}.", width, "  ")


def _reporters(reporters: Sequence[Reporter]) -> str:
    names = ", ".join(each.organization or "(unnamed)" for each in reporters[:3])
    more = f" and {len(reporters) - 3} more" if len(reporters) > 3 else ""
    return f"reported by {names or 'nobody'}{more}"


def _tlsLines(
    answer: TLSAnswer, expected: str, showAll: bool, width: int
) -> Iterator[str]:
    yield from _heading(f"Mail to {answer.domain}, TLS", answer, expected, width)
    shown = answer.reasons if showAll else answer.reasons[:MAX_SHOWN]
    for reason in shown:
        yield ""
        yield from _reasonLines(reason, width)
    if len(answer.reasons) > len(shown):
        yield f"  and {len(answer.reasons) - len(shown)} more reasons (--all)"


def _reasonLines(reason: FailureReason, width: int) -> Iterator[str]:
    explanation, indent = reason.explanation, "      "
    codes = ", ".join((reason.resultType, *reason.codes[:3]))
    yield from wrapped(
        f"{count(reason.sessions, 'session')}: {explanation.title} ({codes})",
        width,
        "  ",
        indent,
    )
    days = dayName(reason.firstDay)
    if reason.lastDay != reason.firstDay:
        days += f" to {dayName(reason.lastDay)}"
    where = f"at {', '.join(reason.hosts[:5])}; " if reason.hosts else ""
    by = ", ".join(reason.reporters[:3])
    yield from wrapped(f"{where}{days}; by {by}", width, indent)
    causes = "; ".join(explanation.causes)
    yield from wrapped(f"{explanation.meaning} Likely: {causes}.", width, indent)
    for event in reason.events:
        yield from wrapped(f"Here: {event}.", width, indent)
    yield from wrapped(explanation.remedy, width, "    > ")
    numbers = ", ".join(map(str, reason.reports[:5]))
    yield from wrapped(f"Reports: {numbers}", width, indent)


def _dmarcLines(answer: DMARCAnswer, expected: str, width: int) -> Iterator[str]:
    yield from _heading(f"Mail from {answer.domain}, DMARC", answer, expected, width)
    advised: dict[str, list[str]] = {}
    for group in [each for each in answer.sources if each.failed][:MAX_SHOWN]:
        advised.setdefault(advice(group, answer.domain), []).append(group.name)
    for said, names in advised.items():
        yield from wrapped(f"{', '.join(names)}: {said}", width, "  > ")


def _tables(shell: Shell, answer: DMARCAnswer, showAll: bool) -> None:
    if not answer.total:
        return
    failing = [each for each in answer.sources if each.failed]
    fine = [each for each in answer.sources if not each.failed]
    shown = answer.sources if showAll else failing[:MAX_SHOWN]
    if shown:
        shell.output.line()
        shell.output.table(SOURCES, map(_sourceRow, shown))
    if fine and not showAll:
        messages = sum(each.messages for each in fine)
        shell.output.line(
            f"{count(messages, 'message')} from {count(len(fine), 'source')} pass "
            "(--all)"
        )
    shell.output.line()
    days = answer.days if showAll else answer.days[-MAX_DAYS:]
    shell.output.table(DAYS, map(_dayRow, days[::-1]))


def _sourceRow(group: SourceGroup) -> tuple[object, ...]:
    return (
        group.name,
        str(group.kind),
        group.messages,
        group.failed,
        percentage(group.dkim, group.messages),
        percentage(group.spf, group.messages),
        group.names[0] if group.names else group.address,
    )


def _dayRow(day: DayCount) -> tuple[object, ...]:
    return (
        str(dayOfNumber(day.day)),
        day.total,
        percentage(day.passed, day.total),
        percentage(day.dkim, day.total),
        percentage(day.spf, day.total),
        day.refused,
    )


# --- JSON -----------------------------------------------------------------------------


def _answerJSON(answer: Answer) -> dict[str, object]:
    conclusion = answer.conclusion
    return {
        "verdict": str(conclusion.verdict),
        "sentence": conclusion.sentence,
        "since": _day(conclusion.since),
        "remedy": conclusion.remedy,
        "total": answer.total,
        "failed": answer.failed,
        "reporters": [
            {
                "organization": each.organization,
                "reports": each.reports,
                "total": each.total,
                "failed": each.failed,
                "first": _day(each.firstDay),
                "last": _day(each.lastDay),
            }
            for each in answer.reporters
        ],
    }


def _day(day: int | None) -> str | None:
    return None if day is None else str(dayOfNumber(day))


def tlsJSON(answer: TLSAnswer) -> dict[str, object]:
    """
    An answer about TLS as JSON.
    """
    return {
        **_answerJSON(answer),
        "days": [
            {"day": _day(each.day), "succeeded": each.passed, "failed": each.failed}
            for each in answer.days
        ],
        "reasons": [
            {
                "result_type": each.resultType,
                "reason_codes": each.codes,
                "sessions": each.sessions,
                "hosts": each.hosts,
                "policy_types": each.policyTypes,
                "reporters": each.reporters,
                "reports": each.reports,
                "first": _day(each.firstDay),
                "last": _day(each.lastDay),
                "events": each.events,
                "explanation": _explanationJSON(each.explanation),
            }
            for each in answer.reasons
        ],
    }


def _explanationJSON(explanation: Explanation) -> dict[str, object]:
    return asdict(explanation)


def dmarcJSON(answer: DMARCAnswer) -> dict[str, object]:
    """
    An answer about DMARC as JSON.
    """
    return {
        **_answerJSON(answer),
        "days": [
            {
                "day": _day(each.day),
                "passed": each.passed,
                "failed": each.failed,
                "dkim_aligned": each.dkim,
                "spf_aligned": each.spf,
                "kept_out": each.refused,
            }
            for each in answer.days
        ],
        "sources": [
            {
                "name": each.name,
                "kind": str(each.kind),
                "authenticated": each.authenticated,
                "address": each.address,
                "networks": each.networks,
                "names": each.names,
                "messages": each.messages,
                "failed": each.failed,
                "dkim_aligned": each.dkim,
                "spf_aligned": each.spf,
                "kept_out": each.refused,
                "first": _day(each.firstDay),
                "last": _day(each.lastDay),
                "first_failure": _day(each.firstFailure),
                "last_failure": _day(each.lastFailure),
                "advice": advice(each, answer.domain),
            }
            for each in answer.sources
        ],
    }
