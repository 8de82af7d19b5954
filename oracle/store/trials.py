"""What a trial of a provider costs: in the ledger and the day's budgets like any job, but of no request."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from oracle.core.budget import Budget
from oracle.store import spending
from oracle.store.schema import LedgerKind, ledger

REQUESTER = "trial"
"""Whom ledger and budgets name."""


def book(conn: Connection, budgets: Sequence[Budget], lamports: int, *, provider: str, key: str, now_ms: int) -> int:
    """Its quote, before anything is bought: the id of the entry, which `ledger.correct` takes.

    Raises ORC-POLICY-018 or 022 where a budget has no room, and then the transaction must not be committed.
    """
    spending.book(conn, budgets, lamports, now_ms)
    entry = insert(ledger).values(
        at_ms=now_ms,
        kind=LedgerKind.JOB,
        lamports=-lamports,
        provider=provider,
        requester=REQUESTER,
        note=_note(key),
    )
    return int(conn.execute(entry.returning(ledger.c.id)).scalar_one())


def entry_of(conn: Connection, key: str) -> int | None:
    """The entry of a trial, where it was booked."""
    query = select(ledger.c.id).where(
        ledger.c.kind == LedgerKind.JOB, ledger.c.requester == REQUESTER, ledger.c.note == _note(key)
    )
    return conn.execute(query).scalar()


def _note(key: str) -> str:
    return f"trial {key}"
