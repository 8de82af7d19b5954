"""Requests: seen once, taken under a lease, moved along by whoever holds it.

A row that was taken may be changed only with the fence it was taken with. The fence grows at every take and at every
fact from the chain, so a worker that was stopped for an hour finds that its row has gone on without it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Integer, Select, Update, bindparam, case, func, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from oracle.core import lifecycle
from oracle.core.lifecycle import ENDED, State
from oracle.store import journal
from oracle.store.errors import LEASE_LOST, ROW_MISSING
from oracle.store.rows import KnownRow as KnownRow
from oracle.store.rows import RequestRow as RequestRow
from oracle.store.schema import requests as t
from oracle.store.sql import insert_new, is_one_of

# Named one by one, for an index finds what is in a list and not what is absent from one.
OPEN: Final = frozenset(State) - ENDED

_RELEASED: Final = {"lease_owner": None, "lease_until_ms": None}
_GUARDED: Final = frozenset(
    {"id", "operator", "address", "created_slot", "state", "lease_owner", "lease_until_ms", "fence"}
)

# Built once: to build a statement takes SQLAlchemy several times as long as SQLite takes to run it.
_BY_ID: Final = select(t).where(t.c.id == bindparam("wanted_id"))
_BY_KEY: Final = select(t).where(
    t.c.address == bindparam("wanted_address"),
    t.c.created_slot == bindparam("wanted_slot"),
    t.c.operator == bindparam("wanted_operator"),
)
_STATE_LOCKED: Final = select(t.c.state).where(t.c.id == bindparam("wanted_id")).with_for_update()
_FACT: Final = update(t).where(t.c.id == bindparam("wanted_id")).returning(t)
_FENCED_FACT: Final = _FACT.values(fence=t.c.fence + 1)
_HELD: Final = update(t).where(
    t.c.id == bindparam("held_id"),
    t.c.fence == bindparam("held_fence"),
    t.c.lease_owner == bindparam("held_by"),
    t.c.state == bindparam("held_state"),
)
_HELD_AND_COUNTED: Final = _HELD.values(attempts_made=t.c.attempts_made + 1)
_HELD_AND_WOKEN: Final = _HELD.values(
    # If the status has changed while the row was held, its holder decided on the old one, and the wake-up of `see`
    # would be lost without a trace.
    wake_at_ms=case(
        (t.c.chain_status != bindparam("held_chain_status"), bindparam("moved_at_ms", type_=BigInteger)),
        else_=bindparam("due_at_ms", type_=BigInteger),
    )
)
_SEEN_AGAIN: Final = (
    update(t)
    .where(
        t.c.address == bindparam("seen_address"),
        t.c.created_slot == bindparam("seen_created_slot"),
        t.c.operator == bindparam("seen_operator"),
        t.c.chain_slot < bindparam("seen_slot"),
    )
    .values(
        chain_slot=bindparam("seen_slot"),
        chain_status=bindparam("seen_status"),
        wake_at_ms=case(
            (t.c.chain_status != bindparam("seen_status"), bindparam("seen_at", type_=BigInteger)),
            else_=t.c.wake_at_ms,
        ),
    )
)


def see(
    conn: Connection,
    *,
    operator: str,
    address: str,
    created_slot: int,
    queue: str,
    requester: str,
    refund_to: str,
    model: str,
    fee_lamports: int,
    deadline_slot: int,
    claim_required: bool,
    retention_slots: int,
    account: bytes,
    chain_status: int,
    chain_slot: int,
    now_ms: int,
    seen_by: str,
    state: State = State.SEEN,
    code: str | None = None,
    detail: Any = None,
) -> bool:
    """Make sure that the operator has a row for the request; True where it is new.

    A known one learns the status and slot of a newer read, and becomes due where the status differs: its loop looks
    at the chain again.
    """
    request_id = insert_new(
        conn,
        t,
        operator=operator,
        address=address,
        created_slot=created_slot,
        queue=queue,
        requester=requester,
        refund_to=refund_to,
        model=model,
        fee_lamports=fee_lamports,
        deadline_slot=deadline_slot,
        claim_required=claim_required,
        retention_slots=retention_slots,
        account=account,
        state=state,
        state_since_ms=now_ms,
        wake_at_ms=now_ms,
        error_code=code,
        error_detail=_text(detail),
        chain_status=chain_status,
        chain_slot=chain_slot,
        seen_at_ms=now_ms,
        seen_by=seen_by,
    )
    if request_id is not None:
        journal.note(
            conn, request_id, "seen", now_ms=now_ms, slot=chain_slot, new_state=state, code=code, detail=detail
        )
        return True
    again = {"seen_address": address, "seen_created_slot": created_slot, "seen_operator": operator}
    conn.execute(_SEEN_AGAIN, again | {"seen_slot": chain_slot, "seen_status": chain_status, "seen_at": now_ms})
    return False


def take(
    conn: Connection, states: Collection[State], *, operator: str, owner: str, now_ms: int, lease_ms: int, limit: int
) -> list[RequestRow]:
    """Lease up to `limit` due rows of an operator key, earliest deadline first. Nobody else can take them until the
    lease lapses: no other daemon of the same key, and no daemon of another key ever.

    `lease_ms` must outlive the time-out of every call made under it.
    """
    values = {"of": operator, "owner": owner, "at_ms": now_ms, "until_ms": now_ms + lease_ms, "most": limit}
    taken = [RequestRow(*row) for row in conn.execute(_take(frozenset(states)), values)]
    return sorted(taken, key=lambda row: (row.deadline_slot, row.id))


@cache
def _take(states: frozenset[State]) -> ReturningUpdate[Any]:
    now_ms = bindparam("at_ms", type_=BigInteger)
    due = (
        select(t.c.id)
        .where(
            is_one_of(t.c.state, states),
            t.c.operator == bindparam("of"),
            t.c.wake_at_ms <= now_ms,
            or_(t.c.lease_owner.is_(None), t.c.lease_until_ms <= now_ms),
        )
        .order_by(t.c.deadline_slot, t.c.id)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
        # A planner may run a subquery again for each row, and so lock more than `limit`; a CTE runs once.
        .cte("due")
    )
    return (
        update(t)
        .where(t.c.id.in_(select(due.c.id)))
        .values(
            lease_owner=bindparam("owner"),
            lease_until_ms=bindparam("until_ms", type_=BigInteger),
            fence=t.c.fence + 1,
        )
        .returning(t)
    )


def move(
    conn: Connection,
    row: RequestRow,
    new: State,
    *,
    now_ms: int,
    slot: int | None = None,
    event: str | None = None,
    code: str | None = None,
    detail: Any = None,
    wake_at_ms: int | None = None,
    keep_lease: bool = False,
    **columns: Any,
) -> RequestRow:
    """Put a held row into its next state, write `columns`, and release it; due at once unless `wake_at_ms` says later.

    With `keep_lease` it stays held, and the row that is returned, with what was written here, is the one to go on with.

    Raises ORC-CORE-001 where the lifecycle does not connect the states, ORC-STORE-016 where the row is not held.
    """
    lifecycle.check(row.state, new)
    written: dict[str, Any] = {
        "state": new,
        "state_since_ms": now_ms,
        "retries": 0,
        **_last_error(code, detail),
        **({} if keep_lease else _RELEASED),
        **columns,
    }
    due_at_ms = now_ms if wake_at_ms is None else wake_at_ms
    _write_and_wake(conn, row, written, now_ms=now_ms, due_at_ms=due_at_ms)
    _note_move(conn, row.id, row.state, new, now_ms=now_ms, slot=slot, event=event, code=code, detail=detail)
    return replace(row, wake_at_ms=due_at_ms, **written)


def postpone(
    conn: Connection,
    row: RequestRow,
    *,
    now_ms: int,
    wake_at_ms: int,
    code: str | None = None,
    detail: Any = None,
    count: bool = True,
    **columns: Any,
) -> None:
    """Leave a held row in its state until `wake_at_ms`, write `columns`, and release it.

    `count` adds to `retries`. The first failure with a code is journalled, its repetitions are not.

    Raises ORC-STORE-016 where the row is not held.
    """
    retries = row.retries + (1 if count else 0)
    written = {"retries": retries, **_last_error(code, detail), **_RELEASED, **columns}
    _write_and_wake(conn, row, written, now_ms=now_ms, due_at_ms=wake_at_ms)
    if code is not None and (code != row.error_code or row.retries == 0):
        journal.note(conn, row.id, "postponed", now_ms=now_ms, old_state=row.state, code=code, detail=detail)


def release(conn: Connection, row: RequestRow) -> None:
    """Give a held row back, due as before. Raises ORC-STORE-016 where it is not held."""
    _write(conn, _HELD, row, **_RELEASED)


def renew(conn: Connection, row: RequestRow, now_ms: int, lease_ms: int) -> RequestRow:
    """Hold a row for longer. Raises ORC-STORE-016 where it is not held."""
    _write(conn, _HELD, row, lease_until_ms=now_ms + lease_ms)
    return replace(row, lease_until_ms=now_ms + lease_ms)


def force(
    conn: Connection,
    request_id: int,
    new: State,
    *,
    now_ms: int,
    slot: int | None,
    event: str,
    code: str | None = None,
    detail: Any = None,
    wake_at_ms: int | None = None,
    **columns: Any,
) -> RequestRow | None:
    """Write a fact from the chain, whoever holds the row: its holder loses it. None where the row is there already.

    Raises ORC-CORE-001 where the lifecycle does not connect the states.
    """
    # Locked as it is read: another daemon may be writing the same fact.
    old = conn.execute(_STATE_LOCKED, {"wanted_id": request_id}).scalar()
    if old is None:
        raise ROW_MISSING(f"request {request_id}")
    if old == new:
        return None
    lifecycle.check(old, new)
    values = {
        "state": new,
        "state_since_ms": now_ms,
        "wake_at_ms": now_ms if wake_at_ms is None else wake_at_ms,
        "retries": 0,
        **_last_error(code, detail),
        **_RELEASED,
        **columns,
    }
    row = conn.execute(_FENCED_FACT, {"wanted_id": request_id} | values).one()
    _note_move(conn, request_id, old, new, now_ms=now_ms, slot=slot, event=event, code=code, detail=detail)
    return RequestRow(*row)


def adopt(conn: Connection, operator: str) -> int:
    """Give an operator the rows of before rows had one; how many. They can only be those of the key that ran then."""
    return conn.execute(update(t).where(t.c.operator == "").values(operator=operator)).rowcount


def amend(conn: Connection, request_id: int, **columns: Any) -> RequestRow:
    """Write a fact beside the state, such as `closed`, without a lease and whoever holds the row."""
    if protected := _GUARDED & columns.keys():
        raise ValueError(f"{', '.join(sorted(protected))}: only a move, a lease or a fact of the chain may change it")
    row = conn.execute(_FACT, {"wanted_id": request_id} | columns).one_or_none()
    if row is None:
        raise ROW_MISSING(f"request {request_id}")
    return RequestRow(*row)


def count_attempt(conn: Connection, row: RequestRow) -> None:
    """Add to the attempts of a held row, and keep it from being taken by another until this transaction ends.

    Raises ORC-STORE-016 where it is not held.
    """
    _write(conn, _HELD_AND_COUNTED, row)


def get(conn: Connection, address: str, created_slot: int, operator: str) -> RequestRow | None:
    return _one(conn, _BY_KEY, wanted_address=address, wanted_slot=created_slot, wanted_operator=operator)


def latest(conn: Connection, address: str) -> RequestRow | None:
    """The newest request of an address, which may have been used before."""
    return _one(conn, select(t).where(t.c.address == address).order_by(t.c.created_slot.desc()).limit(1))


def by_id(conn: Connection, request_id: int) -> RequestRow | None:
    return _one(conn, _BY_ID, wanted_id=request_id)


def by_ids(conn: Connection, request_ids: Collection[int]) -> dict[int, RequestRow]:
    """Those that exist, by id."""
    return {row.id: RequestRow(*row) for row in conn.execute(select(t).where(t.c.id.in_(request_ids)))}


def newest_lives(conn: Connection, rows: Collection[RequestRow]) -> dict[str, int]:
    """The newest slot of creation of what may live at each row's address, made anew after a close or a fork."""
    query = select(t.c.address, func.max(t.c.created_slot).label("slot")).where(
        t.c.address.in_({row.address for row in rows}), t.c.closed.is_(False)
    )
    return {row.address: row.slot for row in conn.execute(query.group_by(t.c.address))}


