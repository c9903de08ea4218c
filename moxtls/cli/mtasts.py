# -*- test-case-name: tests.cli.test_mtasts -*-
"""
C{moxtls mtasts}: shows and changes cached MTA-STS policies.
"""

from __future__ import annotations

import argparse
from typing import Any

from moxtls.cli.output import paged
from moxtls.cli.shell import (
    CommandError,
    Shell,
    addCommand,
    addGroup,
    domainArgument,
    moment,
)
from moxtls.mtasts.cache import RefreshResult
from moxtls.mtasts.policy import CachedPolicy

COLUMNS = (
    "Domain",
    "Mode",
    "MX",
    "Max age",
    "ID",
    "Valid until",
    "Fetched",
    "Last use",
)


def add(commands: Any) -> None:
    verbs = addGroup(commands, "mtasts", "cached MTA-STS policies")
    show = addCommand(verbs, "show", "show the cached policy of a domain, or all")
    show.set_defaults(run=_show)
    refresh = addCommand(verbs, "refresh", "fetch the policy of a domain now")
    refresh.set_defaults(run=_refresh)
    drop = addCommand(verbs, "drop", "remove the policy of a domain from the cache")
    drop.set_defaults(run=_drop)
    for verb, nargs in ((show, "?"), (refresh, None), (drop, None)):
        verb.add_argument(
            "domain",
            nargs=nargs,
            type=domainArgument,
            metavar="DOMAIN",
            help="a recipient domain",
        )


async def _show(shell: Shell, arguments: argparse.Namespace) -> int:
    policies = (await shell.ledger()).policies
    listing = shell.output.listing(COLUMNS, empty="No policy is cached.")
    if arguments.domain is None:
        async for each in paged(policies.entries):
            listing.add(_row(each))
    else:
        entry = await policies.load(arguments.domain)
        if entry is None:
            raise CommandError(f"no policy of {arguments.domain} is cached")
        listing.add(_row(entry))
    listing.end()
    return 0


def _row(entry: CachedPolicy) -> tuple[object, ...]:
    policy = entry.policy
    return (
        entry.domain.unicode,
        str(policy.mode) if policy else "back-off",
        list(policy.mx) if policy else [],
        policy.maxAge if policy else None,
        entry.recordID,
        moment(entry.validEnd),
        moment(entry.fetched),
        moment(entry.lastUse),
    )


async def _refresh(shell: Shell, arguments: argparse.Namespace) -> int:
    base = await shell.base(await shell.ledger(make=True))
    found = await base.refresher.refresh(arguments.domain)
    failure = found.failure
    reason = " ".join(
        filter(None, (failure.resultType, failure.reasonCode) if failure else ())
    )
    ending = found.ending.value
    shell.output.done(
        f"{arguments.domain}: {ending}",
        domain=str(arguments.domain),
        ending=ending,
        failure=reason,
    )
    if reason:
        raise CommandError(f"{arguments.domain}: {reason}")
    return 1 if found.ending is RefreshResult.ABSENT else 0


async def _drop(shell: Shell, arguments: argparse.Namespace) -> int:
    policies = (await shell.ledger()).policies
    if not await policies.drop(arguments.domain):
        raise CommandError(f"no policy of {arguments.domain} is cached")
    shell.output.done(f"{arguments.domain}: dropped", domain=str(arguments.domain))
    return 0
