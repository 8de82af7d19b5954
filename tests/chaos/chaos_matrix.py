"""Every crash point of a set of scenarios, once: found in recorded lives, and then killed at."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from chaos_laws import broken_laws
from chaos_length import IS_LONG
from chaos_lives import Kill, killed, recorded
from chaos_scenarios import Scenario
from chaos_town import Town

AT_ONCE = 6
TRIES = 5
"""Some points are reached only if time allows, such as a second look at a job that was not done at the first."""
IN_A_ROW = 1 if IS_LONG else 12
"""How many kills share an oracle. The last point of a row comes first, so that a life ends what was interrupted before
it, and is killed at an earlier point of the next request."""
_SAME_KIND = re.compile(r"\b(free|broken|stuck)\b|\b(dear|leaky)\b")

Made = TypeVar("Made")
Reached = Mapping[Scenario, Sequence[str]]


async def points(place: Town, scenarios: Sequence[Scenario]) -> Reached:
    found = await in_turn([lambda n=n, s=s: recorded(place, s, f"record-{n}") for n, s in enumerate(scenarios)])
    return dict(zip(scenarios, found, strict=True))


async def breaches_of_all(place: Town, reached: Reached, *, but: Reached) -> tuple[int, list[str]]:
    """Kill at every point of `reached` that `but` does not reach, too, and at those that a life is played for. How many
    those are, and every breach."""
    by_point = {point: which for point, which in grouped({**but, **reached}).items() if which[0] in reached}
    kills = [Kill(point, which[0]) for point, which in by_point.items() if point not in which[0].passes]
    kills += [Kill(point, scenario) for scenario in reached for point in scenario.passes]
    numbers = itertools.count()

    async def row(kills: Sequence[Kill]) -> list[str]:
        try:
            missed = await killed(place, kills, f"{next(numbers):03d}")
        except AssertionError as error:
            return [f"{', '.join(map(str, kills))}: {error}"]
        return [breach for kill in missed for breach in await alone(kill)]

    async def alone(missed: Kill) -> list[str]:
        point = missed.point
        ways = [missed.scenario] if point in missed.scenario.passes else by_point[point]
        for scenario in itertools.islice(itertools.cycle(ways), TRIES):
            kill = Kill(point, scenario)
            try:
                if not await killed(place, [kill], f"{next(numbers):03d}"):
                    return []
            except AssertionError as error:
                return [f"{kill}: {error}"]
        return [f"{point}: recorded once, and not reached again"]

    found = await in_turn([lambda kills=kills: row(kills) for kills in rows(kills)])
    return len(kills), [*itertools.chain(*found), *await broken_laws(place, as_expected=True)]


def rows(kills: Sequence[Kill]) -> list[list[Kill]]:
    of: dict[Scenario, list[Kill]] = {}
    for kill in kills:
        of.setdefault(kill.scenario, []).append(kill)
    return [
        list(reversed(row))
        for scenario, its in of.items()
        for row in _parts(its, 1 if scenario.alone or scenario.crash_first else IN_A_ROW)
    ]


def grouped(reached: Reached) -> dict[str, list[Scenario]]:
    """Each point with the scenarios that reach it, the first of them first. Chat servers of one kind share their
    points."""
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


def _parts(kills: Sequence[Kill], size: int) -> list[Sequence[Kill]]:
    return [kills[at : at + size] for at in range(0, len(kills), size)]