def listing(
    conn: Connection,
    *,
    states: Collection[State] | None = None,
    queue: str | None = None,
    requester: str | None = None,
    limit: int = 100,
    before_id: int | None = None,
) -> list[RequestRow]:
    """Newest first; `before_id` is the last id of the page before."""
    query = select(t).order_by(t.c.id.desc()).limit(limit)
    if states is not None:
        query = query.where(t.c.state.in_(states))
    if queue is not None:
        query = query.where(t.c.queue == queue)
    if requester is not None:
        query = query.where(t.c.requester == requester)
    if before_id is not None:
        query = query.where(t.c.id < before_id)
    return [RequestRow(*row) for row in conn.execute(query)]


def not_closed(
    conn: Connection,
    queues: Collection[str],
    *,
    ended: bool | None = None,
    limit: int | None = None,
    after_id: int = 0,
) -> list[RequestRow]:
    """Rows whose account may still exist, oldest first; `ended` keeps only those that are, or only the others."""
    query = (
        select(t).where(t.c.queue.in_(queues), t.c.closed.is_(False), t.c.id > after_id).order_by(t.c.id).limit(limit)
    )
    if ended is not None:
        query = query.where(t.c.state.in_(ENDED if ended else OPEN))
    return [RequestRow(*row) for row in conn.execute(query)]


