"""
Tests for L{moxtls.reception.submission} and L{moxtls.message.spooled}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from moxtls.interfaces import IQueue
from moxtls.message.header import MAX_HOPS, ClientInfo
from moxtls.message.spooled import CHUNK, MAX_IN_MEMORY, SpooledMessage
from moxtls.queue.types import Envelope, QueuedMessage
from moxtls.reception.submission import Submission, envelopeOf
from moxtls.smtp.server.data import InvalidMessage
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery
from moxtls.smtp.server.state import TransactionState
from moxtls.smtp.server.syntax import MailParameters
from moxtls.smtp.types import Reply

CLIENT = ClientInfo("127.0.0.1", "client.example")
#: 2026-11-24T00:00:00Z
NOW = 1795478400
ADDED = (
    b"Received: from client.example ([127.0.0.1])\r\n"
    b"\tby mx.example with ESMTP\r\n\tid id1\r\n"
    b"\tfor <b@b.example>; Tue, 24 Nov 2026 00:00:00 +0000\r\n"
    b"Date: Tue, 24 Nov 2026 00:00:00 +0000\r\n"
    b"Message-ID: <id1@mx.example>\r\n"
)


@implementer(IQueue)
class FakeQueue:
    """
    Records submissions.

    @ivar answer: The result of C{submit}.
    """

    def __init__(self) -> None:
        self.submitted: list[tuple[Envelope, bytes]] = []
        self.answer: Deferred[str] = succeed("q1")

    def submit(self, envelope: Envelope, body: Sequence[bytes]) -> Deferred[str]:
        self.submitted.append((envelope, b"".join(body)))
        return self.answer

    def messages(self) -> Deferred[tuple[QueuedMessage, ...]]:
        return succeed(())

    def page(
        self, after: int, limit: int
    ) -> Deferred[tuple[int, tuple[QueuedMessage, ...]]]:
        raise NotImplementedError

    def retry(self, messageID: str) -> Deferred[bool]:
        return succeed(False)

    def hold(self, messageID: str, held: bool) -> Deferred[bool]:
        return succeed(False)

    def drop(self, messageID: str) -> Deferred[bool]:
        return succeed(False)


class SubmissionTests(SynchronousTestCase):
    """
    Tests for L{Submission}.
    """

    def setUp(self) -> None:
        self.queue = FakeQueue()
        verifyObject(IQueue, self.queue)
        clock = Clock()
        clock.advance(NOW)
        folder = Path(self.mktemp())
        folder.mkdir()
        self.submission = Submission(
            clock, self.queue, "mx.example", lambda: "id1", folder
        )

    def submit(self, transaction: TransactionState, *chunks: bytes) -> Deferred[Reply]:
        """
        Hand a message to the acceptor.
        """
        sink = self.submission.message(CLIENT, transaction)
        verifyObject(IMessage, sink)
        for chunk in chunks:
            self.assertIsNone(sink.write(chunk))
        return sink.finish()

    def test_acceptsAnybody(self) -> None:
        """
        Sender and recipients are the client's business.
        """
        verifyObject(IMessageDelivery, self.submission)
        transaction = TransactionState("a@a.example")
        reply = self.successResultOf(self.submission.mailFrom(CLIENT, transaction))
        self.assertEqual((reply.code, reply.enhanced), (250, "2.1.0"))
        asked = self.submission.rcptTo(CLIENT, transaction, "b@b.example")
        reply = self.successResultOf(asked)
        self.assertEqual((reply.code, reply.enhanced), (250, "2.1.5"))

    def test_queued(self) -> None:
        """
        The message is queued with its missing header fields (RFC 6409 8) before the
        client gets 250.
        """
        self.queue.answer = Deferred()
        transaction = TransactionState("a@A.example", recipients=("b@B.example",))
        answer = self.submit(transaction, b"Subject: x\r\n", b"\r\nHi\r\n")
        self.assertNoResult(answer)
        self.queue.answer.callback("q1")
        reply = self.successResultOf(answer)
        self.assertEqual(reply, Reply(250, "2.0.0", "Queued as q1"))
        envelope = Envelope("a@a.example", ("b@b.example",))
        message = ADDED + b"Subject: x\r\n\r\nHi\r\n"
        self.assertEqual(self.queue.submitted, [(envelope, message)])

    def test_noHeader(self) -> None:
        """
        If a message has no header, the added one is separated from the text.
        """
        transaction = TransactionState("", recipients=("b@b.example",))
        self.successResultOf(self.submit(transaction, b"Hi there\r\n"))
        self.assertEqual(self.queue.submitted[0][1], ADDED + b"\r\nHi there\r\n")

    def test_large(self) -> None:
        """
        Large messages arrive whole as well.
        """
        lines = b"".join(b"%d\r\n" % n for n in range(100_000))
        pieces = [lines[n : n + 10_000] for n in range(0, len(lines), 10_000)]
        transaction = TransactionState("", recipients=("b@b.example",))
        self.successResultOf(self.submit(transaction, b"A: b\r\n\r\n", *pieces))
        self.assertEqual(self.queue.submitted[0][1], ADDED + b"A: b\r\n\r\n" + lines)

    def test_loop(self) -> None:
        """
        A message with too many Received fields is refused (RFC 5321 6.3).
        """
        transaction = TransactionState("", recipients=("b@b.example",))
        header = b"Received: from x by y; z\r\n" * (MAX_HOPS + 1)
        reply = self.successResultOf(self.submit(transaction, header, b"\r\nHi\r\n"))
        self.assertEqual((reply.code, reply.enhanced), (554, "5.4.6"))
        self.assertEqual(self.queue.submitted, [])

    def test_queueBroken(self) -> None:
        """
        If the queue fails, the client tries again later.
        """
        self.queue.answer = fail(OSError("disk"))
        transaction = TransactionState("", recipients=("b@b.example",))
        reply = self.successResultOf(self.submit(transaction, b"\r\n"))
        self.assertEqual((reply.code, reply.enhanced), (451, "4.3.0"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_invalid(self) -> None:
        """
        A message that the queue refuses gets a permanent negative reply (RFC 3463
        3.7).
        """
        self.queue.answer = fail(InvalidMessage("line 2 of the message has a NUL"))
        transaction = TransactionState("", recipients=("b@b.example",))
        reply = self.successResultOf(self.submit(transaction, b"\r\n\0"))
        self.assertEqual(str(reply), "554 5.6.0 line 2 of the message has a NUL")

    def test_abort(self) -> None:
        """
        An aborted message is discarded.
        """
        sink = self.submission.message(
            CLIENT, TransactionState("", recipients=("b@b.e",))
        )
        sink.write(b"x" * (MAX_IN_MEMORY + 1))
        sink.abort()
        self.assertEqual(self.queue.submitted, [])


class EnvelopeTests(SynchronousTestCase):
    """
    Tests for L{envelopeOf}.
    """

    def envelope(
        self, parameters: MailParameters, header: bytes = b"", isASCII: bool = True
    ) -> Envelope:
        transaction = TransactionState(
            "a@a.example", parameters, ("Postmaster", "b@b.example")
        )
        return envelopeOf(transaction, header, isASCII, "mx.example")

    def test_recipients(self) -> None:
        """
        Each recipient counts once, and C{postmaster} is local (RFC 5321 4.5.1).
        """
        transaction = TransactionState(
            "", recipients=("b@b.example", "b@B.example", "postmaster")
        )
        envelope = envelopeOf(transaction, b"", True, "mx.example")
        self.assertEqual(envelope.recipients, ("b@b.example", "postmaster@mx.example"))

    def test_requireTLS(self) -> None:
        """
        RFC 8689 4.1: the field counts unless REQUIRETLS was given.
        """
        no = b"TLS-Required: No\r\n"
        said, unsaid = MailParameters(requireTLS=True), MailParameters()
        self.assertIs(self.envelope(said, no).requireTLS, True)
        self.assertIs(self.envelope(said).requireTLS, True)
        self.assertIs(self.envelope(unsaid, no).requireTLS, False)
        self.assertIsNone(self.envelope(unsaid).requireTLS)

    def test_response(self) -> None:
        """
        Automatic responses and reports cause no reports.
        """
        answer = b"Auto-Submitted: auto-replied\r\n"
        person = self.envelope(MailParameters())
        self.assertTrue(person.causesReports)
        self.assertFalse(self.envelope(MailParameters(), answer).causesReports)

    def test_eightBit(self) -> None:
        """
        The content decides, not the parameters of MAIL (RFC 6152, RFC 6531 3.4).
        """
        said = MailParameters(eightBit=True, smtputf8=True)
        self.assertFalse(self.envelope(said).eightBit)
        self.assertFalse(self.envelope(said).smtputf8)
        self.assertTrue(self.envelope(said, isASCII=False).eightBit)
        self.assertTrue(self.envelope(said, isASCII=False).smtputf8)
        unsaid = self.envelope(MailParameters(), isASCII=False)
        self.assertTrue(unsaid.eightBit)
        self.assertFalse(unsaid.smtputf8)
        transaction = TransactionState("\u00e9@a.example", said, ("b@b.example",))
        self.assertTrue(envelopeOf(transaction, b"", True, "mx.example").smtputf8)


class SpooledMessageTests(SynchronousTestCase):
    """
    Tests for L{SpooledMessage}.
    """

    def test_sequence(self) -> None:
        """
        Chunks can be counted, indexed and iterated again, also in a file.
        """
        spooled = SpooledMessage(Path("."))
        self.addCleanup(spooled.close)
        whole = bytes(range(256)) * 2048
        for start in range(0, len(whole), 1000):
            spooled.write(whole[start : start + 1000])
        chunks = spooled.chunks(b"before")
        self.assertEqual(len(chunks), 1 + len(whole) // CHUNK)
        for _ in range(2):
            self.assertEqual(b"".join(chunks), b"before" + whole)
        self.assertEqual(chunks[-1], whole[-CHUNK:])
        self.assertEqual(b"".join(chunks[1:3]), whole[: 2 * CHUNK])
        self.assertRaises(IndexError, chunks.__getitem__, len(chunks))
        self.assertEqual(spooled.beginning(300_000), whole[:300_000])
        self.assertEqual(spooled.size, len(whole))
        self.assertFalse(spooled.isASCII)

    def test_small(self) -> None:
        """
        Small ones stay in memory.
        """
        spooled = SpooledMessage(Path("/nowhere"))
        spooled.write(b"a")
        spooled.write(b"b")
        self.assertEqual(list(spooled.chunks()), [b"ab"])
        self.assertEqual(spooled.beginning(1), b"a")
        self.assertTrue(spooled.isASCII)
