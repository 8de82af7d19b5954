"""What housekeeping looks for in the rows of an operator: requests to expire, to close and to finalize, and jobs that
nobody waits for."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, exists, select

from oracle.core.lifecycle import ENDED, RESTING, State
from oracle.store.requests import OPEN
from oracle.store.rows import AttemptRow, RequestRow
from oracle.store.schema import (
    LIVE_ATTEMPT,
    LIVE_SETTLEMENT,
    SettlementKind,
    SettlementState,
    attempts,
    requests,
    settlements,
)
from oracle.store.sql import is_one_of

_WAITS_FOR_NO_JOB: Final = ENDED | RESTING | {State.COMPUTED, State.REFUSED, State.SETTLING}


def overdue(conn: Connection, *, operator: str, slot: int, limit: int) -> list[RequestRow]:
    """Past their deadline at `slot`, open as far as is known, no intent under way; longest overdue first."""
    query = (
        select(requests)
        .where(
            requests.c.operator == operator,
            is_one_of(requests.c.state, OPEN),
            requests.c.deadline_slot < slot,
            ~_has_live_settlement(),
        )
        .order_by(requests.c.deadline_slot)
        .limit(limit)
    )
    return [RequestRow(*row) for row in conn.execute(query)]


def closable(conn: Connection, *, operator: str, slot: int, limit: int) -> list[RequestRow]:
    """Ended for good, their retention over at `slot`, and their account still there as far as is known."""
    query = (
        select(requests)
        .where(
            requests.c.operator == operator,
            is_one_of(requests.c.state, ENDED),
            requests.c.end_finalized.is_(True),
            requests.c.closed.is_(False),
            requests.c.ended_slot + requests.c.retention_slots < slot,
            ~_has_live_settlement(),
            ~_has_landed_close(),
        )
        .order_by(requests.c.ended_slot)
        .limit(limit)
    )
    return [RequestRow(*row) for row in conn.execute(query)]


def unfinalized(conn: Connection, *, operator: str, limit: int) -> list[RequestRow]:
    """Ended at `confirmed`, which a fork may still undo, by no signature of ours that is followed to its fate: oldest
    end first."""
    query = (
        select(requests)
        .where(
            requests.c.operator == operator,
            is_one_of(requests.c.state, ENDED),
            requests.c.end_finalized.is_(False),
            requests.c.closed.is_(False),
            ~_is_under_way(),
        )
        .order_by(requests.c.ended_slot)
        .limit(limit)
    )
    return [RequestRow(*row) for row in conn.execute(query)]


def orphans(conn: Connection, *, operator: str, limit: int) -> list[tuple[RequestRow, AttemptRow]]:
    """Live attempts that nobody waits for, though somebody may be paying for them: their request has ended, or is
    answered, refused or at rest. So it is with what has lost a race, and with what was left when a step gave up."""
    query = (
        select(attempts)
        .join(requests, requests.c.id == attempts.c.request_id)
        .where(
            requests.c.operator == operator,
            is_one_of(attempts.c.state, LIVE_ATTEMPT),
            is_one_of(requests.c.state, _WAITS_FOR_NO_JOB),
        )
        .order_by(attempts.c.id)
        .limit(limit)
    )
    found = [AttemptRow(*row) for row in conn.execute(query)]
    ids = {attempt.request_id for attempt in found}
    rows = {row.id: RequestRow(*row) for row in conn.execute(select(requests).where(requests.c.id.in_(ids)))}
    return [(rows[attempt.request_id], attempt) for attempt in found]


def _has_live_settlement() -> ColumnElement[bool]:
    return exists().where(
        and_(
            settlements.c.request_id == requests.c.id,
            is_one_of(settlements.c.state, LIVE_SETTLEMENT),
            settlements.c.kind != SettlementKind.PURCHASE,
        )
    )


def _is_under_way() -> ColumnElement[bool]:
    return exists().where(
        and_(
            settlements.c.request_id == requests.c.id,
            is_one_of(settlements.c.state, (*LIVE_SETTLEMENT, SettlementState.LANDED)),
            settlements.c.kind != SettlementKind.PURCHASE,
        )
    )


def _has_landed_close() -> ColumnElement[bool]:
    """Confirmed, and not yet final: to try again now would be refused."""
    return exists().where(
        and_(
            settlements.c.request_id == requests.c.id,
            settlements.c.kind == SettlementKind.CLOSE,
            settlements.c.state == SettlementState.LANDED,
        )
    )
