# -*- test-case-name: tests.twistedmail.test_server -*-
"""
The verdicts of this package for servers made with C{twisted.mail.smtp}::

    screening = Screening(checks, audience, folder, enforce=True)
    factory = captureServer(reactor, factory, screening)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.authentication.check import MessageAuthenticator
from moxtls.authentication.headerfields import authenticationResults, receivedSPF
from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.dmarc.types import FinalDisposition, VerdictEvent
from moxtls.domain import Address, InvalidAddress
from moxtls.message.header import Header
from moxtls.message.spooled import SpooledMessage
from moxtls.message.trace import ClientInfo
from moxtls.reception.message import StreamingMessage
from moxtls.reception.observers import VerdictDispatcher
from moxtls.reception.policy import (
    Decision,
    authenticatedOrganization,
    decide,
    isReport,
    mayAnswerReport,
    needsHistory,
)
from moxtls.reception.recipients import isPostmaster
from moxtls.reception.reportaddresses import ReportAddresses
from moxtls.smtp.server.data import HEADER_TOO_LONG
from moxtls.twistedmail.server import FilterResult, IFilteredMessage, IMessageFilter


@implementer(IMessageFilter)
class MessageFilter:
    """
    Judges mail, and refuses what DMARC says is to be refused if that is
    wanted.
    """

    def __init__(
        self,
        checks: MessageAuthenticator,
        audience: VerdictDispatcher,
        folder: Path,
        enforce: bool = False,
        reportAddresses: ReportAddresses | None = None,
    ) -> None:
        """
        @param audience: Is told of each message once for each recipient; its
            history is that of the recipients' addresses, in lower case.
        @param folder: For large messages while they come in.
        @param enforce: Whether anything is refused; else all is taken, with
            what should have been done in its header.
        @param reportAddresses: Mail to them alone is no reason for a report.
        """
        self.checks = checks
        self.audience = audience
        self.enforce = enforce
        self.reportAddresses = reportAddresses
        self._folder = folder

    def expect(self, client: ClientInfo, sender: str) -> None:
        self.checks.prefetch(client, sender)

    def message(self, client: ClientInfo, sender: str) -> IFilteredMessage:
        examination = self.checks.startMessage(client, sender)
        reading = StreamingMessage(SpooledMessage(self._folder), examination)
        return FilteredMessage(self, client, sender, reading)


@implementer(IFilteredMessage)
class FilteredMessage:
    """
    Judges one message.
    """

    log = Logger()

    def __init__(
        self,
        screening: MessageFilter,
        client: ClientInfo,
        sender: str,
        reading: StreamingMessage,
    ) -> None:
        self._screening = screening
        self._client = client
        self._sender = sender
        self._reading = reading

    def write(self, chunk: bytes) -> None:
        try:
            self._reading.write(chunk)
        except OSError:
            raise
        except Exception:
            # It is there, if not examined.
            self.log.failure("examining a message")
            self._reading.giveUp()

    def finish(self, recipients: Sequence[str]) -> Deferred[FilterResult]:
        return Deferred.fromCoroutine(self._finish(recipients))

    def close(self) -> None:
        self._reading.close()

    async def _finish(self, recipients: Sequence[str]) -> FilterResult:
        reading = self._reading
        if reading.isTooLong:
            return FilterResult(HEADER_TOO_LONG)
        header = reading.end()
        try:
            return await self._judged(header, recipients)
        except CancelledError:
            raise
        except Exception:
            # Mail isn't lost for that (RFC 9989 5.3.6).
            self.log.failure("judging a message from {who!r}", who=self._client.address)
            return self._passed(_unknown(self._screening.checks.hostname))

    async def _judged(self, header: Header, recipients: Sequence[str]) -> FilterResult:
        findings = await self._reading.outcome()
        if findings is None:
            # Examining it went wrong on the way.
            return self._passed(_unknown(self._screening.checks.hostname))
        decision = decide(findings, self._sender)
        if not self._screening.enforce:
            decision = Decision(FinalDisposition.ACCEPTED)
        events = tuple(
            [
                await self._told(findings, decision, header, recipient)
                for recipient in recipients
            ]
        )
        if decision.refusal is not None:
            return FilterResult(decision.refusal, events=events)
        await self._remember(findings, decision, recipients)
        return self._passed(self._trace(findings), events)

    async def _told(
        self,
        findings: AuthenticationOutcome,
        decision: Decision,
        header: Header,
        recipient: str,
    ) -> VerdictEvent:
        audience = self._screening.audience
        event = VerdictEvent(
            findings.authentication,
            findings.verdict,
            decision.finalDisposition,
            self._sender,
            recipient,
            isForReports=isReport(findings.verdict, header.data)
            or await self._isForReports(recipient, header),
            header=header.data,
        )
        discovery = findings.verdict.discovery
        if discovery and needsHistory(event, audience.reportsFailures):
            author = discovery.organizational
            isKnown = await audience.isKnown([recipient.lower()], author)
            event = replace(event, isKnown=isKnown)
        await audience.dispatch(event)
        return event

    async def _isForReports(self, recipient: str, header: Header) -> bool:
        known = self._screening.reportAddresses
        try:
            address = Address.parse(recipient)
        except InvalidAddress:
            return False
        localPart = address.localPart
        mine = isPostmaster(localPart)
        if mayAnswerReport(localPart, mine, self._sender, header.data):
            return True
        return known is not None and await known.include(address)

    async def _remember(
        self,
        findings: AuthenticationOutcome,
        decision: Decision,
        recipients: Sequence[str],
    ) -> None:
        author = authenticatedOrganization(findings, decision)
        if author is not None:
            for account in dict.fromkeys(each.lower() for each in recipients):
                await self._screening.audience.recordReceived(account, author)

    def _trace(self, findings: AuthenticationOutcome) -> bytes:
        hostname, sender = self._screening.checks.hostname, self._sender
        found = findings.authentication
        results = authenticationResults(hostname, found, findings.verdict, sender)
        return results + receivedSPF(hostname, found, sender, self._client.helo)

    def _passed(
        self, trace: bytes, events: tuple[VerdictEvent, ...] = ()
    ) -> FilterResult:
        message = self._reading.chunks(self._screening.checks.hostname)
        return FilterResult(None, trace, message, events)


def _unknown(hostname: str) -> bytes:
    """
    RFC 8601 2.7: a later attempt may find out more.
    """
    results = "".join(f";\r\n\t{each}=temperror" for each in ("spf", "dkim", "dmarc"))
    return f"Authentication-Results: {hostname}{results}\r\n".encode()
