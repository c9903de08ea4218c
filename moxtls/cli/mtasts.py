# -*- test-case-name: tests.cli.test_mtasts -*-
"""
C{moxtls mtasts}: shows and changes cached MTA-STS policies.
"""

from __future__ import annotations

import argparse
from typing import Any

from moxtls.cli.pages import paged
from moxtls.cli.shell import CommandError, Shell, domainArgument, moment
from moxtls.mtasts.policy import CachedPolicy
from moxtls.mtasts.refresh import RefreshResult

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
    group = commands.add_parser("mtasts", help="cached MTA-STS policies")
    verbs = group.add_subparsers(dest="verb", required=True)
    show = verbs.add_parser("show", help="show one policy, or all")
    show.add_argument("domain", nargs="?", type=domainArgument, metavar="DOMAIN")
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=_show)
    refresh = verbs.add_parser("refresh", help="fetch a policy now")
    refresh.add_argument("domain", type=domainArgument, metavar="DOMAIN")
    refresh.add_argument("--json", action="store_true")
    refresh.set_defaults(run=_refresh)
    drop = verbs.add_parser("drop", help="remove a policy from the cache")
    drop.add_argument("domain", type=domainArgument, metavar="DOMAIN")
    drop.add_argument("--json", action="store_true")
    drop.set_defaults(run=_drop)


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
