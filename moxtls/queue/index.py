# -*- test-case-name: tests.queue.test_spool -*-
"""
The index of a spool: an SQLite database of messages and the states of their
recipients.  Every method blocks, and is called within a transaction.

C{recipient.due} is NULL while no attempt is to be made.  C{lane} has a row for each
destination with a recipient that is due now or later, so that the cost of a selection
depends on its result, not on the number of waiting messages:

  - C{due}: the earliest of its recipients;
  - C{served}: the end of the latest attempt;
  - C{failures}, C{notBefore}: consecutive attempts in which no host could be
    reached, and the time of the next one;
  - C{turn}: the latest of C{due}, C{served} and C{notBefore}, so that
    destinations take turns;
  - C{newest}: the latest C{due} of its recipients that were never attempted,
    if that is after C{notBefore}.

C{recipient.told} is 0 while the sender or an observer is to be notified of the final
result; C{message.noticed} is 0 while its sender may still get a delay DSN.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from sqlite3 import Connection, Row

from moxtls.queue.files import MessageFiles
from moxtls.queue.schedule import Notify, RetryDecision
from moxtls.queue.types import (
    DeliveryStatus,
    Envelope,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    ReportKind,
    Result,
    destinationOf,
)

VERSION = 3

#: Indexes and tables for the selection of due and old messages.
_SELECTION = """
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

_TABLES = """
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

_SCHEMA = _TABLES + _SELECTION

#: By version, the statements that update the tables to the next one.
_MIGRATIONS = {
    1: ("ALTER TABLE message ADD COLUMN response INTEGER NOT NULL DEFAULT 0",),
    2: (
        "ALTER TABLE message ADD COLUMN noticed INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE recipient ADD COLUMN stored TEXT NOT NULL DEFAULT ''",
        "DROP TABLE lane",
        *_SELECTION.strip().split(";\n"),
        "INSERT INTO lane (destination, due, turn) SELECT destination, min(due),"
        " min(due) FROM recipient WHERE due IS NOT NULL GROUP BY destination",
    ),
}

_MESSAGE = (
    "message.number, id, sender, eightBit, smtputf8, requireTLS, report, key,"
    " maxAttempts, contentType, size, queued, held, response"
)
_RECIPIENT = (
    "message, address, destination, state, attempts, nextAttempt,"
    " ending, status, code, text, host, retryAfter, stored"
)
#: The same, with the time until which the destination is suspended, if that is later.
_LISTED_RECIPIENT = _RECIPIENT.replace(
    "nextAttempt",
    "CASE WHEN due IS NULL THEN nextAttempt ELSE max(nextAttempt, ifnull((SELECT"
    " notBefore FROM lane WHERE lane.destination = recipient.destination), 0)) END"
    " AS nextAttempt",
)
# The columns that a result changes, after those that identify the recipient.
_RECORDED = (
    *("id", "address", "state", "attempts", "nextAttempt", "due", "told", "ending"),
    *("status", "code", "text", "host", "retryAfter", "stored"),
)
# One statement for many rows: before and after each statement the thread waits for the
# interpreter lock, for milliseconds if the reactor is busy.
_SET = ", ".join(f"{each} = new.{each}" for each in _RECORDED[2:])
_NEW = ", ".join(f"json_extract(value, '$.{each}') AS {each}" for each in _RECORDED)
_RECORD = (
    f"UPDATE recipient SET {_SET} FROM (SELECT {_NEW} FROM json_each(?)) AS new"
    " JOIN message ON message.id = new.id"
    " WHERE recipient.message = message.number AND recipient.address = new.address"
    # Recording a result again changes nothing.
    f" AND recipient.state = '{RecipientState.WAITING}' AND"
    f" (new.state <> '{RecipientState.WAITING}' OR recipient.attempts < new.attempts)"
).replace("due = new.due", "due = iif(message.held, NULL, new.due)")
#: The values of a JSON array.
_LISTED = "(SELECT value FROM json_each(?))"
_UPDATE_LANES = """
INSERT INTO lane (destination, due, served, turn, newest)
    SELECT name, due, :served, max(due, :served), newest FROM (
        SELECT value AS name,
            (SELECT min(due) FROM recipient
                WHERE destination = value AND due IS NOT NULL) AS due,
            (SELECT max(due) FROM recipient
                WHERE destination = value AND due IS NOT NULL AND attempts = 0
            ) AS newest
        FROM json_each(:names)
    ) WHERE due IS NOT NULL
    ON CONFLICT DO UPDATE SET due = excluded.due,
        served = max(served, excluded.served),
        turn = max(excluded.due, excluded.served, served, notBefore),
        newest = CASE WHEN excluded.newest > notBefore THEN excluded.newest END
