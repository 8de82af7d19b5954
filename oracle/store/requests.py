"""Requests: seen once, taken under a lease, moved along by whoever holds it.

A new row may begin in the hands of whoever saw it. One that is held may be changed only with its fence, which grows at
every take and at every fact from the chain, so a worker that was stopped for an hour finds that its row has gone on
without it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Integer, Select, Update, and_, bindparam, case, func, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from oracle.core import lifecycle
from oracle.core.lifecycle import ENDED, State
from oracle.store import journal
from oracle.store.changes import Fact, Move, Postponement, Sighted
from oracle.store.errors import LEASE_LOST, ROW_MISSING
from oracle.store.rows import KnownRow as KnownRow
from oracle.store.rows import RequestRow as RequestRow
from oracle.store.schema import U64
from oracle.store.schema import requests as t
from oracle.store.sql import fetch, fetch_one, has_lapsed, insert_all_new, is_among, is_one_of, run_each, update_each

# Named one by one, for an index finds what is in a list and not what is absent from one.
OPEN: Final = frozenset(State) - ENDED

_RELEASED: Final[Mapping[str, Any]] = {"lease_owner": None, "lease_until_ms": None}
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
_BY_IDS: Final = select(t).where(is_among(t.c.id, "wanted_ids"))
_LATEST: Final = select(t).where(t.c.address == bindparam("wanted_address")).order_by(t.c.created_slot.desc()).limit(1)
_NEWEST_LIVES: Final = (
    select(t.c.address, func.max(t.c.created_slot))
    .where(is_among(t.c.address, "wanted_addresses"), t.c.closed.is_(False))
    .group_by(t.c.address)
)
_BY_ADDRESSES: Final = select(t).where(is_among(t.c.address, "wanted_addresses"), t.c.operator == bindparam("of"))
_KEYS: Final = select(t.c.address, t.c.created_slot).where(
    is_among(t.c.address, "wanted_addresses"), t.c.operator == bindparam("of")
)
_STATES_LOCKED: Final = select(t.c.id, t.c.state).where(is_among(t.c.id, "wanted_ids")).with_for_update()
_OPEN_COUNTS: Final = (
    select(t.c.requester, func.count())
    .where(is_among(t.c.requester, "wanted_requesters"), t.c.operator == bindparam("of"), is_one_of(t.c.state, OPEN))
    .group_by(t.c.requester)
)
_FACT: Final = update(t).where(t.c.id == bindparam("wanted_id"))
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


_SIGHTED: Final = tuple(name for name in Sighted._fields if name in t.c)
_SIGHTED_U64: Final = tuple(name for name in _SIGHTED if isinstance(t.c[name].type, U64))
_FIRST: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("fence", "route_index", "retries", "unconfirmed_purchases"), 0),
    **dict.fromkeys(("output_sha256", "job_hash", "completed_at", "reject_reason", "ended_slot")),
    **dict.fromkeys(("end_finalized", "closed"), False),
}
"""What a new row has where nothing is said: as the table's defaults, which a test compares."""


def see(conn: Connection, sighted: Sighted) -> bool:
    """Make sure that the operator has a row for the request; True where it is new.

    A known one learns the status and slot of a newer read, and becomes due where the status differs: its loop looks
    at the chain again.
    """
    return see_all(conn, [sighted])[0]


def see_all(conn: Connection, sightings: Sequence[Sighted]) -> list[bool]:
    """`see` for many, of which several may be of one request."""
    is_new = [row is not None for row in add_all(conn, sightings)]
    again = [
        {
            "seen_operator": sighted.operator,
            "seen_address": sighted.address,
            "seen_created_slot": sighted.created_slot,
            "seen_slot": sighted.chain_slot,
            "seen_status": sighted.chain_status,
            "seen_at": sighted.now_ms,
        }
        for sighted, new in zip(sightings, is_new, strict=True)
        if not new
    ]
    run_each(conn, _SEEN_AGAIN, again)
    return is_new


