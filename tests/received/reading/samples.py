"""
Samples of received reports, made by functions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

START = 1790000000
END = START + 86399

HEAD = """\
<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
  <version>1.0</version>
  <report_metadata>
    <org_name>{organization}</org_name>
    <email>dmarc-reports@receiver.example</email>
    <extra_contact_info>https://receiver.example/dmarc</extra_contact_info>
    <report_id>{reportID}</report_id>
    <date_range>
      <begin>{start}</begin>
      <end>{end}</end>
    </date_range>
  </report_metadata>
  <policy_published>
    <domain>{domain}</domain>
    <adkim>r</adkim>
    <aspf>r</aspf>
    <p>none</p>
    <sp>none</sp>
    <pct>100</pct>
  </policy_published>
"""
RECORD = """\
  <record>
    <row>
      <source_ip>{ip}</source_ip>
      <count>{count}</count>
      <policy_evaluated>
        <disposition>none</disposition>
        <dkim>{dkim}</dkim>
        <spf>{spf}</spf>
      </policy_evaluated>
    </row>
    <identifiers>
      <header_from>{author}</header_from>
    </identifiers>
    <auth_results>
      <dkim>
        <domain>{signer}</domain>
        <result>{dkim}</result>
        <selector>{selector}</selector>
      </dkim>
      <spf>
        <domain>{envelope}</domain>
        <result>{spf}</result>
      </spf>
    </auth_results>
  </record>
"""
FOOT = "</feedback>\n"


def aggregateHead(reportID: str = "r-1", organization: str = "receiver.example") -> str:
    """
    Through C{policy_published}.
    """
    return HEAD.format(
        organization=organization,
        reportID=reportID,
        start=START,
        end=END,
        domain="example.org",
    )


def aggregateRecords(rows: int, seed: int = 1) -> Iterator[str]:
    """
    Records as large receivers write them, with varied sources, domains and selectors.
    """
    chance = random.Random(seed)
    for number in range(rows):
        yield RECORD.format(
            ip=_address(chance),
            count=1 + int(chance.expovariate(0.1)),
            dkim=chance.choice(("pass", "pass", "fail")),
            spf=chance.choice(("pass", "fail")),
            author=chance.choice(("example.org", f"news{number % 50}.example.org")),
            signer=chance.choice(("example.org", f"esp{number % 300}.example.net")),
            selector=f"s{chance.randrange(40)}",
            envelope=f"bounce{chance.randrange(400)}.example.com",
        )


def _address(chance: random.Random) -> str:
    if chance.random() < 0.25:
        groups = ":".join(f"{chance.randrange(1, 65536):x}" for _ in range(2))
        return f"2001:db8:{groups}::{chance.randrange(1, 65536):x}"
    return ".".join(str(chance.randrange(1, 255)) for _ in range(4))


def aggregateReport(rows: int = 1, reportID: str = "r-1", seed: int = 1) -> bytes:
    """
    An aggregate report as XML; some 550 octets a row.
    """
    pieces = [aggregateHead(reportID), *aggregateRecords(rows, seed), FOOT]
    return "".join(pieces).encode("utf-8")


def tlsReport(reportID: str = "t-1", domain: str | None = "example.org") -> bytes:
    """
    A TLS report as JSON.

    @param domain: C{None} for one without policy-domain.
    """
    policy = {"policy-type": "sts", "policy-string": ["version: STSv1"]}
    if domain is not None:
        policy["policy-domain"] = domain
    return json.dumps(
        {
            "organization-name": "Sender",
            "date-range": {
                "start-datetime": "2026-11-23T00:00:00Z",
                "end-datetime": "2026-11-23T23:59:59Z",
            },
            "contact-info": "tls@sender.example",
            "report-id": reportID,
            "policies": [
                {
                    "policy": policy,
                    "summary": {
                        "total-successful-session-count": 5,
                        "total-failure-session-count": 2,
                    },
                    "failure-details": [
                        {
                            "result-type": "certificate-expired",
                            "sending-mta-ip": "::ffff:192.0.2.1",
                            "receiving-ip": "2001:DB8::25",
                            "receiving-mx-hostname": "MX.example.org.",
                            "failed-session-count": 2,
                        }
                    ],
                }
            ],
        },
        indent=1,
    ).encode("utf-8")
