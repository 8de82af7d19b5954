"""A slow job gets a rival where its routes allow it: the first answer is taken, the loser stopped and booked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pipeline_world import DrivenClock, World, leases_at_slow_calls, until

from oracle.client.requests import Submitted
from oracle.core.lifecycle import State
from oracle.core.policy import OVERTAKEN
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.pipeline.daemon import Daemon
from oracle.store import attempts, ledger
from oracle.store.rows import AttemptRow
from oracle.store.schema import LIVE_ATTEMPT, AttemptState, LedgerKind

pytestmark = pytest.mark.localnet
SLOW_SECONDS, TIMEOUT_SECONDS = 30.0, 90.0
"""Of the clock that a test drives."""
HEDGED = {
    "model": "tiny",
    "timeout_seconds": TIMEOUT_SECONDS,
    "max_parallel_jobs": 2,
    "hedge_after_seconds": SLOW_SECONDS,
}
FEE = 10_000_000
PROMPT = "What is the capital of Japan?"


@pytest.fixture
async def other(world: World) -> AsyncIterator[ScriptedOpenAI]:
    """A second provider, `other`, behind the first; both cost money, and both routes allow two jobs at once."""
    model = ScriptedOpenAI(words=6)
    async with serve(model) as url:
        world.settings["providers"]["other"] = {
            **world.settings["providers"]["scripted"],
            "base_url": f"{url.url}/v1",
        }
        for provider in ("scripted", "other"):
            world.charge(usd_per_million_tokens=100.0, provider=provider)
        allow(world)
        yield model


def allow(world: World, **changes: Any) -> None:
    """Both routes, the second with `changes`."""
    routes = [{"provider": "scripted", **HEDGED}, {"provider": "other", **HEDGED, **changes}]
    world.settings["models"] = {"tiny": {"routes": routes}}


async def all_over(daemon: Daemon, request_id: int) -> list[AttemptRow]:
    """Every attempt, once none of them is live."""

    async def look() -> list[AttemptRow] | None:
        found = await daemon.context.store.read(lambda c: attempts.of(c, request_id))
        return None if any(attempt.state in LIVE_ATTEMPT for attempt in found) else found

    return await until(look, "the end of every attempt")


async def grows_slow(world: World, daemon: Daemon, clock: DrivenClock, submitted: Submitted) -> None:
    """The job that runs for it has been running for too long from now on."""
    await world.reaches(daemon, submitted, State.RUNNING)
    clock.ahead_seconds += SLOW_SECONDS + 1


async def turns(daemon: Daemon) -> None:
    """The daemon has looked at its jobs again and again."""
    for _ in range(3):
        before = daemon.context.pulses["poll"]

        async def turned(before: float = before) -> bool:
            return daemon.context.pulses["poll"] > before

        await until(turned, "another look")


async def attempt_is(daemon: Daemon, lane: int, *states: AttemptState) -> None:
    async def look() -> bool:
        found = await daemon.context.store.read(lambda c: attempts.of(c, 1))
        return any(attempt.lane == lane and attempt.state in states for attempt in found)

    await until(look, f"an attempt on lane {lane} that is {' or '.join(states)}")


def told(tried: list[AttemptRow]) -> list[tuple[int, str, str]]:
    return [(attempt.lane, attempt.provider, attempt.state) for attempt in tried]


async def test_a_rival_that_answers_first_is_taken_and_the_slow_job_stopped_and_booked(
    world: World, other: ScriptedOpenAI
) -> None:
    world.model.faults.add("hang", count=None)
    async with world.daemon(clock=(clock := DrivenClock())) as daemon:
        submitted = await world.submit(fee_lamports=FEE)
        await grows_slow(world, daemon, clock, submitted)
        row = await world.reaches(daemon, submitted, State.SETTLED)
        tried = await all_over(daemon, row.id)
        booked = await daemon.context.store.read(lambda c: ledger.of(c, row.id))
    assert told(tried) == [(0, "scripted", "cancelled"), (1, "other", "succeeded")]
    assert tried[0].error_code == OVERTAKEN.code
    jobs = {entry.provider: -entry.lamports for entry in booked if entry.kind is LedgerKind.JOB}
    assert jobs["scripted"] == tried[0].quoted_lamports > 0
    assert jobs["other"] == tried[1].cost_lamports


async def test_a_slow_job_that_answers_before_its_rival_is_taken(world: World, other: ScriptedOpenAI) -> None:
    world.model.flowing.clear()
    other.faults.add("hang", count=None)
    async with world.daemon(clock=(clock := DrivenClock())) as daemon:
        submitted = await world.submit(fee_lamports=FEE)
        await grows_slow(world, daemon, clock, submitted)
        await attempt_is(daemon, 1, AttemptState.RUNNING)
        world.model.flowing.set()
        row = await world.reaches(daemon, submitted, State.SETTLED)
        tried = await all_over(daemon, row.id)
    assert told(tried) == [(0, "scripted", "succeeded"), (1, "other", "cancelled")]


async def test_a_rival_that_fails_leaves_the_slow_job_alone(world: World, other: ScriptedOpenAI) -> None:
    world.model.flowing.clear()
    other.faults.add("error", status=400, text="no such thing", count=None)
    world.settings["models"]["tiny"]["routes"][0]["max_attempts"] = 1
    async with world.daemon(clock=(clock := DrivenClock())) as daemon:
        submitted = await world.submit(fee_lamports=FEE)
        await grows_slow(world, daemon, clock, submitted)
        await attempt_is(daemon, 1, AttemptState.FAILED)
        world.model.flowing.set()
        row = await world.reaches(daemon, submitted, State.SETTLED)
        tried = await all_over(daemon, row.id)
    assert told(tried) == [(0, "scripted", "succeeded"), (1, "other", "failed")]


async def test_a_slow_job_that_fails_leaves_its_rival_to_answer(world: World, other: ScriptedOpenAI) -> None:
    world.model.flowing.clear()
    other.flowing.clear()
    allow(world, timeout_seconds=10 * TIMEOUT_SECONDS, hedge_after_seconds=10 * TIMEOUT_SECONDS)
    async with world.daemon(clock=(clock := DrivenClock())) as daemon:
        submitted = await world.submit(fee_lamports=FEE)
        await grows_slow(world, daemon, clock, submitted)
        await attempt_is(daemon, 1, AttemptState.RUNNING)
        clock.ahead_seconds += TIMEOUT_SECONDS
        await attempt_is(daemon, 0, AttemptState.FAILED, AttemptState.CANCELLED)
        other.flowing.set()
        row = await world.reaches(daemon, submitted, State.SETTLED)
        tried = await all_over(daemon, row.id)
    assert [(attempt.lane, attempt.provider) for attempt in tried][:2] == [(0, "scripted"), (1, "other")]
    assert tried[1].state == "succeeded"


@pytest.mark.parametrize(
    ("quotes", "route"),
    [(10.0, {"max_parallel_jobs": 1}), (1.7, {})],
    ids=["a route that runs alone", "a fee that covers one job"],
)
async def test_no_rival_is_bought_where_it_may_not_be(
    world: World, other: ScriptedOpenAI, quotes: float, route: dict[str, Any]
) -> None:
    allow(world, **route)
    world.settings["models"]["tiny"]["routes"][0]["max_attempts"] = 1
    world.model.flowing.clear()
    async with world.daemon(clock=(clock := DrivenClock())) as daemon:
        quote = await world.quote(daemon, PROMPT)
        submitted = await world.submit(PROMPT, fee_lamports=int(quotes * quote))
        await grows_slow(world, daemon, clock, submitted)
        await turns(daemon)
        world.model.flowing.set()
        row = await world.reaches(daemon, submitted, State.SETTLED)
        tried = await all_over(daemon, row.id)
    assert told(tried) == [(0, "scripted", "succeeded")]
    assert other.requests == []


async def test_a_rival_is_bought_by_measured_latency_once_there_is_some(world: World, other: ScriptedOpenAI) -> None:
    for route in world.settings["models"]["tiny"]["routes"]:
        del route["hedge_after_seconds"]
    async with world.daemon() as daemon:
        for nonce in range(5):
            await world.reaches(daemon, await world.submit(fee_lamports=FEE, nonce=nonce), State.SETTLED)
        assert other.requests == []
        world.model.faults.add("hang", count=None)
        row = await world.reaches(daemon, await world.submit(fee_lamports=FEE, nonce=9), State.SETTLED)
        assert told(await all_over(daemon, row.id)) == [(0, "scripted", "cancelled"), (1, "other", "succeeded")]


async def test_a_request_that_has_lost_a_purchase_gets_no_rival(world: World, other: ScriptedOpenAI) -> None:
    """It may have cost a second job already, and a third is one that nobody has allowed."""
    world.model.faults.add("lose_answer")
    world.model.flowing.clear()
    async with world.daemon(clock=(clock := DrivenClock())) as daemon:
        submitted = await world.submit(fee_lamports=FEE)

        async def is_lost() -> bool:
            if not world.model_url.calls:
                # For the one that waits now, and for none that comes after it.
                world.model.flowing.set()
                world.model.flowing.clear()
            return bool(world.model_url.calls)

        await until(is_lost, "the loss of a purchase")

        async def is_bought_again() -> bool:
            return len(world.model.requests) == 2

        await until(is_bought_again, "another purchase")
        await grows_slow(world, daemon, clock, submitted)
        await turns(daemon)
        world.model.flowing.set()
        row = await world.reaches(daemon, submitted, State.SETTLED)
        tried = await all_over(daemon, row.id)
    assert told(tried) == [(0, "scripted", "failed"), (0, "scripted", "succeeded")]
    assert (row.unconfirmed_purchases, other.requests) == (1, [])


async def test_the_lease_outlives_the_call_that_buys_a_rival(
    world: World, other: ScriptedOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.model.faults.add("hang", count=None)
    async with world.daemon(clock=(clock := DrivenClock())) as daemon:
        submitted = await world.submit(fee_lamports=FEE)
        await world.reaches(daemon, submitted, State.RUNNING)
        left_ms = leases_at_slow_calls(monkeypatch, clock)
        await grows_slow(world, daemon, clock, submitted)
        await world.reaches(daemon, submitted, State.SETTLED)
        assert [daemon.context.lease_ms - left < 10_000 for left in left_ms] == [True]
