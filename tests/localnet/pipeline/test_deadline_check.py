"""Nothing is bought whose answer could not be on chain in time."""

from __future__ import annotations

import re

import pytest
from pipeline_world import SLOT_SECONDS, World, until

from oracle.core.lifecycle import State
from oracle.core.policy import DEADLINE_TOO_CLOSE
from oracle.pipeline import choice

pytestmark = pytest.mark.localnet
WINDOW_SECONDS = 1.5


async def test_nothing_is_bought_that_could_not_be_settled_in_time_as_settling_was_measured(world: World) -> None:
    async with world.daemon(settlement={"flush_window_seconds": WINDOW_SECONDS}) as daemon:
        assert await choice.settling_seconds(daemon.context) == 0.5, "the window, at most as long as the margin"
        for submitted in [await world.submit(nonce=nonce) for nonce in range(5)]:
            await world.reaches(daemon, submitted, State.SETTLED)

        async def measured() -> bool:
            return bool(await choice.measured_settling(daemon.context))

        await until(measured, "the measurement")
        assert await choice.settling_seconds(daemon.context) >= WINDOW_SECONDS
        # Two seconds: time for the job and for the margin, and not for the settlement besides.
        late = await world.submit(nonce=9, ttl_slots=int(2.0 / SLOT_SECONDS))
        row = await world.reaches(daemon, late, State.DECLINED, State.REFUSED, State.SETTLING, State.EXPIRED)
        assert row.error_code == DEADLINE_TOO_CLOSE.code
        assert row.attempts_made == 0
        needed = re.search(r"(\d+) slots needed", row.error_detail or "")
        assert needed is not None
        assert int(needed[1]) >= (WINDOW_SECONDS + 0.5) / SLOT_SECONDS * 0.6
