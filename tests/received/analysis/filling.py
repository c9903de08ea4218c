"""
A ledger with a month of received reports about C{example.org}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from moxtls.dates import DAY, HOUR, rfc3339
from moxtls.ledger.ledger import Ledger
from moxtls.received.reading.read import readReports
from moxtls.received.types import (
    AcceptedReport,
    CertificateSeen,
    Channel,
    HandshakeFailures,
    Origin,
    ParsedReport,
    RefusedReport,
)

EXPIRED = "tls-remote-alert-45-expired-certificate"


@dataclass(frozen=True)
class Row:
    """
    A record of an aggregate report.

    @ivar dkim: The signer; empty without a valid signature.
    @ivar spf: The domain that passed SPF; may be empty.
    """

    ip: str
    count: int
    dkim: str = ""
    spf: str = ""
    disposition: str = "none"


def parsed(data: bytes, name: str = "") -> ParsedReport:
    """
    The only report in C{data}.
    """
    [report] = readReports(data, name).reports
    return report


def tlsReport(
    day: int,
    organization: str = "google.com",
    succeeded: int = 100,
    failures: Iterable[dict[str, object]] = (),
    domain: str = "example.org",
) -> bytes:
    """
    A TLS report about one day, as JSON.

    @param failures: Entries of C{failure-details}.
    """
    details = list(failures)
    failed = sum(int(str(each["failed-session-count"])) for each in details)
    return json.dumps(
        {
            "organization-name": organization,
            "date-range": {
                "start-datetime": rfc3339(day * DAY),
                "end-datetime": rfc3339(day * DAY + DAY - 1),
            },
            "contact-info": f"tls@{organization}",
            "report-id": f"{day}-{organization}-{domain}",
            "policies": [
                {
                    "policy": {
                        "policy-type": "sts",
                        "policy-domain": domain,
                        "policy-string": ["version: STSv1", "mode: testing"],
                    },
                    "summary": {
                        "total-successful-session-count": succeeded,
                        "total-failure-session-count": failed,
                    },
                    "failure-details": details,
                }
            ],
        }
    ).encode()


def failure(
    count: int, kind: str = "certificate-expired", host: str = "mail.example.org"
) -> dict[str, object]:
    """
    An entry of C{failure-details}.
    """
    return {
        "result-type": kind,
        "failed-session-count": count,
        "receiving-mx-hostname": host,
        "receiving-ip": "192.0.2.1",
    }


def aggregateReport(
    day: int,
    rows: Iterable[Row],
    organization: str = "google.com",
    domain: str = "example.org",
) -> bytes:
    """
    An aggregate report about one day, as XML.
    """
    records = "".join(_record(each, domain) for each in rows)
    return (
        f"<feedback><report_metadata><org_name>{organization}</org_name>"
        f"<email>dmarc@receiver.example</email><report_id>{day}-{organization}"
        f"</report_id><date_range><begin>{day * DAY}</begin><end>{day * DAY + DAY - 1}"
        f"</end></date_range></report_metadata><policy_published><domain>{domain}"
        f"</domain><p>none</p></policy_published>{records}</feedback>"
    ).encode()


def _record(row: Row, domain: str) -> str:
    def result(signer: str) -> str:
        return "pass" if signer == domain else "fail"

    dkim = f"<dkim><domain>{row.dkim}</domain><result>pass</result></dkim>"
    spf = f"<spf><domain>{row.spf}</domain><result>pass</result></spf>"
    return (
        f"<record><row><source_ip>{row.ip}</source_ip><count>{row.count}</count>"
        f"<policy_evaluated><disposition>{row.disposition}</disposition>"
        f"<dkim>{result(row.dkim)}</dkim><spf>{result(row.spf)}</spf>"
        f"</policy_evaluated></row><identifiers><header_from>{domain}</header_from>"
        f"</identifiers><auth_results>{dkim if row.dkim else ''}"
        f"{spf if row.spf else ''}</auth_results></record>"
    )


async def accept(ledger: Ledger, data: bytes, received: float) -> None:
    """
    Store a report as accepted.
    """
    origin = Origin(Channel.MAIL, "google.com", "DKIM google.com", received)
    await ledger.received.add(AcceptedReport(parsed(data), origin))


async def fill(ledger: Ledger, today: int) -> None:
    """
    A month until yesterday.  The certificate of mail.example.org expired four days ago,
    and was replaced yesterday; a newsletter is sent without a signature.
    """
    received = float(today * DAY + 6 * HOUR)
    for day in range(today - 30, today):
        isExpired = today - 4 <= day
        broken = [failure(10)] if isExpired else []
        await accept(ledger, tlsReport(day, "google.com", 140, broken), received)
        await accept(ledger, tlsReport(day, "Microsoft", 30), received)
        rows = [
            Row("192.0.2.1", 100, "example.org", "example.org"),
            Row("198.51.100.7", 4, "sendgrid.net", "sendgrid.net"),
            Row("203.0.113.9", 1, "", "evil.example", "reject"),
        ]
        await accept(ledger, aggregateReport(day, rows), received)
        await accept(ledger, aggregateReport(day, rows[:1], "Yahoo"), received)
    forged = RefusedReport(
        Origin(Channel.MAIL, "evil.example", "", received),
        "no valid DKIM signature",
        None,
        parsed(tlsReport(today - 1, "evil.example")),
    )
    await ledger.received.refuse(forged)
    names = ("mail.example.org",)
    expiry = float((today - 4) * DAY)
    history = ledger.listenerHistory
    for since, until in ((today - 90, expiry), (today - 0.5, expiry + 90 * DAY)):
        seen = CertificateSeen(
            "mail.example.org/mx", since * DAY, f"{since}", names, 0, until
        )
        await history.addCertificate(seen)
    hour = (today - 3) * DAY
    # Another node has failures of its own.
    others = HandshakeFailures("mail2.example.org/mx", hour, EXPIRED, 77)
    await history.addFailures([others])
    await history.addFailures(
        [HandshakeFailures("mail.example.org/mx", hour, EXPIRED, 31)]
    )
