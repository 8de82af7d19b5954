"""The history of every request: one row for each thing that happened to it, never changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select

from oracle.store.rows import JournalRow
from oracle.store.schema import journal


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
    values = {
        "request_id": request_id,
        "at_ms": now_ms,
        "slot": slot,
        "event": event,
        "old_state": old_state,
        "new_state": new_state,
        "code": code,
        "detail": detail,
    }
    conn.execute(insert(journal), values)


def of(conn: Connection, request_id: int | None) -> list[JournalRow]:
    """The history of one request, oldest first; None gives the daemon's own."""
    query = select(journal).where(journal.c.request_id == request_id).order_by(journal.c.id)
    return [JournalRow(*row) for row in conn.execute(query)]
