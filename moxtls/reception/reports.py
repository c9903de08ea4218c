# -*- test-case-name: tests.reception.test_reports -*-
"""
Takes in the reports of other hosts in messages to the addresses for them.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.config import Config
from moxtls.message.addresses import authorDomains
from moxtls.message.header import REPORT_RESULT, ClientInfo, Header
from moxtls.message.spooled import SpooledMessage
from moxtls.received.intake.authenticity import judge, judgeMailed, withoutRepeated
from moxtls.received.intake.intake import IntakeResult, Judged, ReportIntake
from moxtls.received.reading.documents import MAX_INPUT
from moxtls.received.types import (
    AcceptedReport,
    AddResult,
    Channel,
    Origin,
    ParsedReport,
    ReceivedKind,
    RefusedReport,
    TakenReports,
)
from moxtls.reception.policy import Recipient
from moxtls.reception.recipients import Target
from moxtls.smtp.rates import networkOf

#: Characters of the first reason in the header field.
MAX_REASON = 400
#: Characters of a line (RFC 5322 2.1.1), less the tab that continues it.
_LINE_LENGTH = 77

#: What authenticates reports that this host itself has made.
THIS_HOST = "this host"
TOO_LARGE = f"the message is larger than {MAX_INPUT // 2**20} MB"

_NAMES = {
    ReceivedKind.TLS: "TLS report",
    ReceivedKind.DMARC: "DMARC report",
    ReceivedKind.FAILURE: "DMARC failure report",
}


class MailedReports:
    """
    Takes in reports that come by mail.
    """

    log = Logger()

    def __init__(
        self, clock: IReactorTime, intake: ReportIntake, config: Config
    ) -> None:
        """
        @param clock: For dates.
        """
        self._clock = clock
        self._intake = intake
        self._ours = config.reportedDomains
        self._host = config.hostname.ascii
        self._separate = frozenset(
            domain.ascii
            for domain, local in config.domains.items()
            if local.tlsrpt is not None
        )

    async def take(
        self,
        client: ClientInfo,
        header: Header,
        outcome: AuthenticationOutcome | None,
        spooled: SpooledMessage,
        recipients: Sequence[Recipient],
    ) -> TakenReports | None:
        """
        Take in the reports of a message, if it has a recipient that is for reports.

        @param outcome: C{None} if the message wasn't authenticated.

        @return: Once all is stored.  C{None} without such a recipient; and for mail of
            a local user, as nobody vouches for reports that it passes on.

        @raise ReadingUnavailable: The message is to be sent again later.
        @raise AuthenticationUnavailable: The same.
        @raise Exception: The same, as the ledger failed.
        """
        targets = [one for each in recipients for one in each.targets]
        reported = {each.reported for each in targets if each.isForReports}
        if not reported or client.user:
            return None
        authors = authorDomains(header).domains
        sender = authors[0].ascii if authors else ""
        origin = Origin(Channel.MAIL, sender, "", self._clock.seconds())
        if spooled.size > MAX_INPUT:
            results = await self._intake.add([RefusedReport(origin, TOO_LARGE)])
        else:
            about = reported.pop() if len(reported) == 1 else ""
            network = networkOf(client.address).network
            results = await self._intake.take(
                spooled.chunks(),
                origin,
                lambda report: self._judged(report, origin, outcome, about),
                client=network,
            )
        return self._taken(sender, client.address, results)

    async def takeOwn(self, path: Path, sender: str, target: Target) -> TakenReports:
        """
        Take in a report that this host has made itself: also about its own domains.

        @param path: The message.
        @param sender: Its envelope sender.

        @raise Exception: As L{take}.
        """
        domain = sender.rpartition("@")[2]
        origin = Origin(Channel.MAIL, domain, THIS_HOST, self._clock.seconds())
        results = await self._intake.take(
            str(path),
            origin,
            partial(judge, origin=origin, ours=self._ours, reported=target.reported),
        )
        return self._taken(domain, THIS_HOST, results)

    def _judged(
        self,
        report: ParsedReport,
        origin: Origin,
        outcome: AuthenticationOutcome | None,
        reported: str,
    ) -> Judged:
        judged = judgeMailed(report, origin, outcome, self._ours, reported)
        return withoutRepeated(judged, self._host, self._separate, reported)

    def _taken(
        self, sender: str, host: str, results: Sequence[IntakeResult]
    ) -> TakenReports:
        what = describeResults(results)
        self.log.info(
            "reports from {sender!r} at {host}: {what}",
            sender=sender,
            host=host,
            what=what,
        )
        isAccepted = all(each.added is not None for each in results)
        return TakenReports(reportField(what), isAccepted)


def describeResults(results: Sequence[IntakeResult]) -> str:
    """
    Describe the results of the reports in a message in printable ASCII: C{accepted, 2
    TLS reports; refused, the reason}.
    """
    parts = []
    kinds: Counter[ReceivedKind] = Counter()
    known = 0
    reasons = []
    for each in results:
        if isinstance(each.judged, AcceptedReport):
            kinds[each.judged.report.kind] += 1
            known += each.added is AddResult.DUPLICATE
        else:
            reasons.append(each.judged.reason)
    if kinds:
        counts = [_counted(count, _NAMES[kind]) for kind, count in kinds.items()]
        before = f", {known} known before" if known else ""
        parts.append(f"accepted, {', '.join(counts)}{before}")
    if reasons:
        others = f" (and {_counted(len(reasons) - 1, 'other')})" if reasons[1:] else ""
        parts.append(f"refused, {_shown(reasons[0])}{others}")
    return "; ".join(parts)


def reportField(text: str) -> bytes:
    """
    The header field about the reports in a message, with its CRLF.

    @param text: As from L{describeResults}.
    """
    name = REPORT_RESULT.decode().title()
    lines = textwrap.wrap(
        f"{name}: {text}",
        _LINE_LENGTH,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\r\n\t".join(lines).encode("ascii") + b"\r\n"


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _shown(text: str) -> str:
    cut = text[:MAX_REASON]
    return "".join(each if " " <= each <= "~" else "?" for each in cut)
