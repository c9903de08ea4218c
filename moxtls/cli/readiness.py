# -*- test-case-name: tests.cli.test_summary -*-
"""
C{moxtls readiness}: whether a domain is ready for stricter policies.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from moxtls.cli.output import wrapped
from moxtls.cli.shell import Shell, addCommand, domainArgument
from moxtls.cli.summary import makeQuestions
from moxtls.dates import DAY
from moxtls.received.analysis.readiness import Step


def add(commands: Any) -> None:
    readiness = addCommand(
        commands,
        "readiness",
        "whether a domain is ready for MTA-STS enforce, p=quarantine and p=reject",
    )
    readiness.add_argument(
        "domain", type=domainArgument, metavar="DOMAIN", help="a domain"
    )
    readiness.set_defaults(run=_readiness)


async def _readiness(shell: Shell, arguments: argparse.Namespace) -> int:
    questions = await makeQuestions(shell)
    found = await questions.readiness(arguments.domain, int(shell.now()) // DAY)
    if arguments.json:
        steps = [_asJSON(each) for each in found]
        shell.output.json({"domain": arguments.domain.ascii, "steps": steps})
    width = shell.output.textWidth
    for position, step in enumerate(found):
        if position:
            shell.output.line()
        for line in _lines(step, width):
            shell.output.line(line)
    return 0


def _lines(step: Step, width: int) -> Iterator[str]:
    yield f"{step.name}: {step.ready}"
    yield from wrapped(f"{step.sentence}.", width, "  ")
    yield from wrapped(f"Now: {step.now}", width, "  ")
    for each in step.evidence:
        yield from wrapped(each, width, "  ")
    for blocker in step.blockers:
        often = f", about {_perDay(blocker.perDay)} a day" if blocker.perDay else ""
        yield from wrapped(f"{blocker.name}: {blocker.problem}{often}", width, "  - ")
        if blocker.remedy:
            yield from wrapped(blocker.remedy, width, "    > ")


def _perDay(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _asJSON(step: Step) -> dict[str, object]:
    return {
        "name": step.name,
        "ready": str(step.ready),
        "now": step.now,
        "sentence": step.sentence,
        "evidence": step.evidence,
        "blockers": [
            {
                "name": each.name,
                "problem": each.problem,
                "per_day": round(each.perDay, 1),
                "remedy": each.remedy,
            }
            for each in step.blockers
        ],
    }
