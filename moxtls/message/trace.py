# -*- test-case-name: tests.message.test_trace -*-
"""
Header fields that are added to, and looked for in, messages that come in.
No I/O.
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

#: RFC 5321 6.3: a message with more of them goes round in circles.
MAX_HOPS = 100
MAIL_LOOP = Reply(554, "5.4.6", "Message goes round in circles")

# RFC 8689 3, unfolded.
_TLS_REQUIRED = re.compile(
    rb"^TLS-Required[ \t]*:((?:[^\r\n]|\r\n[ \t])*)\r\n", re.IGNORECASE | re.MULTILINE
)
# In lower case, behind the end of a line: so it is found by its first letters.
_RECEIVED = re.compile(rb"\nreceived[ \t]*:")
_NOT_IN_COMMENT = re.compile(r"[^!-'*-\[\]-~]")


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """
    Who is at the other end of a connection.

    @ivar address: Its IP address; empty if there is none.  One that is IPv4 mapped
        into IPv6 becomes IPv4 here, for everything that is decided by it.
    @ivar helo: What it calls itself, in whatever characters.
    @ivar extended: Whether it said EHLO.
    @ivar user: Who it has proved to be; empty if nobody.
    @ivar tls: Version and cipher suite, such as C{TLSv1.3
        TLS_AES_256_GCM_SHA384}; empty without TLS.
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
    The trace field for a message (RFC 5321 4.4).

    @param by: Our name.
    @param messageID: What we call the message.
    @param now: Unix seconds.
    @param recipient: The recipient if there is only one: others must not
        learn of each other (RFC 5321 7.6).
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
    What a message that is submitted must have and may lack (RFC 6409 8.2,
    8.3).

    @param header: As L{headerOf} gives it.
    @param messageID: To be used if it has none, without angle brackets.
    """
    fields = b""
    if not hasField(header, b"Date"):
        fields += f"Date: {_dateTime(now)}\r\n".encode()
    if not hasField(header, b"Message-ID"):
        fields += f"Message-ID: <{messageID}>\r\n".encode()
    return fields


def countReceived(header: bytes) -> int:
    """
    How many servers a message has come through, going by its Received fields.
    """
    return len(_RECEIVED.findall(b"\n" + header.lower()))


def isLooping(header: bytes) -> bool:
    """
    Whether a message has come through so many that it will never arrive
    (RFC 5321 6.3), and is to be refused with C{MAIL_LOOP}.
    """
    return countReceived(header) > MAX_HOPS


def saysTLSNotRequired(header: bytes) -> bool:
    """
    Whether there is C{TLS-Required: No} (RFC 8689 3).  More than one such
    field is against the rules, and says nothing.
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
        # RFC 5321 4.4 wants a domain here; what the client says is none.
        name, claim = "unknown", f"helo={_comment(client.helo)} "
    return f"{name} ({claim}[{literal}])" if literal else name


def _comment(text: str) -> str:
    # RFC 5322 3.2.2: what may stand in a comment without being quoted.
    return _NOT_IN_COMMENT.sub("?", text.replace(" ", ":"))[:255]


def _dateTime(now: float) -> str:
    return _dateOf(int(now))


@lru_cache(8)
def _dateOf(now: int) -> str:
    # Many messages come in one second.
    return format_datetime(datetime.fromtimestamp(now, UTC))
