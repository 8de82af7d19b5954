"""Nothing is bought whose answer could not be on chain in time."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from pipeline_world import SLOT_SECONDS, DrivenClock, World, until
from solders.pubkey import Pubkey

from oracle.chain.program.layout import QueueTerms
from oracle.chain.rpc.types import PerformanceSample
from oracle.client import requests
from oracle.core.lifecycle import State
from oracle.core.policy import DEADLINE_TOO_CLOSE
from oracle.core.request import Status
from oracle.localnet.network import LOCAL_TERMS
from oracle.pipeline import choice
from oracle.store import attempts
from oracle.store.rows import RequestRow

pytestmark = pytest.mark.localnet
SETTLING_SECONDS = 20.0
JOB_SECONDS = 8.0
NEVER = {"settlement": {"flush_window_seconds": 3_600.0}, "daemon": {"drain_seconds": 0.1}}


async def test_nothing_is_bought_that_could_not_be_settled_in_time_as_settling_was_measured(world: World) -> None:
    clock = DrivenClock()
    async with world.daemon(clock=clock, **NEVER) as daemon:
        assert await choice.settling_seconds(daemon.context) == 0.5, "the window, at most as long as the margin"
        answered = [await world.submit(nonce=nonce) for nonce in range(5)]
        for submitted in answered:
            await world.reaches(daemon, submitted, State.COMPUTED, State.SETTLING)
    clock.ahead_seconds = SETTLING_SECONDS
    async with world.daemon(clock=clock) as daemon:
        for submitted in answered:
            await world.reaches(daemon, submitted, State.SETTLED)

        async def measured() -> bool:
            return bool(await choice.measured_settling(daemon.context))

        await until(measured, "the measurement")
        assert await choice.settling_seconds(daemon.context) >= SETTLING_SECONDS
        # Time for the job and for the margin, and not for the settlement besides.
        daemon.context.slots.seed([PerformanceSample(slot=60, slots=int(3 / SLOT_SECONDS), seconds=3)])
        ttl_slots = daemon.context.slots.slots(SETTLING_SECONDS)
        late = await world.submit(nonce=9, ttl_slots=ttl_slots)
        row = await world.reaches(daemon, late, State.DECLINED, State.REFUSED, State.SETTLING, State.EXPIRED)
        assert row.error_code == DEADLINE_TOO_CLOSE.code
        assert row.attempts_made == 0
        needed = re.search(r"(\d+) slots needed", row.error_detail or "")
        assert needed is not None
        assert int(needed[1]) >= ttl_slots


async def refused_as_too_late(world: World) -> RequestRow:
    """A request whose deadline leaves less time than five jobs before it have taken, once it is judged."""
    clock = DrivenClock()
    async with world.daemon(clock=clock) as daemon:
        world.model.flowing.clear()
        earlier = [await world.submit(nonce=nonce) for nonce in range(5)]
        for submitted in earlier:
            await world.reaches(daemon, submitted, State.RUNNING)
        clock.ahead_seconds = JOB_SECONDS
        world.model.flowing.set()
        for submitted in earlier:
            await world.reaches(daemon, submitted, State.SETTLED)

        async def measured() -> bool:
            return len(await choice.measured(daemon.context, "scripted", "tiny")) == 5

        await until(measured, "the measurement")
        daemon.context.slots.seed([PerformanceSample(slot=60, slots=int(3 / SLOT_SECONDS), seconds=3)])
        late = await world.submit(nonce=9, ttl_slots=daemon.context.slots.slots(JOB_SECONDS))
        return await world.reaches(daemon, late, State.DECLINED, State.CLAIMING, State.RUNNING, State.SETTLING)


async def test_nothing_is_bought_that_could_not_be_answered_in_time_as_its_jobs_were_measured(world: World) -> None:
    row = await refused_as_too_late(world)
    assert (row.state, row.error_code, row.attempts_made) == (State.DECLINED, DEADLINE_TOO_CLOSE.code, 0)


async def test_what_is_said_to_have_taken_longer_than_its_route_allows_is_no_measurement(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a clock that jumps by an hour would end all buying for good."""
    monkeypatch.setattr(attempts, "durations", lambda *_: [1.0, 2.0, 3_600.0, 1.0, 2.0, 3.0])
    async with world.daemon() as daemon:
        assert await choice.measured(daemon.context, "scripted", "tiny") == [1.0, 2.0, 1.0, 2.0, 3.0]


class TestWithClaims:
    @pytest.fixture
    def terms(self) -> QueueTerms:
        return replace(LOCAL_TERMS, claim_required=True)

    async def test_nothing_is_claimed_that_could_not_be_answered_in_time(self, world: World) -> None:
        row = await refused_as_too_late(world)
        assert (row.state, row.error_code, row.attempts_made) == (State.DECLINED, DEADLINE_TOO_CLOSE.code, 0)
        assert (await requests.read(world.rpc, Pubkey.from_string(row.address))).header.status is Status.PENDING
