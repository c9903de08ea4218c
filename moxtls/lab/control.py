# -*- test-case-name: tests.lab.test_runner -*-
"""
Commands to a lab that is running: from its terminal, and over a socket in its
directory.
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
#: No command is longer.
MAX_COMMAND = 100
#: Nor is what it is answered with.
MAX_ANSWER_LENGTH = 10 * 1024 * 1024

END_DAY = "end-day"
MAIL = "m"
QUIT = "q"


class Command:
    """
    Something to be done, and somebody to be told what came of it.
    """

    def __init__(self, word: str, answer: Callable[[str], None]) -> None:
        self.word = word
        self.answer = answer


Commands = DeferredQueue[Command]


class TerminalCommands(LineOnlyReceiver):
    """
    Lines from a keyboard.
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
    Takes commands from others.
    """

    noisy = False

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._callers: set[_Caller] = set()

    def buildProtocol(self, addr: IAddress | None) -> _Caller:
        return _Caller(self._commands, self._callers)

    def close(self) -> None:
        """
        Hang up on everybody.
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
    Have a lab that is running do something.

    @param reactor: Provides C{IReactorUNIX}.

    @return: What it has to say about it.

    @raise twisted.internet.error.ConnectError: There is no such lab.
    """
    endpoint = UNIXClientEndpoint(reactor, socketPath(directory))
    answer = await connectProtocol(endpoint, _Answer())
    if answer.transport is not None:
        answer.transport.write(f"{word}\n".encode())
    text: str = await answer.done
    return text


def socketPath(directory: Path) -> str:
    """
    As short as can be: the system allows for about a hundred bytes.
    """
    path = str((directory / SOCKET).absolute())
    return min(path, os.path.relpath(path), key=len)
