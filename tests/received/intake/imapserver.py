"""
An IMAP server over TLS with one mailbox, which twisted.mail provides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory
from twisted.mail.imap4 import (
    IAccount,
    IMailbox,
    IMAP4Server,
    IMessage,
    IMessageFile,
    MessageSet,
    ReadOnlyMailbox,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tests.certificates import Identity
from tests.test_https import Contexts

#: The server doesn't know quoted characters in strings.
USER, PASSWORD = b"anna@example.org", b"pass word"
MAILBOX = "Reports & more"


@implementer(IMessage, IMessageFile)
class _Message:  # type: ignore[misc]  # only what is used
    def __init__(self, uid: int, content: bytes, size: int) -> None:
        self._uid = uid
        self._content = content
        self._size = size

    def getUID(self) -> int:
        return self._uid

    def getSize(self) -> int:
        return self._size

    def getFlags(self) -> list[str]:
        return []

    def getInternalDate(self) -> str:
        return ""

    def getHeaders(self, negate: bool, *names: bytes) -> dict[str, str]:
        return {}

    def getBodyFile(self) -> BytesIO:
        return BytesIO(self._content)

    def isMultipart(self) -> bool:
        return False

    def open(self) -> BytesIO:
        return BytesIO(self._content)


@implementer(IMailbox)
class Mailbox:  # type: ignore[misc]
    """
    A mailbox that can only be read.

    @ivar messages: By UID.
    @ivar sizes: Sizes other than the real ones, by UID.
    """

    def __init__(self, messages: dict[int, bytes]) -> None:
        self.messages = messages
        self.sizes: dict[int, int] = {}
        self.validity = 1
        self.fetched: list[int] = []

    def getUIDValidity(self) -> int:
        return self.validity

    def getUIDNext(self) -> int:
        return max(self.messages, default=0) + 1

    def getUID(self, number: int) -> int:
        return sorted(self.messages)[number - 1]

    def getMessageCount(self) -> int:
        return len(self.messages)

    def getRecentCount(self) -> int:
        return 0

    def getUnseenCount(self) -> int:
        return len(self.messages)

    def isWriteable(self) -> bool:
        return True

    def getFlags(self) -> list[str]:
        return []

    def getHierarchicalDelimiter(self) -> str:
        return "/"

    def addListener(self, listener: object) -> None:
        pass

    def removeListener(self, listener: object) -> None:
        pass

    def fetch(self, messages: MessageSet, uid: bool) -> list[tuple[int, _Message]]:
        uids = sorted(self.messages)
        messages.last = uids[-1] if uid else len(uids)
        return [
            (number, self._message(each))
            for number, each in enumerate(uids, 1)
            if (each if uid else number) in messages
        ]

    def _message(self, uid: int) -> _Message:
        content = self.messages[uid]
        return _Message(uid, content, self.sizes.get(uid, len(content)))

    def store(self, *arguments: object) -> None:
        raise ReadOnlyMailbox


@implementer(IAccount, IRealm)
class _Account:  # type: ignore[misc]
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def requestAvatar(self, avatarId: object, mind: object, *interfaces: Any) -> Any:
        return IAccount, self, lambda: None

    def select(self, name: str, rw: bool = True) -> Mailbox | None:
        return self._mailbox if name in (MAILBOX, "INBOX") and not rw else None

    def isSubscribed(self, name: str) -> bool:
        return True


class _Session(IMAP4Server):
    """
    A session that records commands, and may end in the middle of a response.
    """

    server: IMAPServer

    def lineReceived(self, line: bytes) -> None:
        self.server.commands.append(line.decode())
        if self.server.isEnding(line.decode()):
            self.transport.abortConnection()  # type: ignore[union-attr]
        else:
            super().lineReceived(line)


class IMAPServer(Factory):
    """
    The server.

    @ivar commands: All lines from clients.
    @ivar isEnding: Whether the connection ends in place of the response to a line.
    """

    noisy = False

    def __init__(self, mailbox: Mailbox) -> None:
        self.commands: list[str] = []
        self.isEnding: Callable[[str], bool] = lambda line: False
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(USER, PASSWORD)
        self._portal = Portal(_Account(mailbox), [checker])

    def buildProtocol(self, addr: object) -> IMAP4Server:
        session = _Session()
        session.server = self
        session.portal = self._portal  # type: ignore[assignment]
        return session

    def listen(self, reactor: IReactorTCP, identity: Identity) -> Any:
        """
        Listen on a port of loopback.
        """
        contexts = Contexts(identity)
        secured: Any = TLSMemoryBIOFactory(contexts, False, self)
        return reactor.listenTCP(0, secured, interface="127.0.0.1")

    def said(self, *words: str) -> Sequence[str]:
        """
        The commands with one of C{words}, without their tags.
        """
        found = (each.partition(" ")[2] for each in self.commands)
        return [each for each in found if any(word in each for word in words)]