"""
#: Condition for messages without a recipient that is waiting or to be reported.
_FINISHED = (
    "NOT EXISTS (SELECT 1 FROM recipient WHERE message = number"
    f" AND (state = '{RecipientState.WAITING}' OR told = 0))"
)
#: Condition for messages with the shorter lifetime.
_BRIEF = "(report IS NOT NULL OR sender = '')"


def checkVersion(connection: Connection) -> int:
    """
    @return: The schema version of the database, 0 if it has no tables.

    @raise ValueError: It was made by a later version of moxtls.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ValueError(f"version {version} of the spool is not {VERSION}")
    return int(version)


class Index:
    """
    Operations on the database.
    """

    def __init__(self, connection: Connection, files: MessageFiles) -> None:
        self._db = connection
        self._files = files

    def prepare(self) -> None:
        """
        Create the tables, or update them to the current version.
        """
        version = checkVersion(self._db)
        statements = _SCHEMA.split(";\n")
        if version:
            changes = (_MIGRATIONS[each] for each in range(version, VERSION))
            statements = [statement for each in changes for statement in each]
        for statement in statements:
            self._db.execute(statement)
        if version != VERSION:
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    # --- messages -------------------------------------------------------------

    def known(self, key: str) -> str | None:
        """
        The id of the message that was submitted with a key.
        """
        row = self._db.execute(
            "SELECT id FROM submitted WHERE key = ?", (key,)
        ).fetchone()
        return row and str(row["id"])

    def add(self, messageID: str, envelope: Envelope, size: int, now: float) -> None:
        number = self._db.execute(
            "INSERT INTO message (id, sender, eightBit, smtputf8, requireTLS, report,"
            " key, maxAttempts, contentType, size, queued, response)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                messageID,
                envelope.sender,
                envelope.eightBit,
                envelope.smtputf8,
                envelope.requireTLS,
                envelope.report,
                envelope.key,
                envelope.maxAttempts,
                envelope.contentType,
                size,
                now,
                envelope.response,
            ),
        ).lastrowid
        routes = [(each, destinationOf(each)) for each in envelope.recipients]
        self._db.executemany(
            "INSERT INTO recipient (message, position, address, destination, state,"
            " nextAttempt, due) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    number,
                    position,
                    address,
                    destination,
                    RecipientState.WAITING,
                    now,
                    now,
                )
                for position, (address, destination) in enumerate(routes)
            ],
        )
        self._updateLanes({destination for _, destination in routes})
        if envelope.key:
            self._db.execute(
                "INSERT INTO submitted VALUES (?, ?, ?)", (envelope.key, messageID, now)
            )

    def remove(self, messageID: str, now: float) -> bool:
        """
        Delete a message and its file.

        @return: False if it isn't in the queue.
        """
        number = self._number(messageID)
        if number is None:
            return False
        destinations = self._destinations(number)
        row = self._db.execute(
            "SELECT key FROM message WHERE number = ?", (number,)
        ).fetchone()
        self._keepKeys([row["key"]], now)
        self._db.execute("DELETE FROM message WHERE number = ?", (number,))
        self._files.remove(messageID)
        self._updateLanes(destinations)
        return True

    def forgetKeys(self, before: float, limit: int) -> None:
        """
        Delete keys of messages that were removed before C{before}.
        """
        self._db.execute(
            "DELETE FROM submitted WHERE key IN (SELECT key FROM submitted"
            " WHERE at < ? AND NOT EXISTS (SELECT 1 FROM message WHERE"
            " message.id = submitted.id) LIMIT ?)",
            (before, limit),
        )

    # --- operator commands ----------------------------------------------------

    def hold(self, messageID: str, held: bool) -> bool:
        number = self._number(messageID)
        if number is None:
            return False
        self._db.execute("UPDATE message SET held = ? WHERE number = ?", (held, number))
        self._schedule(number)
        return True

    def retry(self, messageID: str, now: float) -> bool:
        number = self._number(messageID)
        if number is None:
            return False
        self._db.execute(
            "UPDATE recipient SET nextAttempt = ? WHERE message = ? AND state = ?",
            (now, number, RecipientState.WAITING),
        )
        self._db.executemany(
            "UPDATE lane SET failures = 0, notBefore = 0, served = 0"
            " WHERE destination = ?",
            [(each,) for each in self._destinations(number)],
        )
        self._schedule(number)
        return True

    # --- queries --------------------------------------------------------------

    def messages(self) -> tuple[QueuedMessage, ...]:
        """
        All messages, oldest first.
        """
        return self._load("1", ())

    def page(self, after: int, limit: int) -> tuple[int, tuple[QueuedMessage, ...]]:
        """
        As L{moxtls.interfaces.IQueue.page}.
        """
        row = self._db.execute(
            "SELECT max(number) FROM (SELECT number FROM message WHERE number > ?"
            " ORDER BY number LIMIT ?)",
            (after, limit),
        ).fetchone()
        if row[0] is None:
            return after, ()
        last = int(row[0])
        return last, self._load("number > ? AND number <= ?", (after, last))

    def message(self, messageID: str) -> QueuedMessage | None:
        found = self._load("id = ?", (messageID,))
        return found[0] if found else None

    def contains(self, messageID: str) -> bool:
        return self._number(messageID) is not None

    def dueDestinations(
        self, now: float, limit: int, newest: bool = False
    ) -> list[tuple[str, float]]:
        """
        Destinations that may be attempted, longest wait first, each with the time of
        its latest new message, or 0.

        @param newest: Only those with new messages, latest first.
        """
        which = (
            "newest IS NOT NULL AND turn <= ? ORDER BY newest DESC"
            if newest
            else "turn <= ? ORDER BY turn"
        )
        rows = self._db.execute(
            f"SELECT destination, newest FROM lane WHERE {which} LIMIT ?", (now, limit)
        )
        return [(row["destination"], row["newest"] or 0) for row in rows]

    def due(
        self, destination: str, now: float, newest: bool = False
    ) -> Iterator[QueuedMessage]:
        """
        The due recipients of a destination, longest due first, each with its message.
        Rows are read during the iteration.

        @param newest: Only recipients that were never attempted.
        """
        which = "attempts = 0" if newest else "1"
        rows = self._db.execute(
            f"SELECT {_MESSAGE}, {_RECIPIENT} FROM recipient JOIN message"
            " ON message.number = recipient.message"
            f" WHERE destination = ? AND due <= ? AND {which} ORDER BY due",
            (destination, now),
        )
        return (self._message(row, (row,)) for row in rows)

    def hasRetries(self, destination: str, now: float) -> bool:
        """
        True if a recipient of C{destination} that was attempted before is due.
        """
        row = self._db.execute(
            "SELECT 1 FROM recipient WHERE destination = ? AND due <= ?"
            " AND attempts > 0 LIMIT 1",
            (destination, now),
        ).fetchone()
        return row is not None

    def aged(self, queued: float, brief: bool, limit: int) -> list[QueuedMessage]:
        """
        Messages queued up to C{queued}, oldest first, each with the recipients that
        may be attempted.

        @param brief: Only reports and messages with the null reverse-path.
        """
        return self._waiting(_BRIEF if brief else "1", queued, limit)

    def delayed(self, queued: float, limit: int) -> list[QueuedMessage]:
        """
        The messages as of L{aged} whose senders are to get a delay DSN.
        """
        which = "noticed = 0 AND report IS NULL AND sender <> ''"
        return self._waiting(which, queued, limit)

    def withUnreported(
        self, reports: bool, after: int, limit: int
    ) -> list[tuple[int, str]]:
        """
        Numbers and ids of messages with final results of which no notification was
        sent, in order, beginning after the number C{after}.

        @param reports: True for reports, false for all other messages.
        """
        rows = self._db.execute(
            "SELECT DISTINCT number, id FROM recipient JOIN message"
            " ON number = message WHERE told = 0 AND (report IS NOT NULL) = ?"
            " AND message > ? ORDER BY message LIMIT ?",
            (reports, after, limit),
        )
        return [(int(row["number"]), str(row["id"])) for row in rows]

    def unreported(self, messageID: str) -> tuple[QueuedRecipient, ...]:
        """
        The recipients of a message with final results of which no notification was
        sent.
        """
        rows = self._db.execute(
            f"SELECT {_RECIPIENT} FROM recipient WHERE told = 0 AND message ="
            " (SELECT number FROM message WHERE id = ?) ORDER BY position",
            (messageID,),
        )
        return tuple(_queuedRecipient(row, messageID) for row in rows)

    # --- after an attempt -----------------------------------------------------

    def record(self, decisions: Iterable[RetryDecision]) -> None:
        """
        Store the states of recipients: L{ended} has to follow.  Recipients that were
        removed, or have these states already, are ignored.
        """
        self.recordLines([journalLine(each) for each in decisions])

    def recordLines(self, lines: Iterable[str]) -> None:
        """
        As L{record}, from lines of a journal.
        """
        self._db.execute(_RECORD, (f"[{','.join(lines)}]",))

    def ended(self, destinations: Iterable[str], now: float) -> None:
        """
        An attempt for C{destinations} ended at C{now}.
        """
        self._updateLanes(set(destinations), now)

    def repair(self, now: float) -> None:
        """
        Complete the work of L{record} if the process was killed before L{ended}.
        """
        self._db.execute(
            "DELETE FROM lane WHERE NOT EXISTS (SELECT 1 FROM recipient"
            " WHERE destination = lane.destination AND due IS NOT NULL)"
        )
        self._db.execute(
            "UPDATE lane SET due = (SELECT min(due) FROM recipient"
            " WHERE destination = lane.destination AND due IS NOT NULL)"
        )
        self._db.execute("UPDATE lane SET turn = max(due, served, notBefore)")
        rows = self._db.execute(f"SELECT id FROM message WHERE {_FINISHED}").fetchall()
        self.removeFinished([row["id"] for row in rows], now)

    def reached(self, destinations: Iterable[str]) -> None:
        """
        Reset the failures of destinations: a host of each has answered.
        """
        self._db.execute(
            "UPDATE lane SET failures = 0, notBefore = 0"
            f" WHERE destination IN {_LISTED} AND failures",
            (json.dumps(list(destinations)),),
        )

    def outage(self, destination: str) -> tuple[int, float]:
        """
        The number of consecutive attempts in which no host of C{destination} was
        reached, and the time of the next.
        """
        row = self._db.execute(
            "SELECT failures, notBefore FROM lane WHERE destination = ?", (destination,)
        ).fetchone()
        return (row["failures"], row["notBefore"]) if row else (0, 0)

    def backOff(self, destination: str, notBefore: float, now: float) -> None:
        """
        Make no attempt for C{destination} before C{notBefore}: none of its hosts could
        be reached.
        """
        self._db.execute(
            "UPDATE lane SET failures = failures + 1, notBefore = ?"
            " WHERE destination = ?",
            (notBefore, destination),
        )
        self._updateLanes({destination}, now)

    def defer(
        self, destination: str, result: Result, until: float, now: float, limit: int
    ) -> int:
        """
        Count due recipients of C{destination} as attempted with C{result}, except
        those for which only one of C{maxAttempts} is left: that one is made.

        @return: The number of these recipients; if it is C{limit}, there may be more.
        """
        deferred = self._db.execute(
            "UPDATE recipient SET attempts = attempts + 1, nextAttempt = ?, due = ?,"
            " ending = ?, status = ?, code = ?, text = ?, host = ?, retryAfter = NULL"
            " WHERE (message, position) IN (SELECT message, position"
            " FROM recipient JOIN message ON number = message"
            " WHERE destination = ? AND due <= ?"
            " AND (maxAttempts = 0 OR attempts + 1 < maxAttempts) LIMIT ?)",
            (
                until,
                until,
                result.ending.value,
                result.status,
                result.code,
                result.text,
                result.host,
                destination,
                now,
                limit,
            ),
        ).rowcount
        self._updateLanes({destination})
        return deferred

    def markDelayReported(self, messageID: str) -> None:
        """
        Note that a delay DSN was sent about a message.
        """
        self._db.execute("UPDATE message SET noticed = 1 WHERE id = ?", (messageID,))

    def markReported(
        self, messageID: str, recipients: Sequence[QueuedRecipient]
    ) -> None:
        """
        Note that notifications of final results were sent.
        """
        self._db.executemany(
            "UPDATE recipient SET told = 1 WHERE address = ? AND message ="
            " (SELECT number FROM message WHERE id = ?)",
            [(each.recipient, messageID) for each in recipients],
        )

    def unreportedAmong(self, messageIDs: Iterable[str]) -> list[str]:
        """
        The messages among C{messageIDs} with final results of which no notification was
        sent.
        """
        rows = self._db.execute(
            f"SELECT id FROM message WHERE id IN {_LISTED} AND EXISTS (SELECT 1"
            " FROM recipient WHERE message = number AND told = 0)",
            (json.dumps(list(messageIDs)),),
        )
        return [str(row["id"]) for row in rows]

    def removeFinished(self, messageIDs: Iterable[str], now: float) -> None:
        """
        Delete the messages among C{messageIDs} that have final results for all
        recipients and no notification to be sent, and their files.
        """
        # None of their recipients is due, so that C{lane} doesn't change.
        rows = self._db.execute(
            f"DELETE FROM message WHERE id IN {_LISTED} AND {_FINISHED}"
            " RETURNING id, key",
            (json.dumps(list(messageIDs)),),
        ).fetchall()
        self._keepKeys([row["key"] for row in rows if row["key"]], now)
        for row in rows:
            self._files.remove(row["id"])

    # --- helpers --------------------------------------------------------------

    def _keepKeys(self, keys: Sequence[str], now: float) -> None:
        """
        Begin the lifetime of keys whose messages are removed.
        """
        if keys:
            self._db.execute(
                f"UPDATE submitted SET at = ? WHERE key IN {_LISTED}",
                (now, json.dumps(keys)),
            )

    def _number(self, messageID: str) -> int | None:
        row = self._db.execute(
            "SELECT number FROM message WHERE id = ?", (messageID,)
        ).fetchone()
        return row and int(row["number"])

    def _destinations(self, number: int) -> set[str]:
        rows = self._db.execute(
            "SELECT DISTINCT destination FROM recipient WHERE message = ?", (number,)
        )
        return {str(row["destination"]) for row in rows}

    def _schedule(self, number: int) -> None:
        """
        Set C{due} of a message's recipients from its other columns.
        """
        self._db.execute(
            "UPDATE recipient SET due = CASE WHEN (SELECT held FROM message"
            " WHERE number = recipient.message) THEN NULL ELSE nextAttempt END"
            " WHERE message = ? AND state = ?",
            (number, RecipientState.WAITING),
        )
        self._updateLanes(self._destinations(number))

    def _updateLanes(self, destinations: set[str], served: float = 0) -> None:
        """
        Update rows of C{lane} from C{recipient}.

        @param served: The end of an attempt, if there was one.
        """
        names = json.dumps(list(destinations))
        self._db.execute(
            f"DELETE FROM lane WHERE destination IN {_LISTED} AND NOT EXISTS (SELECT 1"
            " FROM recipient WHERE recipient.destination = lane.destination"
            " AND recipient.due IS NOT NULL)",
            (names,),
        )
        self._db.execute(_UPDATE_LANES, {"names": names, "served": served})

    def _waiting(self, which: str, queued: float, limit: int) -> list[QueuedMessage]:
        rows = self._db.execute(
            f"SELECT {_MESSAGE} FROM message WHERE held = 0 AND {which}"
            " AND queued <= ? AND EXISTS (SELECT 1 FROM recipient"
            " WHERE message = number AND due IS NOT NULL) ORDER BY queued LIMIT ?",
            (queued, limit),
        ).fetchall()
        return [
            self._message(
                row,
                self._db.execute(
                    f"SELECT {_RECIPIENT} FROM recipient WHERE message = ?"
                    " AND due IS NOT NULL ORDER BY position",
                    (row["number"],),
                ).fetchall(),
            )
            for row in rows
        ]

    def _load(
        self, where: str, values: tuple[object, ...]
    ) -> tuple[QueuedMessage, ...]:
        recipients: dict[int, list[Row]] = {}
        for row in self._db.execute(
            f"SELECT {_LISTED_RECIPIENT} FROM recipient WHERE message IN"
            f" (SELECT number FROM message WHERE {where}) ORDER BY message, position",
            values,
        ):
            recipients.setdefault(row["message"], []).append(row)
        rows = self._db.execute(
            f"SELECT {_MESSAGE} FROM message WHERE {where} ORDER BY number", values
        )
        return tuple(self._message(row, recipients[row["number"]]) for row in rows)

    def _message(self, row: Row, recipients: Sequence[Row]) -> QueuedMessage:
        return _queuedMessage(row, recipients, self._files.path(row["id"]))


