"""Kill the daemon before and after every durable write and every call that leaves it, and ask the chain what it saw."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from chaos_laws import broken_laws
from chaos_length import IS_LONG, chance, say, seconds
from chaos_lives import Kill, killed, recorded
from chaos_scenarios import SCENARIOS, Scenario
from chaos_town import Town, town

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]

AT_ONCE = 10
TRIES = 3
"""Some points are reached only if time allows, such as a second look at a job that was not done at the first."""
_SAME_KIND = re.compile(r"\b(free|broken|stuck)\b|\b(dear|leaky)\b")

Made = TypeVar("Made")


@pytest.mark.timeout(600)
async def test_whatever_point_the_daemon_is_killed_at_every_law_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    async with town(tmp_path, host=IS_LONG) as place:
        reached = await points(place)
        by_point = grouped(reached)
        numbers = itertools.count()

        async def one(point: str, scenarios: Sequence[Scenario]) -> str | None:
            for scenario in itertools.islice(itertools.cycle(scenarios), TRIES):
                kill = Kill(point, scenario)
                try:
                    if await killed(place, kill, f"{next(numbers):03d}"):
                        return None
                except AssertionError as error:
                    return f"{kill}: {error}"
            return f"{point}: recorded once, and not reached again"

        outcomes = await in_turn([lambda p=p, s=s: one(p, s) for p, s in by_point.items()])
        breaches = [outcome for outcome in outcomes if outcome] + await broken_laws(place, as_expected=True)
    say(capsys, f"{len(by_point)} crash points in {time.monotonic() - began:.0f} s")
    assert not breaches, "\n".join(breaches)


@pytest.mark.long
@pytest.mark.skipif(not IS_LONG, reason="every scenario at every point, again and again: `make test-all`")
@pytest.mark.timeout(1200)
async def test_every_scenario_keeps_every_law_wherever_it_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, random = chance()
    until = time.monotonic() + seconds(600)
    async with town(tmp_path, host=IS_LONG) as place:
        reached = await points(place)
        kills = [Kill(p, s, n) for n in (1, 2, 3) for s, reached_by in reached.items() for p in reached_by]
        random.shuffle(kills)
        numbers = itertools.count()
        breaches: list[str] = []
        crashes = 0

        async def one(kill: Kill) -> None:
            nonlocal crashes
            if time.monotonic() < until:
                try:
                    crashes += await killed(place, kill, f"{next(numbers):04d}")
                except AssertionError as error:
                    breaches.append(f"{kill}: {error}")

        await in_turn([lambda k=k: one(k) for k in kills])
        breaches += await broken_laws(place, as_expected=True)
    say(capsys, f"{crashes} crashes, seed {seed}")
    assert not breaches, f"ORACLE_CHAOS_SEED={seed}\n" + "\n".join(breaches)


async def points(place: Town) -> Mapping[Scenario, Sequence[str]]:
    found = await in_turn([lambda n=n, s=s: recorded(place, s, f"record-{n}") for n, s in enumerate(SCENARIOS)])
    return dict(zip(SCENARIOS, found, strict=True))


def grouped(reached: Mapping[Scenario, Sequence[str]]) -> dict[str, list[Scenario]]:
    """Each point with the scenarios that reach it, the quickest first. Chat servers of one kind share their points."""
    kinds: dict[str, tuple[str, list[Scenario]]] = {}
    for scenario, reached_by in reached.items():
        for point in reached_by:
            kind = _SAME_KIND.sub(lambda found: "chat" if found[1] else "paid chat", point)
            first, scenarios = kinds.setdefault(kind, (point, []))
            if first == point:
                scenarios.append(scenario)
    return dict(kinds.values())


async def in_turn(jobs: Sequence[Callable[[], Awaitable[Made]]]) -> list[Made]:
    """All results, a few at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(job: Callable[[], Awaitable[Made]]) -> Made:
        async with gate:
            return await job()

    return await asyncio.gather(*(one(job) for job in jobs))
