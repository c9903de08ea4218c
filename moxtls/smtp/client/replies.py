# -*- test-case-name: tests.smtp.client.test_conversation -*-
"""
Replies of an SMTP server, the service extensions and SASL mechanisms that it announces,
and their effect on transactions (RFC 5321 4.1.1.1, 4.2).  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from moxtls.smtp.types import Credentials, Reply, Transaction

#: Octets of one line, with its end.  The 512 of RFC 5321 4.5.3.1.5 are a minimum;
#: servers that put addresses and URLs in their replies exceed it.
MAX_LINE = 16384
#: Lines of one reply, far more than any server has extensions; also the number of
#: empty lines before a reply.
MAX_LINES = 1000
#: Octets of one reply.
MAX_REPLY = 65536
#: Replies that are remembered as parsed, of one line with so many octets at most.
MAX_CACHED = 500
MAX_CACHED_LENGTH = 100

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\n]*))?\Z", re.DOTALL)
# RFC 3463 2.
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: +|\Z)")
# Characters that would end a command, or that can't be encoded.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class MalformedReply(Exception):
    """
    The server sent something that isn't an SMTP reply.
    """


class ReplyReader:
    """
    Splits a byte stream into replies.

    Reading of RFC 5321 2.3.8: only CRLF may end a line, but some servers end lines
    with a line feed alone, or send empty lines between them, and mail to them must
    be delivered.  This is safe: untrusted text that a server quotes in a reply, with
    a line feed in it, follows the code that counts, and an extra reply ends the
    session.
    """

    def __init__(self, onlyCRLF: bool = False) -> None:
        """
        @param onlyCRLF: Reject other line ends, for use in front of a parser that
            only knows CRLF.
        """
        self._onlyCRLF = onlyCRLF
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._size = 0
        self._empty = 0

    @property
    def pending(self) -> bool:
        """
        True if there is input that C{next} has not returned.
        """
        return bool(self._buffer or self._lines)

    @property
    def isReplying(self) -> bool:
        """
        True if the pending input is more than empty lines.
        """
        return bool(self._lines or self._buffer.strip(b"\r\n"))

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[bytes, ...] | None:
        """
        Return the lines of the next reply, without their ends; C{None} until it is
        complete.

        @raise MalformedReply: The input is not a reply.
        """
        while (line := self._nextLine()) is not None:
            if not line and not self._onlyCRLF:
                self._skipEmpty()
                continue
            last = self._isLast(line)
            self._lines.append(line)
            if last:
                reply, self._lines = tuple(self._lines), []
                self._size = self._empty = 0
                return reply
        return None

    def _skipEmpty(self) -> None:
        self._empty += 1
        if self._empty > MAX_LINES:
            raise MalformedReply("empty lines in place of a reply")

    def _nextLine(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        length = len(self._buffer) if end < 0 else end + 1
        if length > MAX_LINE:
            raise MalformedReply("a line that is too long")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        if not self._onlyCRLF:
            return line.rstrip(b"\r")
        if not line.endswith(b"\r"):
            raise MalformedReply("a bare line feed")
        return line[:-1]

    def _isLast(self, line: bytes) -> bool:
        match = _LINE.match(line)
        if match is None:
            raise MalformedReply("a line that is no reply")
        if self._lines and self._lines[0][:3] != match[1]:
            raise MalformedReply("a reply with more than one code")
        self._size += len(line)
        if len(self._lines) >= MAX_LINES or self._size > MAX_REPLY:
            raise MalformedReply("a reply that is too long")
        return match[2] != b"-"


def parseReply(lines: tuple[bytes, ...], enhanced: bool = True) -> Reply:
    """
    Parse a reply.

    @param lines: As returned by L{ReplyReader.next}.
    @param enhanced: Accept an enhanced status code in positive replies, too.
        RFC 2034 4 allows none in the greeting and in replies to EHLO, but servers
        that refuse a client there often include one.
    """
    if len(lines) == 1 and len(lines[0]) <= MAX_CACHED_LENGTH:
        return _parseCached(lines, enhanced)
    return _parse(lines, enhanced)


def _parse(lines: tuple[bytes, ...], enhanced: bool) -> Reply:
    texts = [line[4:].decode("utf-8", "replace") for line in lines]
    mayHave = enhanced or lines[0][:1] in (b"4", b"5")
    found = _ENHANCED.match(texts[0]) if mayHave else None
    status = ""
    if found and found[1] == chr(lines[0][0]):
        status = ".".join(found.groups())
        prefix = re.compile(re.escape(status) + r"(?: +|\Z)")
        texts = [prefix.sub("", text, count=1) for text in texts]
    return Reply(int(lines[0][:3]), status, "\n".join(texts))


# Most replies of a host are the same few.
_parseCached = lru_cache(MAX_CACHED)(_parse)


@dataclass(frozen=True, slots=True)
class Extensions:
    """
    The extensions announced in a reply to EHLO.

    @ivar size: RFC 1870: the maximum message size in octets; 0 if it isn't
        given, C{None} without the extension.
    @ivar auth: RFC 4954: mechanisms, in upper case.
    @ivar rcptMax: RFC 9422: maximum recipients in a transaction.
    @ivar mailMax: RFC 9422: maximum transactions in a session.
    @ivar rcptDomainMax: RFC 9422: maximum recipient domains in a transaction.
    """

    pipelining: bool = False
    size: int | None = None
    eightBit: bool = False
    smtputf8: bool = False
    enhancedCodes: bool = False
    requireTLS: bool = False
    startTLS: bool = False
    auth: frozenset[str] = frozenset()
    rcptMax: int | None = None
    mailMax: int | None = None
    rcptDomainMax: int | None = None


def parseExtensions(lines: tuple[bytes, ...]) -> Extensions:
    """
    Parse a reply to EHLO.

    @param lines: The lines of the reply; the first is the greeting.
    """
    announced: dict[str, list[str]] = {}
    for line in lines[1:]:
        word, *parameters = line[4:].decode("ascii", "replace").upper().split() or [""]
        announced.setdefault(word, parameters)
    limits = dict(_limit(each) for each in announced.get("LIMITS", ()))
    return Extensions(
        pipelining="PIPELINING" in announced,
        size=(_number("".join(announced["SIZE"][:1])) or 0)
        if "SIZE" in announced
        else None,
        eightBit="8BITMIME" in announced,
        smtputf8="SMTPUTF8" in announced,
        enhancedCodes="ENHANCEDSTATUSCODES" in announced,
        requireTLS="REQUIRETLS" in announced,
        startTLS="STARTTLS" in announced,
        auth=frozenset(announced.get("AUTH", ())),
        # RFC 9422 4: what isn't a number above zero counts as not announced.
        rcptMax=limits.get("RCPTMAX") or None,
        mailMax=limits.get("MAILMAX") or None,
        rcptDomainMax=limits.get("RCPTDOMAINMAX") or None,
    )


def _limit(text: str) -> tuple[str, int | None]:
    name, _, value = text.partition("=")
    return name, _number(value)


def _number(text: str) -> int | None:
    # RFC 1870 3: up to 20 digits.
    return int(text) if re.fullmatch("[0-9]{1,20}", text) else None


def extensionRefusal(
    transaction: Transaction, extensions: Extensions, secure: bool
) -> Reply | None:
    """
    Check whether the message can be sent to the server at all.

    @return: C{None} if it can; otherwise the reason, as a local reply.
    """
    if _CONTROL.search(transaction.sender):
        return _localReply(553, "5.1.7", "the sender's address has control characters")
    if transaction.requireTLS and not secure:
        # RFC 8689 4.2.1.
        return _localReply(554, "5.7.10", "REQUIRETLS: the session has no TLS")
    if transaction.requireTLS and not extensions.requireTLS:
        return _localReply(554, "5.7.30", "REQUIRETLS: the server doesn't support it")
    if extensions.size and transaction.size > extensions.size:
        # RFC 1870 6.3.
        return _localReply(
            552, "5.3.4", f"the server takes {extensions.size} octets at most"
        )
    if needsSMTPUTF8(transaction) and not extensions.smtputf8:
        # RFC 6531 3.2.
        return _localReply(550, "5.6.7", "the server doesn't support SMTPUTF8")
    if transaction.eightBit and not extensions.eightBit:
        # RFC 6152 3: convert, or give up.  Converting breaks signatures.
        return _localReply(554, "5.6.3", "the server doesn't support 8BITMIME")
    return None


def badRecipient(recipient: str) -> Reply | None:
    """
    Check whether RCPT can be sent for a recipient.

    @return: C{None} if it can; otherwise the reason, as a local reply.
    """
    if _CONTROL.search(recipient):
        return _localReply(553, "5.1.3", "the address has control characters")
    return None


def _localReply(code: int, enhanced: str, text: str) -> Reply:
    return Reply(code, enhanced, text, isLocal=True)


def needsSMTPUTF8(transaction: Transaction) -> bool:
    addresses = (transaction.sender, *transaction.recipients)
    return transaction.smtputf8 or not all(each.isascii() for each in addresses)


def mailCommand(transaction: Transaction, extensions: Extensions) -> str:
    """
    The MAIL command, with the parameters that the server supports and the message
    needs.
    """
    words = [f"MAIL FROM:<{transaction.sender}>"]
    if extensions.size is not None:
        words.append(f"SIZE={transaction.size}")
    if transaction.eightBit:
        words.append("BODY=8BITMIME")
    if needsSMTPUTF8(transaction):
        words.append("SMTPUTF8")
    if transaction.requireTLS:
        words.append("REQUIRETLS")
    return " ".join(words)


def splitByLimits(
    transaction: Transaction, extensions: Extensions
) -> tuple[Transaction, ...]:
    """
    Split a transaction into parts that respect the server's limits on recipients
    (RFC 9422).
    """
    if not extensions.rcptMax and not extensions.rcptDomainMax:
        return (transaction,)
    recipients = transaction.recipients
    parts: list[list[str]] = [[]]
    domains: set[str] = set()
    for recipient in recipients:
        domains.add(recipient.rpartition("@")[2].lower())
        tooMany = len(parts[-1]) == (extensions.rcptMax or len(recipients))
        if tooMany or len(domains) > (extensions.rcptDomainMax or len(recipients)):
            parts.append([])
            domains = {recipient.rpartition("@")[2].lower()}
        parts[-1].append(recipient)
    return tuple(replace(transaction, recipients=tuple(part)) for part in parts)


@dataclass(frozen=True, slots=True)
class AuthAttempt:
    """
    One use of a mechanism.

    @ivar initial: The initial response (RFC 4954 4); C{None} for none.
    @ivar answer: Returns the response to a challenge; C{None} if there is none,
        and the exchange has to be cancelled.
    """

    initial: bytes | None
    answer: Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """
    A SASL mechanism.

    @ivar name: As in the reply to EHLO, upper case.
    @ivar attempt: Starts an exchange.
    """

    name: str
    attempt: Callable[[Credentials], AuthAttempt]


def _plain(credentials: Credentials) -> AuthAttempt:
    # RFC 4616 2.
    message = f"\0{credentials.user}\0{credentials.password}".encode()
    return AuthAttempt(message, lambda challenge: None)


def _login(credentials: Credentials) -> AuthAttempt:
    # The text of the challenges differs between servers; their order doesn't.
    answers = [credentials.password.encode(), credentials.user.encode()]
    return AuthAttempt(None, lambda challenge: answers.pop() if answers else None)


#: In order of preference; both are for use over TLS only.
MECHANISMS = (Mechanism("PLAIN", _plain), Mechanism("LOGIN", _login))


def chooseMechanism(
    mechanisms: Sequence[Mechanism], offered: frozenset[str]
) -> Mechanism | None:
    """
    The first of C{mechanisms} that the server offers; C{None} if there is none.
    """
    return next((each for each in mechanisms if each.name in offered), None)
