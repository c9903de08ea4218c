# -*- test-case-name: tests.lab.test_received -*-
"""
The reports about the lab's domain that its senders send to moxtls, with what has to
become of each.

They are written here, independently of the composers and parsers under test.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate

from twisted.internet.interfaces import IReactorTCP, IReactorTime

from moxtls.dates import DAY, rfc3339
from moxtls.lab.mail import OutgoingMessage, Route, SMTPAnswer, post
from moxtls.lab.messages import signed
from moxtls.lab.scenario import SENDER, SENDING_HOST, TLD
from moxtls.lab.senders import BY_NAME, addressOf
from moxtls.received.interfaces import IReceivedReportStore
from moxtls.received.types import ReceivedKind, ReportFilter, StoredReport

#: Reports that are looked at.
MAX_REPORTS = 1000
#: In the TLS report: sessions that succeeded and failed.
SUCCEEDED, FAILED = 118, 2
#: In the DMARC report: messages from each source, and whether DKIM and SPF are aligned.
ROWS = (
    ("192.0.2.10", 40, "pass", "pass", SENDER),
    ("198.51.100.20", 3, "pass", "fail", f"forwarder.{TLD}"),
    ("203.0.113.30", 5, "fail", "fail", f"bulk.{TLD}"),
)


@dataclass(frozen=True, slots=True)
class LabReport:
    """
    A report about the lab's domain. Senders are given by their names.

    @ivar explanation: One line for the operator.
    @ivar author: The sender in From.
    @ivar client: The sender whose host delivers it.
    @ivar refused: A part of the reason why it isn't accepted; empty if it is.
    """

    name: str
    explanation: str
    kind: ReceivedKind
    author: str
    client: str
    isSigned: bool = True
    refused: str = ""

    @property
    def domain(self) -> str:
        """
        The domain of C{author}.
        """
        return BY_NAME[self.author].domain

    @property
    def recipient(self) -> str:
        """
        The address for reports of its kind.
        """
        return f"{self.kind}reports@{SENDER}"


REPORTS = (
    LabReport("tls", "signed TLS report", ReceivedKind.TLS, "reporter", "reporter"),
    LabReport(
        "dmarc", "aligned DMARC report", ReceivedKind.DMARC, "reporter", "reporter"
    ),
    LabReport(
        "tls-forged",
        "forged TLS report",
        ReceivedKind.TLS,
        "reporter",
        "forger",
        isSigned=False,
        refused="DKIM signature",
    ),
    LabReport(
        "dmarc-forged",
        "forged DMARC report",
        ReceivedKind.DMARC,
        "reporter",
        "forger",
        isSigned=False,
        refused="DMARC fails",
    ),
)


@dataclass(frozen=True, slots=True)
class ReportReception:
    """
    The result of a report that was sent.

    @ivar stored: As it is in the ledger; C{None} if it isn't.
    """

    labReport: LabReport
    answer: SMTPAnswer
    stored: StoredReport | None

    @property
    def differences(self) -> tuple[str, ...]:
        """
        Differences from what has to become of it, one line each.
        """
        return tuple(f"{self.labReport.explanation}: {e}" for e in self._differences())

    def _differences(self) -> Iterator[str]:
        if self.answer.code != 250:
            yield f"reply is {self.answer.code}, not 250"
        if self.stored is None:
            yield "it is not in the ledger"
            return
        reason, expected = self.stored.refused, self.labReport.refused
        if expected not in reason or bool(expected) != bool(reason):
            yield f"it is refused because {reason!r}, not {expected!r}"
        counts = (self.stored.total, self.stored.failed)
        if not expected and counts != _COUNTS[self.labReport.kind]:
            yield f"it counts {counts}, not {_COUNTS[self.labReport.kind]}"


_COUNTS = {
    ReceivedKind.TLS: (SUCCEEDED + FAILED, FAILED),
    ReceivedKind.DMARC: (
        sum(row[1] for row in ROWS),
        sum(row[1] for row in ROWS if row[2:4] == ("fail", "fail")),
    ),
}


async def receiveReports(
    reactor: IReactorTime,
    route: Route,
    store: IReceivedReportStore,
    now: float,
    reports: Sequence[LabReport] = REPORTS,
) -> tuple[ReportReception, ...]:
    """
    Send each of C{reports}, and look it up in the ledger.

    @param reactor: Also provides C{IReactorTCP}.
    @param now: Unix seconds; the reports are about the day before.
    """
    sent = [await _send(reactor, route, each, now) for each in reports]
    found = await store.reports(ReportFilter(refused=None), MAX_REPORTS)
    stored = {each.reportID: each for each in found}
    return tuple(
        ReportReception(each, answer, stored.get(reportID))
        for each, (reportID, answer) in zip(reports, sent, strict=True)
    )


async def _send(
    reactor: IReactorTime, route: Route, report: LabReport, now: float
) -> tuple[str, SMTPAnswer]:
    """
    @return: The report ID, and the reply.
    """
    client, reportID = BY_NAME[report.client], f"{report.name}.{route.newToken()}"
    message = writtenReport(report, reportID, now)
    if report.isSigned:
        message = signed(message, report.author, route.keys[report.author])
    outgoing = OutgoingMessage(
        addressOf(route.network, client),
        client.host,
        f"reports@{client.domain}",
        report.recipient,
        message,
    )
    to = (route.network.submission, route.network.smtpPort)
    return reportID, await post(IReactorTCP(reactor), to, outgoing)


def writtenReport(report: LabReport, reportID: str, now: float) -> bytes:
    """
    The message with the report, unsigned.
    """
    start = int(now // DAY - 1) * DAY
    message = EmailMessage()
    message["From"] = f"Reports <reports@{report.domain}>"
    message["To"] = report.recipient
    message["Subject"] = (
        f"Report Domain: {SENDER} Submitter: {report.domain} Report-ID: {reportID}"
    )
    message["Date"] = formatdate(now)
    message["Message-ID"] = f"<{reportID}@{report.domain}>"
    message.set_content("This is a report.\n")
    if report.kind is ReceivedKind.TLS:
        content, subtype = _tlsReport(report.domain, reportID, start), "tlsrpt+gzip"
    else:
        content, subtype = _aggregateReport(report.domain, reportID, start), "gzip"
    name = f"{report.domain}!{SENDER}!{start}!{start + DAY - 1}"
    message.add_attachment(
        gzip.compress(content, mtime=0),
        maintype="application",
        subtype=subtype,
        filename=f"{name}.{'json' if subtype != 'gzip' else 'xml'}.gz",
    )
    return message.as_bytes().replace(b"\n", b"\r\n")


def _tlsReport(organization: str, reportID: str, start: int) -> bytes:
    """
    RFC 8460 4.4
    """
    failure = {
        "result-type": "certificate-expired",
        "sending-mta-ip": "192.0.2.10",
        "receiving-mx-hostname": SENDING_HOST,
        "failed-session-count": FAILED,
    }
    policy = {
        "policy-type": "sts",
        "policy-domain": SENDER,
        "policy-string": ["version: STSv1", "mode: testing", f"mx: {SENDING_HOST}"],
        "mx-host": [SENDING_HOST],
    }
    summary = {
        "total-successful-session-count": SUCCEEDED,
        "total-failure-session-count": FAILED,
    }
    entry = {"policy": policy, "summary": summary, "failure-details": [failure]}
    report = {
        "organization-name": organization,
        "date-range": {
            "start-datetime": rfc3339(start),
            "end-datetime": rfc3339(start + DAY - 1),
        },
        "contact-info": f"reports@{organization}",
        "report-id": reportID,
        "policies": [entry],
    }
    return json.dumps(report).encode("ascii")


def _aggregateReport(organization: str, reportID: str, start: int) -> bytes:
    """
    RFC 9990 appendix B
    """
    signature = (
        f"<dkim><domain>{SENDER}</domain><selector>lab</selector>"
        "<result>pass</result></dkim>"
    )
    records = "".join(
        f"<record><row><source_ip>{source}</source_ip><count>{count}</count>"
        f"<policy_evaluated><disposition>none</disposition><dkim>{dkim}</dkim>"
        f"<spf>{spf}</spf></policy_evaluated></row><identifiers>"
        f"<header_from>{SENDER}</header_from></identifiers><auth_results>"
        f"{signature if dkim == 'pass' else ''}<spf><domain>{domain}</domain>"
        "<result>pass</result></spf></auth_results></record>"
        for source, count, dkim, spf, domain in ROWS
    )
    return (
        '<?xml version="1.0"?><feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">'
        f"<report_metadata><org_name>{organization}</org_name>"
        f"<email>reports@{organization}</email><report_id>{reportID}</report_id>"
        f"<date_range><begin>{start}</begin><end>{start + DAY - 1}</end></date_range>"
        f"</report_metadata><policy_published><domain>{SENDER}</domain>"
        f"<p>reject</p></policy_published>{records}</feedback>"
    ).encode("ascii")