def known(conn: Connection, queues: Collection[str], operator: str) -> list[KnownRow]:
    """The rows of an operator as `not_closed`, with no more of each than a scan compares with the chain."""
    query = select(t.c.address, t.c.created_slot, t.c.chain_status, t.c.chain_slot)
    query = query.where(t.c.queue.in_(queues), t.c.closed.is_(False), t.c.operator == operator)
    return [KnownRow(*row) for row in conn.execute(query)]


def wake(conn: Connection, states: Collection[State], code: str, now_ms: int) -> None:
    """Make due now what waits in these states because of an error with this code."""
    waiting = is_one_of(t.c.state, states) & (t.c.error_code == code) & (t.c.wake_at_ms > now_ms)
    conn.execute(update(t).where(waiting).values(wake_at_ms=now_ms))


def counts(conn: Connection) -> dict[State, int]:
    """How many rows are in each state; every state is there."""
    found = {row.state: row.n for row in conn.execute(select(t.c.state, func.count().label("n")).group_by(t.c.state))}
    return {state: found.get(state, 0) for state in State}


def open_count_of(conn: Connection, requester: str, operator: str) -> int:
    """How many requests of a requester have not ended, as an operator knows them."""
    of_both = t.c.requester == requester, t.c.operator == operator
    return conn.execute(select(func.count()).where(*of_both, t.c.state.in_(OPEN))).scalar_one()


