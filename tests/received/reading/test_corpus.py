"""
Every sample of the world outside with what is read of it.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from moxtls.received.reading.read import parseRaw, readReports
from moxtls.received.types import (
    ParsedReport,
    RawFormat,
    ReceivedKind,
    RowBlock,
    RowOutcome,
)
from tests.corpus import cases, corpus

TLS, DMARC, FAILURE = ReceivedKind
#: Characters of a path.
MAX_NAME = 60

#: By the end of the path: kind, organization, report ID, total and failed of each
#: report, or the reason why it is refused.
Table = dict[str, tuple[tuple[ReceivedKind, str, str, int, int], ...] | str]

NO_REPORT = "message: there is no report in it"
COMPLAINT = "message: a report of type 'abuse', not 'auth-failure'"
INVALID = "line 5, column 18: not well-formed (invalid token)"

CASES: Table = {
    "dmarc-additional-empty-dkim.xml": ((DMARC, "reporter.example", "r-1", 3, 0),),
    "dmarc-bare-ampersand.xml": ((DMARC, "Mail & More", "r-1", 3, 0),),
    "dmarc-empty-disposition.xml": ((DMARC, "reporter.example", "r-1", 3, 0),),
    "dmarc-forwarded-as-attachment.eml": ((DMARC, "reporter.example", "r-1", 3, 0),),
    "dmarc-gb2312.xml": ((DMARC, "报告", "r-1", 3, 0),),
    "dmarc-gzip-two-members.xml.gz": ((DMARC, "reporter.example", "r-1", 3, 0),),
    "dmarc-macos.zip": ((DMARC, "reporter.example", "r-1", 3, 0),),
    "dmarc-namespaced-no-declaration.xml": ((DMARC, "reporter.example", "r-1", 3, 0),),
    "dmarc-two-reports.zip": (
        (DMARC, "reporter.example", "r-1", 3, 0),
        (DMARC, "reporter.example", "r-2", 3, 0),
    ),
    "tls-counts-as-strings.json": (
        (TLS, "Reporter Example", "20250920.example.com@reporter.example", 42, 0),
    ),
    "tls-empty-addresses.json": (
        (TLS, "Reporter Example", "20250920.example.com@reporter.example", 1, 1),
    ),
    "tls-latin1-octet.json": (
        (TLS, "Caf� Example", "20250920.example.com@reporter.example", 5, 0),
    ),
    "tls-no-policy-domain.json": (
        (TLS, "Reporter Example", "20250920.example.com@reporter.example", 1, 0),
    ),
    "tls-one-of-two-without-policy-domain.json": (
        (TLS, "Reporter Example", "20250920.example.com@reporter.example", 6, 0),
    ),
    "tls-sloppy-names.json": (
        (TLS, "Reporter Example", "20250920.example.com@reporter.example", 3, 3),
    ),
}

DMARC_REPORTS: Table = {
    "KumoCorp_kumomta/rfc3464/1.eml": NO_REPORT,
    "KumoCorp_kumomta/rfc3464/2.eml": NO_REPORT,
    "KumoCorp_kumomta/rfc3464/3.eml": NO_REPORT,
    "KumoCorp_kumomta/rfc3464/4.eml": NO_REPORT,
    "KumoCorp_kumomta/rfc3464/5.eml": NO_REPORT,
    "KumoCorp_kumomta/rfc3464/6.eml": NO_REPORT,
    "KumoCorp_kumomta/rfc3464/obsolete_arrival_date.eml": NO_REPORT,
    "KumoCorp_kumomta/rfc5965/1.eml": COMPLAINT,
    "KumoCorp_kumomta/rfc5965/2.eml": COMPLAINT,
    "KumoCorp_kumomta/rfc5965/3.eml": COMPLAINT,
    "KumoCorp_kumomta/rfc5965/4.eml": COMPLAINT,
    "domainaware_parsedmarc/empty.xml": NO_REPORT,
    "_parsedmarc/aggregate/!example.com!1538204542!1538463818.xml": (
        (DMARC, "", "example.com:1538463741", 1, 1),
    ),
    "dmarc/aggregate/!large-example.com!1711897200!1711983600.xml": (
        (DMARC, "", "example.com:1711897200", 2286, 2286),
    ),
    ".com Submitter- google.com Report-ID- 949348866075514174.eml": (
        (DMARC, "google.com", "949348866075514174", 1, 1),
    ),
    "egate/addisonfoods.com!example.com!1536105600!1536191999.xml": (
        (DMARC, "addisonfoods.com", "3ceb5548498640beaeb47327e202b0b9", 1, 1),
    ),
    "domainaware_parsedmarc/aggregate/empty_reason.xml": (
        (DMARC, "example.org", "20240125141224705995", 2, 0),
    ),
    "onacot.gob.mx!example.com!1536853302!1536939702!2940.xml.zip": (
        (DMARC, "XYZ Corporation", "2940", 1, 1),
    ),
    "/aggregate/example.net!example.com!1529366400!1529452799.xml": (
        (DMARC, "example.net", "b043f0e264cf4ea995e93765242f6dfb", 1, 1),
    ),
    "tmail.com!example.com!1516060800!1516147199!102675056.xml.gz": (
        (DMARC, "FastMail Pty Ltd", "102675056", 1, 1),
    ),
    "marc/aggregate/ikea.com!example.de!1538690400!1538776800.xml": (
        (DMARC, "ikea.com", "aggr_report_2018_10_05_5bc7e9b4f3e8a", 1, 1),
    ),
    "domainaware_parsedmarc/aggregate/invalid_utf_8.xml": (
        (DMARC, "", "example.com:1538463741", 1, 1),
    ),
    "domainaware_parsedmarc/aggregate/invalid_xml.xml": INVALID,
    "domainaware_parsedmarc/aggregate/mimecast-weird-gzip.eml": (
        (
            DMARC,
            "Mimecast",
            "157a5fe30ec76f4bc0d8bccfc96c118a167a1280fee7c7465af5115e73082e5e",
            1,
            0,
        ),
    ),
    "domainaware_parsedmarc/aggregate/old_draft_from_wiki.xml": (
        (DMARC, "acme.com", "9391651994964116463", 2, 0),
    ),
    "protection.outlook.com!example.com!1711756800!1711843200.xml": (
        (DMARC, "Outlook.com", "cfeafefe4129445e8c81018bd9177197", 1, 1),
    ),
    "te/rfc9990-example.net!example.com!1700000000!1700086399.xml": (
        (DMARC, "example.net", "dmarcbis-test-report-001", 7, 2),
    ),
    "domainaware_parsedmarc/aggregate/rfc9990-sample.xml": (
        (DMARC, "Sample Reporter", "3v98abbp8ya9n3va8yr8oa3ya", 123, 0),
    ),
    "domainaware_parsedmarc/aggregate/twilight.eml": (
        (DMARC, "google.com", "1627703331531660819", 1, 0),
    ),
    "rc/aggregate/usssa.com!example.com!1538784000!1538870399.xml": (
        (DMARC, "usssa.com", "8953b4d4a4ee4218b6ac0e2cb2667ee1", 2, 2),
    ),
    "rc/aggregate/veeam.com!example.com!1530133200!1530219600.xml": (
        (DMARC, "veeam.com", "sonexushealth.com:1530233361", 1, 1),
    ),
    "arsedmarc/aggregate_invalid/report_with_upper_cased_pass.xml": (
        (DMARC, "example.com", "aggr_report_example.com_20191202_1638", 1, 0),
    ),
    "domainaware_parsedmarc/extract_report/changed-input.xml": (
        (DMARC, "fred.com", "11038226378739404135", 3047, 0),
    ),
    "domainaware_parsedmarc/extract_report/nice-input.xml": (
        (DMARC, "google.com", "11038226378739404135", 3047, 0),
    ),
    "domainaware_parsedmarc/extract_report/nice-input.xml.gz": (
        (DMARC, "google.com", "11038226378739404135", 3047, 0),
    ),
    "domainaware_parsedmarc/extract_report/nice-input.xml.zip": (
        (DMARC, "google.com", "11038226378739404135", 3047, 0),
    ),
    "main.de (mail-from=sharepoint@domain.de, ip=10.10.10.10).eml": (
        (
            FAILURE,
            "domain.de",
            "<OF587285BA.CB01D107-ONC1258319.00334FCF@LocalDomain>",
            1,
            1,
        ),
    ),
    "arc/failure/[Netease DMARC Failure Report] Rent Reminder.eml": (
        (FAILURE, "163.com", "<5BADEAEC.AC2A83.17156@m12-184.163.com>", 1, 1),
    ),
    "naware_parsedmarc/failure/dmarc_ruf_report_linkedin.crlf.eml": (
        (
            FAILURE,
            "linkedin.com",
            "<BB.91.26019.C3EA7CC5@mail516.prod.linkedin.com>",
            1,
            1,
        ),
    ),
    "domainaware_parsedmarc/failure/dmarc_ruf_report_linkedin.eml": (
        (
            FAILURE,
            "linkedin.com",
            "<BB.91.26019.C3EA7CC5@mail516.prod.linkedin.com>",
            1,
            1,
        ),
    ),
    "ware_parsedmarc/failure/exim_plain_text_only_no_arf_part.eml": NO_REPORT,
    "mjl-_mox/google.eml": ((DMARC, "google.com", "13488712042596170873", 5, 0),),
    "mjl-_mox/mailru.eml": ((DMARC, "Mail.Ru", "82403907998914102491559779200", 1, 1),),
    "mjl-_mox/outlook.eml": (
        (DMARC, "Outlook.com", "8be4eb9d89044800947965b8a040291c", 2, 0),
    ),
    "mjl-_mox/xs4all.eml": (
        (
            DMARC,
            "xs4all.nl",
            "xs4all.nl.1627349682.9725429@dmarc-reports.xs4all.net",
            1,
            0,
        ),
    ),
    "mjl-_mox/yahoo.eml": ((DMARC, "Yahoo! Inc.", "1559613526.307161", 1, 0),),
    "msimerson_mail-dmarc/test_dmarc.xml": (
        (DMARC, "Test Sender", "1234567890", 1, 0),
    ),
    "msimerson_mail-dmarc/test_dmarc.xml.gz": (
        (DMARC, "Test Sender", "1234567890", 1, 0),
    ),
    "msimerson_mail-dmarc/test_dmarc.xml.zip": (
        (DMARC, "Test Sender", "1234567890", 1, 0),
    ),
}

TLS_REPORTS: Table = {
    "domainaware_parsedmarc/google.com_smtp_tls_report.eml": (
        (TLS, "Google Inc.", "2024-09-03T00:00:00Z_cardinalhealth.ca", 48, 0),
    ),
    "domainaware_parsedmarc/mail.ru.json": (
        (TLS, "Mail.ru", "b28254de-7b2e-be36-bb5c-4c3b92da8b25@mail.ru", 1, 1),
    ),
    "domainaware_parsedmarc/rfc8460.json": (
        (TLS, "Company-X", "5065427c-23d3-47ca-b6e0-946ea0e8c4be", 5629, 303),
    ),
    "domainaware_parsedmarc/smtp_tls.json": (
        (TLS, "Example Inc.", "2024-01-09T00:00:00Z_example.com", 3, 3),
    ),
    "mjl-_mox/example.eml": (
        (TLS, "Google Inc.", "2022-09-15T00:00:00Z_test.xmox.nl", 3, 0),
    ),
    "mjl-_mox/microsoft.eml": (
        (TLS, "Microsoft Corporation", "133198585438131172+test.xmox.nl", 2, 0),
    ),
}

#: The kind of each format.
FORMATS = {RawFormat.JSON: TLS, RawFormat.XML: DMARC, RawFormat.MESSAGE: FAILURE}


def read(path: Path) -> tuple[tuple[ReceivedKind, str, str, int, int], ...] | str:
    """
    The content of a file as in the tables.
    """
    found = readReports(str(path))
    if found.unreadable:
        return " ".join(each.reason for each in found.unreadable)
    return tuple(
        (each.kind, each.organization, each.reportID, each.total, each.failed)
        for each in found.reports
    )


class CorpusTests(SynchronousTestCase):
    """
    Tests for L{readReports} with files of others.
    """

    maxDiff = None

    def check(self, folder: Path, table: Table) -> None:
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        paths = [each.relative_to(folder).as_posix() for each in files]
        found = {
            name[-MAX_NAME:]: read(path)
            for name, path in zip(paths, files, strict=True)
        }
        self.assertEqual(len(found), len(files))
        self.assertEqual(found, table)
        for each in files:
            for report in readReports(str(each)).reports:
                self.assertKept(report)

    def assertKept(self, report: ParsedReport) -> None:
        """
        What is kept can be read again, with the same content.
        """
        self.assertEqual(FORMATS[report.format], report.kind)
        [again] = readReports(report.raw).reports
        self.assertEqual(again.content == report.content, report.kind != FAILURE)
        self.assertEqual(
            (again.kind, again.total, again.domain),
            (report.kind, report.total, report.domain),
        )
        parseRaw(report.format, report.raw)

    def test_dmarc(self) -> None:
        """
        DMARC reports of many receivers (RFC 9990, RFC 7489, RFC 6591), and messages
        that are none.
        """
        self.check(corpus("dmarc-reports"), DMARC_REPORTS)

    def test_tls(self) -> None:
        """
        TLS reports of large senders (RFC 8460).
        """
        self.check(corpus("tls-reports"), TLS_REPORTS)

    def test_cases(self) -> None:
        """
        Files of the kinds that real senders and mail programs make.
        """
        self.check(cases("reports"), CASES)

    def case(self, name: str) -> ParsedReport:
        [report] = readReports(str(cases("reports", name))).reports
        return report

    def test_tlsCases(self) -> None:
        """
        Missing domains are empty, names of drafts are known, and empty addresses
        stay empty (RFC 8460 4.4).
        """
        report = self.case("tls-one-of-two-without-policy-domain.json")
        self.assertEqual([each.domain for each in report.policies], ["example.com", ""])
        [policy] = self.case("tls-sloppy-names.json").policies
        [failure] = policy.failures
        self.assertEqual(policy.mxHosts, ("*.example.com",))
        self.assertEqual(
            (failure.mxHostname, failure.reasonCode, failure.additional),
            ("mx.example.com", "x509", "https://reporter.example/why"),
        )
        [policy] = self.case("tls-empty-addresses.json").policies
        self.assertEqual(policy.failures[0].sendingIP, "")
        self.assertEqual(policy.failures[0].mxHostname, "mx.example.com")

    def test_dmarcCases(self) -> None:
        """
        An empty disposition isn't C{none}; empty results aren't kept (RFC 9990
        3.1.1.11).
        """
        report = self.case("dmarc-empty-disposition.xml")
        [row] = RowBlock.decode(report.blocks[0]).rows
        self.assertEqual(row.outcome, RowOutcome.OTHER | RowOutcome.DKIM)
        report = self.case("dmarc-additional-empty-dkim.xml")
        [details] = RowBlock.decode(report.blocks[0]).details.values()
        self.assertEqual(
            json.loads(details),
            {
                "dkim": [["example.com", "", "pass", ""]],
                "header_from": "example.com",
            },
        )
