# -*- test-case-name: tests.inbound.test_authenticate -*-
"""
What can be known of where a message is from before it is there: SPF, and the
name of the client.
"""

from __future__ import annotations

from moxtls.authentication import AuthResult, IPRevResult, SPFResult
from moxtls.dns.together import resolve
from moxtls.inbound.iprev import checkIPRev
from moxtls.inbound.lookups import OVERDUE, Task
from moxtls.inbound.spf import SPFRequest, checkHost, helloRequest, mailFromRequest
from moxtls.interfaces import IResolver
from moxtls.smtp.received import ClientInfo


class ConnectionChecks:
    """
    What can be known before the message is there.

    @ivar since: When it was begun.
    """

    def __init__(
        self,
        resolver: IResolver,
        client: ClientInfo,
        sender: str,
        hostname: str,
        since: float,
    ) -> None:
        """
        @param hostname: Ours.
        """
        self.since = since
        self.address = client.address
        self._users = 0
        address, helo = client.address, client.helo
        self.iprev = Task(resolve(resolver, checkIPRev(address)), _overdueIPRev)
        self.helo = _spf(resolver, helloRequest(address, helo, hostname, since))
        self.spf = self.helo
        if sender:
            request = mailFromRequest(address, helo, sender, hostname, since)
            self.spf = _spf(resolver, request)

    @property
    def failed(self) -> bool:
        """
        Whether another try may find out more.
        """
        return any(
            each.failed or (each.isDone and each.value.status is AuthResult.TEMPERROR)
            for each in (self.iprev, self.helo, self.spf)
        )

    def use(self) -> None:
        self._users += 1

    def release(self) -> None:
        """
        Whoever used it doesn't any more; what nobody waits for is given up.
        """
        self._users -= 1
        self.giveUp()

    def giveUp(self) -> None:
        """
        It isn't remembered any more: a client may say MAIL, and then nothing.
        """
        if self._users == 0:
            for each in (self.iprev, self.helo, self.spf):
                each.cancel()


def _spf(resolver: IResolver, request: SPFRequest) -> Task[SPFResult]:
    domain = request.sender.rpartition("@")[2]
    status = AuthResult.TEMPERROR
    return Task(
        resolve(resolver, checkHost(request)),
        lambda: SPFResult(request.scope, domain, status, problem=OVERDUE),
    )


def _overdueIPRev() -> IPRevResult:
    return IPRevResult(AuthResult.TEMPERROR, problem=OVERDUE)
