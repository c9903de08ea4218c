# -*- test-case-name: tests.cli.test_probe -*-
"""
C{moxtls probe}: tests a delivery to a domain without sending mail.
"""

from __future__ import annotations

import argparse
from typing import Any

from moxtls.cli.output import record
from moxtls.cli.shell import Shell, addCommand, domainArgument
from moxtls.dates import spanOfDay, utcDay
from moxtls.delivery.probe import HostProbe, ProbeResult
from moxtls.delivery.probe import probe as probeDomain
from moxtls.tls.session import SessionRecord, certificateFailure
from moxtls.tlsrpt.generate import TLSReportMetadata, composeReport
from moxtls.tlsrpt.recorder import OutcomeRecorder
from moxtls.tlsrpt.types import FailureDetail, PolicyTally

HOSTS = ("Host", "Address", "STARTTLS", "Certificate", "DANE", "Enforced", "Taken")
POLICIES = ("Policy domain", "Policy", "Success", "Failure", "Failure details")


def add(commands: Any) -> None:
    probe = addCommand(
        commands,
        "probe",
        "look up a domain's policies and connect to its hosts; no mail is sent",
    )
    probe.add_argument(
        "domain", type=domainArgument, metavar="DOMAIN", help="a recipient domain"
    )
    probe.set_defaults(run=_probe)


async def _probe(shell: Shell, arguments: argparse.Namespace) -> int:
    base = await shell.base()
    diagnosis = await base.resolver.probe()
    shell.output.line(diagnosis.describe())
    shell.output.progress(f"connecting to the hosts of {arguments.domain}")
    observer = OutcomeRecorder(base.clock, base.ledger.outcomes, enabled=False)
    found = await probeDomain(base.deliveryContext(observer), arguments.domain)
    shell.output.progressEnded()
    if arguments.json:
        resolver = {"resolver": diagnosis.describe()}
        shell.output.json(resolver | _asJSON(found, shell))
    else:
        _show(found, shell)
    return 0 if any(each.ready for each in found.hosts) else 1


def _show(found: ProbeResult, shell: Shell) -> None:
    shell.output.table(HOSTS, map(_host, found.hosts), empty="No host was reached.")
    for error in found.errors:
        words = (error.host, error.status, error.text)
        shell.output.line(" ".join(word for word in words if word))
    shell.output.line("")
    shell.output.table(
        POLICIES,
        map(_policy, _tallies(found)),
        title="What would be reported",
        empty="Nothing would be reported.",
    )


def _tallies(found: ProbeResult) -> tuple[PolicyTally, ...]:
    outcome = found.outcome
    own = (outcome.recipient,) if outcome.recipient is not None else ()
    return (*own, *outcome.hosts)


def _host(host: HostProbe) -> tuple[object, ...]:
    attempt, record = host.attempt, host.record
    settings = attempt.settings
    return (
        attempt.host,
        record.receivingIP,
        record.starttls.name.lower().replace("_", " "),
        _certificate(record),
        record.dane.name.lower().replace("_", " "),
        [
            *(["DANE"] if settings.dane else []),
            *(["Web PKI"] if settings.enforcePKIX else []),
        ],
        host.ready,
    )


def _certificate(record: SessionRecord) -> str:
    if record.verification is None:
        return ""
    failure = certificateFailure(record.verification)
    return "good" if failure is None else " ".join(filter(None, failure))


def _policy(tally: PolicyTally) -> tuple[object, ...]:
    policy = tally.policy
    return (
        policy.domain.unicode,
        str(policy.type),
        tally.succeeded,
        tally.failed,
        [_failure(each) for each in sorted(tally.failures)],
    )


def _failure(failure: FailureDetail) -> str:
    return " ".join(filter(None, (failure.resultType, failure.reasonCode)))


def _asJSON(found: ProbeResult, shell: Shell) -> dict[str, object]:
    """
    The TLS report as it would be written, and the errors of hosts.
    """
    hostname = shell.configFiles.config.hostname
    span = spanOfDay(utcDay(shell.now()))
    report = composeReport(TLSReportMetadata(hostname, "probe", span), _tallies(found))
    return {
        "domain": str(found.outcome.recipientDomain),
        "hosts": [record(HOSTS, _host(each)) for each in found.hosts],
        "troubles": [
            {"host": each.host, "status": each.status, "text": each.text}
            for each in found.errors
        ],
        "policies": report["policies"],
    }
