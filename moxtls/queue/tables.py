# -*- test-case-name: tests.queue.test_spool -*-
"""
The tables of a spool's index, and what their rows mean.

C{recipient.due} is empty while there is nothing to attempt.  C{lane} has a row
for each destination with something that is or comes due, so that a look for it
costs what is found, however much is waiting:

  - C{due}: the earliest of its recipients;
  - C{served}: when the latest attempt ended;
  - C{failures}, C{notBefore}: attempts in a row in which no host could be
    reached, and when to make the next;
  - C{turn}: the latest of C{due}, C{served} and C{notBefore}, so that
    destinations take turns;
  - C{newest}: when its latest message came that was never attempted, if that
    is after C{notBefore}.

C{recipient.told} is 0 while somebody is to be told how it ended;
C{message.noticed} while its sender may still be told of a delay.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from sqlite3 import Row

from moxtls.queue.values import (
    DeliveryStatus,
    Envelope,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    ReportKind,
    Result,
)

VERSION = 3

#: By what it is decided which message is next, and which are too old.
TURNS = """
CREATE INDEX recipientNew ON recipient (destination, due)
    WHERE due IS NOT NULL AND attempts = 0;
CREATE INDEX messageQueued ON message (queued) WHERE held = 0;
CREATE INDEX messageBrief ON message (queued)
    WHERE held = 0 AND (report IS NOT NULL OR sender = '');
CREATE INDEX messageUnnoticed ON message (queued)
    WHERE held = 0 AND noticed = 0 AND report IS NULL AND sender <> '';
CREATE TABLE lane (
    destination TEXT PRIMARY KEY,
    due REAL NOT NULL,
    served REAL NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    notBefore REAL NOT NULL DEFAULT 0,
    turn REAL NOT NULL,
    newest REAL
) WITHOUT ROWID;
CREATE INDEX laneTurn ON lane (turn);
CREATE INDEX laneNewest ON lane (newest) WHERE newest IS NOT NULL;
"""

TABLES = """
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
    response INTEGER NOT NULL DEFAULT 0,
    noticed INTEGER NOT NULL DEFAULT 0
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
    stored TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message, position)
) WITHOUT ROWID;
CREATE INDEX recipientDue ON recipient (destination, due) WHERE due IS NOT NULL;
CREATE INDEX recipientUntold ON recipient (message) WHERE told = 0;
CREATE TABLE submitted (
    key TEXT PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX submittedAt ON submitted (at);
"""

SCHEMA = TABLES + TURNS

#: By version, what makes the next one of it.
CHANGES = {
    1: ("ALTER TABLE message ADD COLUMN response INTEGER NOT NULL DEFAULT 0",),
    2: (
        "ALTER TABLE message ADD COLUMN noticed INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE recipient ADD COLUMN stored TEXT NOT NULL DEFAULT ''",
        "DROP TABLE lane",
        *TURNS.strip().split(";\n"),
        "INSERT INTO lane (destination, due, turn) SELECT destination, min(due),"
        " min(due) FROM recipient WHERE due IS NOT NULL GROUP BY destination",
    ),
}

MESSAGE = (
    "message.number, id, sender, eightBit, smtputf8, requireTLS, report, key,"
    " maxAttempts, contentType, size, queued, held, response"
)
RECIPIENT = (
    "message, address, destination, state, attempts, nextAttempt,"
    " ending, status, code, text, host, retryAfter, stored"
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
        tuple(json.loads(row["stored"] or "[]")),
    )


def _result(row: Row, messageID: str) -> Result:
    return Result(
        messageID,
        row["address"],
        DeliveryStatus(row["ending"]),
        row["status"],
        row["code"],
        row["text"],
        row["host"],
        row["retryAfter"],
    )
