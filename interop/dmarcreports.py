"""
Checks DMARC reports that Postfix delivered to mailboxes, with other programs.
"""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

from interop.checks import Checks, InteropError
from interop.domains import (
    FAILURES,
    OLD_FORMAT,
    SAMPLES,
    STRICT,
)
from interop.environment import Environment
from interop.processes import output, run
from interop.remotepostfix import RemotePostfix
from interop.rows import ASKING, Row, comparedTags, expectedRows, published
from interop.server import MoxtlsServer
from interop.tlsreports import Tools, checkSignatures
from moxtls.lab.scenario import SENDER

PROGRAM = Path(__file__).parent / "report.pl"
NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"
GZIP = "application/gzip"


def checkAggregates(
    checks: Checks,
    environment: Environment,
    server: MoxtlsServer,
    remote: RemotePostfix,
    tools: Tools,
) -> None:
    """
    Send the reports of the day, and read those that arrive.
    """
    command = ("report", "send", "--kind", "dmarc", "--now", "--json")
    done = json.loads(server.command(*command))
    checks.same("reports on mail composed", done, {"composed": len(ASKING)})
    files = {each.domain: remote.awaitMail(each.reports)[0] for each in ASKING}
    parsed = _parsed(tools, list(files.values()))
    for each in ASKING:
        domain, message = each.domain, files[each.domain].read_bytes()
        expected = expectedRows(environment, domain)
        checkSignatures(checks, tools, domain, message)
        _checkParsed(checks, domain, parsed.get(domain), expected)
    _checkOldFormat(checks, tools, files[OLD_FORMAT.domain], environment)
    _checkControls(checks, tools, files[STRICT.domain].read_bytes(), environment)
    _checkFailures(checks, environment, remote, tools)
    rows = server.table("report", "sent", "--kind", "dmarc")
    states = [each["state"] for each in rows]
    checks.same("report states in moxtls", states, ["delivered"] * len(ASKING))
    again = json.loads(server.command(*command))
    checks.same("reports on mail are sent once", again, {"composed": 0})
    complaints = remote.complaints(remote.label)
    checks.same("Postfix has no complaints about reports", complaints, [])


# --- parsedmarc -----------------------------------------------------------------


def _run(tools: Tools, files: Sequence[Path]) -> Path:
    """
    Run parsedmarc.

    @return: The folder of its output.
    """
    result = tools.folder / "parsed-mail"
    shutil.rmtree(result, ignore_errors=True)
    run([tools.parsedmarc, "--offline", "--silent", "-o", result, *files])
    return result


