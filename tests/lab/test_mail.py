"""
Tests for L{moxtls.lab.mail}.

Tests for L{moxtls.lab.mail}, over real sockets.

Tests for L{moxtls.lab.mail}; L{tests.lab.test_runner} has mail come in.
"""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTCP
from twisted.mail.smtp import SMTPConnectError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from moxtls.authentication.outcome import authenticationResults
from moxtls.authentication.results import (
    Authentication,
    AuthResult,
    IPRevResult,
    SPFResult,
    SPFScope,
)
from moxtls.dmarc.types import (
    Discovery,
    DiscoveryMethod,
    DMARCPolicy,
    DMARCRecord,
    Override,
    OverrideKind,
    Verdict,
)
from moxtls.domain import Domain
from moxtls.lab.mail import (
    FoundMessage,
    OutgoingMessage,
    ReceptionOutcome,
    SMTPAnswer,
    findMessage,
    post,
    seenIn,
    seenOn,
)
from moxtls.lab.messages import MESSAGES, LabMessage
from moxtls.message.header import ClientInfo
from moxtls.smtp.server.factory import SMTPServerFactory
from moxtls.smtp.server.interfaces import IMessage, IMessageDelivery, ListenerSettings
from moxtls.smtp.server.state import ServerSettings, TransactionState
from moxtls.smtp.types import Reply
from tests.dmarc.zone import signature
from tests.lab.fixtures import LabTestCase

REFUSAL = (
    "5.7.1 Refused because of the DMARC policy of listed.test:\n"
    "5.7.1 neither SPF nor DKIM authenticates the message for that domain\n"
    "5.7.1 (SPF softfail for bounce.test; DKIM fail for listed.test, pass for a.test)"
)


class FindMessageTests(SynchronousTestCase):
    """
    Messages in a Maildir++.
    """

    def setUp(self) -> None:
        self.root = Path(self.mktemp())

    def put(self, endpoint: str, messageID: str) -> None:
        path = self.root / endpoint
        path.parent.mkdir(parents=True)
        path.write_bytes(f"Message-ID: {messageID}\r\n\r\ntext\r\n".encode())

    def test_mailboxes(self) -> None:
        """
        The folders of a Maildir++ go by the names that mail programs show.
        """
        self.put("new/1", "<one@a.test>")
        self.put(".Junk/new/2", "<two@a.test>")
        self.put(".Lists.Announce/cur/3:2,S", "<three@a.test>")
        for messageID, mailbox in (
            ("<one@a.test>", "Inbox"),
            ("<two@a.test>", "Junk"),
            ("<three@a.test>", "Lists/Announce"),
        ):
            found = findMessage(self.root, messageID)
            assert found is not None
            self.assertEqual(mailbox, found[0])
            self.assertEqual(messageID, found[1]["Message-ID"])

    def test_nowhere(self) -> None:
        """
        A message may be in no mailbox, and there may be no Maildir yet.
        """
        self.assertIsNone(findMessage(self.root, "<one@a.test>"))
        self.put("new/1", "<one@a.test>")
        self.assertIsNone(findMessage(self.root, "<two@a.test>"))


class AuthenticationResultsTests(SynchronousTestCase):
    """
    Tests for parsing authentication results.
    """

    def seen(self, verdict: Verdict, *dkim: str) -> FoundMessage:
        spf = SPFResult(SPFScope.MAIL_FROM, "b.test", AuthResult.FAIL, problem="a; b=c")
        helo = SPFResult(SPFScope.HELO, "mta.b.test", AuthResult.PASS)
        authentication = Authentication(
            "192.0.2.1",
            IPRevResult(AuthResult.PERMERROR),
            helo,
            spf,
            tuple(map(signature, dkim)),
        )
        field = authenticationResults(
            "mail.sender.test", authentication, verdict, "b@b.test"
        )
        # A field that came with the message is further down, and isn't ours.
        others = b"Authentication-Results: else.test; spf=pass; dmarc=pass\r\n"
        return seenOn(message_from_bytes(field + others + b"\r\n"))

    def test_results(self) -> None:
        """
        The results are those of C{Authentication-Results} (RFC 8601 2.2), of
        SPF that of MAIL FROM.
        """
        author = Domain("a.test")
        discovery = Discovery(
            author, author, DiscoveryMethod.TREE_WALK, author, DMARCRecord()
        )
        verdict = Verdict(
            AuthResult.FAIL,
            author,
            discovery,
            DMARCPolicy.REJECT,
            DMARCPolicy.QUARANTINE,
            reasons=(Override(OverrideKind.POLICY_TEST_MODE),),
        )
        self.assertEqual(
            FoundMessage(
                "fail",
                (("a.test", "pass"), ("b.test", "pass")),
                "fail",
                "quarantine",
            ),
            self.seen(verdict, "a.test", "b.test"),
        )

    def test_nothing(self) -> None:
        """
        Without a policy there is no disposition, and without signatures there are no
        results.
        """
        verdict = Verdict(AuthResult.NONE, Domain("a.test"))
        self.assertEqual(FoundMessage("fail", (), "none", "none"), self.seen(verdict))

    def test_refusal(self) -> None:
        """
        A rejected message is in no mailbox, and the reply has the reason.
        """
        self.assertEqual(
            FoundMessage(
                "softfail",
                (("listed.test", "fail"), ("a.test", "pass")),
                "fail",
                "reject",
            ),
            seenIn(REFUSAL),
        )
        self.assertEqual(
            FoundMessage("fail", (), "fail", "reject"),
            seenIn("5.7.1 DMARC\n5.7.1 (SPF fail for a.test; DKIM none)"),
        )

    def test_otherRefusal(self) -> None:
        """
        The refusal may have another reason.
        """
        self.assertEqual(FoundMessage(), seenIn("5.1.1 No such mailbox here"))


