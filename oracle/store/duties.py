"""What housekeeping looks for in the rows of an operator: requests to expire, to close and to finalize, and jobs that
nobody waits for."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Connection, Integer, bindparam, exists, select

from oracle.core.lifecycle import ENDED, RESTING, State
from oracle.store.requests import OPEN, by_ids
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
from oracle.store.sql import fetch, is_one_of

_WAITS_FOR_NO_JOB: Final = ENDED | RESTING | {State.COMPUTED, State.REFUSED, State.SETTLING}
_HAS_LIVE_SETTLEMENT: Final = exists().where(
    settlements.c.request_id == requests.c.id,
    is_one_of(settlements.c.state, LIVE_SETTLEMENT),
    settlements.c.kind != SettlementKind.PURCHASE,
)
_IS_UNDER_WAY: Final = exists().where(
    settlements.c.request_id == requests.c.id,
    is_one_of(settlements.c.state, (*LIVE_SETTLEMENT, SettlementState.LANDED)),
    settlements.c.kind != SettlementKind.PURCHASE,
)
# Confirmed, and not yet final: to try again now would be refused.
_HAS_LANDED_CLOSE: Final = exists().where(
    settlements.c.request_id == requests.c.id,
    settlements.c.kind == SettlementKind.CLOSE,
    settlements.c.state == SettlementState.LANDED,
)
_CLOSABLE_AFTER: Final = requests.c.ended_slot + requests.c.retention_slots
_OURS: Final = requests.c.operator == bindparam("of")
_SLOT: Final = bindparam("slot_now", type_=BigInteger)
_MOST: Final = bindparam("most", type_=Integer)

_OVERDUE: Final = (
    select(requests)
    .where(_OURS, is_one_of(requests.c.state, OPEN), requests.c.deadline_slot < _SLOT, ~_HAS_LIVE_SETTLEMENT)
    .order_by(requests.c.deadline_slot)
    .limit(_MOST)
)
_CLOSABLE: Final = (
    select(requests)
    .where(
        _OURS,
        is_one_of(requests.c.state, ENDED),
        requests.c.end_finalized.is_(True),
        requests.c.closed.is_(False),
        _CLOSABLE_AFTER < _SLOT,
        ~_HAS_LIVE_SETTLEMENT,
        ~_HAS_LANDED_CLOSE,
    )
    .order_by(_CLOSABLE_AFTER)
    .limit(_MOST)
)
_UNFINALIZED: Final = (
    select(requests)
    .where(
        _OURS,
        is_one_of(requests.c.state, ENDED),
        requests.c.end_finalized.is_(False),
        requests.c.closed.is_(False),
        requests.c.ended_slot.is_not(None),
        ~_IS_UNDER_WAY,
    )
    .order_by(requests.c.ended_slot)
    .limit(_MOST)
)
_ORPHANS: Final = (
    select(attempts)
    .join(requests, requests.c.id == attempts.c.request_id)
    .where(_OURS, is_one_of(attempts.c.state, LIVE_ATTEMPT), is_one_of(requests.c.state, _WAITS_FOR_NO_JOB))
    .order_by(attempts.c.id)
    .limit(_MOST)
)


def overdue(conn: Connection, *, operator: str, slot: int, limit: int) -> list[RequestRow]:
    """Past their deadline at `slot`, open as far as is known, no intent under way; longest overdue first."""
    return [RequestRow(*row) for row in fetch(conn, _OVERDUE, {"of": operator, "slot_now": slot, "most": limit})]


def closable(conn: Connection, *, operator: str, slot: int, limit: int) -> list[RequestRow]:
    """Ended for good, their retention over at `slot`, and their account still there as far as is known; longest over
    first."""
    return [RequestRow(*row) for row in fetch(conn, _CLOSABLE, {"of": operator, "slot_now": slot, "most": limit})]


def unfinalized(conn: Connection, *, operator: str, limit: int) -> list[RequestRow]:
    """Ended at `confirmed`, which a fork may still undo, by no signature of ours that is followed to its fate: oldest
    end first."""
    return [RequestRow(*row) for row in fetch(conn, _UNFINALIZED, {"of": operator, "most": limit})]


def orphans(conn: Connection, *, operator: str, limit: int) -> list[tuple[RequestRow, AttemptRow]]:
    """Live attempts that nobody waits for, though somebody may be paying for them: their request has ended, or is
    answered, refused or at rest. So it is with what has lost a race, and with what was left when a step gave up."""
    found = [AttemptRow(*row) for row in fetch(conn, _ORPHANS, {"of": operator, "most": limit})]
    rows = by_ids(conn, {attempt.request_id for attempt in found})
    return [(rows[attempt.request_id], attempt) for attempt in found]
