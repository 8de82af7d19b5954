"""Kill the daemon at any moment, again and again, while requests keep coming."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

import pytest
from chaos_laws import broken_laws, share_fulfilled
from chaos_length import LONG_RUNS, Say, of_several_seeds, seconds
from chaos_load import LEAST_FULFILLED, QUEUES, ask_for
from chaos_town import town

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]


@pytest.mark.timeout(1200)
@of_several_seeds()
async def test_a_daemon_that_is_killed_again_and_again_keeps_every_law(tmp_path: Path, say: Say, seed: int) -> None:
    random = Random(seed)
    async with town(tmp_path) as place:
        oracle = await place.oracle("killed", queues=QUEUES)
        until = time.monotonic() + seconds(15, share=LONG_RUNS)
        load = asyncio.create_task(ask_for(oracle, random, seconds=until - time.monotonic(), per_second=6))
        kills = 0
        while time.monotonic() < until:
            oracle.launch()
            # Sometimes it is not even ready when it dies, sometimes it gets through with much.
            await asyncio.sleep(random.choice((0.05, 0.2, 0.5, 1.5)) * (0.5 + random.random()))
            await oracle.daemon.kill()
            kills += 1
        await load
        oracle.launch()
        say(f"{kills} kills, {len(oracle.asked)} requests, seed {seed}")
        await oracle.at_rest()
        breaches = await broken_laws(place, as_expected=False)
        fulfilled = await share_fulfilled(oracle)
    assert not breaches, f"ORACLE_CHAOS_SEED={seed}\n" + "\n".join(breaches)
    assert fulfilled >= LEAST_FULFILLED, f"ORACLE_CHAOS_SEED={seed}: {fulfilled:.0%} were fulfilled"
