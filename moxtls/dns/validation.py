# -*- test-case-name: tests.dns.test_validation -*-
"""
Diagnoses whether DNS servers validate DNSSEC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from twisted.internet.defer import Deferred

from moxtls.dns.transport import NoReply, SendQuery
from moxtls.dns.types import NameServer, RRType
from moxtls.dns.wire import Question
from moxtls.tasks import gather

#: The root zone is signed, and known to every validating server.
ROOT = "."
#: Both exist in each zone; two, because datagrams get lost.
_KINDS = (RRType.SOA, RRType.NS)


class ServerStatus(Enum):
    """
    The result of a probe for one server.
    """

    VALIDATING = "validates DNSSEC"
    NOT_VALIDATING = "doesn't validate DNSSEC"
    NOT_TRUSTED = "says that it validates DNSSEC, but isn't trusted"
    NOT_ANSWERING = "doesn't answer"


@dataclass(frozen=True, slots=True)
class ServerReport:
    """
    One server, and the result of its probe.

    @ivar detail: The reason why it doesn't answer.
    """

    server: NameServer
    status: ServerStatus
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.server} {self.status.value}{detail}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """
    The results of a probe of all servers.
    """

    reports: tuple[ServerReport, ...]

    @property
    def validating(self) -> bool:
        return any(each.status is ServerStatus.VALIDATING for each in self.reports)

    @property
    def explanation(self) -> str:
        """
        One line: each server with its status.
        """
        return "; ".join(map(str, self.reports)) or "no DNS server is configured"

    def describe(self) -> str:
        """
        The consequences, and the remedy, for the operator.
        """
        statuses = {each.status for each in self.reports}
        if self.validating:
            return f"DNS answers are validated: {self.explanation}."
        if statuses == {ServerStatus.NOT_ANSWERING}:
            return f"{_NOBODY}: {self.explanation}. {_CORRECT}."
        trust = _OR_TRUST if ServerStatus.NOT_TRUSTED in statuses else ""
        return f"{_OFF}: {self.explanation}. {_INSTALL}{trust}."


_NOBODY = "NO DNS SERVER ANSWERS, so that no mail leaves"
_CORRECT = "Start it, or correct its address"
_OFF = (
    "DANE IS OFF: mail goes out without the protection of TLSA records, and "
    "forged DNS answers are not noticed, because no DNS server that is trusted "
    "validates"
)
_INSTALL = (
    "Install a validating resolver, such as unbound, on this host and have it "
    "asked (nameserver 127.0.0.1)"
)
_OR_TRUST = "; or, if nobody can interfere on the way to it, declare it trusted"


async def diagnose(
    ask: SendQuery, servers: Sequence[NameServer], name: str = ROOT
) -> Diagnosis:
    """
    Probe all servers, at the same time.

    @param ask: Sends a query; has to time out by itself.
    @param name: A zone that is signed, with a chain of trust known to the servers.
    """
    reports = [Deferred.fromCoroutine(_report(ask, each, name)) for each in servers]
    return Diagnosis(tuple(await gather(reports)))


async def _report(ask: SendQuery, server: NameServer, name: str) -> ServerReport:
    detail = ""
    answered = False
    for kind in _KINDS:
        # The AD bit is read here even if the server isn't trusted, to tell the
        # operator what trusting it would do.
        reply = await ask(
            replace(server, trusted=True), Question(name.removesuffix("."), kind)
        )
        if isinstance(reply, NoReply) or reply.failed:
            detail = reply.reason
        elif reply.authentic:
            isTrusted = server.trustsAD
            status = ServerStatus.VALIDATING if isTrusted else ServerStatus.NOT_TRUSTED
            return ServerReport(server, status)
        else:
            answered = True
    if answered:
        return ServerReport(server, ServerStatus.NOT_VALIDATING)
    return ServerReport(server, ServerStatus.NOT_ANSWERING, detail)