def journalLine(decision: RetryDecision) -> str:
    """
    A decision as a JSON object of the recipient's columns, in ASCII.
    """
    recipient = decision.recipient
    result = recipient.lastResult
    assert result is not None
    isWaiting = recipient.state is RecipientState.WAITING
    return json.dumps(
        {
            "id": decision.messageID,
            "address": recipient.recipient,
            "state": recipient.state,
            "attempts": recipient.attempts,
            "nextAttempt": recipient.nextAttempt,
            "due": recipient.nextAttempt if isWaiting else None,
            "told": decision.notify is Notify.NONE,
            "ending": result.ending.value,
            "status": result.status,
            "code": result.code,
            "text": result.text,
            "host": result.host,
            "retryAfter": result.retryAfter,
            "stored": json.dumps(recipient.stored) if recipient.stored else "",
        }
    )


def isJournalLine(line: str) -> bool:
    """
    True if a line is whole and of this version.
    """
    try:
        # SQLite takes neither NaN nor infinity.
        found = json.loads(line, parse_constant=_refuseConstant)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(found, dict)
        and found.keys() == set(_RECORDED)
        # SQLite refuses values that are nested too deeply.
        and not any(isinstance(each, dict | list) for each in found.values())
    )


def _refuseConstant(name: str) -> None:
    raise ValueError(name)


