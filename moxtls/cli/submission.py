# -*- test-case-name: tests.cli.test_users -*-
"""
Submits messages of users without access to the queue, by SMTP to the server on this
host.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from moxtls.app.privileges import userName
from moxtls.cli.shell import CommandError, Shell
from moxtls.config import Listener, ListenerTLS, Service
from moxtls.queue.types import Envelope
from moxtls.smtp.client.connection import ClientSettings, SessionError, addressEndpoint
from moxtls.smtp.client.session import ClientSession, openSession
from moxtls.smtp.types import RecipientReply, TLSMode, Transaction
from moxtls.tls.openssl import trustStoreOf

#: The exit status of sendmail for a temporary failure, <sysexits.h>.
EX_TEMPFAIL = 75
#: The same for missing permission.
EX_NOPERM = 77
#: The beginning of the reply to an accepted message.
QUEUED = "Queued as "


def localListener(listeners: Mapping[str, Listener]) -> Listener | None:
    """
    The listener on which programs on this host submit mail without a login; one
    without immediate TLS if there are several. No I/O.
    """
    found = [
        each
        for each in listeners.values()
        if each.service is Service.SUBMISSION
        and not each.authentication
        and each.port
        and all(ip_address(address).is_loopback for address in each.address)
    ]
    found.sort(key=lambda each: each.tls is ListenerTLS.IMMEDIATE)
    return found[0] if found else None


async def submit(shell: Shell, envelope: Envelope, body: Sequence[bytes]) -> str:
    """
    Submit a message.

    @return: The id of the message in the queue.

    @raise CommandError: The server can't be reached, or refuses the message for a
        recipient.
    """
    config = shell.configFiles.config
    listener = localListener(config.listeners)
    if listener is None:
        owner = shell.configFiles.owner()
        who = f" and user {userName(owner[0])}" if owner else ""
        raise CommandError(
            f"only root{who} may put messages into the queue, as no listener takes "
            "mail from programs on this host without a login",
            EX_NOPERM,
        )
    immediate = listener.tls is ListenerTLS.IMMEDIATE
    # Nothing can intercept a connection to a loopback address.
    settings = ClientSettings(
        config.hostname.ascii,
        trustStoreOf(()),
        TLSMode.IMMEDIATE if immediate else TLSMode.SKIP,
    )
    address = listener.address[0]
    endpoint = addressEndpoint(shell.reactor, address, listener.port)
    place = f"the server at {address} port {listener.port}"
    try:
        session = await openSession(shell.reactor, endpoint, settings)
        try:
            replies = await _deliver(session, envelope, body)
        finally:
            await session.quit()
    except SessionError as failed:
        raise CommandError(f"{place}: {failed.reason}", EX_TEMPFAIL) from None
    for each in replies:
        if not each.reply.accepted:
            status = 1 if each.reply.permanent else EX_TEMPFAIL
            raise CommandError(f"{place}: {each.recipient}: {each.reply}", status)
    return replies[0].reply.text.removeprefix(QUEUED)


async def _deliver(
    session: ClientSession, envelope: Envelope, body: Sequence[bytes]
) -> tuple[RecipientReply, ...]:
    with tempfile.NamedTemporaryFile() as file:
        file.writelines(body)
        file.flush()
        transaction = Transaction(
            envelope.sender,
            envelope.recipients,
            Path(file.name),
            file.tell(),
            envelope.eightBit,
            envelope.smtputf8,
        )
        return await session.deliver(transaction)