def _parsed(tools: Tools, files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """
    Aggregate reports as parsedmarc reads them, by domain.
    """
    found = _run(tools, files) / "aggregate.json"
    reports = json.loads(found.read_bytes()) if found.exists() else []
    return {each["policy_published"]["domain"]: each for each in reports}


def _checkParsed(
    checks: Checks,
    domain: str,
    report: dict[str, Any] | None,
    expected: Sequence[Row],
) -> None:
    differences = list(_differences(report, domain, expected))
    count = sum(each.count for each in expected)
    what = f"{domain}: parsedmarc reads of {count} messages in {len(expected)} records"
    checks.same(what, differences, [])


def _differences(
    report: dict[str, Any] | None, domain: str, expected: Sequence[Row]
) -> Iterator[str]:
    if report is None:
        yield "no report"
        return
    metadata, policy = report["report_metadata"], report["policy_published"]
    isOld = domain == OLD_FORMAT.domain
    for name, is_, should in (
        ("namespace", report["xml_namespace"], None if isOld else NAMESPACE),
        ("org_name", metadata["org_name"], SENDER),
        ("email", metadata["org_email"], f"postmaster@{SENDER}"),
        ("errors", metadata["errors"], []),
        # Up to now.
        ("a day at most", metadata["original_timespan_seconds"] < 86400, True),
        ("discovery", policy["discovery_method"], None if isOld else "treewalk"),
        ("policy", comparedTags(policy), published(domain)),
        ("records", sorted(map(_parsedRow, report["records"])), list(expected)),
    ):
        if is_ != should:
            yield f"{name} is {is_}, not {should}"


def _parsedRow(record: dict[str, Any]) -> Row:
    evaluated, names = record["policy_evaluated"], record["identifiers"]
    results = record["auth_results"]
    return Row(
        record["source"]["ip_address"],
        names["header_from"],
        names["envelope_from"],
        record["count"],
        evaluated["disposition"],
        evaluated["dkim"],
        evaluated["spf"],
        tuple(
            sorted((r["domain"], r["selector"], r["result"]) for r in results["dkim"])
        ),
        tuple(sorted((r["domain"], r["scope"], r["result"]) for r in results["spf"])),
    )


# --- Mail::DMARC ----------------------------------------------------------------


def _checkOldFormat(
    checks: Checks, tools: Tools, file: Path, environment: Environment
) -> None:
    """
    Mail::DMARC reads the format of RFC 7489, without an XML namespace.
    """
    config = tools.folder / "dmarc.ini"
    read = json.loads(output([PROGRAM, config, file]))
    rows = [
        Row(
            each["source_ip"],
            each["header_from"],
            each["envelope_from"],
            each["count"],
            each["disposition"],
            each["dkim"],
            each["spf"],
            tuple(sorted(map(tuple, each["auth_dkim"]))),
            tuple(sorted(map(tuple, each["auth_spf"]))),
        )
        for each in read["records"]
    ]
    domain = OLD_FORMAT.domain
    what = f"{domain}: Mail::DMARC reads the same rows in the format of RFC 7489"
    checks.same(what, sorted(rows), expectedRows(environment, domain))
    metadata, policy = read["metadata"], read["policy"]
    head = (metadata["org_name"], policy["domain"], policy["sp"], policy["pct"])
    should = (SENDER, domain, published(domain)["sp"], "100")
    checks.same(f"{domain}: Mail::DMARC reads the metadata and policy", head, should)


# --- controls -------------------------------------------------------------------


def _checkControls(
    checks: Checks, tools: Tools, message: bytes, environment: Environment
) -> None:
    """
    Every change of a report is detected.
    """
    changed = message[:-40] + bytes([message[-40] ^ 1]) + message[-39:]
    verdicts = [each[2] for each in tools.signatures(changed)]
    good = len(verdicts) == 2 and "pass" not in verdicts
    checks.holds(f"a byte of the report changed: {' and '.join(verdicts)}", good)
    domain = STRICT.domain

    def differing(change: Callable[[str], str]) -> list[str]:
        file = tools.folder / "changed.eml"
        file.write_bytes(_altered(message, change))
        report = _parsed(tools, [file]).get(domain)
        return list(_differences(report, domain, expectedRows(environment, domain)))

    checks.same(
        "compressed again, the report is the same", differing(lambda text: text), []
    )
    more = differing(lambda text: text.replace("<count>1<", "<count>2<", 1))
    noticed = [each for each in more if each.startswith("records")]
    checks.holds("an additional message is detected", len(more) == 1 and noticed, more)
    unread = differing(lambda text: text.replace("date_range", "range"))
    checks.same("without dates, parsedmarc reads no report", unread, ["no report"])


def _altered(message: bytes, change: Callable[[str], str]) -> bytes:
    """
    The message with a changed report.
    """
    parsed: Message[str, str] = message_from_bytes(message)
    (part,) = [each for each in parsed.walk() if each.get_content_type() == GZIP]
    packed = part.get_payload(decode=True)
    assert isinstance(packed, bytes)
    text = change(gzip.decompress(packed).decode("utf-8"))
    packed = gzip.compress(text.encode("utf-8"))
    part.set_payload(base64.encodebytes(packed).decode("ascii"))
    return parsed.as_bytes()


# --- failure reports ------------------------------------------------------------


def _checkFailures(
    checks: Checks, environment: Environment, remote: RemotePostfix, tools: Tools
) -> None:
    """
    With C{fo=1}, there is a failure report for each message that SPF or DKIM doesn't
    pass aligned.
    """
    samples = [
        each
        for each in SAMPLES
        if each.policy == STRICT.domain and len(each.expected.aligned) < 2
    ]
    address = f"{FAILURES}@{STRICT.domain}"
    files = remote.awaitMail(address, len(samples))
    for file in files:
        checkSignatures(checks, tools, address, file.read_bytes())
    found = _run(tools, files) / "failure.json"
    if not found.exists():
        raise InteropError("parsedmarc sees no failure reports")
    reports = json.loads(found.read_bytes())
    facts = sorted(
        (each["source"]["ip_address"], each["reported_domain"], each["delivery_result"])
        for each in reports
    )
    expected = sorted(
        (
            environment.network.address(each.via.number),
            STRICT.domain,
            "reject" if each.isSpoofed else "delivered",
        )
        for each in samples
    )
    checks.same(f"{address}: parsedmarc reads {len(expected)} reports", facts, expected)
    names = [each.envelope.encode() for each in samples]
    told = [each for each in names if any(each in f.read_bytes() for f in files)]
    checks.same(f"{address}: envelope senders are redacted", told, [])