def _queuedMessage(row: Row, recipients: Sequence[Row], path: Path) -> QueuedMessage:
    """
    @param recipients: The rows of the recipients to include.
    """
    messageID = str(row["id"])
    found = tuple(_queuedRecipient(each, messageID) for each in recipients)
    return QueuedMessage(
        messageID,
        _envelope(row, tuple(each.recipient for each in found)),
        row["size"],
        row["queued"],
        bool(row["held"]),
        path,
        found,
    )


def _envelope(row: Row, recipients: tuple[str, ...]) -> Envelope:
    return Envelope(
        sender=row["sender"],
        recipients=recipients,
        eightBit=bool(row["eightBit"]),
        smtputf8=bool(row["smtputf8"]),
        requireTLS=None if row["requireTLS"] is None else bool(row["requireTLS"]),
        report=ReportKind(row["report"]) if row["report"] else None,
        key=row["key"],
        maxAttempts=row["maxAttempts"],
        contentType=row["contentType"],
        response=bool(row["response"]),
    )


def _queuedRecipient(row: Row, messageID: str) -> QueuedRecipient:
    return QueuedRecipient(
        row["address"],
        row["destination"],
        RecipientState(row["state"]),
        row["attempts"],
        row["nextAttempt"],
        _result(row, messageID) if row["ending"] else None,
        tuple(json.loads(row["stored"])) if row["stored"] else (),
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
