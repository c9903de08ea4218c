# -*- test-case-name: tests.delivery.test_sessions,tests.delivery.test_attempt -*-
"""
Looks up the hosts of a domain, their addresses and TLSA records (RFC 7672 2.2), opens
sessions with them, and sends the messages of a batch.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from moxtls.delivery.mx import (
    Host,
    HostAddresses,
    NextHop,
    OwnHosts,
    baseDomains,
    hostAddresses,
    isDANECandidate,
    literalAddresses,
    literalHop,
    nextHop,
    referenceNames,
)
from moxtls.delivery.results import DeliveryError, RecipientResults, smtpError
from moxtls.dns.types import ADDRESS_TYPES, Answer, RRType
from moxtls.domain import AddressLiteral, Domain
from moxtls.interfaces import IResolver, IResultRecorder
from moxtls.queue.types import BatchMessage
from moxtls.smtp.client.connection import (
    ClientSettings,
    ConnectFailed,
    SessionFailed,
    TransactionCancelled,
)
from moxtls.smtp.client.replies import splitByLimits
from moxtls.smtp.client.session import ClientSession, openSession
from moxtls.smtp.types import RecipientReply, Transaction
from moxtls.tasks import gather
from moxtls.tls.dane import TLSALookup, TLSALookupError, usableRecords

SMTP_PORT = 25
#: Addresses of one host that are tried in each address family.  RFC 5321 5.1: at
#: least two; more only delay the next host.
MAX_ADDRESSES_PER_FAMILY = 2
#: Unreachable addresses that are remembered.
MAX_FAILURES = 1000

#: Seconds to wait for the reply to a message that was sent when its attempt is
#: cancelled: otherwise a host that accepts it would get it again.
FINISH_TIMEOUT = 10.0
#: RFC 5321 3.8: the host is about to close the connection.
CLOSING = 421


async def lookUpNextHop(
    resolver: IResolver,
    domain: Host,
    jitter: Callable[[], float],
    own: OwnHosts | None = None,
) -> NextHop:
    """
    The hosts of C{domain}, in the order in which to try them.

    @param own: As in L{nextHop}.
    """
    if isinstance(domain, AddressLiteral):
        return literalHop(domain, own)
    answer = await resolver.lookup(domain.ascii, RRType.MX)
    return nextHop(domain, answer, jitter, own)


def isLocalAddress(ip: str) -> bool:
    """
    True if C{ip} is an address of this host: then the local address of a socket
    connected to it is the same.  Nothing is sent.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probing:
        try:
            probing.connect((ip, SMTP_PORT))
        except OSError:
            return False
        return bool(probing.getsockname()[0] == ip)


async def lookUpAddresses(
    resolver: IResolver, host: Host, families: Sequence[RRType] = ADDRESS_TYPES
) -> HostAddresses:
    """
    The addresses of C{host}.

    @param families: C{A}, C{AAAA} or both, the preferred one first.
    """
    if isinstance(host, AddressLiteral):
        return literalAddresses(host)
    pending = [resolver.lookup(host.ascii, kind) for kind in families]
    return hostAddresses(host, await gather(pending))


async def lookUpTLSA(
    resolver: IResolver, hop: NextHop, found: HostAddresses, port: int = SMTP_PORT
) -> TLSALookup:
    """
    The TLSA records of a host of C{hop}.

    @param found: The addresses of the host, looked up before.
    @param port: The port of the connections.
    """
    host = found.host
    if not isinstance(host, Domain):
        return TLSALookup(None)
    if not resolver.validating or not isDANECandidate(hop, found):
        return TLSALookup(host, (host,))
    for base in baseDomains(found):
        answer = await resolver.lookup(f"_{port}._tcp.{base}", RRType.TLSA)
        names = referenceNames(hop, host, base)
        if answer.failed:
            # RFC 7672 2.1.2: the other candidate is not tried, or an attacker who
            # can make a lookup fail could choose between the two.
            return TLSALookup(base, names, error=_lookupError(answer))
        # RFC 7672 2.2.3: insecure records, also behind a secure CNAME, don't
        # count; the next candidate is tried.
        if answer.authentic and answer.tlsa:
            return TLSALookup(base, names, answer.tlsa, usableRecords(answer.tlsa))
    # The other reference names are for DANE only: without it, RFC 8461 4.2 wants
    # a certificate for the host.
    return TLSALookup(host, (host,))


def _lookupError(answer: Answer) -> TLSALookupError:
    error = answer.dnssecError or next(iter(answer.errors), None)
    return TLSALookupError(answer.name, error, answer.reason)


def connectOrder(addresses: Iterable[str]) -> Iterator[str]:
    """
    The addresses of a host that are tried, in their order, at most
    L{MAX_ADDRESSES_PER_FAMILY} in each address family.
    """
    seen: Counter[bool] = Counter()
    for ip in addresses:
        isIPv6 = ":" in ip
        seen[isIPv6] += 1
        if seen[isIPv6] <= MAX_ADDRESSES_PER_FAMILY:
            yield ip


