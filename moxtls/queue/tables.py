# -*- test-case-name: tests.queue.test_spool -*-
"""
The tables of a spool's index, and what their rows mean.

C{recipient.due} is empty while there is nothing to attempt; C{lane} has the
earliest of each destination.  So a look for what is due costs what is found,
however much is waiting, also behind a destination that is busy.
C{recipient.told} is 0 while somebody is to be told how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from sqlite3 import Row

from moxtls.queue.values import (
    Ending,
    Envelope,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    ReportKind,
    Result,
)

VERSION = 2

SCHEMA = """
CREATE TABLE message (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    sender TEXT NOT NULL,
    eightBit INTEGER NOT NULL,
    smtputf8 INTEGER NOT NULL,
    requireTLS INTEGER,
    report TEXT,
    key TEXT NOT NULL,
    maxAttempts INTEGER NOT NULL,
    contentType TEXT NOT NULL,
    size INTEGER NOT NULL,
    queued REAL NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    response INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE recipient (
    message INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
    position INTEGER NOT NULL,
    address TEXT NOT NULL,
    destination TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    nextAttempt REAL NOT NULL,
    due REAL,
    told INTEGER NOT NULL DEFAULT 1,
    ending TEXT,
    status TEXT,
    code INTEGER,
    text TEXT,
    host TEXT,
    retryAfter INTEGER,
    PRIMARY KEY (message, position)
) WITHOUT ROWID;
CREATE INDEX recipientDue ON recipient (destination, due) WHERE due IS NOT NULL;
CREATE INDEX recipientUntold ON recipient (message) WHERE told = 0;
CREATE TABLE lane (destination TEXT PRIMARY KEY, due REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX laneDue ON lane (due);
CREATE TABLE submitted (
    key TEXT PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX submittedAt ON submitted (at);
"""

#: By version, what makes the next one of it.
CHANGES = {
    1: ("ALTER TABLE message ADD COLUMN response INTEGER NOT NULL DEFAULT 0",),
}

MESSAGE = (
    "message.number, id, sender, eightBit, smtputf8, requireTLS, report, key,"
    " maxAttempts, contentType, size, queued, held, response"
)
RECIPIENT = (
    "message, address, destination, state, attempts, nextAttempt,"
    " ending, status, code, text, host, retryAfter"
)


def messageFrom(row: Row, recipients: Sequence[Row], path: Path) -> QueuedMessage:
    """
    @param recipients: Those that the value is to have.
    """
    messageID = str(row["id"])
    found = tuple(recipientFrom(each, messageID) for each in recipients)
    addresses = tuple(each.recipient for each in found)
    return QueuedMessage(
        messageID,
        replace(_envelope(row), recipients=addresses),
        row["size"],
        row["queued"],
        bool(row["held"]),
        path,
        found,
    )


def _envelope(row: Row) -> Envelope:
    return Envelope(
        sender=row["sender"],
        recipients=(),
        eightBit=bool(row["eightBit"]),
        smtputf8=bool(row["smtputf8"]),
        requireTLS=None if row["requireTLS"] is None else bool(row["requireTLS"]),
        report=ReportKind(row["report"]) if row["report"] else None,
        key=row["key"],
        maxAttempts=row["maxAttempts"],
        contentType=row["contentType"],
        response=bool(row["response"]),
    )


def recipientFrom(row: Row, messageID: str) -> QueuedRecipient:
    return QueuedRecipient(
        row["address"],
        row["destination"],
        RecipientState(row["state"]),
        row["attempts"],
        row["nextAttempt"],
        _result(row, messageID) if row["ending"] else None,
    )


def _result(row: Row, messageID: str) -> Result:
    return Result(
        messageID,
        row["address"],
        Ending(row["ending"]),
        row["status"],
        row["code"],
        row["text"],
        row["host"],
        row["retryAfter"],
    )
