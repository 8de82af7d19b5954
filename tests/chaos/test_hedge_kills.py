"""Kill the daemon before and after everything it does to buy a rival for a slow job, and ask chain, provider and books.

Wherever it dies: one effective settlement, two paid jobs at most, the loser stopped, and both booked.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from chaos_laws import broken_laws
from chaos_length import IS_LONG, Say
from chaos_lives import Kill, killed, recorded
from chaos_scenarios import Scenario
from chaos_town import SOON_FINAL, Oracle, town

from oracle.core.request import Status

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]

AT_ONCE = 8
HEDGE = "before store.write hedge._intend write"
OF_A_PURCHASE = re.compile(r"provider\.submit|store\.write submit\.bought|http\.POST nosana /(jobs/list|pinning)")
"""What the first job does too: that was the first time, the rival's is the second."""
OF_THE_RACE = re.compile(
    r"hedge\.|provider\.submit|http\.POST|provider\.(fetch|cancel)|write (poll\.collect|housekeeping\.cancel)"
)

IN_A_RACE_ALONE = re.compile(r"(before|after) (store\.write hedge\.|provider\.cancel|http\.POST nosana /jobs/\*/stop)")
LEAVES_A_TRACE = re.compile(r"after (store\.write|http\.POST)")
"""The other points are those of purchases without a rival, too, which have a matrix of their own. Before each of them
the world is as it was after the last that leaves a trace: in a race they are for `make test-all`."""
FEWEST_POINTS = 8


async def raced(oracle: Oracle) -> None:
    """Nosana's first host is slow for ever; its jobs are looked up, and can be stopped."""
    oracle.nosana.faults.add("slow_run", seconds=600.0)
    await oracle.ask("raced")


async def doubled(oracle: Oracle) -> None:
    """A chat server is silent, another one answers; neither can repeat nor look up."""
    await oracle.ask("doubled", end=(Status.FULFILLED, Status.REJECTED))


def kills(scenario: Scenario, reached: Sequence[str]) -> list[Kill]:
    at = reached.index(HEDGE)
    again = [Kill(point, scenario, 2) for point in reached[:at] if OF_A_PURCHASE.search(point) and "slow" not in point]
    found = again + [Kill(point, scenario) for point in reached[at:] if OF_THE_RACE.search(point)]
    return [kill for kill in found if IS_LONG or IN_A_RACE_ALONE.match(kill.point) or LEAVES_A_TRACE.match(kill.point)]


@pytest.mark.timeout(300)
async def test_wherever_the_daemon_is_killed_in_a_race_of_two_jobs_no_third_is_paid_and_the_loser_is_stopped(
    tmp_path: Path, say: Say
) -> None:
    began, numbers, gate = time.monotonic(), itertools.count(), asyncio.Semaphore(AT_ONCE)
    async with town(tmp_path, config=SOON_FINAL) as place:

        async def points(scenario: Scenario) -> list[Kill]:
            return kills(scenario, await recorded(place, scenario, f"record-{scenario.name}"))

        async def one(kill: Kill) -> str | None:
            async with gate:
                try:
                    missed = await killed(place, [kill], f"{next(numbers):03d}")
                    return f"{kill}: not reached" if missed else None
                except AssertionError as error:
                    return f"{kill}: {error}"

        races = await asyncio.gather(points(Scenario(raced)), points(Scenario(doubled)))
        found = [breach for breach in await asyncio.gather(*map(one, itertools.chain(*races))) if breach]
        found += await broken_laws(place, as_expected=True)
        found += [f"{oracle.name}: {breach}" for oracle in place.oracles for breach in unfair(oracle)]
    say(f"{sum(map(len, races))} crash points in {time.monotonic() - began:.0f} s")
    assert all(len(each) >= FEWEST_POINTS for each in races)
    assert not found, "\n".join(found)


def unfair(oracle: Oracle) -> list[str]:
    """What the books have against the race of a request."""
    (asked,) = oracle.asked
    tried = oracle.select("SELECT lane, provider, state, job_id FROM attempts ORDER BY id")
    booked = oracle.select("SELECT count(*) FROM ledger WHERE kind = 'job'")
    breaches = [] if booked == [(len(tried),)] else [f"{booked} jobs booked of {tried}"]
    states = [state for _, _, state, _ in tried]
    if states.count("succeeded") > 1 or any(state in ("intended", "unknown", "running") for state in states):
        breaches.append(f"ended as {tried}")
    if asked.model == "raced":
        jobs = oracle.nosana.books()["jobs"]
        running = [job["address"] for job in jobs if job["state"] in ("QUEUED", "RUNNING") and not job["delisted"]]
        if len(jobs) != 2 or running:
            breaches.append(f"{len(jobs)} jobs, {running} not stopped")
    return breaches
