"""A job is written down before it is bought, once, and its cost is booked once."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import update
from store_world import MINUTE, NOW, OTHER_OWNER, held, now, see, take

from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.store import attempts, experience, ledger, schema
from oracle.store.attempts import AttemptRow
from oracle.store.changes import Postponement, Started
from oracle.store.engine import Store
from oracle.store.errors import ATTEMPT_EXISTS, LEASE_LOST, ROW_MISSING
from oracle.store.experience import Experience
from oracle.store.requests import RequestRow
from oracle.store.schema import AttemptState


async def test_an_attempt_is_intended_with_its_key_and_its_quote_counts_as_spent(store: Store) -> None:
    row = await held(store)
    attempt = await intend(store, row, quoted_lamports=700)
    assert (attempt.state, attempt.lane, attempt.number) == (AttemptState.INTENDED, 0, 1)
    assert (attempt.provider, attempt.model, attempt.idempotency_key) == ("nosana", "llama-3", "key-0-1")
    assert (attempt.intended_at_ms, attempt.cost_lamports, attempt.job_id) == (NOW, None, None)
    assert await spent(store) == 700
    assert (await now(store, row)).attempts_made == 1


async def test_a_second_attempt_in_a_lane_is_refused_while_the_first_is_live(store: Store) -> None:
    row = await held(store)
    first = await intend(store, row)
    await assert_lane_is_taken(store, row)
    await doubt(store, row, first)
    row = await take(store, row)
    await assert_lane_is_taken(store, row)
    await store.write(lambda c: attempts.started(c, first.id, "job-1", None, NOW))
    await assert_lane_is_taken(store, row)
    assert await spent(store) == 1_000
    assert (await now(store, row)).attempts_made == 1


async def test_a_route_that_hedges_has_one_live_attempt_in_each_lane(store: Store) -> None:
    row = await held(store)
    await intend(store, row, lane=0)
    await intend(store, row, lane=1)
    live = await store.read(lambda c: attempts.live(c, row.id))
    assert [(attempt.lane, attempt.number) for attempt in live] == [(0, 1), (1, 1)]


async def test_an_idempotency_key_is_used_once(store: Store) -> None:
    row = await held(store)
    first = await intend(store, row)
    await finish(store, first, "failed")
    with pytest.raises(OracleError, match=ATTEMPT_EXISTS.code):
        await intend(store, row, idempotency_key=first.idempotency_key)


async def test_attempts_are_numbered_in_their_lane(store: Store) -> None:
    row = await held(store)
    for number in (1, 2, 3):
        assert await store.read(lambda c: attempts.next_number(c, row.id, 0)) == number
        attempt = await intend(store, row)
        assert attempt.number == number
        await finish(store, attempt, "failed")
    assert (await now(store, row)).attempts_made == 3


async def test_a_stopped_holder_cannot_buy(store: Store, other: Store) -> None:
    stopped = await held(store)
    await take(other, stopped, owner=OTHER_OWNER, now_ms=NOW + 2 * MINUTE)
    with pytest.raises(OracleError) as raised:
        await intend(store, stopped)
    assert raised.value.error is LEASE_LOST
    assert await store.read(lambda c: attempts.of(c, stopped.id)) == []
    assert await spent(store) == 0


async def test_a_take_over_and_a_purchase_at_once_buy_at_most_one_job(store: Store, other: Store) -> None:
    for round_ in range(10):
        row = await held(store, f"request-{round_}")

        async def overtake(row: RequestRow = row) -> None:
            taken = await take(other, row, owner=OTHER_OWNER, now_ms=NOW + 2 * MINUTE)
            await intend(other, taken, idempotency_key=f"{row.address}-b")

        await asyncio.gather(intend(store, row, idempotency_key=f"{row.address}-a"), overtake(), return_exceptions=True)
        assert len(await store.read(lambda c, row=row: attempts.of(c, row.id))) == 1  # type: ignore[misc]


async def test_a_job_that_started_keeps_its_id_and_detail(store: Store) -> None:
    attempt = await intend(store, await held(store))
    started = await store.write(lambda c: attempts.started(c, attempt.id, "job-1", {"ipfs": ["Qm", 1]}, NOW + 5))
    assert (started.state, started.job_id, started.job_detail) == (AttemptState.RUNNING, "job-1", {"ipfs": ["Qm", 1]})
    assert started.started_at_ms == NOW + 5


@pytest.mark.parametrize(("is_anew", "started_at_ms"), [(False, NOW), (True, NOW + 9)])
async def test_a_job_that_is_found_has_run_since_it_started_and_one_that_began_anew_since_then(
    store: Store, is_anew: bool, started_at_ms: int
) -> None:
    attempt = await intend(store, await held(store))
    for at_ms in (NOW, NOW + 9):
        job = Started(attempt.id, "job-1", None, at_ms, is_anew=is_anew)
        await store.write(lambda c, job=job: attempts.started_all(c, [job]))  # type: ignore[misc]
    assert (await store.read(lambda c: attempts.get(c, attempt.id))).started_at_ms == started_at_ms


async def test_a_job_id_that_comes_after_the_attempt_has_ended_is_not_lost(store: Store) -> None:
    attempt = await intend(store, await held(store))
    await finish(store, attempt, "cancelled")
    late = await store.write(lambda c: attempts.started(c, attempt.id, "job-1", None, NOW + 5))
    assert (late.state, late.job_id) == (AttemptState.CANCELLED, "job-1")


async def test_a_job_id_is_recorded_whoever_holds_the_request_now(store: Store, other: Store) -> None:
    row = await held(store)
    attempt = await intend(store, row)
    await take(other, row, owner=OTHER_OWNER, now_ms=NOW + 2 * MINUTE)
    started = await store.write(lambda c: attempts.started(c, attempt.id, "job-1", None, NOW))
    assert started.job_id == "job-1"


async def test_an_unknown_purchase_is_still_live(store: Store) -> None:
    row = await held(store)
    attempt = await intend(store, row)
    unknown = await doubt(store, row, attempt, code="ORC-X-001", detail="timed out")
    assert (unknown.state, unknown.error_code, unknown.error_detail) == ("unknown", "ORC-X-001", "timed out")
    assert [live.id for live in await store.read(lambda c: attempts.live(c, attempt.request_id))] == [attempt.id]


async def test_doubt_about_an_attempt_that_has_ended_changes_nothing_of_its_end(store: Store) -> None:
    row = await held(store)
    attempt = await intend(store, row)
    await finish(store, attempt, "succeeded")
    assert (await doubt(store, row, attempt)).state is AttemptState.SUCCEEDED


async def test_doubt_of_a_stopped_holder_changes_nothing_of_what_another_has_found(store: Store, other: Store) -> None:
    stopped = await held(store)
    attempt = await intend(store, stopped)
    await take(other, stopped, owner=OTHER_OWNER, now_ms=NOW + 2 * MINUTE)
    found = await other.write(lambda c: attempts.started(c, attempt.id, "job-1", None, NOW + 2 * MINUTE))
    with pytest.raises(OracleError) as raised:
        await doubt(store, stopped, attempt)
    assert raised.value.error is LEASE_LOST
    assert await store.read(lambda c: attempts.get(c, attempt.id)) == found


@pytest.mark.parametrize(("cost_lamports", "booked"), [(0, 0), (400, 400), (1_500, 1_500), (None, 1_000)])
async def test_the_final_cost_replaces_the_quote_where_it_is_known(
    store: Store, cost_lamports: int | None, booked: int
) -> None:
    attempt = await intend(store, await held(store), quoted_lamports=1_000)
    finished = await finish(store, attempt, "succeeded", cost_lamports=cost_lamports)
    assert (finished.cost_lamports, finished.ended_at_ms) == (cost_lamports, NOW + 9)
    assert await spent(store) == booked


async def test_the_first_end_stands_and_a_second_only_corrects_the_cost(store: Store) -> None:
    attempt = await intend(store, await held(store))
    await finish(store, attempt, "cancelled")
    again = await store.write(
        lambda c: attempts.finish(c, attempt.id, "succeeded", cost_lamports=3, now_ms=NOW + 99, error_code="ORC-X-001")
    )
    assert (again.state, again.ended_at_ms, again.error_code) == (AttemptState.CANCELLED, NOW + 9, None)
    assert await spent(store) == 3


async def test_an_attempt_does_not_end_in_a_live_state(store: Store) -> None:
    attempt = await intend(store, await held(store))
    with pytest.raises(ValueError, match="running is no end"):
        await finish(store, attempt, "running")


async def test_a_fact_about_an_attempt_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: attempts.started(c, 77, "job", None, NOW))
    assert raised.value.error is ROW_MISSING


async def test_spending_is_told_by_provider_requester_request_and_time(store: Store) -> None:
    first = await held(store, "a", requester="r1")
    second = await held(store, "b", requester="r2")
    await intend(store, first, provider="nosana", quoted_lamports=10)
    await intend(store, second, provider="ionet", quoted_lamports=200, now_ms=NOW + 50)
    assert await spent(store) == 210
    assert await spent(store, provider="ionet") == 200
    assert await spent(store, requester="r1") == 10
    assert await spent(store, request_id=second.id) == 200
    assert await spent(store, since_ms=NOW + 50) == 200
    assert await spent(store, since_ms=NOW + 51) == 0


async def test_running_jobs_are_listed_by_provider_and_by_when_they_are_due(store: Store) -> None:
    jobs = []
    for index, provider in enumerate(("nosana", "ionet", "nosana")):
        attempt = await intend(store, await held(store, f"request-{index}"), provider=provider)
        jobs.append(await store.write(lambda c, a=attempt: attempts.started(c, a.id, f"job-{a.id}", None, NOW)))  # type: ignore[misc]
    await intend(store, await held(store, "not-started"))
    await store.write(lambda c: attempts.postpone(c, jobs[0].id, NOW + 500))
    assert await ids(store) == [jobs[1].id, jobs[2].id, jobs[0].id]
    assert await ids(store, provider="nosana") == [jobs[2].id, jobs[0].id]
    assert await ids(store, due_ms=NOW) == [jobs[1].id, jobs[2].id]
    assert await ids(store, limit=1) == [jobs[1].id]


async def test_live_attempts_of_many_requests_are_read_at_once(store: Store) -> None:
    busy, hedged, idle = [await held(store, name) for name in ("busy", "hedged", "idle")]
    one = await intend(store, busy)
    two = await intend(store, hedged, lane=0)
    three = await intend(store, hedged, lane=1)
    await finish(store, await intend(store, idle), "failed")
    found = await store.read(lambda c: attempts.live_of_all(c, [busy.id, hedged.id, idle.id]))
    assert {request_id: [attempt.id for attempt in live] for request_id, live in found.items()} == {
        busy.id: [one.id],
        hedged.id: [two.id, three.id],
    }
    assert await store.read(lambda c: attempts.live_of_all(c, [])) == {}


async def test_durations_are_those_of_successful_jobs_newest_first(store: Store) -> None:
    row = await held(store)
    for seconds, state in ((1.5, "succeeded"), (9.0, "failed"), (2.5, "succeeded")):
        attempt = await intend(store, row)
        end_ms = NOW + int(seconds * 1000)
        await store.write(
            lambda c, a=attempt, s=state, e=end_ms: attempts.finish(c, a.id, s, cost_lamports=1, now_ms=e)  # type: ignore[misc]
        )
    assert await store.read(lambda c: attempts.durations(c, "nosana", "llama-3", 10)) == [2.5, 1.5]
    assert await store.read(lambda c: attempts.durations(c, "nosana", "llama-3", 1)) == [2.5]
    assert await store.read(lambda c: attempts.durations(c, "nosana", "another", 10)) == []


async def test_experience_is_of_the_newest_jobs_that_were_not_called_off(store: Store) -> None:
    row = await held(store)
    for seconds, state in ((1.5, "succeeded"), (9.0, "failed"), (2.5, "succeeded"), (3.5, "cancelled")):
        attempt = await intend(store, row)
        end_ms = NOW + int(seconds * 1000)
        await store.write(
            lambda c, a=attempt, s=state, e=end_ms: attempts.finish(c, a.id, s, cost_lamports=1, now_ms=e)  # type: ignore[misc]
        )
    await intend(store, row)
    assert await store.read(experience.of_all) == {"nosana": (Experience("llama-3", 3, (2.5, 1.5)),)}
    (newest,) = (await store.read(lambda c: experience.of_all(c, newest=2)))["nosana"]
    assert (newest.jobs, newest.seconds, newest.success_rate) == (2, (2.5,), 0.5)


async def test_jobs_whose_answer_was_kept_or_refused_are_told_apart_from_those_that_were_never_bought(
    store: Store,
) -> None:
    row = await held(store)
    for job, state in (("kept", "succeeded"), ("refused", "failed"), (None, "failed"), ("called-off", "cancelled")):
        attempt = await intend(store, row)
        if job is not None:
            await store.write(lambda c, a=attempt, j=job: attempts.started(c, a.id, j, None, NOW))  # type: ignore[misc]
        await finish(store, attempt, state)
    found = await store.read(lambda c: attempts.ended_since(c, "nosana", 0, limit=10))
    assert {attempt.job_id for attempt in found} == {"kept", "refused"}
    assert await store.read(lambda c: attempts.ended_since(c, "render", 0, limit=10)) == []


async def test_settling_is_measured_from_the_answer_to_the_landed_settlement_newest_first(store: Store) -> None:
    route = [("nosana", "llama-3")]
    for number, (answered, landed, state) in enumerate(
        (
            (1.0, 3.5, "settled"),
            (2.0, 3.0, "settled"),
            (3.0, 9.0, "running"),
            (-9.0, 9.0, "settled"),
            # Longer than the request had in all: the clock was set.
            (4.0, 3_604.0, "settled"),
        )
    ):
        row = await held(store, address=f"request-{number}")
        attempt = await intend(store, row, idempotency_key=f"key-{number}")
        ended_ms, landed_ms = NOW + int(answered * 1000), NOW + int(landed * 1000)
        await store.write(
            lambda c, a=attempt, e=ended_ms: attempts.finish(c, a.id, "succeeded", cost_lamports=1, now_ms=e)  # type: ignore[misc]
        )
        moved = update(schema.requests).where(schema.requests.c.id == row.id)
        await store.write(
            lambda c, m=moved, s=state, at=landed_ms: c.execute(m.values(state=State(s), state_since_ms=at))  # type: ignore[misc]
        )
    assert await store.read(lambda c: attempts.settling(c, route, NOW, 0.4)) == [1.0, 2.5]
    assert await store.read(lambda c: attempts.settling(c, route, NOW, 0.4, 1)) == [1.0]
    assert await store.read(lambda c: attempts.settling(c, [("nosana", "another")], NOW, 0.4)) == []


async def test_a_fee_is_booked_once_whoever_repeats_it(store: Store, other: Store) -> None:
    row = await see(store)
    await asyncio.gather(
        *(
            each.write(lambda c: ledger.book(c, "fee_earned", 5_000, now_ms=NOW, request_id=row.id))
            for each in (store, other) * 3
        )
    )
    assert await store.read(lambda c: ledger.sum(c, kind="fee_earned")) == 5_000


async def test_the_ledger_adds_up_what_went_out_and_what_came_in(store: Store) -> None:
    row = await held(store)
    await finish(store, await intend(store, row, quoted_lamports=800), "succeeded", cost_lamports=600)
    await store.write(lambda c: ledger.book(c, "fee_earned", 5_000, now_ms=NOW + 10, request_id=row.id))
    assert await store.read(lambda c: ledger.sum(c)) == 4_400
    assert await store.read(lambda c: ledger.sum(c, request_id=row.id)) == 4_400
    assert await store.read(lambda c: ledger.sum(c, since_ms=NOW + 1)) == 5_000
    assert [line.lamports for line in await store.read(lambda c: ledger.of(c, row.id))] == [-600, 5_000]


async def intend(
    store: Store,
    row: RequestRow,
    *,
    lane: int = 0,
    provider: str = "nosana",
    idempotency_key: str | None = None,
    quoted_lamports: int = 1_000,
    now_ms: int = NOW,
) -> AttemptRow:
    def write(conn: object) -> AttemptRow:
        number = attempts.next_number(conn, row.id, lane)  # type: ignore[arg-type]
        key = idempotency_key or f"key-{lane}-{number}" + ("" if row.address == "request-1" else row.address)
        return attempts.intend(
            conn,  # type: ignore[arg-type]
            row,
            lane=lane,
            provider=provider,
            model="llama-3",
            idempotency_key=key,
            quoted_lamports=quoted_lamports,
            now_ms=now_ms,
        )

    return await store.write(write)


async def assert_lane_is_taken(store: Store, row: RequestRow) -> None:
    with pytest.raises(OracleError) as raised:
        await intend(store, row)
    assert raised.value.error is ATTEMPT_EXISTS


async def doubt(store: Store, row: RequestRow, attempt: AttemptRow, **why: str) -> AttemptRow:
    later = Postponement(row, NOW, NOW, is_failure=False)
    return await store.write(lambda c: attempts.unknown(c, attempt.id, later, **why))


async def finish(store: Store, attempt: AttemptRow, state: str, cost_lamports: int | None = None) -> AttemptRow:
    return await store.write(
        lambda c: attempts.finish(c, attempt.id, state, cost_lamports=cost_lamports, now_ms=NOW + 9)
    )


async def spent(store: Store, *, since_ms: int = NOW, **filters: object) -> int:
    return await store.read(lambda c: attempts.spent(c, since_ms=since_ms, **filters))  # type: ignore[arg-type]


async def ids(store: Store, **filters: object) -> list[int]:
    return [attempt.id for attempt in await store.read(lambda c: attempts.running(c, **filters))]  # type: ignore[arg-type]