def next_wake_ms(conn: Connection, states: Collection[State], operator: str) -> int | None:
    """When the next row of these states can be taken, in the past where one can be now; None where there is none."""
    wake_ms: int | None = conn.execute(_next_wake(frozenset(states)), {"of": operator}).scalar_one()
    return wake_ms


@cache
def _next_wake(states: frozenset[State]) -> Select[Any]:
    free_at = case((t.c.lease_until_ms > t.c.wake_at_ms, t.c.lease_until_ms), else_=t.c.wake_at_ms)
    return select(func.min(free_at)).where(is_one_of(t.c.state, states), t.c.operator == bindparam("of"))


def _one(conn: Connection, query: Select[Any], **wanted: Any) -> RequestRow | None:
    row = conn.execute(query, wanted).one_or_none()
    return None if row is None else RequestRow(*row)


def _write_and_wake(conn: Connection, row: RequestRow, columns: dict[str, Any], *, now_ms: int, due_at_ms: int) -> None:
    seen = {"held_chain_status": row.chain_status, "moved_at_ms": now_ms, "due_at_ms": due_at_ms}
    _write(conn, _HELD_AND_WOKEN, row, **seen, **columns)


def _write(conn: Connection, statement: Update, row: RequestRow, **values: Any) -> None:
    if row.lease_owner is None:
        raise LEASE_LOST(f"request {row.key} was not taken")
    held = {"held_id": row.id, "held_fence": row.fence, "held_by": row.lease_owner, "held_state": row.state}
    if conn.execute(statement, held | values).rowcount != 1:
        raise LEASE_LOST(f"request {row.key}, fence {row.fence}")


def _last_error(code: str | None, detail: Any) -> dict[str, Any]:
    return {} if code is None else {"error_code": code, "error_detail": _text(detail)}


def _note_move(
    conn: Connection,
    request_id: int,
    old: State,
    new: State,
    *,
    now_ms: int,
    slot: int | None,
    event: str | None,
    code: str | None,
    detail: Any,
) -> None:
    journal.note(
        conn,
        request_id,
        event or new,
        now_ms=now_ms,
        slot=slot,
        old_state=old,
        new_state=new,
        code=code,
        detail=detail,
    )


def _text(detail: Any) -> str | None:
    return detail if detail is None or isinstance(detail, str) else json.dumps(detail, sort_keys=True)
