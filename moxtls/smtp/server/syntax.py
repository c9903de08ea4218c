# -*- test-case-name: tests.smtp.server.test_conversation -*-
"""
Syntax of command lines and replies for a server, and its input buffer.  No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from moxtls.domain import Address, InvalidAddress
from moxtls.smtp.types import Reply

#: Octets of a reply line with CRLF (RFC 5321 4.5.3.1.5).
MAX_REPLY_LINE = 512
#: Lines of a reply, far more than any of our replies has.
MAX_REPLY_LINES = 50
#: RFC 1870 6.1.
_SIZE = re.compile(r"[0-9]{1,20}\Z")
# RFC 5321 4.1.2: Reverse-path or Forward-path, with a source route (which is
# ignored, appendix C), and parameters.  Some clients put a space after the colon,
# which all servers accept.
_PATH = re.compile(
    r"""
    [ ]*<
    (?:@[^:<>"\s]*:)?
    ( (?: [^"<>\x00-\x20\x7f] | "(?:[^"\\] | \\.)*" )* )
    >
    (?:[ ]+(.*))?\Z
    """,
    re.VERBOSE,
)
# Printers, scanners and old programs omit the angle brackets.
_BARE_PATH = re.compile(r'[ ]*([^"<>\x00-\x20\x7f]+)(?:[ ]+(.*))?\Z')
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


# RFC 6531 3.5.
_NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "Such an address needs SMTPUTF8")


@dataclass(frozen=True, slots=True)
class MailParameters:
    """
    The parameters of MAIL.

    @ivar size: RFC 1870; 0 if not given.
    @ivar eightBit: C{BODY=8BITMIME} (RFC 6152).
    @ivar smtputf8: RFC 6531.
    @ivar requireTLS: RFC 8689.
    """

    size: int = 0
    eightBit: bool = False
    smtputf8: bool = False
    requireTLS: bool = False


def splitCommand(line: bytes) -> tuple[str, str] | None:
    """
    Split a line into the verb, in upper case, and its argument.

    @return: C{None} if the line can't be a command: it has a bare CR or LF or a
        NUL, or isn't UTF-8.
    """
    if b"\n" in line or b"\r" in line or b"\0" in line:
        return None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return None
    verb, _, argument = text.rstrip(" \t").partition(" ")
    return verb.upper(), argument


def parseMail(
    argument: str, bareAddresses: bool = False
) -> tuple[str, MailParameters] | Reply:
    """
    Parse the argument of MAIL.

    @param bareAddresses: Accept an address without angle brackets.

    @return: The reverse-path, empty for the null one, and the parameters; or
        a negative reply.
    """
    split = _splitPath("FROM:", argument, bareAddresses)
    if isinstance(split, Reply):
        return split
    path, words = split
    parameters = _mailParameters(words)
    if isinstance(parameters, Reply):
        return parameters
    if path and not _isAddress(path):
        return Reply(553, "5.1.7", "That is not a mail address")
    if not path.isascii() and not parameters.smtputf8:
        return _NEEDS_SMTPUTF8
    return path, parameters


def parseRcpt(
    argument: str, smtputf8: bool, bareAddresses: bool = False
) -> str | Reply:
    """
    Parse the argument of RCPT.

    @param smtputf8: MAIL had the parameter SMTPUTF8.
    @param bareAddresses: Accept an address without angle brackets.

    @return: The forward-path: an address, or C{postmaster} (RFC 5321 4.5.1);
        or a negative reply.
    """
    split = _splitPath("TO:", argument, bareAddresses)
    if isinstance(split, Reply):
        return split
    path, words = split
    if words:
        return _unknownParameter(words[0])
    if path.lower() != "postmaster" and not _isAddress(path):
        return Reply(553, "5.1.3", "That is not a mail address")
    if not path.isascii() and not smtputf8:
        return _NEEDS_SMTPUTF8
    return path


@lru_cache(maxsize=256)
def encodeReply(reply: Reply) -> bytes:
    """
    Encode a reply with any text.  An enhanced status code is put in each line (RFC
    2034 4).  Cached, as most replies are the same few.
    """
    lines = reply.text.split("\n")[:MAX_REPLY_LINES]
    enhanced = f"{reply.enhanced} " if reply.enhanced else ""
    last = len(lines) - 1
    return b"".join(
        _replyLine(f"{reply.code}{' ' if n == last else '-'}{enhanced}{text}")
        for n, text in enumerate(lines)
    )


def withStatus(reply: Reply) -> Reply:
    """
    Add an enhanced status code (RFC 3463), a general one, to a reply that has none,
    except for intermediate replies (RFC 2034 3).
    """
    if reply.enhanced or 300 <= reply.code < 400:
        return reply
    return replace(reply, enhanced=f"{reply.code // 100}.0.0")


def _replyLine(line: str) -> bytes:
    safe = _UNPRINTABLE.sub("?", line) if not _isPlain(line) else line
    return safe[: MAX_REPLY_LINE - 2].encode("ascii") + b"\r\n"


def _isPlain(line: str) -> bool:
    return line.isascii() and line.isprintable()


def _splitPath(
    keyword: str, argument: str, bareAddresses: bool
) -> tuple[str, list[str]] | Reply:
    here = len(keyword)
    found = None
    if argument[:here].upper() == keyword:
        found = _PATH.match(argument, here)
        if found is None and bareAddresses:
            found = _BARE_PATH.match(argument, here)
    if found is None:
        return Reply(501, "5.5.2", f"Syntax: {keyword}<address>")
    return found[1], (found[2] or "").split()


@lru_cache(maxsize=1024)
def _isAddress(path: str) -> bool:
    # Cached, as recipients are mostly the same few.
    try:
        Address.parse(path)
    except InvalidAddress:
        return False
    return True


def _mailParameters(words: list[str]) -> MailParameters | Reply:
    parameters = MailParameters()
    seen = set()
    for word in words:
        keyword, _, value = word.partition("=")
        keyword = keyword.upper()
        if keyword in seen:
            return Reply(501, "5.5.4", "Parameter given twice")
        seen.add(keyword)
        changed = _withParameter(parameters, keyword, value)
        if isinstance(changed, Reply):
            return changed
        parameters = changed
    return parameters


def _withParameter(
    parameters: MailParameters, keyword: str, value: str
) -> MailParameters | Reply:
    match keyword, value.upper():
        case "SIZE", digits if _SIZE.match(digits):
            return replace(parameters, size=int(digits))
        case "BODY", "7BIT" | "8BITMIME" as body:
            return replace(parameters, eightBit=body == "8BITMIME")
        case "SMTPUTF8", "":
            return replace(parameters, smtputf8=True)
        case "REQUIRETLS", "":
            return replace(parameters, requireTLS=True)
        case "AUTH", _:
            # RFC 4954 5: no client is trusted to name the submitter.
            return parameters
        case "SIZE" | "BODY" | "SMTPUTF8" | "REQUIRETLS", _:
            return Reply(501, "5.5.4", f"Bad value for {keyword}")
        case _:
            return _unknownParameter(keyword)


def _unknownParameter(word: str) -> Reply:
    return Reply(555, "5.5.4", f"Parameter {word[:40]} is not known here")


class LineBuffer:
    """
    Buffers unprocessed input.

    Only CRLF ends a line (RFC 5321 2.3.8).  A line that is too long is discarded as
    it arrives, and only recorded.
    """

    __slots__ = ("_data", "_end", "_overlong")

    def __init__(self) -> None:
        self._data = bytearray()
        self._end = -1
        self._overlong = False

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        self._data += data

    def clear(self) -> None:
        self._data.clear()

    def takeAll(self) -> bytes:
        """
        Remove and return the whole input.
        """
        data = bytes(self._data)
        self._data.clear()
        return data

    def take(self, size: int) -> bytes:
        """
        Remove and return up to C{size} octets.
        """
        if len(self._data) <= size:
            return self.takeAll()
        data = bytes(self._data[:size])
        del self._data[:size]
        return data

    def hasLine(self, maxLength: int) -> bool:
        """
        True if there is a line of at most C{maxLength} octets, or the end of a
        longer one.
        """
        self._end = self._data.find(b"\r\n")
        found = self._end >= 0
        if (found and self._end <= maxLength) or not self._data:
            return found
        # A CR at the end may be half of a CRLF.
        length = len(self._data) - self._data.endswith(b"\r")
        if (self._end if found else length) > maxLength:
            self._overlong = True
        if self._overlong and not found:
            del self._data[:-1]
        return found

    def takeLine(self) -> bytes | None:
        """
        Remove and return the line that C{hasLine} found, without its CRLF.

        @return: C{None} if it was too long.
        """
        line = None if self._overlong else bytes(self._data[: self._end])
        del self._data[: self._end + 2]
        self._overlong = False
        return line
