# -*- test-case-name: tests.queue.test_memory -*-
"""
A queue in memory that delivers nothing: for tests, and for embedding moxtls where
mail is sent by other means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from moxtls.interfaces import IQueue, IResultRecorder
from moxtls.queue.types import (
    Envelope,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Result,
    accepted,
    acceptedBody,
    destinationOf,
)


@implementer(IResultRecorder)
class MemoryResultRecorder:
    """
    L{IResultRecorder} over a list.

    @ivar results: In order of arrival.
    """

    def __init__(self) -> None:
        self.results: list[Result] = []

    def record(self, results: Sequence[Result]) -> Deferred[None]:
        known = {(each.messageID, each.recipient) for each in self.results}
        self.results += [
            each for each in results if (each.messageID, each.recipient) not in known
        ]
        return succeed(None)


@implementer(IQueue)
class MemoryQueue:
    """
    L{IQueue} over a dictionary.

    @ivar bodies: The submitted messages by id, including messages that were dropped.
    @ivar retried: The ids given to L{retry}.
    """

    def __init__(self, clock: IReactorTime, newID: Callable[[], str]) -> None:
        self.bodies: dict[str, bytes] = {}
        self.retried: list[str] = []
        self._clock = clock
        self._newID = newID
        self._messages: dict[str, QueuedMessage] = {}
        self._keys: dict[str, str] = {}

    @property
    def envelopes(self) -> list[Envelope]:
        """
        The envelopes of queued messages, oldest first.
        """
        return [message.envelope for message in self._messages.values()]

    def submit(self, envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        return execute(self._submit, envelope, body)

    def messages(self) -> Deferred[tuple[QueuedMessage, ...]]:
        return succeed(tuple(self._messages.values()))

    def page(
        self, after: int, limit: int
    ) -> Deferred[tuple[int, tuple[QueuedMessage, ...]]]:
        found = tuple(self._messages.values())[after : after + limit]
        return succeed((after + len(found), found))

    def retry(self, messageID: str) -> Deferred[bool]:
        message = self._messages.get(messageID)
        if message is None:
            return succeed(False)
        self.retried.append(messageID)
        now = self._clock.seconds()
        due = tuple(replace(each, nextAttempt=now) for each in message.recipients)
        self._messages[messageID] = replace(message, recipients=due)
        return succeed(True)

    def hold(self, messageID: str, held: bool) -> Deferred[bool]:
        message = self._messages.get(messageID)
        if message is not None:
            self._messages[messageID] = replace(message, held=held)
        return succeed(message is not None)

    def drop(self, messageID: str) -> Deferred[bool]:
        return succeed(self._messages.pop(messageID, None) is not None)

    def _submit(self, envelope: Envelope, body: Sequence[bytes]) -> str:
        known = self._keys.get(envelope.key) if envelope.key else None
        if known is not None:
            return known
        envelope = accepted(envelope)
        now = self._clock.seconds()
        recipients = tuple(
            QueuedRecipient(
                each, destinationOf(each), RecipientState.WAITING, 0, now, None
            )
            for each in envelope.recipients
        )
        messageID = self._newID()
        message = b"".join(acceptedBody(envelope, body))
        self.bodies[messageID] = message
        self._messages[messageID] = QueuedMessage(
            messageID, envelope, len(message), now, False, Path(messageID), recipients
        )
        if envelope.key:
            self._keys[envelope.key] = messageID
        return messageID
