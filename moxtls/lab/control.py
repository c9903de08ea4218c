# -*- test-case-name: tests.lab.test_runner -*-
"""
Commands to a running lab: from its terminal, and over a socket in its directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

SOCKET = "control"
#: The maximum length of a command.
MAX_COMMAND = 100
#: The maximum length of its result.
MAX_ANSWER_LENGTH = 10 * 1024 * 1024

END_DAY = "end-day"
MAIL = "m"
QUIT = "q"


class Command:
    """
    A command, and the callback for its result.
    """

    def __init__(self, word: str, answer: Callable[[str], None]) -> None:
        self.word = word
        self.answer = answer


Commands = DeferredQueue[Command]


class TerminalCommands(LineOnlyReceiver):
    """
    Reads commands from the terminal.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_COMMAND

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def lineReceived(self, line: bytes) -> None:
        word = line.strip().decode("ascii", "replace")
        self._commands.put(Command(word or END_DAY, lambda text: None))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._commands.put(Command(QUIT, lambda text: None))


class _Caller(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = MAX_COMMAND

    def __init__(self, commands: Commands, callers: set[_Caller]) -> None:
        self._commands = commands
        self._callers = callers

    def connectionMade(self) -> None:
        self._callers.add(self)

    def lineReceived(self, line: bytes) -> None:
        word = line.strip().decode("ascii", "replace")
        self._commands.put(Command(word, self._answer))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._callers.discard(self)

    def hangUp(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def _answer(self, text: str) -> None:
        if self.transport is not None:
            self.transport.write(text.encode())
        self.hangUp()


class ControlFactory(ServerFactory):
    """
    Accepts commands over the socket.
    """

    noisy = False

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._callers: set[_Caller] = set()

    def buildProtocol(self, addr: IAddress | None) -> _Caller:
        return _Caller(self._commands, self._callers)

    def close(self) -> None:
        """
        Close all connections.
        """
        for caller in tuple(self._callers):
            caller.hangUp()


class _Answer(Protocol):
    def __init__(self) -> None:
        self.done: Deferred[str] = Deferred()
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_ANSWER_LENGTH and self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(self._received.decode("utf-8", "replace"))


async def command(reactor: object, directory: Path, word: str) -> str:
    """
    Send a command to a running lab.

    @param reactor: Provides C{IReactorUNIX}.

    @return: The output of the command.

    @raise twisted.internet.error.ConnectError: No lab is running there.
    """
    endpoint = UNIXClientEndpoint(reactor, socketPath(directory))
    answer = await connectProtocol(endpoint, _Answer())
    if answer.transport is not None:
        answer.transport.write(f"{word}\n".encode())
    text: str = await answer.done
    return text


def socketPath(directory: Path) -> str:
    """
    The path of the socket, short because the system limits it to about a hundred
    bytes.
    """
    path = str((directory / SOCKET).absolute())
    return min(path, os.path.relpath(path), key=len)
