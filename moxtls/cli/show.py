# -*- test-case-name: tests.cli.test_show -*-
"""
C{moxtls report show}: reports that others sent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from moxtls.calendar import rfc3339
from moxtls.cli.shell import Refusal, Shell
from moxtls.tlsrpt.received import (
    LARGEST_JSON,
    ReceivedFailure,
    ReceivedPolicy,
    ReceivedReport,
    describe,
    readReport,
)

#: The name for what comes on standard input.
STDIN = "-"


async def show(shell: Shell, arguments: argparse.Namespace) -> int:
    """
    All files are read before any is shown: an error is all there is then.
    """
    files: list[str] = arguments.files
    reports = [_read(shell, each) for each in files]
    if arguments.json:
        named = zip(files, reports, strict=True)
        shell.output.json([{"file": name, **document(each)} for name, each in named])
    for name, report in zip(files, reports, strict=True):
        if name is not files[0]:
            shell.output.line()
        if len(files) > 1:
            shell.output.line(f"{name}:")
        for line in describe(report):
            shell.output.line(line)
    return 0


def document(report: ReceivedReport) -> dict[str, object]:
    """
    A report in the words of RFC 8460 4.4, whatever it was written like.
    """
    return {
        "organization-name": report.organization,
        "date-range": {
            "start-datetime": rfc3339(report.start),
            "end-datetime": rfc3339(report.end),
        },
        "contact-info": report.contact,
        "report-id": report.reportID,
        "policies": [_policy(each) for each in report.policies],
    }


def _policy(policy: ReceivedPolicy) -> dict[str, object]:
    return {
        "policy": {
            "policy-type": policy.type,
            "policy-string": policy.strings,
            "policy-domain": policy.domain,
            "mx-host": policy.mxHosts,
        },
        "summary": {
            "total-successful-session-count": policy.succeeded,
            "total-failure-session-count": policy.failed,
        },
        "failure-details": [_failure(each) for each in policy.failures],
    }


def _failure(failure: ReceivedFailure) -> dict[str, object]:
    fields: dict[str, object] = {
        "result-type": failure.resultType,
        "sending-mta-ip": failure.sendingIP,
        "receiving-mx-hostname": failure.mxHostname,
        "receiving-mx-helo": failure.mxHELO,
        "receiving-ip": failure.receivingIP,
        "failed-session-count": failure.count,
        "additional-information": failure.additional,
        "failure-reason-code": failure.reasonCode,
    }
    return {name: value for name, value in fields.items() if value != ""}


def _read(shell: Shell, file: str) -> ReceivedReport:
    try:
        if file == STDIN:
            return readReport(shell.stdin.read(LARGEST_JSON + 1))
        with Path(file).open("rb") as opened:
            return readReport(opened.read(LARGEST_JSON + 1))
    except OSError as error:
        raise Refusal(f"{file}: {error.strerror}") from None
    except ValueError as error:
        # A MalformedReport, or a name that no file can have.
        raise Refusal(f"{file}: {error}") from None
