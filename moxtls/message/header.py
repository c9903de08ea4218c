# -*- test-case-name: tests.message.test_header -*-
"""
Splits message headers into fields; writes and examines the trace fields of received
messages, and the fields that submission adds.  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from moxtls.domain import Domain, InvalidDomain, parseHost
from moxtls.ipaddresses import canonicalIP
from moxtls.smtp.types import Reply

#: White space that is ignored before the colon (RFC 5322 4.5.8 allows WSP).
FWS = b" \t\r\n"

#: Octets.  A header that doesn't end within them isn't read any further: far more
#: than any real message has.
MAX_HEADER = 256 * 1024

_CRLF = b"\r\n"
_EMPTY_LINE = b"\r\n\r\n"
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
# RFC 5322 2.2: a field name is printable ASCII without colon.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
#: The field about reports in a message, in lower case.
REPORT_RESULT = b"x-moxtls-report"
_RESULTS = b"authentication-results"
_TOKEN = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]+")
_DIGITS = re.compile(r"[0-9]+")
_WSP = re.compile(r"[ \t\r\n]+")
_KNOWN_VERSIONS = ("", "1")
# RFC 5322 3.2.4; possessive, so that unclosed strings fail at once.
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_COMMENT_STEP = re.compile(r"[^()\\]++|\\.|[()]", re.DOTALL)

#: RFC 5321 6.3: a message with more Received fields is in a loop.
MAX_HOPS = 100
MAIL_LOOP = Reply(554, "5.4.6", "Mail loop: too many Received fields")

# RFC 8689 3, unfolded.
_TLS_REQUIRED = re.compile(
    rb"^TLS-Required[ \t]*:((?:[^\r\n]|\r\n[ \t])*)\r\n", re.IGNORECASE | re.MULTILINE
)
# In lower case and behind a line end, so that it is found by a literal prefix.
_RECEIVED = re.compile(rb"\nreceived[ \t]*:")
_NOT_IN_COMMENT = re.compile(r"[^!-'*-\[\]-~]")


@dataclass(frozen=True, slots=True)
class Header:
    """
    @ivar data: The whole header, through the CRLF of the last field, without the
        empty line.
    @ivar names: Of each field, in lower case; empty for a line that is no field.
    @ivar fields: Each whole field, without its CRLF.
    """

    data: bytes
    names: tuple[bytes, ...]
    fields: tuple[bytes, ...]

    def called(self, name: bytes) -> tuple[bytes, ...]:
        """
        The fields called C{name}, from the top.

        @param name: In lower case, as for the other methods.
        """
        if name not in self.names:
            return ()
        pairs = zip(self.names, self.fields, strict=True)
        return tuple([field for known, field in pairs if known == name])

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """
        The bodies of these fields, still folded.
        """
        return tuple([each.partition(b":")[2] for each in self.called(name)])

    def has(self, name: bytes) -> bool:
        return name in self.names

    @property
    def isFromList(self) -> bool:
        """
        True if there are fields of a mailing list (RFC 2369 3.4, RFC 2919).
        """
        return self.has(b"list-id") or self.has(b"list-post")


def headerEnd(beginning: bytes | bytearray, start: int = 0) -> int:
    """
    The position behind the CRLF of the last field, where the empty line begins; -1 if
    it isn't there yet.

    @param beginning: Of a message.
    @param start: The number of octets searched before.
    """
    if beginning.startswith(_CRLF):
        return 0
    found = beginning.find(_EMPTY_LINE, max(0, start - len(_EMPTY_LINE) + 1))
    return found + len(_CRLF) if found >= 0 else -1


def headerOf(beginning: bytes) -> bytes:
    """
    The header of a message, with the last line's CRLF; empty if the message doesn't
    begin with a field.

    @param beginning: The first L{MAX_HEADER} octets of the message at least, or all
        of it.
    """
    if not _FIELD.match(beginning):
        return b""
    beginning = beginning[:MAX_HEADER]
    end = headerEnd(beginning)
    return beginning[:end] if end >= 0 else beginning


def splitMessage(message: bytes) -> tuple[bytes, bytes]:
    """
    The header, with the last line's CRLF, and the body of a message.  Without an
    empty line all of it is header.
    """
    end = headerEnd(message)
    if end < 0:
        return message, b""
    return message[:end], message[end + len(_CRLF) :]


def hasField(header: bytes, name: bytes) -> bool:
    """
    True if there is a field called C{name} in a header that isn't split.

    @param name: Letters, digits and hyphens, in any case.
    """
    pattern = rb"(?im)^" + re.escape(name) + rb"[ \t]*:"
    return re.search(pattern, header) is not None


def splitHeader(data: bytes) -> Header:
    """
    @param data: Through the CRLF of the last field, without the empty line.
    """
    fields = _FIELD_END.split(data)
    if fields[-1] == b"":
        fields.pop()
    return Header(data, tuple(map(_nameOf, fields)), tuple(fields))


def _nameOf(field: bytes) -> bytes:
    name, colon, _ = field.partition(b":")
    return name.rstrip(FWS).lower() if colon else b""


def textFields(header: bytes) -> Iterator[tuple[str, str]]:
    """
    Names, as they are written, and unfolded values of the fields of a header whose
    lines may have any ends; lines that are no field are skipped.  Octets that aren't
    UTF-8 become U+FFFD.

    @param header: At most L{MAX_HEADER} octets of it are read.
    """
    text = header[:MAX_HEADER].decode("utf-8", "replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    for line in lines.replace("\n ", " ").replace("\n\t", "\t").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def headerFields(header: bytes) -> dict[str, str]:
    """
    The first field of each name, as by L{textFields}; names in lower case.
    """
    fields: dict[str, str] = {}
    for name, value in textFields(header):
        fields.setdefault(name.lower(), value)
    return fields


def unfoldedText(value: bytes) -> str:
    """
    A field body on one line, as text.  Octets that aren't UTF-8 become U+FFFD.
    """
    return value.replace(_CRLF, b"").decode("utf-8", "replace")


def removeForgedFields(header: Header, authservID: str) -> bytes:
    """
    The header without authentication results in this host's name (RFC 8601 5), and
    without L{REPORT_RESULT}; all else byte for byte.

    In mail from other hosts such fields are forged.  Results whose authserv-id can't
    be read are removed, too.
    """
    if not header.has(_RESULTS) and not header.has(REPORT_RESULT):
        return header.data
    return b"".join(
        field + _CRLF
        for name, field in zip(header.names, header.fields, strict=True)
        if name != REPORT_RESULT
        and (name != _RESULTS or not _mayBeOurs(field, authservID))
    )


def _mayBeOurs(field: bytes, authservID: str) -> bool:
    text = unfoldedText(field.partition(b":")[2])
    ours = _plain(authservID)
    claimed, isKnown = parseAuthservID(text)
    if claimed is None or _plain(claimed) == ours:
        return True
    if not _TOKEN.fullmatch(claimed):
        # No host name: a reader that ignores quotes may find our name in it.
        return True
    # RFC 8601 5 allows to remove all results of unknown versions.  A reader of another
    # version must at least not find our name.
    return not isKnown and ours in text.lower()


def parseAuthservID(text: str) -> tuple[str | None, bool]:
    """
    The authserv-id of a field (RFC 8601 2.2).

    @param text: The body of C{Authentication-Results}, on one line.

    @return: C{None} if it can't be read; and true if the version of the field is
        known.
    """
    start = _skipped(text, 0)
    quoted, token = _QUOTED.match(text, start), _TOKEN.match(text, start)
    found = quoted or token
    if found is None:
        return None, False
    name = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else found[0]
    version = _DIGITS.match(text, _skipped(text, found.end()))
    digits, end = (version[0], version.end()) if version else ("", found.end())
    position = _skipped(text, end)
    isEnd = position == len(text) or text[position] == ";"
    return name, isEnd and digits in _KNOWN_VERSIONS


def _skipped(text: str, position: int) -> int:
    """
    The position behind white space and comments (RFC 5322 3.2.2).  An unclosed
    comment extends to the end.
    """
    while position < len(text):
        white = _WSP.match(text, position)
        if white is not None:
            position = white.end()
        elif text[position] == "(":
            end = commentEnd(text, position)
            position = end if end >= 0 else len(text)
        else:
            break
    return position


def commentEnd(text: str, position: int) -> int:
    """
    The end of the comment that begins at C{position} (RFC 5322 3.2.2); -1 if it isn't
    closed.
    """
    depth = 0
    for step in _COMMENT_STEP.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(step[0], 0)
        if depth == 0:
            return step.end()
    return -1


def _plain(name: str) -> str:
    """
    The canonical form of a host name.
    """
    name = name.strip()
    try:
        return Domain.parse(name).ascii
    except InvalidDomain:
        return name.lower().removesuffix(".")


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """
    The SMTP client of a connection.

    @ivar address: Its IP address; empty if there is none.  IPv4 mapped into IPv6 is
        converted to IPv4, as decisions depend on it.
    @ivar helo: Its name in HELO or EHLO, in any characters.
    @ivar extended: True if it sent EHLO.
    @ivar user: The authenticated user; empty without authentication.
    @ivar tls: Version and cipher suite, such as C{TLSv1.3 TLS_AES_256_GCM_SHA384};
        empty without TLS.
    """

    address: str = ""
    helo: str = ""
    extended: bool = True
    user: str = ""
    tls: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", canonicalIP(self.address))


def receivedHeader(
    client: ClientInfo,
    by: str,
    messageID: str,
    now: float,
    smtputf8: bool = False,
    recipient: str = "",
) -> bytes:
    """
    The Received field of a message (RFC 5321 4.4).

    @param by: The name of this host.
    @param messageID: The ID of the message in the log.
    @param now: Unix seconds.
    @param recipient: The recipient if there is only one: recipients must not be
        disclosed to each other (RFC 5321 7.6).
    """
    protocol = f"with {_protocol(client, smtputf8)}"
    if client.tls:
        protocol += f" ({_comment(client.tls)})"
    lines = [f"Received: from {_from(client)}", f"by {by} {protocol}"]
    lines.append(f"id {messageID}")
    if recipient and (smtputf8 or recipient.isascii()):
        lines.append(f"for <{recipient}>")
    folded = "\r\n\t".join(lines)
    return f"{folded}; {_dateTime(now)}\r\n".encode()


def missingSubmissionFields(header: bytes, messageID: str, now: float) -> bytes:
    """
    The fields that a submitted message must have and may lack (RFC 6409 8.2, 8.3).

    @param header: As returned by L{headerOf}.
    @param messageID: For a message without one, without angle brackets.
    """
    fields = b""
    if not hasField(header, b"Date"):
        fields += f"Date: {_dateTime(now)}\r\n".encode()
    if not hasField(header, b"Message-ID"):
        fields += f"Message-ID: <{messageID}>\r\n".encode()
    return fields


def countReceived(header: bytes) -> int:
    """
    The number of Received fields.
    """
    return len(_RECEIVED.findall(b"\n" + header.lower()))


def isLooping(header: bytes) -> bool:
    """
    True if the message is in a loop (RFC 5321 6.3), and has to be refused with
    L{MAIL_LOOP}.
    """
    return countReceived(header) > MAX_HOPS


def saysTLSNotRequired(header: bytes) -> bool:
    """
    True if there is C{TLS-Required: No} (RFC 8689 3).  Repeated fields are invalid,
    and ignored.
    """
    values = _TLS_REQUIRED.findall(header)
    return len(values) == 1 and values[0].strip().lower() == b"no"


def _protocol(client: ClientInfo, smtputf8: bool) -> str:
    if not client.extended:
        return "SMTP"
    # RFC 3848; RFC 6531 4.3.
    secure, proven = "S" if client.tls else "", "A" if client.user else ""
    return f"{'UTF8SMTP' if smtputf8 else 'ESMTP'}{secure}{proven}"


def _from(client: ClientInfo) -> str:
    literal = f"IPv6:{client.address}" if ":" in client.address else client.address
    try:
        name, claim = str(parseHost(client.helo)), ""
    except InvalidDomain:
        # RFC 5321 4.4 wants a domain here, and the name that the client sent is none.
        name, claim = "unknown", f"helo={_comment(client.helo)} "
    return f"{name} ({claim}[{literal}])" if literal else name


def _comment(text: str) -> str:
    # RFC 5322 3.2.2: only characters that need no quoting in a comment.
    return _NOT_IN_COMMENT.sub("?", text.replace(" ", ":"))[:255]


def _dateTime(now: float) -> str:
    return _dateOf(int(now))


@lru_cache(8)
def _dateOf(now: int) -> str:
    # Many messages have the same second.
    return format_datetime(datetime.fromtimestamp(now, UTC))
