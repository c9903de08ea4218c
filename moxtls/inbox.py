# -*- test-case-name: tests.test_server -*-
"""
Mail from outside for this host.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from moxtls.config import Config
from moxtls.domain import Address
from moxtls.interfaces import IMailbox
from moxtls.reporting.bounces import bounceMailbox
from moxtls.reporting.handover import Aftermath
from moxtls.smtp.reception import ReceivedMessage
from moxtls.wiring import isPostmaster, mailboxFor


class Inbox:
    """
    Takes what is for the postmaster and, with C{HostTLSRPT}, the reports of
    others; and what comes back from reports of ours.
    """

    def __init__(self, config: Config, aftermath: Aftermath, mailbox: IMailbox) -> None:
        self._config = config
        self._aftermath = aftermath
        self._mailbox = mailbox

    def accepts(self, address: Address) -> bool:
        """
        Reports are sent in the name of a domain of ours, so that is where
        DSNs about them go.
        """
        return self._mailboxOf(address) is not None

    def deliver(self, received: ReceivedMessage) -> Deferred[None]:
        """
        Fires once it is stored.
        """
        return Deferred.fromCoroutine(self._deliver(received))

    async def _deliver(self, received: ReceivedMessage) -> None:
        message = b"".join(received.message)
        for address in received.recipients:
            mailbox = self._mailboxOf(address) or self._config.postmaster.mailbox
            kind = await self._aftermath.bounced(str(address), message)
            if kind is not None:
                mailbox = bounceMailbox(kind, self._config.postmaster.mailbox)
            await self._mailbox.deliver(mailbox, [message], seen=kind is not None)

    def _mailboxOf(self, address: Address) -> str | None:
        if address.domain == self._config.hostname:
            return mailboxFor(self._config, address.localPart)
        if address.domain in self._config.domains and isPostmaster(address.localPart):
            return self._config.postmaster.mailbox
        return None
