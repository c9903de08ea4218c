# -*- test-case-name: tests.test_receiving -*-
"""
Puts together what takes mail in.  No decisions.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from moxtls.config import Config
from moxtls.dmarc.recorder import EvaluationRecorder
from moxtls.domain import Address, Domain
from moxtls.inbound.delivery import MailboxDelivery
from moxtls.inbound.observers import HistoryRecorder, VerdictDispatcher
from moxtls.inbound.reception import LocalDomains, Reception
from moxtls.inbound.recipients import Directory
from moxtls.inbound.reportaddresses import ReportAddresses
from moxtls.inbound.verifying import TIMEOUT, SignatureVerifier
from moxtls.interfaces import IMailbox, IQueue, IVerdictObserver
from moxtls.mailbox.accounts import MailStore
from moxtls.mailbox.desk import ThreadWriter
from moxtls.mailbox.lmtp import LMTPStore, lmtpEndpoint
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.mailbox.postroom import MAX_SILENCE, ProcessWriter
from moxtls.reporting.handover import ReportDeliveryTracker
from moxtls.smtp.acceptor import IMessageDelivery
from moxtls.smtp.submission import Submission
from moxtls.wiring import Components, newID
from moxtls.worker.worker import Worker


class MailboxStores:
    """
    Who has which address here, and everybody's mailboxes.
    """

    def __init__(self, base: Components) -> None:
        site, config = base.site, base.site.config
        self.directory = Directory(config)
        quotas = {name: each.quota for name, each in config.accounts.items()}
        self._files = MailStore(
            base.reactor,
            site.mail,
            site.accounts,
            {} if config.lmtp else quotas,
            config.hostname.ascii,
            newID,
            ProcessWriter(
                Worker(base.reactor, "mailboxes", MAX_SILENCE, base.durations),
                ThreadWriter(base.reactor),
            ),
        )
        self._remote: LMTPStore | None = None
        if config.lmtp is not None:
            self._remote = LMTPStore(
                base.reactor,
                lmtpEndpoint(base.reactor, config.lmtp.address),
                config.hostname,
                config.lmtp.separator,
            )

    @property
    def host(self) -> IMailbox:
        """
        The mailboxes of this host itself.
        """
        return self.mailboxOf(HOST_ACCOUNT)

    def mailboxOf(self, account: str) -> IMailbox:
        """
        @raise KeyError: There is no such account.
        """
        if self._remote is not None and account != HOST_ACCOUNT:
            return self._remote.mailboxOf(account)
        return self._files.mailboxOf(account)

    def sweep(self) -> Deferred[None]:
        """
        Clear away what an earlier process has left half done.
        """
        return self._files.sweep()

    def stop(self) -> Deferred[None]:
        """
        Fires once all that was taken is answered.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._remote is not None:
            await self._remote.stop()
        await self._files.stop()


class InboundServices:
    """
    Every way for mail to come.
    """

    def __init__(
        self,
        base: Components,
        residence: MailboxStores,
        queue: IQueue,
        observers: tuple[IVerdictObserver, ...] = (),
    ) -> None:
        """
        @param observers: Are told of verdicts, as are those that report them.
        """
        config, ledger = base.site.config, base.ledger
        self._base = base
        self._queue = queue
        silent = _silent(config)
        self._recorder = EvaluationRecorder(
            base.clock,
            ledger.evaluations,
            not config.noOutgoingDMARCReports,
            silent,
        )
        self._failures = base.failures(queue, silent)
        self._audience = VerdictDispatcher(
            base.clock,
            (self._recorder, self._failures, *observers),
            ledger.history,
            config.reporting.failures.enabled,
        )
        self._correspondence = HistoryRecorder(
            residence.directory, config.accounts, self._audience
        )
        aftermath = ReportDeliveryTracker(
            base.clock, ledger.archive, ledger.suppressions
        )
        self._reportAddresses = ReportAddresses(
            base.durations,
            base.resolver,
            (config.hostname, *config.domains),
            map(Address.parse, config.reporting.addresses),
            residence.directory.spellings,
            base.practice.suffixes,
        )
        self._house = LocalDomains(
            config.hostname.ascii,
            residence.directory,
            config.accounts,
            residence.mailboxOf,
            config.postmaster.mailbox,
            aftermath.bounced,
            self._reportAddresses.include,
        )
        self._delivery = MailboxDelivery(residence.mailboxOf, queue)
        worker = Worker(base.reactor, "signatures", TIMEOUT, base.durations)
        self._verifier = SignatureVerifier(worker, base.inThread)
        self._checks = base.checks(self._verifier)

    def reception(self, isChecked: bool) -> IMessageDelivery:
        """
        For a listener that takes mail for people here.
        """
        return Reception(
            self._base.reactor,
            self._house,
            self._delivery,
            self._audience,
            self._checks if isChecked else None,
            newID,
            self._base.site.data,
        )

    def submission(self) -> IMessageDelivery:
        """
        For a listener that takes mail from people here.
        """
        return Submission(
            self._base.reactor,
            self._queue,
            self._house.hostname,
            newID,
            self._base.site.data,
            self._correspondence.submitted,
        )

    def recorded(self) -> Deferred[None]:
        """
        Fires once all verdicts given until now are in the ledger.
        """
        self._recorder.flush()
        return Deferred.fromCoroutine(self._audience.settled())

    def stop(self) -> Deferred[None]:
        """
        Fires once all is written down about what came until now.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._verifier.stop()
        await self._reportAddresses.stop()
        await self._failures.stop()
        await self.recorded()
        await self._recorder.stop()


def _silent(config: Config) -> frozenset[Domain]:
    """
    The domains of ours about mail to which nothing is reported.
    """
    domains = config.domains.items()
    return frozenset(name for name, local in domains if local.noOutgoingDMARCReports)
