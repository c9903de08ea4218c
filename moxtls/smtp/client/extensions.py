# -*- test-case-name: tests.smtp.client.test_conversation -*-
"""
Service extensions that a server announces, and their effect on transactions
(RFC 5321 4.1.1.1).  No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from moxtls.smtp.types import Reply, Transaction

# Characters that would end a command, or that can't be encoded.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


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
