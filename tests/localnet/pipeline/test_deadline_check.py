"""Nothing is bought whose answer could not be on chain in time."""

from __future__ import annotations

import re

import pytest
from pipeline_world import SLOT_SECONDS, DrivenClock, World, until

from oracle.chain.rpc.types import PerformanceSample
from oracle.core.lifecycle import State
from oracle.core.policy import DEADLINE_TOO_CLOSE
from oracle.pipeline import choice

pytestmark = pytest.mark.localnet
SETTLING_SECONDS = 20.0
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
