"""
Checks the reports that one moxtls sends about the domain and the host of another, which
receives them, and reports that Postfix sends in another's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from interop.checks import Checks, waitFor
from interop.domains import FORGED, OTTO, REPORTED, REPORTED_HOST
from interop.environment import Environment
from interop.postfix import MAX_DELIVERY_TIME
from interop.remotepostfix import RemotePostfix
from interop.server import MoxtlsServer, runReceiver
from interop.tlsreports import Tools
from moxtls.lab.scenario import SENDER

CARL = f"carl@{REPORTED}"
_MESSAGE = b"From: %s\nTo: %s\nSubject: interop\n\nHello\n"


def checkReceived(
    checks: Checks,
    environment: Environment,
    sender: MoxtlsServer,
    remote: RemotePostfix,
    tools: Tools,
) -> MoxtlsServer:
    """
    Check both kinds of reports, and forged ones.

    @param sender: Sends the reports.
    @param remote: Sends those that are forged.

    @return: The receiver of the reports, which doesn't run any more.
    """
    with runReceiver(environment, tools.folder, tools.resolver) as receiver:
        sender.send(CARL, _MESSAGE % (b"alice@sender.test", CARL.encode()))
        _await("mail to the second moxtls", lambda: _mail(receiver, CARL))
        _checkTLS(checks, sender, receiver)
        receiver.send(OTTO, _MESSAGE % (CARL.encode(), OTTO.encode()), CARL)
        _await("mail of the second moxtls", lambda: _mail(sender, OTTO, CARL))
        _checkDMARC(checks, sender, receiver)
        _checkForged(checks, receiver, remote)
    return receiver


def _await(what: str, look: Callable[[], object]) -> None:
    waitFor(what, look, MAX_DELIVERY_TIME)


def _mail(server: MoxtlsServer, address: str, text: str = "") -> bool:
    """
    True if a message that contains C{text} is in the account's Inbox.
    """
    files = [*server.maildir(address).glob("new/*")]
    return any(text.encode() in each.read_bytes() for each in files)


def _reports(receiver: MoxtlsServer, kind: str, *more: str) -> list[dict[str, Any]]:
    return receiver.table("report", "list", "--kind", kind, *more)


def _checkTLS(checks: Checks, sender: MoxtlsServer, receiver: MoxtlsServer) -> None:
    """
    The TLS reports to the domain and to its MX host are accepted, and each result is
    counted once, for its own policy domain (RFC 8460 4.3, 5.3).
    """
    command = ("report", "send", "--kind", "tls", "--now", "--json")
    done = json.loads(sender.command(*command))
    checks.same("TLS reports to the second moxtls composed", done, {"composed": 2})
    _await("TLS reports", lambda: len(_reports(receiver, "tls")) == 2)
    found = _reports(receiver, "tls")
    origins = {(each["organization"], each["authentication"]) for each in found}
    signed = {(SENDER, f"DKIM {SENDER}")}
    checks.same("both TLS reports are accepted by their signature", origins, signed)
    for domain in (REPORTED, REPORTED_HOST):
        total, failed = _summary(receiver, domain, "tls")
        checks.same(f"{domain}: sessions and failures", (total, failed), (1, 0))


def _checkDMARC(checks: Checks, sender: MoxtlsServer, receiver: MoxtlsServer) -> None:
    """
    The DMARC report is accepted, and its message counted once.
    """
    command = ("report", "send", "--kind", "dmarc", "--now", "--json")
    done = json.loads(sender.command(*command))
    checks.same("DMARC report to the second moxtls composed", done, {"composed": 1})
    _await("a DMARC report", lambda: _reports(receiver, "dmarc"))
    total, failed = _summary(receiver, REPORTED, "dmarc")
    checks.same(f"{REPORTED}: messages and failures", (total, failed), (1, 0))


def _checkForged(checks: Checks, receiver: MoxtlsServer, remote: RemotePostfix) -> None:
    """
    Reports that are neither signed by nor aligned with their author's domain aren't
    counted, and the reason is shown.
    """
    for sample in FORGED:
        remote.send(sample)

    def refused() -> list[dict[str, Any]]:
        return receiver.table("report", "list", "--refused")

    _await("forged reports", lambda: len(refused()) == len(FORGED))
    reasons = sorted(each["refused"] for each in refused())
    good = [
        reasons[0].startswith("DMARC "),
        "DKIM signature" in reasons[-1],
    ]
    checks.holds("forged reports are refused with their reasons", all(good), reasons)
    for kind in ("tls", "dmarc"):
        total, failed = _summary(receiver, REPORTED, kind)
        checks.same(f"{kind}: nothing of them is counted", (total, failed), (1, 0))


def _summary(receiver: MoxtlsServer, domain: str, kind: str) -> tuple[int, int]:
    """
    Sessions or messages in C{moxtls summary}, and those that failed.
    """
    summary = json.loads(receiver.command("summary", domain, "--json"))
    return summary[kind]["total"], summary[kind]["failed"]
