"""
Tests for L{moxtls.received.intake.imap}, with a real server over TLS.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from moxtls.received.intake import imap
from moxtls.received.intake.imap import InvalidURL, Mailbox, MailboxError, MailboxURL
from moxtls.received.intake.inputs import Found, Input
from moxtls.received.reading.documents import MAX_INPUT
from moxtls.received.types import Unreadable
from tests import MAX_WAIT
from tests.certificates import Identity, good, root, selfSigned, trusting
from tests.received.intake import imapserver
from tests.received.intake.imapserver import MAILBOX, PASSWORD, USER, IMAPServer

reactor: Any = installed

HOST = "localhost"
MAIL = b"Subject: \xe4\xff\r\n\r\n" + bytes(range(256)) + b"{5}\r\n<3>)\r\n"


class URLTests(SynchronousTestCase):
    """
    Tests for L{MailboxURL} (RFC 5092).
    """

    def test_parse(self) -> None:
        """
        Port and mailbox may be left out; user and mailbox may be quoted.
        """
        self.assertEqual(
            MailboxURL.parse("imaps://anna@imap.example"),
            MailboxURL("anna", "imap.example", 993, "INBOX"),
        )
        url = MailboxURL.parse("imaps://anna%40a.example@[::1]:1993/Re%20port/x")
        self.assertEqual(url, MailboxURL("anna@a.example", "::1", 1993, "Re port/x"))
        both = MailboxURL.parse("imaps://anna@a.example@imap.example/INBOX")
        self.assertEqual((both.user, both.host), ("anna@a.example", "imap.example"))

    def test_invalid(self) -> None:
        """
        Without TLS, user or host, or with a password that everybody could see, it isn't
        accepted.
        """
        for text in (
            "imap://anna@imap.example",
            "imaps://imap.example",
            "imaps://anna@",
            "imaps://anna@imap.example:x",
            "imaps://anna@imap.example:99999",
            "imaps://anna:secret@imap.example",
            "imaps://anna@imap.example/x%0d%0a0001%20LOGOUT",
        ):
            self.assertRaises(InvalidURL, MailboxURL.parse, text)


class MailboxTests(TestCase):
    """
    Tests for L{Mailbox}.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.patch(imap, "PAUSES", (0, 0))
        self.messages = {uid: MAIL + b"%d" % uid for uid in (3, 4, 10, 11, 500)}
        self.mailbox = imapserver.Mailbox(self.messages)
        self.server = IMAPServer(self.mailbox)
        self.listen(good(HOST))

    def listen(self, identity: Identity) -> None:
        port = self.server.listen(reactor, identity)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.url = MailboxURL(USER.decode(), HOST, port.getHost().port, MAILBOX)

    async def read(self, password: str = PASSWORD.decode()) -> list[Found]:
        mailbox = Mailbox(reactor, self.url, password, trusting(root()))
        async with aclosing(mailbox.messages()) as messages:
            return [each async for each in messages]

    def expected(self, *uids: int) -> list[Found]:
        return [
            Input(f"{self.url}/{uid}", self.messages[uid], 1, True)
            for uid in uids or self.messages
        ]

    async def assertUnread(self, reason: str, password: str = "x") -> None:
        try:
            await self.read(password)
        except MailboxError as error:
            self.assertRegex(str(error), reason)
            self.assertNotIn("\n", str(error))
        else:
            self.fail("it was read")

    async def test_read(self) -> None:
        """
        All messages are read, octet by octet, without a command that could change the
        mailbox (RFC 9051 6.3.3, 6.4.5).
        """
        self.assertEqual(await self.read(), self.expected())
        self.assertEqual(self.server.said("SELECT", "STORE", "EXPUNGE"), [])
        fetched = self.server.said("BODY")
        self.assertEqual(len(fetched), 5)
        self.assertTrue(all("BODY.PEEK[]" in each for each in fetched))

    async def test_pages(self) -> None:
        """
        Messages are asked for in pages.
        """
        self.patch(imap, "PAGE", 2)
        self.assertEqual(await self.read(), self.expected())
        asked = self.server.said("SIZE")
        self.assertEqual([each.split()[1] for each in asked], ["1:2", "3:4", "5:5"])

    async def test_empty(self) -> None:
        """
        An empty mailbox has no messages.
        """
        self.messages.clear()
        self.assertEqual(await self.read(), [])

    async def test_tooLarge(self) -> None:
        """
        A message above the limit isn't fetched.
        """
        self.mailbox.sizes[4] = MAX_INPUT + 1
        found = await self.read()
        [refused] = [each for each in found if isinstance(each, Unreadable)]
        self.assertEqual(refused.name, f"{self.url}/4")
        self.assertEqual(len(found), 5)
        self.assertEqual(len(self.server.said("BODY")), 4)

    async def test_broken(self) -> None:
        """
        RFC 9051 7.1.2: a message that the server can't read is refused with its reason,
        and the others are read.
        """
        received = imapserver._Session.lineReceived

        def refuse(session: Any, line: bytes) -> None:
            if b" FETCH 4 " in line:
                session.sendLine(line.split()[0] + b" NO damaged")
            else:
                received(session, line)

        with patch.object(imapserver._Session, "lineReceived", refuse):
            found = await self.read()
        self.assertIn(Unreadable(f"{self.url}/4", "damaged"), found)
        self.assertEqual(len(found), 5)

    async def test_resumed(self) -> None:
        """
        After a lost connection, the message at which it was lost and those after it are
        read.
        """
        ends = iter((False, True, False, False, True))

        def isEnding(line: str) -> bool:
            return "BODY" in line and next(ends, False)

        self.server.isEnding = isEnding
        self.assertEqual(await self.read(), self.expected())
        uids = [each.split()[2] for each in self.server.said("BODY")]
        self.assertEqual(uids, ["3", "4", "4", "10", "11", "11", "500"])

    async def test_replaced(self) -> None:
        """
        RFC 9051 2.3.1.1: if the mailbox was replaced in the meantime, all is read.
        """

        def isEnding(line: str) -> bool:
            if "BODY" in line and self.mailbox.validity == 1:
                self.mailbox.validity = 2
                self.messages.clear()
                self.messages[1] = MAIL
                return True
            return False

        self.server.isEnding = isEnding
        self.assertEqual(await self.read(), self.expected(1))

    async def test_lost(self) -> None:
        """
        If connections are lost again and again without a message, reading ends.
        """
        self.server.isEnding = lambda line: "BODY" in line and " 4 " in line
        await self.assertUnread(".+", PASSWORD.decode())
        self.assertEqual(len(self.server.said("EXAMINE")), 3)

    async def test_unreachable(self) -> None:
        """
        The same if there is no server.
        """
        self.url = MailboxURL("anna", HOST, 1, "INBOX")
        await self.assertUnread("refused")

    async def test_login(self) -> None:
        """
        A wrong password is tried once.
        """
        await self.assertUnread("[Ll]ogin|LOGIN")
        self.assertEqual(len(self.server.said("LOGIN")), 1)

    async def test_unknown(self) -> None:
        """
        An unknown mailbox isn't looked for again.
        """
        self.url = MailboxURL(USER.decode(), HOST, self.url.port, "Nothing")
        await self.assertUnread(".+", PASSWORD.decode())
        self.assertEqual(len(self.server.said("EXAMINE")), 1)

    async def test_certificate(self) -> None:
        """
        Nothing is sent to a server without a valid certificate for its name (RFC 8314
        4).
        """
        for identity, reason in (
            (selfSigned(HOST), "the certificate isn't trusted"),
            (root().issue(HOST, days=-1), "the certificate isn't trusted"),
            (good("imap.example"), "the certificate isn't for localhost"),
        ):
            self.listen(identity)
            await self.assertUnread(reason, PASSWORD.decode())
        self.assertEqual(self.server.commands, [])

    async def test_notTLS(self) -> None:
        """
        Nor to one that doesn't speak TLS.
        """
        port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.url = MailboxURL("anna", HOST, port.getHost().port, "INBOX")
        await self.assertUnread(".+", PASSWORD.decode())
        self.assertEqual([each for each in self.server.commands if "LOGIN" in each], [])

    async def test_flood(self) -> None:
        """
        A server that announces a small message and sends a large one is left.
        """
        self.mailbox.sizes[500] = 10
        with patch.object(imap, "MAX_INPUT", 1000):
            self.messages[500] = b"x" * 5000
            await self.assertUnread("sends more", PASSWORD.decode())

    async def test_endless(self) -> None:
        """
        A server that never ends its response, or a line, is left, and isn't asked
        again.
        """
        for data in (b"* 1 FETCH (FLAGS ())\r\n", b"* 1 X {1}\r\nx", b"x"):

            def flood(session: Any, line: bytes, data: bytes = data) -> None:
                session.transport.write(data * 50_000)

            with patch.object(imapserver._Session, "lineReceived", flood):
                await self.assertUnread("sends more", PASSWORD.decode())

    async def test_silent(self) -> None:
        """
        A server that says nothing more is left after a time, also if it doesn't end
        TLS.
        """
        self.patch(imap._Client, "timeout", 0.05)

        def pause(session: Any, line: bytes) -> None:
            session.transport.pauseProducing()
            self.addCleanup(session.transport.abortConnection)

        for received in (lambda session, line: None, pause):
            with patch.object(imapserver._Session, "lineReceived", received):
                await self.assertUnread("doesn't answer", PASSWORD.decode())

    async def test_stopped(self) -> None:
        """
        A reader that stops early closes the connection.
        """
        mailbox = Mailbox(reactor, self.url, PASSWORD.decode(), trusting(root()))
        async with aclosing(mailbox.messages()) as messages:
            async for each in messages:
                self.assertEqual(each, self.expected(3)[0])
                break
        self.assertIsNone(mailbox._client)

    async def test_cancelled(self) -> None:
        """
        Cancelling ends the connection.
        """
        with patch.object(imapserver._Session, "lineReceived"):
            reading = Deferred.fromCoroutine(self.read())
            reactor.callLater(0.05, reading.cancel)
            await self.assertFailure(reading, CancelledError)
