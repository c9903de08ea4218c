# -*- test-case-name: tests.twistedmail.test_server -*-
"""
An L{IMessageFilter} by SPF, DKIM and DMARC, for servers made with
C{twisted.mail.smtp}::

    messageFilter = MessageFilter(authenticator, dispatcher, folder, enforce=True)
    factory = filterServer(reactor, factory, messageFilter)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.authentication.check import MessageAuthenticator
from moxtls.authentication.outcome import (
    AuthenticationOutcome,
    authenticationResults,
    receivedSPF,
)
from moxtls.config.addresses import isPostmaster
from moxtls.dmarc.types import FinalDisposition, VerdictEvent
from moxtls.domain import Address, InvalidAddress
from moxtls.message.header import ClientInfo, Header
from moxtls.message.spooled import SpooledMessage
from moxtls.reception.acceptor import StreamingMessage
from moxtls.reception.delivery import VerdictDispatcher
from moxtls.reception.policy import (
    Decision,
    authenticatedOrganization,
    decide,
    isReport,
    mayAnswerReport,
    needsHistory,
)
from moxtls.reception.reportaddresses import ReportAddresses
from moxtls.smtp.server.data import HEADER_TOO_LONG
from moxtls.twistedmail.messages import FilterResult, IFilteredMessage, IMessageFilter


@implementer(IMessageFilter)
class MessageFilter:
    """
    Evaluates mail, and refuses what DMARC policies reject if C{enforce} is set.

    @ivar dispatcher: Its C{finished()} waits until all observers have finished.
    """

    def __init__(
        self,
        authenticator: MessageAuthenticator,
        dispatcher: VerdictDispatcher,
        folder: Path,
        enforce: bool = False,
        reportAddresses: ReportAddresses | None = None,
    ) -> None:
        """
        @param dispatcher: Gets an event for each recipient of a message.  Its
            history is keyed by the recipients' addresses in lower case.
        @param folder: For large messages while they are received.
        @param enforce: Refuse messages.  Otherwise all are accepted, and the result
            is only added to the header.
        @param reportAddresses: Mail to these addresses alone causes no report.
        """
        self.authenticator = authenticator
        self.dispatcher = dispatcher
        self.enforce = enforce
        self.reportAddresses = reportAddresses
        self._folder = folder

    def expect(self, client: ClientInfo, sender: str) -> None:
        self.authenticator.prefetch(client, sender)

    def message(self, client: ClientInfo, sender: str) -> IFilteredMessage:
        authentication = self.authenticator.startMessage(client, sender)
        message = StreamingMessage(SpooledMessage(self._folder), authentication)
        return FilteredMessage(self, client, sender, message)


@implementer(IFilteredMessage)
class FilteredMessage:
    """
    Evaluates one message.
    """

    log = Logger()

    def __init__(
        self,
        messageFilter: MessageFilter,
        client: ClientInfo,
        sender: str,
        message: StreamingMessage,
    ) -> None:
        self._filter = messageFilter
        self._client = client
        self._sender = sender
        self._message = message

    def write(self, chunk: bytes) -> None:
        try:
            self._message.write(chunk)
        except OSError:
            raise
        except Exception:
            # The message is stored, but not evaluated.
            self.log.failure(
                "evaluating a message from {host!r} failed", host=self._client.address
            )
            self._message.giveUp()

    def finish(self, recipients: Sequence[str]) -> Deferred[FilterResult]:
        return Deferred.fromCoroutine(self._finish(recipients))

    def close(self) -> None:
        self._message.close()

    async def _finish(self, recipients: Sequence[str]) -> FilterResult:
        message = self._message
        if message.isTooLong:
            return FilterResult(HEADER_TOO_LONG)
        header = message.end()
        try:
            return await self._evaluate(header, recipients)
        except CancelledError:
            raise
        except Exception:
            # Mail isn't lost because of such an error (RFC 9989 5.3.6).
            self.log.failure(
                "evaluating a message from {host!r} failed", host=self._client.address
            )
            return self._accepted(_temporaryErrors(self._filter.authenticator.hostname))

    async def _evaluate(
        self, header: Header, recipients: Sequence[str]
    ) -> FilterResult:
        outcome = await self._message.outcome()
        if outcome is None:
            # Evaluating the message failed while it was received.
            return self._accepted(_temporaryErrors(self._filter.authenticator.hostname))
        decision = decide(outcome, self._sender)
        if not self._filter.enforce:
            decision = Decision(FinalDisposition.ACCEPTED)
        events = tuple(
            [
                await self._notify(outcome, decision, header, recipient)
                for recipient in recipients
            ]
        )
        if decision.refusal is not None:
            return FilterResult(decision.refusal, events=events)
        await self._recordHistory(outcome, decision, recipients)
        return self._accepted(self._trace(outcome), events)

    async def _notify(
        self,
        outcome: AuthenticationOutcome,
        decision: Decision,
        header: Header,
        recipient: str,
    ) -> VerdictEvent:
        dispatcher = self._filter.dispatcher
        event = VerdictEvent(
            outcome.authentication,
            outcome.verdict,
            decision.finalDisposition,
            self._sender,
            recipient,
            isForReports=isReport(outcome.verdict, header.data)
            or await self._isForReports(recipient, header),
            header=header.data,
        )
        discovery = outcome.verdict.discovery
        if discovery and needsHistory(event, dispatcher.reportsFailures):
            author = discovery.organizational
            isKnown = await dispatcher.isKnown([recipient.lower()], author)
            event = replace(event, isKnown=isKnown)
        await dispatcher.dispatch(event)
        return event

    async def _isForReports(self, recipient: str, header: Header) -> bool:
        known = self._filter.reportAddresses
        try:
            address = Address.parse(recipient)
        except InvalidAddress:
            return False
        localPart = address.localPart
        mine = isPostmaster(localPart)
        if mayAnswerReport(localPart, mine, self._sender, header.data):
            return True
        return known is not None and await known.include(address)

    async def _recordHistory(
        self,
        outcome: AuthenticationOutcome,
        decision: Decision,
        recipients: Sequence[str],
    ) -> None:
        author = authenticatedOrganization(outcome, decision)
        if author is not None:
            for account in dict.fromkeys(each.lower() for each in recipients):
                await self._filter.dispatcher.recordReceived(account, author)

    def _trace(self, outcome: AuthenticationOutcome) -> bytes:
        hostname, sender = self._filter.authenticator.hostname, self._sender
        found = outcome.authentication
        results = authenticationResults(hostname, found, outcome.verdict, sender)
        return results + receivedSPF(hostname, found, sender, self._client.helo)

    def _accepted(
        self, trace: bytes, events: tuple[VerdictEvent, ...] = ()
    ) -> FilterResult:
        message = self._message.chunks(self._filter.authenticator.hostname)
        return FilterResult(None, trace, message, events)


def _temporaryErrors(hostname: str) -> bytes:
    """
    An Authentication-Results field of temporary errors (RFC 8601 2.7).
    """
    results = "".join(f";\r\n\t{each}=temperror" for each in ("spf", "dkim", "dmarc"))
    return f"Authentication-Results: {hostname}{results}\r\n".encode()
