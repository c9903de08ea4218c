"""
Contract tests for L{IQueue}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.domain import InvalidAddress
from moxtls.interfaces import IQueue
from moxtls.queue.types import Envelope, QueuedMessage, RecipientState
from moxtls.smtp.server.data import InvalidMessage

BODY = (b"Subject: hello\r\n", b"\r\nbody\r\n")
ENVELOPE = Envelope("us@sender.example", ("you@first.example", "me@Second.example"))


class QueueMixin(SynchronousTestCase):
    """
    Tests for L{IQueue}, on a queue without delivery attempts.
    """

    clock: Clock

    def makeQueue(self) -> IQueue:
        """
        Make an empty queue on C{self.clock}.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.queue = self.makeQueue()

    def submit(self, envelope: Envelope = ENVELOPE) -> str:
        return self.successResultOf(self.queue.submit(envelope, BODY))

    def messages(self) -> tuple[QueuedMessage, ...]:
        return self.successResultOf(self.queue.messages())

    def test_pages(self) -> None:
        """
        Messages are listed page by page, oldest first.
        """
        ids = [self.submit() for _ in range(5)]
        for limit in (1, 2, 5, 9):
            found: list[str] = []
            number, page = self.successResultOf(self.queue.page(0, limit))
            while page:
                self.assertLessEqual(len(page), limit)
                found += [message.messageID for message in page]
                number, page = self.successResultOf(self.queue.page(number, limit))
            self.assertEqual(found, ids)
        whole = self.successResultOf(self.queue.page(0, 9))[1]
        self.assertEqual(whole, self.messages())

    def test_interface(self) -> None:
        """
        The queue provides L{IQueue}.
        """
        verifyObject(IQueue, self.queue)

    def test_submitted(self) -> None:
        """
        A submitted message is listed with all of its envelope, each recipient once and
        due at once.
        """
        envelope = Envelope(
            "us@sender.example",
            ("you@first.example", "me@[192.0.2.1]", "you@first.example"),
            eightBit=True,
            smtputf8=True,
            requireTLS=False,
            maxAttempts=3,
            contentType="text/x",
            response=True,
        )
        messageID = self.submit(envelope)
        (message,) = self.messages()
        self.assertEqual(message.messageID, messageID)
        self.assertEqual(
            message.envelope.recipients, ("you@first.example", "me@[192.0.2.1]")
        )
        self.assertEqual(message.envelope.requireTLS, False)
        self.assertTrue(message.envelope.eightBit and message.envelope.smtputf8)
        self.assertEqual(message.envelope.maxAttempts, 3)
        self.assertEqual(message.envelope.contentType, "text/x")
        self.assertTrue(message.envelope.response)
        self.assertEqual(message.size, sum(map(len, BODY)))
        self.assertEqual(message.queued, self.clock.seconds())
        self.assertEqual(
            [
                (each.destination, each.state, each.attempts, each.nextAttempt)
                for each in message.recipients
            ],
            [
                ("first.example", RecipientState.WAITING, 0, self.clock.seconds()),
                ("[192.0.2.1]", RecipientState.WAITING, 0, self.clock.seconds()),
            ],
        )

    def test_knownKey(self) -> None:
        """
        A submission with a known key adds nothing and returns the id of the first
        message, even if that has left the queue.
        """
        keyed = Envelope("", ("a@first.example",), key="report 1")
        first = self.submit(keyed)
        self.assertEqual(self.submit(keyed), first)
        self.assertEqual(len(self.messages()), 1)
        self.successResultOf(self.queue.drop(first))
        self.assertEqual(self.submit(keyed), first)
        self.assertEqual(self.messages(), ())

    def test_noKey(self) -> None:
        """
        Equal submissions without a key are different messages.
        """
        self.assertNotEqual(self.submit(), self.submit())
        self.assertEqual(len(self.messages()), 2)

    def test_uri(self) -> None:
        """
        The destination of a URI is the URI itself.
        """
        self.submit(Envelope("", ("https://a.example/v1?x=y",)))
        (recipient,) = self.messages()[0].recipients
        self.assertEqual(recipient.destination, "https://a.example/v1?x=y")

    def test_invalidRecipients(self) -> None:
        """
        Messages with invalid recipients, or none, are not accepted.
        """
        bad = self.queue.submit(Envelope("", ("nobody at all",)), BODY)
        self.failureResultOf(bad, InvalidAddress)
        self.failureResultOf(self.queue.submit(Envelope("", ()), BODY), ValueError)
        self.assertEqual(self.messages(), ())

    def test_invalidContent(self) -> None:
        """
        Messages with NUL, bare CR or LF, or a line that is too long are not accepted,
        wherever their chunks begin.  RFC 5321 2.3.8
        """
        for body, said in (
            ((b"A: b\r\n\r\n", b"c\0"), "line 3 of the message has a NUL"),
            ((b"A: b\r", b"\n\r\nc\r", b"d"), "line 3 of the message has a bare CR"),
            ((b"A: b\r\n\r\nc\r",), "line 3 of the message has a bare CR"),
            ((b"A: b\n\r\n",), "line 1 of the message has a bare LF"),
            ((b"A: b\r\n\r\n", *[b"c" * 65536] * 17), "line 3 of the message has more"),
        ):
            failure = self.failureResultOf(self.queue.submit(ENVELOPE, body))
            failure.trap(InvalidMessage)
            self.assertIn(said, str(failure.value))
        self.assertEqual(self.messages(), ())

    def test_validContent(self) -> None:
        """
        Long lines are accepted; bodies for HTTP are not checked as mail.
        """
        long = (b"A: b\r\n\r\n", b"c" * 100_000 + b"\r", b"\n")
        self.successResultOf(self.queue.submit(ENVELOPE, long))
        posted = Envelope("", ("https://a.example/",), contentType="application/x")
        self.successResultOf(self.queue.submit(posted, (b"\x1f\x8b\0\r\n\n",)))

    def test_oldestFirst(self) -> None:
        """
        Messages are listed in the order of their submission.
        """
        first = self.submit()
        self.clock.advance(1)
        second = self.submit()
        self.assertEqual([m.messageID for m in self.messages()], [first, second])

    def test_hold(self) -> None:
        """
        A message can be held and released.
        """
        messageID = self.submit()
        for held in (True, False):
            self.assertTrue(self.successResultOf(self.queue.hold(messageID, held)))
            self.assertEqual(self.messages()[0].held, held)

    def test_drop(self) -> None:
        """
        A dropped message is no longer listed.
        """
        messageID = self.submit()
        self.assertTrue(self.successResultOf(self.queue.drop(messageID)))
        self.assertFalse(self.successResultOf(self.queue.drop(messageID)))
        self.assertEqual(self.messages(), ())

    def test_retry(self) -> None:
        """
        A retry makes every waiting recipient due.
        """
        messageID = self.submit()
        self.clock.advance(10)
        self.assertTrue(self.successResultOf(self.queue.retry(messageID)))
        (message,) = self.messages()
        self.assertEqual(
            {each.nextAttempt for each in message.recipients}, {self.clock.seconds()}
        )

    def test_unknown(self) -> None:
        """
        Commands for unknown messages return false.
        """
        self.assertFalse(self.successResultOf(self.queue.retry("x")))
        self.assertFalse(self.successResultOf(self.queue.hold("x", True)))
        self.assertFalse(self.successResultOf(self.queue.drop("x")))