OK = Reply(250, "2.0.0", "OK")


@implementer(IMessageDelivery, IMessage)
class ScriptedServer:
    """
    A server with scripted replies that keeps its input.
    """

    recipient = OK
    answer = OK

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.content = b""

    def mailFrom(
        self, client: ClientInfo, transaction: TransactionState
    ) -> Deferred[Reply]:
        self.seen.append((client.address, client.helo, transaction.sender))
        return succeed(OK)

    def rcptTo(
        self, client: ClientInfo, transaction: TransactionState, recipient: str
    ) -> Deferred[Reply]:
        return succeed(self.recipient)

    def message(self, client: ClientInfo, transaction: TransactionState) -> IMessage:
        return self

    def write(self, chunk: bytes) -> None:
        self.content += chunk

    def finish(self) -> Deferred[Reply]:
        return succeed(self.answer)

    def abort(self) -> None:
        pass


class SendTests(LabTestCase):
    """
    Messages on their way in.
    """

    def setUp(self) -> None:
        super().setUp()
        self.listening = ScriptedServer()
        self.endpoint = (self.network.address(1), self.network.smtpPort)
        self.message = OutgoingMessage(
            self.network.address(2),
            "mta.good.test",
            "bounces@good.test",
            "anna@sender.test",
            b"Subject: hello\r\n\r\n.dot\r\nend\r\n",
        )

    def listen(self) -> None:
        settings = ListenerSettings(ServerSettings("mail.sender.test"))
        factory = SMTPServerFactory(reactor, settings, self.listening, None)
        address, port = self.endpoint
        listening = IReactorTCP(reactor).listenTCP(port, factory, interface=address)
        self.addCleanup(listening.stopListening)
        self.addCleanup(factory.stop)

    def post(self) -> Deferred[SMTPAnswer]:
        return post(IReactorTCP(reactor), self.endpoint, self.message)

    async def test_accepted(self) -> None:
        """
        The message comes from the specified address, unchanged.
        """
        self.listen()
        answer = await self.post()
        self.assertEqual(250, answer.code)
        self.assertEqual(
            [(self.message.address, "mta.good.test", "bounces@good.test")],
            self.listening.seen,
        )
        self.assertEqual(self.message.message, self.listening.content)

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
        The refusal of an unknown recipient is an answer too.
        """
        self.listening.recipient = Reply(550, "5.1.1", "Nobody")
        self.listen()
        self.assertEqual(SMTPAnswer(550, "5.1.1 Nobody"), await self.post())

    async def test_nobody(self) -> None:
        """
        Without a listener there is no reply.
        """
        await self.assertFailure(self.post(), SMTPConnectError)


def outcome(labMessage: LabMessage) -> ReceptionOutcome:
    """
    The expected outcome of a message.
    """
    expected = labMessage.expected
    seen = FoundMessage(
        expected.spf, expected.dkim, expected.dmarc, expected.disposition
    )
    return ReceptionOutcome(
        labMessage, SMTPAnswer(expected.code, ""), expected.mailbox, seen
    )


class ReceptionOutcomeTests(SynchronousTestCase):
    """
    Tests for comparing the outcome of a message with the expected one.
    """

    def test_none(self) -> None:
        """
        All is as it should be.
        """
        for each in MESSAGES:
            self.assertEqual((), outcome(each).differences)

    def test_each(self) -> None:
        """
        Everything about it counts.
        """
        right = outcome(MESSAGES[0])
        for wrong, what in (
            (replace(right, answer=SMTPAnswer(451, "")), "reply is 451, not 250"),
            (replace(right, mailbox="Junk"), "mailbox is 'Junk', not 'Inbox'"),
            (self.seeing(right, spf="none"), "SPF is 'none', not 'pass'"),
            (self.seeing(right, dmarc="fail"), "DMARC is 'fail', not 'pass'"),
            (
                self.seeing(right, disposition="reject"),
                "disposition is 'reject', not 'none'",
            ),
        ):
            self.assertEqual((f"{right.labMessage.name}: {what}",), wrong.differences)
        self.assertEqual(1, len(self.seeing(right, dkim=()).differences))

    def seeing(self, right: ReceptionOutcome, **changes: object) -> ReceptionOutcome:
        seen = replace(right.seen, **changes)  # type: ignore[arg-type]
        return replace(right, seen=seen)
