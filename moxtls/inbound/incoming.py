# -*- test-case-name: tests.inbound.test_reception -*-
"""
One message from outside, from DATA to the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from moxtls.dmarc.values import Fate
from moxtls.inbound.authenticate import Examination
from moxtls.inbound.authres import authenticationResults, receivedSPF
from moxtls.inbound.decide import (
    HEADER_TOO_LONG,
    LATER,
    TAKEN,
    Copy,
    Decision,
    Recipient,
    answer,
    copies,
    decide,
    judgementOf,
    malformed,
    needsHistory,
    provenDomain,
)
from moxtls.inbound.delivery import Letter
from moxtls.inbound.findings import Findings
from moxtls.inbound.headers import Header, headerEnd, splitHeader, withoutForged
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.queue.values import ReportKind
from moxtls.reporting.bounces import bounceMailbox
from moxtls.smtp.acceptor import IMessageSink
from moxtls.smtp.events import Incoming
from moxtls.smtp.received import LONGEST_HEADER, Client, receivedHeader
from moxtls.smtp.spooled import SpooledMessage
from moxtls.smtp.values import Reply

if TYPE_CHECKING:
    from moxtls.inbound.reception import Reception

#: Of a DSN.  They have the header of what they are about, or all of it; a
#: report of ours isn't that large.
LARGEST_NOTICE = 1024 * 1024


@implementer(IMessageSink)
class IncomingMessage:
    """
    Takes one message.
    """

    log = Logger()

    def __init__(
        self,
        reception: Reception,
        client: Client,
        incoming: Incoming,
        spooled: SpooledMessage,
        examination: Examination | None,
    ) -> None:
        """
        @param examination: C{None} if nothing is checked.
        """
        self._reception = reception
        self._client = client
        self._incoming = incoming
        self._spooled = spooled
        self._examination = examination
        self._id = reception.newID()
        # Until the header is complete, and how long it is with the empty line.
        self._beginning = bytearray()
        self._header: Header | None = None
        self._bodyStart = 0

    # --- what comes ------------------------------------------------------------

    def write(self, chunk: bytes) -> Deferred[None] | None:
        self._spooled.write(chunk)
        if self._header is None and len(self._beginning) <= LONGEST_HEADER:
            self._lookForHeader(chunk)
        return None

    def finish(self) -> Deferred[Reply]:
        return Deferred.fromCoroutine(self._finish())

    def abort(self) -> None:
        self._dropExamination()
        self._spooled.close()

    def _lookForHeader(self, chunk: bytes) -> None:
        seen = len(self._beginning)
        self._beginning += chunk
        end = headerEnd(self._beginning, seen)
        if 0 <= end <= LONGEST_HEADER:
            self._headerEnds(bytes(self._beginning[:end]), end + len(b"\r\n"))

    def _headerEnds(self, data: bytes, bodyStart: int) -> None:
        self._beginning.clear()
        self._header = splitHeader(data)
        self._bodyStart = bodyStart
        if self._examination is not None:
            self._examination.begin(self._header)

    def _dropExamination(self) -> None:
        examination, self._examination = self._examination, None
        if examination is not None:
            examination.cancel()

    # --- what becomes of it ------------------------------------------------------

    async def _finish(self) -> Reply:
        try:
            return await self._received()
        except CancelledError:
            raise
        except Exception:
            self.log.failure(
                "receiving a message from {host!r}", host=self._client.address
            )
            return LATER
        finally:
            self.abort()

    async def _received(self) -> Reply:
        if self._header is None:
            if len(self._beginning) > LONGEST_HEADER:
                return HEADER_TOO_LONG
            # Without an empty line all of it is header.
            self._headerEnds(bytes(self._beginning), self._spooled.size)
        header = self._header or splitHeader(b"")
        refusal = malformed(header)
        if refusal is not None:
            return refusal
        findings = await self._checked()
        decision = Decision(Fate.ACCEPTED)
        if findings is not None:
            decision = decide(findings, self._incoming.sender)
        reply = await self._decided(header, findings, decision)
        self._log(findings, decision, reply)
        return reply

    async def _checked(self) -> Findings | None:
        examination, self._examination = self._examination, None
        if examination is None:
            return None
        body = self._spooled.chunks(start=self._bodyStart)
        return await examination.finish(body, self._spooled.size - self._bodyStart)

    async def _decided(
        self, header: Header, findings: Findings | None, decision: Decision
    ) -> Reply:
        reception, incoming = self._reception, self._incoming
        found = map(reception.recipient, incoming.recipients)
        people = [each for each in found if isinstance(each, Recipient)]
        letter = self._letter(header, findings, people)
        if findings is not None:
            await self._tell(header, findings, decision, people)
        if decision.refusal is not None:
            # Whoever wants to see what was refused does so; nothing depends
            # on that.
            every = copies(people, decision.fate, reception.accounts)
            await reception.delivery.store(letter, every)
            return decision.refusal
        others, reply = await self._withoutNotices(letter, people)
        every = copies(others, decision.fate, reception.accounts)
        if every:
            reply = await reception.delivery.deliver(letter, every, decision.fate)
        if findings is not None and reply.accepted:
            await self._remember(findings, decision, every)
        return reply

    async def _tell(
        self,
        header: Header,
        findings: Findings,
        decision: Decision,
        people: Sequence[Recipient],
    ) -> None:
        audience, sender = self._reception.audience, self._incoming.sender
        known: dict[tuple[str, ...], bool] = {}
        for recipient in people:
            judgement = judgementOf(findings, decision, sender, recipient, header)
            discovery = judgement.verdict.discovery
            if discovery and needsHistory(judgement, audience.reportsFailures):
                accounts, author = recipient.accounts, discovery.organizational
                if accounts not in known:
                    known[accounts] = await audience.isKnown(accounts, author)
                judgement = replace(judgement, isKnown=known[accounts])
            await audience.tell(judgement)

    async def _remember(
        self, findings: Findings, decision: Decision, every: Sequence[Copy]
    ) -> None:
        author = provenDomain(findings, decision)
        if author is not None:
            for account in dict.fromkeys(copy.account for copy in every):
                await self._reception.audience.arrived(account, author)

    def _log(self, findings: Findings | None, decision: Decision, reply: Reply) -> None:
        self.log.info(
            "{fate} {id} from {sender!r} at {host} for {count} recipients, "
            "{size} bytes, DMARC {dmarc}: {code}",
            fate=str(decision.fate),
            id=self._id,
            sender=self._incoming.sender,
            host=self._client.address,
            count=len(self._incoming.recipients),
            size=self._spooled.size,
            dmarc=str(findings.verdict.status) if findings else "not checked",
            code=reply.code,
        )

    # --- what comes back of reports ------------------------------------------------

    async def _withoutNotices(
        self, letter: Letter, people: Sequence[Recipient]
    ) -> tuple[Sequence[Recipient], Reply]:
        """
        Take out whom DSNs about reports of ours are for, which nobody needs
        to read.

        @return: The others; and what to say if there are none.
        """
        others = []
        reply = TAKEN
        for recipient in people:
            kind = await self._reportKind(recipient)
            if kind is None:
                others.append(recipient)
                continue
            mailbox = bounceMailbox(kind, self._reception.postmaster)
            copy = Copy(HOST_ACCOUNT, mailbox, recipient.address)
            outcomes = await self._reception.delivery.store(letter, [copy], seen=True)
            reply = answer(outcomes, Fate.ACCEPTED)
        return others, reply

    async def _reportKind(self, recipient: Recipient) -> ReportKind | None:
        if not recipient.mayBeOfReport:
            return None
        beginning = self._spooled.beginning(LARGEST_NOTICE)
        return await self._reception.bounced(str(recipient.address), beginning)

    # --- what is stored ----------------------------------------------------------

    def _letter(
        self, header: Header, findings: Findings | None, people: Sequence[Recipient]
    ) -> Letter:
        spooled, hostname = self._spooled, self._reception.hostname
        # RFC 5321 7.6: others must not learn of each other.
        only = str(people[0].address) if len(people) == 1 else ""
        trace = self._trace(findings, only)
        left = withoutForged(header, hostname)
        start = 0
        if left is not header.data:
            trace, start = trace + left, len(header.data)
        return Letter(
            self._incoming.sender,
            lambda before: spooled.chunks(before + trace, start),
            eightBit=not spooled.isASCII,
            smtputf8=self._incoming.parameters.smtputf8,
        )

    def _trace(self, findings: Findings | None, only: str) -> bytes:
        """
        RFC 5321 4.4, and above that what was found out, as it is about what
        was received (RFC 8601 4).
        """
        reception, client, incoming = self._reception, self._client, self._incoming
        hostname, sender = reception.hostname, incoming.sender
        results = b""
        if findings is not None:
            found = findings.authentication
            results = authenticationResults(hostname, found, findings.verdict, sender)
            results += receivedSPF(hostname, found, sender, client.helo)
        now, smtputf8 = reception.clock.seconds(), incoming.parameters.smtputf8
        return results + receivedHeader(client, hostname, self._id, now, smtputf8, only)
