"""Calls of the gateway's clients, and the jobs bought for them: what a key has used, and what it may owe.

As with `attempts`, an intent is written before its purchase and counts as spent from then on; what is learned about it
is a fact, and is written whatever has become of the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, case, func, insert, literal, select, update

from oracle.store import ledger as booking
from oracle.store.errors import ATTEMPT_EXISTS, CALL_EXISTS, ROW_MISSING
from oracle.store.rows import CallRow as CallRow
from oracle.store.rows import GatewayJobRow as GatewayJobRow
from oracle.store.schema import LIVE_ATTEMPT, AttemptState, CallKind, CallState, LedgerKind, ledger
from oracle.store.schema import gateway_calls as t
from oracle.store.schema import gateway_jobs as j
from oracle.store.sql import has_lapsed, insert_new


@dataclass(frozen=True, slots=True)
class Used:
    """What calls have used, with what the open ones may use at most."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    job_lamports: int = 0
    chain_lamports: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def lamports(self) -> int:
        return self.job_lamports + self.chain_lamports


def begin(
    conn: Connection,
    call_id: str,
    *,
    key: str,
    kind: CallKind,
    model: str,
    input_tokens: int,
    output_tokens: int,
    owner: str,
    owned_until_ms: int,
    now_ms: int,
    chain_lamports: int = 0,
    request_address: str | None = None,
) -> None:
    """Write a call down before anything is bought for it, with the most that it may use.

    Raises ORC-STORE-022 where a call for the same request is open.
    """
    new = insert_new(
        conn,
        t,
        id=call_id,
        key=key,
        kind=kind,
        model=model,
        state=CallState.OPEN,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        job_lamports=0,
        chain_lamports=chain_lamports,
        request_address=request_address,
        began_at_ms=now_ms,
        owner=owner,
        owned_until_ms=owned_until_ms,
    )
    if new is None:
        raise CALL_EXISTS(request_address or call_id)


def finish(
    conn: Connection,
    call_id: str,
    state: CallState,
    *,
    input_tokens: int,
    output_tokens: int,
    now_ms: int,
    provider: str | None = None,
    model_run: str | None = None,
    error_code: str | None = None,
    chain_lamports: int = 0,
) -> bool:
    """The call is over. False, and nothing changed, where it was ended before: the first end stands."""
    ended = conn.execute(
        update(t)
        .where(t.c.id == call_id, t.c.state == CallState.OPEN)
        .values(
            state=state,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            chain_lamports=chain_lamports,
            provider=provider,
            model_run=model_run,
            error_code=error_code,
            ended_at_ms=now_ms,
        )
    )
    return ended.rowcount == 1


def charge_chain(conn: Connection, call_id: str, lamports: int) -> None:
    """What recording the answer has really cost, where that is less than was reserved."""
    conn.execute(update(t).where(t.c.id == call_id).values(chain_lamports=lamports))


def hold(conn: Connection, owner: str, owned_until_ms: int) -> None:
    """The owner lives: its open calls stay its own until then."""
    conn.execute(update(t).where(t.c.owner == owner, t.c.state == CallState.OPEN).values(owned_until_ms=owned_until_ms))


def abandoned(conn: Connection, now_ms: int, limit: int) -> list[CallRow]:
    """Open calls whose owner has not been heard of in time: it was killed."""
    is_left = has_lapsed(t.c.owned_until_ms, literal(now_ms, BigInteger))
    query = select(t).where(t.c.state == CallState.OPEN, is_left).limit(limit)
    return [CallRow(*row) for row in conn.execute(query)]


def get(conn: Connection, call_id: str) -> CallRow:
    row = conn.execute(select(t).where(t.c.id == call_id)).one_or_none()
    if row is None:
        raise ROW_MISSING(f"call {call_id}")
    return CallRow(*row)


def used(conn: Connection, key: str, since_ms: int) -> Used:
    """What a key has used in calls that began since then."""
    sums = select(*_SUMS).where(t.c.key == key, t.c.began_at_ms >= since_ms)
    return Used(*(int(value or 0) for value in conn.execute(sums).one()))


def used_by_model(conn: Connection, key: str, since_ms: int) -> dict[str, Used]:
    """The same, model by model."""
    sums = select(t.c.model, *_SUMS).where(t.c.key == key, t.c.began_at_ms >= since_ms).group_by(t.c.model)
    return {model: Used(*map(int, values)) for model, *values in conn.execute(sums.order_by(t.c.model))}


def requester_of(key: str) -> str:
    """Whom the ledger and the budgets name for a client of the gateway."""
    return f"gateway:{key}"


