"""
Samples of the world outside, read by the parts that they concern.

The tables of MTA-STS and the grammar of TLSRPT records are gone through in
L{tests.mtasts.test_policy} and L{tests.tlsrpt.test_types}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from moxtls.domain import Domain
from moxtls.reporting.destinations import chooseDestinations, readDSN
from moxtls.tlsrpt.generate import findFaults
from moxtls.tlsrpt.parse import (
    MalformedReport,
    ReceivedTLSReport,
    parseReport,
)
from moxtls.tlsrpt.types import TLSRPTRecord, findTLSRPTRecord
from tests.corpus import corpus
from tests.reports import documentIn, readTLSReport

#: The content of each report: organization, start, then for each policy type,
#: domain, sessions that succeeded and failed, and failures by type.
REPORTS = {
    "domainaware_parsedmarc/google.com_smtp_tls_report.eml": (
        "Google Inc.",
        1725321600,
        [("no-policy-found", "cardinalhealth.ca", 48, 0, {})],
    ),
    "domainaware_parsedmarc/mail.ru.json": (
        "Mail.ru",
        1708560000,
        [("sts", "example.com", 0, 1, {"sts-policy-fetch-error": 2})],
    ),
    # RFC 8460 appendix B.
    "domainaware_parsedmarc/rfc8460.json": (
        "Company-X",
        1459468800,
        [
            (
                "sts",
                "company-y.example",
                5326,
                303,
                {
                    "certificate-expired": 100,
                    "starttls-not-supported": 200,
                    "validation-failure": 3,
                },
            )
        ],
    ),
    "domainaware_parsedmarc/smtp_tls.json": (
        "Example Inc.",
        1704758400,
        [("sts", "example.com", 0, 3, {"validation-failure": 3})],
    ),
    "mjl-_mox/example.eml": (
        "Google Inc.",
        1663200000,
        [("sts", "test.xmox.nl", 3, 0, {})],
    ),
    "mjl-_mox/microsoft.eml": (
        "Microsoft Corporation",
        1673308800,
        [("sts", "test.xmox.nl", 2, 0, {})],
    ),
}
#: Tables about what this half of mail transport security reads.
TABLES = {
    "chasquid-mtasts-policy-check.json",
    "checkdmarc-mtasts-policy.json",
    "checkdmarc-mtasts-record.json",
    "checkdmarc-tlsrpt-record.json",
    "mox-mtasts-policy.json",
    "mox-mtasts-record.json",
    "mox-tlsrpt-record.json",
    "multi-mtasts-policy.json",
    "multi-mtasts-record.json",
}
#: DSNs (RFC 3464): the status, where a recipient was given up.
NOTIFICATIONS = {
    "1.eml": "4.0.0",
    "2.eml": "5.0.0",
    "3.eml": "5.0.0",
    "4.eml": None,
    "5.eml": "5.0.0",
    "6.eml": "5.0.0",
    "obsolete_arrival_date.eml": "5.1.1",
}


#: Reports of others that a strict reader takes.
STRICT = {
    "google.com_smtp_tls_report.eml",
    "mail.ru.json",
    "smtp_tls.json",
    "example.eml",
}


class ReportTests(SynchronousTestCase):
    """
    TLS reports of others.
    """

    def reports(self) -> Iterator[tuple[str, bytes]]:
        root = corpus("tls-reports")
        for path in sorted(each for each in root.rglob("*") if each.is_file()):
            yield path.relative_to(root).as_posix(), path.read_bytes()

    def test_contents(self) -> None:
        """
        Every report is read correctly, deviations included.
        """
        found = {name: said(readTLSReport(data)) for name, data in self.reports()}
        self.assertEqual(found, REPORTS)

    def test_strict(self) -> None:
        """
        Large senders leave out what doesn't apply, as moxtls does. Others aren't
        valid by L{findFaults}, not even the example of RFC 8460 appendix B: its
        C{mx-host} is a string (4.4: an array).
        """
        good = {
            name.rpartition("/")[2]
            for name, data in self.reports()
            if not findFaults(
                json.loads(data if name.endswith(".json") else documentIn(data))
            )
        }
        self.assertEqual(good, STRICT)
        path = corpus("tls-reports", "domainaware_parsedmarc", "rfc8460.json")
        faults = findFaults(json.loads(path.read_bytes()))
        self.assertIn("report.policies[0].policy.mx-host is not an array", faults)

    def test_damaged(self) -> None:
        """
        A report that is truncated, or has a flipped bit, is read or refused in one
        line.
        """
        for name, data in self.reports():
            for at in range(0, len(data), 41):
                flipped = bytes([data[at] ^ 4])
                for damaged in (data[:at], data[:at] + flipped + data[at + 1 :]):
                    self.assertTame(name, damaged)

    def assertTame(self, name: str, data: bytes) -> None:
        try:
            readTLSReport(data)
        except MalformedReport as error:
            self.assertTrue(str(error) and str(error).isprintable(), name)

    def test_again(self) -> None:
        """
        Bare JSON, with and without whitespace, is read like the original file.
        """
        for name, data in self.reports():
            text = data if name.endswith(".json") else documentIn(data)
            compact = json.dumps(json.loads(text), separators=(",", ":")).encode()
            self.assertEqual(parseReport(compact), readTLSReport(data), name)


def said(report: ReceivedTLSReport) -> tuple[str, int, list[tuple[object, ...]]]:
    """
    A report as in L{REPORTS}.
    """
    policies: list[tuple[object, ...]] = []
    for each in report.policies:
        failures: dict[str, int] = {}
        for failure in each.failures:
            known = failures.get(failure.resultType, 0)
            failures[failure.resultType] = known + failure.count
        policies.append((each.type, each.domain, each.succeeded, each.failed, failures))
    return report.organization, report.start, policies


class RecordTests(SynchronousTestCase):
    """
    TLSRPT records, from TXT to where reports are sent.
    """

    def cases(self) -> Iterator[dict[str, object]]:
        for name in sorted(TABLES):
            if "tlsrpt" in name:
                path = corpus("records", name)
                yield from json.loads(path.read_text())["cases"]

    def test_tables(self) -> None:
        """
        No table about our subjects is left out here.
        """
        folder = corpus("records")
        found = {
            path.name
            for subject in ("tlsrpt", "mtasts")
            for path in folder.glob(f"*{subject}*.json")
        }
        self.assertEqual(found, TABLES)

    def test_uris(self) -> None:
        """
        The URIs of all rua fields are found, in order (RFC 8460 3), and each is a
        valid destination.
        """
        number = 0
        for case in self.cases():
            expect = case["expect"]
            assert isinstance(expect, dict)
            if "rua_per_tag" not in expect:
                continue
            number += 1
            uris = tuple(uri for tag in expect["rua_per_tag"] for uri in tag)
            found = findTLSRPTRecord([b"v=spf1 -all", str(case["input"]).encode()])
            assert isinstance(found, TLSRPTRecord), case
            self.assertEqual(found.rua, uris, case)
            chosen, reasons = chooseDestinations(found.rua)
            self.assertEqual((len(chosen), reasons), (len(uris), ()), case)
        self.assertGreater(number, 3)


class NotificationTests(SynchronousTestCase):
    """
    DSNs as hosts send them.
    """

    def paths(self) -> list[Path]:
        folder = corpus("dmarc-reports", "KumoCorp_kumomta", "rfc3464")
        return sorted(folder.glob("*.eml"))

    def test_notifications(self) -> None:
        """
        Whether each DSN is about a failure, and its status.
        """
        found: dict[str, str | None] = {}
        for path in self.paths():
            notification = readDSN(path.read_bytes())
            assert notification is not None, path
            status = notification.detail.partition(" ")[0]
            found[path.name] = status if notification.failed else None
        self.assertEqual(found, NOTIFICATIONS)

    def test_cutOff(self) -> None:
        """
        DSNs truncated anywhere can be read.
        """
        for path in self.paths():
            data = path.read_bytes()
            for end in range(0, len(data), 29):
                readDSN(data[:end])

    def test_notOthers(self) -> None:
        """
        A report is no notification; its policy domains are in A-labels (RFC 8460
        4.4).
        """
        for path in corpus("tls-reports").rglob("*.eml"):
            self.assertIsNone(readDSN(path.read_bytes()), path)
            report = readTLSReport(path.read_bytes())
            for each in report.policies:
                self.assertEqual(Domain.parse(each.domain).ascii, each.domain)
