"""
Tests for L{moxtls.lab.mail}, over real sockets.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTCP
from twisted.mail.smtp import SMTPConnectError
from zope.interface import implementer

from moxtls.lab.mail import OutgoingMessage, SMTPAnswer, post
from moxtls.message.trace import ClientInfo
from moxtls.smtp.server.events import ServerSettings, TransactionState
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery, ListenerSettings
from moxtls.smtp.types import Reply
from tests.lab.fixtures import LabTestCase

OK = Reply(250, "2.0.0", "OK")


@implementer(IMessageDelivery, IMessage)
class Listening:
    """
    Says what it is told to, and keeps what it sees.
    """

    recipient = OK
    answer = OK

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.content = b""

    def mailFrom(
        self, client: ClientInfo, incoming: TransactionState
    ) -> Deferred[Reply]:
        self.seen.append((client.address, client.helo, incoming.sender))
        return succeed(OK)

    def rcptTo(
        self, client: ClientInfo, incoming: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        return succeed(self.recipient)

    def message(self, client: ClientInfo, incoming: TransactionState) -> IMessage:
        return self

    def write(self, chunk: bytes) -> None:
        self.content += chunk

    def finish(self) -> Deferred[Reply]:
        return succeed(self.answer)

    def abort(self) -> None:
        pass


class PostTests(LabTestCase):
    """
    Messages on their way in.
    """

    def setUp(self) -> None:
        super().setUp()
        self.listening = Listening()
        self.place = (self.network.address(1), self.network.smtpPort)
        self.parcel = OutgoingMessage(
            self.network.address(2),
            "mta.good.test",
            "bounces@good.test",
            "anna@sender.test",
            b"Subject: hello\r\n\r\n.dot\r\nend\r\n",
        )

    def listen(self) -> None:
        settings = ListenerSettings(ServerSettings("mail.sender.test"))
        factory = SMTPServerFactory(reactor, settings, self.listening, None)
        address, port = self.place
        listening = IReactorTCP(reactor).listenTCP(port, factory, interface=address)
        self.addCleanup(listening.stopListening)
        self.addCleanup(factory.stop)

    def post(self) -> Deferred[SMTPAnswer]:
        return post(IReactorTCP(reactor), self.place, self.parcel)

    async def test_accepted(self) -> None:
        """
        It comes from the address it is to come from, as it is.
        """
        self.listen()
        answer = await self.post()
        self.assertEqual(250, answer.code)
        self.assertEqual(
            [(self.parcel.address, "mta.good.test", "bounces@good.test")],
            self.listening.seen,
        )
        self.assertEqual(self.parcel.message, self.listening.content)

    async def test_refused(self) -> None:
        """
        A refusal is an answer like any other, with all its lines.
        """
        self.listening.answer = Reply(550, "5.7.1", "Refused because\nof DMARC")
        self.listen()
        answer = await self.post()
        self.assertEqual(550, answer.code)
        self.assertIn("Refused because", answer.text)
        self.assertIn("of DMARC", answer.text)

    async def test_recipient(self) -> None:
        """
        So is that of somebody who isn't there.
        """
        self.listening.recipient = Reply(550, "5.1.1", "Nobody")
        self.listen()
        self.assertEqual(SMTPAnswer(550, "5.1.1 Nobody"), await self.post())

    async def test_nobody(self) -> None:
        """
        Where nobody listens there is no answer.
        """
        await self.assertFailure(self.post(), SMTPConnectError)