def add_all(conn: Connection, sightings: Sequence[Sighted]) -> list[RequestRow | None]:
    """The rows of those requests that had none, as they are written here; None for a request that has one, which
    stays as it is."""
    rows = [_first_row(sighted) for sighted in sightings]
    # In one order, whoever writes: two daemons that see the same ones would else wait for one another.
    ordered = sorted(rows, key=lambda row: (row["address"], row["created_slot"]))
    ids = insert_all_new(conn, t, ordered, t.c.operator, t.c.address, t.c.created_slot)
    new: list[RequestRow | None] = []
    for sighted, values in zip(sightings, rows, strict=True):
        request_id = ids.pop((values["operator"], values["address"], values["created_slot"]), None)
        new.append(None if request_id is None else RequestRow(id=request_id, **values, **_FIRST))
        if request_id is not None:
            _note_first(conn, request_id, sighted)
    return new


def unkept(sighted: Sighted) -> RequestRow:
    """The row that `add_all` would make, which nobody has written: its id is 0."""
    return RequestRow(id=0, **_first_row(sighted), **_FIRST)


def _note_first(conn: Connection, request_id: int, sighted: Sighted) -> None:
    """`code` and `detail` are those of the state that the row is in."""
    before: State | None = None
    slot: int | None
    now_ms, slot = sighted.now_ms, sighted.chain_slot
    for state in (*sighted.through, sighted.state):
        if before is not None:
            lifecycle.check(before, state)
            now_ms, slot = sighted.since or (now_ms, slot)
        is_last = state is sighted.state
        journal.note(
            conn,
            request_id,
            "seen" if before is None else state,
            now_ms=now_ms,
            slot=slot,
            old_state=before,
            new_state=state,
            code=sighted.code if is_last else None,
            detail=sighted.detail if is_last else None,
        )
        before = state


def _first_row(sighted: Sighted) -> dict[str, Any]:
    values = {field: getattr(sighted, field) for field in _SIGHTED}
    for name in _SIGHTED_U64:
        values[name] = U64.kept(values[name])
    since_ms, _ = sighted.since or (sighted.now_ms, None)
    return values | {
        "state_since_ms": since_ms,
        "wake_at_ms": since_ms,
        "seen_at_ms": sighted.now_ms,
        "error_code": sighted.code,
        "error_detail": None if sighted.code is None else _text(sighted.detail),
    }


def take(
    conn: Connection,
    states: Collection[State],
    *,
    operator: str,
    owner: str,
    now_ms: int,
    lease_ms: int,
    limit: int,
    in_turn: bool = False,
) -> list[RequestRow]:
    """Lease up to `limit` due rows of an operator key, earliest deadline first. Nobody else can take them until the
    lease lapses: no other daemon of the same key, and no daemon of another key ever.

    A row that its holder has put off and kept is due to that holder alone until then.

    `in_turn` takes those that are due longest: what is looked at again and again must not keep others from being
    looked at once.

    `lease_ms` must outlive the time-out of every call made under it.
    """
    values = {
        "of": operator,
        "owner": owner,
        "keeper": _keeper(owner),
        "at_ms": now_ms,
        "until_ms": now_ms + lease_ms,
        "most": limit,
    }
    taken = [RequestRow(*row) for row in fetch(conn, _take(frozenset(states), in_turn), values)]
    return sorted(taken, key=lambda row: (row.deadline_slot, row.id))


