"""What can go wrong with the database, each with a code."""

from __future__ import annotations

from typing import Final

from oracle.core.errors import ErrorCode, Verdict

URL_REFUSED: Final = ErrorCode(
    "ORC-STORE-001",
    "Database URL is not usable",
    "`database.url` names an engine that is not supported, a database in memory, or an engine whose driver is missing.",
    "Use `sqlite:///PATH`, or `postgresql+asyncpg://…` with the extra `postgres` installed.",
)
CANNOT_OPEN: Final = ErrorCode(
    "ORC-STORE-002",
    "Database cannot be opened",
    "The file or its directory is missing or not writable, or the server refuses the connection or its credentials.",
    "Check `database.url`, the permissions, and that the server runs.",
    Verdict.RETRY,
)
NOT_DURABLE: Final = ErrorCode(
    "ORC-STORE-003",
    "Database would lose commits when the power fails",
    "SQLite refuses WAL mode with `synchronous=FULL`, or PostgreSQL runs without `fsync` or `synchronous_commit`.",
    "Keep the file on a local disk; on PostgreSQL set `fsync = on` and `synchronous_commit = on` (or stronger).",
    Verdict.RETRY,
)
SCHEMA_OUTDATED: Final = ErrorCode(
    "ORC-STORE-004",
    "Database schema is not up to date",
    "The database is new, or was last used by an older version of the oracle.",
    "Run `oracle db upgrade`.",
)
SCHEMA_NEWER: Final = ErrorCode(
    "ORC-STORE-005",
    "Database schema is newer than this oracle",
    "A newer version of the oracle has upgraded the database.",
    "Run that version, or restore the backup that was made before the upgrade.",
)
LOCKED: Final = ErrorCode(
    "ORC-STORE-006",
    "Database is locked",
    "Another program has held a lock for longer than the daemon waits. Nothing was written.",
    "Find what holds it, such as a `sqlite3` shell or a `psql` session with an open transaction, and end it.",
    Verdict.RETRY,
)
DISK_FULL: Final = ErrorCode(
    "ORC-STORE-007",
    "Disk is full",
    "The database cannot grow. Nothing was written; the daemon goes on as soon as there is room.",
    "Free some space on the disk of the database.",
    Verdict.RETRY,
)
CONNECTION_LOST: Final = ErrorCode(
    "ORC-STORE-008",
    "Connection to the database was lost",
    "The server was stopped or cannot be reached. The transaction had not been committed.",
    "Check the server; the daemon connects again by itself.",
    Verdict.RETRY,
)
COMMIT_UNKNOWN: Final = ErrorCode(
    "ORC-STORE-009",
    "Unknown whether a commit has happened",
    "The connection or the disk failed while the commit was under way.",
    "None is needed: what was written is read back before anything is done with it.",
    Verdict.UNKNOWN,
)
CONFLICT: Final = ErrorCode(
    "ORC-STORE-010",
    "Transactions were in each other's way",
    "Two daemons changed the same rows in another order, and the server ended one of the two. Nothing was written.",
    "None is needed: the daemon repeats it.",
    Verdict.RETRY,
)
DAMAGED: Final = ErrorCode(
    "ORC-STORE-011",
    "Database file cannot be read or written",
    "The disk reported an error, the file is damaged, or it is not a database.",
    "Stop the daemon, check the disk, and restore the last backup; the next start reads the chain anew.",
)
REFUSED_BY_SCHEMA: Final = ErrorCode(
    "ORC-STORE-012",
    "A law of the schema refused a write",
    "The write would have broken a constraint of the database.",
    "This is a bug in the oracle: report it with the output of `oracle inspect REQUEST`.",
)
VALUE_REFUSED: Final = ErrorCode(
    "ORC-STORE-013",
    "A value does not fit the database",
    "A text holds a NUL character or is no Unicode, or a number has more than 63 bits.",
    "Nothing but a hostile or broken counterpart sends such values; the request is left alone.",
)
STATEMENT_FAILED: Final = ErrorCode(
    "ORC-STORE-014",
    "Database refused a statement",
    "The engine reported an error that the oracle does not know.",
    "See the detail; if the database is in order, report it as a bug.",
)
CLOSED: Final = ErrorCode(
    "ORC-STORE-015",
    "Database has been closed",
    "Something was to be read or written after the daemon had begun to stop.",
    "None is needed.",
)
LEASE_LOST: Final = ErrorCode(
    "ORC-STORE-016",
    "Lease was lost",
    "The lease had lapsed and another worker took the row, or the chain has ended the request.",
    "None is needed: whoever holds the row now goes on with it. If it happens often, the machine is overloaded.",
    Verdict.RETRY,
)
ATTEMPT_EXISTS: Final = ErrorCode(
    "ORC-STORE-017",
    "A job of this request is under way already",
    "The lane has a live attempt, or the idempotency key was used before. Nothing was bought.",
    "None is needed: the live attempt is followed.",
)
SETTLEMENT_EXISTS: Final = ErrorCode(
    "ORC-STORE-018",
    "A settlement of this request is under way already",
    "An intent to change the chain for this request is pending or sent.",
    "None is needed: the live one is followed.",
)
SIGNATURE_OPEN: Final = ErrorCode(
    "ORC-STORE-019",
    "An earlier signature may still land",
    "Signing again was tried before every earlier signature was finalized with an error, or proven absent.",
    "None is needed: the earlier signature is followed until its fate is known.",
    Verdict.RETRY,
)
ROW_MISSING: Final = ErrorCode(
    "ORC-STORE-020",
    "Row does not exist",
    "A row was named that the database does not hold, or that has left the state in which it could be changed.",
    "Check the address; `oracle list` prints the known requests.",
)
HELD_BY_ANOTHER: Final = ErrorCode(
    "ORC-STORE-021",
    "Another daemon is running",
    "A process of this machine holds the same database file, or the same operator key for another database.",
    "Stop it first. Several daemons share the work of one operator key on one PostgreSQL database.",
)
CALL_EXISTS: Final = ErrorCode(
    "ORC-STORE-022",
    "The same call is under way already",
    "A call of the gateway for the same request on chain is open.",
    "Wait for its answer; another `Idempotency-Key` makes another request.",
    Verdict.RETRY,
)
ATTEMPT_OVER: Final = ErrorCode(
    "ORC-STORE-023",
    "The attempt is over",
    "A purchase was to be signed for an attempt that has ended, or that had one before. Nothing was signed.",
    "None is needed: another worker has the request, and goes on with it.",
    Verdict.RETRY,
)
CLOCKS_APART: Final = ErrorCode(
    "ORC-STORE-024",
    "Clock differs from that of the database server",
    "Leases are times: what is held by a clock that is ahead is rescued late, and by one that is behind, too early.",
    "Keep both clocks with NTP.",
    Verdict.RETRY,
)

ENGINE_TROUBLE: Final = (LOCKED, DISK_FULL, CONNECTION_LOST, COMMIT_UNKNOWN, DAMAGED, CANNOT_OPEN, NOT_DURABLE)
"""Trouble of the database, the disk or the server: no request is to blame, and none may end by it."""
