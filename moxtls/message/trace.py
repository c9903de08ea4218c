# -*- test-case-name: tests.message.test_trace -*-
"""
Writes and examines the trace fields of received messages, and the fields that
submission adds.  No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from moxtls.domain import InvalidDomain, parseHost
from moxtls.ipaddresses import canonicalIP
from moxtls.message.header import hasField
from moxtls.smtp.types import Reply

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
