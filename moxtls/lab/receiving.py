# -*- test-case-name: tests.lab.test_receiving -*-
"""
Mail from every sender, and what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.interfaces import IReactorTCP, IReactorTime

from moxtls.lab.letters import LabMessage
from moxtls.lab.mailboxes import FoundMessage, findMessage, seenIn, seenOn
from moxtls.lab.network import Network
from moxtls.lab.posting import OutgoingMessage, SMTPAnswer, post
from moxtls.lab.senders import BY_NAME, addressOf
from moxtls.lab.writing import SenderKeys, messageID, writtenLetter

#: What can't be known of a message that was not accepted and is nowhere.
_UNKNOWN = FoundMessage()


@dataclass(frozen=True, slots=True)
class LetterOutcome:
    """
    What became of a letter.

    @ivar mailbox: Where it is; empty if nowhere.
    @ivar seen: What was found out about it.
    """

    letter: LabMessage
    answer: SMTPAnswer
    mailbox: str
    seen: FoundMessage

    @property
    def differences(self) -> tuple[str, ...]:
        """
        What isn't as it should be, a line each.
        """
        return tuple(f"{self.letter.name}: {each}" for each in self._differences())

    def _differences(self) -> Iterator[str]:
        expected, seen = self.letter.expected, self.seen
        values: dict[str, tuple[object, object]] = {
            "reply": (self.answer.code, expected.code),
            "mailbox": (self.mailbox, expected.mailbox),
            "SPF": (seen.spf, expected.spf),
            "DKIM": (seen.dkim, expected.dkim),
            "DMARC": (seen.dmarc, expected.dmarc),
            "disposition": (seen.disposition, expected.disposition),
        }
        for name, (is_, should) in values.items():
            if is_ != should:
                yield f"{name} is {is_!r}, not {should!r}"


@dataclass(frozen=True, slots=True)
class Route:
    """
    How letters get to us.

    @ivar accounts: Where the Maildirs of accounts are.
    @ivar newToken: Letters and digits, never the same twice.
    """

    network: Network
    keys: SenderKeys
    accounts: Path
    newToken: Callable[[], str]


async def receiveAll(
    reactor: IReactorTime, route: Route, letters: Sequence[LabMessage]
) -> tuple[LetterOutcome, ...]:
    """
    Bring each of C{letters}, one after the other, and see what becomes of it.

    @param reactor: Also provides C{IReactorTCP}.

    @raise twisted.mail.smtp.SMTPClientError: There was no answer.
    """
    return tuple([await _receive(reactor, route, each) for each in letters])


async def _receive(
    reactor: IReactorTime, route: Route, letter: LabMessage
) -> LetterOutcome:
    network, token = route.network, route.newToken()
    client = BY_NAME[letter.client]
    parcel = OutgoingMessage(
        addressOf(network, client),
        client.host,
        f"bounces@{letter.envelope}" if letter.envelope else "",
        letter.recipient,
        writtenLetter(letter, route.keys, reactor.seconds(), token),
    )
    to = (network.submission, network.smtpPort)
    answer = await post(IReactorTCP(reactor), to, parcel)
    # It is on the disk before there is an answer.
    found = findMessage(route.accounts / letter.to, messageID(letter, token))
    if found is not None:
        mailbox, message = found
        return LetterOutcome(letter, answer, mailbox, seenOn(message))
    seen = seenIn(answer.text) if answer.code >= 400 else _UNKNOWN
    return LetterOutcome(letter, answer, "", seen)
