"""
A reader of short texts in place of reports, and a store that records, for tests.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, execute, fail, succeed

from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    ParsedReport,
    ReadResult,
    RefusedReport,
    Unreadable,
)
from tests.received.intake.test_authenticity import tlsReport


def readWords(argument: tuple[bytes | str, str]) -> ReadResult:
    """
    Read an input of words: C{bad} is unreadable, C{die}, C{sleep} and C{raise} happen
    to the process, any other word is a TLS report with that ID; in a message, the
    words are its body.
    """
    source, name = argument
    text = source if isinstance(source, str) else source.decode()
    text = text.rpartition("\r\n\r\n")[2]
    reports: list[ParsedReport] = []
    unreadable = []
    for word in text.split():
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "sleep":
            time.sleep(30)
        elif word == "raise":
            raise ValueError(name)
        elif word == "bad":
            unreadable.append(Unreadable(name, "it is bad"))
        else:
            reports.append(replace(tlsReport("our.example"), reportID=word))
    return ReadResult(tuple(reports), tuple(unreadable))


class InlineWorker:
    """
    Executes calls at once, in this process.
    """

    def call(self, function: Callable[[Any], Any], argument: Any) -> Deferred[Any]:
        return execute(function, argument)


class RecordingStore:
    """
    Records what is added, in order.

    @ivar failure: What each call fails with.
    """

    def __init__(self) -> None:
        self.stored: list[AcceptedReport | RefusedReport] = []
        self.failure: Exception | None = None

    @property
    def ids(self) -> Sequence[str]:
        """
        The IDs of the reports, or the reasons of what was refused.
        """
        return [
            each.report.reportID if isinstance(each, AcceptedReport) else each.reason
            for each in self.stored
        ]

    def add(self, report: AcceptedReport) -> Deferred[AddResult]:
        if self.failure is not None:
            return fail(self.failure)
        known = [
            each.report for each in self.stored if isinstance(each, AcceptedReport)
        ]
        if report.report in known:
            return succeed(AddResult.DUPLICATE)
        self.stored.append(report)
        return succeed(AddResult.STORED)

    def refuse(self, report: RefusedReport) -> Deferred[None]:
        if self.failure is not None:
            return fail(self.failure)
        self.stored.append(report)
        return succeed(None)
