# -*- test-case-name: tests.test_receiving -*-
"""
Puts together what takes mail in.  No decisions.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from moxtls.config import Config
from moxtls.dmarc.recorder import EvaluationRecorder
from moxtls.domain import Address, Domain
from moxtls.inbound.delivery import Delivery
from moxtls.inbound.observers import Audience, Correspondence
from moxtls.inbound.reception import House, Reception
from moxtls.inbound.recipients import Directory
from moxtls.inbound.reportaddresses import ReportAddresses
from moxtls.inbound.verifying import PATIENCE, Verifier
from moxtls.interfaces import IMailbox, IQueue, IVerdictObserver
from moxtls.mailbox.accounts import MailStore
from moxtls.mailbox.desk import Desk
from moxtls.mailbox.lmtp import LMTPStore, lmtpEndpoint
from moxtls.mailbox.names import HOST_ACCOUNT
from moxtls.mailbox.postroom import MAX_SILENCE, Postroom
from moxtls.reporting.handover import Aftermath
from moxtls.smtp.acceptor import IAcceptor
from moxtls.smtp.submission import Submission
from moxtls.wiring import Base, newID
from moxtls.worker.worker import Worker


class Residence:
    """
    Who has which address here, and everybody's mailboxes.
    """

    def __init__(self, base: Base) -> None:
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
            Postroom(
                Worker(base.reactor, "mailboxes", MAX_SILENCE, base.durations),
                Desk(base.reactor),
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


class Incoming:
    """
    Every way for mail to come.
    """

    def __init__(
        self,
        base: Base,
        residence: Residence,
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
        self._audience = Audience(
            base.clock,
            (self._recorder, self._failures, *observers),
            ledger.history,
            config.reporting.failures.enabled,
        )
        self._correspondence = Correspondence(
            residence.directory, config.accounts, self._audience
        )
        aftermath = Aftermath(base.clock, ledger.archive, ledger.suppressions)
        self._reportAddresses = ReportAddresses(
            base.durations,
            base.resolver,
            (config.hostname, *config.domains),
            map(Address.parse, config.reporting.addresses),
            residence.directory.spellings,
            base.practice.suffixes,
        )
        self._house = House(
            config.hostname.ascii,
            residence.directory,
            config.accounts,
            residence.mailboxOf,
            config.postmaster.mailbox,
            aftermath.bounced,
            self._reportAddresses.include,
        )
        self._delivery = Delivery(residence.mailboxOf, queue)
        worker = Worker(base.reactor, "signatures", PATIENCE, base.durations)
        self._verifier = Verifier(worker, base.inThread)
        self._checks = base.checks(self._verifier)

    def reception(self, isChecked: bool) -> IAcceptor:
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

    def submission(self) -> IAcceptor:
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
