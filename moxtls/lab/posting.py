# -*- test-case-name: tests.lab.test_posting -*-
"""
Brings mail to us as hosts of other domains do: by SMTP, each from an address
of its own.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP
from twisted.mail.smtp import SMTPSender, SMTPSenderFactory

#: Seconds without a word, after which nobody waits.
TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class SMTPAnswer:
    """
    The last reply to a message.
    """

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """
    A message on its way.

    @ivar address: Where it is sent from.
    @ivar helo: What that calls itself.
    @ivar sender: MAIL FROM; empty for the null one.
    @ivar message: With CRLF.
    """

    address: str
    helo: str
    sender: str
    recipient: str
    message: bytes


class _Client(SMTPSender):
    """
    Tells what was said, whatever it was.
    """

    def sentMail(
        self,
        code: int,
        resp: bytes,
        numOk: int,
        addresses: list[tuple[bytes, int, bytes]],
        log: object,
    ) -> None:
        if addresses and not numOk:
            _, code, resp = addresses[0]
        self.factory.sendFinished = True
        self.factory.result.callback(SMTPAnswer(code, resp.decode("utf-8", "replace")))


class _Clients(SMTPSenderFactory):
    noisy = False
    protocol = _Client


def post(
    reactor: IReactorTCP, to: tuple[str, int], parcel: OutgoingMessage
) -> Deferred[SMTPAnswer]:
    """
    @param to: Address and port.

    @return: Fires with what the server said of the message, or of whom it is
        for; fails if it said nothing.
    """
    done: Deferred[SMTPAnswer] = Deferred()
    text = io.BytesIO(parcel.message.replace(b"\r\n", b"\n"))
    clients = _Clients(
        parcel.sender, parcel.recipient, text, done, retries=0, timeout=TIMEOUT
    )
    clients.domain = parcel.helo.encode("ascii")
    reactor.connectTCP(*to, clients, bindAddress=(parcel.address, 0))
    return done
