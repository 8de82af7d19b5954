"""Attempts: one row for each provider job, written before it is bought, with its cost in the ledger.

`intend` is a decision and `unknown` a judgement: both need the request's lease. What is learned about a job that was
bought is a fact, and is written whoever holds the request now: a job id that nobody recorded is money that nobody can
find again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Text, Update, bindparam, case, func, select, update

from oracle.core.lifecycle import State
from oracle.store import ledger as booking
from oracle.store import requests
from oracle.store.changes import Finish, Postponement, Purchase, Started
from oracle.store.errors import ATTEMPT_EXISTS, ROW_MISSING
from oracle.store.rows import AttemptRow as AttemptRow
from oracle.store.rows import RequestRow
from oracle.store.schema import LIVE_ATTEMPT, AttemptState, LedgerKind, ledger
from oracle.store.schema import attempts as t
from oracle.store.schema import requests as request_table
from oracle.store.sql import fetch, fetch_one, insert_all_new, is_among, is_one_of, update_each

# Built once: to build a statement takes SQLAlchemy several times as long as SQLite takes to run it.
_BY_ID: Final = select(t).where(t.c.id == bindparam("wanted_id"))
_OF: Final = select(t).where(t.c.request_id == bindparam("of_request")).order_by(t.c.id)
_STATES: Final = select(t.c.id, t.c.state).where(is_among(t.c.id, "wanted_ids"))
_LIVE: Final = (
    select(t).where(is_among(t.c.request_id, "wanted_ids"), is_one_of(t.c.state, LIVE_ATTEMPT)).order_by(t.c.lane)
)
_FACT: Final = update(t).where(t.c.id == bindparam("wanted_id"))
_WAS_LIVE: Final = is_one_of(t.c.state, LIVE_ATTEMPT)
_STARTED: Final = _FACT.values(
    state=case((_WAS_LIVE, AttemptState.RUNNING), else_=t.c.state),
    started_at_ms=func.coalesce(
        bindparam("anew_at_ms", type_=BigInteger), t.c.started_at_ms, bindparam("at_ms", type_=BigInteger)
    ),
)
_UNKNOWN: Final = _FACT.values(
    state=case((_WAS_LIVE, AttemptState.UNKNOWN), else_=t.c.state),
    error_code=func.coalesce(bindparam("code", type_=Text), t.c.error_code),
    error_detail=func.coalesce(bindparam("detail", type_=Text), t.c.error_detail),
)
_FINISHED: Final = _FACT.values(
    state=case((_WAS_LIVE, bindparam("end", type_=t.c.state.type)), else_=t.c.state),
    ended_at_ms=case((_WAS_LIVE, bindparam("at_ms", type_=BigInteger)), else_=t.c.ended_at_ms),
    error_code=case((_WAS_LIVE, bindparam("code", type_=Text)), else_=t.c.error_code),
    error_detail=case((_WAS_LIVE, bindparam("detail", type_=Text)), else_=t.c.error_detail),
    cost_lamports=func.coalesce(bindparam("cost", type_=t.c.cost_lamports.type), t.c.cost_lamports),
)


_NOT_YET: Final[Mapping[str, Any]] = dict.fromkeys(
    ("job_id", "job_detail", "cost_lamports", "error_code", "error_detail", "started_at_ms", "ended_at_ms")
)


def intend(
    conn: Connection,
    row: RequestRow,
    *,
    lane: int,
    provider: str,
    model: str,
    idempotency_key: str,
    quoted_lamports: int,
    now_ms: int,
    number: int | None = None,
) -> AttemptRow:
    """Write down that a job is about to be bought for a held request; its quote counts as spent from here on.

    `number` is the one that the idempotency key was derived from, by default `next_number`. Adds to `attempts_made`.

    Raises ORC-STORE-016 where the request is not held, ORC-STORE-017 where the lane has a live attempt, or the number
    or the key was used before: nothing may be bought then.
    """
    requests.count_attempts(conn, [row])
    if number is None:
        number = next_number(conn, row.id, lane)
    purchase = Purchase(row, lane, provider, model, idempotency_key, quoted_lamports, now_ms, number)
    return intend_all(conn, [purchase])[0]


def intend_all(conn: Connection, purchases: Sequence[Purchase]) -> list[AttemptRow]:
    """`intend` for many requests, which the transaction has found to be held, and whose attempts it has counted.
    Raises ORC-STORE-017 where `intend` would for one of them."""
    values: list[dict[str, Any]] = [
        {
            "request_id": this.row.id,
            "lane": this.lane,
            "number": this.number,
            "provider": this.provider,
            "model": this.model,
            "idempotency_key": this.idempotency_key,
            "state": AttemptState.INTENDED,
            "quoted_lamports": this.quoted_lamports,
            "intended_at_ms": this.now_ms,
            "wake_at_ms": this.now_ms,
        }
        for this in purchases
    ]
    ids = insert_all_new(conn, t, values, t.c.idempotency_key)
    intended = []
    for this, written in zip(purchases, values, strict=True):
        attempt_id = ids.get(this.idempotency_key)
        if attempt_id is None:
            raise ATTEMPT_EXISTS(f"request {this.row.key}, lane {this.lane}")
        booking.book(
            conn,
            LedgerKind.JOB,
            -this.quoted_lamports,
            now_ms=this.now_ms,
            request_id=this.row.id,
            attempt_id=attempt_id,
            provider=this.provider,
            requester=this.row.requester,
        )
        intended.append(AttemptRow(id=attempt_id, **_NOT_YET, **written))
    return intended


def next_number(conn: Connection, request_id: int, lane: int) -> int:
    """The number of the next attempt of a lane, from 1."""
    last = conn.execute(select(func.max(t.c.number)).where(t.c.request_id == request_id, t.c.lane == lane)).scalar()
    return (last or 0) + 1


def started(
    conn: Connection, attempt_id: int, job_id: str, job_detail: Mapping[str, Any] | None, now_ms: int
) -> AttemptRow:
    """The provider has the job. If the attempt has ended meanwhile, its state stays: the caller cancels the job."""
    started_all(conn, [Started(attempt_id, job_id, job_detail, now_ms)])
    return get(conn, attempt_id)


def started_all(conn: Connection, jobs: Sequence[Started]) -> list[AttemptState]:
    """`started` for many jobs: the state that each attempt is in now."""
    values = [
        {
            "wanted_id": job.attempt_id,
            "at_ms": job.now_ms,
            "anew_at_ms": job.now_ms if job.is_anew else None,
            "wake_at_ms": job.now_ms,
            "job_id": job.job_id,
            "job_detail": dict(job.job_detail or {}),
        }
        for job in jobs
    ]
    ids = [job.attempt_id for job in jobs]
    _write_all(conn, _STARTED, values)
    states = dict(fetch(conn, _STATES, {"wanted_ids": ids}))
    return [states[attempt_id] for attempt_id in ids]


def unknown(
    conn: Connection, attempt_id: int, later: Postponement, *, code: str | None = None, detail: str | None = None
) -> AttemptRow:
    """Nobody can say yet whether the job was bought (law 5); the held request is put off. Leaves an attempt that has
    ended as it is.

    Raises ORC-STORE-016 where the request is not held: whoever holds it now may have found the job.
    """
    requests.postpone_all(conn, [later])
    return _write(conn, _UNKNOWN, attempt_id, code=code, detail=detail, wake_at_ms=later.now_ms)


def finish(
    conn: Connection,
    attempt_id: int,
    state: str,
    *,
    cost_lamports: int | None,
    now_ms: int,
    error_code: str | None = None,
    error_detail: str | None = None,
) -> AttemptRow:
    """The job is over; the ledger gets its final cost, or keeps the quote where that is None.

    The first end stands: a second one only corrects the cost.
    """
    finish_all(conn, [Finish(attempt_id, AttemptState(state), cost_lamports, now_ms, error_code, error_detail)])
    return get(conn, attempt_id)


def finish_all(conn: Connection, ends: Sequence[Finish]) -> None:
    """`finish` for many jobs."""
    if live := [this.state for this in ends if this.state in LIVE_ATTEMPT]:
        raise ValueError(f"{live[0]} is no end")
    for this in ends:
        if this.cost_lamports is not None:
            booking.correct(conn, this.cost_lamports, attempt_id=this.attempt_id)
    values = [
        {
            "wanted_id": this.attempt_id,
            "end": this.state,
            "at_ms": this.now_ms,
            "code": this.error_code,
            "detail": this.error_detail,
            "cost": this.cost_lamports,
        }
        for this in ends
    ]
    _write_all(conn, _FINISHED, values)


def postpone(conn: Connection, attempt_id: int, wake_at_ms: int) -> None:
    """Do not look at the job before `wake_at_ms`."""
    _write(conn, _FACT, attempt_id, wake_at_ms=wake_at_ms)


def get(conn: Connection, attempt_id: int) -> AttemptRow:
    row = fetch_one(conn, _BY_ID, {"wanted_id": attempt_id})
    if row is None:
        raise ROW_MISSING(f"attempt {attempt_id}")
    return AttemptRow(*row)


def of(conn: Connection, request_id: int) -> list[AttemptRow]:
    """Every attempt of a request, oldest first."""
    return [AttemptRow(*row) for row in fetch(conn, _OF, {"of_request": request_id})]


def live(conn: Connection, request_id: int) -> list[AttemptRow]:
    """The attempts of a request that may cost or yield something yet, by lane."""
    return live_of_all(conn, [request_id]).get(request_id, [])


def live_of_all(conn: Connection, request_ids: Collection[int]) -> dict[int, list[AttemptRow]]:
    """The live attempts of each of the requests that has one, by lane."""
    found: dict[int, list[AttemptRow]] = {}
    for row in map(AttemptRow._make, fetch(conn, _LIVE, {"wanted_ids": request_ids})):
        found.setdefault(row.request_id, []).append(row)
    return found


def ended_since(conn: Connection, provider: str, since_ms: int, limit: int) -> list[AttemptRow]:
    """Jobs of a provider whose answer is durable, or not wanted, since then: the newest first."""
    over = is_one_of(t.c.state, (AttemptState.SUCCEEDED, AttemptState.FAILED))
    query = (
        select(t)
        .where(t.c.provider == provider, t.c.job_id.is_not(None), over, t.c.ended_at_ms > since_ms)
        .order_by(t.c.ended_at_ms.desc(), t.c.id.desc())
        .limit(limit)
    )
    return [AttemptRow(*row) for row in conn.execute(query)]


def running(
    conn: Connection, provider: str | None = None, due_ms: int | None = None, limit: int = 1000
) -> list[AttemptRow]:
    """Jobs that a provider has, those due longest first; of one provider, or due by `due_ms`, where that is given."""
    query = select(t).where(t.c.state == AttemptState.RUNNING).order_by(t.c.wake_at_ms, t.c.id).limit(limit)
    if provider is not None:
        query = query.where(t.c.provider == provider)
    if due_ms is not None:
        query = query.where(t.c.wake_at_ms <= due_ms)
    return [AttemptRow(*row) for row in conn.execute(query)]


def spent(
    conn: Connection,
    *,
    since_ms: int,
    provider: str | None = None,
    requester: str | None = None,
    request_id: int | None = None,
) -> int:
    """Lamports that jobs have cost since then, with the quotes of those whose cost is not known yet."""
    query = select(func.coalesce(-func.sum(ledger.c.lamports), 0)).where(
        ledger.c.kind == LedgerKind.JOB, ledger.c.at_ms >= since_ms
    )
    if provider is not None:
        query = query.where(ledger.c.provider == provider)
    if requester is not None:
        query = query.where(ledger.c.requester == requester)
    if request_id is not None:
        query = query.where(ledger.c.request_id == request_id)
    return int(conn.execute(query).scalar_one())


def durations(conn: Connection, provider: str, model: str, limit: int = 100) -> list[float]:
    """Seconds that the newest successful jobs took from the purchase to the answer, newest first."""
    query = (
        select(t.c.ended_at_ms - t.c.intended_at_ms)
        .where(t.c.provider == provider, t.c.model == model, t.c.state == AttemptState.SUCCEEDED)
        .order_by(t.c.ended_at_ms.desc())
        .limit(limit)
    )
    return [milliseconds / 1000 for milliseconds in conn.execute(query).scalars()]


def settling(
    conn: Connection, routes: Iterable[tuple[str, str]], since_ms: int, slot_seconds: float, limit: int = 100
) -> list[float]:
    """Seconds from the answer to the landed settlement, of the newest answers since then on these routes.

    Whatever lands, lands by its deadline: what is said to have taken longer than the request had in all, a clock that
    was set meanwhile says. Looks at ten answers for each that it returns at most, however many wait to be settled.
    """
    found: list[tuple[int, float]] = []
    for provider, model in routes:
        newest = (
            select(t.c.request_id, t.c.ended_at_ms)
            .where(
                t.c.provider == provider,
                t.c.model == model,
                t.c.state == AttemptState.SUCCEEDED,
                t.c.ended_at_ms >= since_ms,
            )
            .order_by(t.c.ended_at_ms.desc())
            .limit(10 * limit)
            .subquery()
        )
        r = request_table.c
        landed = select(newest.c.ended_at_ms, r.state_since_ms, r.created_slot, r.deadline_slot).join(
            request_table, r.id == newest.c.request_id
        )
        for row in conn.execute(landed.where(r.state == State.SETTLED)):
            seconds = max(0, row.state_since_ms - row.ended_at_ms) / 1000
            if seconds <= (row.deadline_slot - row.created_slot) * slot_seconds:
                found.append((row.ended_at_ms, seconds))
    return [seconds for _, seconds in sorted(found, reverse=True)[:limit]]


def _write(conn: Connection, statement: Update, attempt_id: int, **values: Any) -> AttemptRow:
    _write_all(conn, statement, [{"wanted_id": attempt_id} | values])
    return get(conn, attempt_id)


def _write_all(conn: Connection, statement: Update, values: Sequence[Mapping[str, Any]]) -> None:
    if update_each(conn, statement, values) != len(values):
        raise ROW_MISSING("attempt " + ", ".join(str(each["wanted_id"]) for each in values))
