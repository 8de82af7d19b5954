"""Kill the daemon before and after every durable write and every call that leaves it, and ask the chain what it saw."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from chaos_laws import broken_laws
from chaos_length import IS_LONG, Say, chance, seconds
from chaos_lives import Kill, killed
from chaos_matrix import breaches_of_all, in_turn, points
from chaos_scenarios import LIVES, SCENARIOS
from chaos_town import SOON_FINAL, town

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]


@pytest.mark.timeout(600)
async def test_whatever_point_the_daemon_is_killed_at_every_law_is_kept(tmp_path: Path, say: Say) -> None:
    began = time.monotonic()
    async with town(tmp_path, config=SOON_FINAL) as place:
        reached = await points(place, LIVES)
        killed_at, breaches = await breaches_of_all(place, reached, but={})
    say(f"{killed_at} crash points in {time.monotonic() - began:.0f} s")
    assert not breaches, "\n".join(breaches)


@pytest.mark.long
@pytest.mark.skipif(not IS_LONG, reason="every scenario at every point, again and again: `make test-all`")
@pytest.mark.timeout(1200)
async def test_every_scenario_keeps_every_law_wherever_it_is_killed(tmp_path: Path, say: Say) -> None:
    seed, random = chance()
    until = time.monotonic() + seconds(600)
    async with town(tmp_path, config=SOON_FINAL, host=True) as place:
        reached = await points(place, SCENARIOS)
        kills = [Kill(p, s, n) for n in (1, 2, 3) for s, reached_by in reached.items() for p in reached_by]
        random.shuffle(kills)
        numbers = itertools.count()
        breaches: list[str] = []
        crashes = 0

        async def one(kill: Kill) -> None:
            nonlocal crashes
            if time.monotonic() < until:
                try:
                    missed = await killed(place, [kill], f"{next(numbers):04d}")
                    crashes += not missed
                except AssertionError as error:
                    breaches.append(f"{kill}: {error}")

        await in_turn([lambda k=k: one(k) for k in kills])
        breaches += await broken_laws(place, as_expected=True)
    say(f"{crashes} crashes, seed {seed}")
    assert not breaches, f"ORACLE_CHAOS_SEED={seed}\n" + "\n".join(breaches)
