# -*- test-case-name: tests.smtp.test_session -*-
"""
What is asked of a session, and the ways in which it can fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moxtls.dns.answers import TLSA
from moxtls.outbound.records import SessionRecord
from moxtls.outbound.verify import TrustStore
from moxtls.smtp.values import (
    Credentials,
    RecipientReply,
    Reply,
    Timeouts,
    TLSMode,
)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """
    How to open a session.  Each choice is independent of the others.

    @ivar ehlo: What we call ourselves.
    @ivar trust: Shared by all sessions.
    @ivar names: For which the certificate may be; the first is said in SNI.
        A-labels, or one IP address.
    @ivar webNames: For which it may be if the Web PKI is asked, where those
        are fewer: RFC 8461 4.1 knows the name in the MX record only, and
        RFC 7672 3.2.2 more.
    @ivar enforcePKIX: Give up if the Web PKI doesn't vouch for the
        certificate.  It is looked at in any case, for the record.
    @ivar dane: TLSA records; if any of them is usable, give up unless one
        matches.
    @ivar ignoreVerifyErrors: Don't give up; only note.
    @ivar credentials: With which to log in, over TLS only.
    """

    ehlo: str
    trust: TrustStore
    mode: TLSMode = TLSMode.OPPORTUNISTIC
    names: tuple[str, ...] = ()
    enforcePKIX: bool = False
    dane: tuple[TLSA, ...] | None = None
    ignoreVerifyErrors: bool = False
    credentials: Credentials | None = None
    webNames: tuple[str, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)


class SessionError(Exception):
    """
    A session can't be opened, or can't go on.

    @ivar record: What was seen of TLS up to there.
    @ivar reason: For the log; may hold a stranger's words.
    """

    def __init__(self, record: SessionRecord, reason: str) -> None:
        super().__init__(reason)
        self.record = record
        self.reason = reason


class ConnectFailed(SessionError):
    """
    There was no connection.
    """


class TLSFailed(SessionError):
    """
    There is no TLS to be had, or not with a certificate that will do.

    @ivar reply: To STARTTLS, if that was refused.
    """

    def __init__(
        self, record: SessionRecord, reason: str, reply: Reply | None = None
    ) -> None:
        super().__init__(record, reason)
        self.reply = reply


class SessionFailed(SessionError):
    """
    It failed for another reason.

    @ivar reply: What the server said, if it ended the session.
    @ivar decided: Of the transaction that was cut short, those recipients
        that had an answer already.
    """

    def __init__(
        self,
        record: SessionRecord,
        reason: str,
        reply: Reply | None = None,
        decided: tuple[RecipientReply, ...] = (),
    ) -> None:
        super().__init__(record, reason)
        self.reply = reply
        self.decided = decided


class TransactionsExhausted(SessionFailed):
    """
    The server takes no more transactions in this session, as it has announced
    (RFC 9422 MAILMAX); in another one it may.
    """
