"""What a key has used, and what the jobs of its calls cost: reserved before, corrected after, booked once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection
from store_world import MINUTE, NOW, OTHER_OWNER, OWNER

from oracle.core.errors import OracleError
from oracle.store import attempts, calls, leases, ledger
from oracle.store.engine import Store
from oracle.store.errors import ATTEMPT_EXISTS, CALL_EXISTS
from oracle.store.schema import AttemptState, CallKind, CallState


def begin(conn: Connection, call_id: str = "call-1", **changes: Any) -> None:
    values: dict[str, Any] = {
        "key": "alice",
        "kind": CallKind.CHAT,
        "model": "llama",
        "input_tokens": 10,
        "output_tokens": 100,
        "owner": OWNER,
        "owned_until_ms": NOW + MINUTE,
        "now_ms": NOW,
    }
    calls.begin(conn, call_id, **(values | changes))


def intend(conn: Connection, call_id: str = "call-1", number: int = 1, quoted_lamports: int = 500) -> int:
    job = calls.intend_job(
        conn,
        call_id,
        number=number,
        key="alice",
        provider="p",
        model="m",
        idempotency_key=f"{call_id}-{number}",
        quoted_lamports=quoted_lamports,
        now_ms=NOW,
    )
    return job.id


def finish(conn: Connection, call_id: str = "call-1", state: CallState = CallState.SUCCEEDED) -> bool:
    return calls.finish(conn, call_id, state, input_tokens=9, output_tokens=42, now_ms=NOW + 1, chain_lamports=0)


async def test_an_open_call_counts_with_the_most_that_it_may_use(store: Store) -> None:
    await store.write(lambda c: begin(c, chain_lamports=7))
    await store.write(intend)
    used = await store.read(lambda c: calls.used(c, "alice", NOW))
    assert (used.calls, used.tokens, used.lamports) == (1, 110, 507)


async def test_an_ended_call_counts_with_what_it_has_used(store: Store) -> None:
    await store.write(begin)
    job = await store.write(intend)
    await store.write(
        lambda c: calls.finish_job(c, job, AttemptState.SUCCEEDED, cost_lamports=123, now_ms=NOW) and finish(c)
    )
    used = await store.read(lambda c: calls.used(c, "alice", NOW))
    assert (used.input_tokens, used.output_tokens, used.lamports) == (9, 42, 123)
    assert await store.read(lambda c: ledger.sum(c, kind="job")) == -123


async def test_a_job_whose_cost_nobody_tells_stays_booked_with_its_quote(store: Store) -> None:
    await store.write(begin)
    job = await store.write(intend)
    await store.write(lambda c: calls.finish_job(c, job, AttemptState.FAILED, cost_lamports=None, now_ms=NOW))
    assert (await store.read(lambda c: calls.used(c, "alice", NOW))).lamports == 500
    await store.write(lambda c: calls.finish_job(c, job, AttemptState.FAILED, cost_lamports=0, now_ms=NOW))
    assert (await store.read(lambda c: calls.used(c, "alice", NOW))).lamports == 0


async def test_jobs_of_the_gateway_count_against_the_budget_of_the_daemon(store: Store) -> None:
    await store.write(begin)
    await store.write(intend)
    assert await store.read(lambda c: attempts.spent(c, since_ms=NOW)) == 500
    assert await store.read(lambda c: attempts.spent(c, since_ms=NOW, requester="gateway:alice")) == 500


async def test_a_call_has_one_live_job(store: Store) -> None:
    await store.write(begin)
    job = await store.write(intend)
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: intend(c, number=2))
    assert raised.value.error is ATTEMPT_EXISTS
    assert await store.read(lambda c: ledger.sum(c)) == -500
    await store.write(lambda c: calls.finish_job(c, job, AttemptState.FAILED, cost_lamports=0, now_ms=NOW))
    await store.write(lambda c: intend(c, number=2))


async def test_the_first_end_of_a_call_stands(store: Store) -> None:
    await store.write(begin)
    assert await store.write(finish)
    assert not await store.write(lambda c: finish(c, state=CallState.FAILED))
    assert (await store.read(lambda c: calls.get(c, "call-1"))).state is CallState.SUCCEEDED


async def test_a_request_is_asked_for_once_at_a_time(store: Store) -> None:
    await store.write(lambda c: begin(c, request_address="a"))
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: begin(c, "call-2", request_address="a"))
    assert raised.value.error is CALL_EXISTS
    await store.write(finish)
    await store.write(lambda c: begin(c, "call-2", request_address="a"))


async def test_a_key_is_charged_for_its_own_calls_of_the_day(store: Store) -> None:
    await store.write(begin)
    await store.write(lambda c: begin(c, "old", now_ms=NOW - 1))
    await store.write(lambda c: begin(c, "other", key="bob"))
    assert (await store.read(lambda c: calls.used(c, "alice", NOW))).calls == 1
    assert (await store.read(lambda c: calls.used(c, "nobody", NOW))).tokens == 0


async def test_use_is_told_model_by_model(store: Store) -> None:
    await store.write(begin)
    await store.write(lambda c: begin(c, "call-2", model="qwen"))
    found = await store.read(lambda c: calls.used_by_model(c, "alice", NOW))
    assert {model: used.calls for model, used in found.items()} == {"llama": 1, "qwen": 1}


async def test_a_call_is_abandoned_when_its_owner_is_not_heard_of(store: Store) -> None:
    await store.write(begin)
    await store.write(lambda c: begin(c, "call-2", owner=OTHER_OWNER))
    later = NOW + MINUTE + 1
    await store.write(lambda c: calls.hold(c, OWNER, later + MINUTE))
    assert [row.id for row in await store.read(lambda c: calls.abandoned(c, later, 10))] == ["call-2"]


async def test_who_holds_the_database_alone_need_not_wait_for_the_calls_of_a_dead_one_to_lapse(store: Store) -> None:
    await store.write(begin)
    assert await store.write(lambda c: leases.take_over(c, NOW)) == 1
    assert [row.id for row in await store.read(lambda c: calls.abandoned(c, NOW, 10))] == ["call-1"]


async def test_a_live_job_of_a_call_that_is_over_is_an_orphan(store: Store) -> None:
    await store.write(begin)
    job = await store.write(intend)
    assert await store.read(lambda c: calls.orphans(c, 10)) == []
    await store.write(lambda c: calls.job_started(c, job, "job-1", {"at": "x"}))
    await store.write(lambda c: finish(c, state=CallState.CANCELLED))
    (orphan,) = await store.read(lambda c: calls.orphans(c, 10))
    assert (orphan.job_id, orphan.state) == ("job-1", AttemptState.RUNNING)
    await store.write(lambda c: calls.finish_job(c, job, AttemptState.CANCELLED, cost_lamports=None, now_ms=NOW))
    assert await store.read(lambda c: calls.orphans(c, 10)) == []


async def test_a_job_that_starts_after_its_end_stays_ended(store: Store) -> None:
    await store.write(begin)
    job = await store.write(intend)
    await store.write(lambda c: calls.finish_job(c, job, AttemptState.CANCELLED, cost_lamports=None, now_ms=NOW))
    started = await store.write(lambda c: calls.job_started(c, job, "job-1", {}))
    assert (started.state, started.job_id) == (AttemptState.CANCELLED, "job-1")
