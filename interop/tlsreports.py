"""
Checks TLS reports that Postfix delivered to a mailbox, with other programs.
"""

from __future__ import annotations

import base64
import email
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from interop.checks import Checks, InteropError
from interop.environment import DANE, PEERS, REPORT_ADDRESS
from interop.postfix import Destination
from interop.processes import run
from interop.server import MoxtlsServer
from moxtls.lab.scenario import SENDER

DKIM = Path(__file__).parent / "dkim.pl"
ALGORITHMS = ["ed25519-sha256", "rsa-sha256"]
GZIP = "application/tlsrpt+gzip"


@dataclass(frozen=True, slots=True)
class Tools:
    """
    Programs that read reports.

    @ivar resolver: The DNS server for keys.
    @ivar parsedmarc: The program.
    @ivar folder: For its output.
    """

    resolver: tuple[str, int]
    parsedmarc: Path
    folder: Path

    def signatures(self, message: bytes) -> list[tuple[str, ...]]:
        """
        Algorithm, domain and result of each DKIM signature.

        @raise InteropError: Mail::DKIM fails.
        """
        done = run([DKIM, *map(str, self.resolver)], message)
        if done.returncode:
            raise InteropError(f"{DKIM.name}: {done.stderr.decode('utf-8', 'replace')}")
        lines = (each.split("\t") for each in done.stdout.decode().splitlines())
        return sorted((line[0], line[2], line[3]) for line in lines)

    def parsed(self, message: bytes) -> dict[str, Any] | None:
        """
        The report in a message as parsedmarc reads it; C{None} for none.
        """
        file, result = self.folder / "report.eml", self.folder / "parsed"
        file.write_bytes(message)
        found = result / "smtp_tls.json"
        found.unlink(missing_ok=True)
        run([self.parsedmarc, "--offline", "--silent", "-o", result, file])
        reports = json.loads(found.read_bytes()) if found.exists() else []
        if len(reports) > 1:
            raise InteropError(f"parsedmarc sees {len(reports)} reports in one message")
        return reports[0] if reports else None


def checkReports(
    checks: Checks, sender: MoxtlsServer, destination: Destination, tools: Tools
) -> None:
    """
    Send the reports of the day, and read those that arrive.
    """
    rows = sender.table("results")
    done = json.loads(sender.command("report", "send", "--now", "--json"))
    checks.same("reports composed", done, {"composed": len(PEERS)})
    files = destination.awaitMail(REPORT_ADDRESS, len(PEERS))
    messages = {_domainOf(each): each for each in (f.read_bytes() for f in files)}
    domains = sorted(peer.domain for peer in PEERS)
    checks.same("reports arrived for", sorted(messages), domains)
    for domain, message in sorted(messages.items()):
        checkSignatures(checks, tools, domain, message)
        _checkParsed(checks, tools, domain, message, rows)
    if DANE.domain not in messages:
        raise InteropError(f"no report for {DANE.domain}")
    _checkControls(checks, tools, messages[DANE.domain], rows)
    _checkDeliveredReports(checks, sender, destination)


def _domainOf(message: bytes) -> str:
    return str(email.message_from_bytes(message)["TLS-Report-Domain"])


def checkSignatures(checks: Checks, tools: Tools, domain: str, message: bytes) -> None:
    """
    Check that Mail::DKIM verifies both signatures of a report.
    """
    expected = [(each, SENDER, "pass") for each in ALGORITHMS]
    words = f"{domain}: Mail::DKIM verifies {' and '.join(ALGORITHMS)}"
    checks.same(words, tools.signatures(message), expected)


def _checkParsed(
    checks: Checks,
    tools: Tools,
    domain: str,
    message: bytes,
    rows: list[dict[str, Any]],
) -> None:
    parsed = tools.parsed(message)
    differences = list(_differences(parsed, domain, rows))
    checks.same(
        f"{domain}: parsedmarc reads the results of the ledger", differences, []
    )


