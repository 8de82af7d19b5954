"""The history of every request: one row for each thing that happened to it, never changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from oracle.store.rows import JournalRow as JournalRow
from oracle.store.schema import journal
from oracle.store.sql import append, insert_new


def note(
    conn: Connection,
    request_id: int | None,
    event: str,
    *,
    now_ms: int,
    slot: int | None = None,
    old_state: str | None = None,
    new_state: str | None = None,
    code: str | None = None,
    detail: Any = None,
) -> None:
    """Append one line. `request_id` None concerns the daemon; `detail` is any JSON value, without secrets."""
    append(
        conn,
        journal,
        request_id=request_id,
        at_ms=now_ms,
        slot=slot,
        event=event,
        old_state=old_state,
        new_state=new_state,
        code=code,
        detail=detail,
    )


def note_once(
    conn: Connection,
    request_id: int | None,
    event: str,
    subject: str,
    *,
    now_ms: int,
    slot: int | None = None,
    detail: Any = None,
) -> bool:
    """Append one line about `subject`, such as an address, unless the event was noted about it before."""
    values = {"request_id": request_id, "at_ms": now_ms, "slot": slot, "event": event, "detail": detail}
    return insert_new(conn, journal, subject=subject, **values) is not None


def of(conn: Connection, request_id: int | None) -> list[JournalRow]:
    """The history of one request, oldest first; None gives the daemon's own."""
    query = select(journal).where(journal.c.request_id == request_id).order_by(journal.c.id)
    return [JournalRow(*row) for row in conn.execute(query)]


def newest(conn: Connection, limit: int = 100) -> list[JournalRow]:
    """The last lines of every history, newest first."""
    return [JournalRow(*row) for row in conn.execute(select(journal).order_by(journal.c.id.desc()).limit(limit))]
