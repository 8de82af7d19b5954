"""Recordings: answers that the gateway has given and puts on chain, each under the address of its request.

The address follows from requester, nonce and body, so the answer is here before the request can be. A transaction that
makes the request is written down before it is sent, and no second one while it may land: a request that was closed
could be made a second time, and would be paid for a second time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, select, update

from oracle.core.lifecycle import ENDED, State
from oracle.core.settlement import DEAD
from oracle.store.errors import LEASE_LOST
from oracle.store.rows import InputRow
from oracle.store.rows import RecordingRow as RecordingRow
from oracle.store.schema import RecordingState
from oracle.store.schema import inputs as i
from oracle.store.schema import recordings as t
from oracle.store.schema import requests as r
from oracle.store.schema import signatures as s
from oracle.store.sql import fetch, fetch_one, insert_new, is_among

DONE = (RecordingState.ENDED, RecordingState.FAILED)

_BY_ADDRESS: Final = select(t).where(t.c.address == bindparam("wanted_address"))
_BY_ADDRESSES: Final = select(t).where(is_among(t.c.address, "wanted"))


def put(
    conn: Connection,
    address: str,
    *,
    call_id: str,
    queue: str,
    requester: str,
    nonce: int,
    body: bytes,
    input_sha256: str | None,
    fee_lamports: int,
    ttl_slots: int,
    output: bytes,
    media_type: str,
    finish_reason: str,
    model_run: str,
    provider: str,
    provider_job_id: str,
    submitted_at: int,
    completed_at: int,
    now_ms: int,
) -> bool:
    """Keep an answer under the address of its request. False, and nothing changed, where one is there already."""
    new = insert_new(
        conn,
        t,
        address=address,
        call_id=call_id,
        queue=queue,
        requester=requester,
        nonce=nonce,
        body=body,
        input_sha256=input_sha256,
        fee_lamports=fee_lamports,
        ttl_slots=ttl_slots,
        output=output,
        media_type=media_type,
        finish_reason=finish_reason,
        model_run=model_run,
        provider=provider,
        provider_job_id=provider_job_id,
        submitted_at=submitted_at,
        completed_at=completed_at,
        state=RecordingState.WAITING,
        refusals=0,
        created_at_ms=now_ms,
        wake_at_ms=now_ms,
    )
    return new is not None


def find(conn: Connection, address: str) -> RecordingRow | None:
    row = fetch_one(conn, _BY_ADDRESS, {"wanted_address": address})
    return None if row is None else RecordingRow(*row)


def find_all(conn: Connection, addresses: Collection[str]) -> dict[str, RecordingRow]:
    """Those of the addresses that an answer is kept under."""
    return {row.address: row for row in map(RecordingRow._make, fetch(conn, _BY_ADDRESSES, {"wanted": addresses}))}


def has(conn: Connection, address: str) -> bool:
    return conn.execute(select(exists().where(t.c.address == address))).scalar_one()


def servable_input(conn: Connection, sha256: str) -> InputRow | None:
    """A prompt that some request on chain names by this hash, and that is ours to serve; None for any other."""
    named = exists().where(t.c.input_sha256 == sha256, t.c.address == r.c.address)
    row = conn.execute(select(i).where(i.c.sha256 == sha256, named)).one_or_none()
    return None if row is None else InputRow(*row)


def due(conn: Connection, state: RecordingState, requester: str, now_ms: int, limit: int) -> list[RecordingRow]:
    """Recordings of a key in this state that are due, oldest first."""
    query = select(t).where(t.c.state == state, t.c.requester == requester, t.c.wake_at_ms <= now_ms)
    return [RecordingRow(*row) for row in conn.execute(query.order_by(t.c.created_at_ms).limit(limit))]


def over(conn: Connection, requester: str, limit: int) -> list[tuple[RecordingRow, State]]:
    """Landed recordings of a key whose newest request has ended for good, and how."""
    lives = r.alias()
    newest = select(func.max(lives.c.created_slot)).where(lives.c.address == t.c.address).scalar_subquery()
    query = (
        select(t, r.c.state)
        .where(
            r.c.address == t.c.address,
            r.c.created_slot == newest,
            t.c.state == RecordingState.LANDED,
            t.c.requester == requester,
            r.c.state.in_(ENDED),
            r.c.end_finalized.is_(True),
        )
        .limit(limit)
    )
    return [(RecordingRow(*row[:-1]), row[-1]) for row in conn.execute(query)]


def signed(conn: Connection, row: RecordingRow, signature_id: int, *, now_ms: int) -> RecordingRow:
    """A transaction was signed, and its bytes are kept: they may be sent once this is durable.

    Raises ORC-STORE-016 where another has signed meanwhile, or the signature before it is not dead.
    """
    dead = exists().where(s.c.id == t.c.signature_id, s.c.state.in_(DEAD))
    free = () if row.signature_id is None else (dead,)
    values = {"state": RecordingState.SENT, "signature_id": signature_id, "wake_at_ms": now_ms, "refusals": 0}
    return _move(conn, row, *free, **values)


def move(
    conn: Connection,
    row: RecordingRow,
    state: RecordingState,
    *,
    now_ms: int,
    code: str | None = None,
    detail: str | None = None,
) -> RecordingRow:
    """Raises ORC-STORE-016 where it is no longer as `row` says."""
    return _move(conn, row, state=state, wake_at_ms=now_ms, **_last_error(code, detail))


def postpone(
    conn: Connection,
    row: RecordingRow,
    *,
    wake_at_ms: int,
    code: str | None = None,
    detail: str | None = None,
    count: bool = False,
) -> RecordingRow:
    """Do not look at it before then; `count` adds to the refusals. Raises ORC-STORE-016 as `move` does."""
    refusals = t.c.refusals + (1 if count else 0)
    return _move(conn, row, wake_at_ms=wake_at_ms, refusals=refusals, **_last_error(code, detail))


def counts(conn: Connection) -> dict[RecordingState, int]:
    """How many there are in each state; every state is there."""
    found = {row.state: row.n for row in conn.execute(select(t.c.state, func.count().label("n")).group_by(t.c.state))}
    return {state: found.get(state, 0) for state in RecordingState}


def prune(conn: Connection, older_than_ms: int) -> int:
    """Delete those that are done and were made before then; how many."""
    return conn.execute(delete(t).where(t.c.state.in_(DONE), t.c.created_at_ms < older_than_ms)).rowcount


def _last_error(code: str | None, detail: str | None) -> dict[str, Any]:
    return {} if code is None else {"error_code": code, "error_detail": detail}


def _move(conn: Connection, row: RecordingRow, *conditions: ColumnElement[bool], **values: Any) -> RecordingRow:
    as_it_was = (
        t.c.address == row.address,
        t.c.state == row.state,
        t.c.signature_id.is_not_distinct_from(row.signature_id),
    )
    written = conn.execute(update(t).where(*as_it_was, *conditions).values(**values).returning(t)).one_or_none()
    if written is None:
        raise LEASE_LOST(f"recording {row.address}, {row.state}")
    return RecordingRow(*written)