def _differences(
    parsed: dict[str, Any] | None, domain: str, rows: list[dict[str, Any]]
) -> Iterator[str]:
    """
    Differences between the report for C{domain} as parsedmarc reads it and the output
    of C{moxtls results} before.
    """
    mine = [each for each in rows if each["recipient_domain"] == domain]
    if parsed is None or not mine:
        yield f"{len(mine)} rows in the ledger, report {'un' * (not parsed)}read"
        return
    expected = {
        "organization_name": SENDER,
        "contact_info": f"postmaster@{SENDER}",
        "begin_date": f"{mine[0]['day']}T00:00:00Z",
    }
    for name, should in expected.items():
        if parsed[name] != should:
            yield f"{name} {parsed[name]}, not {should}"
    # Up to now.
    if not parsed["begin_date"] < parsed["end_date"] <= f"{mine[0]['day']}T23:59:59Z":
        yield f"end_date {parsed['end_date']}"
    policies = sorted(map(_policy, parsed["policies"]))
    results = sorted(map(_result, mine))
    if policies != results:
        yield f"policies {policies}, not {results}"


_Policy = tuple[str, str, int, int, list[str]]


def _policy(policy: dict[str, Any]) -> _Policy:
    """
    One of parsedmarc's policies, in the form of C{moxtls results}.
    """
    details = sorted(
        f"{' '.join(_words(each))}: {each['failed_session_count']}"
        for each in policy.get("failure_details", [])
    )
    succeeded = policy["successful_session_count"]
    failed = policy["failed_session_count"]
    name = policy["policy_domain"]
    return policy["policy_type"], name, succeeded, failed, details


def _words(failure: dict[str, Any]) -> Iterator[str]:
    yield failure["result_type"]
    if "failure_reason_code" in failure:
        yield failure["failure_reason_code"]


def _result(row: dict[str, Any]) -> _Policy:
    return (
        row["policy"],
        row["policy_domain"],
        row["success"],
        row["failure"],
        sorted(row["failure_details"]),
    )


def _checkControls(
    checks: Checks, tools: Tools, message: bytes, rows: list[dict[str, Any]]
) -> None:
    """
    Every change of a report is detected.
    """
    changed = {
        "of the body": message[:-40] + bytes([message[-40] ^ 1]) + message[-39:],
        "of TLS-Report-Domain": message.replace(
            b"TLS-Report-Domain: p", b"TLS-Report-Domain: q"
        ),
    }
    for what, other in changed.items():
        verdicts = [each[2] for each in tools.signatures(other)]
        good = other != message and len(verdicts) == 2 and "pass" not in verdicts
        checks.holds(f"a byte {what} changed: {' and '.join(verdicts)}", good)

    def oneMore(report: dict[str, Any]) -> None:
        report["policies"][0]["summary"]["total-successful-session-count"] += 1

    def noDates(report: dict[str, Any]) -> None:
        del report["date-range"]

    parsed = tools.parsed(_altered(message, oneMore))
    noticed = parsed is not None and list(_differences(parsed, DANE.domain, rows))
    checks.holds("an additional session is detected", noticed)
    unread = tools.parsed(_altered(message, noDates))
    checks.same("without dates, parsedmarc reads no report", unread, None)


def _altered(message: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """
    The message with a changed report.
    """
    parsed: Message[str, str] = email.message_from_bytes(message)
    (part,) = [each for each in parsed.walk() if each.get_content_type() == GZIP]
    packed = part.get_payload(decode=True)
    assert isinstance(packed, bytes)
    report = json.loads(gzip.decompress(packed))
    change(report)
    packed = gzip.compress(json.dumps(report).encode())
    part.set_payload(base64.encodebytes(packed).decode("ascii"))
    return parsed.as_bytes()


def _checkDeliveredReports(
    checks: Checks, sender: MoxtlsServer, destination: Destination
) -> None:
    """
    Reports are delivered once, and their delivery causes no reports (RFC 8460 3).
    """
    sent = [each["state"] for each in sender.table("report", "sent")]
    checks.same("report states in moxtls", sent, ["delivered"] * 3)
    again = json.loads(sender.command("report", "send", "--now", "--json"))
    checks.same("reports cause no reports", again, {"composed": 0})
    complaints = destination.complaints(DANE.label)
    checks.same("Postfix has no complaints about reports", complaints, [])