class Dialer:
    """
    Opens client sessions, and closes released ones in the background.

    A server may take long to answer QUIT; a delivery doesn't wait for that, but
    the end of the process does.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: Callable[[str, int], IStreamClientEndpoint],
        pause: float = 0,
    ) -> None:
        """
        @param endpoint: Makes the endpoint for an IP address and a port.
        @param pause: Seconds for which no further connection is made to an
            unreachable address: one host may serve thousands of domains.
        """
        self._pause = pause
        self._failures: dict[tuple[str, int], tuple[float, ConnectFailed]] = {}
        self._clock = clock
        self._endpoint = endpoint
        self._closing: dict[ClientSession, Deferred[None]] = {}

    def dial(
        self, ip: str, port: int, settings: ClientSettings
    ) -> Deferred[ClientSession]:
        """
        Open a session with a host, as L{openSession} does.
        """
        return Deferred.fromCoroutine(self._dial(ip, port, settings))

    async def _dial(
        self, ip: str, port: int, settings: ClientSettings
    ) -> ClientSession:
        self._checkPause(ip, port)
        endpoint = self._endpoint(ip, port)
        try:
            return await openSession(self._clock, endpoint, settings)
        except ConnectFailed as failed:
            self._remember((ip, port), failed)
            raise

    def _checkPause(self, ip: str, port: int) -> None:
        """
        @raise ConnectFailed: The address was unreachable less than C{pause}
            seconds ago.
        """
        at, failed = self._failures.get((ip, port), (0, None))
        since = self._clock.seconds() - at
        # A clock that was set back makes no pause longer.
        if failed is not None and 0 <= since < self._pause:
            reason = f"{failed.reason} ({since:.0f} seconds ago)"
            raise ConnectFailed(failed.record, reason)

    def _remember(self, address: tuple[str, int], failed: ConnectFailed) -> None:
        if self._pause:
            self._failures.pop(address, None)
            self._failures[address] = self._clock.seconds(), failed
            if len(self._failures) > MAX_FAILURES:
                del self._failures[next(iter(self._failures))]

    def release(self, session: ClientSession) -> None:
        """
        Close a session in the background: with QUIT, or at once if it is in the
        middle of a transaction.
        """

        def removed(result: object) -> None:
            del self._closing[session]

        closed = self._closing[session] = session.quit()
        closed.addBoth(removed)

    def stop(self) -> Deferred[None]:
        """
        Abort the sessions that are being closed.

        @return: Fires when all connections are closed.
        """
        # Not by cancelling: that fires before the connection is closed.
        closing = dict(self._closing)
        closed = DeferredList(tuple(closing.values()), consumeErrors=True)
        for session in closing:
            session.abort()
        return closed.addCallback(lambda results: None)


async def deliverBatch(
    session: ClientSession,
    messages: tuple[BatchMessage, ...],
    results: RecipientResults,
    recorder: IResultRecorder,
    host: str,
    requireTLS: bool = False,
    lenient: bool = False,
) -> tuple[BatchMessage, ...]:
    """
    Send messages in an open session, in one transaction for each message that
    has undecided recipients, or several if the host limits the recipients of a
    transaction (RFC 9422).

    @param recorder: Has recorded the final results of each transaction before
        the data of the next message is sent: recording takes place while the
        host answers the commands before it.
    @param requireTLS: Send the REQUIRETLS parameter (RFC 8689).
    @param lenient: As in L{RecipientResults.addReplies}.

    @return: The messages, or the recipients of one, that another session with
        the same host may accept.  Empty unless this session has carried at
        least one transaction and accepts no more.
    """
    begun = False
    recorded: Deferred[None] = succeed(None)
    for index, message in enumerate(messages):
        recipients = results.undecidedRecipients(message)
        whole = _transaction(message, recipients, requireTLS)
        parts = splitByLimits(whole, session.extensions) if recipients else ()
        for number, part in enumerate(parts):
            if begun and not session.usable:
                await recorded
                rest = tuple(to for each in parts[number:] for to in each.recipients)
                return (replace(message, recipients=rest), *messages[index + 1 :])
            begun = True
            results.messageStarted()
            try:
                replies = await session.deliver(
                    part, recorded, maxFinish=FINISH_TIMEOUT
                )
                ended = _closingError(replies, host)
            except TransactionCancelled as cancelled:
                results.addReplies(message, cancelled.decided, host, lenient)
                raise
            except SessionFailed as failed:
                replies, ended = failed.decided, sessionError(failed, host, lenient)
            except OSError as why:
                results.failMessage(message, _unreadableMessage(why))
                continue
            results.addReplies(message, replies, host, lenient)
            if not results.complete:
                # After the last transaction the caller records all results at
                # once: that saves a commit for most messages.  The previous
                # recording is done, unless this transaction ended before its data.
                await recorded
                recorded = recorder.record(results.takeNew())
            if ended is not None:
                results.addHostError(ended)
                await recorded
                return ()
    await recorded
    return ()


def sessionError(
    failed: SessionFailed, host: str, lenient: bool = False
) -> DeliveryError:
    """
    The error of a session that ended early.

    @param lenient: Make it temporary in any case.
    """
    if failed.reply is None:
        return DeliveryError("4.4.2", failed.reason, host)
    if failed.reply.accepted:
        # RFC 3463 3.6: a positive reply where it doesn't belong.
        return DeliveryError("4.5.0", f"{failed.reason}: {failed.reply}", host)
    error = smtpError(failed.reply, host)
    return error.asTemporary() if lenient else error


def _unreadableMessage(why: OSError) -> DeliveryError:
    # Without its path: the text goes into a DSN.
    return DeliveryError("4.3.0", f"the message can't be read: {why.strerror}")


def _closingError(replies: Iterable[RecipientReply], host: str) -> DeliveryError | None:
    """
    The error of a host that has announced that it closes the connection.
    """
    for each in replies:
        if each.reply.code == CLOSING:
            return smtpError(each.reply, host)
    return None


def _transaction(
    message: BatchMessage, recipients: tuple[str, ...], requireTLS: bool
) -> Transaction:
    return Transaction(
        message.sender,
        recipients,
        message.path,
        message.size,
        message.eightBit,
        message.smtputf8,
        requireTLS,
    )