def intend_job(
    conn: Connection,
    call_id: str,
    *,
    number: int,
    key: str,
    provider: str,
    model: str,
    idempotency_key: str,
    quoted_lamports: int,
    now_ms: int,
) -> GatewayJobRow:
    """Write down that a job is about to be bought for a call; its quote counts as spent from here on.

    Raises ORC-STORE-017 where a job of the call is live, or the number was used before: nothing may be bought then.
    """
    ledger_id = conn.execute(
        insert(ledger)
        .values(
            at_ms=now_ms,
            kind=LedgerKind.JOB,
            lamports=-quoted_lamports,
            provider=provider,
            requester=requester_of(key),
            note=call_id,
        )
        .returning(ledger.c.id)
    ).scalar_one()
    job_id = insert_new(
        conn,
        j,
        call_id=call_id,
        number=number,
        ledger_id=ledger_id,
        provider=provider,
        model=model,
        idempotency_key=idempotency_key,
        state=AttemptState.INTENDED,
        quoted_lamports=quoted_lamports,
        intended_at_ms=now_ms,
    )
    if job_id is None:
        raise ATTEMPT_EXISTS(f"call {call_id}, job {number}")
    _charge(conn, call_id, quoted_lamports)
    return get_job(conn, job_id)


def job_started(conn: Connection, job_id: int, provider_job_id: str, job_detail: Mapping[str, Any]) -> GatewayJobRow:
    """The provider has the job. If it has ended meanwhile, its state stays: the caller cancels it."""
    live = case((j.c.state.in_(LIVE_ATTEMPT), AttemptState.RUNNING), else_=j.c.state)
    return _write_job(conn, job_id, job_id=provider_job_id, job_detail=dict(job_detail), state=live)


def finish_job(
    conn: Connection,
    job_id: int,
    state: AttemptState,
    *,
    cost_lamports: int | None,
    now_ms: int,
    error_code: str | None = None,
    error_detail: str | None = None,
) -> GatewayJobRow:
    """The job is over: its booking and its call get the final cost, or keep the quote where that is None.

    The first end stands: a second one only corrects the cost.
    """
    job = get_job(conn, job_id)
    if cost_lamports is not None:
        booked = job.quoted_lamports if job.cost_lamports is None else job.cost_lamports
        booking.correct(conn, cost_lamports, ledger_id=job.ledger_id)
        _charge(conn, job.call_id, cost_lamports - booked)
    was_live = j.c.state.in_(LIVE_ATTEMPT)
    return _write_job(
        conn,
        job_id,
        state=case((was_live, state), else_=j.c.state),
        ended_at_ms=case((was_live, now_ms), else_=j.c.ended_at_ms),
        error_code=case((was_live, error_code), else_=j.c.error_code),
        error_detail=case((was_live, error_detail), else_=j.c.error_detail),
        cost_lamports=func.coalesce(cost_lamports, j.c.cost_lamports),
    )


def orphans(conn: Connection, limit: int) -> list[GatewayJobRow]:
    """Live jobs whose call is over: somebody may still be paying for them."""
    query = (
        select(j)
        .join(t, t.c.id == j.c.call_id)
        .where(j.c.state.in_(LIVE_ATTEMPT), t.c.state != CallState.OPEN)
        .order_by(j.c.id)
        .limit(limit)
    )
    return [GatewayJobRow(*row) for row in conn.execute(query)]


def get_job(conn: Connection, job_id: int) -> GatewayJobRow:
    row = conn.execute(select(j).where(j.c.id == job_id)).one_or_none()
    if row is None:
        raise ROW_MISSING(f"job {job_id} of the gateway")
    return GatewayJobRow(*row)


def jobs_of(conn: Connection, call_id: str) -> list[GatewayJobRow]:
    """Every job of a call, oldest first."""
    query = select(j).where(j.c.call_id == call_id).order_by(j.c.number)
    return [GatewayJobRow(*row) for row in conn.execute(query)]


_SUMS = (
    func.count(),
    func.sum(t.c.input_tokens),
    func.sum(t.c.output_tokens),
    func.sum(t.c.job_lamports),
    func.sum(t.c.chain_lamports),
)


def _charge(conn: Connection, call_id: str, lamports: int) -> None:
    conn.execute(update(t).where(t.c.id == call_id).values(job_lamports=t.c.job_lamports + lamports))


def _write_job(conn: Connection, job: int, **values: Any) -> GatewayJobRow:
    row = conn.execute(update(j).where(j.c.id == job).values(**values).returning(j)).one_or_none()
    if row is None:
        raise ROW_MISSING(f"job {job} of the gateway")
    return GatewayJobRow(*row)