@cache
def _take(states: frozenset[State], in_turn: bool) -> ReturningUpdate[Any]:
    now_ms = bindparam("at_ms", type_=BigInteger)
    due = (
        select(t.c.id)
        .where(
            is_one_of(t.c.state, states),
            t.c.operator == bindparam("of"),
            t.c.wake_at_ms <= now_ms,
            or_(
                t.c.lease_until_ms.is_(None),
                has_lapsed(t.c.lease_until_ms, now_ms),
                t.c.lease_owner == bindparam("keeper"),
            ),
        )
        .order_by(t.c.wake_at_ms if in_turn else t.c.deadline_slot, t.c.id)
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
    return move_all(conn, [Move(row, new, now_ms, slot, event, code, detail, wake_at_ms, keep_lease, columns)])[0]


def move_all(conn: Connection, moves: Sequence[Move]) -> list[RequestRow]:
    """`move` for many rows. Raises as it does, where it would for one of them."""
    values, moved = [], []
    for this in moves:
        if this.through is not None:
            lifecycle.check(this.row.state, this.through)
        lifecycle.check(this.through or this.row.state, this.new)
        written: dict[str, Any] = {
            "state": this.new,
            "state_since_ms": this.now_ms,
            "retries": 0,
            **_last_error(this.code, this.detail),
            **({} if this.keep_lease else _RELEASED),
            **this.columns,
        }
        due_at_ms = this.now_ms if this.wake_at_ms is None else this.wake_at_ms
        values.append(_woken(this.row, written, now_ms=this.now_ms, due_at_ms=due_at_ms))
        moved.append(this.row._replace(wake_at_ms=due_at_ms, **written))
    _write_held(conn, _HELD_AND_WOKEN, [this.row for this in moves], values)
    for this in moves:
        if this.through is not None:
            passed = Fact(this.row.id, this.through, this.now_ms, this.slot, event=this.through)
            _note_move(conn, this.row.id, this.row.state, passed)
        _note_move(conn, this.row.id, this.through or this.row.state, this)
    return moved


def postpone(
    conn: Connection,
    row: RequestRow,
    *,
    now_ms: int,
    wake_at_ms: int,
    code: str | None = None,
    detail: Any = None,
    is_failure: bool = True,
    kept_until_ms: int | None = None,
    **columns: Any,
) -> None:
    """Leave a held row in its state until `wake_at_ms`, write `columns`, and release it; to everybody, unless
    `kept_until_ms` leaves it to its holder until then.

    `is_failure` adds to `retries`. The first failure with a code is journalled, its repetitions are not.

    Raises ORC-STORE-016 where the row is not held.
    """
    postpone_all(conn, [Postponement(row, now_ms, wake_at_ms, code, detail, is_failure, kept_until_ms, columns)])


def postpone_all(conn: Connection, postponements: Sequence[Postponement]) -> list[None]:
    """`postpone` for many rows. Raises as it does, where it would for one of them."""
    values = [_postponed(this) for this in postponements]
    _write_held(conn, _HELD_AND_WOKEN, [this.row for this in postponements], values)
    for this in postponements:
        row, code = this.row, this.code
        if code is not None and (code != row.error_code or row.retries == 0):
            journal.note(
                conn, row.id, "postponed", now_ms=this.now_ms, old_state=row.state, code=code, detail=this.detail
            )
    return [None] * len(postponements)


def postpone_held(conn: Connection, postponements: Sequence[Postponement]) -> int:
    """`postpone` without a word in the journal for those of the rows that are held still; how many they were."""
    values = [_postponed(this) for this in postponements]
    return update_each(conn, _HELD_AND_WOKEN, _held([this.row for this in postponements], values))


def release(conn: Connection, row: RequestRow) -> None:
    """Give a held row back, due as before. Raises ORC-STORE-016 where it is not held."""
    _write_held(conn, _HELD, [row], [_RELEASED])


def let_go(conn: Connection, owner: str) -> None:
    """Leave to everybody what `owner`, whose loops have ended, has kept for itself, or held before it has bought
    anything for it."""
    is_unbought = and_(t.c.lease_owner == owner, is_one_of(t.c.state, (State.SEEN, State.ADMITTED, State.CLAIMED)))
    conn.execute(update(t).where(or_(t.c.lease_owner == _keeper(owner), is_unbought)).values(_RELEASED))


def renew(conn: Connection, row: RequestRow, now_ms: int, lease_ms: int) -> RequestRow:
    """Hold a row for longer. Raises ORC-STORE-016 where it is not held."""
    _write_held(conn, _HELD, [row], [{"lease_until_ms": now_ms + lease_ms}])
    return row._replace(lease_until_ms=now_ms + lease_ms)


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
    fact = Fact(request_id, new, now_ms, slot, event, code, detail, wake_at_ms, columns)
    return by_id(conn, request_id) if force_all(conn, [fact])[0] else None


def force_all(conn: Connection, facts: Sequence[Fact]) -> list[bool]:
    """`force` for many facts, in their order; whether each was news to its row. Raises as it does."""
    # Locked as they are read: another daemon may be writing the same facts.
    wanted = {"wanted_ids": [fact.request_id for fact in facts]}
    states = dict(fetch(conn, _STATES_LOCKED, wanted)) if facts else {}
    news, values = [], []
    for fact in facts:
        old = states.get(fact.request_id)
        if old is None:
            raise ROW_MISSING(f"request {fact.request_id}")
        news.append(old != fact.new)
        if old == fact.new:
            continue
        lifecycle.check(old, fact.new)
        states[fact.request_id] = fact.new
        values.append(
            {
                "wanted_id": fact.request_id,
                "state": fact.new,
                "state_since_ms": fact.now_ms,
                "wake_at_ms": fact.now_ms if fact.wake_at_ms is None else fact.wake_at_ms,
                "retries": 0,
                **_last_error(fact.code, fact.detail),
                **_RELEASED,
                **fact.columns,
            }
        )
        _note_move(conn, fact.request_id, old, fact)
    update_each(conn, _FENCED_FACT, values)
    return news


def adopt(conn: Connection, operator: str) -> int:
    """Give an operator the rows of before rows had one; how many. They can only be those of the key that ran then."""
    return conn.execute(update(t).where(t.c.operator == "").values(operator=operator)).rowcount


def amend(conn: Connection, request_id: int, **columns: Any) -> RequestRow:
    """Write a fact beside the state, such as `closed`, without a lease and whoever holds the row."""
    amend_all(conn, {request_id: columns})
    row = by_id(conn, request_id)
    assert row is not None
    return row


def amend_all(conn: Connection, columns_by_id: Mapping[int, Mapping[str, Any]]) -> None:
    """`amend` for many rows."""
    for columns in columns_by_id.values():
        if protected := _GUARDED & columns.keys():
            names = ", ".join(sorted(protected))
            raise ValueError(f"{names}: only a move, a lease or a fact of the chain may change it")
    values = [{"wanted_id": request_id} | dict(columns) for request_id, columns in columns_by_id.items()]
    if update_each(conn, _FACT, values) != len(values):
        raise ROW_MISSING(f"request {', '.join(map(str, columns_by_id))}")


def count_attempts(conn: Connection, rows: Sequence[RequestRow]) -> None:
    """Add to the attempts of held rows, and keep them from being taken by another until this transaction ends.

    Raises ORC-STORE-016 where one is not held.
    """
    _write_held(conn, _HELD_AND_COUNTED, rows, [{}] * len(rows))


def get(conn: Connection, address: str, created_slot: int, operator: str) -> RequestRow | None:
    wanted = {"wanted_address": address, "wanted_slot": created_slot, "wanted_operator": operator}
    return _one(conn, _BY_KEY, wanted)


def of_addresses(conn: Connection, addresses: Collection[str], operator: str) -> dict[tuple[str, int], RequestRow]:
    """Every request of these addresses that an operator knows, by address and created slot."""
    found = fetch(conn, _BY_ADDRESSES, {"wanted_addresses": addresses, "of": operator})
    return {(row.address, row.created_slot): row for row in map(RequestRow._make, found)}


def known_among(conn: Connection, addresses: Collection[str], operator: str) -> set[tuple[str, int]]:
    """Address and created slot of every request of these addresses that an operator knows."""
    return {tuple(key) for key in fetch(conn, _KEYS, {"wanted_addresses": addresses, "of": operator})}


def latest(conn: Connection, address: str) -> RequestRow | None:
    """The newest request of an address, which may have been used before."""
    return _one(conn, _LATEST, {"wanted_address": address})


def by_id(conn: Connection, request_id: int) -> RequestRow | None:
    return _one(conn, _BY_ID, {"wanted_id": request_id})


def by_ids(conn: Connection, request_ids: Collection[int]) -> dict[int, RequestRow]:
    """Those that exist, by id."""
    found = fetch(conn, _BY_IDS, {"wanted_ids": request_ids}) if request_ids else ()
    return {row.id: row for row in map(RequestRow._make, found)}


def newest_lives(conn: Connection, rows: Collection[RequestRow]) -> dict[str, int]:
    """The newest slot of creation of what may live at each row's address, made anew after a close or a fork."""
    return dict(fetch(conn, _NEWEST_LIVES, {"wanted_addresses": {row.address for row in rows}}))


def listing(
    conn: Connection,
    *,
    states: Collection[State] | None = None,
    queue: str | None = None,
    requester: str | None = None,
    limit: int = 100,
    before_id: int | None = None,
) -> list[RequestRow]:
    """Last seen first; `before_id` is the last id of the page before."""
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


def open_counts_of(conn: Connection, requesters: Collection[str], operator: str) -> dict[str, int]:
    """How many requests of each requester have not ended, as an operator knows them."""
    found = dict(fetch(conn, _OPEN_COUNTS, {"wanted_requesters": requesters, "of": operator}))
    return {requester: found.get(requester, 0) for requester in requesters}


def next_wake_ms(conn: Connection, states: Collection[State], operator: str, owner: str = "") -> int | None:
    """When `owner` can take the next row of these states, in the past where it can now; None where there is none."""
    values = {"of": operator, "keeper": _keeper(owner)}
    wake_ms: int | None
    ((wake_ms,),) = fetch(conn, _next_wake(frozenset(states)), values)
    return wake_ms


def _keeper(owner: str) -> str:
    """Who holds a row that `owner` keeps and does not work on: a lease of its own, which only `owner` may take over."""
    return f"{owner} keeps"


@cache
def _next_wake(states: frozenset[State]) -> Select[Any]:
    is_held = and_(t.c.lease_until_ms > t.c.wake_at_ms, t.c.lease_owner != bindparam("keeper"))
    free_at = case((is_held, t.c.lease_until_ms), else_=t.c.wake_at_ms)
    return select(func.min(free_at)).where(is_one_of(t.c.state, states), t.c.operator == bindparam("of"))


def _one(conn: Connection, query: Select[Any], wanted: Mapping[str, Any]) -> RequestRow | None:
    row = fetch_one(conn, query, wanted)
    return None if row is None else RequestRow(*row)


def _woken(row: RequestRow, columns: dict[str, Any], *, now_ms: int, due_at_ms: int) -> dict[str, Any]:
    return {"held_chain_status": row.chain_status, "moved_at_ms": now_ms, "due_at_ms": due_at_ms, **columns}


def _write_held(
    conn: Connection, statement: Update, rows: Sequence[RequestRow], values: Sequence[Mapping[str, Any]]
) -> None:
    """Write each row's values. Where one of several is held no more, nobody says which: the group is split then."""
    if update_each(conn, statement, _held(rows, values)) != len(rows):
        raise LEASE_LOST(", ".join(f"request {row.key}, fence {row.fence}" for row in rows[:3]))


def _held(rows: Sequence[RequestRow], values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    held = []
    for row, written in zip(rows, values, strict=True):
        if row.lease_owner is None:
            raise LEASE_LOST(f"request {row.key} was not taken")
        ours = {"held_id": row.id, "held_fence": row.fence, "held_by": row.lease_owner, "held_state": row.state}
        held.append({**ours, **written})
    return held


def _postponed(this: Postponement) -> dict[str, Any]:
    retries = this.row.retries + (1 if this.is_failure else 0)
    left: Mapping[str, Any] = _RELEASED
    if this.kept_until_ms is not None and this.row.lease_owner is not None:
        left = {"lease_owner": _keeper(this.row.lease_owner), "lease_until_ms": this.kept_until_ms}
    written = {"retries": retries, **_last_error(this.code, this.detail), **left, **this.columns}
    return _woken(this.row, written, now_ms=this.now_ms, due_at_ms=this.wake_at_ms)


def _last_error(code: str | None, detail: Any) -> dict[str, Any]:
    return {} if code is None else {"error_code": code, "error_detail": _text(detail)}


def _note_move(conn: Connection, request_id: int, old: State, this: Move | Fact) -> None:
    journal.note(
        conn,
        request_id,
        this.event or this.new,
        now_ms=this.now_ms,
        slot=this.slot,
        old_state=old,
        new_state=this.new,
        code=this.code,
        detail=this.detail,
    )


def _text(detail: Any) -> str | None:
    return detail if detail is None or isinstance(detail, str) else json.dumps(detail, sort_keys=True)
